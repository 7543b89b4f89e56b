package meshclient

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// isPEM tells whether a setting is PEM itself, not the name of a file.
func isPEM(s string) bool { return strings.Contains(s, "-----BEGIN ") }

// security returns the TLS settings for a Sender: either properties, whose files
// it watches, or a configuration that stays as it is.
func (c *Config) security(host string) (*tlsprops.TlsProperties, *tls.Config, error) {
	if c.TLS != nil {
		p, err := c.properties(host)
		return p, nil, err
	}
	noKey := c.ClientKey == "" && isPEM(c.ClientCert) && !strings.Contains(c.ClientCert, "PRIVATE KEY-----")
	if c.ClientCert == "" && c.ClientKey != "" || noKey {
		return nil, nil, refuse("clientCert, clientKey", "one is set without the other")
	}
	if c.ClientCert == "" && !isLoopback(host) {
		return nil, nil, refuse("clientCert", "is missing: MESH asks every client for a certificate")
	}
	if !isPEM(c.ClientCert) && !isPEM(c.ClientKey) && !isPEM(c.CACert) {
		p := &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: c.ClientKey, CertStorePath: c.ClientCert, TrustStorePath: c.CACert,
			AlwaysSendClientCert: c.ClientCert != "", Logger: c.Logger,
		}
		if c.ClientKey == "" { // in the same file
			p.KeyStorePath, p.CertStorePath = c.ClientCert, ""
		}
		if err := check(p, host); err != nil {
			return nil, nil, err
		}
		return p, nil, nil
	}
	conf, err := c.inline(host)
	return nil, conf, err
}

// properties returns c.TLS, if it verifies the server's certificate in full.
func (c *Config) properties(host string) (*tlsprops.TlsProperties, error) {
	p := c.TLS
	switch {
	case c.ClientCert != "" || c.ClientKey != "" || c.CACert != "":
		return nil, refuse("tls", "is set together with clientCert, clientKey or caCert: remove one of the two")
	case !p.Enabled:
		return nil, refuse("tls.enabled", "is false: leave out tls, or set it to true")
	case p.RejectUnauthorized != nil && !*p.RejectUnauthorized:
		return nil, refuse("tls.rejectUnauthorized", "is false: the server's certificate is always verified; "+
			"set trustStorePath to the root that issued it")
	case p.Verify != "" && p.Verify != tlsprops.VerifyFull:
		return nil, refuse("tls.verify", "must be full: the server's certificate is always verified, its name too")
	}
	return p, check(p, host)
}

// certified tells whether there is a certificate to show.
func (c *Config) certified() bool {
	return c.ClientCert != "" || c.TLS != nil && c.TLS.KeyStorePath != ""
}

// check loads the files once, so that New says what is wrong with them.
func check(p *tlsprops.TlsProperties, host string) error {
	quiet := *p
	quiet.Observe, quiet.Logger = nil, nil // the Sender's own loading tells
	src, err := tlsprops.Load(quiet)
	if err != nil {
		return fmt.Errorf("meshclient: %w", err)
	}
	if _, err = src.ClientConfig(host); err != nil {
		return fmt.Errorf("meshclient: %w", err)
	}
	return nil
}

// inline returns a configuration of which a part at least is in the settings.
func (c *Config) inline(host string) (*tls.Config, error) {
	// Versions and suites are those of every client of carewire.
	src, err := tlsprops.Load(tlsprops.TlsProperties{Enabled: true})
	if err != nil {
		return nil, fmt.Errorf("meshclient: %w", err)
	}
	conf, err := src.ClientConfig(host)
	if err != nil {
		return nil, fmt.Errorf("meshclient: %w", err)
	}
	if c.CACert != "" {
		text, err := readPEM("caCert", c.CACert)
		if err != nil {
			return nil, err
		}
		if conf.RootCAs, err = pool(text, c.Logger); err != nil {
			return nil, err
		}
	}
	if c.ClientCert == "" {
		return conf, nil
	}
	cert, err := c.pair()
	if err != nil {
		return nil, err
	}
	// Whatever issuers the server names: it is for the server to refuse, with a
	// reason, rather than to miss a certificate.
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return conf, nil
}

// pair returns the client's certificate and key, if they go together and are
// good for a client now.
func (c *Config) pair() (*tls.Certificate, error) {
	cert, err := readPEM("clientCert", c.ClientCert)
	if err != nil {
		return nil, err
	}
	key := cert
	if c.ClientKey != "" {
		if key, err = readPEM("clientKey", c.ClientKey); err != nil {
			return nil, err
		}
	}
	if strings.Contains(string(key), "ENCRYPTED") {
		return nil, refuse("clientKey", "is encrypted: put it in a file, and set tls with a passphraseFile")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		// crypto/tls says what kind of block it found, and nothing of its content.
		return nil, refuse("clientCert, clientKey", strings.TrimPrefix(err.Error(), "tls: "))
	}
	now := time.Now()
	switch leaf := pair.Leaf; {
	case now.After(leaf.NotAfter):
		return nil, refuse("clientCert", "has expired on "+leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return nil, refuse("clientCert", "is not valid before "+leaf.NotBefore.UTC().Format(time.DateTime)+" UTC")
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return nil, refuse("clientCert", "was not issued for clients: its extended key usage lacks clientAuth")
	}
	return &pair, nil
}

// pool returns the certificates of PEM, of which there must be one. One that has
// expired verifies nothing, and may stand beside the one that took its place.
func pool(text []byte, log *slog.Logger) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	found := false
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, refuse("caCert", "holds a block that is no certificate")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refuse("caCert", "holds a certificate that cannot be read")
		}
		roots.AddCert(cert)
		if log != nil && time.Now().After(cert.NotAfter) {
			log.Warn("meshclient: a root of caCert has expired: remove it", "subject", cert.Subject.String(), "notAfter", cert.NotAfter)
		}
		found = true
	}
	if !found || strings.Contains(string(text), "-----BEGIN ") {
		return nil, refuse("caCert", "is not PEM of certificates, or is cut off")
	}
	return roots, nil
}

// maxPEM bounds what is read and taken as PEM.
const maxPEM = 1 << 20

// readPEM returns the PEM that a setting is or names, with line ends for \n.
func readPEM(field, value string) ([]byte, error) {
	if !isPEM(value) {
		f, err := os.Open(value) //nolint:gosec // the caller's own path
		if err != nil {
			return nil, &ConfigError{Field: field, Err: err}
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
		if err != nil {
			return nil, &ConfigError{Field: field, Err: err}
		}
		value = string(text)
	}
	if len(value) > maxPEM {
		return nil, &ConfigError{Field: field, Err: errors.New("has more than 1 MiB")}
	}
	return unescape(value), nil
}

// unescape returns PEM as it was before it went through a shell or a secret
// store, which leave \n in one line, or end lines with CR LF or CR.
func unescape(s string) []byte {
	return []byte(strings.NewReplacer(`\r\n`, "\n", `\n`, "\n", `\r`, "\n", "\r\n", "\n", "\r", "\n").Replace(s))
}
