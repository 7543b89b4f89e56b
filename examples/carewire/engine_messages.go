package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// engineMessageCmds are the commands of `carewire engine messages`.
type engineMessageCmds struct {
	List      messageListCmd      `cmd:"" help:"List messages, the youngest first, without content."`
	Get       messageGetCmd       `cmd:"" help:"Write the content of a message to a file; the engine's audit log says who did."`
	Send      messageSendCmd      `cmd:"" help:"Put a file, as it is, into a channel as one message."`
	Reprocess messageReprocessCmd `cmd:"" help:"Have a channel take a message in again, as a new one."`
	Dead      messageDeadCmd      `cmd:"" help:"List the messages that a destination set aside."`
	Requeue   messageRequeueCmd   `cmd:"" help:"Put messages that were set aside at the end of their queue."`
}

// on opens a client and finds the command's channel.
func (c *oneChannel) on(ctx context.Context) (client *engineClient, id string, err error) {
	if client, err = c.client(); err != nil {
		return nil, "", err
	}
	if id, err = client.channelID(ctx, c.Channel); err != nil {
		_ = client.sender.Close() // nothing of it is in use
		return nil, "", err
	}
	return client, id, nil
}

// messageListCmd is `carewire engine messages list`.
type messageListCmd struct {
	oneChannel
	Status    string `placeholder:"WORD" help:"Only those with a delivery that is queued, sent or error, or filtered, which have none."`
	ControlID string `name:"control-id" placeholder:"ID" help:"Only those with this MSH-10."`
	Since     string `placeholder:"TIME" help:"Only those received not before this time, such as 2026-01-31T12:00:00Z."`
	Until     string `placeholder:"TIME" help:"Only those received before this time."`
	Before    int64  `placeholder:"N" help:"Only those with a lower number: the next page."`
	Limit     int    `default:"20" placeholder:"N" help:"How many (default: ${default}, at most 500)."`
}

// messageState is what is printed of a message.
type messageState struct {
	MessageID         int64  `json:"messageId"`
	ReceivedDate      string `json:"receivedDate"`
	ControlID         string `json:"controlId"`
	Bytes             int64  `json:"bytes"`
	ConnectorMessages map[string]struct {
		MetaDataID    int    `json:"metaDataId"`
		ConnectorName string `json:"connectorName"`
		Status        string `json:"status"`
	} `json:"connectorMessages"`
}

func (c *messageListCmd) Run(ctx context.Context, s *streams) error {
	query := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	for name, value := range map[string]string{
		"status": c.Status, "controlId": c.ControlID, "startDate": c.Since, "endDate": c.Until,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if c.Before > 1 {
		query.Set("maxMessageId", strconv.FormatInt(c.Before-1, 10))
	}
	client, id, err := c.on(ctx)
	if err != nil {
		return err
	}
	defer client.sender.Close()
	var raw []json.RawMessage
	if err := client.get(ctx, channelPath(id, "/messages?"+query.Encode()), &raw); err != nil {
		return err
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if !c.JSON {
		fmt.Fprintln(w, "NUMBER\tRECEIVED\tCONTROL ID\tBYTES\tCONNECTORS")
	}
	for _, line := range raw {
		if c.JSON {
			if err := s.printJSON(line); err != nil {
				return err
			}
			continue
		}
		var m messageState
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("the engine's answer is not what was asked for: %w", err)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\n", m.MessageID, shown(m.ReceivedDate, ""), shown(m.ControlID, ""), m.Bytes, m.states())
	}
	return w.Flush()
}

// states shows where each connector is with a message, in Mirth's letters.
func (m *messageState) states() string {
	var all []string
	for _, key := range slices.Sorted(func(yield func(int) bool) {
		for _, c := range m.ConnectorMessages {
			if !yield(c.MetaDataID) {
				return
			}
		}
	}) {
		c := m.ConnectorMessages[strconv.Itoa(key)]
		all = append(all, shown(c.ConnectorName, "")+":"+shown(c.Status, ""))
	}
	return strings.Join(all, " ")
}

// messageGetCmd is `carewire engine messages get`.
type messageGetCmd struct {
	oneChannel
	Message int64  `arg:"" help:"The message's number."`
	Out     string `required:"" placeholder:"FILE" help:"Where to write it; - is standard output."`
}

func (c *messageGetCmd) Run(ctx context.Context, s *streams) error {
	client, id, err := c.on(ctx)
	if err != nil {
		return err
	}
	defer client.sender.Close()
	_, data, err := client.ask(ctx, http.MethodGet, channelPath(id, fmt.Sprintf("/messages/%d/content", c.Message)), "", nil)
	if err != nil {
		return err
	}
	if c.Out == "-" {
		_, err = s.out.Write(data)
		return err
	}
	if err := os.WriteFile(c.Out, data, 0o600); err != nil {
		return err
	}
	return c.done(s, fmt.Sprintf("%d bytes written", len(data)))
}

// messageSendCmd is `carewire engine messages send`.
type messageSendCmd struct {
	oneChannel
	File string `arg:"" help:"The message, which is not changed; - is standard input."`
}

func (c *messageSendCmd) Run(ctx context.Context, s *streams) error {
	var text string
	var err error
	if c.File == "-" {
		text, err = readAtMost(s.in, maxBodyBytes)
	} else {
		text, err = readBounded(c.File, maxBodyBytes)
	}
	if err != nil {
		return unusable("%w", err)
	}
	client, id, err := c.on(ctx)
	if err != nil {
		return err
	}
	defer client.sender.Close()
	return c.taken(ctx, s, client, channelPath(id, "/messages"), "stored", []byte(text))
}

// taken has a message taken in, and prints its number.
func (c *oneChannel) taken(ctx context.Context, s *streams, client *engineClient, target, word string, body []byte) error {
	_, data, err := client.ask(ctx, http.MethodPost, target, "application/octet-stream", body)
	if err != nil {
		return err
	}
	var answer struct {
		MessageID int64 `json:"messageId"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return &exitError{status: exitUnknown, err: fmt.Errorf("the engine's answer is not what was asked for: %w", err)}
	}
	if c.JSON {
		return s.printJSON(json.RawMessage(data))
	}
	_, err = fmt.Fprintf(s.out, "%s as message %d\n", word, answer.MessageID)
	return err
}

// messageReprocessCmd is `carewire engine messages reprocess`.
type messageReprocessCmd struct {
	oneChannel
	Message int64 `arg:"" help:"The message's number."`
}

func (c *messageReprocessCmd) Run(ctx context.Context, s *streams) error {
	client, id, err := c.on(ctx)
	if err != nil {
		return err
	}
	defer client.sender.Close()
	return c.taken(ctx, s, client, channelPath(id, fmt.Sprintf("/messages/%d/_reprocess", c.Message)), "taken in again", nil)
}

// messageDeadCmd is `carewire engine messages dead`.
type messageDeadCmd struct {
	oneChannel
	Destination string `placeholder:"NAME" help:"Whose; may be left out where the channel has one."`
	After       int64  `placeholder:"N" help:"Only those with a higher sequence: the next page."`
	Limit       int    `default:"20" placeholder:"N" help:"How many (default: ${default}, at most 500)."`
}

func (c *messageDeadCmd) Run(ctx context.Context, s *streams) error {
	client, id, err := c.on(ctx)
	if err != nil {
		return err
	}
	defer client.sender.Close()
	query := url.Values{"limit": {strconv.Itoa(c.Limit)}, "after": {strconv.FormatInt(c.After, 10)}}
	if c.Destination != "" {
		query.Set("destination", c.Destination)
	}
	var raw []json.RawMessage
	if err := client.get(ctx, channelPath(id, "/deadLetters?"+query.Encode()), &raw); err != nil {
		return err
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if !c.JSON {
		fmt.Fprintln(w, "SEQUENCE\tMESSAGE\tRECEIVED\tCONTROL ID\tATTEMPTS\tLAST ERROR")
	}
	for _, line := range raw {
		if c.JSON {
			if err := s.printJSON(line); err != nil {
				return err
			}
			continue
		}
		var d struct {
			Sequence, MessageID, Attempts      int64
			ReceivedDate, ControlID, LastError string
		}
		if err := json.Unmarshal(line, &d); err != nil {
			return fmt.Errorf("the engine's answer is not what was asked for: %w", err)
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%d\t%s\n", d.Sequence, d.MessageID, shown(d.ReceivedDate, ""), shown(d.ControlID, ""),
			d.Attempts, shown(d.LastError, ""))
	}
	return w.Flush()
}

// messageRequeueCmd is `carewire engine messages requeue`.
type messageRequeueCmd struct {
	oneChannel
	Destination string  `placeholder:"NAME" help:"Whose; may be left out where the channel has one."`
	All         bool    `help:"All that there are."`
	Sequences   []int64 `arg:"" optional:"" name:"sequence" help:"Sequences, as messages dead lists them."`
}

func (c *messageRequeueCmd) Run(ctx context.Context, s *streams) error {
	if c.All == (len(c.Sequences) > 0) {
		return unusable("name sequences, or --all")
	}
	client, id, err := c.on(ctx)
	if err != nil {
		return err
	}
	defer client.sender.Close()
	which := map[string]any{"sequences": c.Sequences}
	if c.All {
		which = map[string]any{"all": true}
	}
	body, err := json.Marshal(which)
	if err != nil {
		return err
	}
	target := channelPath(id, "/deadLetters/_requeue?"+url.Values{"destination": {c.Destination}}.Encode())
	_, data, err := client.ask(ctx, http.MethodPost, target, "application/json", body)
	if err != nil {
		return err
	}
	var answer struct {
		Requeued int
		NotFound []int64
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return &exitError{status: exitUnknown, err: fmt.Errorf("the engine's answer is not what was asked for: %w", err)}
	}
	if c.JSON {
		err = s.printJSON(json.RawMessage(data))
	} else {
		_, err = fmt.Fprintf(s.out, "requeued: %d\n", answer.Requeued)
	}
	if len(answer.NotFound) > 0 && err == nil {
		return &exitError{status: exitNacked, err: fmt.Errorf("these are no dead letters: %v", answer.NotFound)}
	}
	return err
}
