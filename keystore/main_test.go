package keystore_test

import (
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/keystore"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const (
	storePassword = "changeit"
	keyPassword   = "other-secret"
)

var options = keystore.Options{Password: storePassword}

func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(name)))
	require.NoError(tb, err)
	return data
}

// pki returns the DER of a key or certificate: "ec256.key", "root.crt".
func pki(tb testing.TB, name string) []byte {
	tb.Helper()
	block, _ := pem.Decode(golden(tb, "pki/"+name))
	require.NotNil(tb, block, name)
	return block.Bytes
}

// opened opens the golden store name.
func opened(tb testing.TB, name string, o keystore.Options) *keystore.Store {
	tb.Helper()
	s, err := keystore.Open(golden(tb, "stores/"+name), o)
	require.NoError(tb, err, name)
	return s
}

// describe tells what a store holds, in the words of the tables: for each entry
// "alias: kind key; certificate, certificate", where keys and certificates are
// called by their files in testdata/pki.
func describe(tb testing.TB, s *keystore.Store) []string {
	tb.Helper()
	names := pkiNames(tb)
	var out []string
	for _, e := range s.Entries {
		text := e.Alias + ": " + map[keystore.Kind]string{
			keystore.PrivateKey: "key", keystore.TrustedCertificate: "trusted", keystore.Certificate: "cert", keystore.SecretKey: "secret",
		}[e.Kind]
		switch e.Kind {
		case keystore.PrivateKey:
			der, err := e.PKCS8()
			if err != nil {
				text += " " + err.Error()
			} else {
				text += " " + nameOf(names, der)
			}
		case keystore.SecretKey:
			key, err := e.SecretKey()
			if err != nil {
				text += " " + err.Error()
			} else {
				text += " " + e.Algorithm + " " + hexOf(key)
			}
		case keystore.TrustedCertificate, keystore.Certificate:
		}
		for _, der := range e.Chain {
			text += " " + nameOf(names, der)
		}
		out = append(out, text)
	}
	return out
}

func nameOf(names map[string]string, der []byte) string {
	if name, ok := names[string(der)]; ok {
		return name
	}
	return "unknown"
}

// pkiNames are the files of testdata/pki by their DER.
func pkiNames(tb testing.TB) map[string]string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "pki", "*"))
	require.NoError(tb, err)
	names := make(map[string]string)
	for _, file := range files {
		base := filepath.Base(file)
		names[string(pki(tb, base))] = strings.TrimSuffix(base, filepath.Ext(base))
	}
	return names
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// pemBytes returns the DER of the first block of a golden file.
func pemBytes(tb testing.TB, name string) []byte {
	tb.Helper()
	block, _ := pem.Decode(golden(tb, name))
	require.NotNil(tb, block, name)
	return block.Bytes
}

// skipManyIterations skips a test under the race detector that opens the golden
// store file, if that is one of GnuTLS or NSS: they have 600,000 iterations in
// each part, and there is no second goroutine to race with.
func skipManyIterations(tb testing.TB, file string) {
	tb.Helper()
	if raceDetector && (strings.HasPrefix(file, "g-") || strings.HasPrefix(file, "n-")) {
		tb.Skip("skipped under the race detector: ten times as slow, and runs without it as well")
	}
}
