package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// failure is the body of every error. It never holds a path, a stack, or a part of
// a message.
type failure struct {
	Error    string    `json:"error"`
	Message  string    `json:"message,omitempty"`
	Mistakes []mistake `json:"mistakes,omitempty"` // in a channel that was sent
}

// A mistake is one in a channel that was sent.
type mistake struct {
	Line int    `json:"line,omitempty"`
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client has gone; nobody is left to tell
}

func badRequest(w http.ResponseWriter, message string) {
	answer(w, http.StatusBadRequest, failure{Error: "Bad Request", Message: message})
}

func unauthorized(w http.ResponseWriter) {
	answer(w, http.StatusUnauthorized, failure{Error: "Unauthorized", Message: "Authentication required"})
}

func forbidden(w http.ResponseWriter, message string) {
	answer(w, http.StatusForbidden, failure{Error: "Forbidden", Message: message})
}

func notFound(w http.ResponseWriter) {
	answer(w, http.StatusNotFound, failure{Error: "Not Found", Message: "The requested resource was not found"})
}

func conflict(w http.ResponseWriter, message string) {
	answer(w, http.StatusConflict, failure{Error: "Conflict", Message: message})
}

func tooLarge(w http.ResponseWriter) {
	answer(w, http.StatusRequestEntityTooLarge, failure{Error: "Payload Too Large", Message: "The request's body is too long"})
}

func internalError(w http.ResponseWriter) {
	answer(w, http.StatusInternalServerError, failure{Error: "Internal Server Error"})
}

func unavailable(w http.ResponseWriter, message string) {
	answer(w, http.StatusServiceUnavailable, failure{Error: "Service Unavailable", Message: message})
}

// readJSON reads the one JSON value that is a request's body. Where it is not, it
// answers and returns false.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(r.Body)
	err := dec.Decode(into)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		badBody(w, err)
		return false
	}
	return true
}

// badBody answers a body that cannot be read. What is wrong with it is not quoted.
func badBody(w http.ResponseWriter, err error) {
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		tooLarge(w)
		return
	}
	badRequest(w, "The request's body cannot be read: it is not what its Content-Type says, or has a value of the wrong type")
}

// isoTime is a time as JavaScript's Date writes it.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
