package engine

import (
	"net/http"
	"time"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/mllp"
)

// EventKind says what happened.
type EventKind int

// The kinds of events.
const (
	// Answered: a message was taken in and its sender told so; Duration from the
	// message's end to the answer.
	Answered EventKind = iota + 1
	// Refused: a message was not taken in, or a sender not let in [Reason].
	Refused
	// Delivered: a destination took a message; Duration of the attempt.
	Delivered
	// Failed: an attempt of a destination failed [Reason]; Duration.
	Failed
)

// Event is something that happened in a channel. It holds nothing of a message.
type Event struct {
	Kind        EventKind
	Channel     string
	Destination string // of Delivered and Failed
	Reason      Reason
	Duration    time.Duration
}

// Reason says in one word why something was refused or failed. It is meant for
// metrics: the list is closed. Those of [mllp.Reason] and [dicomtls.Reason] are in it,
// and the following.
type Reason string

// Reasons of sources.
const (
	ReasonUnauthenticated Reason = "unauthenticated" // no user, or not with this password
	ReasonBadRequest      Reason = "bad_request"     // not a request that the source takes, or it broke off
	ReasonTooLarge        Reason = Reason(mllp.ReasonTooLarge)
	ReasonUnstorable      Reason = "unstorable"  // a message that can be stored or passed on never
	ReasonUnavailable     Reason = "unavailable" // for now; of a destination: it was not reached
	ReasonOperation       Reason = "operation"   // a DICOM operation that was answered with a failure
)

// Reasons of destinations.
const (
	ReasonRejected  Reason = "rejected"  // for good
	ReasonRetryable Reason = "retryable" // for now
	ReasonUnknown   Reason = "unknown"   // the message may have arrived
)

// Unauthenticated tells whether the reason is that somebody was not who may send.
func (r Reason) Unauthenticated() bool {
	switch r {
	case ReasonUnauthenticated,
		Reason(mllp.ReasonTLSNoCertificate), Reason(mllp.ReasonTLSExpired), Reason(mllp.ReasonTLSNotYetValid), Reason(mllp.ReasonTLSUnknownAuthority),
		Reason(mllp.ReasonTLSSelfSigned), Reason(mllp.ReasonTLSWrongUsage), Reason(mllp.ReasonTLSRevoked), Reason(mllp.ReasonTLSBadCertificate),
		Reason(mllp.ReasonTLSWithdrawn), Reason(mllp.ReasonSenderNotPermitted),
		Reason(dicomtls.ReasonCertificateAE), Reason(dicomtls.ReasonIdentity), Reason(dicomtls.ReasonCallingAE):
		return true
	default:
		return false
	}
}

// tell hands an event of the channel to who wants to know.
func (ch *channel) tell(e Event) {
	if observe := ch.engine.opts.Observe; observe != nil {
		e.Channel = ch.cfg.ID
		observe(e)
	}
}

// observeMLLP tells of what the server of a channel's source tells.
func (ch *channel) observeMLLP(e mllp.Event) {
	switch e.Kind {
	case mllp.EventMessage:
		switch e.Code {
		case mllp.AA, mllp.CA:
			ch.tell(Event{Kind: Answered, Duration: e.Duration})
		case mllp.AR, mllp.CR:
			ch.tell(Event{Kind: Refused, Reason: ReasonUnstorable})
		case mllp.AE, mllp.CE:
			ch.tell(Event{Kind: Refused, Reason: ReasonUnavailable})
		}
	case mllp.EventRefused, mllp.EventHandshakeFailed, mllp.EventRejected, mllp.EventBadFrame:
		ch.tell(Event{Kind: Refused, Reason: Reason(e.Reason)})
	case mllp.EventClosed:
		if e.Reason == mllp.ReasonTLSWithdrawn {
			ch.tell(Event{Kind: Refused, Reason: Reason(e.Reason)})
		}
	default: // the log has the others
	}
}

// observeDICOM does the same for DICOM.
func (ch *channel) observeDICOM(e dicomtls.Event) {
	switch e.Kind {
	case dicomtls.EventOperation:
		switch {
		case e.Operation != "C-STORE":
		case e.Status == dicomtls.StatusSuccess:
			ch.tell(Event{Kind: Answered, Duration: e.Duration})
		default:
			ch.tell(Event{Kind: Refused, Reason: ReasonOperation})
		}
	case dicomtls.EventRefused, dicomtls.EventHandshakeFailed, dicomtls.EventRejected:
		ch.tell(Event{Kind: Refused, Reason: Reason(e.Reason)})
	case dicomtls.EventIncomplete:
		ch.tell(Event{Kind: Refused, Reason: Reason(mllp.ReasonTruncated)})
	default: // the log has the others
	}
}

// observeHTTP tells of a request that was answered, took after its message was there.
func (ch *channel) observeHTTP(status int, taken bool, took time.Duration) {
	if taken {
		ch.tell(Event{Kind: Answered, Duration: took})
		return
	}
	e := Event{Kind: Refused, Reason: ReasonBadRequest}
	switch status {
	case http.StatusUnauthorized:
		e.Reason = ReasonUnauthenticated
	case http.StatusRequestEntityTooLarge:
		e.Reason = ReasonTooLarge
	case http.StatusUnprocessableEntity:
		e.Reason = ReasonUnstorable
	case http.StatusServiceUnavailable:
		e.Reason = ReasonUnavailable
	}
	ch.tell(e)
}

// reason says in one word what failed.
func (f *failure) reason() Reason {
	switch {
	case f.maybeSent:
		return ReasonUnknown
	case f.permanent:
		return ReasonRejected
	case f.poison:
		return ReasonRetryable
	default:
		return ReasonUnavailable
	}
}
