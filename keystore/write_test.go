package keystore_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/carewire/carewire/keystore"
)

// The key and the certificates come out byte for byte, whether crypto/x509
// knows their kind or not.
func TestEveryKindOfKeyConvertsToPEMUnchanged(t *testing.T) {
	usable := map[string]string{
		"rsa": "", "ec256": "", "ec384": "", "ec521": "", "ed25519": "", "rsa1024": "",
		"pss":       `crypto/tls cannot use the key "pss" (RSASSA-PSS): crypto/x509 cannot read it`,
		"dsa":       `crypto/tls cannot use the key "dsa" (DSA): crypto/x509 cannot read it`,
		"brainpool": `crypto/tls cannot use the key "brainpool" (EC brainpoolP256r1): crypto/x509 cannot read it`,
		"secp256k1": `crypto/tls cannot use the key "secp256k1" (EC secp256k1): crypto/x509 cannot read it`,
		"ed448":     `crypto/tls cannot use the key "ed448" (Ed448): crypto/x509 cannot read it`,
		"x25519":    `crypto/tls cannot use the key "x25519" (X25519): it cannot sign`,
	}
	for kind, why := range usable {
		key, cert := pki(t, kind+".key"), pki(t, kind+".crt")
		for name, data := range map[string][]byte{
			"JKS":     javaStore{entries: [][]byte{keyEntry(kind, jksProtect(t, key, ""), cert)}}.bytes(),
			"PKCS#12": pfx(t, safe(t, keyBag(t, key, bagAttributes{alias: kind, localKeyID: "1"}), certBag(t, cert, bagAttributes{localKeyID: "1"}))),
		} {
			s, err := keystore.Open(data, noPassword)
			require.NoError(t, err)
			var out bytes.Buffer
			require.NoError(t, s.WritePEM(&out, keystore.PEMOptions{}))
			first, rest := pem.Decode(out.Bytes())
			second, _ := pem.Decode(rest)
			assert.Equal(t, &pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{}, Bytes: key}, first, "%s %s", kind, name)
			assert.Equal(t, &pem.Block{Type: "CERTIFICATE", Headers: map[string]string{}, Bytes: cert}, second, "%s %s", kind, name)
			err = s.Entries[0].UsableForTLS()
			if why == "" {
				assert.NoError(t, err, kind)
				pair, err := tls.X509KeyPair(out.Bytes(), out.Bytes())
				require.NoError(t, err)
				ours, err := s.TLSCertificate(kind)
				require.NoError(t, err)
				assert.Equal(t, pair.Certificate, ours.Certificate)
				assert.Equal(t, pair.PrivateKey, ours.PrivateKey)
				assert.NotNil(t, ours.Leaf)
			} else {
				assert.ErrorContains(t, err, why)
			}
		}
	}
}

func TestTheWordsForAnAlgorithm(t *testing.T) {
	for kind, want := range map[string]string{
		"rsa": "RSA 2048", "rsa1024": "RSA 1024", "pss": "RSASSA-PSS", "ec256": "EC P-256", "ec384": "EC P-384", "ec521": "EC P-521", "brainpool": "EC brainpoolP256r1",
		"secp256k1": "EC secp256k1", "ed25519": "Ed25519", "ed448": "Ed448", "x25519": "X25519", "dsa": "DSA",
	} {
		s, err := keystore.Open(pki(t, kind+".key"), noPassword)
		require.NoError(t, err)
		assert.Equal(t, want, s.Entries[0].Algorithm)
	}
}

// RFC 5958's second version has the public key within.
func TestAPKCS8KeyOfVersionTwoIsUsed(t *testing.T) {
	v1 := pki(t, "ed25519.key")
	v2 := sequence([]byte{2, 1, 1}, v1[5:], tlv(0x81, []byte{0}, pki(t, "ed25519.crt")[:32]))
	s := openPFX(t, pfx(t, safe(t, keyBag(t, v2, bagAttributes{alias: "k"}), certBag(t, pki(t, "ed25519.crt"), bagAttributes{}))))
	der, err := s.Entries[0].PKCS8()
	require.NoError(t, err)
	assert.Equal(t, v2, der)
	assert.NoError(t, s.Entries[0].UsableForTLS())
}

func TestAKeyBesideAnothersCertificateIsToldButConverts(t *testing.T) {
	s := openJava(t, javaStore{entries: [][]byte{keyEntry("k", jksProtect(t, pki(t, "ec256.key"), ""), pki(t, "rsa.crt"))}})
	_, err := s.TLSCertificate("k")
	assert.ErrorIs(t, err, keystore.ErrKeyMismatch)
	assert.Contains(t, s.Warnings(), `"k": the certificate does not belong to the private key`)
	assert.NoError(t, s.WritePEM(&bytes.Buffer{}, keystore.PEMOptions{}))
}

func TestDoubtfulCertificatesConvertWithAWarning(t *testing.T) {
	for file, want := range map[string]string{
		"o-expired.p12":         `"1": certificate 1 expired on `,
		"o-sha1.p12":            `"1": certificate 1 is signed with ECDSA-SHA1, which is weak`,
		"o-rsa1024.p12":         `"1": certificate 1 has an RSA key of 1024 bits, which is weak`,
		"o-negative-serial.p12": `"1": certificate 1: crypto/x509 does not read it: x509: negative serial number`,
		"o-kind-dsa.p12":        `"dsa": crypto/tls cannot use the key (DSA): crypto/x509 cannot read it`,
		"o-nomac.p12":           "the file has no MAC: nothing tells whether it was altered",
	} {
		s := opened(t, file, options)
		assert.Contains(t, strings.Join(s.Warnings(), "\n"), want, file)
		assert.NoError(t, s.WritePEM(&bytes.Buffer{}, keystore.PEMOptions{}), file)
	}
	assert.Empty(t, opened(t, "o-default.p12", options).Warnings())
}

func TestTheStreamHasNamesAsCommentsAndNoHeaders(t *testing.T) {
	s := opened(t, "keyplusca.jks", options)
	var out bytes.Buffer
	require.NoError(t, s.WritePEM(&out, keystore.PEMOptions{Aliases: []string{"SERVER", "aaa-ca", "server"}}))
	text := out.String()
	assert.Equal(t, 5, strings.Count(text, "Bag Attributes\n    friendlyName: "))
	assert.True(t, strings.HasSuffix(text, "-----END CERTIFICATE-----\n"))
	assert.NotContains(t, text, "\r")
	again, err := keystore.Open(out.Bytes(), noPassword)
	require.NoError(t, err)
	assert.Equal(t, []string{"server: key rsa rsa int root"}, describe(t, again), "the root is in the chain")

	err = s.WritePEM(&out, keystore.PEMOptions{Aliases: []string{"nobody"}})
	assert.ErrorIs(t, err, keystore.ErrNoSuchAlias)
	err = opened(t, "empty.jks", options).WritePEM(&out, keystore.PEMOptions{})
	assert.ErrorIs(t, err, keystore.ErrNoSuchAlias)
	err = opened(t, "secrets.jceks", options).WritePEM(&out, keystore.PEMOptions{Aliases: []string{"aes"}})
	assert.ErrorContains(t, err, `"aes" is a secret key, for which PEM has no form`)
}

func TestAnAliasCannotForgeABlock(t *testing.T) {
	evil := "x\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	for _, alias := range []string{evil, "-----BEGIN PRIVATE KEY-----", "\u2028", "\x1b]0;title\a", " "} {
		s := openJava(t, javaStore{entries: [][]byte{trustedEntry(alias, pki(t, "root.crt"))}})
		var out bytes.Buffer
		require.NoError(t, s.WritePEM(&out, keystore.PEMOptions{}))
		assert.Equal(t, 1, strings.Count(out.String(), "-----BEGIN "), "%q", alias)
		again, err := keystore.Open(out.Bytes(), noPassword)
		require.NoError(t, err)
		assert.Equal(t, [][]byte{pki(t, "root.crt")}, again.Roots())
		assert.NotContains(t, out.String(), "\x1b")
	}
}

func TestFilesHaveTheirModesAndAreNotOverwrittenUnasked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	s := opened(t, "keyplusca.jks", options)
	names, err := s.WritePEMFiles(dir, keystore.PEMOptions{})
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"server.key", "server.crt", "ca.crt"}, names)
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, list, 3, "nothing temporary is left")
	modes := map[string]fs.FileMode{"server.key": 0o600, "server.crt": 0o644, "ca.crt": 0o644}
	for name, mode := range modes {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		if runtime.GOOS != "windows" {
			assert.Equal(t, mode, info.Mode().Perm()|mode&0o044, name) // less the umask
			assert.Zero(t, info.Mode().Perm()&^mode, name)
		}
	}
	_, err = tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	require.NoError(t, err)
	cas, err := keystore.OpenFile(filepath.Join(dir, "ca.crt"), noPassword)
	require.NoError(t, err)
	assert.ElementsMatch(t, s.Roots(), cas.Roots())

	key := filepath.Join(dir, "server.key")
	require.NoError(t, os.WriteFile(key, []byte("precious"), 0o600))
	names, err = s.WritePEMFiles(dir, keystore.PEMOptions{})
	assert.ErrorIs(t, err, fs.ErrExist)
	assert.Empty(t, names)
	data, err := os.ReadFile(key)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(data))

	names, err = s.WritePEMFiles(dir, keystore.PEMOptions{Overwrite: true})
	require.NoError(t, err)
	assert.Len(t, names, 3)
	_, err = tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), key)
	assert.NoError(t, err)
}

func TestAliasesBecomeFileNamesThatStayInTheFolder(t *testing.T) {
	cert := pki(t, "ec256.crt")
	key := jksProtect(t, pki(t, "ec256.key"), "")
	var entries [][]byte
	aliases := []string{"../../etc/passwd", "..", ".", "", "-rf", "a/b", `a\b`, "a\xc0\x80b", "Same", "same", "ca", "grüße", strings.Repeat("x", 1000), "con:1", "new\nline"}
	for _, alias := range aliases {
		entries = append(entries, keyEntry(alias, key, cert))
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "out")
	names, err := openJava(t, javaStore{entries: entries}).WritePEMFiles(dir, keystore.PEMOptions{})
	require.NoError(t, err)
	assert.Len(t, names, 2*len(aliases))
	for _, want := range []string{"_.._.._etc_passwd.key", "_...key", "_..key", "_.key", "_-rf.key", "a_b.key", "a_b-2.key", "a_b-3.key", "Same.key", "same-2.key", "ca-2.key", "grüße.key", "con_1.key", "new_line.key"} {
		assert.Contains(t, names, want)
	}
	list, err := os.ReadDir(parent)
	require.NoError(t, err)
	assert.Len(t, list, 1)
}

func TestASymbolicLinkInTheFolderIsNotFollowedOut(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: making symbolic links needs a privilege on Windows")
	}
	outside, dir := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(outside, "stolen"), filepath.Join(dir, "server.key")))
	s := opened(t, "keyplusca.jks", options)
	_, err := s.WritePEMFiles(dir, keystore.PEMOptions{})
	require.Error(t, err)
	_, err = s.WritePEMFiles(dir, keystore.PEMOptions{Overwrite: true})
	require.NoError(t, err, "the link is replaced")
	list, err := os.ReadDir(outside)
	require.NoError(t, err)
	assert.Empty(t, list)
}

func TestWhatDidNotOpenIsAnErrorAndTheRestIsWritten(t *testing.T) {
	s := opened(t, "keypass.jks", options)
	dir := t.TempDir()
	names, err := s.WritePEMFiles(dir, keystore.PEMOptions{})
	assert.ErrorIs(t, err, keystore.ErrIncorrectPassword)
	assert.ElementsMatch(t, []string{"ec384.key", "ec384.crt"}, names)
	var out bytes.Buffer
	assert.ErrorIs(t, s.WritePEM(&out, keystore.PEMOptions{}), keystore.ErrIncorrectPassword)
	assert.Equal(t, 1, strings.Count(out.String(), "PRIVATE KEY-----\n")/2)
}

func TestKeysAreWrittenInOtherFormsIfAsked(t *testing.T) {
	s := opened(t, "kinds.jks", options)
	labels := func(o keystore.PEMOptions) (out []string) {
		var b bytes.Buffer
		require.NoError(t, s.WritePEM(&b, o))
		for rest := b.Bytes(); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return out
			}
			if block.Type != "CERTIFICATE" {
				out = append(out, block.Type)
			}
		}
	}
	assert.Equal(t, []string{"RSA PRIVATE KEY"}, labels(keystore.PEMOptions{Traditional: true, Aliases: []string{"rsa"}}))
	assert.Equal(t, []string{"EC PRIVATE KEY"}, labels(keystore.PEMOptions{Traditional: true, Aliases: []string{"ec256"}}))
	assert.Equal(t, []string{"PRIVATE KEY"}, labels(keystore.PEMOptions{Traditional: true, Aliases: []string{"dsa"}}))
	assert.Equal(t, []string{"ENCRYPTED PRIVATE KEY"}, labels(keystore.PEMOptions{KeyPassword: "x", Aliases: []string{"dsa"}}))
	err := s.WritePEM(&bytes.Buffer{}, keystore.PEMOptions{Traditional: true, KeyPassword: "x"})
	assert.ErrorContains(t, err, "exclude each other")

	var out bytes.Buffer
	require.NoError(t, s.WritePEM(&out, keystore.PEMOptions{KeyPassword: "pässwörd😀", Aliases: []string{"ec256"}}))
	again, err := keystore.Open(out.Bytes(), keystore.Options{Password: "pässwörd😀"})
	require.NoError(t, err)
	assert.Equal(t, []string{ec256}, describe(t, again))
}

func TestAKeyWrittenAsPKCS12IsReadByUsAndByGoPKCS12(t *testing.T) {
	s := opened(t, "kinds.jks", options)
	for _, alias := range []string{"rsa", "ec256", "ec384", "ec521", "ed25519"} {
		var out bytes.Buffer
		require.NoError(t, s.WritePKCS12(&out, alias, "new password"))
		again, err := keystore.Open(out.Bytes(), keystore.Options{Password: "new password"})
		require.NoError(t, err)
		assert.Equal(t, []string{"1: key " + alias + " " + alias + " int root"}, describe(t, again))
		key, leaf, cas, err := pkcs12.DecodeChain(out.Bytes(), "new password")
		require.NoError(t, err)
		ours, err := s.TLSCertificate(alias)
		require.NoError(t, err)
		assert.Equal(t, ours.PrivateKey, key)
		assert.Equal(t, ours.Leaf.Raw, leaf.Raw)
		assert.Len(t, cas, 2)
	}
	assert.Error(t, s.WritePKCS12(&bytes.Buffer{}, "dsa", "x"))
	assert.Error(t, s.WritePKCS12(&bytes.Buffer{}, "", "x"))
	assert.Error(t, s.WritePKCS12(&bytes.Buffer{}, "rsa", "😀"), "go-pkcs12 has no way to write it")

	var out bytes.Buffer
	require.NoError(t, opened(t, "trust.jks", options).WriteTrustStorePKCS12(&out, "x"))
	again, err := keystore.Open(out.Bytes(), keystore.Options{Password: "x"})
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"root: trusted root", "other: trusted other"}, describe(t, again))
	assert.ErrorIs(t, opened(t, "empty.jks", options).WriteTrustStorePKCS12(&out, "x"), keystore.ErrNoSuchAlias)
}

func TestOneStoreServesManyGoroutines(t *testing.T) {
	s := opened(t, "kinds.pkcs12", options)
	done := make(chan error)
	const many = 8
	for range many {
		go func() {
			cert, err := s.TLSCertificate("ec256")
			if err == nil {
				_ = cert.PrivateKey.(*ecdsa.PrivateKey)
				s.Warnings()
				s.Roots()
				err = s.WritePEM(&bytes.Buffer{}, keystore.PEMOptions{})
			}
			done <- err
		}()
	}
	for range many {
		assert.NoError(t, <-done)
	}
}
