package tlsprops

import (
	"encoding/asn1"
)

// shape is the outline of an ASN.1 file: enough to tell the kinds of key file
// from each other, whatever the label or the file name says.
type shape int

const (
	shapeNone           shape = iota // not DER
	shapeOther                       // a SEQUENCE of another kind
	shapeCertificate                 // Certificate
	shapePKCS8                       // PrivateKeyInfo or OneAsymmetricKey
	shapeEncryptedPKCS8              // EncryptedPrivateKeyInfo
	shapePKCS1                       // RSAPrivateKey
	shapeSEC1                        // ECPrivateKey
	shapeDSA                         // OpenSSL's DSA key: six integers
	shapePFX                         // PKCS #12
	shapePKCS7                       // ContentInfo
)

// shapeOf tells the outline of der. It looks at the first elements only: what
// has a shape may still be damaged further on.
func shapeOf(der []byte) shape {
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil || !isA(outer, asn1.TagSequence) {
		return shapeNone
	}
	const most = 7 // one more than the six that tell DSA from RSA
	var elements [most]asn1.RawValue
	var n int
	for rest := outer.Bytes; n < most && len(rest) > 0; n++ {
		var err error
		if rest, err = asn1.Unmarshal(rest, &elements[n]); err != nil {
			break
		}
	}
	if n < 2 {
		return shapeOther
	}
	first, second := elements[0], elements[1]
	switch {
	case isA(first, asn1.TagInteger) && isA(second, asn1.TagSequence):
		if len(first.Bytes) == 1 && first.Bytes[0] == 3 {
			return shapePFX
		}
		return shapePKCS8
	case isA(first, asn1.TagInteger) && isA(second, asn1.TagInteger):
		if n == 6 {
			return shapeDSA
		}
		return shapePKCS1
	case isA(first, asn1.TagInteger) && isA(second, asn1.TagOctetString):
		return shapeSEC1
	case isA(first, asn1.TagSequence) && isA(second, asn1.TagOctetString):
		return shapeEncryptedPKCS8
	case isA(first, asn1.TagSequence) && isA(second, asn1.TagSequence):
		// A certificate of version 2 or 3 begins with its version, in context 0;
		// requests and CRLs do not.
		var version asn1.RawValue
		if _, err := asn1.Unmarshal(first.Bytes, &version); err == nil && version.Class == asn1.ClassContextSpecific && version.Tag == 0 {
			return shapeCertificate
		}
	case isA(first, asn1.TagOID):
		return shapePKCS7
	}
	return shapeOther
}

// isA tells whether v is of the universal type tag.
func isA(v asn1.RawValue, tag int) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == tag && v.IsCompound == (tag == asn1.TagSequence)
}
