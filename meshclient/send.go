package meshclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/carewire/carewire/httpsender"
)

// Sent is a message that the server has accepted.
type Sent struct {
	MessageID string
	LocalID   string
	Chunks    int
	Checksum  string // as the recipient gets it; "" after a Resume and with NoChecksum
}

// SendState is how far the sending of a message in chunks has come. It holds no
// secret, and survives encoding/json.
type SendState struct {
	Mailbox   string `json:"mailbox"`
	MessageID string `json:"messageId"`
	LocalID   string `json:"localId"`
	Size      int64  `json:"size"`      // of Content
	SHA256    string `json:"sha256"`    // of Content
	ChunkSize int64  `json:"chunkSize"` // as it was when the sending began
	Chunks    int    `json:"chunks"`    // in all
	Next      int    `json:"next"`      // the first that the server does not have
	Gzip      bool   `json:"gzip"`
}

const octets = "application/octet-stream"

// Send sends a message, in chunks if it is larger than one. The error is an
// *Error.
//
// A message of one piece is sent once, unless the server said that it did not
// take it. If the connection ends before the answer, the error is
// ErrOutcomeUnknown, and MaybeDelivered is true: TrackLocal with its LocalID may
// tell. A chunk is sent as often as it takes: a message in chunks exists for its
// recipient only when the server has the last one. If the answer to that one is
// lost, Send asks the server what became of the message.
func (c *Client) Send(ctx context.Context, m *Message) (*Sent, error) {
	if m.Content == nil {
		return nil, local("send", ErrInvalid, "Content is missing")
	}
	if m.NoChecksum && m.Checksum != "" {
		return nil, local("send", ErrInvalid, "Checksum and NoChecksum are both set")
	}
	if m.Resume != nil {
		return c.resume(ctx, m)
	}
	p, err := planOf(m.Content.Size(), m.ChunkSize, m.SmallChunks, m.Gzip)
	if err != nil {
		return nil, err
	}
	one := *m
	if one.LocalID == "" {
		one.LocalID = newUUID()
	}
	// What can be refused is, before gigabytes are read.
	if _, err = one.header(c.conf.Mailbox, p.n, one.Checksum); err != nil {
		return nil, err
	}
	src, err := newSource(ctx, m.Content, p, p.n > 1 || !m.NoChecksum && m.Checksum == "")
	if err != nil {
		return nil, err
	}
	checksum := one.Checksum
	if checksum == "" && !m.NoChecksum {
		checksum = "sha256:" + src.whole
	}
	h, err := one.header(c.conf.Mailbox, p.n, checksum)
	if err != nil {
		return nil, err
	}
	id, err := c.first(ctx, &one, src, h)
	if err != nil {
		return nil, err
	}
	sent := &Sent{MessageID: id, LocalID: one.LocalID, Chunks: p.n, Checksum: checksum}
	if p.n == 1 {
		return sent, nil
	}
	state := SendState{
		Mailbox: c.conf.Mailbox, MessageID: id, LocalID: one.LocalID, Size: p.size, SHA256: src.whole,
		ChunkSize: p.chunk, Chunks: p.n, Next: 2, Gzip: m.Gzip,
	}
	if err := c.rest(ctx, m, src, &state, true); err != nil {
		return nil, err
	}
	return sent, nil
}

// first sends the first chunk, or the only one, and returns the message's id.
func (c *Client) first(ctx context.Context, m *Message, src *source, h http.Header) (string, error) {
	contentType := octets
	if m.ContentType != "" && src.plan.n == 1 {
		contentType = m.ContentType
	}
	k := &call{
		op: "send", method: http.MethodPost, path: path(c.conf.Mailbox, "outbox"), header: h,
		body: src.body(contentType, 1, m.Gzip),
	}
	var answer struct {
		V2 string `json:"message_id"`
		V1 string `json:"messageID"`
	}
	err := c.call(ctx, k, &answer)
	id := answer.V2
	if id == "" {
		id = answer.V1
	}
	if err == nil && (id == "" || word(id, maxID) == "") {
		err = badAnswer("send", http.StatusAccepted, "it has no message id")
	}
	if err == nil {
		return id, nil
	}
	e := asError(err)
	e.LocalID = m.LocalID
	if src.changed.Load() {
		return "", changedError(e)
	}
	if accepted := e.Status >= 200 && e.Status < 300; accepted {
		e.outcome, e.lasting = httpsender.Unknown, true // it took something
	}
	switch {
	case e.outcome != httpsender.Unknown:
	case src.plan.n > 1:
		e.outcome, e.lasting = httpsender.Retryable, false // whatever the server has of it stays incomplete
	default:
		e.kind = append(e.kind, ErrOutcomeUnknown)
	}
	return "", e
}

// changedError is for a chunk that was stopped by its own source.
func changedError(e *Error) *Error {
	e.kind, e.outcome, e.lasting, e.cause = []error{ErrSourceChanged}, httpsender.Rejected, true, nil
	return e
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Op: "send", outcome: httpsender.Unknown, cause: err}
}

// resume goes on with m.Resume.
func (c *Client) resume(ctx context.Context, m *Message) (*Sent, error) {
	s := *m.Resume
	p, err := planOf(s.Size, s.ChunkSize, true, s.Gzip)
	switch {
	case err != nil || s.ChunkSize == 0 || s.Chunks != p.n || s.Next < 2 || s.Next > s.Chunks || s.MessageID == "" || len(s.MessageID) > maxID:
		return nil, local("send", ErrInvalid, "Resume is not the state of a message in chunks")
	case s.Mailbox != c.conf.Mailbox:
		return nil, local("send", ErrInvalid, "Resume is the state of another mailbox")
	case m.Content.Size() != s.Size:
		return nil, local("send", ErrSourceChanged, "Content has another length than when its sending began")
	}
	src, err := newSource(ctx, m.Content, p, true)
	if err != nil {
		return nil, err
	}
	if src.whole != s.SHA256 {
		return nil, local("send", ErrSourceChanged, "Content has another SHA-256 than when its sending began")
	}
	sent := &Sent{MessageID: s.MessageID, LocalID: s.LocalID, Chunks: s.Chunks}
	if err := c.rest(ctx, m, src, &s, false); err != nil {
		return nil, err
	}
	return sent, nil
}

// rest sends the chunks from s.Next on, in order: the last one completes the
// message, whatever the server has of the others. fresh tells that the state of
// s has not been told yet.
func (c *Client) rest(ctx context.Context, m *Message, src *source, s *SendState, fresh bool) error {
	for ; s.Next <= s.Chunks; s.Next++ {
		if fresh && m.Checkpoint != nil {
			if err := m.Checkpoint(*s); err != nil {
				return &Error{
					Op: "send", MessageID: s.MessageID, LocalID: s.LocalID,
					outcome: httpsender.Retryable, cause: fmt.Errorf("storing the state failed: %w", err),
				}
			}
		}
		fresh = true
		h := http.Header{}
		h.Set("Mex-Chunk-Range", fmt.Sprintf("%d:%d", s.Next, s.Chunks))
		k := &call{
			op: "send", method: http.MethodPost, path: path(c.conf.Mailbox, "outbox", s.MessageID, strconv.Itoa(s.Next)),
			header: h, body: src.body(octets, s.Next, s.Gzip), again: true,
		}
		src.opened.Store(0)
		// The answer's body is null, {}, nothing, or an id that is known.
		if err := c.call(ctx, k, nil); err != nil {
			if err = c.chunkFailed(ctx, asError(err), src, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunkFailed returns what the failure of chunk s.Next means, nil for nothing.
func (c *Client) chunkFailed(ctx context.Context, e *Error, src *source, s *SendState) error {
	e.MessageID, e.LocalID = s.MessageID, s.LocalID
	switch {
	case src.changed.Load():
		return changedError(e)
	case s.Next < s.Chunks:
		if e.outcome == httpsender.Unknown {
			e.outcome = httpsender.Retryable // the message is incomplete
		}
		return e
	}
	// It was the last. Even an answer that refuses it may be the answer to its
	// second try, after the first was taken.
	asking, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	t, err := c.Track(asking, s.MessageID)
	switch {
	case err == nil && (t.Status == StatusAccepted || t.Status == StatusAcknowledged):
		return nil
	case err == nil && t.Status == StatusUploading:
		if e.outcome == httpsender.Unknown {
			e.outcome = httpsender.Retryable
		}
	case err == nil: // undeliverable, or in error
		e.outcome, e.lasting = httpsender.Rejected, true
	case e.Status == 0 || e.Status >= 500 || errors.Is(e, ErrFinalised) || src.opened.Load() > 1:
		e.kind = append(e.kind, ErrOutcomeUnknown)
		e.outcome = httpsender.Unknown
	}
	return e
}
