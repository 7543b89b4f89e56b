package keystore_test

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/keystore"
	"github.com/carewire/carewire/tlsprops"
)

func decode(tb testing.TB, field, file, passphrase string, more func(*tlsprops.DecoderInput)) (*tlsprops.Material, error) {
	tb.Helper()
	in := tlsprops.DecoderInput{Field: field, Path: file, Data: golden(tb, "stores/"+file), Passphrase: passphrase}
	if more != nil {
		more(&in)
	}
	return keystore.Decoder(in)
}

func TestTheDecoderGivesEachSettingWhatItAsksFor(t *testing.T) {
	root, other := pki(t, "root.crt"), pki(t, "other.crt")
	chain := [][]byte{pki(t, "rsa.crt"), pki(t, "int.crt"), root}
	for _, file := range []string{"keyplusca.jks", "keyplusca.jceks", "keyplusca.pkcs12"} {
		m, err := decode(t, "keyStorePath", file, storePassword, nil)
		require.NoError(t, err, file)
		assert.NotNil(t, m.Key)
		assert.Equal(t, chain, m.Chain)
		m, err = decode(t, "certStorePath", file, storePassword, nil)
		require.NoError(t, err, file)
		assert.Nil(t, m.Key)
		assert.Equal(t, chain, m.Chain)
		m, err = decode(t, "trustStorePath", file, storePassword, nil)
		require.NoError(t, err, file)
		assert.ElementsMatch(t, [][]byte{root, other}, m.Roots)
		assert.Nil(t, m.Key)
	}
	m, err := decode(t, "trustStorePath", "o-cafile.p12", storePassword, nil)
	require.NoError(t, err)
	assert.Equal(t, [][]byte{root, other}, m.Roots, "openssl's, which have no mark")
	m, err = decode(t, "certStorePath", "o-cafile.p12", storePassword, nil)
	require.NoError(t, err)
	assert.Equal(t, [][]byte{root, other}, m.Chain, "a file of certificates alone")

	m, err = decode(t, "keyStorePath", "mirth.jks", "KqVh3TtYwR8a", func(in *tlsprops.DecoderInput) { in.KeyPassphrase = "Zx81mPnLcD0e" })
	require.NoError(t, err)
	assert.Equal(t, chain, m.Chain)
	m, err = decode(t, "keyStorePath", "kinds.jks", storePassword, func(in *tlsprops.DecoderInput) { in.Alias = "Ed25519" })
	require.NoError(t, err)
	assert.Equal(t, pki(t, "ed25519.crt"), m.Chain[0])
}

func TestTheDecoderOpensAnEncryptedKeyByItself(t *testing.T) {
	for name, data := range map[string][]byte{"scrypt": pemBytes(t, "stores/scrypt.pem"), "PBES2": golden(t, "stores/encrypted.der")} {
		in := tlsprops.DecoderInput{Field: "keyStorePath", Data: data, Passphrase: storePassword}
		m, err := keystore.Decoder(in)
		require.NoError(t, err, name)
		assert.NotNil(t, m.Key, name)
		in.Passphrase = "wrong"
		_, err = keystore.Decoder(in)
		assert.ErrorIs(t, err, tlsprops.ErrIncorrectPassphrase, name)
		in.Passphrase = ""
		_, err = keystore.Decoder(in)
		assert.ErrorIs(t, err, tlsprops.ErrPassphraseRequired, name)
	}
}

func TestTheDecoderSaysWhatIsWrongInTheWordsOfTlsprops(t *testing.T) {
	for _, file := range []string{"keyplusca.jks", "keyplusca.jceks", "keyplusca.pkcs12"} {
		_, err := decode(t, "keyStorePath", file, "wrong", nil)
		assert.ErrorIs(t, err, tlsprops.ErrIncorrectPassphrase, file)
		assert.ErrorIs(t, err, keystore.ErrIncorrectPassword, file)
		_, err = decode(t, "keyStorePath", file, "", nil)
		assert.ErrorIs(t, err, tlsprops.ErrPassphraseRequired, file)
	}
	_, err := decode(t, "keyStorePath", "keypass.jks", storePassword, func(in *tlsprops.DecoderInput) { in.Alias = "ec256" })
	assert.ErrorIs(t, err, tlsprops.ErrIncorrectPassphrase)
	_, err = decode(t, "keyStorePath", "kinds.jks", storePassword, nil)
	var ambiguous *keystore.AmbiguousError
	assert.ErrorAs(t, err, &ambiguous)
	_, err = decode(t, "keyStorePath", "kinds.jks", storePassword, func(in *tlsprops.DecoderInput) { in.Alias = "dsa" })
	assert.ErrorContains(t, err, `crypto/tls cannot use the key "dsa" (DSA)`)
	_, err = decode(t, "keyStorePath", "trust.jks", storePassword, nil)
	assert.ErrorIs(t, err, keystore.ErrNoSuchAlias)
	_, err = decode(t, "trustStorePath", "trust.pkcs12", "", nil)
	assert.ErrorIs(t, err, tlsprops.ErrPassphraseRequired, "its certificates are encrypted")
}

// As Java does.
func TestATrustStoreOfJavaNeedsNoPassphrase(t *testing.T) {
	for _, file := range []string{"trust.jks", "trust.jceks", "passwordless-trust.pkcs12"} {
		m, err := decode(t, "trustStorePath", file, "", nil)
		require.NoError(t, err, file)
		assert.Len(t, m.Roots, 2, file)
	}
	_, err := decode(t, "trustStorePath", "trust.jks", "wrong", nil)
	assert.ErrorIs(t, err, tlsprops.ErrIncorrectPassphrase, "one that is given must be right")
}

// The whole way: key stores in the settings, a handshake, and the key store
// replaced while the listener runs.
func TestKeyStoresServeMutualTLSAndAreReloaded(t *testing.T) {
	dir := t.TempDir()
	put := func(name, file string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path+".new", golden(t, "stores/"+file), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
		return path
	}
	keyStore, trustStore := put("keystore.jks", "jdk25.jks"), put("truststore.p12", "trust.pkcs12")
	server, err := tlsprops.Load(tlsprops.TlsProperties{
		Enabled: true, KeyStorePath: keyStore, TrustStorePath: trustStore, RequireClientCert: true, Passphrase: storePassword, Decoder: keystore.Decoder,
	})
	require.NoError(t, err)
	client, err := tlsprops.Load(tlsprops.TlsProperties{
		Enabled: true, KeyStorePath: put("client.p12", "n-default.p12"), TrustStorePath: trustStore, Passphrase: storePassword, Decoder: keystore.Decoder,
	})
	require.NoError(t, err)
	presented := func() string {
		serverConfig, err := server.ServerConfig()
		require.NoError(t, err)
		clientConfig, err := client.ClientConfig("localhost")
		require.NoError(t, err)
		ln := memnet.Listen()
		served := make(chan error, 1)
		go func() {
			conn, err := tls.NewListener(ln, serverConfig).Accept()
			if err == nil {
				err = errors.Join(conn.(*tls.Conn).HandshakeContext(t.Context()), conn.Close())
			}
			served <- err
		}()
		b, err := ln.DialContext(t.Context(), "tcp", "localhost")
		require.NoError(t, err)
		conn := tls.Client(b, clientConfig)
		require.NoError(t, conn.HandshakeContext(t.Context()))
		require.NoError(t, <-served)
		require.NoError(t, b.Close())
		require.NoError(t, ln.Close())
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	assert.Equal(t, "ec256", presented())
	put("keystore.jks", "keyplusca.pkcs12") // under its old name, as Java 9 and later do it
	require.NoError(t, server.Reload())
	assert.Equal(t, "rsa", presented())
	put("keystore.jks", "bc.bks")
	require.Error(t, server.Reload())
	assert.Equal(t, "rsa", presented(), "what was good stays")
}
