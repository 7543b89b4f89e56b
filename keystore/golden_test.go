package keystore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

// A goldenStore is a file of testdata/stores, made by another program, and what
// that program was given to put into it.
type goldenStore struct {
	files     string // names, between spaces
	format    keystore.Format
	password  string // storePassword if empty, unless none is set
	none      bool   // the password is empty
	key       string // the key's password, if it differs
	integrity keystore.Integrity
	want      []string // as describe has it, in any order
}

const (
	server = "server: key ec256 ec256 int root"
	ec256  = "ec256: key ec256 ec256 int root"
	ec384  = "ec384: key ec384 ec384 int root"
)

// javaKinds are the kinds of keys that Java makes. The key and the certificates
// are what was put in, byte for byte.
var javaKinds = []string{
	"rsa: key rsa rsa int root", "pss: key pss pss int root", ec256, ec384, "ec521: key ec521 ec521 int root",
	"ed25519: key ed25519 ed25519 int root", "dsa: key dsa dsa int root",
}

var goldenStores = []goldenStore{
	{files: "kinds.jks jdk25.jks aliases.jks trust.jks keyplusca.jks empty.jks", format: keystore.FormatJKS, integrity: keystore.IntegrityVerified},
	{files: "kinds.jceks jdk25.jceks aliases.jceks trust.jceks keyplusca.jceks empty.jceks", format: keystore.FormatJCEKS, integrity: keystore.IntegrityVerified},
	{files: "kinds.pkcs12 jdk25.pkcs12 aliases.pkcs12 trust.pkcs12 keyplusca.pkcs12 empty.pkcs12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified},

	{files: "keypass.jks", format: keystore.FormatJKS, key: keyPassword, integrity: keystore.IntegrityVerified, want: []string{ec256, ec384}},
	{files: "keypass.jceks", format: keystore.FormatJCEKS, key: keyPassword, integrity: keystore.IntegrityVerified, want: []string{ec256, ec384}},
	{files: "keypass.pkcs12", format: keystore.FormatPKCS12, key: keyPassword, integrity: keystore.IntegrityVerified, want: []string{ec256, ec384}},
	{files: "keypass-unicode.jks", format: keystore.FormatJKS, key: "schlüssel😀", integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{
		files: "mirth.jks", format: keystore.FormatJCEKS, password: "KqVh3TtYwR8a", key: "Zx81mPnLcD0e", integrity: keystore.IntegrityVerified,
		want: []string{"mirthconnect: key rsa rsa int root", "encryption: secret AES 101112131415161718191a1b1c1d1e1f"},
	},
	{
		files: "secrets.jceks", format: keystore.FormatJCEKS, integrity: keystore.IntegrityVerified,
		want: []string{
			"a-key: key ec256 ec256 int root", "z-ca: trusted root",
			"aes: secret AES 000102030405060708090a0b0c0d0e0f", "hmac: secret HmacSHA256 " + strings.Repeat("11", 32),
			"tripledes: secret DESede 0102040708080b0d0e0e10131515161901020407080b0d0e", "pbe: secret PBEWithMD5AndDES " + hexOf([]byte("a password")),
		},
	},
	{
		files: "secrets.pkcs12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified,
		want: []string{"aes: secret AES 000102030405060708090a0b0c0d0e0f", "hmac: secret HmacSHA256 " + strings.Repeat("11", 32)},
	},
	{files: "password-latin1.jks", format: keystore.FormatJKS, password: "pässwörd", key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-latin1.jceks", format: keystore.FormatJCEKS, password: "pässwörd", key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-cjk.jks", format: keystore.FormatJKS, password: "暗号", key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-cjk.jceks", format: keystore.FormatJCEKS, password: "暗号", key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-emoji.jks", format: keystore.FormatJKS, password: "p😀w", key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-emoji.jceks", format: keystore.FormatJCEKS, password: "p😀w", key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-spaces.jks", format: keystore.FormatJKS, password: "  spaces  ", key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-spaces.jceks", format: keystore.FormatJCEKS, password: "  spaces  ", key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-empty.jks", format: keystore.FormatJKS, none: true, key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "password-empty.jceks", format: keystore.FormatJCEKS, none: true, key: storePassword, integrity: keystore.IntegrityVerified, want: []string{ec256}},

	{files: "jdk25-unicode.pkcs12", format: keystore.FormatPKCS12, password: "pässwörd", integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "mac-sha224.pkcs12 mac-sha512.pkcs12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{ec256}},
	{files: "legacy.pkcs12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{ec256, "root: trusted root"}},
	{files: "bc.pkcs12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{ec256, "root: trusted root"}},
	// As the cacerts of JDK 18 and later: any password opens it.
	{files: "passwordless-trust.pkcs12", format: keystore.FormatPKCS12, password: "whatever", integrity: keystore.IntegrityNone, want: []string{"root: trusted root", "other: trusted other"}},

	{
		files: "o-default.p12 o-legacy.p12 o-iterations-1.p12 o-keybag.p12 " +
			"o-pbe-aes-128-cbc.p12 o-pbe-aes-192-cbc.p12 o-pbe-des-ede3-cbc.p12 o-pbe-pbe-md5-des.p12 o-pbe-pbe-sha1-2des.p12 " +
			"o-pbe-pbe-sha1-3des.p12 o-pbe-pbe-sha1-des.p12 o-pbe-pbe-sha1-rc2-128.p12 o-pbe-pbe-sha1-rc2-40.p12 " +
			"o-pbe-pbe-sha1-rc4-128.p12 o-pbe-pbe-sha1-rc4-40.p12 " +
			"o-mac-sha1.p12 o-mac-sha224.p12 o-mac-sha256.p12 o-mac-sha384.p12 o-mac-sha512.p12 o-mac-sha512-224.p12 " +
			"o-mac-sha512-256.p12 o-mac-sha3-256.p12 o-mac-sha3-512.p12",
		format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{server},
	},
	{files: "o-nomac.p12 o-nomac-keybag.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityNone, want: []string{server}},
	{files: "o-password-empty.p12", format: keystore.FormatPKCS12, none: true, integrity: keystore.IntegrityVerified, want: []string{server}},
	{files: "o-password-latin1.p12", format: keystore.FormatPKCS12, password: "pässwörd", integrity: keystore.IntegrityVerified, want: []string{server}},
	{files: "o-password-cjk.p12", format: keystore.FormatPKCS12, password: "暗号", integrity: keystore.IntegrityVerified, want: []string{server}},
	{files: "o-password-emoji.p12 o-password-emoji-legacy.p12", format: keystore.FormatPKCS12, password: "p😀w", integrity: keystore.IntegrityVerified, want: []string{server}},
	{files: "o-kind-rsa.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"rsa: key rsa rsa int"}},
	{files: "o-kind-pss.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"pss: key pss pss int"}},
	{files: "o-kind-ec256.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"ec256: key ec256 ec256 int"}},
	{files: "o-kind-ec384.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"ec384: key ec384 ec384 int"}},
	{files: "o-kind-ec521.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"ec521: key ec521 ec521 int"}},
	{files: "o-kind-brainpool.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"brainpool: key brainpool brainpool int"}},
	{files: "o-kind-secp256k1.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"secp256k1: key secp256k1 secp256k1 int"}},
	{files: "o-kind-ed25519.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"ed25519: key ed25519 ed25519 int"}},
	{files: "o-kind-ed448.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"ed448: key ed448 ed448 int"}},
	{files: "o-kind-dsa.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"dsa: key dsa dsa int"}},
	{files: "o-cafile.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"1: cert root", "2: cert other"}},
	{files: "o-keyonly.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"1: key ec256"}},
	// Cross-signed: both intermediates fit, and the first one is taken.
	{files: "o-shuffled.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"1: key ec256 ec256 int root", "2: cert int-cross"}},
	{files: "o-negative-serial.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"1: key ec256 negative"}},
	{files: "o-expired.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"1: key ec256 expired"}},
	{files: "o-sha1.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"1: key ec256 sha1 int"}},
	{files: "o-rsa1024.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"1: key rsa1024 rsa1024"}},

	{
		files:  "g-aes-128.p12 g-aes-256.p12 g-3des.p12 g-3des-pkcs12.p12 g-rc2-40.p12 g-arcfour.p12",
		format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{"server: key ec256 ec256 int"},
	},
	// The two ways of the empty password.
	{files: "g-null-password.p12 g-empty-password.p12", format: keystore.FormatPKCS12, none: true, integrity: keystore.IntegrityVerified, want: []string{"server: key ec256 ec256 int"}},

	{files: "n-default.p12 n-aes-128-cbc.p12 n-aes-256-cbc.p12 n-des-ede3-cbc.p12", format: keystore.FormatPKCS12, integrity: keystore.IntegrityVerified, want: []string{server}},
	{files: "n-unicode.p12", format: keystore.FormatPKCS12, password: "pässwörd", integrity: keystore.IntegrityVerified, want: []string{server}},

	{files: "scrypt.pem", format: keystore.FormatPEM, integrity: keystore.IntegrityNone, want: []string{"1: key ec256"}},
	{files: "encrypted.der", format: keystore.FormatDER, integrity: keystore.IntegrityNone, want: []string{"1: key ec256"}},
}

// sharedWants are what the stores of these names hold in each of Java's formats.
var sharedWants = map[string][]string{
	"kinds":     javaKinds,
	"jdk25":     {ec256, "root: trusted root"},
	"aliases":   {"grüße: trusted root", "鍵: trusted int", "🔑: trusted other", ": trusted ec256"},
	"trust":     {"root: trusted root", "other: trusted other"},
	"keyplusca": {"server: key rsa rsa int root", "aaa-ca: trusted root", "zzz-ca: trusted other"},
	"empty":     nil,
}

// refusedStores are the others, with what the error says.
var refusedStores = map[string]string{
	"bc.bks":                     "a Bouncy Castle key store (BKS), which is not read here: convert it with keytool -importkeystore -srckeystore FILE -srcstoretype BKS",
	"bc.uber":                    "(UBER), which is not read here: convert it with keytool",
	"bc.bcfks":                   "(BCFKS), which is not read here: convert it with keytool",
	"bundle.p7b":                 "a PKCS#7 bundle of certificates, which is not read here: convert it with openssl pkcs7",
	"jdk17-wrong-mac.pkcs12":     "the MAC of the file uses an HMAC in place of a hash",
	"o-mac-md5.p12":              "the MAC of the file uses MD5 (1.2.840.113549.2.5)",
	"o-mac-sm3.p12":              "the MAC of the file uses SM3 (1.2.156.10197.1.401)",
	"o-pbe-aria-128-cbc.p12":     "an encrypted safe uses ARIA-128-CBC (1.2.410.200046.1.1.2)",
	"o-pbe-camellia-128-cbc.p12": "an encrypted safe uses Camellia-128-CBC (1.2.392.200011.61.1.1.1.2)",
}

func (g *goldenStore) options() keystore.Options {
	o := keystore.Options{Password: g.password, KeyPassword: g.key}
	if g.password == "" && !g.none {
		o.Password = storePassword
	}
	return o
}

// goldenOptions are the passwords of the golden file name.
func goldenOptions(name string) keystore.Options {
	for _, g := range goldenStores {
		if slices.Contains(strings.Fields(g.files), name) {
			return g.options()
		}
	}
	return options
}

func TestEveryGoldenStoreHoldsJustWhatWasPutIntoIt(t *testing.T) {
	covered := make(map[string]bool)
	for _, g := range goldenStores {
		for file := range strings.FieldsSeq(g.files) {
			covered[file] = true
			t.Run(file, func(t *testing.T) {
				skipManyIterations(t, file)
				want := g.want
				if base, _, _ := strings.Cut(file, "."); want == nil {
					want = sharedWants[base]
				}
				s := opened(t, file, g.options())
				assert.Equal(t, g.format, s.Format)
				assert.Equal(t, g.integrity, s.Integrity)
				assert.ElementsMatch(t, want, describe(t, s))
			})
		}
	}
	for file, text := range refusedStores {
		covered[file] = true
		_, err := keystore.Open(golden(t, "stores/"+file), options)
		assert.ErrorContains(t, err, text, file)
		var format *keystore.UnsupportedFormatError
		var algorithm *keystore.UnsupportedAlgorithmError
		assert.True(t, errors.As(err, &format) || errors.As(err, &algorithm), "%s: %T", file, err)
	}
	files, err := os.ReadDir(filepath.Join("testdata", "stores"))
	require.NoError(t, err)
	for _, file := range files {
		assert.True(t, covered[file.Name()], "%s is in no table", file.Name())
	}
}
