package tlsprops

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// revocations are the revocation lists of a set. Immutable.
type revocations struct {
	hard  bool // a certificate without a current list is refused
	lists []*revocationList
}

// revocationList is one list (RFC 5280 section 5).
type revocationList struct {
	path     string
	list     *x509.RevocationList
	revoked  map[string]bool // serial numbers, as big-endian bytes
	verified []byte          // the certificate of the CA whose signature was checked at load; nil: none
}

// The extensions of a revocation list that change what it says.
var (
	deltaIndicator    = asn1.ObjectIdentifier{2, 5, 29, 27}
	issuingPoint      = asn1.ObjectIdentifier{2, 5, 29, 28}
	authorityKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	certificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29} // of an entry
	deltaPlusIndirect = "delta and indirect lists are not supported: have the CA publish complete ones"
)

// parseCRLs reads every list of crlPaths. A list of one of cas must bear its
// signature; those of intermediates are checked when a chain shows the issuer.
func parseCRLs(r *reading, cas []*x509.Certificate) (*revocations, error) {
	all := &revocations{}
	for i := range r.files {
		f := &r.files[i]
		if f.field != "crlPaths" {
			continue
		}
		lists, err := parseCRLFile(f.data)
		if err != nil {
			return nil, &FieldError{Field: f.field, Path: f.path, Err: err}
		}
		for _, list := range lists {
			l := &revocationList{path: f.path, list: list, revoked: make(map[string]bool, len(list.RevokedCertificateEntries))}
			if err := l.check(cas); err != nil {
				return nil, &FieldError{Field: f.field, Path: f.path, Err: err}
			}
			all.lists = append(all.lists, l)
		}
	}
	return all, nil
}

// parseCRLFile reads one list in DER, or any number in PEM.
func parseCRLFile(data []byte) ([]*x509.RevocationList, error) {
	if !isPEM(data) {
		list, err := x509.ParseRevocationList(data)
		if err != nil {
			return nil, fmt.Errorf("not a revocation list but %s: name a list in PEM or DER", describe(data))
		}
		return []*x509.RevocationList{list}, nil
	}
	blocks, err := pemBlocks(data)
	if err != nil {
		return nil, err
	}
	var lists []*x509.RevocationList
	for _, b := range blocks {
		if b.label != "X509 CRL" {
			return nil, b.errorf("%s is no revocation list: keep only those in the file", quoteLabel(b.label))
		}
		list, err := x509.ParseRevocationList(b.der)
		if err != nil {
			return nil, b.errorf("not a readable revocation list: %w", err)
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, errors.New("no revocation list: name a list in PEM or DER")
	}
	return lists, nil
}

// check refuses a list that cannot be honoured and fills in what it revokes.
func (l *revocationList) check(cas []*x509.Certificate) error {
	if l.list.NextUpdate.IsZero() {
		return errors.New("a revocation list without nextUpdate, which never goes stale: have the CA set it (RFC 5280 section 5.1.2.5)")
	}
	for _, ext := range l.list.Extensions {
		if err := checkCRLExtension(ext); err != nil {
			return err
		}
	}
	for _, entry := range l.list.RevokedCertificateEntries {
		for _, ext := range entry.Extensions {
			if ext.Id.Equal(certificateIssuer) {
				return errors.New(deltaPlusIndirect)
			}
		}
		l.revoked[string(entry.SerialNumber.Bytes())] = true
	}
	var failed error
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, l.list.RawIssuer) {
			continue
		}
		if failed = l.list.CheckSignatureFrom(ca); failed == nil {
			l.verified = ca.Raw
			return nil
		}
	}
	if failed != nil {
		return fmt.Errorf("the signature is not that of the CA %q in trustStorePath: fetch the list again: %w", l.list.Issuer.String(), failed)
	}
	return nil
}

func checkCRLExtension(ext pkix.Extension) error {
	switch {
	case ext.Id.Equal(deltaIndicator):
		return errors.New(deltaPlusIndirect)
	case ext.Id.Equal(issuingPoint):
		// Of its fields only the distribution point leaves the list complete for
		// what it covers; the others narrow it, or let others in.
		var point struct {
			Point       asn1.RawValue `asn1:"optional,tag:0"`
			UserCerts   bool          `asn1:"optional,tag:1"`
			CACerts     bool          `asn1:"optional,tag:2"`
			SomeReasons asn1.RawValue `asn1:"optional,tag:3"`
			Indirect    bool          `asn1:"optional,tag:4"`
			Attributes  bool          `asn1:"optional,tag:5"`
		}
		rest, err := asn1.Unmarshal(ext.Value, &point)
		if err != nil || len(rest) > 0 || point.Indirect {
			return errors.New(deltaPlusIndirect)
		}
		if point.UserCerts || point.CACerts || point.Attributes || len(point.SomeReasons.FullBytes) > 0 {
			return errors.New("the list covers only some certificates or reasons, which is not supported: have the CA publish complete ones")
		}
	case ext.Critical && !ext.Id.Equal(authorityKeyID):
		return fmt.Errorf("the list has a critical extension %s that is not known: have the CA publish it without", ext.Id)
	}
	return nil
}

// revokedError is a certificate that no chain clears.
type revokedError struct {
	text    string
	unknown bool // no list says, rather than a list says so
}

func (e *revokedError) Error() string { return e.text }

// Revoked reports whether a list says so, rather than no list saying otherwise.
// Connectors look for the method to name the reason in their events.
func (e *revokedError) Revoked() bool { return !e.unknown }

// check succeeds if one of chains has no revoked certificate and, with hard, a
// current list for each certificate below its root.
func (rs *revocations) check(chains [][]*x509.Certificate, now time.Time) error {
	err := error(&revokedError{text: "no verified chain to look up in the revocation lists", unknown: true})
	for _, chain := range chains {
		if err = rs.checkChain(chain, now); err == nil {
			return nil
		}
	}
	return err
}

func (rs *revocations) checkChain(chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 1 && !bytes.Equal(chain[0].RawSubject, chain[0].RawIssuer) {
		// Trusted as it is; no list of its issuer can be checked.
		return rs.unlisted(chain[0], "its issuer is not known")
	}
	for i := range len(chain) - 1 {
		if err := rs.checkCert(chain[i], chain[i+1], now); err != nil {
			return err
		}
	}
	return nil
}

// checkCert looks cert up in every list of its issuer. All of them count: a CA
// may publish several for its certificates.
func (rs *revocations) checkCert(cert, issuer *x509.Certificate, now time.Time) error {
	var found, current bool
	for _, l := range rs.lists {
		if !bytes.Equal(l.list.RawIssuer, issuer.RawSubject) || !l.signedBy(issuer) {
			continue
		}
		if l.revoked[string(cert.SerialNumber.Bytes())] {
			return &revokedError{text: fmt.Sprintf("certificate %s of %q is revoked", cert.SerialNumber.Text(16), issuer.Subject.String())}
		}
		found = true
		current = current || now.Before(l.list.NextUpdate)
	}
	switch {
	case current:
		return nil
	case found:
		return rs.unlisted(cert, fmt.Sprintf("the revocation list of %q is out of date", issuer.Subject.String()))
	default:
		return rs.unlisted(cert, fmt.Sprintf("there is no revocation list of %q", issuer.Subject.String()))
	}
}

func (rs *revocations) unlisted(cert *x509.Certificate, why string) error {
	if !rs.hard {
		return nil
	}
	return &revokedError{
		text:    fmt.Sprintf("certificate %s may be revoked: %s", cert.SerialNumber.Text(16), why),
		unknown: true,
	}
}

func (l *revocationList) signedBy(issuer *x509.Certificate) bool {
	return l.verified != nil && bytes.Equal(l.verified, issuer.Raw) || l.list.CheckSignatureFrom(issuer) == nil
}

// warningsAt names the lists that are out of date at now, where there is no
// newer one of the same issuer.
func (rs *revocations) warningsAt(now time.Time) []string {
	var w []string
	for _, l := range rs.lists {
		if now.Before(l.list.NextUpdate) || slices.ContainsFunc(rs.lists, func(other *revocationList) bool {
			return bytes.Equal(other.list.RawIssuer, l.list.RawIssuer) && now.Before(other.list.NextUpdate)
		}) {
			continue
		}
		effect := "certificates of that issuer are accepted unless it lists them"
		if rs.hard {
			effect = "certificates of that issuer are refused"
		}
		w = append(w, fmt.Sprintf("crlPaths %s: the list of %q is out of date since %s: %s", l.path, l.list.Issuer.String(),
			l.list.NextUpdate.UTC().Format(time.RFC3339), effect))
	}
	return w
}

// status returns the lists for Status.
func (rs *revocations) status() []CRL {
	var lists []CRL
	for _, l := range rs.lists {
		lists = append(lists, CRL{
			Path: l.path, Issuer: l.list.Issuer.String(),
			ThisUpdate: l.list.ThisUpdate, NextUpdate: l.list.NextUpdate, Revoked: len(l.revoked),
		})
	}
	return lists
}
