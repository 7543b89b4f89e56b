package mllp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// The kinds of events of a Client and, but for health, of a Dialer, besides
// EventClosed. Those with a Reason name
// it in brackets; where it speaks of a certificate, that is the receiver's.
const (
	EventDialed       EventKind = "dialed"        // a connection was made; Duration, with the TLS handshake
	EventDialFailed   EventKind = "dial_failed"   // it was not [why]; Duration, Err, Certificate
	EventMessageBegun EventKind = "message_begun" // Send was called; Bytes
	EventMessageEnded EventKind = "message_ended" // Send returns; Outcome, Code, Bytes, Err, Duration since it was called
	EventHealth       EventKind = "health"        // the state has changed; Detail is the new State
)

// Reasons of a Client's events, besides those of frames, connections and TLS.
const (
	ReasonHostUnknown  Reason = "host_unknown"   // DNS says that there is no such host
	ReasonResolve      Reason = "resolve_failed" // DNS did not say anything useful
	ReasonConnRefused  Reason = "conn_refused"   // nobody listens there
	ReasonDialTimeout  Reason = "dial_timeout"   // no connection, or no TLS handshake, in time
	ReasonDialFailed   Reason = "dial_failed"    // any other failure to connect
	ReasonTLSWrongName Reason = "tls_wrong_name" // the certificate is of another host
	ReasonUnsolicited  Reason = "unsolicited"    // bytes came that no message waits for
	ReasonMismatch     Reason = "mismatch"       // an acknowledgement of another message, under MatchStrict
	ReasonGivenUp      Reason = "given_up"       // a message's acknowledgement did not come while it was waited for
	ReasonDone         Reason = "done"           // Client.DialPerMessage: the message has had its answer
)

func dialed(conn *Conn, took time.Duration) Event {
	e := Event{Kind: EventDialed, RemoteAddr: conn.RemoteAddr(), Duration: took}
	if state, ok := conn.ConnectionState(); ok {
		e.TLS = &state
	}
	return e
}

func dialFailed(failure *SendError, took time.Duration) Event {
	e := Event{Kind: EventDialFailed, Duration: took, Err: failure}
	dns, isDNS := errors.AsType[*net.DNSError](failure)
	_, isName := errors.AsType[x509.HostnameError](failure)
	var verify *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	alert, _ := tlsprops.PeerAlert(failure)
	switch {
	case isDNS && dns.IsNotFound:
		e.Reason = ReasonHostUnknown
	case isDNS:
		e.Reason = ReasonResolve
	case errors.Is(failure, syscall.ECONNREFUSED):
		e.Reason = ReasonConnRefused
	case isTimeout(failure), errors.Is(failure, context.DeadlineExceeded):
		e.Reason = ReasonDialTimeout
	case errors.As(failure, &verify), errors.As(failure, &header), alert != "":
		told := handshakeEvent(failure)
		e.Reason, e.Certificate, e.Detail = told.Reason, told.Certificate, told.Detail
		if isName {
			e.Reason = ReasonTLSWrongName
		}
		if told.Err == nil {
			e.Err = nil
		}
	default:
		e.Reason = ReasonDialFailed
	}
	return e
}

// linkClosed tells of the end of k; why is the Client's own reason, if it has one.
func linkClosed(k *link, why Reason) Event {
	if why != "" {
		return Event{Kind: EventClosed, Reason: why, RemoteAddr: k.conn.RemoteAddr(), Duration: time.Since(k.opened)}
	}
	return connClosed(k.conn, k.opened)
}

// connClosed tells of the end of a Conn.
func connClosed(c *Conn, opened time.Time) Event {
	e := Event{Kind: EventClosed, RemoteAddr: c.RemoteAddr(), Duration: time.Since(opened), Err: c.Err()}
	switch {
	case errors.Is(e.Err, errClosed):
		e.Reason, e.Err = ReasonShutdown, nil
	case errors.Is(e.Err, errNotKeptOpen):
		e.Reason, e.Err = ReasonNotKeptOpen, nil
	case errors.Is(e.Err, ErrPeerRejectedCertificate):
		e.Reason = ReasonTLSPeerRefused
	case errors.Is(e.Err, ErrUnsolicited):
		e.Reason = ReasonUnsolicited
	case errors.Is(e.Err, ErrMismatch):
		e.Reason = ReasonMismatch
	case errors.Is(e.Err, errGivenUp):
		e.Reason = ReasonGivenUp
	case errors.Is(e.Err, io.EOF):
		e.Reason = ReasonPeerClosed
	default:
		e.Reason = ReasonReadFailed
	}
	return e
}

// observed is send, and tells of it.
func (c *Conn) observed(size int64, send func() (*Reply, *SendError)) (*Reply, *SendError) {
	if c.observe == nil {
		return send()
	}
	began := time.Now()
	c.observe(Event{Kind: EventMessageBegun, Bytes: size})
	reply, err := send()
	c.observe(messageEnded(reply, err, size, time.Since(began)))
	return reply, err
}

func messageEnded(reply *Reply, failure *SendError, size int64, took time.Duration) Event {
	e := Event{Kind: EventMessageEnded, Bytes: size, Duration: took}
	switch {
	case failure != nil:
		e.Outcome, e.Code = failure.Outcome, failure.AckCode
		e.Err = failure
	case reply != nil:
		e.Outcome, e.Code = reply.Outcome(), reply.Ack.Code
	}
	return e
}
