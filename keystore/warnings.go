package keystore

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"time"
)

// Warnings says what is strange about the store at this moment, in sentences
// for an operator: what was left out of the file, that nobody checked its
// integrity, keys that did not open, certificates that have expired, that do not
// belong to their key, that are weak, or that crypto/x509 does not read.
func (s *Store) Warnings() []string {
	out := append([]string(nil), s.notes...)
	switch {
	case s.Integrity == IntegrityUnchecked:
		out = append(out, "the integrity of the file is not checked, as there is no password")
	case s.Integrity == IntegrityNone && s.Format == FormatPKCS12:
		out = append(out, "the file has no MAC: nothing tells whether it was altered")
	}
	now := time.Now()
	for _, e := range s.Entries {
		for _, text := range e.warnings(now) {
			out = append(out, fmt.Sprintf("%q: %s", e.Alias, text))
		}
	}
	return out
}

func (e *Entry) warnings(now time.Time) []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if e.Err != nil {
		warn("%v", e.Err)
	}
	if e.Kind == PrivateKey && e.key != nil {
		if len(e.Chain) == 0 {
			warn("the private key has no certificate")
		} else if spki := publicKeyInfo(e.key); spki != nil && !e.matches(spki) {
			warn("the certificate does not belong to the private key")
		}
		if _, err := parseKey(e.key); err != nil {
			warn("crypto/tls cannot use the key (%s): %v", e.Algorithm, err)
		}
	}
	for i, der := range e.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			warn("certificate %d: crypto/x509 does not read it: %v", i+1, err)
			continue
		}
		switch {
		case now.After(cert.NotAfter):
			warn("certificate %d expired on %s", i+1, cert.NotAfter.UTC().Format(time.DateOnly))
		case now.Before(cert.NotBefore):
			warn("certificate %d is not valid before %s", i+1, cert.NotBefore.UTC().Format(time.DateOnly))
		}
		const fewest = 2048 // bits, NIST SP 800-57 part 1
		if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < fewest {
			warn("certificate %d has an RSA key of %d bits, which is weak", i+1, key.N.BitLen())
		}
		// Nobody verifies a root's own signature.
		if isWeak(cert.SignatureAlgorithm) && !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			warn("certificate %d is signed with %v, which is weak", i+1, cert.SignatureAlgorithm)
		}
	}
	return out
}

func isWeak(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	default:
		return false
	}
}
