package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	// Accepted: a request was let through to the handler.
	Accepted EventKind = "accepted"
	// Refused: a request was answered 403, because of Reason.
	Refused EventKind = "refused"
	// BodyCut: a body after the plain header had more than MaxBodyBytes; the
	// handler, which had begun, got a *http.MaxBytesError.
	BodyCut EventKind = "body cut"
	// AnswerTooLarge: a handler answered a signed request with more than
	// MaxBodyBytes; a 500 was sent instead.
	AnswerTooLarge EventKind = "answer too large"
	// Loaded: Generation came into use, the first or a later one.
	Loaded EventKind = "secrets loaded"
	// KeptOld: SecretFile cannot be used because of Err, and Generation goes on.
	// It comes once for each different content. With Generation 0 there is none,
	// and every request is refused.
	KeptOld EventKind = "secrets kept"
)

// Reason says why a request was refused. It is for those who run the node, and
// never told to the peer.
type Reason string

// The reasons.
const (
	ReasonNoSecret     Reason = "no secret"     // this node's: Validate says why
	ReasonMissing      Reason = "missing"       // neither header is there
	ReasonWrong        Reason = "wrong"         // X-Cluster-Secret is none of the secrets
	ReasonPlain        Reason = "plain"         // X-Cluster-Secret, and SignedOnly is set
	ReasonMalformed    Reason = "malformed"     // more than one credential, or not the form of a signature
	ReasonUnknownKey   Reason = "unknown key"   // signed with a secret that is not accepted, of the ID KeyID
	ReasonBadSignature Reason = "bad signature" // the request was altered, or not signed with the secret
	ReasonWrongNode    Reason = "wrong node"    // signed for another node
	ReasonSkew         Reason = "skew"          // signed more than Window ago, or ahead of our clock: see Skew
	ReasonReplay       Reason = "replay"        // seen before
	ReasonTooEarly     Reason = "too early"     // signed before this process remembered nonces
	ReasonNoncesFull   Reason = "nonces full"   // MaxNonces requests are remembered
	ReasonNoncesFailed Reason = "nonces failed" // Nonces cannot tell, because of Err
	ReasonTooLarge     Reason = "too large"     // the body has more than MaxBodyBytes
	ReasonBusy         Reason = "busy"          // MaxBufferedBytes are in use
	ReasonBody         Reason = "body"          // the body did not come, because of Err
	ReasonBadDigest    Reason = "bad digest"    // the body is not the one that was signed
)

// Event is passed to Observe. What does not belong to its Kind is zero. It holds
// no secret, and nothing of a body, a path or a query.
type Event struct {
	Kind   EventKind
	Reason Reason // Refused

	// Signed tells a signature from the plain header.
	Signed bool
	// KeyID names the secret: of a request the one that it came with, if that is
	// one of ours or signed, else the one that is sent.
	KeyID string
	// Primary is set if KeyID is the secret that this node sends itself: where it
	// is not, this node or the other is behind in a rotation.
	Primary bool
	// Node is the sender, as it calls itself. In a refused event it is what the
	// header says, and only with the reasons that come after bad signature is it
	// known to come from somebody who has the secret. Empty with the plain header.
	Node       string
	RemoteAddr string // of the connection, which may be a proxy's
	// Skew is how far the sender's clock is ahead of ours, for ReasonSkew and
	// ReasonTooEarly; negative if it is behind.
	Skew time.Duration

	Generation uint64   // Loaded, KeptOld: in use now
	Accepted   []string // Loaded, KeptOld: the IDs of the secrets in use

	Err error
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
	if e.Generation > 0 {
		yield(slog.Uint64("generation", e.Generation))
	}
	if e.KeyID != "" {
		yield(slog.String("key", e.KeyID))
		yield(slog.Bool("primary", e.Primary))
	}
	if len(e.Accepted) > 0 {
		yield(slog.String("accepted", strings.Join(e.Accepted, ",")))
	}
	if e.Kind != Loaded && e.Kind != KeptOld {
		yield(slog.Bool("signed", e.Signed))
	}
	if e.RemoteAddr != "" {
		yield(slog.String("remote", e.RemoteAddr))
	}
	if e.Node != "" {
		yield(slog.String("node", e.Node))
	}
	if e.Skew != 0 {
		yield(slog.Duration("skew", e.Skew))
	}
	if e.Err != nil {
		yield(slog.String("error", e.Err.Error()))
	}
}

// level returns how much an event matters to an operator.
func (e *Event) level() slog.Level {
	switch e.Kind {
	case KeptOld, AnswerTooLarge:
		return slog.LevelError
	case Refused, BodyCut:
		return slog.LevelWarn
	case Loaded:
		return slog.LevelInfo
	case Accepted:
	}
	return slog.LevelDebug
}

// announce tells of what no request did.
func (a *Auth) announce(e Event) { a.tell(context.Background(), e) }

// tell logs e and hands it to Observe.
func (a *Auth) tell(ctx context.Context, e Event) {
	if l := a.Logger; l != nil {
		if level := e.level(); l.Enabled(ctx, level) {
			attrs := []slog.Attr{slog.String("event", string(e.Kind))}
			e.attrs(func(attr slog.Attr) { attrs = append(attrs, attr) })
			l.LogAttrs(ctx, level, "cluster", attrs...)
		}
	}
	if a.Observe != nil {
		a.Observe(e)
	}
}
