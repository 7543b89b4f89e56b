package mllp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// errHandshake ends a connection whose handshake failed, of which has been told.
var errHandshake = errors.New("mllp: TLS handshake failed")

// handshake turns the connection into one with TLS.
func (c *conn) handshake(ctx context.Context) error {
	raw := &farewell{Conn: c.raw}
	secure := tls.Server(raw, c.cfg.tls)
	generation := c.cfg.generation.Load()
	var err error
	if t := c.cfg.handshakeTimeout; t > 0 {
		err = c.raw.SetDeadline(time.Now().Add(t))
	}
	if err == nil && c.draining.Load() {
		err = errDrained // whose waking of the reader has been undone
	}
	if err == nil {
		err = secure.HandshakeContext(ctx)
	}
	if err == nil {
		err = c.raw.SetDeadline(time.Time{})
	}
	if err == nil {
		state := secure.ConnectionState()
		c.net, c.req.TLS, c.req.Identity, c.wire = secure, &state, c.cfg.identify(&state), raw
		c.sender = c.cfg.sender(c.req.Identity)
		if c.cfg.recheck {
			c.verified.Store(&state)
			if c.cfg.generation.Load() != generation { // and recheck may have passed by already
				c.recheck()
			}
		}
		return nil
	}
	switch {
	case c.draining.Load() || ctx.Err() != nil:
	case !raw.received && errors.Is(err, io.EOF):
		c.cfg.tell(ctx, Event{Kind: EventProbe, RemoteAddr: c.req.RemoteAddr})
	default:
		e := handshakeEvent(err)
		e.RemoteAddr, e.ProxyAddr = c.req.RemoteAddr, c.req.ProxyAddr
		c.cfg.tell(ctx, e)
	}
	return errHandshake
}

// handshakeEvent says why a handshake failed.
func handshakeEvent(err error) Event {
	e := Event{Kind: EventHandshakeFailed, Reason: ReasonTLSFailed, Err: err}
	var (
		header tls.RecordHeaderError
		verify *tls.CertificateVerificationError
		alert  tls.AlertError
		op     *net.OpError
	)
	switch {
	case isTimeout(err):
		e.Reason = ReasonHandshakeTimeout
	case errors.As(err, &header):
		e.Err = nil // it holds bytes of what should have been secret
		if e.Reason = ReasonNotTLS; header.RecordHeader[0] == vt {
			e.Detail = "MLLP without TLS"
		} else if name := otherThanTLS(header.RecordHeader); name != "" {
			e.Detail = name
		}
	case errors.As(err, &verify):
		e.Reason = certificateReason(verify.Err)
		if certs := verify.UnverifiedCertificates; len(certs) > 0 {
			cert := certs[0]
			e.Certificate = new(Certificate)
			e.Certificate.Subject, e.Certificate.Issuer, e.Certificate.Serial = certificateNames(cert)
			switch {
			case e.Reason == ReasonTLSUnknownAuthority && bytes.Equal(cert.RawSubject, cert.RawIssuer):
				e.Reason = ReasonTLSSelfSigned
			case e.Reason == ReasonTLSExpired && time.Now().Before(cert.NotBefore):
				e.Reason = ReasonTLSNotYetValid
			}
		}
	case errors.As(err, &alert), errors.As(err, &op) && op.Op == "remote error":
		e.Reason = ReasonTLSPeerRefused
	// crypto/tls has no types for these two.
	case strings.Contains(err.Error(), "client didn't provide a certificate"):
		e.Reason = ReasonTLSNoCertificate
	case strings.Contains(err.Error(), "client offered only unsupported versions"):
		e.Reason = ReasonTLSVersion
	}
	return e
}

// certificateReason says why a client's certificate was refused.
func certificateReason(err error) Reason {
	var (
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
		revoked interface{ Revoked() bool } // of tlsprops
	)
	switch {
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case x509.Expired:
			return ReasonTLSExpired
		case x509.IncompatibleUsage:
			return ReasonTLSWrongUsage
		default:
			return ReasonTLSBadCertificate
		}
	case errors.As(err, &unknown):
		return ReasonTLSUnknownAuthority
	case errors.As(err, &revoked) && revoked.Revoked():
		return ReasonTLSRevoked
	}
	return ReasonTLSBadCertificate
}

// isTimeout reports whether a deadline has passed.
func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// typeName names the type of an error whose text must not be shown.
func typeName(err error) string { return fmt.Sprintf("%T", err) }
