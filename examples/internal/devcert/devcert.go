// Package devcert makes the certificates that a developer needs to try mutual
// TLS on one machine: a certificate authority, a server pair and a client pair,
// in the six files that the guide's openssl lines make:
//
//	ca.crt  ca.key  server.crt  server.key  client.crt  client.key
//
// They are for development. The authority's private key lies beside what it
// signed, so whoever can read the directory can be anybody: hospitals have
// authorities of their own.
//
// Keys are RSA, 2048 bits, in PKCS #8 PEM, because every peer can use them (the
// RSA cipher suites of older DICOM devices need one) and because the guide's
// own checks, such as "openssl rsa -in server.key -check", work on them.
package devcert

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	keyBits = 2048
	// lifetime is that of the guide's lines: openssl's -days 365.
	lifetime = 365 * 24 * time.Hour
	// backdate lets a peer use the certificates whose clock is a little behind.
	backdate = 5 * time.Minute
)

// Files are the paths of one set.
type Files struct {
	CACert, CAKey         string
	ServerCert, ServerKey string
	ClientCert, ClientKey string
}

// In names the files of the set in the directory dir; it looks at nothing.
func In(dir string) Files {
	at := func(name string) string { return filepath.Join(dir, name) }
	return Files{
		CACert: at("ca.crt"), CAKey: at("ca.key"),
		ServerCert: at("server.crt"), ServerKey: at("server.key"),
		ClientCert: at("client.crt"), ClientKey: at("client.key"),
	}
}

func (f Files) all() []string {
	return []string{f.CACert, f.CAKey, f.ServerCert, f.ServerKey, f.ClientCert, f.ClientKey}
}

// existing returns those of the files that are there, whatever they are.
func existing(paths []string) ([]string, error) {
	var there []string
	for _, path := range paths {
		switch _, err := os.Lstat(path); {
		case err == nil:
			there = append(there, path)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("devcert: %w", err)
		}
	}
	return there, nil
}

// Options say what Write makes. The zero value is ready to use.
type Options struct {
	// Hosts are DNS names and IP addresses that the certificates are to name
	// besides localhost, 127.0.0.1 and ::1.
	Hosts []string
	// Overwrite replaces files that are there already, each in one step, so that
	// a server which watches them never reads half of one. False: Write returns
	// an error that matches fs.ErrExist and touches nothing.
	Overwrite bool
}

// Write makes a complete new set in dir, which it creates (mode 0700) where it
// is missing. Private keys get mode 0600. After an error none of the set's new
// files is left, unless it was replacing old ones.
func Write(dir string, opts Options) (Files, error) {
	files := In(dir)
	names, err := parseHosts(opts.Hosts)
	if err != nil {
		return Files{}, err
	}
	if !opts.Overwrite {
		if err := refuseExisting(files.all()); err != nil {
			return Files{}, err
		}
	}
	ca, err := newAuthority()
	if err != nil {
		return Files{}, err
	}
	caPair, err := ca.pair()
	if err != nil {
		return Files{}, err
	}
	leaves, err := ca.leaves(files, names)
	if err != nil {
		return Files{}, err
	}
	set := append([]file{
		{files.CAKey, caPair.key, 0o600}, {files.CACert, caPair.cert, 0o644},
	}, leaves...)
	return files, writeAll(dir, set, opts.Overwrite)
}

// Ensure returns the set in dir, and makes it when none of its files is there:
// made tells which. A set with some of its files missing is an error, because
// the ones that are there may be somebody's own.
func Ensure(dir string, hosts ...string) (files Files, made bool, err error) {
	files = In(dir)
	there, err := existing(files.all())
	switch {
	case err != nil:
		return Files{}, false, err
	case len(there) == len(files.all()):
		return files, false, nil
	case len(there) > 0:
		missing := slices.DeleteFunc(files.all(), func(path string) bool { return slices.Contains(there, path) })
		return Files{}, false, fmt.Errorf("devcert: %s is missing beside %s: restore it, or remove the whole set to have a new one made",
			strings.Join(missing, ", "), strings.Join(there, ", "))
	}
	files, err = Write(dir, Options{Hosts: hosts})
	return files, err == nil, err
}

// Renew replaces the server and the client pair in dir by new ones from the
// authority that is there, as a certificate rotation does: whoever trusts
// ca.crt trusts the new pairs.
func Renew(dir string, hosts ...string) (Files, error) {
	files := In(dir)
	names, err := parseHosts(hosts)
	if err != nil {
		return Files{}, err
	}
	ca, err := readAuthority(files)
	if err != nil {
		return Files{}, err
	}
	leaves, err := ca.leaves(files, names)
	if err != nil {
		return Files{}, err
	}
	return files, writeAll(dir, leaves, true)
}

// names are what a certificate is valid for.
type names struct {
	dns []string
	ips []net.IP
}

func parseHosts(hosts []string) (names, error) {
	n := names{dns: []string{"localhost"}, ips: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	for _, host := range hosts {
		if ip := net.ParseIP(strings.Trim(host, "[]")); ip != nil {
			if !slices.ContainsFunc(n.ips, ip.Equal) {
				n.ips = append(n.ips, ip)
			}
			continue
		}
		if !validName(host) {
			return names{}, fmt.Errorf("devcert: %q is neither a DNS name nor an IP address (give it without a port)", host)
		}
		if name := strings.ToLower(host); !slices.Contains(n.dns, name) {
			n.dns = append(n.dns, name)
		}
	}
	return n, nil
}

// validName accepts what RFC 5890 calls LDH labels, underscores, and a wildcard
// as the whole first label (RFC 6125, section 6.4.3).
func validName(host string) bool {
	labels := strings.Split(strings.TrimPrefix(host, "*."), ".")
	if len(host) > 253 || strings.HasPrefix(host, "*.") && len(labels) < 2 {
		return false
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}

// authority is a certificate authority that can sign.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority() (*authority, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("devcert: %w", err)
	}
	tmpl := template("carewire development CA")
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.MaxPathLenZero = true, true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("devcert: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("devcert: %w", err)
	}
	return &authority{cert: cert, key: key}, nil
}

// readAuthority reads an authority that Write made.
func readAuthority(files Files) (*authority, error) {
	certDER, err := readPEM(files.CACert, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, fmt.Errorf("devcert: %s: %w", files.CACert, err)
	}
	keyDER, err := readPEM(files.CAKey, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("devcert: %s: %w", files.CAKey, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("devcert: %s holds a key that cannot sign", files.CAKey)
	}
	return &authority{cert: cert, key: signer}, nil
}

func readPEM(path, blockType string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("devcert: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != blockType {
		return nil, fmt.Errorf("devcert: %s does not begin with a PEM block %q", path, blockType)
	}
	return block.Bytes, nil
}

func template(commonName string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: commonName},
		NotBefore: now.Add(-backdate),
		NotAfter:  now.Add(lifetime),
	}
}

// leaves makes the server and the client pair, keys before certificates: a
// watcher that looks in between sees a pair that does not match, never half of
// a new one that seems whole.
func (ca *authority) leaves(files Files, n names) ([]file, error) {
	server, err := ca.leaf("localhost", n, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	client, err := ca.leaf("carewire development client", n, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	return []file{
		{files.ServerKey, server.key, 0o600},
		{files.ServerCert, server.cert, 0o644},
		{files.ClientKey, client.key, 0o600},
		{files.ClientCert, client.cert, 0o644},
	}, nil
}

// pair is a certificate and its key as PEM.
type pair struct{ cert, key []byte }

func (ca *authority) pair() (pair, error) { return encode(ca.cert.Raw, ca.key) }

func (ca *authority) leaf(commonName string, n names, usage x509.ExtKeyUsage) (pair, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return pair{}, fmt.Errorf("devcert: %w", err)
	}
	tmpl := template(commonName)
	tmpl.DNSNames, tmpl.IPAddresses = n.dns, n.ips
	// Key encipherment is what the RSA key exchange of old DICOM peers needs.
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	tmpl.BasicConstraintsValid = true
	if tmpl.NotAfter.After(ca.cert.NotAfter) {
		tmpl.NotAfter = ca.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		return pair{}, fmt.Errorf("devcert: %w", err)
	}
	return encode(der, key)
}

func encode(certDER []byte, key crypto.Signer) (pair, error) {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, fmt.Errorf("devcert: %w", err)
	}
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}
