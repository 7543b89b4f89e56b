package keystore

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/carewire/carewire/tlsprops"
)

// privateKeyInfo is that of RFC 5958 section 2, whose attributes and public key
// may follow.
type privateKeyInfo struct {
	Version    int
	Algorithm  pkix.AlgorithmIdentifier
	PrivateKey []byte
}

func parsePrivateKeyInfo(der []byte) (info privateKeyInfo, ok bool) {
	rest, err := asn1.Unmarshal(der, &info)
	return info, err == nil && len(rest) == 0
}

func isPKCS8(der []byte) bool {
	_, ok := parsePrivateKeyInfo(der)
	return ok
}

const (
	oidRSA = "1.2.840.113549.1.1.1"
	oidEC  = "1.2.840.10045.2.1"
)

// keyNames are the algorithms of private keys.
var keyNames = map[string]string{
	oidRSA:                    "RSA",
	oidEC:                     "EC",
	"1.3.101.112":             "Ed25519",
	"1.2.840.10040.4.1":       "DSA",
	"1.2.840.113549.1.1.7":    "RSA-OAEP",
	"1.2.840.113549.1.1.10":   "RSASSA-PSS",
	"1.2.840.113549.1.3.1":    "Diffie-Hellman",
	"1.2.840.10046.2.1":       "Diffie-Hellman",
	"1.3.101.110":             "X25519",
	"1.3.101.111":             "X448",
	"1.3.101.113":             "Ed448",
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
	"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
	"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}

// curveNames are the curves of EC keys (RFC 5480 section 2.1.1.1 and others).
var curveNames = map[string]string{
	"1.2.840.10045.3.1.7":   "P-256",
	"1.3.132.0.34":          "P-384",
	"1.3.132.0.35":          "P-521",
	"1.2.840.10045.3.1.1":   "P-192",
	"1.3.132.0.33":          "P-224",
	"1.3.132.0.10":          "secp256k1",
	"1.2.156.10197.1.301":   "SM2",
	"1.3.36.3.3.2.8.1.1.7":  "brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.8":  "brainpoolP256t1",
	"1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.12": "brainpoolP384t1",
	"1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
	"1.3.36.3.3.2.8.1.1.14": "brainpoolP512t1",
}

// keyName describes the algorithm of a PKCS #8 key.
func keyName(der []byte) string {
	info, ok := parsePrivateKeyInfo(der)
	if !ok {
		return ""
	}
	oid := info.Algorithm.Algorithm.String()
	name, ok := keyNames[oid]
	if !ok {
		return oid
	}
	switch oid {
	case oidEC:
		var curve asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &curve); err != nil {
			return name + " with explicit parameters"
		}
		if known, ok := curveNames[curve.String()]; ok {
			return name + " " + known
		}
		return name + " " + curve.String()
	case oidRSA:
		if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			if rsaKey, ok := key.(*rsa.PrivateKey); ok {
				return fmt.Sprintf("%s %d", name, rsaKey.N.BitLen())
			}
		}
	}
	return name
}

// errUnreadableKey stands for the errors of crypto/x509, whose texts could quote
// what they stumbled over.
var errUnreadableKey = errors.New("crypto/x509 cannot read it")

// parseKey returns the key for crypto/tls. The error says why crypto/tls cannot
// use it.
func parseKey(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errUnreadableKey
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("it cannot sign")
	}
	if err := tlsprops.CheckKey(signer); err != nil {
		return nil, err
	}
	return signer, nil
}

// publicKeyInfo returns the SubjectPublicKeyInfo that belongs to a PKCS #8 key,
// or nil if the key is none that crypto/x509 reads.
func publicKeyInfo(pkcs8 []byte) []byte {
	if pkcs8 == nil {
		return nil
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil
	}
	holder, ok := key.(interface{ Public() crypto.PublicKey })
	if !ok {
		return nil
	}
	der, err := x509.MarshalPKIXPublicKey(holder.Public())
	if err != nil {
		return nil
	}
	return der
}

// readableByX509 tells whether crypto/x509 is meant to read keys of that name.
func readableByX509(name string) bool {
	switch name {
	case "RSA", "EC P-256", "EC P-384", "EC P-521", "Ed25519":
		return true
	default:
		return false
	}
}

// finish describes the key, and withholds one that is surely not what was put
// into the store. Where the file has no digest or MAC, or it was not checked,
// damage shows only there: a key that does not parse although its kind does, or
// that does not belong to its certificate.
func (e *Entry) finish(s *Store) {
	if e.Kind != PrivateKey || e.key == nil {
		return
	}
	e.Algorithm = keyName(e.key)
	if s.Integrity == IntegrityVerified || s.Format == FormatJKS || !e.decrypted {
		return
	}
	spki := publicKeyInfo(e.key)
	switch {
	case spki == nil && readableByX509(e.Algorithm):
	case spki != nil && len(e.Chain) > 0 && !e.matches(spki):
	default:
		return
	}
	e.key, e.Err = nil, fmt.Errorf("%w: the key %q does not agree with itself or with its certificate, and the file has no verified checksum", ErrIntegrity, e.Alias)
}
