package tlsprops_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// write writes a file that is the owner's alone.
func write(t testing.TB, path string, data ...[]byte) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, bytes.Join(data, nil), 0o600))
	return path
}

// traditional returns an encrypted key as openssl ec -aes256 writes it.
func traditional(t testing.TB, pair *testpki.Pair, passphrase string) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pair.Key)
	require.NoError(t, err)
	//lint:ignore SA1019 it is deprecated because it is weak, as are the files that it stands for
	block, err := x509.EncryptPEMBlock(new(zeroReader), "PRIVATE KEY", der, []byte(passphrase), x509.PEMCipherAES256) //nolint:staticcheck // as above
	require.NoError(t, err)
	return pem.EncodeToMemory(block)
}

type zeroReader struct{}

func (*zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestFilesThatCannotBeUsedAreErrorsThatNameThem(t *testing.T) {
	p := newPKI(t)
	other := newPKI(t)
	at := func(name string) string { return filepath.Join(p.dir, name) }
	leaf, key := p.server.CertPEM(), p.server.KeyPEM()
	inter := p.ca.Intermediate("Issuing CA").Server()
	two := inter.CertPEM()
	for name, test := range map[string]struct {
		change func(props *tlsprops.TlsProperties)
		field  string
		text   string
		is     error
	}{
		"missing key": {func(props *tlsprops.TlsProperties) { props.KeyStorePath = at("none") }, "keyStorePath", "there is no such file", fs.ErrNotExist},
		"missing certificate": {
			func(props *tlsprops.TlsProperties) { props.CertStorePath = at("none") }, "certStorePath", "there is no such file", fs.ErrNotExist,
		},
		"missing CA":  {func(props *tlsprops.TlsProperties) { props.TrustStorePath = at("none") }, "trustStorePath", "there is no such file", fs.ErrNotExist},
		"a directory": {func(props *tlsprops.TlsProperties) { props.TrustStorePath = p.dir }, "trustStorePath", "is a directory", nil},
		"a device":    {func(props *tlsprops.TlsProperties) { props.TrustStorePath = os.DevNull }, "trustStorePath", "not a regular file", nil},
		"key of another certificate": {
			func(props *tlsprops.TlsProperties) { props.KeyStorePath = other.serverFiles.Key }, "keyStorePath", p.serverFiles.Cert, tlsprops.ErrKeyMismatch,
		},
		"key without certificate": {func(props *tlsprops.TlsProperties) { props.CertStorePath = "" }, "certStorePath", "holds no certificate", nil},
		"key and certificate swapped": {func(props *tlsprops.TlsProperties) {
			props.KeyStorePath, props.CertStorePath = p.serverFiles.Cert, p.serverFiles.Key
		}, "keyStorePath", "swapped", nil},
		"combined file and another certificate": {func(props *tlsprops.TlsProperties) {
			props.KeyStorePath = write(t, at("combined"), p.ca.Issue(testpki.Options{Key: p.server.Key}).CertPEM(), key)
		}, "certStorePath", "another certificate", nil},
		"chain cut in its second certificate": {func(props *tlsprops.TlsProperties) {
			props.KeyStorePath = write(t, at("inter.key"), inter.KeyPEM())
			props.CertStorePath = write(t, at("cut"), two[:len(two)-100])
		}, "certStorePath", "block 2", nil},
		"CA bundle with one damaged certificate": {func(props *tlsprops.TlsProperties) {
			bad := bytes.Replace(other.ca.PEM(), []byte("MII"), []byte("AAA"), 1)
			props.TrustStorePath = write(t, at("bundle"), p.ca.PEM(), bad, p.ca.PEM())
		}, "trustStorePath", "block 2 (line", nil},
		"empty CA bundle":          {func(props *tlsprops.TlsProperties) { props.TrustStorePath = write(t, at("empty")) }, "trustStorePath", "", nil},
		"CA bundle of a key alone": {func(props *tlsprops.TlsProperties) { props.TrustStorePath = p.serverFiles.Key }, "trustStorePath", "no certificate", nil},
		"DER certificate": {func(props *tlsprops.TlsProperties) {
			props.CertStorePath = write(t, at("der"), p.server.Cert.Raw)
		}, "certStorePath", "convert it to PEM", nil},
		"encrypted key without passphrase": {func(props *tlsprops.TlsProperties) {
			props.KeyStorePath = write(t, at("secret"), traditional(t, p.server, "open"))
		}, "keyStorePath", "set passphrase", tlsprops.ErrPassphraseRequired},
		"encrypted key with another passphrase": {func(props *tlsprops.TlsProperties) {
			props.KeyStorePath, props.Passphrase = write(t, at("secret"), traditional(t, p.server, "open")), "sesame"
		}, "keyStorePath", "", tlsprops.ErrIncorrectPassphrase},
		"empty passphrase file": {func(props *tlsprops.TlsProperties) {
			props.PassphraseFile = write(t, at("pass"), []byte("\n"))
		}, "passphraseFile", "holds no passphrase", nil},
		"huge file": {func(props *tlsprops.TlsProperties) {
			props.TrustStorePath = write(t, at("huge"))
			require.NoError(t, os.Truncate(at("huge"), 1<<40))
		}, "trustStorePath", "more than", nil},
		"expired certificate": {func(props *tlsprops.TlsProperties) {
			old := p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-time.Hour)}).Write(p.dir, "old")
			props.KeyStorePath, props.CertStorePath = old.Key, old.Cert
		}, "certStorePath", "expired at", nil},
		"certificate of the future": {func(props *tlsprops.TlsProperties) {
			early := p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotBefore: time.Now().Add(time.Hour)}).Write(p.dir, "early")
			props.KeyStorePath, props.CertStorePath = early.Key, early.Cert
		}, "certStorePath", "not valid before", nil},
	} {
		t.Run(name, func(t *testing.T) {
			props := p.mutual()
			test.change(&props)
			_, err := tlsprops.Load(props)
			assert.Equal(t, test.field, fieldOf(t, err))
			assert.ErrorContains(t, err, test.text)
			if test.is != nil {
				assert.ErrorIs(t, err, test.is)
			}
			assert.NotContains(t, err.Error(), "PRIVATE KEY-----")
			assert.NotContains(t, err.Error(), "sesame")
		})
	}
	assert.NotEmpty(t, leaf)
}

func TestFilesInUnusualShapesLoad(t *testing.T) {
	p := newPKI(t)
	ward := p.ca.Intermediate("Region CA").Intermediate("Ward CA").Server()
	blocks := bytes.SplitAfter(ward.CertPEM(), []byte("-----END CERTIFICATE-----\n"))
	require.Len(t, blocks[:3], 3)
	for name, files := range map[string][]byte{
		"leaf last, upside down":   bytes.Join([][]byte{blocks[2], blocks[1], blocks[0]}, nil),
		"leaf in the middle":       bytes.Join([][]byte{blocks[1], blocks[0], blocks[2]}, nil),
		"CRLF":                     bytes.ReplaceAll(ward.CertPEM(), []byte("\n"), []byte("\r\n")),
		"byte order mark":          append([]byte("\xef\xbb\xbf"), ward.CertPEM()...),
		"no last newline":          bytes.TrimSuffix(ward.CertPEM(), []byte("\n")),
		"comments between":         bytes.ReplaceAll(ward.CertPEM(), []byte("-----BEGIN"), []byte("subject=CN = x\n-----BEGIN")),
		"another CA's certificate": append(ward.CertPEM(), newPKI(t).ca.PEM()...),
		"with the root":            append(ward.CertPEM(), p.ca.PEM()...),
	} {
		t.Run(name, func(t *testing.T) {
			props := tlsprops.TlsProperties{
				KeyStorePath:  write(t, filepath.Join(p.dir, "ward.key"), ward.KeyPEM()),
				CertStorePath: write(t, filepath.Join(p.dir, "ward.crt"), files),
			}
			_, clientSide := handshake(serverConfig(t, props), clientConfig(t, p.trusting(), "localhost"))
			require.NoError(t, clientSide.err)
			var sent [][]byte
			for _, c := range clientSide.state.PeerCertificates[:3] {
				sent = append(sent, c.Raw)
			}
			assert.Equal(t, ward.Chain, sent)
		})
	}
}

func TestACertificateOutsideTheChainIsAWarningAndIsNotSent(t *testing.T) {
	p := newPKI(t)
	stray := newPKI(t).ca
	write(t, p.serverFiles.Cert, p.server.CertPEM(), stray.PEM())
	source := load(t, p.listener())
	assert.Contains(t, fmt.Sprint(source.Status().Warnings), stray.Cert.Subject.String())
	config, err := source.ServerConfig()
	require.NoError(t, err)
	assert.Len(t, config.Certificates[0].Certificate, 1)
}

func TestOneFileMayHoldKeyAndCertificates(t *testing.T) {
	p := newPKI(t)
	combined := write(t, filepath.Join(p.dir, "combined.pem"), p.server.CertPEM(), p.server.KeyPEM())
	for _, props := range []tlsprops.TlsProperties{
		{KeyStorePath: combined},
		{KeyStorePath: combined, CertStorePath: combined},
		{KeyStorePath: combined, CertStorePath: p.serverFiles.Cert},
	} {
		_, clientSide := handshake(serverConfig(t, props), clientConfig(t, p.trusting(), "localhost"))
		assert.NoError(t, clientSide.err)
	}
}

func TestPassphrasesComeFromTheSettingsOrAFile(t *testing.T) {
	p := newPKI(t)
	write(t, p.serverFiles.Key, traditional(t, p.server, " pass phrase "))
	file := filepath.Join(p.dir, "pass")
	props := p.listener()
	props.Passphrase = " pass phrase "
	load(t, props)
	props.Passphrase, props.PassphraseFile = "", file
	for _, text := range []string{" pass phrase ", " pass phrase \n", " pass phrase \r\n"} {
		write(t, file, []byte(text))
		load(t, props)
	}
	write(t, file, []byte(" pass phrase \n\n"))
	_, err := tlsprops.Load(props)
	assert.ErrorIs(t, err, tlsprops.ErrIncorrectPassphrase)
}

func TestAPassphraseForAPlainKeyIsAWarning(t *testing.T) {
	props := newPKI(t).listener()
	props.Passphrase = "sesame"
	assert.Contains(t, fmt.Sprint(load(t, props).Status().Warnings), "is not encrypted")
}

func TestAKeyThatOthersCanReadIsAWarningOrAnError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: no such permissions on Windows")
	}
	p := newPKI(t)
	mount := testpki.NewMount(t, t.TempDir(), map[string][]byte{"tls.key": p.server.KeyPEM(), "tls.crt": p.server.CertPEM()})
	link := filepath.Join(p.dir, "link.key")
	require.NoError(t, os.Symlink(p.serverFiles.Key, link))
	require.NoError(t, os.Chmod(p.serverFiles.Key, 0o640))
	for name, props := range map[string]tlsprops.TlsProperties{
		"a file":             p.listener(),
		"behind a link":      {KeyStorePath: link, CertStorePath: p.serverFiles.Cert},
		"a Kubernetes mount": {KeyStorePath: mount.Path("tls.key"), CertStorePath: mount.Path("tls.crt")},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Contains(t, fmt.Sprint(load(t, props).Status().Warnings), "chmod 0600")
			props.Enabled, props.StrictPermissions = true, true
			_, err := tlsprops.Load(props)
			assert.Equal(t, "keyStorePath", fieldOf(t, err))
		})
	}
	require.NoError(t, os.Chmod(p.serverFiles.Key, 0o600))
	assert.Empty(t, load(t, p.listener()).Status().Warnings)
}

func TestTheWarningAboutPermissionsEndsWithTheCause(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: no such permissions on Windows")
	}
	p := newPKI(t)
	require.NoError(t, os.Chmod(p.serverFiles.Key, 0o644))
	source := load(t, p.listener())
	require.NotEmpty(t, source.Status().Warnings)
	require.NoError(t, os.Chmod(p.serverFiles.Key, 0o600))
	require.NoError(t, source.Reload())
	assert.Empty(t, source.Status().Warnings)
	assert.Equal(t, uint64(1), source.Status().Generation)
}

func TestStrangeCAsAreWarningsThatNameThem(t *testing.T) {
	p := newPKI(t)
	old := testpki.NewCAWith(t, testpki.Options{CommonName: "Old CA", NotAfter: time.Now().Add(-time.Hour)})
	props := p.trusting()
	props.TrustStorePath = write(t, filepath.Join(p.dir, "bundle"), p.ca.PEM(), old.PEM(), p.server.CertPEM())
	warnings := fmt.Sprint(load(t, props).Status().Warnings)
	assert.Contains(t, warnings, `"CN=Old CA" is out of date`)
	assert.Contains(t, warnings, `"CN=localhost" is not a CA`)
}

func TestCertificatesWithHeadersOrOtherLabelsCount(t *testing.T) {
	p := newPKI(t)
	block := &pem.Block{Type: "X509 CERTIFICATE", Bytes: p.ca.Cert.Raw}
	withHeader := &pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Cert.Raw, Headers: map[string]string{"Alias": "x"}}
	for _, b := range []*pem.Block{block, withHeader} {
		write(t, p.caFile, pem.EncodeToMemory(b))
		_, clientSide := handshake(serverConfig(t, p.listener()), clientConfig(t, p.trusting(), "localhost"))
		assert.NoError(t, clientSide.err)
	}
}

func TestADecoderOpensKeyStoresInTheSameFields(t *testing.T) {
	p := newPKI(t)
	store := write(t, filepath.Join(p.dir, "store.jks"), []byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2})
	var asked []tlsprops.DecoderInput
	props := tlsprops.TlsProperties{
		KeyStorePath: store, TrustStorePath: store, RequireClientCert: true,
		Passphrase: "store", KeyPassphrase: "key", KeyAlias: "mirthconnect",
		Decoder: func(in tlsprops.DecoderInput) (*tlsprops.Material, error) {
			asked = append(asked, in)
			return &tlsprops.Material{Key: p.server.Key, Chain: p.server.Chain, Roots: [][]byte{p.ca.Cert.Raw}}, nil
		},
	}
	serverSide, _ := handshake(serverConfig(t, props), clientConfig(t, p.known(), "localhost"))
	require.NoError(t, serverSide.err)
	require.Len(t, asked, 2)
	assert.Equal(t, "keyStorePath", asked[0].Field)
	assert.Equal(t, "trustStorePath", asked[1].Field)
	assert.Equal(t, []string{store, "store", "key", "mirthconnect"}, []string{asked[0].Path, asked[0].Passphrase, asked[0].KeyPassphrase, asked[0].Alias})

	for name, answer := range map[string]func() (*tlsprops.Material, error){
		"fails":         func() (*tlsprops.Material, error) { return nil, errors.New("wrong password") },
		"finds nothing": func() (*tlsprops.Material, error) { return nil, nil },
		"finds no key":  func() (*tlsprops.Material, error) { return &tlsprops.Material{Chain: p.server.Chain}, nil },
		"finds another certificate": func() (*tlsprops.Material, error) {
			return &tlsprops.Material{Key: p.server.Key, Chain: p.client.Chain}, nil
		},
		"finds a broken certificate": func() (*tlsprops.Material, error) {
			return &tlsprops.Material{Key: p.server.Key, Chain: [][]byte{{1}}}, nil
		},
		"finds a key TLS cannot use": func() (*tlsprops.Material, error) {
			return &tlsprops.Material{Key: oddKey{}, Chain: p.server.Chain}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad := props
			bad.Enabled = true
			bad.Decoder = func(tlsprops.DecoderInput) (*tlsprops.Material, error) { return answer() }
			_, err := tlsprops.Load(bad)
			assert.Equal(t, "keyStorePath", fieldOf(t, err))
		})
	}
	t.Run("is not there", func(t *testing.T) {
		bad := tlsprops.TlsProperties{Enabled: true, KeyStorePath: store}
		_, err := tlsprops.Load(bad)
		assert.ErrorContains(t, err, "JKS")
	})
	t.Run("is not for PEM", func(t *testing.T) {
		bad := props
		bad.Enabled, bad.KeyStorePath, bad.CertStorePath = true, p.serverFiles.Key, p.serverFiles.Cert
		_, err := tlsprops.Load(bad)
		assert.ErrorContains(t, err, "keyPassphrase does not apply")
	})
}

// oddKey is a key of a kind that TLS has no use for.
type oddKey struct{ crypto.Signer }

func (oddKey) Public() crypto.PublicKey { return struct{}{} }

func TestPropertiesAreCopied(t *testing.T) {
	p := newPKI(t)
	props := p.trusting()
	props.Enabled, props.Pins, props.RejectUnauthorized = true, []string{p.server.Pin()}, new(true)
	source, err := tlsprops.Load(props)
	require.NoError(t, err)
	props.Pins[0], *props.RejectUnauthorized, props.TrustStorePath = somePin, false, "nowhere"
	require.NoError(t, source.Reload())
	config, err := source.ClientConfig("localhost")
	require.NoError(t, err)
	_, clientSide := handshake(bare(p.server), config)
	assert.NoError(t, clientSide.err)
	assert.False(t, source.Status().Insecure)
}

func TestStatusListsEveryCertificate(t *testing.T) {
	p := newPKI(t)
	ward := p.ca.Intermediate("Ward CA").Server()
	files := ward.Write(p.dir, "ward")
	props := p.mutual()
	props.KeyStorePath, props.CertStorePath = files.Key, files.Cert
	st := load(t, props).Status()
	require.Len(t, st.Certificates, 3)
	assert.Equal(t, []tlsprops.Use{tlsprops.UseLeaf, tlsprops.UseChain, tlsprops.UseCA},
		[]tlsprops.Use{st.Certificates[0].Use, st.Certificates[1].Use, st.Certificates[2].Use})
	assert.Equal(t, tlsprops.Certificate{
		Use: tlsprops.UseLeaf, Field: "certStorePath", Path: files.Cert, Subject: "CN=localhost", Issuer: "CN=Ward CA",
		NotBefore: ward.Cert.NotBefore, NotAfter: ward.Cert.NotAfter,
	}, st.Certificates[0])
	assert.NoError(t, st.Err)
	assert.Equal(t, uint64(1), st.Generation)
	assert.WithinDuration(t, time.Now(), st.Loaded, time.Minute)
}

func TestAllowExpiredStartsAndSaysSo(t *testing.T) {
	p := newPKI(t)
	p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-time.Hour)}).Write(p.dir, "server")
	props := p.listener()
	props.AllowExpired = true
	source := load(t, props)
	assert.ErrorContains(t, source.Status().Err, "expired at")
	config, err := source.ServerConfig()
	require.NoError(t, err)
	_, clientSide := handshake(config, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the certificate has expired
	assert.NoError(t, clientSide.err)
}

func TestNothingSecretIsLogged(t *testing.T) {
	p := newPKI(t)
	var log bytes.Buffer
	props := p.mutual()
	write(t, p.serverFiles.Key, traditional(t, p.server, "sesame"))
	props.Passphrase = "sesame"
	props.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	source := load(t, props)
	write(t, p.serverFiles.Key, traditional(t, p.server, "changed"))
	require.ErrorIs(t, source.Reload(), tlsprops.ErrIncorrectPassphrase)
	write(t, p.serverFiles.Key, p.client.KeyPEM())
	require.ErrorIs(t, source.Reload(), tlsprops.ErrKeyMismatch)
	assert.Contains(t, log.String(), "cannot be used")
	assert.NotContains(t, log.String(), "sesame")
	for line := range bytes.Lines(p.client.KeyPEM()) {
		assert.NotContains(t, log.String(), string(bytes.TrimSpace(line)))
	}
}
