package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/carewire/carewire/keystore"
	"github.com/carewire/carewire/tlsprops"
)

// clientTLS are the flags of a command that opens TLS connections.
type clientTLS struct {
	CA             string `name:"ca" placeholder:"FILE" help:"Authorities to trust (PEM, JKS or PKCS#12), in place of the system's."`
	Cert           string `placeholder:"FILE" help:"Client certificate (PEM), with its chain."`
	Key            string `placeholder:"FILE" help:"Private key of the certificate (PEM, or a JKS or PKCS#12 key store)."`
	PassphraseFile string `placeholder:"FILE" help:"File that holds the passphrase of an encrypted key."`
	Name           string `placeholder:"NAME" help:"Name to ask for (SNI) and to find in the server's certificate, in place of the host's."`
}

// given tells whether any of the flags was used.
func (f *clientTLS) given() bool { return *f != clientTLS{} }

// properties are the flags in the library's words.
func (f *clientTLS) properties() tlsprops.TlsProperties {
	return tlsprops.TlsProperties{
		Enabled:        true,
		TrustStorePath: f.CA,
		CertStorePath:  f.Cert,
		KeyStorePath:   f.Key,
		PassphraseFile: f.PassphraseFile,
		SniServerName:  f.Name,
		Decoder:        keystore.Decoder,
	}
}

// config are the flags as crypto/tls takes them, for connections to addr.
func (f *clientTLS) config(addr string) (*tls.Config, error) {
	source, err := tlsprops.Load(f.properties())
	if err != nil {
		return nil, unusableTLS(err)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, unusable("%q is not HOST:PORT", addr)
	}
	config, err := source.ClientConfig(host)
	if err != nil {
		return nil, unusableTLS(err)
	}
	return config, nil
}

// flagOf names the flag behind a setting of the library, for error messages.
var flagOf = map[string]string{
	"trustStorePath": "--ca",
	"certStorePath":  "--cert",
	"keyStorePath":   "--key",
	"passphraseFile": "--passphrase-file",
	"passphrase":     "--passphrase-file",
	"sniServerName":  "--name",
	"enabled":        "--tls",
}

// unusableTLS turns the library's refusal of a setting into one of the flag.
func unusableTLS(err error) error {
	if field, ok := errors.AsType[*tlsprops.FieldError](err); ok && flagOf[field.Field] != "" {
		return unusable("%s: %w", flagOf[field.Field], err)
	}
	return &exitError{status: exitUsage, err: fmt.Errorf("TLS settings: %w", err)}
}
