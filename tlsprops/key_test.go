package tlsprops

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// golden reads a file of testdata/pem, whose README says how it was made.
func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "pem", name))
	require.NoError(tb, err)
	return data
}

const goldenPassphrase = "carewire"

// goldenDER is what the first block of a golden file holds.
func goldenDER(tb testing.TB, name string) []byte {
	tb.Helper()
	block, _ := pem.Decode(golden(tb, name))
	require.NotNil(tb, block)
	return block.Bytes
}

// plainKey parses the plain PKCS #8 key of a golden file without our own code.
func plainKey(tb testing.TB, name string) crypto.Signer {
	tb.Helper()
	key, err := x509.ParsePKCS8PrivateKey(goldenDER(tb, name))
	require.NoError(tb, err)
	return key.(crypto.Signer)
}

func assertSameKey(tb testing.TB, want, got crypto.Signer) {
	tb.Helper()
	equal := want.(interface{ Equal(crypto.PrivateKey) bool }).Equal
	assert.True(tb, equal(got), "another key than the plain file's")
}

func TestEveryFormOfAKeyOpensToTheSameKey(t *testing.T) {
	for _, tt := range []struct {
		file, plain, passphrase string
		encrypted               bool
	}{
		{"ec.pem", "ec.pem", "", false},
		{"rsa.pem", "rsa.pem", "", false},
		{"ed25519.pem", "ed25519.pem", "", false},
		{"rsa-pkcs1.pem", "rsa.pem", "", false},
		{"ec-parameters.pem", "ec.pem", "", false},
		{"bag-attributes.pem", "ec.pem", "", false},
		{"ec-pbes2-aes256-sha256.pem", "ec.pem", goldenPassphrase, true},
		{"ec-pbes2-3des-sha1.pem", "ec.pem", goldenPassphrase, true},
		{"rsa-pbes2-aes128-sha512.pem", "rsa.pem", goldenPassphrase, true},
		{"ed25519-pbes2-aes192-sha256.pem", "ed25519.pem", goldenPassphrase, true},
		{"ec-pbe-md5-des.pem", "ec.pem", goldenPassphrase, true},
		{"ec-pbe-sha1-3des.pem", "ec.pem", goldenPassphrase, true},
		{"ec-pbe-sha1-rc2-40.pem", "ec.pem", goldenPassphrase, true},
		{"ec-pbe-sha1-rc4-128.pem", "ec.pem", goldenPassphrase, true},
		{"ec-pbe-sha1-3des-emoji.pem", "ec.pem", "pässwörd 😀", true},
		{"ec-pbe-sha1-3des-empty.pem", "ec.pem", "", true},
		{"rsa-traditional-aes256.pem", "rsa.pem", goldenPassphrase, true},
		{"rsa-traditional-des3.pem", "rsa.pem", goldenPassphrase, true},
		{"ec-traditional-aes128.pem", "ec.pem", goldenPassphrase, true},
	} {
		t.Run(tt.file, func(t *testing.T) {
			data := golden(t, tt.file)
			key, encrypted, err := parseKey(data, tt.passphrase, nil)
			require.NoError(t, err)
			assert.Equal(t, tt.encrypted, encrypted)
			assertSameKey(t, plainKey(t, tt.plain), key)

			if !encrypted {
				_, _, err := parseKey(data, "needless", nil)
				assert.NoError(t, err, "a needless passphrase is for the caller to warn of")
				return
			}
			_, encrypted, err = parseKey(data, "not the passphrase", nil)
			assert.ErrorIs(t, err, ErrIncorrectPassphrase)
			assert.NotErrorIs(t, err, ErrPassphraseRequired)
			assert.True(t, encrypted)
			assertOneLineWithout(t, err, "not the passphrase", goldenPassphrase)
			if tt.passphrase != "" {
				_, encrypted, err = parseKey(data, "", nil)
				assert.ErrorIs(t, err, ErrPassphraseRequired)
				assert.NotErrorIs(t, err, ErrIncorrectPassphrase)
				assert.True(t, encrypted)
			}
		})
	}
}

// assertOneLineWithout checks what every error must keep to.
func assertOneLineWithout(tb testing.TB, err error, secrets ...string) {
	tb.Helper()
	require.Error(tb, err)
	assert.NotContains(tb, err.Error(), "\n")
	for _, secret := range secrets {
		assert.NotContains(tb, err.Error(), secret)
	}
}

func TestThePassphraseIsTakenByteForByte(t *testing.T) {
	for _, passphrase := range []string{
		goldenPassphrase + " ", " " + goldenPassphrase, goldenPassphrase + "\n", strings.ToUpper(goldenPassphrase),
	} {
		for _, file := range []string{"ec-pbes2-aes256-sha256.pem", "ec-pbe-sha1-3des.pem", "ec-traditional-aes128.pem"} {
			_, _, err := parseKey(golden(t, file), passphrase, nil)
			assert.ErrorIs(t, err, ErrIncorrectPassphrase, "%s with %q", file, passphrase)
		}
	}
}

// A wrong passphrase gives random bytes whose padding is right in about one of
// 256 cases, and for RC4 there is no padding: it must never give a key, nor
// another error.
func TestNoWrongPassphraseGetsPastThePadding(t *testing.T) {
	for _, file := range []string{"ec-traditional-aes128.pem", "rsa-traditional-des3.pem"} {
		data := golden(t, file)
		for i := range 2000 {
			_, _, err := parseKey(data, strings.Repeat("x", i+1), nil)
			require.ErrorIs(t, err, ErrIncorrectPassphrase)
		}
	}
}

func TestAKeyThatTLSCannotUseIsRefusedByName(t *testing.T) {
	for file, kind := range map[string]string{
		"kind-dsa.pem":             "DSA",
		"kind-dsa-traditional.pem": "DSA",
		"kind-ed448.pem":           "Ed448",
		"kind-x25519.pem":          "X25519",
		"kind-secp256k1.pem":       "secp256k1",
		"kind-secp256k1-sec1.pem":  "secp256k1",
		"kind-p224.pem":            "P-224",
		"kind-brainpool.pem":       "brainpoolP256r1",
		"kind-explicit.pem":        "explicit parameters",
		"kind-rsa-pss.pem":         "RSA-PSS",
		"kind-rsa-512.pem":         "RSA key of 512 bits",
	} {
		_, encrypted, err := parseKey(golden(t, file), "", nil)
		require.Error(t, err, file)
		assert.Contains(t, err.Error(), kind)
		assert.Contains(t, err.Error(), "crypto/tls")
		assert.Regexp(t, `^block \d \(line \d+\): `, err.Error())
		assert.False(t, encrypted)
		assertOneLineWithout(t, err)
	}
}

// The positive control of the refusals: crypto/tls does take the kinds that
// parseKey takes.
func TestAKeyThatIsAcceptedSignsAHandshake(t *testing.T) {
	key, _, err := parseKey(golden(t, "ec-pbes2-aes256-sha256.pem"), goldenPassphrase, nil)
	require.NoError(t, err)
	chain, err := parseChain(golden(t, "cert.pem"))
	require.NoError(t, err)
	cert := tls.Certificate{Certificate: [][]byte{chain[0].Raw}, PrivateKey: key}
	assert.NoError(t, (&tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
	}).SupportsCertificate(&cert))
}

func TestAKeyFileThatIsNotOneKeyIsRefused(t *testing.T) {
	ec, cert := string(golden(t, "ec.pem")), string(golden(t, "cert.pem"))
	damaged := pemOf("PRIVATE KEY", []byte("this is no key, but twenty-nine secret bytes"))
	for name, tt := range map[string]struct{ data, want string }{
		"two keys": {
			ec + string(golden(t, "rsa.pem")),
			"block 2 (line 6): a second private key: the first is block 1 (line 1)",
		},
		"the same key twice":      {ec + ec, "a second private key"},
		"plain and encrypted":     {ec + string(golden(t, "ec-pbes2-aes256-sha256.pem")), "a second private key"},
		"a certificate":           {cert, "are the paths of key and certificate swapped?"},
		"nothing":                 {"", "the file is an empty file"},
		"a public key":            {pemOf("PUBLIC KEY", []byte{0x30, 0}), "no private key"},
		"not DER":                 {damaged, "not a readable private key"},
		"no bytes":                {pemOf("PRIVATE KEY", nil), "not a readable private key"},
		"OpenSSH":                 {pemOf("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), "ssh-keygen -p -m PKCS8"},
		"TPM":                     {pemOf("TSS2 PRIVATE KEY", []byte{0x30, 0}), "TPM"},
		"a certificate as key":    {strings.ReplaceAll(cert, "CERTIFICATE", "PRIVATE KEY"), "not a readable private key"},
		"unknown OID":             {pemOf("PRIVATE KEY", pkcs8Of(t, asn1.ObjectIdentifier{1, 2, 3, 4}, nil)), "1.2.3.4"},
		"SEC 1 cut short":         {pemOf("EC PRIVATE KEY", []byte{0x30, 6, 2, 1, 1, 4, 1, 7}), "without the name of its curve"},
		"EC without curve":        {pemOf("EC PRIVATE KEY", sec1Without(t)), "without the name of its curve"},
		"cut within its base64":   {ec[:100] + "\n-----END PRIVATE KEY-----\n", "the base64 text"},
		"cut off":                 {ec[:100], "no END line: the file is cut off"},
		"a half-written encoding": {ec[:len(ec)-3], "line 5"},
	} {
		t.Run(name, func(t *testing.T) {
			key, _, err := parseKey([]byte(tt.data), "", nil)
			require.Error(t, err)
			assert.Nil(t, key)
			assert.Contains(t, err.Error(), tt.want)
			assertOneLineWithout(t, err, "secret")
		})
	}
}

func TestAKeyCutAnywhereIsRefused(t *testing.T) {
	for _, file := range []string{"ec.pem", "ec-pbes2-aes256-sha256.pem", "ec-traditional-aes128.pem"} {
		data := bytes.TrimRight(golden(t, file), "\n")
		for n := range data {
			key, _, err := parseKey(data[:n], goldenPassphrase, nil)
			require.Error(t, err, "%s: %d of %d bytes", file, n, len(data))
			require.Nil(t, key)
		}
		_, _, err := parseKey(data, goldenPassphrase, nil)
		assert.NoError(t, err, "without the last newline")
	}
}

// A flipped bit is an error, or leaves the very same key where it meets nothing
// that counts. (Nothing in an elliptic curve key tells a changed one from
// another: there the caller's comparison with the certificate does.)
func TestABitFlippedInAnEncryptedKeyNeverGivesAnotherRSAKey(t *testing.T) {
	want := plainKey(t, "rsa.pem")
	der := sealPBES2(t, goldenDER(t, "rsa.pem"), goldenPassphrase, pbkdf2Parameters{[]byte("saltsalt"), 1, 0, hmacSHA256})
	for i := 0; i < len(der)*8; i += 97 {
		der[i/8] ^= 1 << (i % 8)
		key, _, err := parseKey([]byte(pemOf("ENCRYPTED PRIVATE KEY", der)), goldenPassphrase, nil)
		if err == nil {
			assertSameKey(t, want, key)
		}
		der[i/8] ^= 1 << (i % 8)
	}
}

// Whatever one byte of damage does to a file, the error does not quote the key.
func TestNoErrorHoldsAnythingOfTheKey(t *testing.T) {
	const n = 8 // characters of base64 in a row are taken for a leak
	for _, file := range []string{"ec.pem", "ec-pbes2-aes256-sha256.pem", "ec-traditional-aes128.pem"} {
		data := golden(t, file)
		secrets := make(map[string]bool)
		for line := range strings.Lines(string(data)) {
			for i := 0; len(line) > 60 && i+n < len(line); i++ {
				secrets[line[i:i+n]] = true
			}
		}
		require.NotEmpty(t, secrets)
		var failed int
		for i := range data {
			for _, damage := range []string{"", "\n", "-", "A"} {
				changed := slices.Concat(data[:i], []byte(damage), data[i+1:])
				_, _, err := parseKey(changed, goldenPassphrase, nil)
				if err == nil {
					continue
				}
				failed++
				assertOneLineWithout(t, err, goldenPassphrase)
				text := err.Error()
				for i := 0; i+n <= len(text); i++ {
					require.False(t, secrets[text[i:i+n]], text)
				}
			}
		}
		assert.Greater(t, failed, len(data), "most damage is noticed")
	}
}

func TestAnUnknownAlgorithmGoesToTheDecoder(t *testing.T) {
	want := plainKey(t, "ec.pem")
	broken := errors.New("broken")
	for file, name := range map[string]string{
		"ec-scrypt.pem":            "scrypt (1.3.6.1.4.1.11591.4.11)",
		"ec-pbes2-camellia128.pem": "Camellia-128-CBC (1.2.392.200011.61.1.1.1.2)",
	} {
		data := golden(t, file)
		_, encrypted, err := parseKey(data, goldenPassphrase, nil)
		require.ErrorContains(t, err, name)
		assert.ErrorContains(t, err, "set a Decoder that opens it, or convert it with openssl pkcs8")
		assert.True(t, encrypted)
		assert.NotErrorIs(t, err, ErrIncorrectPassphrase)

		key, encrypted, err := parseKey(data, goldenPassphrase, func(der []byte) (crypto.Signer, error) {
			assert.Equal(t, goldenDER(t, file), der, "the decoder gets the whole structure")
			return want, nil
		})
		require.NoError(t, err)
		assert.True(t, encrypted)
		assertSameKey(t, want, key)

		_, _, err = parseKey(data, goldenPassphrase, func([]byte) (crypto.Signer, error) { return nil, broken })
		assert.ErrorIs(t, err, broken)
		_, _, err = parseKey(data, goldenPassphrase, func([]byte) (crypto.Signer, error) { return nil, nil })
		assert.ErrorContains(t, err, name, "neither a key nor an error")
		_, _, err = parseKey(data, "", func([]byte) (crypto.Signer, error) { return nil, ErrIncorrectPassphrase })
		assert.ErrorIs(t, err, ErrPassphraseRequired)

		p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
		require.NoError(t, err)
		_, _, err = parseKey(data, goldenPassphrase, func([]byte) (crypto.Signer, error) { return p224, nil })
		assert.ErrorContains(t, err, "P-224", "a decoder's key is held to the same rules")
		_, _, err = parseKey(data, goldenPassphrase, func([]byte) (crypto.Signer, error) { return oddSigner{p224}, nil })
		assert.ErrorContains(t, err, "a key of the kind string")
	}
}

func TestAKnownAlgorithmIsNotForTheDecoder(t *testing.T) {
	for _, file := range []string{"ec.pem", "ec-pbes2-aes256-sha256.pem", "ec-traditional-aes128.pem", "ec-traditional-camellia128.pem", "kind-dsa.pem"} {
		for _, passphrase := range []string{"", "wrong", goldenPassphrase} {
			_, _, _ = parseKey(golden(t, file), passphrase, func([]byte) (crypto.Signer, error) {
				t.Errorf("%s went to the decoder", file)
				return nil, errors.ErrUnsupported
			})
		}
	}
	_, encrypted, err := parseKey(golden(t, "ec-traditional-camellia128.pem"), goldenPassphrase, nil)
	assert.ErrorContains(t, err, `encrypted with "CAMELLIA-128-CBC", which is not known here: convert it with openssl pkcs8`)
	assert.True(t, encrypted)
}

func TestTheStructureOfAKeyCountsAndNotItsLabel(t *testing.T) {
	for _, file := range []string{"ec.pem", "rsa-pkcs1.pem", "ec-pbes2-aes256-sha256.pem"} {
		for _, label := range []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"} {
			_, encrypted, err := parseKey([]byte(pemOf(label, goldenDER(t, file))), goldenPassphrase, nil)
			assert.NoError(t, err, "%s as %s", file, label)
			assert.Equal(t, file == "ec-pbes2-aes256-sha256.pem", encrypted)
		}
	}
}

func TestRSAKeysOfTheSmallestSizeAreAccepted(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	for bits, ok := range map[int]bool{1023: false, 1024: true} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		_, _, err = parseKey([]byte(pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))), "", nil)
		assert.Equal(t, ok, err == nil, "%d bits: %v", bits, err)
	}
}

// oddSigner is a key of a kind that crypto/tls does not know.
type oddSigner struct{ crypto.Signer }

func (oddSigner) Public() crypto.PublicKey { return "no key at all" }

func pemOf(label string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

func mustMarshal(tb testing.TB, v any) []byte {
	tb.Helper()
	der, err := asn1.Marshal(v)
	require.NoError(tb, err)
	return der
}

// pkcs8Of is the PKCS #8 structure around any bytes.
func pkcs8Of(tb testing.TB, algorithm asn1.ObjectIdentifier, key []byte) []byte {
	tb.Helper()
	type identifier struct{ Algorithm asn1.ObjectIdentifier }
	return mustMarshal(tb, struct {
		Version   int
		Algorithm identifier
		Key       []byte
	}{0, identifier{algorithm}, key})
}

// sec1Without is a SEC 1 key that does not say on which curve it is.
func sec1Without(tb testing.TB) []byte {
	tb.Helper()
	return mustMarshal(tb, struct {
		Version int
		Key     []byte
	}{1, bytes.Repeat([]byte{7}, 32)})
}
