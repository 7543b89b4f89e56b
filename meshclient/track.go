package meshclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Status is what became of a message that was sent, in lower case. The server may
// have others than these.
type Status string

// What a Tracking may say.
const (
	StatusUploading     Status = "uploading"
	StatusAccepted      Status = "accepted"
	StatusAcknowledged  Status = "acknowledged"
	StatusUndeliverable Status = "undeliverable"
	StatusError         Status = "error"
)

// Tracking is what the server knows of a message that this mailbox sent. That the
// recipient acknowledged it means that it was fetched, not that it was read.
// FileName, Subject and Description may name patients.
type Tracking struct {
	MessageID     string
	LocalID       string
	WorkflowID    string
	FileName      string
	Recipient     string
	RecipientName string
	RecipientODS  string
	Status        Status
	Success       bool
	Event         string
	Code          string
	Description   string
	Uploaded      Timestamp
	Expires       Timestamp
	Changed       Timestamp // to this Status
}

// A Timestamp is a time of the server, and as it was written.
type Timestamp struct {
	time.Time // zero if Raw is not understood
	Raw       string
}

// UnmarshalJSON reads every form that MESH is known to use. What is none of them
// keeps its Raw.
func (t *Timestamp) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) != nil {
		s = strings.Trim(string(data[:min(len(data), 40)]), `"`)
	}
	if s == "null" {
		s = ""
	}
	t.Time, t.Raw = parseTime(s), clip(s, 40)
	return nil
}

// text is a string that may come as a number, a truth value, or null.
type text string

func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	switch {
	case json.Unmarshal(data, &s) == nil: // null leaves it empty
		*t = text(s)
	case len(data) > 0 && data[0] != '{' && data[0] != '[':
		*t = text(data)
	}
	return nil
}

// trackingBody is a tracking of version 2, or of version 1 where that has other
// names. encoding/json takes names in any case.
type trackingBody struct {
	MessageID     text      `json:"message_id"`
	LocalID       text      `json:"local_id"`
	WorkflowID    text      `json:"workflow_id"`
	FileName      text      `json:"filename"`
	Recipient     text      `json:"recipient"`
	RecipientName text      `json:"recipient_name"`
	RecipientODS  text      `json:"recipient_ods_code"`
	Status        text      `json:"status"`
	Success       text      `json:"status_success"`
	Event         text      `json:"status_event"`
	Code          text      `json:"status_code"`
	Description   text      `json:"status_description"`
	Uploaded      Timestamp `json:"upload_timestamp"`
	Expires       Timestamp `json:"expiry_time"`
	Changed       Timestamp `json:"status_timestamp"`

	MessageIDv1   text      `json:"messageId"`
	LocalIDv1     text      `json:"localId"`
	WorkflowIDv1  text      `json:"workflowId"`
	FileNamev1    text      `json:"fileName"`
	NameV1        text      `json:"recipientName"`
	ODSv1         text      `json:"recipientOrgCode"`
	SuccessV1     text      `json:"statusSuccess"`
	EventV1       text      `json:"statusEvent"`
	CodeV1        text      `json:"statusCode"`
	DescriptionV1 text      `json:"statusDescription"`
	UploadedV1    Timestamp `json:"uploadTimestamp"`
	ExpiresV1     Timestamp `json:"expiryTime"`
	ChangedV1     Timestamp `json:"statusTimestamp"`
}

func (b *trackingBody) tracking() *Tracking {
	success := string(or(b.Success, b.SuccessV1))
	return &Tracking{
		MessageID: string(or(b.MessageID, b.MessageIDv1)), LocalID: string(or(b.LocalID, b.LocalIDv1)),
		WorkflowID: string(or(b.WorkflowID, b.WorkflowIDv1)), FileName: string(or(b.FileName, b.FileNamev1)),
		Recipient: string(b.Recipient), RecipientName: string(or(b.RecipientName, b.NameV1)),
		RecipientODS: string(or(b.RecipientODS, b.ODSv1)),
		Status:       Status(strings.ToLower(string(b.Status))),
		Success:      strings.EqualFold(success, "true") || strings.EqualFold(success, "SUCCESS"),
		Event:        string(or(b.Event, b.EventV1)), Code: string(or(b.Code, b.CodeV1)),
		Description: string(or(b.Description, b.DescriptionV1)),
		Uploaded:    later(b.Uploaded, b.UploadedV1), Expires: later(b.Expires, b.ExpiresV1), Changed: later(b.Changed, b.ChangedV1),
	}
}

func or(a, b text) text {
	if a != "" {
		return a
	}
	return b
}

func later(a, b Timestamp) Timestamp {
	if a.Raw != "" {
		return a
	}
	return b
}

// Track tells what became of a message that this mailbox sent. Do not ask often.
func (c *Client) Track(ctx context.Context, messageID string) (*Tracking, error) {
	if messageID == "" {
		return nil, local("track", ErrInvalid, "the message id is missing")
	}
	return c.track(ctx, &call{
		op: "track", method: http.MethodGet, path: path(c.conf.Mailbox, "outbox", "tracking"),
		query: "messageID=" + url.QueryEscape(messageID),
	})
}

// TrackLocal is Track by the sender's own id, if one message has that; several
// are ErrNotUnique. NHS has it marked as deprecated, and has nothing else that
// tells what became of a Send without an answer.
func (c *Client) TrackLocal(ctx context.Context, localID string) (*Tracking, error) {
	if localID == "" {
		return nil, local("track", ErrInvalid, "the local id is missing")
	}
	return c.track(ctx, &call{
		op: "track", method: http.MethodGet, path: path(c.conf.Mailbox, "outbox", "tracking", localID), accept: acceptV1,
	})
}

func (c *Client) track(ctx context.Context, k *call) (*Tracking, error) {
	var b trackingBody
	if err := c.call(ctx, k, &b); err != nil {
		return nil, err
	}
	t := b.tracking()
	if t.MessageID == "" && t.Status == "" {
		return nil, badAnswer(k.op, http.StatusOK, "it has neither a message id nor a status")
	}
	return t, nil
}

// An Endpoint is a mailbox that takes a workflow.
type Endpoint struct {
	Mailbox string
	Name    string
}

type endpointsBody struct {
	Results []struct {
		Mailbox     text `json:"mailbox_id"`
		Name        text `json:"mailbox_name"`
		Address     text `json:"address"` // version 1
		Description text `json:"description"`
	} `json:"results"`
}

// Lookup returns the mailboxes in which the organisation with an ODS code takes a
// workflow, none if there are none.
func (c *Client) Lookup(ctx context.Context, odsCode, workflowID string) ([]Endpoint, error) {
	if odsCode == "" {
		return nil, local("lookup", ErrInvalid, "the ODS code is missing")
	}
	return c.endpoints(ctx, workflowID, path("endpointlookup", odsCode, workflowID))
}

// SearchWorkflow returns all mailboxes that take a workflow.
func (c *Client) SearchWorkflow(ctx context.Context, workflowID string) ([]Endpoint, error) {
	return c.endpoints(ctx, workflowID, path("workflowsearch", workflowID))
}

func (c *Client) endpoints(ctx context.Context, workflowID, p string) ([]Endpoint, error) {
	if workflowID == "" {
		return nil, local("lookup", ErrInvalid, "the workflow id is missing")
	}
	var b endpointsBody
	if err := c.call(ctx, &call{op: "lookup", method: http.MethodGet, path: p}, &b); err != nil {
		return nil, err
	}
	var found []Endpoint
	for _, r := range b.Results {
		found = append(found, Endpoint{Mailbox: string(or(r.Mailbox, r.Address)), Name: string(or(r.Name, r.Description))})
	}
	return found, nil
}
