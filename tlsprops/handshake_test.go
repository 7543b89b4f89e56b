package tlsprops_test

import (
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// bothVersions runs test with each TLS version that is spoken, as the highest
// one that the peer of the tested side speaks.
func bothVersions(t *testing.T, test func(t *testing.T, version uint16)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) { test(t, version) })
	}
}

func TestMutualTLSLetsInWhomItShould(t *testing.T) {
	p := newPKI(t)
	other := newPKI(t)
	foreign := other.known()
	foreign.TrustStorePath = p.caFile
	foreign.AlwaysSendClientCert = true
	optional := p.listener()
	optional.TrustStorePath, optional.ClientAuth = p.caFile, "optional"
	alias := p.mutual()
	alias.RequireClientCert, alias.RequireClientAuth = false, true
	both := p.mutual()
	both.RequireClientAuth = true
	serverUse := p.trusting()
	files := p.ca.Issue(testpki.Options{CommonName: "server", EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}).Write(p.dir, "server-use")
	serverUse.KeyStorePath, serverUse.CertStorePath = files.Key, files.Cert
	anyUse := p.mutual()
	anyUse.AnyExtendedKeyUsage = true
	expired := p.trusting()
	files = p.ca.Issue(testpki.Options{CommonName: "old", NotAfter: testpki.NewCA(t, "").Cert.NotBefore.AddDate(1, 0, 0)}).Write(p.dir, "expired")
	expired.KeyStorePath, expired.CertStorePath, expired.AllowExpired = files.Key, files.Cert, true

	for _, test := range []struct {
		name     string
		listener tlsprops.TlsProperties
		client   tlsprops.TlsProperties
		ok       bool
		peers    int // certificates that the listener sees of the client
	}{
		{"no client certificate asked for", p.listener(), p.trusting(), true, 0},
		{"none asked for, one there", p.listener(), p.known(), true, 0},
		{"required and there", p.mutual(), p.known(), true, 1},
		{"required and absent", p.mutual(), p.trusting(), false, 0},
		{"required and of another CA", p.mutual(), foreign, false, 0},
		{"required by the alias and there", alias, p.known(), true, 1},
		{"required by the alias and absent", alias, p.trusting(), false, 0},
		{"required by both names and absent", both, p.trusting(), false, 0},
		{"optional and there", optional, p.known(), true, 1},
		{"optional and absent", optional, p.trusting(), true, 0},
		{"optional and of another CA", optional, foreign, false, 0},
		{"issued for servers", p.mutual(), serverUse, false, 0},
		{"issued for servers, any use accepted", anyUse, serverUse, true, 1},
		{"any use accepted, absent", anyUse, p.trusting(), false, 0},
		{"any use accepted, of another CA", anyUse, foreign, false, 0},
		{"expired", p.mutual(), expired, false, 0},
		{"expired, any use accepted", anyUse, expired, false, 0},
		{"the server's CA is not trusted", p.listener(), other.trusting(), false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				client := clientConfig(t, test.client, "localhost")
				client.MaxVersion = version
				serverSide, clientSide := handshake(serverConfig(t, test.listener), client)
				if !test.ok {
					assert.Error(t, clientSide.err)
					assert.Error(t, serverSide.err)
					return
				}
				require.NoError(t, clientSide.err)
				require.NoError(t, serverSide.err)
				assert.Equal(t, version, serverSide.state.Version)
				assert.Len(t, serverSide.state.PeerCertificates, test.peers)
			})
		})
	}
}

func TestTLS13IsPreferredAndNothingBelowTheMinimumIsSpoken(t *testing.T) {
	p := newPKI(t)
	strict := p.listener()
	strict.MinVersion = "TLSv1.3"
	for _, test := range []struct {
		listener tlsprops.TlsProperties
		max      uint16
		want     uint16 // 0: refused
	}{
		{p.listener(), tls.VersionTLS13, tls.VersionTLS13},
		{p.listener(), tls.VersionTLS12, tls.VersionTLS12},
		{p.listener(), tls.VersionTLS11, 0},
		{strict, tls.VersionTLS13, tls.VersionTLS13},
		{strict, tls.VersionTLS12, 0},
	} {
		client := &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: test.max} //nolint:gosec // an old peer
		serverSide, clientSide := handshake(serverConfig(t, test.listener), client)
		if test.want == 0 {
			assert.Error(t, clientSide.err)
			continue
		}
		require.NoError(t, clientSide.err)
		assert.Equal(t, test.want, serverSide.state.Version)
	}
}

func TestAListenerOffersOnlyEphemeralAuthenticatedSuites(t *testing.T) {
	p := newPKI(t)
	rsaPKI := newPKI(t)
	files := rsaPKI.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, Key: testpki.RSAKey(t, 2048)}).Write(rsaPKI.dir, "rsa")
	rsa := tlsprops.TlsProperties{KeyStorePath: files.Key, CertStorePath: files.Cert}
	accepted := make(map[string]bool)
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		for _, listener := range []tlsprops.TlsProperties{p.listener(), rsa} {
			client := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}} //nolint:gosec // a scanner
			if _, clientSide := handshake(serverConfig(t, listener), client); clientSide.err == nil {
				accepted[suite.Name] = true
			}
		}
	}
	want := map[string]bool{
		"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": true, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": true,
		"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": true, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": true,
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": true, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": true,
	}
	if fips140.Enabled() {
		delete(want, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
		delete(want, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")
	}
	assert.Equal(t, want, accepted)
}

func TestSuitesAreNarrowedByEitherSpelling(t *testing.T) {
	p := newPKI(t)
	for _, name := range []string{"ECDHE-ECDSA-AES256-GCM-SHA384", "tls_ecdhe_ecdsa_with_aes_256_gcm_sha384"} {
		props := p.listener()
		props.CipherSuites = []string{name}
		client := clientConfig(t, p.trusting(), "localhost")
		client.MaxVersion = tls.VersionTLS12
		serverSide, clientSide := handshake(serverConfig(t, props), client)
		require.NoError(t, clientSide.err)
		assert.Equal(t, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, serverSide.state.CipherSuite)
	}
}

func TestSuitesWithTLS13AloneAreAWarning(t *testing.T) {
	props := newPKI(t).listener()
	props.MinVersion, props.CipherSuites = "TLSv1.3", []string{"ECDHE-ECDSA-AES256-GCM-SHA384"}
	assert.Contains(t, fmt.Sprint(load(t, props).Status().Warnings), "cipherSuites has no effect")
}

func TestPostQuantumKeyExchangeIsOnUnlessSwitchedOff(t *testing.T) {
	p := newPKI(t)
	serverSide, clientSide := handshake(serverConfig(t, p.listener()), clientConfig(t, p.trusting(), "localhost"))
	require.NoError(t, clientSide.err)
	assert.Equal(t, tls.X25519MLKEM768, serverSide.state.CurveID)

	classical := p.trusting()
	classical.ClassicalKeyExchange = true
	serverSide, clientSide = handshake(serverConfig(t, p.listener()), clientConfig(t, classical, "localhost"))
	require.NoError(t, clientSide.err)
	want := tls.X25519
	if fips140.Enabled() {
		want = tls.CurveP256
	}
	assert.Equal(t, want, serverSide.state.CurveID)
}

func TestTheServerNameIsSentAndChecked(t *testing.T) {
	p := newPKI(t) // for localhost, 127.0.0.1 and ::1
	for _, test := range []struct {
		sni, host string
		sent      string // SNI
		ok        bool
	}{
		{"", "localhost", "localhost", true},
		{"", "localhost.", "localhost", true},
		{"localhost", "10.0.0.1", "localhost", true},
		{"", "127.0.0.1", "", true},
		{"", "::1", "", true},
		{"", "[::1]", "", true},
		{"", "127.0.0.2", "", false},
		{"127.0.0.1", "pacs.hospital.org", "", true},
		{"", "other.example.org", "other.example.org", false},
		{"other.example.org", "localhost", "other.example.org", false},
	} {
		t.Run(test.sni+" "+test.host, func(t *testing.T) {
			props := p.trusting()
			props.SniServerName = test.sni
			serverSide, clientSide := handshake(serverConfig(t, p.listener()), clientConfig(t, props, test.host))
			assert.Equal(t, test.ok, clientSide.err == nil, "%v", clientSide.err)
			if test.ok {
				assert.Equal(t, test.sent, serverSide.state.ServerName)
			}
		})
	}
}

func TestANameThatCannotBeCheckedIsAnErrorBeforeDialing(t *testing.T) {
	source := load(t, newPKI(t).trusting())
	for _, host := range []string{"", "host:2575", "mllp://host", "köln.example.org", "a b"} {
		_, err := source.ClientConfig(host)
		assert.Equal(t, "sniServerName", fieldOf(t, err), host)
	}
}

func TestNextProtosReachTheHandshakeOfEveryGeneration(t *testing.T) {
	p := newPKI(t)
	props := p.listener()
	props.NextProtos = []string{"h2", "http/1.1"}
	source := load(t, props)
	config, err := source.ServerConfig()
	require.NoError(t, err)
	for range 2 {
		client := clientConfig(t, p.trusting(), "localhost")
		client.NextProtos = []string{"h2"}
		serverSide, clientSide := handshake(config, client)
		require.NoError(t, clientSide.err)
		assert.Equal(t, "h2", serverSide.state.NegotiatedProtocol)
		p.ca.Server().Write(p.dir, "server")
		require.NoError(t, source.Reload())
	}
}

func TestACertificateThatDemandsAStapleIsAWarningWithoutOne(t *testing.T) {
	p := newPKI(t)
	p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, MustStaple: true}).Write(p.dir, "server")
	source := load(t, p.listener())
	_, err := source.ServerConfig()
	require.NoError(t, err)
	assert.Contains(t, fmt.Sprint(source.Status().Warnings), "set ocspStaplePath")
}

func TestAClientWhoseCAIsNotAcceptableIsTold(t *testing.T) {
	p := newPKI(t)
	other := newPKI(t)
	for _, always := range []bool{false, true} {
		t.Run(fmt.Sprintf("always send %t", always), func(t *testing.T) {
			var events []tlsprops.Event
			props := other.known()
			props.TrustStorePath, props.AlwaysSendClientCert = p.caFile, always
			props.Observe = func(e tlsprops.Event) { events = append(events, e) }
			serverSide, _ := handshake(serverConfig(t, p.mutual()), clientConfig(t, props, "localhost"))
			if always {
				var authority x509.UnknownAuthorityError
				assert.ErrorAs(t, serverSide.err, &authority)
			} else {
				assert.ErrorContains(t, serverSide.err, "didn't provide a certificate")
			}
			last := events[len(events)-1]
			assert.Equal(t, tlsprops.ClientCertUnacceptable, last.Kind)
			assert.Equal(t, 1, last.AcceptableCAs)
			assert.Equal(t, always, last.Sent)
			assert.Equal(t, "CN=a client", last.Certificate.Subject)
		})
	}
}

func TestAlwaysSendClientCertServesAServerThatNamesOnlyItsRoot(t *testing.T) {
	p := newPKI(t)
	files := p.ca.Intermediate("Ward CA").Client("ward 7").Write(p.dir, "ward")
	// The chain is cut to the leaf, and the server knows the intermediate.
	leaf := testpki.EncodeCerts(readCerts(t, files.Cert)[0].Raw)
	intermediate := readCerts(t, files.Cert)[1]
	require.NoError(t, os.WriteFile(files.Cert, leaf, 0o600))
	server := &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, ClientAuth: tls.RequireAnyClientCert, ClientCAs: p.ca.Pool()}
	props := p.trusting()
	props.KeyStorePath, props.CertStorePath = files.Key, files.Cert
	_, clientSide := handshake(server, clientConfig(t, props, "localhost"))
	assert.Error(t, clientSide.err)
	props.AlwaysSendClientCert = true
	serverSide, clientSide := handshake(server, clientConfig(t, props, "localhost"))
	require.NoError(t, clientSide.err)
	assert.NoError(t, serverSide.state.PeerCertificates[0].CheckSignatureFrom(intermediate))
}

func TestAListenerWhoseCertificateMayConfuseClientsWarns(t *testing.T) {
	p := newPKI(t)
	nameless := p.ca.Issue(testpki.Options{CommonName: "mirth-connect", EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	files := nameless.Write(p.dir, "nameless")
	source := load(t, tlsprops.TlsProperties{KeyStorePath: files.Key, CertStorePath: files.Cert, TrustStorePath: p.caFile, RejectUnauthorized: new(false)})
	_, err := source.ServerConfig()
	require.NoError(t, err)
	warnings := fmt.Sprint(source.Status().Warnings)
	assert.Contains(t, warnings, "subject alternative name")
	assert.Contains(t, warnings, "lacks serverAuth")
	assert.Contains(t, warnings, "trustStorePath has no effect")
	assert.Contains(t, warnings, "rejectUnauthorized false has no effect")
	assert.False(t, source.Status().Insecure)
}

// readCerts returns the certificates of a PEM file.
func readCerts(t testing.TB, path string) []*x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return decodeCerts(t, data)
}
