package tlsprops

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// errStaple is a stapled OCSP response that does not vouch for the certificate.
var errStaple = errors.New("the stapled OCSP response")

func stapleError(format string, args ...any) error {
	return fmt.Errorf("%w %w", errStaple, fmt.Errorf(format, args...))
}

// clockTolerance is how far the clock of an OCSP responder may be ahead.
const clockTolerance = 5 * time.Minute

// The TLS feature extension (RFC 7633) and its value for status_request.
var tlsFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

const statusRequest = 5

// mustStaple tells whether c demands a stapled OCSP response.
func mustStaple(c *x509.Certificate) bool {
	for _, ext := range c.Extensions {
		var features []int
		if !ext.Id.Equal(tlsFeature) {
			continue
		}
		if _, err := asn1.Unmarshal(ext.Value, &features); err == nil && slices.Contains(features, statusRequest) {
			return true
		}
	}
	return false
}

// The structures of RFC 6960 section 4.2.1.
type (
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	basicResponse struct {
		Data         responseData
		Algorithm    pkix.AlgorithmIdentifier
		Signature    asn1.BitString
		Certificates []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	responseData struct {
		Raw        asn1.RawContent
		Version    int `asn1:"explicit,tag:0,default:0,optional"`
		Responder  asn1.RawValue
		ProducedAt time.Time `asn1:"generalized"`
		Responses  []singleResponse
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	singleResponse struct {
		ID struct {
			Hash                pkix.AlgorithmIdentifier
			IssuerName, KeyHash []byte
			Serial              *big.Int
		}
		Status     asn1.RawValue    // [0] good, [1] revoked, [2] unknown
		ThisUpdate time.Time        `asn1:"generalized"`
		NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
)

// What a certificate's status may be, by its tag.
const (
	statusGood    = 0
	statusRevoked = 1
)

// id-pkix-ocsp-basic
var basicOCSP = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}

// ocspSignatures are the algorithms of signatures on responses. SHA-1 is not
// among them, as in crypto/x509.
var ocspSignatures = map[string]x509.SignatureAlgorithm{
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA,
	"1.2.840.113549.1.1.12": x509.SHA384WithRSA,
	"1.2.840.113549.1.1.13": x509.SHA512WithRSA,
	"1.2.840.10045.4.3.2":   x509.ECDSAWithSHA256,
	"1.2.840.10045.4.3.3":   x509.ECDSAWithSHA384,
	"1.2.840.10045.4.3.4":   x509.ECDSAWithSHA512,
	"1.3.101.112":           x509.PureEd25519,
}

// parseStaple reads a response that says something about certificates. Its
// signature is not checked yet.
func parseStaple(data []byte) (*basicResponse, error) {
	var outer ocspResponse
	if rest, err := asn1.Unmarshal(data, &outer); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("not an OCSP response in DER but %s: write it with openssl ocsp -respout", describe(data))
	}
	if outer.Status != 0 || !outer.Bytes.Type.Equal(basicOCSP) {
		return nil, fmt.Errorf("an OCSP response with status %d, which vouches for nothing: fetch another", outer.Status)
	}
	var basic basicResponse
	if rest, err := asn1.Unmarshal(outer.Bytes.Response, &basic); err != nil || len(rest) > 0 {
		return nil, errors.New("an OCSP response that is damaged: fetch another")
	}
	return &basic, nil
}

// checkOwnStaple tells whether a listener's file can be stapled to its own
// certificate. Who issued that is known only where the chain says so; else
// clients judge the rest.
func checkOwnStaple(data []byte, own *tls.Certificate) error {
	basic, err := parseStaple(data)
	if err != nil || len(own.Certificate) < 2 {
		return err
	}
	issuer, err := x509.ParseCertificate(own.Certificate[1])
	if err != nil {
		return err
	}
	return basic.vouches(own.Leaf, issuer, time.Now())
}

// checkStapled judges what a server has stapled, by any of the verified chains.
func checkStapled(data []byte, chains [][]*x509.Certificate, now time.Time) error {
	if len(chains) == 0 {
		return nil
	}
	leaf := chains[0][0]
	if len(data) == 0 {
		if mustStaple(leaf) {
			return stapleError("is missing, which the certificate demands (RFC 7633)")
		}
		return nil
	}
	basic, err := parseStaple(data)
	if err != nil {
		return stapleError("cannot be used: %w", err)
	}
	for _, chain := range chains {
		if len(chain) == 1 && !mustStaple(leaf) {
			return nil // trusted as it is; its issuer is not known, and need not vouch for it
		}
		if err = basic.vouches(leaf, chain[min(1, len(chain)-1)], now); err == nil {
			return nil
		}
	}
	return err
}

// vouches returns nil if the response calls cert good now, in the name of issuer.
func (b *basicResponse) vouches(cert, issuer *x509.Certificate, now time.Time) error {
	if err := b.signedFor(issuer, now); err != nil {
		return err
	}
	for i := range b.Data.Responses {
		r := &b.Data.Responses[i]
		if !r.concerns(cert, issuer) {
			continue
		}
		switch {
		case r.Status.Class == asn1.ClassContextSpecific && r.Status.Tag == statusRevoked:
			return &revokedError{text: fmt.Sprintf("certificate %s of %q is revoked, says its OCSP response", cert.SerialNumber.Text(16), issuer.Subject.String())}
		case r.Status.Class != asn1.ClassContextSpecific || r.Status.Tag != statusGood:
			return stapleError("says that the responder does not know the certificate")
		case now.Add(clockTolerance).Before(r.ThisUpdate):
			return stapleError("is not valid before %s", r.ThisUpdate.UTC().Format(time.RFC3339))
		case r.NextUpdate.IsZero():
			return stapleError("does not say until when it is valid")
		case !now.Before(r.NextUpdate):
			return stapleError("is out of date since %s", r.NextUpdate.UTC().Format(time.RFC3339))
		}
		return nil
	}
	return stapleError("is of another certificate")
}

// concerns tells whether r speaks of cert.
func (r *singleResponse) concerns(cert, issuer *x509.Certificate) bool {
	if r.ID.Serial == nil || cert.SerialNumber.Cmp(r.ID.Serial) != 0 {
		return false
	}
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return false
	}
	var name, bits []byte
	switch r.ID.Hash.Algorithm.String() {
	case "1.3.14.3.2.26":
		// Here SHA-1 only names the issuer, whose signature is what counts.
		fips140.WithoutEnforcement(func() {
			n, k := sha1.Sum(issuer.RawSubject), sha1.Sum(key.Bits.Bytes)
			name, bits = n[:], k[:]
		})
	case "2.16.840.1.101.3.4.2.1":
		n, k := sha256.Sum256(issuer.RawSubject), sha256.Sum256(key.Bits.Bytes)
		name, bits = n[:], k[:]
	default:
		return false
	}
	return bytes.Equal(name, r.ID.IssuerName) && bytes.Equal(bits, r.ID.KeyHash)
}

// signedFor checks the signature: issuer's own, or that of a responder to whom it
// has given a certificate for the purpose (RFC 6960 section 4.2.2.2).
func (b *basicResponse) signedFor(issuer *x509.Certificate, now time.Time) error {
	algorithm, ok := ocspSignatures[b.Algorithm.Algorithm.String()]
	if !ok {
		return stapleError("is signed with %s, which is not accepted", b.Algorithm.Algorithm)
	}
	signature := b.Signature.RightAlign()
	if issuer.CheckSignature(algorithm, b.Data.Raw, signature) == nil {
		return nil
	}
	for _, raw := range b.Certificates {
		responder, err := x509.ParseCertificate(raw.FullBytes)
		if err != nil || !slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			continue
		}
		if now.Before(responder.NotBefore) || now.After(responder.NotAfter) || responder.CheckSignatureFrom(issuer) != nil {
			continue
		}
		if responder.CheckSignature(algorithm, b.Data.Raw, signature) == nil {
			return nil
		}
	}
	return stapleError("is not signed by %q nor by a responder of it", issuer.Subject.String())
}
