package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	maxDispatch = 10 << 20 // bytes of a body, as package cluster has it
	// dispatchMemory is how long a dispatch id is remembered: far longer than a
	// node tries again for want of an answer.
	dispatchMemory = 7 * 24 * time.Hour
)

func (s *Server) dispatchRoutes() []route {
	return []route{
		{method: "POST", pattern: "/api/internal/dispatch", access: nodes, handler: s.dispatch, body: []string{typeJSON}, takes: dispatched{}, maxBody: maxDispatch, unlimited: true, gives: dispatchAnswer{}, refuses: intakeErrors, summary: "Another node of the cluster puts a message into a channel"},
	}
}

// dispatched is the body of a dispatch. DispatchID is carewire's: a node that has had
// no answer sends the same message with the same id again.
type dispatched struct {
	ChannelID  string         `json:"channelId"`
	RawData    *string        `json:"rawData,omitempty"`
	RawBytes   []byte         `json:"rawDataBase64,omitempty"` // in place of RawData, for what is not text
	SourceMap  map[string]any `json:"sourceMap,omitempty"`
	DispatchID string         `json:"dispatchId,omitempty"`
}

type dispatchAnswer struct {
	MessageID int64  `json:"messageId"`
	Status    string `json:"status"`
}

// dispatch answers after the commit. Package cluster has let the node in.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		badBody(w, err)
		return
	}
	var d dispatched
	if err := json.Unmarshal(data, &d); err != nil {
		badBody(w, err)
		return
	}
	raw, err := d.raw(data)
	switch {
	case errors.Is(err, errNotText):
		badRequest(w, "rawData is not the text that was meant: send rawDataBase64")
		return
	case err != nil || d.ChannelID == "":
		badRequestNamed(w, "Missing channelId or rawData", "")
		return
	case len(d.DispatchID) > 256:
		badRequest(w, "dispatchId has 256 bytes at most")
		return
	}
	in := engine.Injected{Raw: raw, Notes: d.notes(r)}
	if name := d.name(r); name != "" {
		in.Once = store.Once{Key: onceKey(name, raw), For: dispatchMemory}
	}
	id, err := s.engine.Inject(r.Context(), d.ChannelID, in)
	state, refused := errors.AsType[*engine.StateError](err)
	switch {
	case err == nil:
		answer(w, http.StatusOK, dispatchAnswer{MessageID: id, Status: "QUEUED"})
	case errors.Is(err, engine.ErrUnknownChannel), refused && state.State == engine.Undeployed:
		answer(w, http.StatusInternalServerError, failure{Error: "Channel not deployed: " + d.ChannelID})
	case refused:
		answer(w, http.StatusInternalServerError, failure{Error: state.Error()})
	default:
		s.intakeFailed(w, r, err)
	}
}

// notes returns the sender's source map with what we know ourselves, which nobody else
// says.
func (d *dispatched) notes(r *http.Request) map[string]string {
	notes := make(map[string]string)
	for name, value := range d.SourceMap {
		text, isText := value.(string)
		if !isText {
			encoded, _ := json.Marshal(value) // it was JSON
			text = string(encoded)
		}
		notes[name] = text
	}
	notes["remoteAddress"] = exchangeOf(r.Context()).client.String()
	delete(notes, "clusterNode")
	if peer, ok := cluster.PeerFrom(r.Context()); ok && peer.Node != "" {
		notes["clusterNode"] = peer.Node
	}
	return notes
}

var (
	errNotText = errors.New("not text")
	errNoData  = errors.New("no data")
)

// raw returns the message. What encoding/json would have replaced is not taken: the
// message would be another one.
func (d *dispatched) raw(body []byte) ([]byte, error) {
	switch {
	case (d.RawData == nil) == (d.RawBytes == nil):
		return nil, errNoData
	case d.RawData == nil:
		return d.RawBytes, nil
	case !utf8.Valid(body), // it stands for half of a surrogate pair if it does not stand there itself
		strings.ContainsRune(*d.RawData, utf8.RuneError) &&
			!bytes.Contains(body, []byte("\uFFFD")) && !bytes.Contains(bytes.ToLower(body), []byte(`\ufffd`)):
		return nil, errNotText
	}
	return []byte(*d.RawData), nil
}

// name is what a dispatch goes by: its id, or the nonce of its signature, which no two
// have. Package cluster refuses a signed request that comes again, but its memory ends
// with the process: whoever recorded one from a sender whose clock is ahead could have
// it taken in again after a restart. Empty: there is nothing to know it by.
func (d *dispatched) name(r *http.Request) string {
	if d.DispatchID != "" {
		return fmt.Sprintf("%d %s", len(d.DispatchID), d.DispatchID)
	}
	if peer, _ := cluster.PeerFrom(r.Context()); peer.Nonce != "" {
		return "nonce " + peer.Nonce
	}
	return ""
}

// onceKey stands for a dispatch. The message is part of it: another one under an id that
// was used by mistake is never dropped.
func onceKey(name string, raw []byte) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "dispatch %s", name)
	h.Write(raw)
	return h.Sum(nil)
}
