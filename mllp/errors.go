package mllp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/carewire/carewire/tlsprops"
)

// Outcome says what is known of a message after Send. The zero value is the one
// that promises nothing.
type Outcome int

const (
	// Unknown means that all or part of the message was written, and that no
	// acknowledgement came: the receiver may have it or not. Sending it again
	// may make a duplicate.
	Unknown Outcome = iota
	// NotSent means that the receiver cannot have the message. No byte of it
	// was written.
	NotSent
	// Nacked means that the receiver answered AE, AR, CE or CR.
	Nacked
	// Acked means that the receiver answered AA or CA.
	Acked
	// Sent means that the whole message was written and, with MatchNone, that no
	// answer was waited for: nobody knows whether the receiver has it.
	Sent
)

// String returns "unknown", "not sent", "nacked", "acked" or "sent".
func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "unknown"
	case NotSent:
		return "not sent"
	case Nacked:
		return "nacked"
	case Acked:
		return "acked"
	case Sent:
		return "sent"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Errors found in the Err of a SendError with errors.Is.
var (
	// ErrNoControlID is the reason of NotSent for a message whose MSH-10 is
	// empty: its acknowledgement could not be told from another's.
	ErrNoControlID = errors.New("mllp: the message has no control ID (MSH-10)")
	// ErrUnsolicited is the reason of a Conn's end when the peer sent something
	// while no message was waiting for a reply.
	ErrUnsolicited = errors.New("mllp: the peer sent bytes that no message waits for")
	// ErrMismatch is the reason of a Conn's end under MatchStrict when a reply
	// acknowledged a message that was not waiting.
	ErrMismatch = errors.New("mllp: the acknowledgement is of another message (MSA-2)")
	// ErrNoApplicationAck is the reason of Unknown for a message whose receiver has
	// taken charge of it (CA), and whose application's acknowledgement, which
	// MSH-16 asked for, did not come: see Dialer.Enhanced. The receiver has the
	// message; what its application makes of it is not known.
	ErrNoApplicationAck = errors.New("mllp: the receiver has taken the message (CA), but its application's acknowledgement did not come")
	// ErrPeerRejectedCertificate means that the peer did not accept this side's
	// client certificate, or wanted one and got none. TLS 1.3 tells a client so
	// only after its side of the handshake (RFC 8446, section 4.4.3): then it is
	// Send or [Conn.Err] that say so, not DialContext. In TLS 1.2 the want of one
	// may show as a mere "handshake failure". Another try cannot help.
	ErrPeerRejectedCertificate = errors.New("mllp: the peer rejected the client certificate")
)

// SendError is the error of DialContext and Send. Its text, and that of the
// errors that it wraps, holds nothing of a message or a reply.
type SendError struct {
	Outcome Outcome // never Acked or Sent
	AckCode AckCode // what the receiver answered; "" unless Outcome is Nacked
	Err     error   // why; nil if Outcome is Nacked, unless by the 15 of MLLP release 2

	// permanent tells that the reason lies in the message or in the
	// configuration, and not in the peer's or the network's state.
	permanent bool
}

func (e *SendError) Error() string {
	switch e.Outcome {
	case Nacked:
		return "mllp: the receiver answered " + string(e.AckCode)
	case Unknown:
		return "mllp: sent, but not acknowledged: " + reason(e.Err)
	case NotSent, Acked, Sent:
	}
	return "mllp: not sent: " + reason(e.Err)
}

// reason returns the text of err without the package's name, which its reader
// has seen already.
func reason(err error) string {
	if err == nil {
		return "no reason given"
	}
	return strings.TrimPrefix(err.Error(), "mllp: ")
}

// Unwrap returns Err.
func (e *SendError) Unwrap() error { return e.Err }

// MaybeDelivered tells whether the receiver may have taken the message although
// it did not say so: then another try may make a duplicate, and must be marked
// as a possible one. True for Unknown.
func (e *SendError) MaybeDelivered() bool { return e.Outcome == Unknown }

// Retryable tells whether the same message may meet with success later. It is
// true for Unknown (at the risk that MaybeDelivered tells of; not with
// ErrNoApplicationAck), for NotSent by
// the network's or the peer's fault, and for AE and CE. It is false for AR and
// CR; for a message that cannot be sent as it is; and for a faulty
// configuration: certificates that either side refuses, files that cannot be read.
func (e *SendError) Retryable() bool {
	if e.Outcome == Nacked {
		return e.AckCode == AE || e.AckCode == CE
	}
	return !e.permanent && !errors.Is(e.Err, ErrPeerRejectedCertificate)
}

// Code returns AckCode: the receiver's own word.
func (e *SendError) Code() string { return string(e.AckCode) }

// notSent is NotSent for a reason that may pass.
func notSent(err error) *SendError { return &SendError{Outcome: NotSent, Err: err} }

// refused is NotSent for a reason that will not pass by itself.
func refused(err error) *SendError { return &SendError{Outcome: NotSent, Err: err, permanent: true} }

// The texts of crypto/tls for the alerts (RFC 8446, section 6.2) with which a
// peer says what it thinks of our certificate, and for those with which it says
// that our settings and its own do not go together. handshake_failure (40) is
// what OpenSSL and Java answer in TLS 1.2 to a client without a certificate.
// The type of an alert received over TCP is not exported, but its text is that
// of the exported AlertError.
var (
	certificateAlerts = alertTexts(42, 43, 44, 45, 46, 48, 49, 116)
	settingsAlerts    = alertTexts(40, 70, 71, 112, 120)
)

func alertTexts(codes ...tls.AlertError) map[string]bool {
	texts := make(map[string]bool, len(codes))
	for _, code := range codes {
		texts[code.Error()] = true
	}
	return texts
}

// receivedAlert returns the text of the TLS alert that the peer sent, "" if err
// is no such thing.
func receivedAlert(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && op.Err != nil {
		return op.Err.Error()
	}
	return ""
}

// peerError returns err as ErrPeerRejectedCertificate if that is what it means.
func peerError(err error) error {
	if certificateAlerts[receivedAlert(err)] {
		return fmt.Errorf("%w: %w", ErrPeerRejectedCertificate, err)
	}
	return err
}

// handshakeError classifies the error of a TLS handshake. What a handshake
// fails of, beside the connection, is our or the peer's configuration: a
// certificate or a name that we refuse, settings that have nothing in common,
// a port without TLS.
func handshakeError(err error) *SendError {
	alert := receivedAlert(err)
	var network net.Error
	lost := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &network)
	err = peerError(fmt.Errorf("mllp: TLS handshake: %w", err))
	if hint := tlsprops.Hint(err); hint != "" {
		err = fmt.Errorf("%w (%s)", err, hint)
	}
	if lost && !certificateAlerts[alert] && !settingsAlerts[alert] {
		return notSent(err)
	}
	return refused(err)
}
