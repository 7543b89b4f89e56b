package tlsprops

import (
	"bytes"
	"crypto"
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// set is what the files of one reading hold, parsed and found to belong
// together. Immutable.
type set struct {
	cert     *tls.Certificate // nil: none
	roots    *x509.CertPool   // nil: the host's
	crls     *revocations     // nil: none
	certs    []watched        // leaf, chain, CAs
	warnings []string
}

// parse makes a set of what was read.
func (p *TlsProperties) parse(r *reading) (*set, error) {
	s := &set{}
	passphrase, err := p.passphrase(r)
	if err != nil {
		return nil, err
	}
	if err := p.parsePair(s, r, passphrase); err != nil {
		return nil, err
	}
	if err := p.parseRoots(s, r, passphrase); err != nil {
		return nil, err
	}
	if f := r.file("ocspStaplePath"); f != nil {
		if err := checkOwnStaple(f.data, s.cert); err != nil {
			return nil, &FieldError{Field: f.field, Path: f.path, Err: err}
		}
		s.cert.OCSPStaple = f.data
	}
	if len(p.CRLPaths) > 0 {
		if s.crls, err = parseCRLs(r, s.authorities()); err != nil {
			return nil, err
		}
		s.crls.hard = p.CRLCheck != crlSoft
	}
	return s, nil
}

// passphrase returns the passphrase of the properties or of their file.
func (p *TlsProperties) passphrase(r *reading) (string, error) {
	f := r.file("passphraseFile")
	if f == nil {
		return p.Passphrase, nil
	}
	text, newline := strings.CutSuffix(string(f.data), "\n")
	if newline {
		text = strings.TrimSuffix(text, "\r")
	}
	if text == "" {
		return "", &FieldError{Field: f.field, Path: f.path, Err: errors.New("holds no passphrase: write it into the file, or remove the setting")}
	}
	return text, nil
}

// decode hands a file that is not PEM to the Decoder.
func (p *TlsProperties) decode(f *file, passphrase string) (*Material, error) {
	if p.Decoder == nil {
		return nil, &FieldError{
			Field: f.field, Path: f.path,
			Err: fmt.Errorf("not PEM but %s, which this program cannot open: convert it to PEM", describe(f.data)),
		}
	}
	in := DecoderInput{
		Field: f.field, Path: f.path, Data: f.data,
		Passphrase: passphrase, KeyPassphrase: p.KeyPassphrase, Alias: p.KeyAlias,
	}
	m, err := p.Decoder(in)
	if err == nil && m == nil {
		err = errors.New("the decoder found nothing in it: name another file")
	}
	if err != nil {
		return nil, &FieldError{Field: f.field, Path: f.path, Err: err}
	}
	return m, nil
}

// certificates returns the certificates of a file in file order.
func (p *TlsProperties) certificates(f *file, passphrase string, pick func(*Material) [][]byte) ([]*x509.Certificate, error) {
	if isPEM(f.data) {
		certs, err := parseChain(f.data)
		if err != nil {
			return nil, &FieldError{Field: f.field, Path: f.path, Err: err}
		}
		return certs, nil
	}
	m, err := p.decode(f, passphrase)
	if err != nil {
		return nil, err
	}
	certs, err := parseDER(pick(m))
	if err == nil && len(certs) == 0 {
		err = errors.New("holds no such certificate: name another file")
	}
	if err != nil {
		return nil, &FieldError{Field: f.field, Path: f.path, Err: err}
	}
	return certs, nil
}

func parseDER(ders [][]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d is not readable: %w", i+1, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// parseKeyFile returns the key of a file, and the certificates beside it.
func (p *TlsProperties) parseKeyFile(s *set, f *file, passphrase string) (crypto.Signer, []*x509.Certificate, error) {
	fail := func(err error) (crypto.Signer, []*x509.Certificate, error) {
		if errors.Is(err, ErrPassphraseRequired) {
			err = fmt.Errorf("%w: set passphrase or passphraseFile", err)
		}
		return nil, nil, &FieldError{Field: f.field, Path: f.path, Err: err}
	}
	if !isPEM(f.data) {
		m, err := p.decode(f, passphrase)
		if err != nil {
			return nil, nil, err
		}
		if m.Key == nil {
			return fail(errors.New("holds no private key: name another file"))
		}
		if err := CheckKey(m.Key); err != nil {
			return fail(err)
		}
		certs, err := parseDER(m.Chain)
		if err != nil {
			return fail(err)
		}
		return m.Key, certs, nil
	}
	if field, ok := p.given("keyAlias", "keyPassphrase"); ok {
		return fail(fmt.Errorf("is PEM, to which %s does not apply: remove %s, or name a key store", field, field))
	}
	var decodeKey func([]byte) (crypto.Signer, error)
	if p.Decoder != nil {
		decodeKey = func(der []byte) (crypto.Signer, error) {
			m, err := p.Decoder(DecoderInput{Field: f.field, Path: f.path, Data: der, Passphrase: passphrase})
			if err != nil || m == nil {
				return nil, err
			}
			return m.Key, nil
		}
	}
	key, encrypted, err := parseKey(f.data, passphrase, decodeKey)
	if err != nil {
		return fail(err)
	}
	if passphrase != "" && !encrypted {
		s.warnings = append(s.warnings, fmt.Sprintf("keyStorePath %s is not encrypted: remove the passphrase, or encrypt the key", f.path))
	}
	if !bytes.Contains(f.data, []byte("CERTIFICATE-----")) {
		return key, nil, nil
	}
	certs, err := parseChain(f.data)
	if err != nil {
		return fail(err)
	}
	return key, certs, nil
}

// parsePair fills in the connector's own certificate.
func (p *TlsProperties) parsePair(s *set, r *reading, passphrase string) error {
	keyFile := r.file("keyStorePath")
	if keyFile == nil {
		return nil
	}
	key, beside, err := p.parseKeyFile(s, keyFile, passphrase)
	if err != nil {
		return err
	}
	certFile, certs := keyFile, beside
	if f := r.file("certStorePath"); f != nil {
		certFile = f
		if certs, err = p.certificates(f, passphrase, func(m *Material) [][]byte { return m.Chain }); err != nil {
			return err
		}
	}
	if len(certs) == 0 {
		return refuse("certStorePath", "is missing, and %s holds no certificate: set it to the certificate of the key", keyFile.path)
	}
	chain, unused := orderChain(key, certs)
	if chain == nil {
		return &FieldError{
			Field: "keyStorePath", Path: keyFile.path,
			Err: fmt.Errorf("%w: no certificate in %s has the public key of this key: name the key that the certificate was made for", ErrKeyMismatch, certFile.path),
		}
	}
	if other, _ := orderChain(key, beside); len(beside) > 0 && (other == nil || !other[0].Equal(chain[0])) {
		return &FieldError{
			Field: "certStorePath", Path: certFile.path,
			Err: fmt.Errorf("holds another certificate than %s does for the same key: remove one", keyFile.path),
		}
	}
	for _, c := range unused {
		s.warnings = append(s.warnings, fmt.Sprintf("%s %s: %q is not in the chain of the certificate and is not sent", certFile.field, certFile.path, c.Subject.String()))
	}
	s.cert = &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for i, c := range chain {
		s.cert.Certificate = append(s.cert.Certificate, c.Raw)
		use := UseChain
		if i == 0 {
			use = UseLeaf
		}
		s.certs = append(s.certs, watched{c, use, certFile.field, certFile.path})
		if fips140.Enabled() && !allowedByFIPS(c) {
			s.warnings = append(s.warnings, fmt.Sprintf("%s %s: FIPS 140-3 mode does not allow the key of %q", certFile.field, certFile.path, c.Subject.String()))
		}
	}
	return nil
}

// orderChain finds the certificate of key among certs and puts the others into
// the order of issue above it; nil if none belongs to key.
func orderChain(key crypto.Signer, certs []*x509.Certificate) (chain, unused []*x509.Certificate) {
	public, ok := key.Public().(interface{ Equal(x crypto.PublicKey) bool })
	if !ok {
		return nil, nil
	}
	leaf := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return public.Equal(c.PublicKey) })
	if leaf < 0 {
		return nil, nil
	}
	chain = []*x509.Certificate{certs[leaf]}
	unused = slices.Delete(slices.Clone(certs), leaf, leaf+1)
	for {
		last := chain[len(chain)-1]
		i := slices.IndexFunc(unused, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, last.RawIssuer) && last.CheckSignatureFrom(c) == nil
		})
		if i < 0 {
			return chain, unused
		}
		chain = append(chain, unused[i])
		unused = slices.Delete(unused, i, i+1)
	}
}

// parseRoots fills in whom the set trusts.
func (p *TlsProperties) parseRoots(s *set, r *reading, passphrase string) error {
	if p.TrustSystemRoots {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return refuse("trustSystemRoots", "the host's roots cannot be read: %w", err)
		}
		s.roots = pool
	}
	f := r.file("trustStorePath")
	if f == nil {
		return nil
	}
	cas, err := p.certificates(f, passphrase, func(m *Material) [][]byte { return m.Roots })
	if err != nil {
		return err
	}
	if s.roots == nil {
		s.roots = x509.NewCertPool()
	}
	for _, c := range cas {
		s.roots.AddCert(c)
		s.certs = append(s.certs, watched{c, UseCA, f.field, f.path})
		if !c.BasicConstraintsValid || !c.IsCA {
			s.warnings = append(s.warnings, fmt.Sprintf("trustStorePath %s: %q is not a CA: it is trusted as a peer's own certificate, and issues none", f.path, c.Subject.String()))
		}
		if fips140.Enabled() && !allowedByFIPS(c) {
			s.warnings = append(s.warnings, fmt.Sprintf("trustStorePath %s: FIPS 140-3 mode does not allow the key of %q, and trusts nothing that it issued", f.path, c.Subject.String()))
		}
	}
	return nil
}

// authorities returns the certificates of the trust store.
func (s *set) authorities() []*x509.Certificate {
	var cas []*x509.Certificate
	for _, w := range s.certs {
		if w.use == UseCA {
			cas = append(cas, w.cert)
		}
	}
	return cas
}

// outOfDate returns why the leaf cannot be used at now, or nil.
func (s *set) outOfDate(now time.Time) error {
	if s.cert == nil {
		return nil
	}
	leaf := s.certs[0]
	fail := func(format string, at time.Time) error {
		return &FieldError{Field: leaf.field, Path: leaf.path, Err: fmt.Errorf(format, at.UTC().Format(time.RFC3339))}
	}
	if now.After(leaf.cert.NotAfter) {
		return fail("the certificate expired at %s: renew it (allowExpired starts with it nevertheless)", leaf.cert.NotAfter)
	}
	if now.Before(leaf.cert.NotBefore) {
		return fail("the certificate is not valid before %s: wait, or set the clock (allowExpired starts with it nevertheless)", leaf.cert.NotBefore)
	}
	return nil
}

// warningsAt returns what is strange about the set at now, in roles.
func (s *set) warningsAt(now time.Time, roles []Role) []string {
	w := slices.Clone(s.warnings)
	for _, c := range s.certs {
		if c.use == UseLeaf {
			continue // outOfDate says it
		}
		if now.After(c.cert.NotAfter) || now.Before(c.cert.NotBefore) {
			w = append(w, fmt.Sprintf("%s %s: %q is out of date: it is valid from %s to %s", c.field, c.path, c.cert.Subject.String(),
				c.cert.NotBefore.UTC().Format(time.DateOnly), c.cert.NotAfter.UTC().Format(time.DateOnly)))
		}
	}
	if s.crls != nil {
		w = append(w, s.crls.warningsAt(now)...)
	}
	if s.cert == nil {
		return w
	}
	leaf := s.certs[0]
	where := leaf.field + " " + leaf.path + ": "
	for _, role := range roles {
		use, name := x509.ExtKeyUsageServerAuth, "serverAuth"
		if role == Client {
			use, name = x509.ExtKeyUsageClientAuth, "clientAuth"
		}
		if uses := leaf.cert.ExtKeyUsage; len(uses) > 0 && !slices.Contains(uses, use) && !slices.Contains(uses, x509.ExtKeyUsageAny) {
			w = append(w, where+"the certificate is not issued for a "+role.String()+": its extended key usage lacks "+name+", and strict peers refuse it")
		}
		if role == Client {
			continue
		}
		if !hasSAN(leaf.cert) {
			w = append(w, where+"the certificate has no subject alternative name, and most clients refuse it: issue one with the host's names")
		}
		if mustStaple(leaf.cert) && s.cert.OCSPStaple == nil {
			w = append(w, where+"the certificate demands a stapled OCSP response (RFC 7633), and strict clients refuse it without: set ocspStaplePath")
		}
	}
	return w
}
