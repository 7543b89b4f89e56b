package api

import (
	"slices"
	"strconv"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// message is a message's JSON, in the shape of Mirth's, without content.
type message struct {
	MessageID         int64                       `json:"messageId"`
	ChannelID         string                      `json:"channelId"`
	ServerID          string                      `json:"serverId"`
	ReceivedDate      string                      `json:"receivedDate"`
	Processed         bool                        `json:"processed"` // no delivery waits
	OriginalID        int64                       `json:"originalId,omitempty"`
	ControlID         string                      `json:"controlId,omitempty"`
	Bytes             int64                       `json:"bytes"`
	ConnectorMessages map[string]connectorMessage `json:"connectorMessages"` // by metaDataId
}

// connectorMessage is what one connector has done with a message. The letters are
// Mirth's: of the source T (taken over to destinations) or F (there are none), of a
// destination S (sent), Q (queued) or E (dead letter). What is received is stored at
// once and what is sent is done, so that R and P do not occur.
type connectorMessage struct {
	MessageID     int64             `json:"messageId"`
	MetaDataID    int               `json:"metaDataId"`
	ConnectorName string            `json:"connectorName"`
	Status        string            `json:"status"`
	SendAttempts  int               `json:"sendAttempts"` // failed ones
	MaybeSent     bool              `json:"maybeSent,omitempty"`
	Sequence      int64             `json:"sequence,omitempty"` // of the delivery: a dead letter is requeued by it
	NextAttempt   string            `json:"nextAttempt,omitempty"`
	ResponseDate  string            `json:"responseDate,omitempty"`
	LastError     string            `json:"lastError,omitempty"`
	SourceMap     map[string]string `json:"sourceMap,omitempty"`
}

func (s *Server) describeMessage(m *store.Summary) message {
	notes, _ := m.Source.Notes() // of a damaged map nothing is shown
	shown := message{
		MessageID: m.ID, ChannelID: m.Channel, ServerID: s.serverID, ReceivedDate: isoTime(m.Received), Processed: true,
		ControlID: m.ControlID, Bytes: m.Bytes, ConnectorMessages: make(map[string]connectorMessage),
	}
	shown.OriginalID, _ = strconv.ParseInt(notes[engine.ReprocessedNote], 10, 64) // 0 where there is none
	source := connectorMessage{MessageID: m.ID, ConnectorName: "Source", Status: "T", SourceMap: notes}
	if len(m.Deliveries) == 0 {
		source.Status = "F"
	}
	shown.ConnectorMessages["0"] = source
	number := s.numbers(m)
	for _, o := range m.Deliveries {
		n := number(o.Destination)
		c := connectorMessage{
			MessageID: m.ID, MetaDataID: n, ConnectorName: o.Destination, SendAttempts: o.Attempts, MaybeSent: o.MaybeSent,
			Sequence: o.Seq, LastError: o.LastError,
		}
		switch o.State {
		case store.Sent:
			c.Status = "S"
		case store.Dead:
			c.Status = "E"
		default:
			c.Status, shown.Processed = "Q", false
		}
		if !o.NextAt.IsZero() {
			c.NextAttempt = isoTime(o.NextAt)
		}
		if !o.DoneAt.IsZero() {
			c.ResponseDate = isoTime(o.DoneAt)
		}
		shown.ConnectorMessages[strconv.Itoa(n)] = c
	}
	return shown
}

// numbers returns the function that gives a destination its metaDataId: its place in
// the channel, and behind these for one that the channel has no more.
func (s *Server) numbers(m *store.Summary) func(string) int {
	var names []string
	channels := s.engine.Channels()
	if i := slices.IndexFunc(channels, func(c *config.Channel) bool { return c.ID == m.Channel }); i >= 0 {
		for _, d := range channels[i].Destinations {
			names = append(names, d.Name)
		}
	}
	return func(name string) int {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		return slices.Index(names, name) + 1
	}
}
