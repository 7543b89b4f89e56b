package dicomtls

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// countingConn tells a client that went away before its first byte from others.
type countingConn struct {
	net.Conn

	received bool
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received = c.received || n > 0
	return n, err
}

// handshake turns the connection into one with TLS, or reports why not.
func (c *conn) handshake(ctx context.Context) bool {
	counted := &countingConn{Conn: c.net}
	secure := tls.Server(counted, c.cfg.tls)
	err := c.raw.SetDeadline(after(c.cfg.handshakeTimeout))
	if err == nil && c.draining.Load() {
		return false // whose waking of the reader has been undone
	}
	if err == nil {
		err = secure.HandshakeContext(ctx)
	}
	if err == nil {
		err = c.raw.SetDeadline(time.Time{})
	}
	if err == nil {
		state := secure.ConnectionState()
		c.net, c.info.TLS = secure, &state
		return true
	}
	switch {
	case c.draining.Load() || ctx.Err() != nil:
	case !counted.received && errors.Is(err, io.EOF):
		c.cfg.tell(ctx, Event{Kind: EventProbe, RemoteAddr: c.info.RemoteAddr})
	default:
		e := handshakeEvent(err)
		e.RemoteAddr = c.info.RemoteAddr
		c.cfg.tell(ctx, e)
	}
	return false
}

// handshakeEvent says why a handshake failed.
func handshakeEvent(err error) Event {
	e := Event{Kind: EventHandshakeFailed, Reason: ReasonTLSFailed, Err: err}
	var (
		header tls.RecordHeaderError
		verify *tls.CertificateVerificationError
		alert  tls.AlertError
		op     *net.OpError
		late   net.Error
	)
	switch {
	case errors.As(err, &late) && late.Timeout():
		e.Reason = ReasonHandshakeTimeout
	case errors.As(err, &header):
		e.Err = nil // it holds bytes of what should have been secret
		e.Reason = ReasonNotTLS
		if h := header.RecordHeader; h[0] == pduAssociateRQ && h[1] == 0 {
			e.Detail = "DICOM without TLS"
		} else {
			e.Detail = otherProtocol(h[:])
		}
	case errors.As(err, &verify):
		e.Reason = ReasonTLSBadCertificate
	case errors.As(err, &alert), errors.As(err, &op) && op.Op == "remote error":
		e.Reason = ReasonTLSPeerRefused
	case strings.Contains(err.Error(), "client didn't provide a certificate"): // crypto/tls has no type for it
		e.Reason = ReasonTLSNoCertificate
	}
	return e
}

// hostOf returns the address without the port.
func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// binds reports whether CertificateAEs lets the client call itself by the title.
func (c *config) binds(state *tls.ConnectionState, title string) bool {
	if len(c.CertificateAEs) == 0 {
		return true
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	return slices.ContainsFunc(certificateKeys(state.PeerCertificates[0]), func(key string) bool {
		return slices.Contains(c.CertificateAEs[key], title)
	})
}

// certificateKeys returns the keys of CertificateAEs that describe cert.
func certificateKeys(cert *x509.Certificate) []string {
	sum := sha256.Sum256(cert.Raw)
	keys := []string{"sha256:" + hex.EncodeToString(sum[:])}
	if cn := cert.Subject.CommonName; cn != "" {
		keys = append(keys, "cn:"+cn)
	}
	for _, name := range cert.DNSNames {
		keys = append(keys, "dns:"+name)
	}
	for _, ip := range cert.IPAddresses {
		keys = append(keys, "ip:"+ip.String())
	}
	return keys
}
