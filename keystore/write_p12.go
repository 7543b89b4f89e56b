package keystore

import (
	"crypto/x509"
	"fmt"
	"io"

	"software.sslmate.com/src/go-pkcs12"
)

// WritePKCS12 writes the private key alias with its chain as a PKCS#12 file that
// openssl 1.1.1 and Java 8u301 and later open: AES-256, PBKDF2 with SHA-256. The
// empty alias is the only private key. The key must be one that crypto/x509
// reads. The alias is not written: keytool will call the key "1".
func (s *Store) WritePKCS12(w io.Writer, alias, password string) error {
	cert, err := s.TLSCertificate(alias)
	if err != nil {
		return err
	}
	var above []*x509.Certificate
	for i, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("keystore: certificate %d of the chain: %w", i+2, err)
		}
		above = append(above, c)
	}
	out, err := pkcs12.Modern2023.Encode(cert.PrivateKey, cert.Leaf, above, password)
	return write(w, out, err)
}

// WriteTrustStorePKCS12 writes the certificates of Roots under their aliases, as
// a PKCS#12 trust store with Java's mark.
func (s *Store) WriteTrustStorePKCS12(w io.Writer, password string) error {
	entries := s.ofKind(TrustedCertificate)
	if len(entries) == 0 {
		entries = s.ofKind(Certificate)
	}
	if len(entries) == 0 {
		return fmt.Errorf("%w: there is no trusted certificate", ErrNoSuchAlias)
	}
	var list []pkcs12.TrustStoreEntry
	for _, e := range entries {
		cert, err := x509.ParseCertificate(e.Chain[0])
		if err != nil {
			return fmt.Errorf("keystore: the certificate %q: %w", e.Alias, err)
		}
		list = append(list, pkcs12.TrustStoreEntry{Cert: cert, FriendlyName: e.Alias})
	}
	out, err := pkcs12.Modern2023.EncodeTrustStoreEntries(list, password)
	return write(w, out, err)
}

func write(w io.Writer, data []byte, err error) error {
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	return nil
}
