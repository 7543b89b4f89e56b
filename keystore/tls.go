package keystore

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// TLSCertificate returns the private key alias with its chain, for crypto/tls.
// The empty alias is the only private key. That the certificate has expired is
// no error here: see Warnings.
func (s *Store) TLSCertificate(alias string) (*tls.Certificate, error) {
	e, err := s.Entry(alias)
	if err != nil {
		return nil, err
	}
	der, err := e.PKCS8()
	if err != nil {
		return nil, err
	}
	key, err := parseKey(der)
	if err != nil {
		return nil, fmt.Errorf("keystore: crypto/tls cannot use the key %q (%s): %w", e.Alias, e.Algorithm, err)
	}
	if len(e.Chain) == 0 {
		return nil, fmt.Errorf("%w: the key %q has no certificate", ErrNoSuchAlias, e.Alias)
	}
	leaf, err := x509.ParseCertificate(e.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("keystore: the certificate of %q: %w", e.Alias, err)
	}
	if !e.matches(publicKeyInfo(der)) {
		return nil, fmt.Errorf("%w: %q", ErrKeyMismatch, e.Alias)
	}
	return &tls.Certificate{Certificate: e.Chain, PrivateKey: key, Leaf: leaf}, nil
}

// matches tells whether the entry's own certificate has the public key spki.
func (e *Entry) matches(spki []byte) bool {
	return bytes.Equal(parseCertInfo(e.Chain[0]).spki, spki)
}

// UsableForTLS returns nil if crypto/tls can present the entry, and otherwise
// why it cannot. Every key converts to PEM nevertheless.
func (e *Entry) UsableForTLS() error {
	if e.Kind != PrivateKey {
		return fmt.Errorf("%w: %q is a %v and no private key", ErrNoSuchAlias, e.Alias, e.Kind)
	}
	s := &Store{Entries: []*Entry{e}}
	_, err := s.TLSCertificate("")
	return err
}

// Roots returns the certificates to trust, DER: those that are marked as trusted
// or, if none is, every one that belongs to no private key. The latter is how
// openssl makes a trust store; keytool sees nothing in such a file.
func (s *Store) Roots() [][]byte {
	entries := s.ofKind(TrustedCertificate)
	if len(entries) == 0 {
		entries = s.ofKind(Certificate)
	}
	var out [][]byte
	for _, e := range entries {
		out = append(out, e.Chain...)
	}
	return out
}

// CertPool returns Roots as a pool. It is an error if there are none, and if
// crypto/x509 cannot read one: a pool that trusts less than the store would be
// found out at the wrong time.
func (s *Store) CertPool() (*x509.CertPool, error) {
	roots := s.Roots()
	if len(roots) == 0 {
		return nil, fmt.Errorf("%w: there is no trusted certificate", ErrNoSuchAlias)
	}
	pool := x509.NewCertPool()
	var errs []error
	for i, der := range roots {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			errs = append(errs, fmt.Errorf("keystore: trusted certificate %d of %d: %w", i+1, len(roots), err))
			continue
		}
		pool.AddCert(cert)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return pool, nil
}
