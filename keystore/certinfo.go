package keystore

import (
	"crypto/x509/pkix"
	"encoding/asn1"
)

// certInfo is what tells how certificates hang together. It is read without
// crypto/x509, which refuses certificates that are in use, such as those with a
// negative serial number.
type certInfo struct {
	issuer, subject, spki        []byte // DER
	subjectKeyID, authorityKeyID []byte
}

var (
	oidSubjectKeyID   = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// parseCertInfo reads the fields of a TBSCertificate (RFC 5280 section 4.1) by
// their places. What cannot be read stays empty.
func parseCertInfo(der []byte) (info certInfo) {
	var cert struct{ TBS, Algorithm, Signature asn1.RawValue }
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return info
	}
	const (
		serial = iota
		signature
		issuer
		validity
		subject
		spki
	)
	var fields [spki + 1][]byte
	n := serial
	_ = elements(cert.TBS.Bytes, func(v asn1.RawValue) error { // a damaged rest does not matter
		switch {
		case v.Class == asn1.ClassContextSpecific && v.Tag == 3:
			info.readExtensions(v.Bytes)
		case v.Class == asn1.ClassUniversal && n < len(fields):
			fields[n] = v.FullBytes
			n++
		}
		return nil
	})
	info.issuer, info.subject, info.spki = fields[issuer], fields[subject], fields[spki]
	return info
}

func (info *certInfo) readExtensions(der []byte) {
	var list asn1.RawValue
	if _, err := asn1.Unmarshal(der, &list); err != nil {
		return
	}
	_ = elements(list.Bytes, func(v asn1.RawValue) error {
		var ext pkix.Extension
		if _, err := asn1.Unmarshal(v.FullBytes, &ext); err != nil {
			return nil //nolint:nilerr // the others may be readable
		}
		switch {
		case ext.Id.Equal(oidSubjectKeyID):
			_, _ = asn1.Unmarshal(ext.Value, &info.subjectKeyID)
		case ext.Id.Equal(oidAuthorityKeyID):
			var aki struct {
				KeyID []byte `asn1:"optional,tag:0"`
				// Issuer and serial number may follow.
			}
			_, _ = asn1.Unmarshal(ext.Value, &aki)
			info.authorityKeyID = aki.KeyID
		}
		return nil
	})
}
