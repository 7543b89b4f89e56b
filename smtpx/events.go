package smtpx

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventOpened        EventKind = "opened"         // a connection is ready for messages; Duration, TLS
	EventConnectFailed EventKind = "connect_failed" // Duration, Reply, Err
	EventMessage       EventKind = "message"        // Send has ended; Outcome, Bytes, Recipients, Accepted, Duration, Reply, Err
	EventClosed        EventKind = "closed"         // the connection of an opened event has ended [why]; Messages, Duration
)

// Reason says why a connection was closed.
type Reason string

// The reasons.
const (
	ReasonFailed   Reason = "failed"   // after an error, or the server wanted to go
	ReasonStale    Reason = "stale"    // the server did not answer any more when it was to be used again
	ReasonIdle     Reason = "idle"     // IdleTimeout
	ReasonMessages Reason = "messages" // MaxMessagesPerConn
	ReasonNotKept  Reason = "not_kept" // IdleTimeout is negative
	ReasonRotated  Reason = "rotated"  // the TLS files have changed
	ReasonClosed   Reason = "closed"   // Close
)

// An Event is something that happened in a Sender. It holds no address, nothing
// of a message and none of the server's words.
type Event struct {
	Kind       EventKind
	Reason     Reason        // EventClosed
	RemoteAddr net.Addr      // the server's; nil where there is no connection
	Outcome    Outcome       // EventMessage
	Reply      Reply         // the server's first refusal
	Bytes      int64         // of the message
	Recipients int           // of the message
	Accepted   int           // recipients that the server took it for
	Messages   int           // EventClosed: that the connection carried
	Duration   time.Duration // see the kind
	TLS        *tls.ConnectionState
	Err        error
}

func messageEvent(r *Result, err *SendError, took time.Duration) Event {
	e := Event{Kind: EventMessage, Outcome: Accepted, Bytes: r.Bytes, Recipients: len(r.Recipients), Duration: took}
	for _, rcpt := range r.Recipients {
		if rcpt.Outcome == Accepted {
			e.Accepted++
		}
	}
	if err != nil {
		e.Outcome, e.Reply, e.Err = err.Outcome, err.Reply, err
	}
	return e
}

// String returns one line for people.
func (e Event) String() string {
	var b strings.Builder
	b.WriteString(string(e.Kind))
	e.attrs(func(a slog.Attr) { fmt.Fprintf(&b, " %s=%s", a.Key, a.Value) })
	return b.String()
}

// attrs calls yield with what may be logged.
func (e *Event) attrs(yield func(slog.Attr)) {
	if e.Reason != "" {
		yield(slog.String("reason", string(e.Reason)))
	}
	if e.RemoteAddr != nil {
		yield(slog.String("remote", e.RemoteAddr.String()))
	}
	if e.Kind == EventMessage {
		yield(slog.String("outcome", e.Outcome.String()))
		yield(slog.Int64("bytes", e.Bytes))
		yield(slog.Int("recipients", e.Recipients))
		yield(slog.Int("accepted", e.Accepted))
	}
	if e.Kind == EventClosed {
		yield(slog.Int("messages", e.Messages))
	}
	if e.Duration > 0 {
		yield(slog.Duration("duration", e.Duration))
	}
	if e.TLS != nil {
		yield(slog.String("tls", tls.VersionName(e.TLS.Version)))
	}
	if e.Reply.Code != 0 {
		yield(slog.String("code", e.Reply.String()))
	}
	if e.Err != nil {
		yield(slog.String("error", e.Err.Error()))
	}
}

// level returns how much an event matters to an operator.
func (e *Event) level() slog.Level {
	if e.Err != nil {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// tell logs e and hands it to Observe.
func (s *Sender) tell(ctx context.Context, e Event) {
	if l := s.Logger; l != nil {
		if level := e.level(); l.Enabled(ctx, level) {
			attrs := []slog.Attr{slog.String("event", string(e.Kind))}
			e.attrs(func(a slog.Attr) { attrs = append(attrs, a) })
			l.LogAttrs(ctx, level, "smtpx", attrs...)
		}
	}
	if s.Observe != nil {
		s.Observe(e)
	}
}
