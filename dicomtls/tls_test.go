package dicomtls_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// patience bounds everything that ought to take no time.
const patience = 20 * time.Second

// pki is a CA with pairs of both kinds of keys, as PEM files that hold key and
// certificate together.
type pki struct {
	dir, ca          string
	authority        *testpki.Authority
	rsa, ecdsa       string // of a server
	client           string
	rsaPair          *testpki.Pair
	clientPair       *testpki.Pair
	rsaPEM, ecdsaPEM []byte
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), authority: testpki.NewCA(t, "DICOM CA")}
	p.ca = p.authority.Write(p.dir, "ca.pem")
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	hosts := []string{"localhost", "127.0.0.1"}
	p.rsaPair = p.authority.Issue(testpki.Options{CommonName: "localhost", Hosts: hosts, EKU: both, Key: rsaKey(t, 0)})
	ec := p.authority.Issue(testpki.Options{CommonName: "localhost", Hosts: hosts, EKU: both})
	p.clientPair = p.authority.Issue(testpki.Options{CommonName: "a modality", EKU: both, Key: rsaKey(t, 1)})
	p.rsaPEM, p.ecdsaPEM = together(p.rsaPair), together(ec)
	p.rsa, p.ecdsa = p.write(t, "rsa.pem", p.rsaPEM), p.write(t, "ecdsa.pem", p.ecdsaPEM)
	p.client = p.write(t, "client.pem", together(p.clientPair))
	return p
}

// rsaKeys are made once, for each takes a good part of a second.
var rsaKeys struct {
	sync.Mutex

	made map[int]crypto.Signer
}

// rsaKey returns the n-th RSA key of the tests.
func rsaKey(t testing.TB, n int) crypto.Signer {
	t.Helper()
	rsaKeys.Lock()
	defer rsaKeys.Unlock()
	if rsaKeys.made[n] == nil {
		if rsaKeys.made == nil {
			rsaKeys.made = make(map[int]crypto.Signer)
		}
		rsaKeys.made[n] = testpki.RSAKey(t, 2048)
	}
	return rsaKeys.made[n]
}

func together(p *testpki.Pair) []byte { return append(p.KeyPEM(), p.CertPEM()...) }

func (p *pki) write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	require.NoError(t, os.WriteFile(path+".new", data, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	return path
}

// listener and sender are the settings of mutual TLS in a mode.
func (p *pki) listener(mode dicomtls.DicomTlsMode) dicomtls.Properties {
	return dicomtls.Properties{TLS: mode, KeyStore: p.rsa, TrustStore: p.ca}
}

func (p *pki) sender(mode dicomtls.DicomTlsMode) dicomtls.Properties {
	return dicomtls.Properties{TLS: mode, KeyStore: p.client, TrustStore: p.ca}
}

func serverConfig(t testing.TB, p dicomtls.Properties) *tls.Config {
	t.Helper()
	source, err := dicomtls.LoadTLS(p, tlsprops.Listener)
	require.NoError(t, err)
	config, err := source.Server()
	require.NoError(t, err)
	return config
}

func clientConfig(t testing.TB, p dicomtls.Properties) *tls.Config {
	t.Helper()
	source, err := dicomtls.LoadTLS(p, tlsprops.Client)
	require.NoError(t, err)
	config, err := source.Client(t.Context(), "localhost")
	require.NoError(t, err)
	return config
}

// handshake joins two configurations, has a byte go each way, and returns what
// the server saw and the first error of each side.
func handshake(server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	near, far := memnet.Pipe()
	defer near.Close()
	defer far.Close()
	done := make(chan error, 1)
	s := tls.Server(far, server)
	_ = far.SetDeadline(time.Now().Add(patience))
	_ = near.SetDeadline(time.Now().Add(patience))
	go func() {
		_, err := s.Write([]byte{6})
		done <- err
	}()
	c := tls.Client(near, client)
	_, clientErr = c.Read(make([]byte, 1)) // in TLS 1.3 the server's refusal comes only now
	serverErr = <-done
	return s.ConnectionState(), serverErr, clientErr
}

func TestEachModeAgreesOnItsOwnSuites(t *testing.T) {
	p := newPKI(t)
	// What a peer of each kind offers, without any of ours.
	peers := map[string]*tls.Config{
		"today's": {MinVersion: tls.VersionTLS13},
		"TLS 1.2 with ECDHE": {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		}},
		"Mirth's aes":         {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}},
		"Mirth's 3des":        {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}},
		"ECDHE with CBC":      {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}},
		"RSA with GCM":        {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
		"RSA with 256 bits":   {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_256_CBC_SHA}},
		"TLS 1.1":             {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"everything there is": {MinVersion: tls.VersionTLS10},
	}
	const (
		aes128, aes256 = tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
		cbc, tripleDES = tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA
	)
	agreed := map[dicomtls.DicomTlsMode]map[string]uint16{
		dicomtls.ModeBCP195: {"today's": aes128, "TLS 1.2 with ECDHE": aes256, "everything there is": aes128},
		dicomtls.ModeAES:    {"today's": aes128, "TLS 1.2 with ECDHE": aes256, "Mirth's aes": cbc, "everything there is": aes128},
		dicomtls.Mode3DES:   {"Mirth's 3des": tripleDES},
	}
	for mode, suites := range agreed {
		for name, peer := range peers {
			t.Run(fmt.Sprintf("%s with %s", mode, name), func(t *testing.T) {
				// The peer as a client, then as a server.
				remote := peer.Clone()
				remote.RootCAs, remote.ServerName = p.authority.Pool(), "localhost"
				remote.Certificates = []tls.Certificate{p.clientPair.TLS()}
				state, serverErr, clientErr := handshake(serverConfig(t, p.listener(mode)), remote)
				check(t, suites[name], state, serverErr, clientErr)

				remote = peer.Clone()
				remote.Certificates = []tls.Certificate{p.rsaPair.TLS()}
				remote.ClientAuth, remote.ClientCAs = tls.RequireAndVerifyClientCert, p.authority.Pool()
				state, serverErr, clientErr = handshake(remote, clientConfig(t, p.sender(mode)))
				check(t, suites[name], state, serverErr, clientErr)
			})
		}
	}
}

// check expects a handshake with the suite, or none if it is 0.
func check(t *testing.T, suite uint16, state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	if suite == 0 {
		assert.Error(t, serverErr)
		assert.Error(t, clientErr)
		return
	}
	require.NoError(t, serverErr)
	require.NoError(t, clientErr)
	if state.Version == tls.VersionTLS13 {
		return // whose suites Go picks by the hardware
	}
	assert.Equal(t, tls.CipherSuiteName(suite), tls.CipherSuiteName(state.CipherSuite))
	assert.Len(t, state.PeerCertificates, 1)
}

func TestOurOwnEndsAgreeInEveryMode(t *testing.T) {
	p := newPKI(t)
	for mode, version := range map[dicomtls.DicomTlsMode]uint16{
		dicomtls.Mode3DES: tls.VersionTLS12, dicomtls.ModeAES: tls.VersionTLS13, dicomtls.ModeBCP195: tls.VersionTLS13,
	} {
		server, client := serverConfig(t, p.listener(mode)), clientConfig(t, p.sender(mode))
		for _, resumed := range []bool{false, true} {
			state, serverErr, clientErr := handshake(server, client)
			require.NoError(t, serverErr, mode)
			require.NoError(t, clientErr, mode)
			assert.Equal(t, version, state.Version, mode)
			assert.Equal(t, resumed, state.DidResume, mode)
			assert.Equal(t, "dicom", state.NegotiatedProtocol, mode)
			assert.Equal(t, "a modality", state.PeerCertificates[0].Subject.CommonName, "the client's, also in a session that is resumed")
		}
	}
}

func TestALegacyModeAndAnECDSACertificate(t *testing.T) {
	p := newPKI(t)
	listener := p.listener(dicomtls.Mode3DES)
	listener.KeyStore = p.ecdsa
	_, err := dicomtls.LoadTLS(listener, tlsprops.Listener)
	require.ErrorContains(t, err, "keyStore")
	require.ErrorContains(t, err, p.ecdsa)
	assert.ErrorContains(t, err, "needs one")

	var log bytes.Buffer
	listener.TLS, listener.Logger = dicomtls.ModeAES, slog.New(slog.NewTextHandler(&log, nil))
	config := serverConfig(t, listener)
	assert.Contains(t, log.String(), "TLS_RSA_WITH_AES_128_CBC_SHA, Mirth Connect for one, cannot connect")
	_, serverErr, clientErr := handshake(config, clientConfig(t, p.sender(dicomtls.ModeAES)))
	assert.NoError(t, serverErr)
	assert.NoError(t, clientErr, "with a peer of today")
}

func TestALPNIsDicomOrNothing(t *testing.T) {
	p := newPKI(t)
	server := serverConfig(t, p.listener(dicomtls.ModeBCP195))
	for name, test := range map[string]struct {
		offers []string
		agreed string
		fails  bool
	}{
		"none": {nil, "", false}, "dicom": {[]string{"h2", "dicom"}, "dicom", false}, "others": {[]string{"h2", "http/1.1"}, "", true},
	} {
		client := clientConfig(t, p.sender(dicomtls.ModeBCP195))
		client.NextProtos = test.offers
		state, serverErr, clientErr := handshake(server, client)
		assert.Equal(t, test.fails, serverErr != nil, name)
		assert.Equal(t, test.fails, clientErr != nil, name)
		if !test.fails {
			assert.Equal(t, test.agreed, state.NegotiatedProtocol, name)
		}
	}
	plain := &tls.Config{Certificates: []tls.Certificate{p.rsaPair.TLS()}} // a server that knows no ALPN
	_, serverErr, clientErr := handshake(plain, clientConfig(t, p.sender(dicomtls.ModeBCP195)))
	assert.NoError(t, serverErr)
	assert.NoError(t, clientErr)
}

func TestNoClientAuthMeansWhatItSays(t *testing.T) {
	p := newPKI(t)
	nobody := dicomtls.Properties{TLS: dicomtls.ModeAES, TrustStore: p.ca, NoClientAuth: true}
	strict, open := p.listener(dicomtls.ModeAES), p.listener(dicomtls.ModeAES)
	open.NoClientAuth = true

	_, serverErr, clientErr := handshake(serverConfig(t, strict), clientConfig(t, nobody))
	assert.Error(t, serverErr)
	assert.ErrorContains(t, clientErr, "certificate required")
	assert.Contains(t, dicomtls.TLSHint(clientErr), "keyStore")
	state, serverErr, clientErr := handshake(serverConfig(t, open), clientConfig(t, nobody))
	assert.NoError(t, serverErr)
	assert.NoError(t, clientErr)
	assert.Empty(t, state.PeerCertificates)
	state, serverErr, _ = handshake(serverConfig(t, open), clientConfig(t, p.sender(dicomtls.ModeAES)))
	assert.NoError(t, serverErr)
	assert.Empty(t, state.PeerCertificates, "it was not asked for one")
}

func TestAClientPresentsItsCertificateWhateverTheServerSaysItAccepts(t *testing.T) {
	p := newPKI(t)
	other := testpki.NewCA(t, "another CA")
	var seen []*x509.Certificate
	server := &tls.Config{
		Certificates: []tls.Certificate{p.rsaPair.TLS()}, ClientAuth: tls.RequestClientCert, ClientCAs: other.Pool(),
		VerifyConnection: func(cs tls.ConnectionState) error { seen = cs.PeerCertificates; return nil },
	}
	_, serverErr, clientErr := handshake(server, clientConfig(t, p.sender(dicomtls.ModeBCP195)))
	require.NoError(t, serverErr)
	require.NoError(t, clientErr)
	require.Len(t, seen, 1)
	assert.Equal(t, "a modality", seen[0].Subject.CommonName)
}

func TestASenderVerifiesTheServerInEveryMode(t *testing.T) {
	p := newPKI(t)
	stranger := testpki.NewCA(t, "a stranger")
	server := func(pair *testpki.Pair) *tls.Config {
		return &tls.Config{
			Certificates: []tls.Certificate{pair.TLS()},
			CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		}
	}
	key, other := rsaKey(t, 2), rsaKey(t, 3)
	hosts := []string{"localhost"}
	self := testpki.NewCAWith(t, testpki.Options{CommonName: "self-signed", Key: key})
	for _, mode := range []dicomtls.DicomTlsMode{dicomtls.Mode3DES, dicomtls.ModeAES, dicomtls.ModeBCP195} {
		full := p.sender(mode)
		chainOnly := full
		chainOnly.Verification = tlsprops.VerifyChainOnly
		pinned := dicomtls.Properties{TLS: mode, KeyStore: p.client, Verification: tlsprops.VerifyPinned, Pins: []string{testpki.Pin(self.Cert)}}
		named := full
		named.ServerName = "pacs.example.org"
		for name, test := range map[string]struct {
			pair                       *testpki.Pair
			full, chain, pinned, named bool
		}{
			"the right one":       {p.rsaPair, true, true, false, false},
			"of an unknown CA":    {stranger.Issue(testpki.Options{CommonName: "localhost", Hosts: hosts, Key: key}), false, false, true, false},
			"of an unknown CA 2":  {stranger.Issue(testpki.Options{CommonName: "localhost", Hosts: hosts, Key: other}), false, false, false, false},
			"of another host":     {p.authority.Issue(testpki.Options{CommonName: "x", Hosts: []string{"pacs.example.org"}, Key: other}), false, true, false, true},
			"with no name but CN": {p.authority.Issue(testpki.Options{CommonName: "localhost", Key: other}), false, true, false, false},
			"expired":             {p.authority.Issue(testpki.Options{CommonName: "localhost", Hosts: hosts, Key: other, NotAfter: time.Now().Add(-time.Hour)}), false, false, false, false},
			"self-signed":         {&testpki.Pair{Cert: self.Cert, Key: key, Chain: [][]byte{self.Cert.Raw}}, false, false, true, false},
		} {
			for how, c := range map[string]struct {
				props dicomtls.Properties
				want  bool
			}{"full": {full, test.full}, "chain-only": {chainOnly, test.chain}, "pinned": {pinned, test.pinned}, "by another name": {named, test.named}} {
				_, _, err := handshake(server(test.pair), clientConfig(t, c.props))
				assert.Equal(t, c.want, err == nil, "%s, server's certificate %s, verification %s: %v", mode, name, how, err)
			}
		}
	}
}

func TestKeyStoresOfEveryKindOpenWithTheirOwnPasswords(t *testing.T) {
	stores := filepath.Join("..", "keystore", "testdata", "stores")
	root := filepath.Join("..", "keystore", "testdata", "pki", "root.crt")
	for name, test := range map[string]struct{ keyStore, storePW, keyPW, alias, trustStore, trustPW string }{
		"JKS":                         {keyStore: "keyplusca.jks", storePW: "changeit", trustStore: "trust.jks", trustPW: "changeit"},
		"JKS, trust without password": {keyStore: "keyplusca.jks", storePW: "changeit", trustStore: "trust.jks"},
		"JCEKS":                       {keyStore: "keyplusca.jceks", storePW: "changeit", trustStore: "trust.jceks", trustPW: "changeit"},
		"PKCS#12":                     {keyStore: "keyplusca.pkcs12", storePW: "changeit", trustStore: "trust.pkcs12", trustPW: "changeit"},
		"a key of another password":   {keyStore: "mirth.jks", storePW: "KqVh3TtYwR8a", keyPW: "Zx81mPnLcD0e", trustStore: "trust.pkcs12", trustPW: "changeit"},
		"one of several keys":         {keyStore: "kinds.jks", storePW: "changeit", alias: "ec256", trustStore: "trust.jks", trustPW: "changeit"},
	} {
		t.Run(name, func(t *testing.T) {
			p := dicomtls.Properties{
				TLS: dicomtls.ModeBCP195, KeyStore: filepath.Join(stores, test.keyStore), KeyStorePW: test.storePW, KeyPW: test.keyPW, KeyAlias: test.alias,
				TrustStore: filepath.Join(stores, test.trustStore), TrustStorePW: test.trustPW,
			}
			sender := dicomtls.Properties{TLS: dicomtls.ModeBCP195, TrustStore: root, NoClientAuth: true}
			listener := p
			listener.NoClientAuth = true
			_, serverErr, clientErr := handshake(serverConfig(t, listener), clientConfig(t, sender))
			assert.NoError(t, serverErr)
			assert.NoError(t, clientErr)

			for _, wrong := range []func(*dicomtls.Properties){
				func(p *dicomtls.Properties) { p.KeyStorePW = "s3cret-wrong" },
				func(p *dicomtls.Properties) { p.TrustStorePW = "s3cret-wrong" },
				func(p *dicomtls.Properties) { p.KeyPW, p.KeyStorePW = "", "s3cret-wrong" },
			} {
				p := p
				wrong(&p)
				_, err := dicomtls.LoadTLS(p, tlsprops.Listener)
				require.ErrorIs(t, err, tlsprops.ErrIncorrectPassphrase)
				var field *dicomtls.FieldError
				require.ErrorAs(t, err, &field)
				assert.Contains(t, []string{"keyStore", "trustStore"}, field.Field)
				assert.Contains(t, field.Path, stores)
				assert.NotContains(t, err.Error(), "s3cret")
			}
		})
	}
	scrypt := dicomtls.Properties{
		TLS: dicomtls.ModeBCP195, KeyStore: filepath.Join(stores, "scrypt.pem"), KeyPW: "changeit",
		CertStore: filepath.Join("..", "keystore", "testdata", "pki", "ec256.crt"), TrustStore: root,
	}
	_, err := dicomtls.LoadTLS(scrypt, tlsprops.Listener)
	assert.NoError(t, err, "a PEM key whose encryption the decoder knows")
}

func TestARotationReachesNewHandshakesInTheModesSuites(t *testing.T) {
	p := newPKI(t)
	source, err := dicomtls.LoadTLS(p.listener(dicomtls.ModeAES), tlsprops.Listener)
	require.NoError(t, err)
	server, err := source.Server()
	require.NoError(t, err)
	mirth := &tls.Config{
		RootCAs: p.authority.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{p.clientPair.TLS()},
		MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA},
	}
	presented := func() string {
		var name string
		client := mirth.Clone()
		client.VerifyConnection = func(cs tls.ConnectionState) error { name = cs.PeerCertificates[0].SerialNumber.String(); return nil }
		_, serverErr, clientErr := handshake(server, client)
		require.NoError(t, serverErr)
		require.NoError(t, clientErr)
		return name
	}
	before := presented()
	assert.Equal(t, before, presented())
	renewed := p.authority.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost"}, Key: rsaKey(t, 2)})
	p.write(t, "rsa.pem", together(renewed))
	require.NoError(t, source.Reload())
	assert.Equal(t, renewed.Cert.SerialNumber.String(), presented(), "the new one, still with the legacy suite")
	p.write(t, "rsa.pem", []byte("half a fi"))
	require.Error(t, source.Reload())
	assert.Equal(t, renewed.Cert.SerialNumber.String(), presented(), "what was good stays")
}

// listenTLS serves config until the test ends: each client is sent a byte.
func listenTLS(t *testing.T, config *tls.Config) (addr string, states <-chan tls.ConnectionState) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	out, done := make(chan tls.ConnectionState, 16), make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			s := tls.Server(conn, config)
			if _, err := s.Write([]byte("hello\n")); err == nil {
				out <- s.ConnectionState()
			}
			_ = s.Close()
		}
	}()
	return ln.Addr().String(), out
}
