package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// golden are the key stores of the library's own tests.
func golden(name string) string {
	return filepath.Join("..", "..", "keystore", "testdata", "stores", name)
}

func TestAKeyStoreIsListedWithPasswordsFromAFileOrTheEnvironment(t *testing.T) {
	t.Setenv("STOREPASS", "changeit")
	password := file(t, "password", "changeit\n")
	want := `"zzz-ca"	trustedCertEntry		1 certificate`
	for _, args := range [][]string{{"--storepass-file", password}, {"--storepass-env", "STOREPASS"}, {"--storepass", "changeit"}} {
		r := carewire(t, append([]string{"keystore", "list", golden("keyplusca.jks")}, args...)...)
		assert.Equal(t, exitOK, r.status, r.err)
		assert.Contains(t, r.out, "JKS, integrity verified, 3 entries\n")
		assert.Contains(t, r.out, want)
		assert.Empty(t, r.err)
	}
	r := carewire(t, "keystore", "list", golden("keyplusca.jks"), "--json")
	assert.Equal(t, exitOK, r.status, "without a password")
	assert.Contains(t, r.out, `"alias":"server","kind":"PrivateKeyEntry"`)
	assert.Contains(t, r.err, "the integrity of the file is not checked")
	for name, args := range map[string][]string{
		"wrong": {"--storepass", "wrong"}, "two sources": {"--storepass", "x", "--storepass-env", "STOREPASS"},
		"no variable": {"--storepass-env", "NO_SUCH_VARIABLE_HERE"}, "no file": {"--storepass-file", "absent"},
	} {
		r := carewire(t, append([]string{"keystore", "list", golden("keyplusca.jks")}, args...)...)
		assert.Equal(t, exitUsage, r.status, name)
		assert.NotEmpty(t, r.err, name)
	}
}

func TestAKeyStoreIsConvertedToPEMAndToPKCS12(t *testing.T) {
	dir := t.TempDir()
	args := []string{"keystore", "convert", golden("keyplusca.jks"), "--out", dir, "--storepass", "changeit"}
	r := carewire(t, args...)
	require.Equal(t, exitOK, r.status, r.err)
	_, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(dir, "server.key"))
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o077)

	r = carewire(t, args...)
	assert.Equal(t, exitNo, r.status)
	assert.Contains(t, r.err, "--force replaces them")
	r = carewire(t, append(args, "--force")...)
	assert.Equal(t, exitOK, r.status, r.err)

	r = carewire(t, append(args, "--to", "p12", "--alias", "server")...)
	require.Equal(t, exitOK, r.status, r.err)
	r = carewire(t, "keystore", "list", filepath.Join(dir, "keystore.p12"), "--storepass", "changeit")
	assert.Contains(t, r.out, "PKCS#12, integrity verified, 1 entry\n")

	r = carewire(t, "keystore", "convert", golden("kinds.jks"), "--out", "-", "--storepass", "changeit", "--alias", "DSA")
	assert.Equal(t, exitOK, r.status, r.err)
	assert.Contains(t, r.out, "-----BEGIN PRIVATE KEY-----")
	r = carewire(t, "keystore", "convert", golden("keypass.jks"), "--out", t.TempDir(), "--storepass", "changeit")
	assert.Equal(t, exitNo, r.status, "one of the keys does not open")
	assert.Contains(t, r.out, "ec384.key")
}

func TestAMirthInstallationIsConvertedWithItsOwnProperties(t *testing.T) {
	root := t.TempDir()
	appdata, out := filepath.Join(root, "appdata"), filepath.Join(root, "certs")
	require.NoError(t, os.MkdirAll(appdata, 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "conf"), 0o700))
	data, err := os.ReadFile(golden("mirth.jks"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(appdata, "keystore.jks"), data, 0o600))
	r := carewire(t, "keystore", "mirth", appdata, "--out", out)
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.err, "there is no mirth.properties in")

	require.NoError(t, os.WriteFile(filepath.Join(root, "conf", "mirth.properties"), []byte(
		"# Mirth\r\ndir.appdata = appdata\r\nkeystore.path = ${dir.appdata}/keystore.jks\r\nkeystore.storepass = KqVh3TtYwR8a\r\nkeystore.keypass = Zx81mPnLcD0e\r\nkeystore.type = JCEKS\r\n",
	), 0o600))
	r = carewire(t, "keystore", "mirth", appdata, "--out", out)
	require.Equal(t, exitOK, r.status, r.err)
	assert.Contains(t, r.out, "tls:\n  enabled: true\n  keyStorePath: ")
	assert.Contains(t, r.err, `"encryption" is a secret key (AES)`)
	assert.NotContains(t, r.out+r.err, "KqVh3TtYwR8a")
	_, err = tls.LoadX509KeyPair(filepath.Join(out, "mirthconnect.crt"), filepath.Join(out, "mirthconnect.key"))
	assert.NoError(t, err)
}

func TestAKeyStoreOfManyKeysIsOpenedWithMoreIterations(t *testing.T) {
	args := []string{"keystore", "list", golden("keyplusca.jceks"), "--storepass", "changeit"}
	r := carewire(t, append(args, "--max-iterations=1000")...)
	assert.Contains(t, r.out+r.err, "MaxIterations")
	r = carewire(t, append(args, "--max-iterations=-1")...)
	assert.Equal(t, exitOK, r.status, r.err)
	assert.NotContains(t, r.out+r.err, "MaxIterations")
}

func TestEachPrivateKeyHasItsTLSBlock(t *testing.T) {
	assert.Equal(t, "tls:\n  enabled: true\n  keyStorePath: \"d/a.key\"\n  certStorePath: \"d/a.crt\"\n  trustStorePath: \"d/ca.crt\"\n"+
		"tls:\n  enabled: true\n  keyStorePath: \"d/b.key\"\n  certStorePath: \"d/b.crt\"\n  trustStorePath: \"d/ca.crt\"\n",
		tlsBlocks("d", []string{"a.key", "a.crt", "b.key", "b.crt", "ca.crt"}))
	assert.Equal(t, "tls:\n  enabled: true\n  trustStorePath: \"d/ca.crt\"\n", tlsBlocks("d", []string{"ca.crt"}))
}
