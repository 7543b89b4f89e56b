package tlsprops

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
)

// needOpenSSL returns a function that runs openssl, with the legacy provider
// (which a build may lack), and returns its output.
func needOpenSSL(t *testing.T) (run func(t *testing.T, args ...string) []byte) {
	t.Helper()
	program := interop.Need(t, "openssl")
	if exec.CommandContext(t.Context(), program, "list", "-provider", "legacy", "-providers").Run() != nil {
		interop.Missing(t, "openssl has no legacy provider")
	}
	return func(t *testing.T, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, append(args, "-provider", "legacy", "-provider", "default")...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%s: %s", cmd, &stderr)
		return out
	}
}

func TestEveryFormThatOpenSSLWritesOpensToTheSameKey(t *testing.T) {
	openssl := needOpenSSL(t)
	kinds := []string{"ec.pem", "rsa.pem", "ed25519.pem"}
	if testing.Short() {
		kinds = kinds[:1]
	}
	forms := map[string][]string{
		"PBES2 default":          {"pkcs8", "-topk8"},
		"PBES2 many iterations":  {"pkcs8", "-topk8", "-v2", "aes-256-cbc", "-iter", "100000"},
		"PBES2 single iteration": {"pkcs8", "-topk8", "-v2", "aes-256-cbc", "-iter", "1"},
		"genpkey":                {"pkey", "-aes-192-cbc"},
	}
	for _, cipher := range []string{"aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des3"} {
		for _, prf := range []string{"SHA1", "SHA224", "SHA256", "SHA384", "SHA512", "SHA512-224", "SHA512-256"} {
			forms["PBES2 "+cipher+" "+prf] = []string{"pkcs8", "-topk8", "-v2", cipher, "-v2prf", "hmacWith" + prf}
		}
	}
	for _, scheme := range []string{
		"PBE-MD5-DES", "PBE-MD5-RC2-64", "PBE-SHA1-DES", "PBE-SHA1-RC2-64", "PBE-SHA1-RC4-128",
		"PBE-SHA1-RC4-40", "PBE-SHA1-3DES", "PBE-SHA1-2DES", "PBE-SHA1-RC2-128", "PBE-SHA1-RC2-40",
	} {
		forms[scheme] = []string{"pkcs8", "-topk8", "-v1", scheme}
		forms[scheme+" single iteration"] = []string{"pkcs8", "-topk8", "-v1", scheme, "-iter", "1"}
	}
	for cipher := range traditionalCiphers {
		forms["traditional "+cipher] = []string{"pkey", "-traditional", "-" + strings.ToLower(cipher)}
	}
	for name, args := range forms {
		t.Run(name, func(t *testing.T) {
			for _, file := range kinds {
				if file == "ed25519.pem" && slices.Contains(args, "-traditional") {
					continue // there is no traditional form of it
				}
				data := openssl(t, slices.Concat(args, []string{"-in", filepath.Join("testdata", "pem", file), "-passout", "pass:" + goldenPassphrase})...)
				key, encrypted, err := parseKey(data, goldenPassphrase, nil)
				require.NoError(t, err, "%s:\n%s", file, data)
				assert.True(t, encrypted)
				assertSameKey(t, plainKey(t, file), key)
				_, _, err = parseKey(data, goldenPassphrase+"x", nil)
				assert.ErrorIs(t, err, ErrIncorrectPassphrase)
			}
		})
	}
}

func TestPassphrasesOfOpenSSLOpenWhateverTheirCharacters(t *testing.T) {
	openssl := needOpenSSL(t)
	for _, passphrase := range []string{
		"pässwörd", "пароль", "密码", "😀😀", "p\xe4ss", "  spaces  ", strings.Repeat("long", 75), "a",
	} {
		for name, args := range map[string][]string{
			"PBES2":       {"pkcs8", "-topk8"},
			"PBES1":       {"pkcs8", "-topk8", "-v1", "PBE-MD5-DES"},
			"PKCS12":      {"pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES"},
			"traditional": {"pkey", "-traditional", "-aes-256-cbc"},
		} {
			data := openssl(t, append(args, "-in", filepath.Join("testdata", "pem", "ec.pem"), "-passout", "pass:"+passphrase)...)
			key, _, err := parseKey(data, passphrase, nil)
			if assert.NoError(t, err, "%s with %q", name, passphrase) {
				assertSameKey(t, plainKey(t, "ec.pem"), key)
			}
		}
	}
}

// Where OpenSSL does not find a certificate, we must not: a file that means one
// thing here and nothing there would be a guess. (The one exception is not in the
// table: OpenSSL stops at a blank line within a block, encoding/pem does not.)
func TestOpenSSLReadsTheSameCertificateFiles(t *testing.T) {
	program := interop.Need(t, "openssl")
	cert := string(golden(t, "cert.pem"))
	dir := t.TempDir()
	for name, text := range map[string]string{
		"plain":        cert,
		"CRLF":         strings.ReplaceAll(cert, "\n", "\r\n"),
		"no newline":   strings.TrimSuffix(cert, "\n"),
		"mark":         utf8BOM + cert,
		"text":         "hello\n" + cert,
		"X509":         strings.ReplaceAll(cert, " CERT", " X509 CERT"),
		"trusted":      string(golden(t, "trusted.pem")),
		"indented":     strings.ReplaceAll("\n"+cert, "\n", "\n  "),
		"END indented": strings.Replace(cert, "-----END", " -----END", 1),
		"one line":     strings.ReplaceAll(cert, "\n", " "),
		"cut":          cert[:300],
		"joined":       strings.TrimSuffix(cert, "\n") + cert,
	} {
		file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".pem")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		theirs := exec.CommandContext(t.Context(), program, "x509", "-in", file, "-noout").Run()
		_, ours := parseChain([]byte(text))
		assert.Equal(t, theirs == nil, ours == nil, "%s: openssl %v, here %v", name, theirs, ours)
	}
}
