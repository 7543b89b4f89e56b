package api

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// Messages are what an engine can tell of messages, and do with them.
type Messages interface {
	Inject(ctx context.Context, id string, in engine.Injected) (int64, error)
	Reprocess(ctx context.Context, id string, message int64, destinations []string) (int64, error)
	Messages(ctx context.Context, id string, f store.Filter, offset, limit int) ([]store.Summary, error)
	CountMessages(ctx context.Context, id string, f store.Filter) (int64, error)
	Message(ctx context.Context, id string, message int64) (store.Message, error)
	DeadLetters(ctx context.Context, id, destination string, after int64, limit int) ([]store.Delivery, error)
	Requeue(ctx context.Context, id, destination string, seq int64) (int64, error)
	RequeueAll(ctx context.Context, id, destination string) (int, error)
}

const (
	// maxMessage bounds a message that is sent to a channel: what sources take too,
	// unless they are set otherwise.
	maxMessage = 16 << 20
	// searchTime bounds a search.
	searchTime = 10 * time.Second

	defaultPage, maxPage, maxOffset = 20, 500, 100_000
)

// filters are the parameters of a search.
var filters = []param{
	numberParam("minMessageId", 1, math.MaxInt64), numberParam("maxMessageId", 1, math.MaxInt64), textParam("startDate"), textParam("endDate"),
	wordParam("status", "QUEUED", "SENT", "ERROR", "FILTERED"), listParam("metaDataId"), textParam("controlId"),
}

// intakeErrors are the statuses of intakeFailed, and of a query or a body that cannot be
// read.
var intakeErrors = []int{
	http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable,
}

// searchErrors are those of a search.
var searchErrors = []int{http.StatusBadRequest, http.StatusNotFound, http.StatusServiceUnavailable}

// What the routes give back of a message that is taken in.
type (
	sentMessage struct {
		MessageID int64 `json:"messageId"`
		Processed bool  `json:"processed"`
	}
	reprocessedMessage struct {
		MessageID  int64 `json:"messageId"`
		OriginalID int64 `json:"originalId"`
	}
)

func (s *Server) messageRoutes() []route {
	return []route{
		{method: "POST", pattern: "/api/channels/{channelId}/messages", access: operators, audit: "message.send", handler: s.sendMessage, body: []string{typeAny}, maxBody: maxMessage, query: []param{listParam("destinationMetaDataId"), listParam("sourceMapEntry")}, gives: sentMessage{}, refuses: intakeErrors, summary: "Put the body, as it is, into a started channel; the answer comes when it is stored"},
		{method: "GET", pattern: "/api/channels/{channelId}/messages", access: operators, handler: s.messages, query: append(slices.Clone(filters), numberParam("offset", 0, maxOffset), numberParam("limit", 0, maxPage)), gives: []message{}, refuses: searchErrors, summary: "Messages without content, youngest first"},
		{method: "GET", pattern: "/api/channels/{channelId}/messages/count", access: operators, handler: s.countMessages, query: filters, gives: int64(0), refuses: searchErrors, summary: "How many messages there are"},
		{method: "GET", pattern: "/api/channels/{channelId}/messages/maxMessageId", access: operators, handler: s.maxMessageID, gives: int64(0), refuses: readErrors, summary: "The number of the youngest message; 0: there is none"},
		{method: "GET", pattern: "/api/channels/{channelId}/messages/{messageId}", access: operators, handler: s.oneMessage, gives: message{}, refuses: readErrors, summary: "One message, without content, and what became of it"},
		{method: "GET", pattern: "/api/channels/{channelId}/messages/{messageId}/content", access: operators, audit: "message.view", handler: s.content, plain: typeBinary, refuses: readErrors, summary: "The content of a message, byte for byte"},
		{method: "POST", pattern: "/api/channels/{channelId}/messages/{messageId}/_reprocess", access: operators, audit: "message.reprocess", handler: s.reprocess, query: []param{listParam("metaDataId"), flagParam("replace")}, gives: reprocessedMessage{}, refuses: intakeErrors, summary: "Take a message in again, as a new one"},
	}
}

func (s *Server) sendMessage(w http.ResponseWriter, r *http.Request) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		answer(w, http.StatusUnsupportedMediaType, failure{Error: "Unsupported Media Type", Message: "Send the message without a Content-Encoding: it is kept as it comes"})
		return
	}
	query := r.URL.Query()
	destinations, ok := s.destinations(w, r, query["destinationMetaDataId"])
	if !ok {
		return
	}
	x := exchangeOf(r.Context())
	notes := make(map[string]string)
	for _, entry := range query["sourceMapEntry"] {
		name, value, found := strings.Cut(entry, "=")
		if !found || name == "" {
			badRequest(w, "sourceMapEntry takes name=value")
			return
		}
		notes[name] = value
	}
	// After the caller's: nobody else says who sent it.
	notes["remoteAddress"], notes["user"] = x.client.String(), x.user.Name
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		badBody(w, err)
		return
	}
	id, err := s.engine.Inject(r.Context(), r.PathValue("channelId"), engine.Injected{
		Raw: raw, Notes: notes, Destinations: destinations,
	})
	if err != nil {
		s.intakeFailed(w, r, err)
		return
	}
	note(r.Context(), "message", strconv.FormatInt(id, 10))
	answer(w, http.StatusOK, sentMessage{MessageID: id})
}

// intakeFailed answers that a message is not stored.
func (s *Server) intakeFailed(w http.ResponseWriter, r *http.Request, err error) {
	state, refused := errors.AsType[*engine.StateError](err)
	switch {
	case errors.Is(err, engine.ErrUnknownChannel), refused && state.State == engine.Undeployed:
		badRequestNamed(w, "Channel not deployed", "The message was not stored")
	case refused:
		answer(w, http.StatusConflict, failure{Error: state.Error(), Message: "The message was not stored"})
	case errors.Is(err, engine.ErrUnpassable), errors.Is(err, store.ErrInvalid):
		answer(w, http.StatusUnprocessableEntity, failure{Error: "Message refused", Message: "The channel can never deliver this message, and did not store it"})
	case errors.Is(err, engine.ErrNoDestination):
		badRequestNamed(w, "Destination not found", "")
	case errors.Is(err, store.ErrNotFound):
		answer(w, http.StatusNotFound, failure{Error: "Message not found"})
	default:
		s.log.ErrorContext(r.Context(), "message from the API is not stored", "request", exchangeOf(r.Context()).id, "err", err)
		unavailable(w, "The message was not stored: send it again")
	}
}

func badRequestNamed(w http.ResponseWriter, name, message string) {
	answer(w, http.StatusBadRequest, failure{Error: name, Message: message})
}

// destinations returns the names of the destinations with the given numbers, which
// may stand in one text with commas between them; nil for none given. Where one is not
// there, it answers and returns false.
func (s *Server) destinations(w http.ResponseWriter, r *http.Request, numbers []string) (names []string, ok bool) {
	if len(numbers) == 0 {
		return nil, true
	}
	for _, cfg := range s.engine.Channels() {
		if cfg.ID != r.PathValue("channelId") {
			continue
		}
		for text := range strings.SplitSeq(strings.Join(numbers, ","), ",") {
			n, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil || n < 1 || n > len(cfg.Destinations) {
				badRequestNamed(w, "Destination not found", "")
				return nil, false
			}
			names = append(names, cfg.Destinations[n-1].Name)
		}
	}
	return names, true // of a channel that there is not the engine will say so
}

// filter reads what the query asks for. Where it cannot be understood, it answers and
// returns false.
func (s *Server) filter(w http.ResponseWriter, r *http.Request) (f store.Filter, ok bool) {
	query := r.URL.Query()
	f.ControlID = query.Get("controlId")
	for name, into := range map[string]*int64{"minMessageId": &f.MinID, "maxMessageId": &f.MaxID} {
		if text := query.Get(name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 1 {
				badRequest(w, name+" is the number of a message")
				return f, false
			}
			*into = n
		}
	}
	for name, into := range map[string]*time.Time{"startDate": &f.From, "endDate": &f.To} {
		if text := query.Get(name); text != "" {
			at, err := parseTime(text)
			if err != nil {
				badRequest(w, name+" is a time such as 2026-01-31T12:00:00Z")
				return f, false
			}
			*into = at
		}
	}
	if text := query.Get("status"); text != "" {
		// Q, S, E and F are kept; T is what all but filtered ones are.
		states := map[string]store.State{
			"Q": store.Queued, "QUEUED": store.Queued, "S": store.Sent, "SENT": store.Sent,
			"E": store.Dead, "ERROR": store.Dead, "F": store.Filtered, "FILTERED": store.Filtered,
		}
		if f.State, ok = states[strings.ToUpper(text)]; !ok {
			badRequest(w, "status is one of QUEUED, SENT, ERROR and FILTERED")
			return f, false
		}
	}
	names, ok := s.destinations(w, r, query["metaDataId"])
	if !ok {
		return f, false
	}
	if len(names) > 1 || len(names) == 1 && f.State == 0 {
		badRequest(w, "metaDataId is one destination, and goes with status")
		return f, false
	}
	if len(names) == 1 {
		f.Destination = names[0]
	}
	return f, true
}

// parseTime reads ISO 8601, or milliseconds since 1970 as Mirth's clients send them.
func parseTime(text string) (time.Time, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(ms), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05.999-0700", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, errors.New("not a time")
}

// number reads a number from the query that is between 0 and most. Where it is not,
// it answers and returns false.
func number(w http.ResponseWriter, r *http.Request, name string, otherwise, most int64) (int64, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		badRequest(w, name+" is a number from 0 to "+strconv.FormatInt(most, 10))
		return 0, false
	}
	return n, true
}

func (s *Server) messages(w http.ResponseWriter, r *http.Request) {
	f, ok := s.filter(w, r)
	if !ok {
		return
	}
	offset, ok := number(w, r, "offset", 0, maxOffset)
	if !ok {
		return
	}
	limit, ok := number(w, r, "limit", defaultPage, maxPage)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), searchTime)
	defer cancel()
	found, err := s.engine.Messages(ctx, r.PathValue("channelId"), f, int(offset), int(limit))
	if err != nil {
		s.readFailed(w, r, err)
		return
	}
	list := []message{}
	for i := range found {
		list = append(list, s.describeMessage(&found[i]))
	}
	answer(w, http.StatusOK, list)
}

func (s *Server) countMessages(w http.ResponseWriter, r *http.Request) {
	f, ok := s.filter(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), searchTime)
	defer cancel()
	n, err := s.engine.CountMessages(ctx, r.PathValue("channelId"), f)
	if err != nil {
		s.readFailed(w, r, err)
		return
	}
	answer(w, http.StatusOK, n)
}

func (s *Server) maxMessageID(w http.ResponseWriter, r *http.Request) {
	found, err := s.engine.Messages(r.Context(), r.PathValue("channelId"), store.Filter{}, 0, 1)
	if err != nil {
		s.readFailed(w, r, err)
		return
	}
	youngest := int64(0)
	if len(found) > 0 {
		youngest = found[0].ID
	}
	answer(w, http.StatusOK, youngest)
}

// messageID reads the number of a message from the path. Where it is none, it answers
// and returns false.
func messageID(w http.ResponseWriter, r *http.Request) (int64, bool) {
	id, err := strconv.ParseInt(r.PathValue("messageId"), 10, 64)
	if err != nil || id < 1 {
		answer(w, http.StatusNotFound, failure{Error: "Message not found"})
		return 0, false
	}
	return id, true
}

func (s *Server) oneMessage(w http.ResponseWriter, r *http.Request) {
	id, ok := messageID(w, r)
	if !ok {
		return
	}
	found, err := s.engine.Messages(r.Context(), r.PathValue("channelId"), store.Filter{MinID: id, MaxID: id}, 0, 1)
	switch {
	case err != nil:
		s.readFailed(w, r, err)
	case len(found) == 0:
		answer(w, http.StatusNotFound, failure{Error: "Message not found"})
	default:
		answer(w, http.StatusOK, s.describeMessage(&found[0]))
	}
}

func (s *Server) content(w http.ResponseWriter, r *http.Request) {
	id, ok := messageID(w, r)
	if !ok {
		return
	}
	m, err := s.engine.Message(r.Context(), r.PathValue("channelId"), id)
	if err != nil {
		s.readFailed(w, r, err)
		return
	}
	// Whatever it is, no browser is to take it for a page.
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="message-`+strconv.FormatInt(id, 10)+`"`)
	w.Header().Set("Content-Length", strconv.Itoa(len(m.Raw)))
	_, _ = w.Write(m.Raw) // the client has gone
}

func (s *Server) reprocess(w http.ResponseWriter, r *http.Request) {
	id, ok := messageID(w, r)
	if !ok {
		return
	}
	if r.URL.Query().Get("replace") == "true" {
		badRequest(w, "replace: what has happened to a message is not overwritten: it is taken in again as a new one")
		return
	}
	destinations, ok := s.destinations(w, r, r.URL.Query()["metaDataId"])
	if !ok {
		return
	}
	fresh, err := s.engine.Reprocess(r.Context(), r.PathValue("channelId"), id, destinations)
	if err != nil {
		s.intakeFailed(w, r, err)
		return
	}
	note(r.Context(), "message", strconv.FormatInt(fresh, 10))
	answer(w, http.StatusOK, reprocessedMessage{MessageID: fresh, OriginalID: id})
}
