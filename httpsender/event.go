package httpsender

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// EventKind says what an Event tells.
type EventKind string

// The kinds of events.
const (
	// EventConnected: a connection was made, or could not be (Err).
	EventConnected EventKind = "connected"
	// EventAttempt: a request was answered (Status), or not (Err).
	EventAttempt EventKind = "attempt"
	// EventRetry: a request will be tried again after Wait.
	EventRetry EventKind = "retry"
	// EventReceived: the body of an answer was read to its end, was closed, or
	// broke off (Err).
	EventReceived EventKind = "received"
	// EventCircuit: the breaker of a host changed its state to Circuit.
	EventCircuit EventKind = "circuit"
	// EventRotated: connections that are idle were closed, and others will be when
	// they are, because certificates changed or ConnLifetime has passed.
	EventRotated EventKind = "rotated"
)

// An Event tells what a Sender did. What does not belong to its Kind is zero. It
// holds nothing of a header, a body, or a URL but its origin.
type Event struct {
	Kind    EventKind
	Method  string
	Origin  string // scheme://host[:port]; of EventConnected host:port
	Attempt int    // from 1; redirects and answers to challenges count

	Status int    // of the answer
	Proto  string // "HTTP/1.1" or "HTTP/2.0"
	Reused bool   // the connection had been used before
	Bytes  int64  // EventReceived: of the body, as the caller got it

	// The parts of an attempt, from its beginning; zero: it did not come to that.
	Queued    time.Duration // waiting for others to the host (MaxRequestsPerHost)
	Connected time.Duration // until there was a connection
	Written   time.Duration // until the request was written
	FirstByte time.Duration // until the first byte of the answer
	Duration  time.Duration // in all; of EventReceived since the answer's header
	Handshake time.Duration // EventConnected: the TLS part of Duration

	Wait    time.Duration // EventRetry
	Circuit CircuitState  // EventCircuit
	Err     error
}

// String returns one line.
func (e Event) String() string {
	var b strings.Builder
	b.WriteString(string(e.Kind))
	e.attrs(func(a slog.Attr) { fmt.Fprintf(&b, " %s=%s", a.Key, a.Value) })
	return b.String()
}

// attrs calls yield with what there is.
func (e *Event) attrs(yield func(slog.Attr)) {
	text := func(name, value string) {
		if value != "" {
			yield(slog.String(name, value))
		}
	}
	span := func(name string, value time.Duration) {
		if value != 0 {
			yield(slog.Duration(name, value))
		}
	}
	text("method", e.Method)
	text("origin", e.Origin)
	if e.Attempt > 0 {
		yield(slog.Int("attempt", e.Attempt))
	}
	if e.Status > 0 {
		yield(slog.Int("status", e.Status))
	}
	text("proto", e.Proto)
	if e.Kind == EventAttempt {
		yield(slog.Bool("reused", e.Reused))
	}
	if e.Kind == EventReceived {
		yield(slog.Int64("bytes", e.Bytes))
	}
	span("queued", e.Queued)
	span("connected", e.Connected)
	span("written", e.Written)
	span("firstByte", e.FirstByte)
	span("duration", e.Duration)
	span("handshake", e.Handshake)
	span("wait", e.Wait)
	text("circuit", string(e.Circuit))
	if e.Err != nil {
		yield(slog.String("error", e.Err.Error()))
	}
}

// level returns how much an event matters to an operator.
func (e *Event) level() slog.Level {
	if e.Err != nil || e.Kind == EventCircuit || e.Status >= 500 {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// watched tells whether anybody wants to know.
func (s *Sender) watched() bool { return s.Observe != nil || s.Logger != nil }

// now returns the time, for an event: zero if nobody wants to know.
func (s *Sender) now() time.Time {
	if s.watched() {
		return time.Now()
	}
	return time.Time{}
}

// tell logs e and hands it to Observe.
func (s *Sender) tell(ctx context.Context, e Event) {
	if l := s.Logger; l != nil {
		if level := e.level(); l.Enabled(ctx, level) {
			attrs := []slog.Attr{slog.String("event", string(e.Kind))}
			e.attrs(func(a slog.Attr) { attrs = append(attrs, a) })
			l.LogAttrs(ctx, level, "httpsender", attrs...)
		}
	}
	if s.Observe != nil {
		s.Observe(e)
	}
}
