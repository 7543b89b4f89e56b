package meshclient_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
	"github.com/carewire/carewire/tlsprops"
)

// What shells, secret stores and Windows make of PEM, in each of the settings.
func TestPEMIsTakenInEveryFormThatItComesIn(t *testing.T) {
	s := serve(t, meshtest.Options{})
	replace := strings.NewReplacer
	for name, form := range map[string]func(string) string{
		"as it is":                  func(p string) string { return p },
		`\n for the ends of lines`:  func(p string) string { return replace("\n", `\n`).Replace(p) },
		`\r\n`:                      func(p string) string { return replace("\n", `\r\n`).Replace(p) },
		`\r`:                        func(p string) string { return replace("\n", `\r`).Replace(p) },
		"CR LF":                     func(p string) string { return replace("\n", "\r\n").Replace(p) },
		"CR":                        func(p string) string { return replace("\n", "\r").Replace(p) },
		"no end of the last line":   func(p string) string { return strings.TrimSuffix(p, "\n") },
		`\n, and none at the end`:   func(p string) string { return strings.TrimSuffix(replace("\n", `\n`).Replace(p), `\n`) },
		"text before it":            func(p string) string { return "Bag Attributes\n    friendlyName: mesh\n" + p },
		`text before it, with \n`:   func(p string) string { return replace("\n", `\n`).Replace("subject=CN = mesh\n" + p) },
		"empty lines around it":     func(p string) string { return "\n\n" + p + "\n\n" },
		"spaces at the ends":        func(p string) string { return replace("\n", " \n").Replace(p) },
		"lines that are mixed ends": func(p string) string { return strings.Replace(replace("\n", `\n`).Replace(p), `\n`, "\r\n", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, connect(t, s, alice, func(c *meshclient.Config) {
				c.ClientCert, c.ClientKey, c.CACert = form(c.ClientCert), form(c.ClientKey), form(c.CACert)
			}).Handshake(bounded(t)))
			require.NoError(t, connect(t, s, alice, func(c *meshclient.Config) { // all of it in one
				c.ClientCert, c.ClientKey, c.CACert = form(c.ClientCert+c.ClientKey), "", form(c.CACert)
			}).Handshake(bounded(t)))
		})
	}
	assert.Equal(t, 2*13, len(ops(s, "handshake")))
}

// A certificate and the intermediate above it are one PEM: the server knows the root
// alone.
func TestAChainIsShownWholeFromPEMAndFromFiles(t *testing.T) {
	root := testpki.NewCA(t, "root")
	s := serve(t, meshtest.Options{CA: certificate(root)})
	pair := root.Intermediate("intermediate").Client("client")
	require.Len(t, pair.Chain, 2)
	files := pair.Write(t.TempDir(), "client")
	for name, set := range map[string]func(*meshclient.Config){
		"PEM": func(c *meshclient.Config) { c.ClientCert, c.ClientKey = string(pair.CertPEM()), string(pair.KeyPEM()) },
		"in one line": func(c *meshclient.Config) {
			c.ClientCert, c.ClientKey = oneLine(pair.CertPEM()), oneLine(pair.KeyPEM())
		},
		"files": func(c *meshclient.Config) {
			c.ClientCert, c.ClientKey, c.CACert = files.Cert, files.Key, file(t, c.CACert)
		},
	} {
		assert.NoError(t, connect(t, s, alice, set).Handshake(bounded(t)), name)
	}
	err := connect(t, s, alice, once, func(c *meshclient.Config) {
		c.ClientCert, c.ClientKey = string(testpki.EncodeCerts(pair.Chain[0])), string(pair.KeyPEM())
	}).Handshake(bounded(t))
	assert.ErrorIs(t, err, meshclient.ErrClientCertificate, "the control: without the intermediate it is not known")
}

// An encrypted key is a file, and its passphrase one, or a setting of TLS.
func TestAnEncryptedKeyIsOpenedWithItsPassphrase(t *testing.T) {
	s := serve(t, meshtest.Options{})
	conf, err := s.Config(alice)
	require.NoError(t, err)
	props := tlsprops.TlsProperties{
		Enabled: true, CertStorePath: file(t, conf.ClientCert), KeyStorePath: file(t, encrypted(t, conf.ClientKey, "hunter2")),
		TrustStorePath: file(t, conf.CACert),
	}
	with := func(change func(*tlsprops.TlsProperties)) func(*meshclient.Config) {
		return func(c *meshclient.Config) {
			p := props
			change(&p)
			c.ClientCert, c.ClientKey, c.CACert, c.TLS = "", "", "", &p
		}
	}
	for name, open := range map[string]func(*tlsprops.TlsProperties){
		"a setting": func(p *tlsprops.TlsProperties) { p.Passphrase = "hunter2" },
		"a file":    func(p *tlsprops.TlsProperties) { p.PassphraseFile = file(t, "hunter2\n") },
	} {
		assert.NoError(t, connect(t, s, alice, with(open)).Handshake(bounded(t)), name)
	}
	for name, open := range map[string]func(*tlsprops.TlsProperties){
		"none":       func(*tlsprops.TlsProperties) {},
		"another":    func(p *tlsprops.TlsProperties) { p.Passphrase = "hunter3" },
		"not a file": func(p *tlsprops.TlsProperties) { p.PassphraseFile = "/nonexistent/hunter4" },
	} {
		bad := conf
		with(open)(&bad)
		_, err := meshclient.New(bad)
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "hunter3", name)
	}
}

func oneLine(b []byte) string { return strings.ReplaceAll(string(b), "\n", `\n`) }

// file writes a file of the test.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// encrypted makes of a key what openssl pkcs8 -topk8 -v2 aes-256-cbc does (RFC 8018,
// PBES2 with PBKDF2 and HMAC-SHA256).
func encrypted(t *testing.T, key, passphrase string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(key))
	require.NotNil(t, block)
	salt, iv := noise(16, 1), noise(aes.BlockSize, 2)
	secret, err := pbkdf2.Key(sha256.New, passphrase, salt, 2048, 32)
	require.NoError(t, err)
	c, err := aes.NewCipher(secret)
	require.NoError(t, err)
	pad := aes.BlockSize - len(block.Bytes)%aes.BlockSize
	data := append(block.Bytes, []byte(strings.Repeat(string(rune(pad)), pad))...)
	cipher.NewCBCEncrypter(c, iv).CryptBlocks(data, data)

	raw := func(v any) asn1.RawValue {
		der, err := asn1.Marshal(v)
		require.NoError(t, err)
		return asn1.RawValue{FullBytes: der}
	}
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}{pkix.AlgorithmIdentifier{
		Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13},
		Parameters: raw([]pkix.AlgorithmIdentifier{
			{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}, Parameters: raw(struct {
				Salt       []byte
				Iterations int
				PRF        pkix.AlgorithmIdentifier
			}{salt, 2048, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, Parameters: asn1.NullRawValue}})},
			{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, Parameters: raw(iv)},
		}),
	}, data})
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}))
}
