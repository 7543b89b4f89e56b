package dicomtls_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

func TestSettingsThatCannotBeHonouredAreErrorsOfTheirField(t *testing.T) {
	p := newPKI(t)
	missing := filepath.Join(p.dir, "missing.jks")
	expired := p.write(t, "expired.pem", together(p.authority.Issue(testpki.Options{CommonName: "localhost", Key: rsaKey(t, 2), NotAfter: time.Now().Add(-time.Hour)})))
	for name, test := range map[string]struct {
		role  tlsprops.Role
		props dicomtls.Properties
		field string
		says  string
	}{
		"a key store without TLS":          {tlsprops.Listener, dicomtls.Properties{KeyStore: p.rsa}, "keyStore", "tls is notls"},
		"a trust store without TLS":        {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeNoTLS, TrustStore: p.ca}, "trustStore", "tls is notls"},
		"no client auth without TLS":       {tlsprops.Listener, dicomtls.Properties{NoClientAuth: true}, "noClientAuth", "tls is notls"},
		"an unknown mode":                  {tlsprops.Listener, dicomtls.Properties{TLS: "AES", KeyStore: p.rsa}, "tls", "unknown"},
		"encryption with nothing":          {tlsprops.Listener, dicomtls.Properties{TLS: "without", KeyStore: p.rsa}, "tls", "encrypts nothing"},
		"a listener without a key":         {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, TrustStore: p.ca}, "keyStore", "none is built in"},
		"a listener that trusts nobody":    {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.rsa}, "trustStore", "is missing"},
		"a sender without a key":           {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, TrustStore: p.ca}, "keyStore", "noClientAuth"},
		"a sender that trusts nobody":      {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client}, "trustStore", "is missing"},
		"a sender that does not ask":       {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, NoClientAuth: true}, "trustStore", "is missing"},
		"a key store that is not there":    {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: missing, TrustStore: p.ca}, "keyStore", missing},
		"a trust store that is not there":  {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client, TrustStore: missing}, "trustStore", missing},
		"a trust store without CAs":        {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client, TrustStore: "tls_test.go"}, "trustStore", "tls_test.go"},
		"a key without a certificate":      {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.write(t, "bare.key", p.rsaPair.KeyPEM()), TrustStore: p.ca}, "certStore", "is missing"},
		"another key's certificate":        {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.write(t, "bare.key", p.rsaPair.KeyPEM()), CertStore: p.client, TrustStore: p.ca}, "keyStore", "public key"},
		"a password without a store":       {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, TrustStore: p.ca, NoClientAuth: true, KeyStorePW: "x"}, "keyStorePW", "without keyStore"},
		"a trust password without a store": {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.rsa, NoClientAuth: true, TrustStorePW: "x"}, "trustStorePW", "without trustStore"},
		"an unknown verification":          {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client, TrustStore: p.ca, Verification: "none"}, "verification", "unknown"},
		"pinned without pins":              {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client, Verification: "pinned"}, "pins", "is empty"},
		"pinned with a trust store":        {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client, TrustStore: p.ca, Verification: "pinned", Pins: []string{p.rsaPair.Pin()}}, "trustStore", "pinned"},
		"a pin that is none":               {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client, TrustStore: p.ca, Pins: []string{"abc"}}, "pins", "not a pin"},
		"pins for nobody":                  {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.rsa, NoClientAuth: true, Pins: []string{p.rsaPair.Pin()}}, "pins", "does not ask"},
		"a server name of a listener":      {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.rsa, TrustStore: p.ca, ServerName: "x"}, "serverName", "for clients"},
		"a server name that is none":       {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client, TrustStore: p.ca, ServerName: "a b"}, "serverName", "a b"},
		"an expired certificate":           {tlsprops.Listener, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: expired, TrustStore: p.ca}, "keyStore", "expired"},
		"a revocation list that is none":   {tlsprops.Client, dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: p.client, TrustStore: p.ca, CRLPaths: []string{missing}}, "crlPaths", missing},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dicomtls.LoadTLS(test.props, test.role)
			var field *dicomtls.FieldError
			require.ErrorAs(t, err, &field)
			assert.Equal(t, test.field, field.Field, err.Error())
			assert.ErrorContains(t, err, test.says)
			for _, theirs := range []string{"keyStorePath", "trustStorePath", "certStorePath", "requireClientCert", "sniServerName", "passphrase", "allowExpired"} {
				assert.NotContains(t, err.Error(), theirs, "the names are ours")
			}
		})
	}
	source, err := dicomtls.LoadTLS(dicomtls.Properties{}, tlsprops.Listener)
	assert.NoError(t, err, "the control: the zero value is DICOM without TLS")
	assert.Nil(t, source)
}

func TestSSL2IsNeverSpokenAndAskingForItIsWarnedOf(t *testing.T) {
	p := newPKI(t)
	for setting, warns := range map[string]bool{`{}`: false, `{"nossl2":true}`: false, `{"nossl2":false}`: true} {
		var log bytes.Buffer
		props := p.listener(dicomtls.ModeAES)
		require.NoError(t, json.Unmarshal([]byte(setting), &props))
		props.Logger = slog.New(slog.NewTextHandler(&log, nil))
		serverConfig(t, props)
		assert.Equal(t, warns, strings.Contains(log.String(), "nossl2"), setting)
	}
}

func TestPrintingSettingsShowsNoPassword(t *testing.T) {
	p := dicomtls.Properties{
		TLS: dicomtls.ModeAES, KeyStore: "k.jks", KeyStorePW: "s3cret-1", KeyPW: "s3cret-2", TrustStore: "t.jks", TrustStorePW: "s3cret-3",
		CertStore: "c.pem", KeyAlias: "me", Verification: "full", Pins: []string{"sha256/x"}, ServerName: "pacs", CRLPaths: []string{"crl"}, NoClientAuth: true,
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "props", p)
	for _, text := range []string{fmt.Sprint(p), fmt.Sprintf("%+v %#v %s %q", p, p, &p, p), log.String()} {
		assert.NotContains(t, text, "s3cret")
		assert.Contains(t, text, "k.jks")
		assert.Contains(t, text, "[redacted]")
	}
	out, err := json.Marshal(p)
	require.NoError(t, err)
	var again dicomtls.Properties
	require.NoError(t, json.Unmarshal(out, &again))
	assert.Equal(t, p, again, "a configuration survives being saved")
}

func TestHintsAreInTheNamesOfTheSettings(t *testing.T) {
	p := newPKI(t)
	server := &tls.Config{Certificates: []tls.Certificate{p.authority.Issue(testpki.Options{CommonName: "x", Hosts: []string{"pacs.example.org"}}).TLS()}}
	_, _, err := handshake(server, clientConfig(t, p.sender(dicomtls.ModeBCP195)))
	assert.Equal(t, "set serverName to a name that the certificate has; or verification chain-only where it names no host", dicomtls.TLSHint(err))
	server.Certificates = []tls.Certificate{testpki.NewCA(t, "a stranger").Server().TLS()}
	_, _, err = handshake(server, clientConfig(t, p.sender(dicomtls.ModeBCP195)))
	assert.Contains(t, dicomtls.TLSHint(err), "into trustStore,")
	assert.Empty(t, dicomtls.TLSHint(nil))
}

// In FIPS 140-3 mode crypto/tls would leave the legacy suites out and say so to
// nobody.
func TestLegacyModesAreRefusedInFIPSMode(t *testing.T) {
	if !fips140.Enabled() {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=on")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	p := newPKI(t)
	for _, mode := range []dicomtls.DicomTlsMode{dicomtls.Mode3DES, dicomtls.ModeAES} {
		for role, props := range map[tlsprops.Role]dicomtls.Properties{tlsprops.Listener: p.listener(mode), tlsprops.Client: p.sender(mode)} {
			_, err := dicomtls.LoadTLS(props, role)
			assert.ErrorContains(t, err, "FIPS 140-3")
		}
	}
	_, serverErr, clientErr := handshake(serverConfig(t, p.listener(dicomtls.ModeBCP195)), clientConfig(t, p.sender(dicomtls.ModeBCP195)))
	assert.NoError(t, serverErr)
	assert.NoError(t, clientErr)
}
