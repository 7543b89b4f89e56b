package api

import (
	"context"
	"net/http"
	"regexp"
	"strconv"

	"github.com/carewire/carewire/examples/engine/internal/audit"
)

// AuditLog keeps what users did. Append returns when the event is on disk.
type AuditLog interface {
	Append(e audit.Event) error
	Read(limit int, maxSeq uint64) ([]audit.Record, error)
}

var wildcard = regexp.MustCompile(`\{([^}.]+)(?:\.\.\.)?\}`)

// audited writes down that an action begins, with the wildcards of its route, and
// what became of it. Without the first record the action is not carried out.
func (s *Server) audited(rule *route, next http.Handler) http.Handler {
	if rule.audit == "" {
		return next
	}
	var names []string
	for _, m := range wildcard.FindAllStringSubmatch(rule.pattern, -1) {
		names = append(names, m[1])
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		x.notes = make(map[string]string)
		for _, name := range names {
			x.notes[name] = r.PathValue(name)
		}
		if !s.record(r.Context(), rule.audit, audit.Begun, x.notes) {
			unavailable(w, "The audit log cannot be written, and without it this is not done")
			return
		}
		// A panic is a failure too; guard answers it.
		status := &statusWriter{ResponseWriter: w}
		done := false
		defer func() {
			outcome := audit.Success
			if !done || status.code >= http.StatusBadRequest || x.failed {
				outcome = audit.Failure
			}
			x.notes["status"] = strconv.Itoa(status.code)
			s.record(r.Context(), rule.audit, outcome, x.notes)
		}()
		next.ServeHTTP(status, r)
		done = true
	})
}

// record appends to the audit log and reports whether it is on disk.
func (s *Server) record(ctx context.Context, action string, outcome audit.Outcome, notes map[string]string) bool {
	x := exchangeOf(ctx)
	if s.audit == nil {
		return false
	}
	err := s.audit.Append(audit.Event{
		Action: action, Outcome: outcome, UserID: x.user.ID, User: x.user.Name, Client: x.client.String(), Request: x.id, Attributes: notes,
	})
	if err != nil {
		s.log.ErrorContext(ctx, "the audit log cannot be written", "action", action, "outcome", outcome, "request", x.id, "err", err)
	}
	return err == nil
}

// note adds to the record of what became of the action in hand. It must be neither
// content of a message nor a secret.
func note(ctx context.Context, name, value string) {
	if x := exchangeOf(ctx); x.notes != nil {
		x.notes[name] = value
	}
}

// failed marks the action in hand as failed although its answer does not say so.
func failed(ctx context.Context) { exchangeOf(ctx).failed = true }

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter

	code int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
