package keystore_test

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/keystore"
)

// runStores gives commands to testdata/Stores.java and returns what it prints,
// line by line, in fields.
func runStores(t *testing.T, commands []string) [][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), interop.Need(t, "java"), "Stores.java")
	cmd.Dir = "testdata"
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)
	var lines [][]string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return lines
}

func utf16Hex(s string) string { return hex.EncodeToString(utf16BE(s)) }

// entryLine is what Stores.java prints for an entry, less the file: alias, kind,
// key, certificates.
func entryLine(tb testing.TB, e *keystore.Entry) string {
	tb.Helper()
	fields := []string{utf16Hex(e.Alias), "trusted", ""}
	switch e.Kind {
	case keystore.PrivateKey:
		fields[1] = "locked"
		if key, err := e.PKCS8(); err == nil {
			fields[1], fields[2] = "private", hex.EncodeToString(key)
		}
	case keystore.SecretKey:
		fields[1] = "locked"
		if key, err := e.SecretKey(); err == nil {
			fields[1], fields[2] = "secret", hex.EncodeToString(key)
		}
	case keystore.TrustedCertificate, keystore.Certificate:
	}
	for _, der := range e.Chain {
		fields = append(fields, hex.EncodeToString(der))
	}
	return strings.Join(fields, "\t")
}

// Fresh stores of every type, kind and password: what the JDK says is in them is
// what we say.
func TestStoresThatJavaMakesHoldWhatJavaSaysTheyHold(t *testing.T) {
	interop.Need(t, "java")
	dir := t.TempDir()
	key := func(kind, password string) string {
		return fmt.Sprintf("key,%s,%s,pki/%s.key,pki/%s.crt,pki/int.crt,pki/root.crt", utf16Hex(kind), utf16Hex(password), kind, kind)
	}
	type made struct {
		file, storeType string
		o               keystore.Options
	}
	var stores []made
	var commands []string
	add := func(storeType, store, keys string, entries ...string) {
		file := filepath.Join(dir, fmt.Sprintf("%d.%s", len(stores), strings.ToLower(storeType)))
		stores = append(stores, made{file, storeType, keystore.Options{Password: store, KeyPassword: keys}})
		commands = append(commands, strings.Join(append([]string{"make", file, storeType, utf16Hex(store)}, entries...), "\t"))
	}
	kinds := []string{"rsa", "pss", "ec256", "ec384", "ec521", "ed25519", "dsa"}
	for _, storeType := range []string{"JKS", "JCEKS", "PKCS12"} {
		var all []string
		for _, kind := range kinds {
			all = append(all, key(kind, "changeit"))
			add(storeType, "changeit", "", key(kind, "changeit"))
		}
		add(storeType, "changeit", "", append(all, "cert,"+utf16Hex("ca")+",pki/other.crt")...)
		add(storeType, "changeit", "a key's own", key("ec256", "a key's own"))
		if storeType == "PKCS12" {
			continue // where the JDK takes ASCII alone, up to version 18
		}
		for _, password := range []string{"", "pässwörd", "暗号", "p😀w", " spaces ", strings.Repeat("long", 75)} {
			add(storeType, password, "changeit", key("ec256", "changeit"))
		}
	}
	add("JCEKS", "changeit", "", "secret,"+utf16Hex("aes")+","+utf16Hex("changeit")+",AES,000102030405060708090a0b0c0d0e0f", key("rsa", "changeit"),
		"secret,"+utf16Hex("mac")+","+utf16Hex("changeit")+",HmacSHA256,0011", "cert,"+utf16Hex("ca")+",pki/other.crt")
	for _, s := range stores {
		keys := s.o.KeyPassword
		if keys == "" {
			keys = s.o.Password
		}
		commands = append(commands, strings.Join([]string{"dump", s.file, s.storeType, utf16Hex(s.o.Password), utf16Hex(keys)}, "\t"))
	}
	theirs := make(map[string][]string)
	for _, line := range runStores(t, commands) {
		require.NotEqual(t, "ERROR", line[1], "%q", line)
		theirs[line[0]] = append(theirs[line[0]], strings.Join(line[1:], "\t"))
	}
	for _, s := range stores {
		ours, err := keystore.OpenFile(s.file, s.o)
		require.NoError(t, err, s.file)
		var lines []string
		for _, e := range ours.Entries {
			lines = append(lines, entryLine(t, e))
		}
		assert.ElementsMatch(t, theirs[s.file], lines, s.file)
	}
}

// javaDisagrees are the golden stores that JDK 17 reads in another way, and why.
// openssl agrees with us on all of these.
var javaDisagrees = map[string]string{
	"o-cafile.p12":                "shows no certificate without Java's mark",
	"o-shuffled.p12":              "shows no certificate without Java's mark",
	"o-keybag.p12":                "shows no key that is not encrypted",
	"o-nomac-keybag.p12":          "shows no key that is not encrypted",
	"o-mac-sha3-256.p12":          "knows no SHA-3",
	"o-mac-sha3-512.p12":          "knows no SHA-3",
	"o-pbe-des-ede3-cbc.p12":      "knows no triple DES in PBES2",
	"g-3des.p12":                  "knows no triple DES in PBES2",
	"o-pbe-aes-192-cbc.p12":       "knows no AES-192 in PBES2",
	"o-pbe-pbe-sha1-2des.p12":     "calls the password incorrect",
	"o-pbe-pbe-sha1-des.p12":      "calls the password incorrect",
	"o-password-latin1.p12":       "takes ASCII passwords alone",
	"o-password-cjk.p12":          "takes ASCII passwords alone",
	"o-password-emoji.p12":        "takes ASCII passwords alone",
	"o-password-emoji-legacy.p12": "takes ASCII passwords alone",
	"n-unicode.p12":               "takes ASCII passwords alone",
	"jdk25-unicode.pkcs12":        "takes ASCII passwords alone",
	"keypass.pkcs12":              "it is asked for one key password for all",
	"keypass.jks":                 "it is asked for one key password for all",
	"keypass.jceks":               "it is asked for one key password for all",
}

func TestJavaAgreesAboutTheGoldenStoresButForTheKnownOnes(t *testing.T) {
	skipManyIterations(t, "g-all")
	interop.Need(t, "java")
	types := map[keystore.Format]string{keystore.FormatJKS: "JKS", keystore.FormatJCEKS: "JCEKS", keystore.FormatPKCS12: "PKCS12"}
	var commands, files []string
	for _, g := range goldenStores {
		for file := range strings.FieldsSeq(g.files) {
			if types[g.format] == "" {
				continue
			}
			o := g.options()
			keys := o.KeyPassword
			if keys == "" {
				keys = o.Password
			}
			files = append(files, file)
			commands = append(commands, strings.Join([]string{"dump", "stores/" + file, types[g.format], utf16Hex(o.Password), utf16Hex(keys)}, "\t"))
		}
	}
	theirs := make(map[string][]string)
	for _, line := range runStores(t, commands) {
		file := strings.TrimPrefix(line[0], "stores/")
		theirs[file] = append(theirs[file], strings.Join(line[1:], "\t"))
	}
	for _, file := range files {
		var ours []string
		for _, e := range opened(t, file, goldenOptions(file)).Entries {
			ours = append(ours, entryLine(t, e))
		}
		if reason := javaDisagrees[file]; reason != "" {
			t.Logf("%s: Java %s: %t", file, reason, !sameLines(theirs[file], ours))
			continue
		}
		assert.True(t, sameLines(theirs[file], ours), "%s: Java says\n%s\nand we\n%s", file, strings.Join(theirs[file], "\n"), strings.Join(ours, "\n"))
	}
}

func sameLines(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func runOpenSSL(tb testing.TB, stdin io.Reader, args ...string) ([]byte, error) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), interop.Need(tb, "openssl"), args...)
	cmd.Stdin = stdin
	return cmd.Output()
}

// opensslDisagrees are the golden PKCS#12 files that OpenSSL 3.0 reads in another
// way, and why.
var opensslDisagrees = map[string]string{
	"keypass.pkcs12": "stops at the first key with another password",
	"secrets.pkcs12": "shows no secret keys, which have no place in PEM",
	"empty.pkcs12":   "there is nothing to show",
}

func TestOpenSSLPrintsTheSameKeysAndCertificates(t *testing.T) {
	skipManyIterations(t, "g-all")
	interop.Need(t, "openssl")
	for _, g := range goldenStores {
		for file := range strings.FieldsSeq(g.files) {
			if g.format != keystore.FormatPKCS12 || opensslDisagrees[file] != "" {
				continue
			}
			out, err := runOpenSSL(t, nil, "pkcs12", "-in", filepath.Join("testdata", "stores", file), "-nodes", "-passin", "pass:"+g.options().Password,
				"-provider", "legacy", "-provider", "default")
			if !assert.NoError(t, err, file) {
				continue
			}
			theirs := make(map[string]bool)
			for rest := out; ; {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					break
				}
				theirs[block.Type+hexOf(block.Bytes)] = true
			}
			ours := make(map[string]bool)
			for _, e := range opened(t, file, g.options()).Entries {
				if key, err := e.PKCS8(); err == nil {
					ours["PRIVATE KEY"+hexOf(key)] = true
				}
				for _, der := range e.Chain {
					ours["CERTIFICATE"+hexOf(der)] = true
				}
			}
			assert.Equal(t, theirs, ours, file)
		}
	}
}

func TestOpenSSLOpensWhatWeWrite(t *testing.T) {
	s := opened(t, "kinds.jks", options)
	var encrypted, p12 bytes.Buffer
	require.NoError(t, s.WritePEM(&encrypted, keystore.PEMOptions{Aliases: []string{"ec256"}, KeyPassword: "pass phrase"}))
	out, err := runOpenSSL(t, &encrypted, "pkey", "-passin", "pass:pass phrase", "-outform", "DER")
	require.NoError(t, err)
	assert.NotEmpty(t, out)
	_, err = runOpenSSL(t, bytes.NewReader(encrypted.Bytes()), "pkey", "-passin", "pass:wrong")
	assert.Error(t, err, "the control")

	require.NoError(t, s.WritePKCS12(&p12, "rsa", "pass phrase"))
	out, err = runOpenSSL(t, &p12, "pkcs12", "-passin", "pass:pass phrase", "-nodes")
	require.NoError(t, err)
	block, _ := pem.Decode(out[bytes.Index(out, []byte("-----BEGIN PRIVATE KEY")):])
	require.NotNil(t, block)
	assert.Equal(t, pki(t, "rsa.key"), block.Bytes)
}

// The deployment guide converts with three programs, of which keytool starts a
// JVM. The ratio is for the log, not for a verdict: machines differ.
func TestConvertingIsFarFasterThanTheGuidesPipeline(t *testing.T) {
	keytool, openssl := interop.Need(t, "keytool"), interop.Need(t, "openssl")
	dir := t.TempDir()
	source, err := filepath.Abs(filepath.Join("testdata", "stores", "keyplusca.jks"))
	require.NoError(t, err)
	p12, key, cert := filepath.Join(dir, "mirth.p12"), filepath.Join(dir, "server.key"), filepath.Join(dir, "server.crt")
	start := time.Now()
	for _, args := range [][]string{
		{keytool, "-importkeystore", "-srckeystore", source, "-srcstorepass", storePassword, "-destkeystore", p12, "-deststoretype", "PKCS12", "-deststorepass", storePassword},
		{openssl, "pkcs12", "-in", p12, "-passin", "pass:" + storePassword, "-nocerts", "-nodes", "-out", key},
		{openssl, "pkcs12", "-in", p12, "-passin", "pass:" + storePassword, "-nokeys", "-out", cert},
	} {
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	pipeline := time.Since(start)

	ours := time.Duration(1 << 62)
	for i := range 5 {
		start = time.Now()
		s, err := keystore.OpenFile(source, options)
		require.NoError(t, err)
		_, err = s.WritePEMFiles(filepath.Join(dir, fmt.Sprint(i)), keystore.PEMOptions{})
		require.NoError(t, err)
		ours = min(ours, time.Since(start))
	}
	t.Logf("the guide's pipeline takes %.0f times as long (with files, synced to disk)", float64(pipeline)/float64(ours))

	theirs, err := os.ReadFile(key)
	require.NoError(t, err)
	block, _ := pem.Decode(theirs)
	mine, err := os.ReadFile(filepath.Join(dir, "0", "server.key"))
	require.NoError(t, err)
	own, _ := pem.Decode(mine)
	assert.Equal(t, block.Bytes, own.Bytes, "and makes the same key")
}
