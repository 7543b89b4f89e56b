package meshclient

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carewire/carewire/httpsender"
)

// Errors that an Error is, as errors.Is finds.
var (
	// ErrAuth means that the server refused the token (403): password, hash
	// secret, mailbox or clock are wrong, the mailbox is disabled, or the message
	// is another's. Another try cannot help.
	ErrAuth = errors.New("the server refused the mailbox's credentials, or the message is not its own")
	// ErrClockSkew means, beside ErrAuth, that the clocks of this machine and of
	// the server differ by more than the two hours that a token is good for.
	ErrClockSkew = errors.New("the clocks differ")
	// ErrClientCertificate means that the server did not accept the client
	// certificate, or wants one. MESH tells so in several ways: in TLS, in a page
	// with status 400, or by ending the connection.
	ErrClientCertificate = errors.New("the server rejected the client certificate, or wants one")
	// ErrNotFound means that there is no such message, or it is another's (404).
	ErrNotFound = errors.New("there is no such message")
	// ErrGone means that the message was acknowledged, has expired or failed, or
	// is still being uploaded (410).
	ErrGone = errors.New("the message is not to be had any more, or not yet")
	// ErrUnregisteredRecipient means that there is no such recipient (code 12).
	ErrUnregisteredRecipient = errors.New("the recipient is not registered")
	// ErrWorkflow means that sender or recipient may not use the workflow (codes
	// 16, 17 and 18).
	ErrWorkflow = errors.New("the workflow is not registered or not allowed")
	// ErrFinalised means that the message takes no more chunks (423).
	ErrFinalised = errors.New("the message is complete, and takes no more chunks")
	// ErrTooLarge means that a request or message exceeds a limit.
	ErrTooLarge = errors.New("too large")
	// ErrNotUnique means that several messages have that local id (300).
	ErrNotUnique = errors.New("several messages have that local id")
	// ErrOutcomeUnknown means that the message may have been sent: the connection
	// ended before the answer. Error.LocalID finds it, with TrackLocal.
	ErrOutcomeUnknown = errors.New("whether the message was sent is not known")
	// ErrBadAnswer means that the server answered what the API does not allow.
	ErrBadAnswer = errors.New("the answer is not one of the MESH API")
	// ErrChecksum means that a message is not what its sender's checksum says.
	ErrChecksum = errors.New("the message does not match its checksum")
	// ErrInvalid means that a call's arguments are refused here, or by the server
	// (400 and 422).
	ErrInvalid = errors.New("invalid")
	// ErrSourceChanged means that what is to be sent is not what it was when its
	// sending began, or is not as long as it says.
	ErrSourceChanged = errors.New("what is being sent has changed")
)

// An Error is the error of every call of a Client. Its text holds nothing that
// the server or the caller wrote, but codes: both may name patients.
type Error struct {
	Op     string // "send", "inbox", "receive" ...
	Status int    // of the answer; 0: there was none
	// ServerCode and Event are the API's own, "12" and "SEND" say; what is no
	// short word is left out.
	ServerCode string
	Event      string
	// Description is what the server wrote, up to 4 KiB and without control
	// characters. It may quote the request: it is not in Error's text, and does
	// not belong in a log.
	Description string
	Shape       Shape  // of the answer
	MessageID   string // of the message in question, "" if it is not known
	LocalID     string // of the message that was being sent
	// Skew is by how much this machine's clock is ahead of the server's; 0 if
	// that is not known.
	Skew     time.Duration
	Attempts int // how many requests were made of it; 0: not known

	kind    []error // of the errors above
	outcome httpsender.Outcome
	lasting bool  // another try cannot help, whatever outcome says
	cause   error // whose text can be shown to anybody; nil: none
}

// Error returns one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("meshclient: " + e.Op)
	if e.Status != 0 {
		b.WriteString(": the server answered " + strconv.Itoa(e.Status))
	}
	if e.ServerCode != "" {
		b.WriteString(", code " + e.ServerCode)
	}
	if e.Event != "" {
		b.WriteString(" (" + e.Event + ")")
	}
	for _, k := range e.kind {
		b.WriteString(": " + k.Error())
		if k == ErrClockSkew { //nolint:errorlint // kinds are not wrapped
			fmt.Fprintf(&b, ": this machine's is %s the server's", describeSkew(e.Skew))
		}
	}
	if e.cause != nil {
		b.WriteString(": " + strings.TrimPrefix(e.cause.Error(), "meshclient: "))
	}
	return b.String()
}

func describeSkew(d time.Duration) string {
	if d < 0 {
		return (-d).Round(time.Second).String() + " behind"
	}
	return d.Round(time.Second).String() + " ahead of"
}

// Unwrap returns what the error is, and its cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return e.kind
	}
	return append(slices.Clip(e.kind), e.cause)
}

// MaybeDelivered tells whether the message may have been sent although nobody
// said so: to send it again may send it twice.
func (e *Error) MaybeDelivered() bool { return e.outcome == httpsender.Unknown }

// Retryable tells whether the same call may meet with success later, where
// MaybeDelivered is true at its risk.
func (e *Error) Retryable() bool {
	return !e.lasting && (e.outcome == httpsender.Retryable || e.outcome == httpsender.Unknown)
}

// Code returns the API's code, or else the status as text; "" if there was no
// answer.
func (e *Error) Code() string {
	if e.ServerCode != "" || e.Status == 0 {
		return e.ServerCode
	}
	return strconv.Itoa(e.Status)
}

// local returns the error for arguments that are not sent to any server.
func local(op string, kind error, why string) *Error {
	return &Error{Op: op, kind: []error{kind}, outcome: httpsender.Rejected, cause: errors.New(why)}
}

// badAnswer returns the error for an answer that says yes and makes no sense.
func badAnswer(op string, status int, why string) *Error {
	return &Error{Op: op, Status: status, kind: []error{ErrBadAnswer}, outcome: httpsender.Rejected, cause: errors.New(why)}
}

// kindsOf returns what a status and a code mean.
func kindsOf(status int, code string) []error {
	switch code {
	case "12":
		return []error{ErrUnregisteredRecipient}
	case "16", "17", "18":
		return []error{ErrWorkflow}
	}
	switch status {
	case http.StatusMultipleChoices:
		return []error{ErrNotUnique}
	case http.StatusForbidden, http.StatusUnauthorized:
		return []error{ErrAuth}
	case http.StatusNotFound:
		return []error{ErrNotFound}
	case http.StatusGone:
		return []error{ErrGone}
	case http.StatusRequestEntityTooLarge:
		return []error{ErrTooLarge}
	case http.StatusLocked:
		return []error{ErrFinalised}
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusExpectationFailed, http.StatusUnprocessableEntity:
		return []error{ErrInvalid}
	}
	return nil
}
