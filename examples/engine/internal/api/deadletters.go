package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

func (s *Server) deadLetterRoutes() []route {
	return []route{
		{method: "GET", pattern: "/api/channels/{channelId}/deadLetters", access: operators, handler: s.deadLetters, query: []param{textParam("destination"), listParam("metaDataId"), numberParam("after", 0, maxSequence), numberParam("limit", 0, maxPage)}, gives: []deadLetter{}, refuses: searchErrors, summary: "Messages that one destination set aside, oldest first, without content"},
		{method: "POST", pattern: "/api/channels/{channelId}/deadLetters/{sequence}/_requeue", access: operators, audit: "deadletter.requeue", handler: s.requeueOne, query: []param{textParam("destination"), listParam("metaDataId")}, gives: requeuedOne{}, refuses: requeueErrors, summary: "Put a dead letter at the end of its queue"},
		{method: "POST", pattern: "/api/channels/{channelId}/deadLetters/_requeue", access: operators, audit: "deadletter.requeue", handler: s.requeueSeveral, body: []string{typeJSON}, takes: requeued{}, query: []param{textParam("destination"), listParam("metaDataId")}, gives: requeuedSeveral{}, refuses: requeueErrors, summary: "Put dead letters, {\"sequences\": [..]} or {\"all\": true}, at the end of their queue"},
	}
}

// maxSequence bounds the sequence of a delivery.
const maxSequence = 1 << 62

// requeueErrors are the statuses of requeueFailed, and of a query or a body that cannot
// be read.
var requeueErrors = []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable}

// What dead letters are requeued with, and what comes back.
type (
	requeued struct {
		Sequences []int64 `json:"sequences,omitempty"`
		All       bool    `json:"all,omitempty"`
	}
	requeuedOne struct {
		Requeued int   `json:"requeued"`
		Sequence int64 `json:"sequence"` // the new one
	}
	requeuedSeveral struct {
		Requeued int     `json:"requeued"`
		NotFound []int64 `json:"notFound,omitempty"`
	}
)

// deadLetter is a dead letter's JSON.
type deadLetter struct {
	Sequence     int64  `json:"sequence"`
	MessageID    int64  `json:"messageId"`
	Destination  string `json:"destination"`
	ControlID    string `json:"controlId,omitempty"`
	ReceivedDate string `json:"receivedDate"`
	Attempts     int    `json:"attempts"`
	MaybeSent    bool   `json:"maybeSent"`
	LastError    string `json:"lastError"`
	Bytes        int    `json:"bytes"`
}

// destination reads which one is meant: by name, by number, or, where a channel has
// just one, by nothing. Where that is not clear, it answers and returns false.
func (s *Server) destination(w http.ResponseWriter, r *http.Request) (name string, ok bool) {
	query := r.URL.Query()
	if name := query.Get("destination"); name != "" {
		return name, true
	}
	names, ok := s.destinations(w, r, query["metaDataId"])
	if !ok {
		return "", false
	}
	if len(names) == 0 {
		names = s.onlyDestination(r.PathValue("channelId"))
	}
	if len(names) != 1 {
		badRequest(w, "Name one destination: destination=NAME")
		return "", false
	}
	return names[0], true
}

func (s *Server) onlyDestination(id string) []string {
	var found *config.Channel
	for _, cfg := range s.engine.Channels() {
		if cfg.ID == id {
			found = cfg
		}
	}
	switch {
	case found == nil:
		return []string{""} // the engine will say that there is no such channel
	case len(found.Destinations) == 1:
		return []string{found.Destinations[0].Name}
	}
	return nil
}

func (s *Server) deadLetters(w http.ResponseWriter, r *http.Request) {
	name, ok := s.destination(w, r)
	if !ok {
		return
	}
	after, ok := number(w, r, "after", 0, maxSequence)
	if !ok {
		return
	}
	limit, ok := number(w, r, "limit", defaultPage, maxPage)
	if !ok {
		return
	}
	found, err := s.engine.DeadLetters(r.Context(), r.PathValue("channelId"), name, after, int(limit))
	if err != nil {
		s.readFailed(w, r, err)
		return
	}
	list := []deadLetter{}
	for i := range found {
		d := &found[i]
		list = append(list, deadLetter{
			Sequence: d.Seq, MessageID: d.Message.ID, Destination: d.Destination, ControlID: d.Message.ControlID,
			ReceivedDate: isoTime(d.Message.Received), Attempts: d.Attempts, MaybeSent: d.MaybeSent, LastError: d.LastError,
			Bytes: len(d.Message.Raw),
		})
	}
	answer(w, http.StatusOK, list)
}

func (s *Server) requeueOne(w http.ResponseWriter, r *http.Request) {
	name, ok := s.destination(w, r)
	if !ok {
		return
	}
	sequence, err := strconv.ParseInt(r.PathValue("sequence"), 10, 64)
	if err != nil {
		answer(w, http.StatusNotFound, failure{Error: "Dead letter not found"})
		return
	}
	fresh, err := s.engine.Requeue(r.Context(), r.PathValue("channelId"), name, sequence)
	if err != nil {
		s.requeueFailed(w, r, err)
		return
	}
	answer(w, http.StatusOK, requeuedOne{Requeued: 1, Sequence: fresh})
}

func (s *Server) requeueSeveral(w http.ResponseWriter, r *http.Request) {
	name, ok := s.destination(w, r)
	if !ok {
		return
	}
	var which requeued
	if !readJSON(w, r, &which) {
		return
	}
	if which.All == (len(which.Sequences) > 0) {
		badRequest(w, `Send {"sequences": [..]} or {"all": true}`)
		return
	}
	// A client that hangs up does not leave it half done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
	defer cancel()
	id := r.PathValue("channelId")
	if which.All {
		n, err := s.engine.RequeueAll(ctx, id, name)
		note(ctx, "requeued", strconv.Itoa(n))
		if err != nil {
			s.requeueFailed(w, r, err)
			return
		}
		answer(w, http.StatusOK, requeuedSeveral{Requeued: n})
		return
	}
	n, missing := 0, []int64(nil)
	defer func() { note(ctx, "requeued", strconv.Itoa(n)) }()
	for _, sequence := range which.Sequences {
		switch _, err := s.engine.Requeue(ctx, id, name, sequence); {
		case err == nil:
			n++
		case errors.Is(err, store.ErrNotFound):
			missing = append(missing, sequence)
		default:
			s.requeueFailed(w, r, err)
			return
		}
	}
	answer(w, http.StatusOK, requeuedSeveral{Requeued: n, NotFound: missing})
}

func (s *Server) requeueFailed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, engine.ErrNoDestination):
		answer(w, http.StatusConflict, failure{Error: "Destination not found", Message: "The channel has no such destination now: nobody would empty its queue"})
	case errors.Is(err, store.ErrNotFound):
		answer(w, http.StatusNotFound, failure{Error: "Dead letter not found"})
	default:
		s.readFailed(w, r, err)
	}
}
