package keystore_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

// The mode is a setting of the whole process, so these tests run this test
// program once more, with the mode in its environment.
func runInFIPSMode(t *testing.T, mode string) bool {
	t.Helper()
	if os.Getenv("KEYSTORE_FIPS") == mode {
		return true
	}
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140="+mode, "KEYSTORE_FIPS="+mode)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "%s", out)
	return false
}

// What fips140=only forbids panics in crypto/md5, crypto/sha1 and crypto/cipher
// unless it is asked for first.
func TestInFIPSOnlyModeOldAlgorithmsAreErrorsAndNoPanics(t *testing.T) {
	if !runInFIPSMode(t, "only") {
		return
	}
	require.True(t, fips140.Enforced())
	for file, name := range map[string]string{
		"kinds.jks": "SHA-1", "kinds.jceks": "SHA-1", "mirth.jks": "SHA-1", "o-default.p12": "the key derivation of PKCS#12", "jdk25.pkcs12": "the key derivation of PKCS#12",
		"o-mac-sha3-256.p12": "the key derivation of PKCS#12", "legacy.pkcs12": "the key derivation of PKCS#12",
	} {
		o := goldenOptions(file)
		_, err := keystore.Open(golden(t, "stores/"+file), o)
		var unsupported *keystore.UnsupportedAlgorithmError
		require.ErrorAs(t, err, &unsupported, file)
		assert.True(t, unsupported.FIPS, file)
		assert.Contains(t, unsupported.Name, name, file)
		assert.ErrorContains(t, err, "not allowed in FIPS 140-only mode")

		o.AllowLegacyInFIPS = true
		s, err := keystore.Open(golden(t, "stores/"+file), o)
		require.NoError(t, err, file)
		assert.NotEmpty(t, s.Entries, file)
		assert.True(t, fips140.Enforced(), "only the opening is exempt")
	}
	// Keys that are refused leave the rest readable.
	for name, data := range map[string][]byte{
		"JKS":   javaStore{entries: [][]byte{keyEntry("k", marshal(t, encryptedKey{algorithm{OID: jksProtector}, make([]byte, 60)}), pki(t, "ec256.crt"))}}.noDigest(),
		"JCEKS": javaStore{magic: magicJCEKS, entries: [][]byte{keyEntry("k", jceksProtected(t, saltOf8, 20, make([]byte, 48)), pki(t, "ec256.crt"))}}.noDigest(),
	} {
		s, err := keystore.Open(data, keystore.Options{NoPassword: true, KeyPassword: "x"})
		require.NoError(t, err, name)
		var unsupported *keystore.UnsupportedAlgorithmError
		assert.ErrorAs(t, s.Entries[0].Err, &unsupported, name)
		assert.Len(t, s.Entries[0].Chain, 1, name)
	}
	for _, file := range []string{"stores/o-nomac.p12", "stores/scrypt.pem", "stores/encrypted.der", "../../tlsprops/testdata/pem/rsa-traditional-aes256.pem"} {
		s, err := keystore.Open(golden(t, file), options)
		require.NoError(t, err, file)
		var unsupported *keystore.UnsupportedAlgorithmError
		assert.ErrorAs(t, s.Entries[0].Err, &unsupported, file)
	}

	// The controls: what is allowed works.
	s, err := keystore.Open(golden(t, "stores/passwordless-trust.pkcs12"), options)
	require.NoError(t, err)
	_, err = s.CertPool()
	assert.NoError(t, err)
	s, err = keystore.Open(golden(t, "stores/trust.jks"), keystore.Options{NoPassword: true})
	require.NoError(t, err)
	assert.Len(t, s.Roots(), 2)
	s, err = keystore.Open(join(golden(t, "pki/ec256.key"), golden(t, "pki/ec256.crt")), options)
	require.NoError(t, err)
	_, err = s.TLSCertificate("")
	assert.NoError(t, err)
}

func TestWithFIPSOnEveryGoldenStoreStillOpens(t *testing.T) {
	if !runInFIPSMode(t, "on") {
		return
	}
	require.True(t, fips140.Enabled())
	for _, file := range []string{"kinds.jks", "secrets.jceks", "mirth.jks", "legacy.pkcs12", "o-default.p12", "bc.pkcs12", "scrypt.pem", "o-mac-sha3-512.p12"} {
		s := opened(t, file, goldenOptions(file))
		for _, e := range s.Entries {
			assert.NoError(t, e.Err, file)
		}
	}
}
