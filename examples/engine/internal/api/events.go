package api

import (
	"math"
	"net/http"
	"strconv"

	"github.com/carewire/carewire/examples/engine/internal/audit"
)

func (s *Server) eventRoutes() []route {
	return []route{
		{method: "GET", pattern: "/api/events", access: admins, handler: s.events, query: []param{numberParam("limit", 1, maxEvents), numberParam("maxEventId", 1, math.MaxInt64)}, gives: []eventBody{}, refuses: []int{http.StatusBadRequest, http.StatusServiceUnavailable}, summary: "The audit log, the latest first"},
	}
}

// The number of events in an answer.
const (
	defaultEvents = 100
	maxEvents     = 1000
)

// eventBody is an event in the shape of Mirth's.
type eventBody struct {
	ID         uint64            `json:"id"`
	DateTime   string            `json:"dateTime"`
	Level      string            `json:"level"`
	Name       string            `json:"name"`
	Attributes map[string]string `json:"attributes"`
	Outcome    audit.Outcome     `json:"outcome"`
	UserID     int               `json:"userId"` // 0: nobody
	Username   string            `json:"username,omitempty"`
	IPAddress  string            `json:"ipAddress,omitempty"`
	RequestID  string            `json:"requestId,omitempty"`
	ServerID   string            `json:"serverId"`
	Hash       string            `json:"hash"`
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, maxID := defaultEvents, uint64(0)
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxEvents {
			badRequest(w, "limit is a number from 1 to "+strconv.Itoa(maxEvents))
			return
		}
		limit = n
	}
	if text := query.Get("maxEventId"); text != "" {
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil || n == 0 {
			badRequest(w, "maxEventId is the number of an event")
			return
		}
		maxID = n
	}
	if s.audit == nil {
		unavailable(w, "There is no audit log")
		return
	}
	records, err := s.audit.Read(limit, maxID)
	if err != nil {
		s.log.ErrorContext(r.Context(), "the audit log cannot be read", "err", err)
		unavailable(w, "The audit log cannot be read")
		return
	}
	list := make([]eventBody, len(records))
	for i, rec := range records {
		level := "INFORMATION"
		if rec.Outcome == audit.Failure {
			level = "WARNING"
		}
		attributes := rec.Attributes
		if attributes == nil {
			attributes = map[string]string{}
		}
		list[i] = eventBody{
			ID: rec.Seq, DateTime: isoTime(rec.Time), Level: level, Name: rec.Action, Attributes: attributes, Outcome: rec.Outcome,
			UserID: rec.UserID, Username: rec.User, IPAddress: rec.Client, RequestID: rec.Request, ServerID: s.serverID, Hash: rec.Hash,
		}
	}
	answer(w, http.StatusOK, list)
}
