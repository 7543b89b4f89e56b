package httpsender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// Errors found in the Err of a SendError with errors.Is.
var (
	// ErrClosed means that the Sender was closed.
	ErrClosed = errors.New("httpsender: the Sender is closed")
	// ErrCircuitOpen means that the request was not tried, because too many
	// before it failed: see Breaker.
	ErrCircuitOpen = errors.New("httpsender: not tried, because requests to this host have been failing")
	// ErrQueueTimeout means that all MaxRequestsPerHost requests to the host were
	// under way for QueueTimeout.
	ErrQueueTimeout = errors.New("httpsender: too many requests to this host are under way")
	// ErrPlaintext means that the Sender has TLS settings, and the URL is http://.
	ErrPlaintext = errors.New("httpsender: the Sender has TLS settings, and the URL is http://: use https://, or a Sender without them")
	// ErrPlaintextAuth means that a password or token would have gone over
	// http:// to another machine: see Sender.AllowPlaintextAuth.
	ErrPlaintextAuth = errors.New("httpsender: credentials are not sent over http:// to another machine: use https://")
	// ErrProxyAuth means that the proxy wants other credentials.
	ErrProxyAuth = errors.New("httpsender: the proxy wants a user and password, or other ones")
	// ErrPeerRejectedCertificate means that the server did not accept the client
	// certificate, or wanted one and got none. Another try cannot help. In TLS 1.3
	// that news can be lost when the server resets the connection after it, and
	// with HTTP/2: then it is a lost connection like any other.
	ErrPeerRejectedCertificate = errors.New("httpsender: the server rejected the client certificate")
	// ErrBadResponse means that what the server answered is not well-formed HTTP,
	// or exceeds the limits for headers. What it was is not told, because it may
	// hold anything.
	ErrBadResponse = errors.New("httpsender: the answer is not well-formed HTTP")
	// ErrConnectionLost means that the connection ended before the answer did.
	ErrConnectionLost = errors.New("httpsender: the connection ended before the answer did")
)

// A StallError says that nothing moved on a connection for too long. It is a
// net.Error whose Timeout is true.
type StallError struct {
	Phase string        // "sending", "waiting for the answer" or "receiving"
	After time.Duration // how long nothing moved
}

// Error returns one line.
func (e *StallError) Error() string {
	return fmt.Sprintf("httpsender: %s: nothing moved for %v", e.Phase, e.After)
}

// Timeout returns true.
func (e *StallError) Timeout() bool { return true }

// Temporary returns true.
func (e *StallError) Temporary() bool { return true }

// A TooLargeError says that an answer exceeds what the Sender takes.
type TooLargeError struct {
	Limit int64 // in bytes: MaxResponseBytes; or MaxCompressionRatio
	Ratio bool  // it is compressed more than Limit to one
}

// Error returns one line.
func (e *TooLargeError) Error() string {
	if e.Ratio {
		return fmt.Sprintf("httpsender: the answer is compressed more than %d to 1", e.Limit)
	}
	return fmt.Sprintf("httpsender: the answer has more than %d bytes", e.Limit)
}

// errReplay ends an attempt that net/http would make again by itself, with the
// credentials of the first.
var errReplay = errors.New("httpsender: the connection was closed by the server before it took the request")

// errBodyStopped is what the transport reads from the body of an attempt that is
// over.
var errBodyStopped = errors.New("httpsender: the attempt is over")

// A dialError is an error of making a connection, which is the dialer's own.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// A sourceError is an error of the request's own body.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "httpsender: reading the request's body failed" }
func (e *sourceError) Unwrap() error { return e.err }

// permanent tells whether an error from before anything was sent lies in
// settings or certificates, which do not mend themselves.
func permanent(err error) bool {
	if errors.Is(err, ErrProxyAuth) || errors.Is(err, ErrPeerRejectedCertificate) {
		return true
	}
	if e, ok := errors.AsType[*proxyError](err); ok {
		_, permanent := statusOutcome(e.status, true)
		return permanent
	}
	if _, ok := errors.AsType[*tlsprops.FieldError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true // the server does not speak TLS
	}
	if _, what := tlsprops.PeerAlert(err); what != tlsprops.RefusedNothing {
		return true
	}
	// What net/http says of a request that it will not write, and crypto/tls of
	// a server with which it has nothing in common.
	text := err.Error()
	return strings.HasPrefix(text, "net/http: invalid ") || strings.HasPrefix(text, "tls: ")
}

// public returns err, or the part of it that can be shown to anybody: net/http
// quotes what the server sent where it should have sent HTTP.
func public(err error) error {
	if e, ok := errors.AsType[*SendError](err); ok {
		return e
	}
	for _, known := range []error{
		ErrClosed, ErrProxyAuth, errReplay, errBodyStopped, context.Canceled,
		context.DeadlineExceeded, os.ErrDeadlineExceeded, net.ErrClosed,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	if alert, what := tlsprops.PeerAlert(err); what == tlsprops.RefusedCertificate {
		return fmt.Errorf("%w (%s)", ErrPeerRejectedCertificate, alert)
	}
	if e := publicType(err); e != nil {
		return e
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrConnectionLost
	}
	text := err.Error()
	for prefix, e := range publicTexts {
		if strings.HasPrefix(text, prefix) {
			return e
		}
	}
	return ErrBadResponse
}

// publicType returns the error in err that has a type whose text is harmless.
func publicType(err error) error {
	if e, ok := errors.AsType[*StallError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*TooLargeError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*sourceError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*proxyError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*dialError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tlsprops.FieldError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return errors.New("the server does not speak TLS: " + e.Msg)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return nil
}

// publicTexts are errors of the standard library without a type, by how they begin.
var publicTexts = map[string]error{
	"net/http: invalid ":            errors.New("the request has an invalid method, header or trailer"),
	"http: ContentLength=":          errors.New("the request's body is not as long as it says"),
	"http: server closed idle":      ErrConnectionLost,
	"http2: client connection lost": errors.New("the connection does not answer to pings any more"),
	"http2: server sent GOAWAY":     ErrConnectionLost,
	"http2: client conn":            ErrConnectionLost, // is closed, not usable, could not be established
	"http2: Transport closing idle": ErrConnectionLost,
	"stream error: stream ID ":      errors.New("the server reset the stream"),
	"tls: ":                         errors.New("the TLS handshake failed: nothing in common with the server's settings"),
	"http: no Host in request URL":  errors.New("the URL has no host"),
	"net/http: request canceled":    context.Canceled,
}

// originOf returns what may be shown of a URL.
func originOf(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.Scheme + "://" + u.Host // Host is without user and password
}
