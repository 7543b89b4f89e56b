package keystore_test

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/keystore"
)

// run runs a program and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), interop.Need(t, name), args...).CombinedOutput()
	require.NoError(t, err, "%s %q: %s", name, args, out)
	return string(out)
}

// sameKeyAndLeaf asserts that the file holds the EC key of testdata.
func sameKeyAndLeaf(t *testing.T, file, password string) {
	t.Helper()
	s, err := keystore.OpenFile(file, keystore.Options{Password: password})
	require.NoError(t, err, file)
	e, err := s.Entry("")
	require.NoError(t, err, file)
	key, err := e.PKCS8()
	require.NoError(t, err, file)
	assert.Equal(t, publicKey(t, pki(t, "ec256.key")), publicKey(t, key), file)
	require.NotEmpty(t, e.Chain, file)
	assert.Equal(t, pki(t, "ec256.crt"), e.Chain[0], file)
}

func TestWhatNSSExportsIsReadAndWhatIsWrittenNSSImports(t *testing.T) {
	interop.Need(t, "certutil")
	interop.Need(t, "pk12util")
	skipManyIterations(t, "n-live")
	dir := t.TempDir()
	nss := "sql:" + dir
	run(t, "certutil", "-N", "-d", nss, "--empty-password")

	ours := filepath.Join(dir, "ours.p12")
	f, err := os.OpenFile(ours, os.O_WRONLY|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, opened(t, "kinds.jks", options).WritePKCS12(f, "ec256", "pässwörd"))
	require.NoError(t, f.Close())
	run(t, "pk12util", "-i", ours, "-d", nss, "-W", "pässwörd")

	// The alias is not written, so NSS calls the certificate by its subject.
	nickname := regexp.MustCompile(`(?m)^(.+?)\s+u,u,u\s*$`).FindStringSubmatch(run(t, "certutil", "-L", "-d", nss))
	require.NotNil(t, nickname, "NSS has the private key")
	for _, cipher := range []string{"", "AES-128-CBC", "AES-256-CBC", "DES-EDE3-CBC"} {
		file := filepath.Join(dir, "theirs-"+cipher+".p12")
		args := []string{"-o", file, "-n", nickname[1], "-d", nss, "-W", "暗号"}
		if cipher != "" {
			args = append(args, "-c", cipher, "-C", cipher)
		}
		run(t, "pk12util", args...)
		s, err := keystore.OpenFile(file, keystore.Options{Password: "暗号", MaxIterations: -1})
		require.NoError(t, err, cipher)
		e, err := s.Entry("")
		require.NoError(t, err, cipher)
		key, err := e.PKCS8()
		require.NoError(t, err, cipher)
		assert.Equal(t, publicKey(t, pki(t, "ec256.key")), publicKey(t, key), cipher)
		assert.Equal(t, pki(t, "ec256.crt"), e.Chain[0], cipher)
	}
}

func TestWhatGnuTLSWritesIsReadAndTheOtherWayRound(t *testing.T) {
	interop.Need(t, "certtool")
	skipManyIterations(t, "g-live")
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	names, err := opened(t, "kinds.jks", options).WritePEMFiles(dir, keystore.PEMOptions{Aliases: []string{"ec256"}})
	require.NoError(t, err)
	for _, name := range names {
		to := cert
		if strings.HasSuffix(name, ".key") {
			to = key
		}
		require.NoError(t, os.Rename(filepath.Join(dir, name), to))
	}
	for _, cipher := range []string{"aes-128", "aes-256", "3des", "3des-pkcs12", "arcfour", "rc2-40"} {
		file := filepath.Join(dir, cipher+".p12")
		run(t, "certtool", "--to-p12", "--load-privkey", key, "--load-certificate", cert, "--p12-name", "server",
			"--password", "changeit", "--pkcs-cipher", cipher, "--outder", "--outfile", file)
		sameKeyAndLeaf(t, file, "changeit")
	}
	ours := filepath.Join(dir, "ours.p12")
	f, err := os.OpenFile(ours, os.O_WRONLY|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, opened(t, "kinds.jks", options).WritePKCS12(f, "ec256", "changeit"))
	require.NoError(t, f.Close())
	out := run(t, "certtool", "--p12-info", "--inder", "--password", "changeit", "--infile", ours)
	assert.Contains(t, out, "BEGIN CERTIFICATE")
	sealed := out[strings.Index(out, "-----BEGIN ENCRYPTED PRIVATE KEY"):] // as GnuTLS shows it
	require.NoError(t, os.WriteFile(key, []byte(sealed), 0o600))
	assert.Contains(t, run(t, "certtool", "--key-info", "--pkcs8", "--password", "changeit", "--infile", key), "SECP256R1")
}

// The trust store that a Java installation comes with. The ratio is for the log:
// machines differ.
func TestJavasOwnTrustStoreHoldsWhatKeytoolListsAndOpensFaster(t *testing.T) {
	keytool := interop.Need(t, "keytool")
	java, err := filepath.EvalSymlinks(keytool)
	require.NoError(t, err)
	cacerts := filepath.Join(filepath.Dir(filepath.Dir(java)), "lib", "security", "cacerts")
	if _, err := os.Stat(cacerts); err != nil {
		interop.Missing(t, "the JDK has no cacerts: "+err.Error())
	}
	start := time.Now()
	list := run(t, "keytool", "-list", "-keystore", cacerts, "-storepass", "changeit")
	theirs := time.Since(start)
	ours := time.Duration(1 << 62)
	var s *keystore.Store
	for range 5 {
		start = time.Now()
		s, err = keystore.OpenFile(cacerts, options)
		require.NoError(t, err)
		ours = min(ours, time.Since(start))
	}
	t.Logf("%d entries: keytool -list takes %.0f times as long", len(s.Entries), float64(theirs)/float64(ours))

	prints := make(map[string]int)
	for _, m := range regexp.MustCompile(`SHA-256\): ([0-9A-F:]+)`).FindAllStringSubmatch(list, -1) {
		prints[strings.ToLower(strings.ReplaceAll(m[1], ":", ""))]++
	}
	for _, e := range s.Entries {
		sum := sha256.Sum256(e.Chain[0])
		prints[hex.EncodeToString(sum[:])]--
	}
	assert.NotEmpty(t, s.Entries)
	for print, n := range prints {
		assert.Zero(t, n, "certificate %s: +1 keytool's alone, -1 ours alone", print)
	}
}

// publicKey returns the public half of a PKCS #8 key: programs differ in whether
// they keep the optional fields of the private one.
func publicKey(tb testing.TB, pkcs8 []byte) any {
	tb.Helper()
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	require.NoError(tb, err)
	return key.(crypto.Signer).Public()
}
