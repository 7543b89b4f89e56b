package mllp

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

// The kinds of events. Those with a Reason name it in brackets.
const (
	EventOpened           EventKind = "opened"            // a client has sent its first bytes, or finished its TLS handshake
	EventClosed           EventKind = "closed"            // the connection of an opened event has ended [why]; Duration
	EventProbe            EventKind = "probe"             // a client has connected and gone without a byte: a health check
	EventRefused          EventKind = "refused"           // a connection was closed before it was served [address, limit or proxy header]; Detail, Err
	EventDrained          EventKind = "drained"           // Serve is about to return; Finished, Abandoned
	EventAcceptFailed     EventKind = "accept_failed"     // such as no file descriptors; Err, Duration until the next try
	EventHandshakeFailed  EventKind = "handshake_failed"  // [why]; Err, Certificate
	EventMessage          EventKind = "message"           // the handler has answered; Code, Bytes, Duration of the handler
	EventApplication      EventKind = "application"       // Server.Application, or an acknowledgement after a commit one, has answered; Code, Bytes, Duration of the handler
	EventReplayed         EventKind = "replayed"          // a repeated message was answered as before; Code, Bytes
	EventRespondFailed    EventKind = "respond_failed"    // Server.Responder tries again after Duration; Code, Err
	EventRejected         EventKind = "rejected"          // answered, by policy, without the handler [why]; Code, Bytes, Offset
	EventBadFrame         EventKind = "bad_frame"         // a frame was discarded [why]; Bytes, Offset, Code if it was answered
	EventTolerated        EventKind = "tolerated"         // a frame with a flaw was accepted [which]; Bytes, Offset, in Detail the field
	EventRepeated         EventKind = "repeated"          // with MLLPv2: a message that came again got its answer again; Bytes, Offset
	EventSkipped          EventKind = "skipped"           // bytes outside of frames [junk, or none for white space]; Bytes, Offset
	EventHandlerFailed    EventKind = "handler_failed"    // the handler returned an error, did not return in time, or panicked [timeout, panic]
	EventAckUndeliverable EventKind = "ack_undeliverable" // an answer may not have arrived, so the message may come again; ControlID, Code, Err
)

// An Event is something that happened in a Server or a Client. It holds nothing of a
// message but, in ControlID, its MSH-10, which neither String nor the log shows.
type Event struct {
	Kind       EventKind
	Reason     Reason
	RemoteAddr net.Addr      // nil for accept_failed and drained
	ProxyAddr  net.Addr      // for opened, refused and handshake_failed: of the proxy that named RemoteAddr; nil: none
	Bytes      int64         // length of the text or of the bytes concerned
	Offset     int64         // where in the stream of the connection they begin
	Duration   time.Duration // see the kind
	Code       AckCode       // that was sent, or "", CE for the 15 of MLLP release 2; with a Client, that came
	Outcome    Outcome       // for message_ended
	ControlID  string        // of the message, for ack_undeliverable
	Detail     string        // words from a fixed list, or a type's name
	// Certificate names the client's certificate, where it sent one and was
	// refused, or was not permitted to send, or is no longer accepted.
	Certificate *Certificate
	Finished    int                  // messages answered after the end had begun
	Abandoned   int                  // connections that were cut in a message
	TLS         *tls.ConnectionState // nil without TLS
	Err         error
}

// Certificate names a certificate.
type Certificate struct{ Subject, Issuer, Serial string }

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
	if e.ProxyAddr != nil {
		yield(slog.String("proxy", e.ProxyAddr.String()))
	}
	if e.Kind == EventDrained {
		yield(slog.Int("finished", e.Finished))
		yield(slog.Int("abandoned", e.Abandoned))
	}
	if e.Bytes > 0 {
		yield(slog.Int64("bytes", e.Bytes))
		yield(slog.Int64("offset", e.Offset))
	}
	if e.Duration > 0 {
		yield(slog.Duration("duration", e.Duration))
	}
	if e.Kind == EventMessageEnded {
		yield(slog.String("outcome", e.Outcome.String()))
	}
	if e.Code != "" {
		yield(slog.String("code", string(e.Code)))
	}
	if e.Detail != "" {
		yield(slog.String("detail", e.Detail))
	}
	if c := e.Certificate; c != nil {
		yield(slog.String("subject", c.Subject))
		yield(slog.String("issuer", c.Issuer))
		yield(slog.String("serial", c.Serial))
	}
	if e.Err != nil {
		yield(slog.String("error", e.Err.Error()))
	}
}

// level returns how much an event matters to an operator.
func (e *Event) level() slog.Level {
	switch e.Kind {
	case EventAcceptFailed, EventHandlerFailed:
		return slog.LevelError
	case EventRefused, EventHandshakeFailed, EventRejected, EventBadFrame, EventTolerated, EventAckUndeliverable, EventRespondFailed, EventDialFailed:
		return slog.LevelWarn
	case EventMessageEnded:
		if e.Outcome != Acked && e.Outcome != Sent {
			return slog.LevelWarn
		}
	case EventHealth:
		if e.Detail == string(StateFailing) || e.Detail == string(StateFaulty) {
			return slog.LevelWarn
		}
		return slog.LevelInfo
	case EventClosed:
		switch e.Reason {
		case ReasonPeerClosed, ReasonShutdown, ReasonDone, ReasonNotKeptOpen:
		default:
			return slog.LevelWarn
		}
	case EventSkipped:
		if e.Reason != "" {
			return slog.LevelWarn
		}
	case EventDrained:
		if e.Abandoned > 0 {
			return slog.LevelWarn
		}
		return slog.LevelInfo
	case EventOpened, EventProbe, EventMessage, EventApplication, EventReplayed, EventRepeated, EventDialed, EventMessageBegun:
	}
	return slog.LevelDebug
}

// watched reports whether anybody wants to know.
func (c *config) watched() bool { return c.observe != nil || c.logger != nil }

// tell logs e and hands it to Observe.
func (c *config) tell(ctx context.Context, e Event) {
	if l := c.logger; l != nil {
		level, unlogged, ok := e.level(), int64(0), true
		if e.Kind == EventRefused {
			ok, unlogged = c.server.refusals.log(time.Now())
		}
		if ok && l.Enabled(ctx, level) {
			attrs := []slog.Attr{slog.String("event", string(e.Kind))}
			if unlogged > 0 {
				attrs = append(attrs, slog.Int64("unlogged", unlogged))
			}
			e.attrs(func(a slog.Attr) { attrs = append(attrs, a) })
			l.LogAttrs(ctx, level, "mllp", attrs...)
		}
	}
	if c.observe != nil {
		c.observe(e)
	}
}
