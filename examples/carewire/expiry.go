package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// expiryCmd is `carewire tls expiry`.
type expiryCmd struct {
	Files  []string `arg:"" name:"file" help:"PEM files; blocks that are not certificates are passed over."`
	Within span24   `default:"0" placeholder:"SPAN" help:"Also fail for certificates that expire within this time, such as 30d or 12h."`
	JSON   bool     `name:"json" help:"Print one JSON object for each certificate."`
}

// certState is how a certificate stands to the clock.
type certState string

const (
	stateValid       certState = "valid"
	stateNotYetValid certState = "not yet valid"
	stateExpiring    certState = "expiring" // within the span asked about
	stateExpired     certState = "expired"
)

// expiryLine is what one certificate of a file prints.
type expiryLine struct {
	File   string    `json:"file"`
	Number int       `json:"number"` // of the certificate in its file, from 1
	State  certState `json:"state"`
	certInfo
}

// Help is shown by --help.
func (c *expiryCmd) Help() string {
	return "The exit status is 1 when a certificate has expired, or does within the span, and 2 when a file cannot be read whole."
}

func (c *expiryCmd) Run(s *streams) error {
	now := time.Now()
	var lines []expiryLine
	for _, name := range c.Files {
		certs, err := readCertificates(name)
		if err != nil {
			return unusable("%s: %w", name, err)
		}
		for i, cert := range certs {
			lines = append(lines, expiryLine{
				File: name, Number: i + 1, State: c.state(cert, now), certInfo: newCertInfo(cert, now),
			})
		}
	}
	due := 0
	for _, line := range lines {
		if line.State == stateExpired || line.State == stateExpiring {
			due++
		}
		if c.JSON {
			if err := s.printJSON(line); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(s.out, "%s #%d: %s: %s\n", line.File, line.Number, line.State, line.Subject)
		line.print(s.out, "  ")
	}
	if due > 0 {
		return &exitError{status: exitNo, err: fmt.Errorf("%d of %s due or past due", due, plural(len(lines), "certificate"))}
	}
	return nil
}

func (c *expiryCmd) state(cert *x509.Certificate, now time.Time) certState {
	switch left := cert.NotAfter.Sub(now); {
	case left < 0:
		return stateExpired
	case left <= time.Duration(c.Within):
		return stateExpiring
	case now.Before(cert.NotBefore):
		return stateNotYetValid
	default:
		return stateValid
	}
}

// readCertificates returns every certificate of a PEM file. A certificate that
// cannot be read is an error, for one that is passed over is one whose expiry
// nobody sees coming.
func readCertificates(name string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parseCertificates(data)
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		// The begin lines that Decode passed over are blocks that it could not read.
		before := rest
		block, rest = pem.Decode(rest)
		begins := bytes.Count(before[:len(before)-len(rest)], []byte("-----BEGIN "))
		if block == nil && begins+bytes.Count(rest, []byte("-----BEGIN ")) > 0 || begins > 1 {
			return nil, fmt.Errorf("after certificate %d: a damaged PEM block", len(certs))
		}
		if block == nil {
			break
		}
		if !strings.HasSuffix(block.Type, "CERTIFICATE") {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return certs, nil
}

// span24 is a time span that may be given in days, which certificates are
// counted in and time.ParseDuration does not know.
type span24 time.Duration

// UnmarshalText reads "30d", and whatever time.ParseDuration reads.
func (s *span24) UnmarshalText(text []byte) error {
	word := string(text)
	if number, ok := strings.CutSuffix(word, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a number of days from 0 to %d", word, math.MaxUint16)
		}
		*s = span24(time.Duration(days) * day)
		return nil
	}
	d, err := time.ParseDuration(word)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a time span such as 30d or 12h", word)
	}
	*s = span24(d)
	return nil
}
