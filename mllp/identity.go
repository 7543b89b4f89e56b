package mllp

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// An Identity is who the client is, by the certificate that it presented, whose
// key it has, and that was verified in the handshake. It is made once for a
// connection and shared by all its Requests: it must not be modified.
//
// With verify "pinned" (see [tlsprops.TlsProperties]) no authority has vouched for
// the names in the certificate, and the client may have written any. Then all
// fields but SPKI and Certificate are empty.
type Identity struct {
	Subject    string // the distinguished name, as RFC 2253 writes it
	CommonName string // of the subject
	Issuer     string // as Subject
	Serial     string // hexadecimal, upper case
	// The subject alternative names (RFC 5280, section 4.2.1.6).
	DNSNames       []string
	IPAddresses    []netip.Addr
	URIs           []string
	EmailAddresses []string
	// SPKI is "sha256/" and the base64 of the SHA-256 of the public key
	// (SubjectPublicKeyInfo), as in TlsProperties.Pins. It stays when a
	// certificate is renewed with the same key.
	SPKI        string
	Certificate *x509.Certificate
}

// spkiPrefix begins an Identity.SPKI.
const spkiPrefix = "sha256/"

// ConnInfo is what is known of a connection before its first message.
type ConnInfo struct {
	RemoteAddr net.Addr             // as in Request
	ProxyAddr  net.Addr             // as in Request
	LocalAddr  net.Addr             // as in Request
	TLS        *tls.ConnectionState // as in Request
	Identity   *Identity            // as in Request
}

// errNilContext ends a connection for which Server.ConnContext returned nil.
var errNilContext = errors.New("mllp: Server.ConnContext returned nil")

// connContext returns the context of the connection's handlers.
func (c *conn) connContext(ctx context.Context) (context.Context, error) {
	if c.cfg.connContext == nil {
		return ctx, nil
	}
	r := &c.req
	own := c.cfg.connContext(ctx, ConnInfo{RemoteAddr: r.RemoteAddr, ProxyAddr: r.ProxyAddr, LocalAddr: r.LocalAddr, TLS: r.TLS, Identity: r.Identity})
	if own == nil {
		return ctx, &closeError{reason: ReasonPanic, err: errNilContext}
	}
	return own, nil
}

// identify returns the identity of the client of a finished handshake, or nil.
func (c *config) identify(state *tls.ConnectionState) *Identity {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	// crypto/tls leaves VerifiedChains empty where it has not verified, but a
	// listener of tlsprops lets in no certificate that it has not verified itself.
	if len(state.VerifiedChains) == 0 && c.source == nil {
		return nil
	}
	cert := state.PeerCertificates[0]
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	id := &Identity{SPKI: spkiPrefix + base64.StdEncoding.EncodeToString(sum[:]), Certificate: cert}
	if c.keysOnly {
		return id
	}
	id.Subject, id.Issuer, id.Serial = certificateNames(cert)
	id.CommonName = cert.Subject.CommonName
	id.DNSNames = cert.DNSNames
	id.EmailAddresses = cert.EmailAddresses
	for _, ip := range cert.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			id.IPAddresses = append(id.IPAddresses, addr.Unmap())
		}
	}
	for _, uri := range cert.URIs {
		id.URIs = append(id.URIs, uri.String())
	}
	return id
}

// certificate returns what events tell of it; nil without one.
func (id *Identity) certificate() *Certificate {
	if id == nil {
		return nil
	}
	c := new(Certificate)
	c.Subject, c.Issuer, c.Serial = certificateNames(id.Certificate)
	return c
}

func certificateNames(c *x509.Certificate) (subject, issuer, serial string) {
	return c.Subject.String(), c.Issuer.String(), fmt.Sprintf("%X", c.SerialNumber)
}
