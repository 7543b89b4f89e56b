// Package testpki makes the certificates that tests need: authorities,
// intermediates, servers and clients, good and bad, in memory and as files.
// Keys are ECDSA P-256 unless asked otherwise, because those are made in
// microseconds. It is for tests only.
//
//	ca := testpki.NewCA(t, "Test CA")
//	files := ca.Server().Write(t.TempDir(), "server")    // files.Cert, files.Key
//	trust := ca.Write(dir, "ca.crt")
//
// Everything is valid from 1999 on unless Options say otherwise, so that what is
// made outside a testing/synctest bubble, whose clock starts in 2000, is valid
// inside one.
package testpki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"
)

// TB is what this package needs of a testing.TB; an Example can bring its own.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// lifetime is how long a certificate is valid when Options do not say.
const lifetime = 10 * 365 * 24 * time.Hour

// epoch is the start of validity when Options do not say: before the clock of a
// synctest bubble starts.
var epoch = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// serials gives every certificate of the process a number of its own.
var serials atomic.Int64

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer

	tb     TB
	issuer *Authority // nil for a root
}

// Pair is a certificate with its key and the intermediates above it.
type Pair struct {
	Cert  *x509.Certificate
	Key   crypto.Signer
	Chain [][]byte // DER, leaf first, without the root

	tb TB
}

// Options say how a certificate departs from an ordinary one.
type Options struct {
	CommonName string
	Hosts      []string // DNS names and IP addresses; none: only the common name
	URIs       []string
	Emails     []string
	NotBefore  time.Time
	NotAfter   time.Time
	EKU        []x509.ExtKeyUsage // nil: none, which allows every use
	Key        crypto.Signer      // nil: a new P-256 key
	MustStaple bool
}

// NewCA makes a root.
func NewCA(tb TB, commonName string) *Authority {
	tb.Helper()
	return newAuthority(tb, nil, Options{CommonName: commonName})
}

// NewCAWith makes a root with the name, validity and key of o.
func NewCAWith(tb TB, o Options) *Authority {
	tb.Helper()
	return newAuthority(tb, nil, o)
}

// Intermediate makes an authority below a.
func (a *Authority) Intermediate(commonName string) *Authority {
	a.tb.Helper()
	return newAuthority(a.tb, a, Options{CommonName: commonName})
}

func newAuthority(tb TB, issuer *Authority, o Options) *Authority {
	tb.Helper()
	t := template(o)
	t.IsCA = true
	t.BasicConstraintsValid = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	key := keyOf(tb, o)
	cert := sign(tb, t, issuer, key)
	return &Authority{Cert: cert, Key: key, tb: tb, issuer: issuer}
}

// Server makes a server's certificate for hosts, or for localhost, 127.0.0.1 and
// ::1 if there are none.
func (a *Authority) Server(hosts ...string) *Pair {
	a.tb.Helper()
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	return a.Issue(Options{CommonName: hosts[0], Hosts: hosts, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

// Client makes a client's certificate.
func (a *Authority) Client(commonName string) *Pair {
	a.tb.Helper()
	return a.Issue(Options{CommonName: commonName, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// Issue makes a leaf as o says.
func (a *Authority) Issue(o Options) *Pair {
	a.tb.Helper()
	t := template(o)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = o.EKU
	for _, h := range o.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	t.EmailAddresses = o.Emails
	for _, text := range o.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			a.tb.Fatalf("testpki: URI: %v", err)
		}
		t.URIs = append(t.URIs, uri)
	}
	if o.MustStaple {
		// RFC 7633: the TLS feature extension holding status_request (5).
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{
			Id: []int{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 0x03, 0x02, 0x01, 0x05},
		})
	}
	key := keyOf(a.tb, o)
	if _, ok := key.(*rsa.PrivateKey); ok {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment // as certificates for RSA key exchange have it
	}
	p := &Pair{Cert: sign(a.tb, t, a, key), Key: key, tb: a.tb}
	p.Chain = [][]byte{p.Cert.Raw}
	for above := a; above.issuer != nil; above = above.issuer {
		p.Chain = append(p.Chain, above.Cert.Raw)
	}
	return p
}

// PEM returns the certificate of a.
func (a *Authority) PEM() []byte { return EncodeCerts(a.Cert.Raw) }

// Pool returns a pool of a alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Write writes a's certificate to dir/name and returns that path.
func (a *Authority) Write(dir, name string) string {
	a.tb.Helper()
	return writeFile(a.tb, filepath.Join(dir, name), a.PEM(), 0o644)
}

// CRLOptions say how a revocation list departs from an ordinary one.
type CRLOptions struct {
	Revoked    []*Pair
	ThisUpdate time.Time        // zero: an hour ago
	NextUpdate time.Time        // zero: in a day
	Number     int64            // zero: 1
	Extra      []pkix.Extension // a delta CRL indicator, for one
}

// CRL returns a's revocation list in DER.
func (a *Authority) CRL(o CRLOptions) []byte {
	a.tb.Helper()
	list := &x509.RevocationList{
		Number: big.NewInt(max(o.Number, 1)), ThisUpdate: o.ThisUpdate, NextUpdate: o.NextUpdate, ExtraExtensions: o.Extra,
	}
	if list.ThisUpdate.IsZero() {
		list.ThisUpdate = time.Now().Add(-time.Hour)
	}
	if list.NextUpdate.IsZero() {
		list.NextUpdate = time.Now().Add(24 * time.Hour)
	}
	for _, p := range o.Revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: p.Cert.SerialNumber, RevocationTime: list.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.Cert, a.Key)
	if err != nil {
		a.tb.Fatalf("testpki: CRL: %v", err)
	}
	return der
}

// CertPEM returns the leaf and the intermediates above it.
func (p *Pair) CertPEM() []byte { return EncodeCerts(p.Chain...) }

// KeyPEM returns the key as an unencrypted PKCS#8 block.
func (p *Pair) KeyPEM() []byte {
	p.tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		p.tb.Fatalf("testpki: key: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TLS returns the pair as crypto/tls takes it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: p.Chain, PrivateKey: p.Key, Leaf: p.Cert}
}

// Pin returns the pin of the leaf's public key, "sha256/...".
func (p *Pair) Pin() string { return Pin(p.Cert) }

// Pin returns "sha256/" and the base64 of the SHA-256 of cert's SPKI.
func Pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}

// Files are the paths of a pair.
type Files struct{ Cert, Key string }

// Write writes dir/name.crt (leaf and intermediates) and dir/name.key (mode 0600).
func (p *Pair) Write(dir, name string) Files {
	p.tb.Helper()
	return Files{
		Cert: writeFile(p.tb, filepath.Join(dir, name+".crt"), p.CertPEM(), 0o644),
		Key:  writeFile(p.tb, filepath.Join(dir, name+".key"), p.KeyPEM(), 0o600),
	}
}

// EncodeCerts returns PEM blocks of DER certificates.
func EncodeCerts(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// RSAKey makes an RSA key of the given size, for Options.Key.
func RSAKey(tb TB, bits int) crypto.Signer {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatalf("testpki: RSA key: %v", err)
	}
	return key
}

func template(o Options) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)),
		Subject:      pkix.Name{CommonName: o.CommonName},
		NotBefore:    o.NotBefore,
		NotAfter:     o.NotAfter,
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = epoch
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = time.Now().Add(lifetime)
	}
	return t
}

func keyOf(tb TB, o Options) crypto.Signer {
	tb.Helper()
	if o.Key != nil {
		return o.Key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("testpki: P-256 key: %v", err)
	}
	return key
}

func sign(tb TB, t *x509.Certificate, issuer *Authority, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	parent, signer := t, key
	if issuer != nil {
		parent, signer = issuer.Cert, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		tb.Fatalf("testpki: certificate of %s: %v", t.Subject, err)
	}
	cert, err := x509.ParseCertificate(slices.Clone(der))
	if err != nil {
		tb.Fatalf("testpki: certificate of %s: %v", t.Subject, err)
	}
	return cert
}

func writeFile(tb TB, path string, data []byte, mode os.FileMode) string {
	tb.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		tb.Fatalf("testpki: %v", err)
	}
	return path
}
