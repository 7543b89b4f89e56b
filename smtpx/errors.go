package smtpx

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/carewire/carewire/tlsprops"
)

// Outcome says what is known of a message, or of one recipient's copy, after
// Send. The zero value is the one that promises nothing.
type Outcome int

const (
	// Unknown means that the whole message was written, and that the server's
	// answer to it did not come: the server may have taken it or not. Sending it
	// again may make a duplicate.
	Unknown Outcome = iota
	// NotSent means that the server cannot have taken the message: its end was
	// not written.
	NotSent
	// Rejected means that the server answered with a code that begins with 4 or 5.
	Rejected
	// Partial means that the server took the message for some recipients and
	// rejected others. It is never the outcome of one recipient.
	Partial
	// Accepted means that the server took the message, and is responsible for it.
	Accepted
)

var outcomeNames = map[Outcome]string{
	Unknown: "unknown", NotSent: "not sent", Rejected: "rejected", Partial: "partial", Accepted: "accepted",
}

// String returns "unknown", "not sent", "rejected", "partial" or "accepted".
func (o Outcome) String() string {
	if name, ok := outcomeNames[o]; ok {
		return name
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Errors found with errors.Is in what Send returns. None of them goes away by
// trying again, but for ErrClosed on another Sender.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("smtpx: the Sender is closed")
	// ErrNoStartTLS means that a server which must encrypt does not offer
	// STARTTLS, or refused it: it cannot, or somebody on the way took the offer out.
	ErrNoStartTLS = errors.New("smtpx: the server does not do STARTTLS, which encryption tls demands")
	// ErrInjected means that bytes which nobody may have sent came in the clear
	// right before the TLS handshake: somebody on the way, or a server that is
	// open to it (CVE-2011-0411).
	ErrInjected = errors.New("smtpx: plaintext came after the answer to STARTTLS")
	// ErrPlaintextAuth means that credentials would have gone over a connection
	// without TLS.
	ErrPlaintextAuth = errors.New("smtpx: no credentials without TLS: use encryption tls or ssl")
	// ErrAuth means that the server did not accept the credentials, or none of
	// the mechanisms that both sides know is allowed.
	ErrAuth = errors.New("smtpx: authentication failed")
	// ErrTooLarge means that the message is larger than the server's SIZE (RFC
	// 1870) or Sender.MaxMessageBytes. Nothing of it was sent.
	ErrTooLarge = errors.New("smtpx: the message is too large")
	// ErrNoSMTPUTF8 means that an address has characters outside of ASCII, and
	// the server does not offer SMTPUTF8 (RFC 6531).
	ErrNoSMTPUTF8 = errors.New("smtpx: the server does not take internationalised addresses (SMTPUTF8)")
	// ErrPeerRejectedCertificate means that the server did not accept this side's
	// client certificate, or wanted one and got none.
	ErrPeerRejectedCertificate = errors.New("smtpx: the server rejected the client certificate")
)

// Recipient is what became of the message for one address.
type Recipient struct {
	Address string // the mailbox alone, "a@example.org"
	Outcome Outcome
	Reply   Reply // the server's; none where the outcome is Unknown or NotSent

	permanent bool // of NotSent: another try cannot help
}

// Retryable tells whether sending to this recipient again can help: always for
// Unknown, at the risk of a duplicate; for Rejected if the code begins with 4;
// for NotSent if the reason lies with the network or the server's state.
func (r Recipient) Retryable() bool {
	switch r.Outcome {
	case Unknown:
		return true
	case Rejected:
		return r.Reply.Temporary()
	case NotSent:
		return !r.permanent
	case Partial, Accepted:
	}
	return false
}

// String returns the outcome with the address's domain alone: an address tells
// whom the mail is about.
func (r Recipient) String() string {
	text := redacted(r.Address) + " " + r.Outcome.String()
	if r.Reply.Code != 0 {
		text += " " + r.Reply.String()
	}
	return text
}

// Format prints String for every verb, so that none shows the address.
func (r Recipient) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, r.String()) }

// LogValue returns String.
func (r Recipient) LogValue() slog.Value { return slog.StringValue(r.String()) }

// Result is what became of a message.
type Result struct {
	MessageID  string      // without < and >
	Bytes      int64       // of the message as it is on the wire, before dots are doubled
	Recipients []Recipient // in the order of To, Cc, Bcc, or of Message.Recipients; each address once
	DSN        bool        // the server took the request for notifications in Message.DSN
}

// Remaining returns the addresses for which another try can help. To send the
// same message to them and to nobody else, set Message.Recipients to it, and
// Message.ID to MessageID.
func (r *Result) Remaining() []string {
	var left []string
	for _, rcpt := range r.Recipients {
		if rcpt.Retryable() {
			left = append(left, rcpt.Address)
		}
	}
	return left
}

// SendError is the error of Send. Its text, and that of the errors it wraps,
// holds no address, nothing of the message, and of the server's answer the codes
// alone.
type SendError struct {
	Outcome Outcome // never Accepted
	Command string  // what the server refused, such as "RCPT"; "" if it refused nothing
	Reply   Reply   // the first refusal; none if the server refused nothing
	Err     error   // why, if it was no refusal; of a refusal, what kind, or nil

	refused, total int  // recipients; of Partial
	retry          bool // another try can help
}

func (e *SendError) Error() string {
	why := "no reason given"
	switch {
	case e.Err != nil:
		why = strings.TrimPrefix(e.Err.Error(), "smtpx: ")
		if e.Reply.Code != 0 {
			why += ": " + e.Reply.String() + " to " + e.Command
		}
	case e.Reply.Code != 0:
		why = e.Reply.String() + " to " + e.Command
	}
	switch e.Outcome {
	case Unknown:
		return "smtpx: sent, but not acknowledged: " + why
	case Rejected:
		return "smtpx: refused: " + why
	case Partial:
		return fmt.Sprintf("smtpx: refused for %d of %d recipients: %s", e.refused, e.total, why)
	case NotSent, Accepted:
	}
	return "smtpx: not sent: " + why
}

// Unwrap returns Err.
func (e *SendError) Unwrap() error { return e.Err }

// MaybeDelivered tells whether sending the message again to everybody may make a
// duplicate: after Unknown, and after Partial, where it is certain to make one
// for those who have it; see Result.Remaining.
func (e *SendError) MaybeDelivered() bool { return e.Outcome == Unknown || e.Outcome == Partial }

// Retryable tells whether another try can help at least one recipient: see
// Recipient.Retryable.
func (e *SendError) Retryable() bool { return e.retry }

// Code returns the codes of Reply, such as "550 5.1.1"; "" if there was none.
func (e *SendError) Code() string { return e.Reply.String() }

// notSent is NotSent for a reason that may pass.
func notSent(err error) *SendError { return &SendError{Outcome: NotSent, Err: err, retry: true} }

// unfit is NotSent for a reason that will not pass by itself.
func unfit(err error) *SendError { return &SendError{Outcome: NotSent, Err: err} }

// declined is the server's refusal of a command; kind may be nil.
func declined(command string, r Reply, kind error) *SendError {
	return &SendError{Outcome: Rejected, Command: command, Reply: r, Err: kind, retry: r.Temporary()}
}

// lost is the error of a connection that ended. In TLS 1.3 a server refuses the
// client's certificate only after the handshake, which shows in the first read.
func lost(err error) *SendError {
	if _, what := tlsprops.PeerAlert(err); what == tlsprops.RefusedCertificate {
		return unfit(fmt.Errorf("%w: %w", ErrPeerRejectedCertificate, err))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("smtpx: the server closed the connection: %w", err)
	}
	return notSent(err)
}

// handshakeError classifies the error of a TLS handshake.
func handshakeError(err error) *SendError {
	wrapped := fmt.Errorf("smtpx: TLS handshake: %w", err)
	if _, what := tlsprops.PeerAlert(err); what == tlsprops.RefusedCertificate {
		wrapped = fmt.Errorf("%w: %w", ErrPeerRejectedCertificate, wrapped)
	}
	if hint := tlsprops.Hint(err); hint != "" {
		wrapped = fmt.Errorf("%w (%s)", wrapped, hint)
	}
	if tlsprops.HandshakeFault(err) {
		return unfit(wrapped)
	}
	return notSent(wrapped)
}
