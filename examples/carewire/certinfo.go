package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// day is what the expiry of certificates is counted in.
const day = 24 * time.Hour

// certInfo is what a person wants to know of a certificate.
type certInfo struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // hexadecimal
	Names     []string  `json:"names"`  // DNS names, addresses, mail addresses, URIs
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	DaysLeft  int       `json:"daysLeft"` // whole days, rounded down: negative once expired
	Key       string    `json:"key"`
	Signature string    `json:"signature"`
	CA        bool      `json:"ca"`
}

func newCertInfo(c *x509.Certificate, now time.Time) certInfo {
	names := make([]string, 0, len(c.DNSNames)+len(c.IPAddresses))
	for _, name := range c.DNSNames {
		names = append(names, printable(name))
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, mail := range c.EmailAddresses {
		names = append(names, printable(mail))
	}
	for _, uri := range c.URIs {
		names = append(names, printable(uri.String()))
	}
	return certInfo{
		Subject: printable(c.Subject.String()), Issuer: printable(c.Issuer.String()),
		Serial: c.SerialNumber.Text(16), Names: names,
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), DaysLeft: daysUntil(c.NotAfter, now),
		Key: keyKind(c), Signature: c.SignatureAlgorithm.String(), CA: c.IsCA,
	}
}

// print writes the certificate's lines, indented.
func (c *certInfo) print(w io.Writer, indent string) {
	fmt.Fprintf(w, "%sissuer     %s\n", indent, c.Issuer)
	if len(c.Names) > 0 {
		fmt.Fprintf(w, "%snames      %s\n", indent, strings.Join(c.Names, ", "))
	}
	fmt.Fprintf(w, "%snot before %s\n", indent, c.NotBefore.Format(time.RFC3339))
	fmt.Fprintf(w, "%snot after  %s (%s)\n", indent, c.NotAfter.Format(time.RFC3339), daysLeft(c.DaysLeft))
	fmt.Fprintf(w, "%skey        %s, signed with %s\n", indent, c.Key, c.Signature)
}

func daysUntil(t, now time.Time) int {
	return int(math.Floor(t.Sub(now).Hours() / 24))
}

func daysLeft(days int) string {
	if days < 0 {
		return "EXPIRED"
	}
	return plural(days, "day") + " left"
}

// plural is a number and its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// keyKind names the algorithm and size of a certificate's key.
func keyKind(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	default:
		return c.PublicKeyAlgorithm.String()
	}
}

// printable returns s fit for a terminal. Names, control ids and error texts come
// from a peer, who could put escape sequences into them.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	return strconv.Quote(s)
}
