package dicomtls

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/carewire/carewire/tlsprops"
)

// ErrServerClosed is returned by Serve and ListenAndServe after Shutdown, Close,
// or the end of their context; alone, or in a *DrainError.
var ErrServerClosed = errors.New("dicomtls: server closed")

// Errors found in the Err of a SendError with errors.Is.
var (
	// ErrNoContext is the reason of NotSent for an object for which no
	// presentation context was accepted: the peer does not take its SOP class, or
	// not in its transfer syntax.
	ErrNoContext = errors.New("dicomtls: no presentation context was accepted for this SOP class and transfer syntax")
	// ErrReleased is the reason of an Association's end when one side has
	// released it.
	ErrReleased = fmt.Errorf("dicomtls: the association was released: %w", net.ErrClosed)
	// ErrBadObject is the reason of NotSent for an object that cannot be sent as
	// it is, such as one without a valid UID.
	ErrBadObject = errors.New("dicomtls: the object cannot be sent")
	// ErrSourceChanged is the reason of Unknown or NotSent when the source of an
	// object gave fewer or more bytes than it has by its Size. The peer has not
	// got the end of it.
	ErrSourceChanged = errors.New("dicomtls: the source of the object does not have as many bytes as it should")
	// ErrPeerRejectedCertificate means that the peer did not accept this side's
	// certificate, or wanted one and got none. TLS 1.3 tells a client so only
	// after its side of the handshake (RFC 8446, section 4.4.3). Another try
	// cannot help.
	ErrPeerRejectedCertificate = errors.New("dicomtls: the peer rejected the certificate")
)

// A DrainError says that a Server stopped before all it had in hand was done.
// The senders of those objects have no response, and will send again.
type DrainError struct {
	Abandoned int   // associations that were cut in a message
	Err       error // ErrServerClosed from Serve, the context's error from Shutdown
}

func (e *DrainError) Error() string {
	return fmt.Sprintf("dicomtls: %d associations were cut in a message: %v", e.Abandoned, e.Err)
}

func (e *DrainError) Unwrap() error { return e.Err }

// A TooLargeError is what StoreRequest.Body returns for an object that is larger
// than Server.MaxObjectBytes. The peer is answered A700, out of resources.
type TooLargeError struct{ Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("dicomtls: data set of more than %d bytes", e.Limit)
}

// An AbortError says that one side has aborted the association with an A-ABORT PDU.
type AbortError struct {
	Source uint8 // 0: the user of the service; 2: its provider
	Reason uint8 // with Source 2: PS3.8 Table 9-26
	ByPeer bool
}

func (e *AbortError) Error() string {
	who := "this side"
	if e.ByPeer {
		who = "the peer"
	}
	text := fmt.Sprintf("dicomtls: %s aborted the association (%d,%d)", who, e.Source, e.Reason)
	if words := abortReasons[e.Reason]; e.Source == abortByProvider && words != "" {
		text += ": " + words
	}
	return text
}

// Unwrap returns net.ErrClosed.
func (e *AbortError) Unwrap() error { return net.ErrClosed }

// Code returns "A-ABORT(source,reason)".
func (e *AbortError) Code() string { return fmt.Sprintf("A-ABORT(%d,%d)", e.Source, e.Reason) }

var abortReasons = map[uint8]string{
	abortUnrecognizedPDU:       "unrecognized PDU",
	abortUnexpectedPDU:         "unexpected PDU",
	4:                          "unrecognized PDU parameter",
	abortUnexpectedParameter:   "unexpected PDU parameter",
	abortInvalidParameterValue: "invalid PDU parameter value",
}

// A RejectError is a peer's refusal of an association with an A-ASSOCIATE-RJ PDU
// (PS3.8 Table 9-21). Numbers that the standard does not know are kept.
type RejectError struct{ Result, Source, Reason uint8 }

// Transient reports whether the peer says that another try may help.
func (e *RejectError) Transient() bool { return e.Result == rejectTransient }

func (e *RejectError) Error() string {
	text := fmt.Sprintf("dicomtls: the peer rejected the association (%d,%d,%d)", e.Result, e.Source, e.Reason)
	if words := rejectReasons[[2]uint8{e.Source, e.Reason}]; words != "" {
		text += ": " + words
	}
	return text
}

// Code returns "A-ASSOCIATE-RJ(result,source,reason)".
func (e *RejectError) Code() string {
	return fmt.Sprintf("A-ASSOCIATE-RJ(%d,%d,%d)", e.Result, e.Source, e.Reason)
}

const rejectPermanent, rejectTransient = 1, 2

// The combinations of PS3.8 Table 9-21.
var (
	rejectNoReason   = RejectError{rejectPermanent, 1, 1}
	rejectContext    = RejectError{rejectPermanent, 1, 2} // application context name not supported
	rejectCallingAE  = RejectError{rejectPermanent, 1, 3}
	rejectCalledAE   = RejectError{rejectPermanent, 1, 7}
	rejectVersion    = RejectError{rejectPermanent, 2, 2}
	rejectIdentity   = RejectError{rejectPermanent, 2, 1} // as pynetdicom does; the standard has no reason for it
	rejectCongestion = RejectError{rejectTransient, 3, 1}
	rejectLimit      = RejectError{rejectTransient, 3, 2}
)

var rejectReasons = map[[2]uint8]string{
	{1, 2}: "application context name not supported",
	{1, 3}: "calling AE title not recognized",
	{1, 7}: "called AE title not recognized",
	{2, 2}: "protocol version not supported",
	{3, 1}: "temporary congestion",
	{3, 2}: "local limit exceeded",
}

// Outcome says what is known of an object, or of another request, after the
// attempt to send it. The zero value is the one that promises nothing.
type Outcome int

const (
	// Unknown means that the whole request was written, and that no response
	// came: the peer may have stored the object or not.
	Unknown Outcome = iota
	// NotSent means that the peer cannot have the whole request: nothing of it
	// was written, or not its end.
	NotSent
	// Refused means that the peer answered with the status of a failure.
	Refused
	// Stored means that the peer answered with success or a warning.
	Stored
)

// String returns "unknown", "not sent", "refused" or "stored".
func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "unknown"
	case NotSent:
		return "not sent"
	case Refused:
		return "refused"
	case Stored:
		return "stored"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// SendError is the error of DialContext and of the methods of an Association.
// Its text holds nothing of an object, and nothing that the peer has written.
type SendError struct {
	Outcome Outcome // never Stored
	Status  Status  // the peer's answer; of no meaning unless Outcome is Refused
	// Comment is the peer's Error Comment (0000,0902). It may quote the object,
	// so it is not part of the text.
	Comment string
	Err     error // why; nil if Outcome is Refused

	// permanent tells that the reason lies in the object or in the
	// configuration, and not in the peer's or the network's state.
	permanent bool
}

func (e *SendError) Error() string {
	switch e.Outcome {
	case Refused:
		return "dicomtls: the peer answered " + e.Status.String()
	case Unknown:
		return "dicomtls: sent, but not answered: " + because(e.Err)
	case NotSent, Stored:
	}
	return "dicomtls: not sent: " + because(e.Err)
}

// because returns the text of err without the package's name, which its reader
// has seen already.
func because(err error) string {
	if err == nil {
		return "no reason given"
	}
	return strings.TrimPrefix(err.Error(), "dicomtls: ")
}

// Unwrap returns Err.
func (e *SendError) Unwrap() error { return e.Err }

// MaybeDelivered tells whether the peer may have stored the object although it
// did not say so. True for Unknown. Storing an object again under the same UID
// is harmless with most archives.
func (e *SendError) MaybeDelivered() bool { return e.Outcome == Unknown }

// Retryable tells whether the same request may meet with success later: true
// for Unknown, for NotSent by the network's or the peer's fault, for A7xx and
// 0213, and for a transient rejection of the association. False for all other
// answers, for a permanent rejection, for an object that the peer does not take
// or that cannot be sent, and for a faulty configuration.
func (e *SendError) Retryable() bool {
	if e.Outcome == Refused {
		return e.Status.Retryable()
	}
	if reject, ok := errors.AsType[*RejectError](e.Err); ok {
		return reject.Transient()
	}
	return !e.permanent && !errors.Is(e.Err, ErrPeerRejectedCertificate)
}

// Code returns the peer's own word: the four digits of its status, or what
// RejectError and AbortError return; "" if it did not say anything.
func (e *SendError) Code() string {
	if e.Outcome == Refused {
		return e.Status.Code()
	}
	var coded interface{ Code() string }
	if errors.As(e.Err, &coded) {
		return coded.Code()
	}
	return ""
}

// notSent is NotSent for a reason that may pass.
func notSent(err error) *SendError { return &SendError{Outcome: NotSent, Err: err} }

// impossible is NotSent for a reason that will not pass by itself.
func impossible(err error) *SendError { return &SendError{Outcome: NotSent, Err: err, permanent: true} }

// peerError returns err as ErrPeerRejectedCertificate if that is what it means.
func peerError(err error) error {
	if _, what := tlsprops.PeerAlert(err); what == tlsprops.RefusedCertificate {
		return fmt.Errorf("%w: %w", ErrPeerRejectedCertificate, err)
	}
	return err
}

// handshakeError classifies the error of a TLS handshake. What a handshake
// fails of, beside the connection, is our or the peer's configuration.
func handshakeError(err error) *SendError {
	fault := tlsprops.HandshakeFault(err)
	err = peerError(fmt.Errorf("dicomtls: TLS handshake: %w", err))
	if hint := tlsprops.Hint(err); hint != "" {
		err = fmt.Errorf("%w (%s)", err, hint)
	}
	if !fault {
		return notSent(err)
	}
	return impossible(err)
}
