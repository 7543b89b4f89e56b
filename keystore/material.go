package keystore

import (
	"bytes"
	"slices"
	"strconv"
	"time"
)

// material is what a PKCS #12 or PEM file holds: keys and certificates side by
// side, of which fill makes entries.
type material struct {
	keys    []*foundKey
	certs   []*foundCert
	secrets []*Entry
}

type foundKey struct {
	attributes
	pkcs8     []byte
	decrypted bool  // it was encrypted in the file
	err       error // why there is no pkcs8
}

type foundCert struct {
	attributes
	der  []byte
	info certInfo
	used bool // in a chain
}

// maxChain bounds a chain; those of TLS have two to four certificates.
const maxChain = 32

// fill adds the entries to s. It never goes by the order of the file, which says
// nothing: a trusted certificate may well come before the key's own one.
func (m *material) fill(s *Store) {
	m.certs = distinct(m.certs)
	bySubject := make(map[string][]*foundCert)
	for _, c := range m.certs {
		c.info = parseCertInfo(c.der)
		bySubject[string(c.info.subject)] = append(bySubject[string(c.info.subject)], c)
	}
	// Java calls what has no name by its number.
	unnamed := 0
	name := func(a attributes) string {
		if a.hasAlias {
			return a.alias
		}
		unnamed++
		return strconv.Itoa(unnamed)
	}
	for _, key := range m.keys {
		e := &Entry{Alias: name(key.attributes), Kind: PrivateKey, Created: key.created(), Err: key.err, key: key.pkcs8, decrypted: key.decrypted}
		if _, ok := key.err.(*PasswordError); ok { //nolint:errorlint // our own, and not wrapped
			e.Err = &PasswordError{Alias: e.Alias}
		}
		for _, c := range chainOf(m.leaf(key), bySubject) {
			c.used = true
			e.Chain = append(e.Chain, c.der)
		}
		s.add(e)
	}
	for _, e := range m.secrets {
		if e.Alias == "" {
			e.Alias = name(attributes{})
		}
		s.add(e)
	}
	for _, c := range m.certs {
		e := &Entry{Kind: Certificate, Chain: [][]byte{c.der}}
		switch {
		case c.trusted:
			e.Kind = TrustedCertificate
		case c.used:
			continue
		}
		e.Alias = name(c.attributes)
		s.add(e)
	}
}

// created returns the time that the JDK hides in the local key ID, or zero.
func (a *attributes) created() time.Time {
	text, ok := bytes.CutPrefix(a.localKeyID, []byte("Time "))
	if !ok {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// distinct leaves each certificate in once: Windows repeats one for each of its
// keys, keytool a trusted one in a chain.
func distinct(certs []*foundCert) []*foundCert {
	seen := make(map[string]*foundCert, len(certs))
	var out []*foundCert
	for _, c := range certs {
		first := seen[string(c.der)]
		if first == nil {
			seen[string(c.der)] = c
			out = append(out, c)
			continue
		}
		if c.trusted && !first.trusted {
			first.trusted, first.alias, first.hasAlias = true, c.alias, c.hasAlias
		}
		if first.localKeyID == nil {
			first.localKeyID = c.localKeyID
		}
	}
	return out
}

// leaf returns the certificate of key, or nil. What tells is the public key, then
// the local key ID, then the alias, as in the JDK but for the first, which the
// JDK does not look at.
func (m *material) leaf(key *foundKey) *foundCert {
	sameID := func(c *foundCert) bool { return len(key.localKeyID) > 0 && bytes.Equal(c.localKeyID, key.localKeyID) }
	sameAlias := func(c *foundCert) bool { return key.hasAlias && c.hasAlias && c.alias == key.alias && !c.trusted }
	spki := publicKeyInfo(key.pkcs8)
	var best *foundCert
	score := 0
	for _, c := range m.certs {
		n := 0
		if spki != nil && bytes.Equal(c.info.spki, spki) {
			n = 4
		}
		if sameID(c) {
			n += 2
		}
		if sameAlias(c) {
			n++
		}
		if n > score {
			best, score = c, n
		}
	}
	if best == nil && spki == nil && len(m.keys) == 1 && len(m.certs) == 1 && !m.certs[0].trusted {
		return m.certs[0]
	}
	return best
}

// chainOf returns leaf and the certificates that issued it, one above the other.
func chainOf(leaf *foundCert, bySubject map[string][]*foundCert) []*foundCert {
	var chain []*foundCert
	for c := leaf; c != nil && len(chain) < maxChain && !slices.Contains(chain, c); c = c.issuer(bySubject) {
		chain = append(chain, c)
		if bytes.Equal(c.info.subject, c.info.issuer) {
			break
		}
	}
	return chain
}

// issuer returns the certificate that issued c. Of several with the right name,
// as after cross-signing, it is the one with the right key identifier.
func (c *foundCert) issuer(bySubject map[string][]*foundCert) *foundCert {
	if len(c.info.issuer) == 0 {
		return nil
	}
	var best *foundCert
	for _, candidate := range bySubject[string(c.info.issuer)] {
		if len(c.info.authorityKeyID) > 0 && bytes.Equal(candidate.info.subjectKeyID, c.info.authorityKeyID) {
			return candidate
		}
		if best == nil {
			best = candidate
		}
	}
	return best
}
