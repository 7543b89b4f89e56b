package meshtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// An authority signs certificates. It does not change after init.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
}

// init takes the caller's authority, or makes one.
func (a *authority) init(given *tls.Certificate) error {
	if given == nil {
		made, err := (&authority{}).issue(leaf{name: "meshtest CA", ca: true})
		if err != nil {
			return err
		}
		given = made
	}
	if len(given.Certificate) == 0 {
		return errors.New("meshtest: CA has no certificate")
	}
	cert, err := x509.ParseCertificate(given.Certificate[0])
	key, ok := given.PrivateKey.(crypto.Signer)
	if err != nil || !ok || !cert.IsCA {
		return errors.New("meshtest: CA is not an authority with its key")
	}
	a.cert, a.key, a.pool = cert, key, x509.NewCertPool()
	a.pool.AddCert(cert)
	return nil
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// A leaf says what certificate is wanted. Times that are zero: an hour ago, and in
// a year.
type leaf struct {
	name                string
	hosts               []string
	usage               x509.ExtKeyUsage
	ca                  bool
	notBefore, notAfter time.Time
}

func (a *authority) issue(l leaf) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("meshtest: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("meshtest: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: l.name}, NotBefore: l.notBefore, NotAfter: l.notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{l.usage}, BasicConstraintsValid: true,
	}
	if l.notBefore.IsZero() {
		t.NotBefore = time.Now().Add(-time.Hour)
	}
	if l.notAfter.IsZero() {
		t.NotAfter = time.Now().AddDate(1, 0, 0)
	}
	for _, h := range l.hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	parent, signer := a.cert, a.key
	if l.ca {
		t.IsCA, t.KeyUsage, t.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
		parent, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("meshtest: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// encode returns a certificate and its key in PEM.
func encode(c *tls.Certificate) (cert, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("meshtest: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
