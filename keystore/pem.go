package keystore

import (
	"bytes"
	"crypto/fips140"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"strings"
)

// openPEM reads text of any number of blocks. The name of a key or certificate
// is what openssl pkcs12 and WritePEM write before it: "friendlyName: x".
func openPEM(data []byte, s *Store, o *Options, a *account) error {
	data = bytes.TrimPrefix(data, []byte(utf8BOM))
	f := &pkcs12File{store: s, opts: o, account: a}
	announced := bytes.Count(data, []byte("-----BEGIN "))
	for n := 1; ; n++ {
		block, rest := pem.Decode(data)
		if block == nil {
			if n != announced+1 {
				return malformed("of %d PEM blocks %d are complete", announced, n-1)
			}
			break
		}
		if err := a.item(); err != nil {
			return err
		}
		text := data[:len(data)-len(rest)]
		if i := bytes.Index(text, []byte("-----BEGIN ")); i >= 0 {
			text = text[:i]
		}
		if err := f.pemBlock(block, friendlyName(text)); err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
		data = rest
	}
	f.found.fill(s)
	if len(s.Entries) == 0 {
		return malformed("no PEM block holds a key or a certificate")
	}
	return nil
}

// friendlyName returns the name in the text before a block.
func friendlyName(text []byte) (a attributes) {
	for line := range bytes.Lines(text) {
		if name, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("friendlyName: ")); ok {
			a.alias, a.hasAlias = string(name), true
		}
	}
	return a
}

func (f *pkcs12File) pemBlock(block *pem.Block, attrs attributes) error {
	switch block.Type {
	case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
		der := block.Bytes
		var cert asn1.RawValue // OpenSSL's trust settings follow a trusted one
		if _, err := asn1.Unmarshal(der, &cert); err != nil || !isA(cert, asn1.TagSequence) {
			return malformed("not a certificate")
		}
		f.found.certs = append(f.found.certs, &foundCert{attributes: attrs, der: cert.FullBytes})
		return nil
	case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY":
	case "PKCS7", "CMS":
		return &UnsupportedFormatError{FormatPKCS7, strings.ReplaceAll(formats[FormatPKCS7].hint, " -inform DER", "")}
	default:
		f.store.note(fmt.Sprintf("a PEM block %q is left out", block.Type))
		return nil
	}
	if block.Headers["DEK-Info"] == "" {
		return f.keyDER(block.Bytes, attrs)
	}
	key := &foundKey{attributes: attrs, decrypted: true}
	f.found.keys = append(f.found.keys, key)
	key.pkcs8, key.err = f.traditional(block, attrs.alias)
	return nil
}

// traditional decrypts a block with the headers of RFC 1421.
func (f *pkcs12File) traditional(block *pem.Block, alias string) ([]byte, error) {
	where := fmt.Sprintf("the key %q", alias)
	if fips140.Enforced() {
		return nil, &UnsupportedAlgorithmError{Name: "a key derived by MD5", Where: where, FIPS: true}
	}
	passwords := f.opts.keyPasswords(alias)
	if len(passwords) == 0 {
		return nil, ErrPasswordRequired
	}
	for _, password := range passwords {
		//lint:ignore SA1019 deprecated because nobody should make such files: they exist
		der, err := x509.DecryptPEMBlock(block, []byte(password)) //nolint:staticcheck // as above
		if err != nil {
			continue
		}
		if pkcs8, err := toPKCS8(der); err == nil {
			return pkcs8, nil
		}
	}
	return nil, &PasswordError{Alias: alias}
}

// openDER reads one certificate, or one key, with no PEM around it.
func openDER(data []byte, s *Store, o *Options, a *account) error {
	der, rest, err := toDER(data)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		if err := s.trailing(len(rest), o); err != nil {
			return err
		}
	}
	f := &pkcs12File{store: s, opts: o, account: a}
	if info := parseCertInfo(der); info.spki != nil {
		// As it is in the file: re-encoded it would not have the same hash.
		f.found.certs = []*foundCert{{der: data[:len(data)-len(rest)]}}
	} else if err := f.keyDER(der, attributes{}); err != nil {
		return err
	}
	f.found.fill(s)
	return nil
}

// keyDER adds a key of any structure, encrypted or not.
func (f *pkcs12File) keyDER(der []byte, attrs attributes) error {
	key := &foundKey{attributes: attrs}
	var encrypted struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	var err error
	if _, bad := asn1.Unmarshal(der, &encrypted); bad == nil {
		key.decrypted = true
		key.pkcs8, key.err, err = f.unshroud(der, attrs.alias, "the key")
	} else {
		key.pkcs8, err = toPKCS8(der)
	}
	f.found.keys = append(f.found.keys, key)
	return err
}

// toPKCS8 wraps a key of PKCS #1 (RFC 8017 appendix A.1.2) or SEC 1 (RFC 5915)
// into PKCS #8, which it may be already.
func toPKCS8(der []byte) ([]byte, error) {
	if isPKCS8(der) {
		return der, nil
	}
	var sec1 struct {
		Version    int
		PrivateKey []byte
		Curve      asn1.RawValue  `asn1:"optional"` // in an explicit tag
		PublicKey  asn1.BitString `asn1:"optional,explicit,tag:1"`
	}
	if rest, err := asn1.Unmarshal(der, &sec1); err == nil && len(rest) == 0 {
		if curve, err := explicit(sec1.Curve, "a key"); err == nil {
			return wrapPKCS8(asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.RawValue{FullBytes: curve}, der)
		}
	}
	var pkcs1 struct {
		Version    int
		Modulus, E asn1.RawValue
		D, P, Q    asn1.RawValue
		Dp, Dq, Qi asn1.RawValue
		Others     asn1.RawValue `asn1:"optional"`
	}
	if rest, err := asn1.Unmarshal(der, &pkcs1); err == nil && len(rest) == 0 && isA(pkcs1.Modulus, asn1.TagInteger) {
		return wrapPKCS8(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue, der)
	}
	return nil, malformed("not a private key of a known structure: convert it with openssl pkcs8 -topk8 -in FILE -out NEW")
}

func wrapPKCS8(algorithm asn1.ObjectIdentifier, parameters asn1.RawValue, der []byte) ([]byte, error) {
	return asn1.Marshal(privateKeyInfo{Algorithm: pkix.AlgorithmIdentifier{Algorithm: algorithm, Parameters: parameters}, PrivateKey: der})
}
