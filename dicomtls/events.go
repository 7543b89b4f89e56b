package dicomtls

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
	EventOpened          EventKind = "opened"           // an association was accepted
	EventClosed          EventKind = "closed"           // an association has ended [why]; Duration, Objects and Bytes that were stored
	EventProbe           EventKind = "probe"            // a client has connected and gone without a byte: a health check
	EventRefused         EventKind = "refused"          // a connection was closed at once [why]
	EventAcceptFailed    EventKind = "accept_failed"    // such as no file descriptors; Err, Duration until the next try
	EventHandshakeFailed EventKind = "handshake_failed" // TLS [why]; Err
	EventRejected        EventKind = "rejected"         // no association came about [why]; Code if a PDU said so
	EventOperation       EventKind = "operation"        // a message was answered; Operation, Status, Bytes, Duration
	EventIncomplete      EventKind = "incomplete"       // an object did not arrive whole; Bytes
	EventHandlerFailed   EventKind = "handler_failed"   // a handler panicked; Operation
	EventUndeliverable   EventKind = "undeliverable"    // a response may not have arrived, so the object may come again; Operation, Status
)

// Reason says in one word why a connection or an association was not accepted,
// or has ended. It is meant for metrics and for switches: the list is closed.
type Reason string

// Reasons of ends.
const (
	ReasonReleased      Reason = "released"        // by the client: the orderly end
	ReasonPeerAborted   Reason = "peer_aborted"    // A-ABORT; Code
	ReasonPeerClosed    Reason = "peer_closed"     // the connection ended without release
	ReasonProtocol      Reason = "protocol_error"  // the client broke the protocol and was sent A-ABORT; Code, Err
	ReasonIdleTimeout   Reason = "idle_timeout"    // Server.IdleTimeout
	ReasonSilent        Reason = "message_timeout" // Server.MessageTimeout
	ReasonReadFailed    Reason = "read_failed"     // Err
	ReasonWriteFailed   Reason = "write_failed"    // a response could not be written; Err
	ReasonShutdown      Reason = "shutdown"        // the Server was told to stop
	ReasonPanic         Reason = "panic"           // a bug
	ReasonObjectTooLong Reason = "object_too_long" // more than twice Server.MaxObjectBytes
)

// Reasons why a connection or an association was not accepted.
const (
	ReasonAssociateTimeout   Reason = "associate_timeout"     // Server.AssociateTimeout
	ReasonWrongProtocol      Reason = "wrong_protocol"        // the client does not speak DICOM; Detail
	ReasonProtocolVersion    Reason = "protocol_version"      // of the upper layer
	ReasonApplicationContext Reason = "application_context"   // not DICOM's
	ReasonNoContexts         Reason = "no_contexts"           // no presentation context was proposed
	ReasonCalledAE           Reason = "called_ae"             // Server.AETitles
	ReasonCallingAE          Reason = "calling_ae"            // Server.CallingAETitles
	ReasonCertificateAE      Reason = "certificate_ae"        // Server.CertificateAEs
	ReasonIdentity           Reason = "identity"              // Server.Authenticate
	ReasonAddress            Reason = "address"               // Server.Allow and Deny
	ReasonTooMany            Reason = "too_many"              // Server.MaxAssociations
	ReasonTooManyOfAE        Reason = "too_many_of_ae"        // Server.MaxAssociationsPerAE
	ReasonTooManyOfHost      Reason = "too_many_of_host"      // Server.MaxAssociationsPerHost
	ReasonHandshakeTimeout   Reason = "tls_handshake_timeout" // Server.HandshakeTimeout
	ReasonNotTLS             Reason = "not_tls"               // the client does not speak TLS; Detail
	ReasonTLSNoCertificate   Reason = "tls_no_certificate"    // the client sent none, and one is required
	ReasonTLSBadCertificate  Reason = "tls_bad_certificate"   // the client's is not accepted
	ReasonTLSPeerRefused     Reason = "tls_peer_refused"      // the client sent an alert, such as for our certificate
	ReasonTLSFailed          Reason = "tls_failed"            // any other failure, such as no suite in common
)

// An Event is something that happened in a Server. It holds nothing of an object.
type Event struct {
	Kind                EventKind
	Reason              Reason
	RemoteAddr          net.Addr // nil for accept_failed
	CallingAE, CalledAE string   // as far as they are known
	Operation           string   // such as "C-STORE"
	Status              Status   // that was answered to Operation
	Code                string   // of the A-ASSOCIATE-RJ or A-ABORT, as RejectError and AbortError have it
	Bytes               int64    // of data sets
	Objects             int64
	Duration            time.Duration        // see the kind
	Detail              string               // words from a fixed list, or a type's name
	TLS                 *tls.ConnectionState // nil without TLS
	Err                 error
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
	text := func(key, value string) {
		if value != "" {
			yield(slog.String(key, value))
		}
	}
	text("reason", string(e.Reason))
	if e.RemoteAddr != nil {
		yield(slog.String("remote", e.RemoteAddr.String()))
	}
	text("calling", e.CallingAE)
	text("called", e.CalledAE)
	if text("operation", e.Operation); e.Operation != "" {
		yield(slog.String("status", e.Status.String()))
	}
	text("code", e.Code)
	if e.Objects > 0 {
		yield(slog.Int64("objects", e.Objects))
	}
	if e.Bytes > 0 {
		yield(slog.Int64("bytes", e.Bytes))
	}
	if e.Duration > 0 {
		yield(slog.Duration("duration", e.Duration))
	}
	text("detail", e.Detail)
	if e.Err != nil {
		yield(slog.String("error", e.Err.Error()))
	}
}

// level returns how much an event matters to an operator.
func (e *Event) level() slog.Level {
	switch e.Kind {
	case EventAcceptFailed, EventHandlerFailed:
		return slog.LevelError
	case EventRefused, EventHandshakeFailed, EventRejected, EventIncomplete, EventUndeliverable:
		return slog.LevelWarn
	case EventClosed:
		if e.Reason != ReasonReleased && e.Reason != ReasonShutdown {
			return slog.LevelWarn
		}
	case EventOperation:
		if e.Status != StatusSuccess {
			return slog.LevelWarn
		}
	case EventOpened, EventProbe:
	}
	return slog.LevelDebug
}

// tell logs e and hands it to Observe.
func (c *config) tell(ctx context.Context, e Event) {
	if l := c.Logger; l != nil {
		if level := e.level(); l.Enabled(ctx, level) {
			attrs := []slog.Attr{slog.String("event", string(e.Kind))}
			e.attrs(func(a slog.Attr) { attrs = append(attrs, a) })
			l.LogAttrs(ctx, level, "dicomtls", attrs...)
		}
	}
	if c.Observe != nil {
		c.Observe(e)
	}
}

// protocols are the beginnings by which a client that has come to the wrong port
// gives itself away.
var protocols = []struct{ prefix, name string }{
	{"\x16\x03", "TLS on a port without TLS"},
	{"\x0bMSH", "MLLP"},
	{"GET ", "HTTP"},
	{"HEAD", "HTTP"},
	{"POST", "HTTP"},
	{"PUT ", "HTTP"},
	{"OPTI", "HTTP"},
	{"CONN", "HTTP"},
	{"PRI ", "HTTP/2"},
	{"SSH-", "SSH"},
	{"PROXY", "PROXY protocol"},
}

// otherProtocol names the protocol that begins with head, or returns "".
func otherProtocol(head []byte) string {
	for _, p := range protocols {
		if strings.HasPrefix(string(head), p.prefix) {
			return p.name
		}
	}
	return ""
}
