package httpsender

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Outcome says what is known of a request, for a queue that has to decide what
// to do with it. The zero value is the one that promises nothing.
type Outcome int

const (
	// Unknown means that the server may have acted on the request, and that
	// repeating it could make it act twice: the request, or part of it, was
	// written, its method is not idempotent, and no answer came that tells.
	Unknown Outcome = iota
	// Sent means that the server answered with a status of 200 to 299.
	Sent
	// Rejected means that the server did not and will not take this request, or
	// that it cannot be sent as things are set. Another try cannot help.
	Rejected
	// Retryable means that another try may help and does no harm: the server
	// did not take the request, or repeating it changes nothing.
	Retryable
)

// String returns "unknown", "sent", "rejected" or "retryable".
func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "unknown"
	case Sent:
		return "sent"
	case Rejected:
		return "rejected"
	case Retryable:
		return "retryable"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// SendError is the error of Do, of reading the body of an answer, and of Check.
// Its text, and that of the errors it wraps, holds of the URL no more than scheme,
// host and port, and nothing of a header or a body.
type SendError struct {
	Outcome    Outcome // never Sent
	Method     string
	Origin     string        // scheme://host[:port] of the request
	Status     int           // of the answer; 0 if there was none
	RetryAfter time.Duration // what the server asked for; 0: nothing
	Attempts   int           // how many times it was tried; 0 where that is not known
	Err        error         // why; nil if Status says it

	// permanent tells that another try cannot help although the outcome is
	// Unknown.
	permanent bool
}

// Error returns one line.
func (e *SendError) Error() string {
	var b strings.Builder
	b.WriteString("httpsender: ")
	if e.Method != "" || e.Origin != "" {
		b.WriteString(e.Method + " " + e.Origin + ": ")
	}
	b.WriteString(e.Outcome.String())
	if e.Status != 0 {
		b.WriteString(": the server answered " + strconv.Itoa(e.Status))
	}
	if e.Err != nil {
		b.WriteString(": " + strings.TrimPrefix(e.Err.Error(), "httpsender: "))
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (after %d attempts)", e.Attempts)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *SendError) Unwrap() error { return e.Err }

// MaybeDelivered tells whether the server may have acted on the request although
// it did not say so: then another try may make it act twice. True for Unknown.
func (e *SendError) MaybeDelivered() bool { return e.Outcome == Unknown }

// Retryable tells whether the same request may meet with success later, for
// Unknown at the risk that MaybeDelivered tells of.
func (e *SendError) Retryable() bool {
	return e.Outcome == Retryable || e.Outcome == Unknown && !e.permanent
}

// Code returns the status of the answer as text, "" if there was none.
func (e *SendError) Code() string {
	if e.Status == 0 {
		return ""
	}
	return strconv.Itoa(e.Status)
}

// Check returns nil for an answer of Do with a status of 200 to 299, and for
// every other a *SendError with the outcome that it means. It neither reads nor
// closes the body.
//
//	408, 425, 429, 503        Retryable: the server says that it did not act
//	501, 505, other 4xx, 3xx  Rejected
//	303 and other 5xx         Unknown, or for an idempotent request
//	                          Rejected (303) or Retryable (5xx)
func Check(resp *http.Response) error {
	r := resp.Request
	if r == nil {
		r = &http.Request{Method: http.MethodPost} // the one that promises least
	}
	outcome, permanent := statusOutcome(resp.StatusCode, idempotent(r))
	if outcome == Sent {
		return nil
	}
	return &SendError{
		Outcome: outcome, Method: method(r), Origin: originOf(r.URL), Status: resp.StatusCode,
		RetryAfter: retryAfter(resp), permanent: permanent,
	}
}

// statusOutcome tells what a status means for a request. A gateway's 502 and 504
// say nothing of what the server behind it did (RFC 9110, section 15.6); a 303
// sends one on to the result of what was done (section 15.4.4).
func statusOutcome(status int, idempotent bool) (o Outcome, permanent bool) {
	switch {
	case status >= 200 && status < 300:
		return Sent, false
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return Retryable, false
	case status == http.StatusSeeOther && !idempotent:
		return Unknown, true
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported, status < 500:
		return Rejected, true
	case idempotent:
		return Retryable, false
	}
	return Unknown, false
}

// idempotent tells whether a request may be repeated without harm: by its method
// (RFC 9110, section 9.2.2), or because the caller declares it with the
// Idempotency-Key header. As with net/http, that header with no value declares
// it and is not sent.
func idempotent(r *http.Request) bool {
	switch method(r) {
	case http.MethodPut, http.MethodDelete:
		return true
	}
	return replayable(r)
}

// replayable is net/http's own, narrower idea of that, by which its Transport
// would repeat a request without telling anybody.
func replayable(r *http.Request) bool {
	switch method(r) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, declared := r.Header["Idempotency-Key"]
	_, too := r.Header["X-Idempotency-Key"]
	return declared || too
}

func method(r *http.Request) string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}
