package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxCABytes is far more than all public CAs take.
const maxCABytes = 16 << 20

// trustExtraCAs adds the CAs in a PEM file to those of the host, for everything in
// this process that trusts the host's. A connector with a trustStorePath of its own
// trusts what is in there and nothing else, as before.
//
// It works by the roots that crypto/x509 falls back to; the line go:debug in
// main.go has them take the place of the host's.
func trustExtraCAs(path string) error {
	if path == "" {
		return nil
	}
	text, err := readCAs(path)
	if err != nil {
		return fmt.Errorf("NODE_EXTRA_CA_CERTS: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return fmt.Errorf("NODE_EXTRA_CA_CERTS: the host's roots cannot be read: %w", err)
	}
	n := 0
	for rest := text; len(bytes.TrimSpace(rest)) > 0; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return fmt.Errorf("NODE_EXTRA_CA_CERTS: %s: block %d is not a certificate", path, n+1)
		}
		pool.AddCert(cert)
	}
	if n == 0 {
		return fmt.Errorf("NODE_EXTRA_CA_CERTS: %s: there is no certificate in it", path)
	}
	x509.SetFallbackRoots(pool)
	return nil
}

func readCAs(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCABytes+1))
	if err == nil && len(text) > maxCABytes {
		err = errors.New(path + " is too long for certificates")
	}
	return text, err
}
