package keystore_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

func TestTheContentTellsTheFormatWhateverTheName(t *testing.T) {
	dir := t.TempDir()
	for file, want := range map[string]keystore.Format{
		"trust.jks": keystore.FormatJKS, "mirth.jks": keystore.FormatJCEKS, "trust.pkcs12": keystore.FormatPKCS12, "bc.pkcs12": keystore.FormatPKCS12,
		"scrypt.pem": keystore.FormatPEM, "encrypted.der": keystore.FormatDER,
		"bc.bks": keystore.FormatBKS, "bc.uber": keystore.FormatUBER, "bc.bcfks": keystore.FormatBCFKS, "bundle.p7b": keystore.FormatPKCS7,
	} {
		data := golden(t, "stores/"+file)
		assert.Equal(t, want, keystore.Detect(data), file)
		for _, name := range []string{"keystore.jks", "keystore.p12", "keystore.pem", "keystore.kdb"} {
			path := filepath.Join(dir, name)
			require.NoError(t, os.WriteFile(path, data, 0o600))
			s, err := keystore.OpenFile(path, goldenOptions(file))
			if err != nil {
				var unsupported *keystore.UnsupportedFormatError
				require.ErrorAs(t, err, &unsupported, file)
				assert.Equal(t, want, unsupported.Format)
				assert.ErrorContains(t, err, path)
				continue
			}
			assert.Equal(t, want, s.Format)
		}
	}
	for name, want := range map[string]keystore.Format{
		"root.crt": keystore.FormatDER, "rsa.key": keystore.FormatDER, "negative.crt": keystore.FormatDER, "brainpool.crt": keystore.FormatDER,
	} {
		assert.Equal(t, want, keystore.Detect(pki(t, name)), name)
		assert.Equal(t, keystore.FormatPEM, keystore.Detect(golden(t, "pki/"+name)), name)
	}
}

func TestAFormatThatIsNotReadIsNamedWithTheWayOut(t *testing.T) {
	for text, want := range map[string]string{
		"PuTTY-User-Key-File-3: ssh-rsa\n":                   "a PuTTY private key, which is not read here: convert it with puttygen",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n":      "an OpenSSH private key, which is not read here: convert it with ssh-keygen",
		"-----BEGIN PGP PRIVATE KEY BLOCK-----\n":            "a PGP key",
		"SQLite format 3\x00":                                "an NSS certificate database, which is not read here: convert it with pk12util",
		"-----BEGIN PKCS7-----\nMAAA\n-----END PKCS7-----\n": "a PKCS#7 bundle of certificates, which is not read here: convert it with openssl pkcs7 -print_certs",
	} {
		_, err := keystore.Open([]byte(text), options)
		var unsupported *keystore.UnsupportedFormatError
		require.ErrorAs(t, err, &unsupported, text)
		assert.ErrorContains(t, err, want)
	}
	kdb := filepath.Join(t.TempDir(), "key.KDB")
	require.NoError(t, os.WriteFile(kdb, []byte{2, 0x3f, 0, 0, 9, 9, 9, 9}, 0o600))
	_, err := keystore.OpenFile(kdb, options)
	assert.ErrorContains(t, err, "an IBM GSKit key database (KDB), which is not read here: convert it with gskcapicmd")
	_, err = keystore.OpenFile(filepath.Join(t.TempDir(), "absent"), options)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestBase64OfAKeyStoreIsRecognized(t *testing.T) {
	for file, want := range map[string]string{"trust.jks": "base64 of a JKS key store", "trust.pkcs12": "base64 of a PKCS#12 key store", "mirth.jks": "base64 of a JCEKS key store"} {
		text := base64.StdEncoding.EncodeToString(golden(t, "stores/"+file))
		for _, data := range []string{text, text + "\n", text[:76] + "\n" + text[76:]} {
			_, err := keystore.Open([]byte(data), options)
			require.ErrorIs(t, err, keystore.ErrFormat)
			assert.ErrorContains(t, err, want)
			assert.ErrorContains(t, err, "decode it with base64 -d FILE")
		}
	}
	_, err := keystore.Open([]byte("\xff\xfe-\x00-\x00"), options)
	assert.ErrorContains(t, err, "UTF-16 text: save it as UTF-8")
}

func TestAFormatThatIsGivenIsHeldTo(t *testing.T) {
	for _, c := range []struct {
		file string
		as   keystore.Format
	}{{"trust.pkcs12", keystore.FormatJKS}, {"trust.jks", keystore.FormatPKCS12}, {"mirth.jks", keystore.FormatJKS}, {"trust.jks", keystore.FormatJCEKS}, {"trust.jks", keystore.FormatPEM}} {
		_, err := keystore.Open(golden(t, "stores/"+c.file), keystore.Options{Password: storePassword, Format: c.as})
		assert.ErrorIs(t, err, keystore.ErrFormat, "%s as %v", c.file, c.as)
	}
	_, err := keystore.Open(golden(t, "stores/trust.jks"), keystore.Options{Format: keystore.FormatBKS})
	var unsupported *keystore.UnsupportedFormatError
	assert.ErrorAs(t, err, &unsupported)
}

func TestPEMFilesOfAnyOrderAreRead(t *testing.T) {
	key, leaf, inter, root := golden(t, "pki/ec256.key"), golden(t, "pki/ec256.crt"), golden(t, "pki/int.crt"), golden(t, "pki/root.crt")
	for name, c := range map[string]struct {
		data []byte
		want []string
	}{
		"key and chain":  {join(key, leaf, inter, root), []string{"1: key ec256 ec256 int root"}},
		"shuffled":       {join(root, inter, key, leaf), []string{"1: key ec256 ec256 int root"}},
		"certificates":   {join(root, golden(t, "pki/other.crt")), []string{"1: cert root", "2: cert other"}},
		"names":          {join([]byte("Bag Attributes\n    friendlyName: server\n    localKeyID: 01\n"), key, []byte("friendlyName: ca\n"), root), []string{"server: key ec256", "ca: cert root"}},
		"mark and CRLF":  {[]byte("\xef\xbb\xbf" + string(bytesReplaceAll(join(key, leaf), "\n", "\r\n"))), []string{"1: key ec256 ec256"}},
		"other blocks":   {join([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), key), []string{"1: key ec256"}},
		"two keys":       {join(key, golden(t, "pki/rsa.key"), golden(t, "pki/rsa.crt"), leaf), []string{"1: key ec256 ec256", "2: key rsa rsa"}},
		"encrypted key":  {join(golden(t, "stores/scrypt.pem"), leaf), []string{"1: key ec256 ec256"}},
		"trusted labels": {bytesReplaceAll(root, " CERT", " X509 CERT"), []string{"1: cert root"}},
	} {
		s, err := keystore.Open(c.data, options)
		require.NoError(t, err, name)
		assert.Equal(t, c.want, describe(t, s), name)
		assert.Equal(t, keystore.IntegrityNone, s.Integrity)
	}
	for name, data := range map[string][]byte{
		"cut":            join(key, leaf[:len(leaf)-60]),
		"cut in between": join(leaf[:200], []byte("\n"), key),
		"nothing of use": []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"),
		"damaged key":    bytesReplaceAll(golden(t, "pki/ec256.key"), "MIG", "AIG"),
		"no certificate": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
	} {
		_, err := keystore.Open(data, options)
		assert.ErrorIs(t, err, keystore.ErrFormat, name)
	}
}

// The keys of the other packages' tests: openssl made them in every form.
func TestPEMKeysOfEveryFormAreTheSameKey(t *testing.T) {
	dir := filepath.Join("..", "tlsprops", "testdata", "pem")
	for _, kind := range []string{"rsa", "ec", "ed25519"} {
		plain, err := keystore.OpenFile(filepath.Join(dir, kind+".pem"), keystore.Options{})
		require.NoError(t, err)
		parsed := func(s *keystore.Store) any {
			der, err := s.Entries[0].PKCS8()
			require.NoError(t, err)
			key, err := x509.ParsePKCS8PrivateKey(der)
			require.NoError(t, err)
			return key
		}
		files, err := filepath.Glob(filepath.Join(dir, kind+"-*.pem"))
		require.NoError(t, err)
		for _, file := range files {
			o := keystore.Options{Password: "carewire"}
			switch filepath.Base(file) {
			case "ec-parameters.pem", "ec-pbes2-camellia128.pem", "ec-traditional-camellia128.pem":
				continue
			case "ec-pbe-sha1-3des-emoji.pem":
				o.Password = "pässwörd 😀"
			case "ec-pbe-sha1-3des-empty.pem":
				o.Password = ""
			}
			s, err := keystore.OpenFile(file, o)
			require.NoError(t, err, file)
			assert.Equal(t, parsed(plain), parsed(s), file)
		}
	}
}

func bytesReplaceAll(b []byte, from, to string) []byte {
	return bytes.ReplaceAll(b, []byte(from), []byte(to))
}
