package tlsprops

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"slices"
	"time"
)

// verifier checks of a peer what crypto/tls does not. It hangs on
// VerifyConnection, which runs in resumed handshakes too; VerifyPeerCertificate
// does not, and lets in a peer whose CA has been removed. Immutable.
type verifier struct {
	chain bool           // check the chain here, because crypto/tls does not
	roots *x509.CertPool // of chain; nil: the host's
	usage x509.ExtKeyUsage
	name  string // checked with chain; empty: none

	crls    *revocations // nil: none
	staples bool         // judge the OCSP response that a server staples
	pins    map[[sha256.Size]byte]bool
}

// callback returns the check for a tls.Config, nil if there is nothing to check.
func (v *verifier) callback() func(tls.ConnectionState) error {
	if !v.chain && v.crls == nil && !v.staples && len(v.pins) == 0 {
		return nil
	}
	return v.verify
}

func (v *verifier) verify(cs tls.ConnectionState) error {
	certs := cs.PeerCertificates
	if len(certs) == 0 {
		// A client without a certificate: a listener that requires one has
		// refused it already, and a server always has one.
		return nil
	}
	chains := cs.VerifiedChains
	err := v.verifyPin(certs[0])
	if err == nil && v.chain {
		chains, err = v.verifyChain(certs)
	}
	if err == nil && v.crls != nil {
		err = v.crls.check(chains, time.Now())
	}
	if err == nil && v.staples {
		err = checkStapled(cs.OCSPResponse, chains, time.Now())
	}
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err}
	}
	return nil
}

// verifyPin looks at the leaf alone: the rest of what a peer sends has not been
// shown to belong to it.
func (v *verifier) verifyPin(leaf *x509.Certificate) error {
	if len(v.pins) == 0 {
		return nil
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	if v.pins[sum] {
		return nil
	}
	return &pinError{pin: pinPrefix + base64.StdEncoding.EncodeToString(sum[:])}
}

// pinError is a peer whose key is not pinned.
type pinError struct{ pin string }

func (e *pinError) Error() string { return "the public key " + e.pin + " is none of pins" }

func (v *verifier) verifyChain(certs []*x509.Certificate) ([][]*x509.Certificate, error) {
	opts := x509.VerifyOptions{
		Roots: v.roots, Intermediates: x509.NewCertPool(), DNSName: v.name,
		KeyUsages: []x509.ExtKeyUsage{v.usage},
	}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := certs[0].Verify(opts)
	if err != nil || !fips140.Enabled() {
		return chains, err
	}
	// As crypto/tls does with the chains that it verifies itself.
	chains = slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool {
		return !allOf(chain, allowedByFIPS)
	})
	if len(chains) == 0 {
		return nil, errors.New("no chain of certificates has keys that FIPS 140-3 mode allows")
	}
	return chains, nil
}

func allOf(chain []*x509.Certificate, ok func(*x509.Certificate) bool) bool {
	return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return !ok(c) })
}

// allowedByFIPS tells whether crypto/tls takes the key of c in FIPS 140-3 mode.
func allowedByFIPS(c *x509.Certificate) bool {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return true
	default:
		return false
	}
}

// Hint returns what a person can do about an error of a handshake with a
// configuration of this package, in one line that fits behind the error; "" if
// nothing is known about it.
func Hint(err error) string {
	var (
		hostname  x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		remote    *net.OpError
		pin       *pinError
		revoked   *revokedError
	)
	switch {
	case errors.As(err, &hostname) && !hasSAN(hostname.Certificate):
		return "the certificate has only a common name, which nobody checks any more (RFC 9525): have it issued with a subject alternative name; " +
			"until then set pins with verify pinned, or verify chain-only"
	case errors.As(err, &hostname):
		return "set sniServerName, or expectedName, to a name that the certificate has; or verify chain-only where it names no host"
	case errors.As(err, &authority):
		return "put the CA that issued the peer's certificate into trustStorePath, or have the peer send the intermediates"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the peer must renew its certificate, if this machine's clock is right"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the peer's certificate is issued for another role: have it issued again, or set anyExtendedKeyUsage"
	case errors.As(err, &pin):
		return "if the peer has a new key on purpose, add its pin to pins"
	case errors.Is(err, errStaple):
		return "have the peer staple a current OCSP response for its certificate, or none"
	case errors.As(err, &revoked) && revoked.unknown:
		return "put a current revocation list of that issuer into crlPaths, or set crlCheck to soft"
	case errors.As(err, &record):
		return "the peer does not speak TLS on this port: correct the port, or switch TLS on there"
	case errors.As(err, &remote) && remote.Op == "remote error":
		return alertHint(remote.Err)
	}
	return ""
}

// alertHints say what a peer means by an alert (RFC 8446 section 6).
var alertHints = map[tls.AlertError]string{
	42: refusedHint, 43: refusedHint, 44: refusedHint, 45: refusedHint, 46: refusedHint, 48: refusedHint,
	40:  "the peer shares no cipher suite or key exchange with us, or wants a certificate: see cipherSuites and keyStorePath",
	70:  "the peer speaks neither TLS 1.2 nor TLS 1.3, or not the one that minVersion asks for",
	116: "the peer requires a certificate: set keyStorePath and certStorePath, or alwaysSendClientCert if they are set",
}

const refusedHint = "the peer refused our certificate: check that keyStorePath holds the one agreed, and that the peer trusts its CA"

// alertHint explains an alert of the peer. crypto/tls does not export the type
// of these errors, but their text is that of the exported one.
func alertHint(err error) string {
	for alert, hint := range alertHints {
		if err.Error() == alert.Error() {
			return hint
		}
	}
	return ""
}

// hasSAN tells whether a certificate names its holder where it is looked for.
func hasSAN(c *x509.Certificate) bool {
	return len(c.DNSNames)+len(c.IPAddresses)+len(c.URIs)+len(c.EmailAddresses) > 0
}
