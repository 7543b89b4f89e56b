package tlsprops

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The mode is a setting of the whole process, so these tests run this test
// program once more, with the mode in its environment.
func runInFIPSMode(t *testing.T, mode, test string) {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140="+mode, "TLSPROPS_FIPS="+mode)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+test, "%s", out)
}

// What fips140=only forbids panics in crypto/md5, crypto/sha1 and crypto/cipher.
func TestInFIPSOnlyModeAnOldAlgorithmIsAnErrorAndNoPanic(t *testing.T) {
	if os.Getenv("TLSPROPS_FIPS") == "" {
		runInFIPSMode(t, "only", t.Name())
		return
	}
	require.True(t, fips140.Enforced())
	for file, what := range map[string]string{
		"ec-pbe-md5-des.pem":          "PBE-MD5-DES",
		"ec-pbe-sha1-3des.pem":        "PBE-SHA1-3DES",
		"ec-pbe-sha1-rc2-40.pem":      "PBE-SHA1-RC2-40",
		"ec-pbe-sha1-rc4-128.pem":     "PBE-SHA1-RC4-128",
		"ec-pbes2-3des-sha1.pem":      "triple DES",
		"ec-pbes2-aes256-sha256.pem":  "a salt of 8 bytes", // OpenSSL's before version 3.2
		"rsa-traditional-aes256.pem":  "a key derived by MD5",
		"ec-traditional-aes128.pem":   "a key derived by MD5",
		"ec-pbe-sha1-3des-empty.pem":  "PBE-SHA1-3DES",
		"ec-pbe-sha1-3des-emoji.pem":  "PBE-SHA1-3DES",
		"rsa-pbes2-aes128-sha512.pem": "a salt of 8 bytes",
	} {
		for _, passphrase := range []string{"", goldenPassphrase} {
			_, encrypted, err := parseKey(golden(t, file), passphrase, nil)
			assert.ErrorContains(t, err, "encrypted with "+what+", which is not allowed in FIPS 140-only mode: convert it with", file)
			assert.True(t, encrypted)
			assertOneLineWithout(t, err, goldenPassphrase)
		}
	}
	_, _, err := parseKey(golden(t, "kind-rsa-pss.pem"), "", nil)
	assert.ErrorContains(t, err, "RSA-PSS")
	_, _, err = parseKey(golden(t, "kind-rsa-512.pem"), "", nil)
	assert.Error(t, err)

	// The control: what is allowed still works.
	for _, file := range []string{"ec.pem", "rsa.pem", "ed25519.pem", "rsa-pkcs1.pem"} {
		_, _, err := parseKey(golden(t, file), "", nil)
		assert.NoError(t, err, file)
	}
	der := sealPBES2(t, goldenDER(t, "ec.pem"), goldenPassphrase, pbkdf2Parameters{make([]byte, 16), 2048, 0, hmacSHA256})
	_, _, err = parseKey(encryptedPEM(der), goldenPassphrase, nil)
	assert.NoError(t, err)
	_, _, err = parseKey(encryptedPEM(der), "not the passphrase", nil)
	assert.ErrorIs(t, err, ErrIncorrectPassphrase)
	_, err = parseChain(golden(t, "cert.pem"))
	assert.NoError(t, err)
}

func TestWithFIPSOnEveryFormOfAKeyStillOpens(t *testing.T) {
	if os.Getenv("TLSPROPS_FIPS") == "" {
		runInFIPSMode(t, "on", t.Name())
		return
	}
	require.True(t, fips140.Enabled())
	require.False(t, fips140.Enforced())
	t.Run("all", TestEveryFormOfAKeyOpensToTheSameKey)
}
