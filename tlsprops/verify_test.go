package tlsprops_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

func decodeCerts(t testing.TB, data []byte) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		certs = append(certs, cert)
	}
	return certs
}

// bare returns a plain crypto/tls server with pair, which asks for no certificate.
func bare(pair *testpki.Pair) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{pair.TLS()}}
}

func TestAClientJudgesServersAsVerifySays(t *testing.T) {
	p := newPKI(t)
	other := newPKI(t)
	old := testpki.Options{Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-time.Minute)}
	selfSigned := testpki.NewCA(t, "mirth-connect")
	servers := map[string]*testpki.Pair{
		"good":              p.server,
		"wrong name":        p.ca.Server("wrong.example.org"),
		"common name only":  p.ca.Issue(testpki.Options{CommonName: "localhost"}),
		"under another CA":  other.server,
		"expired":           p.ca.Issue(old),
		"not yet valid":     p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotBefore: time.Now().Add(time.Hour)}),
		"for clients":       p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}),
		"with intermediate": p.ca.Intermediate("Issuing CA").Server(),
		"self-signed":       {Cert: selfSigned.Cert, Key: selfSigned.Key, Chain: [][]byte{selfSigned.Cert.Raw}},
	}
	var everything []string
	for name := range servers {
		everything = append(everything, name)
	}
	for _, test := range []struct {
		name  string
		props tlsprops.TlsProperties
		pins  []string // servers whose keys are pinned
		lets  []string // servers that it accepts
	}{
		{"full", tlsprops.TlsProperties{TrustStorePath: p.caFile}, nil, []string{"good", "with intermediate"}},
		{"full by name", tlsprops.TlsProperties{TrustStorePath: p.caFile, Verify: tlsprops.VerifyFull}, nil, []string{"good", "with intermediate"}},
		{"full and pins", tlsprops.TlsProperties{TrustStorePath: p.caFile}, []string{"good", "under another CA", "expired"}, []string{"good"}},
		{"full for any use", tlsprops.TlsProperties{TrustStorePath: p.caFile, AnyExtendedKeyUsage: true}, nil, []string{"good", "with intermediate", "for clients"}},
		{"expected name", tlsprops.TlsProperties{TrustStorePath: p.caFile, ExpectedName: "wrong.example.org"}, nil, []string{"wrong name"}},
		{"chain only", tlsprops.TlsProperties{TrustStorePath: p.caFile, Verify: tlsprops.VerifyChainOnly}, nil, []string{"good", "with intermediate", "wrong name", "common name only"}},
		{"chain only for any use", tlsprops.TlsProperties{TrustStorePath: p.caFile, Verify: tlsprops.VerifyChainOnly, AnyExtendedKeyUsage: true}, nil, []string{"good", "with intermediate", "wrong name", "common name only", "for clients"}},
		{"chain only and pins", tlsprops.TlsProperties{TrustStorePath: p.caFile, Verify: tlsprops.VerifyChainOnly}, []string{"wrong name", "expired"}, []string{"wrong name"}},
		{"pinned", tlsprops.TlsProperties{Verify: tlsprops.VerifyPinned}, []string{"self-signed", "expired"}, []string{"self-signed", "expired"}},
		{"the host's roots", tlsprops.TlsProperties{}, nil, nil},
		{"the host's roots and our own", tlsprops.TlsProperties{TrustStorePath: p.caFile, TrustSystemRoots: true}, nil, []string{"good", "with intermediate"}},
		{"nothing", tlsprops.TlsProperties{RejectUnauthorized: new(false)}, nil, everything},
		{"nothing but pins", tlsprops.TlsProperties{RejectUnauthorized: new(false)}, []string{"self-signed", "wrong name"}, []string{"self-signed", "wrong name"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range test.pins {
				test.props.Pins = append(test.props.Pins, servers[name].Pin())
			}
			source := load(t, test.props)
			bothVersions(t, func(t *testing.T, version uint16) {
				var accepted []string
				for name, pair := range servers {
					client, err := source.ClientConfig("localhost")
					require.NoError(t, err)
					client.MaxVersion = version
					_, clientSide := handshake(bare(pair), client)
					if clientSide.err == nil {
						accepted = append(accepted, name)
						continue
					}
					var verification *tls.CertificateVerificationError
					assert.ErrorAs(t, clientSide.err, &verification, name)
				}
				assert.ElementsMatch(t, test.lets, accepted)
			})
		})
	}
}

func TestAListenerPinsItsClients(t *testing.T) {
	p := newPKI(t)
	stranger := p.ca.Client("stranger")
	files := stranger.Write(p.dir, "stranger")
	pinned := p.listener()
	pinned.RequireClientCert, pinned.Verify, pinned.Pins = true, tlsprops.VerifyPinned, []string{p.client.Pin(), somePin}
	both := p.mutual()
	both.Pins = pinned.Pins
	optional := pinned
	optional.RequireClientCert, optional.ClientAuth = false, "optional"
	strangerProps := p.trusting()
	strangerProps.KeyStorePath, strangerProps.CertStorePath = files.Key, files.Cert
	for _, test := range []struct {
		listener, client tlsprops.TlsProperties
		ok               bool
	}{
		{pinned, p.known(), true},
		{pinned, strangerProps, false},
		{pinned, p.trusting(), false},
		{both, p.known(), true},
		{both, strangerProps, false},
		{optional, p.known(), true},
		{optional, strangerProps, false},
		{optional, p.trusting(), true},
	} {
		bothVersions(t, func(t *testing.T, version uint16) {
			client := clientConfig(t, test.client, "localhost")
			client.MaxVersion = version
			serverSide, clientSide := handshake(serverConfig(t, test.listener), client)
			assert.Equal(t, test.ok, serverSide.err == nil, "%v", serverSide.err)
			assert.Equal(t, test.ok, clientSide.err == nil, "%v", clientSide.err)
		})
	}
}

func TestAnUnverifiedClientIsLoudAboutIt(t *testing.T) {
	var log bytes.Buffer
	source := load(t, tlsprops.TlsProperties{RejectUnauthorized: new(false), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		config, err := source.ClientConfig("localhost")
		require.NoError(t, err)
		assert.True(t, config.InsecureSkipVerify)
	}
	assert.True(t, source.Status().Insecure)
	assert.Contains(t, fmt.Sprint(source.Status().Warnings), "rejectUnauthorized is false")
	assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("rejectUnauthorized is false")), "once, not for every connection")
	assert.Contains(t, log.String(), "level=WARN")
}

func TestErrorsOfHandshakesComeWithAHint(t *testing.T) {
	p := newPKI(t)
	other := newPKI(t)
	pinning := p.trusting()
	pinning.Pins = []string{somePin}
	chainOnly := p.trusting()
	chainOnly.Verify = tlsprops.VerifyChainOnly
	for _, test := range []struct {
		name   string
		server *testpki.Pair
		client tlsprops.TlsProperties
		want   string
	}{
		{"common name only", p.ca.Issue(testpki.Options{CommonName: "localhost"}), p.trusting(), "verify chain-only"},
		{"wrong name", p.ca.Server("wrong.example.org"), p.trusting(), "set sniServerName"},
		{"unknown CA", other.server, p.trusting(), "into trustStorePath"},
		{"unknown CA, chain only", other.server, chainOnly, "into trustStorePath"},
		{"expired", p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-time.Minute)}), p.trusting(), "must renew"},
		{"wrong use", p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), p.trusting(), "anyExtendedKeyUsage"},
		{"another pin", p.server, pinning, "add its pin"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, clientSide := handshake(bare(test.server), clientConfig(t, test.client, "localhost"))
			require.Error(t, clientSide.err)
			assert.Contains(t, tlsprops.Hint(clientSide.err), test.want)
		})
	}
	_, clientSide := handshake(serverConfig(t, p.mutual()), clientConfig(t, p.trusting(), "localhost"))
	assert.Contains(t, tlsprops.Hint(clientSide.err), "requires a certificate")
	foreign := other.known()
	foreign.TrustStorePath, foreign.AlwaysSendClientCert = p.caFile, true
	_, clientSide = handshake(serverConfig(t, p.mutual()), clientConfig(t, foreign, "localhost"))
	assert.Contains(t, tlsprops.Hint(clientSide.err), "refused our certificate")

	near, far := memnet.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		_, _ = far.Read(make([]byte, 4096))
		_, _ = far.Write([]byte("\x0bMSH|^~\\&|\x1c\r"))
	}()
	_, err := connect(near, clientConfig(t, p.trusting(), "localhost"))
	assert.Contains(t, tlsprops.Hint(err), "does not speak TLS")
	assert.Empty(t, tlsprops.Hint(errors.New("something else")))
	assert.Empty(t, tlsprops.Hint(nil))
}

// resumption makes a connection to have a ticket, lets change happen, and tells
// how the next connection goes.
func resumption(t *testing.T, version uint16, server, client *tls.Config, change func()) (before, after, clientAfter outcome) {
	t.Helper()
	client.MaxVersion = version
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	_, clientSide := handshake(server, client)
	require.NoError(t, clientSide.err)
	before, clientSide = handshake(server, client)
	require.NoError(t, clientSide.err)
	change()
	after, clientAfter = handshake(server, client)
	return before, after, clientAfter
}

func TestNobodyOfARemovedCAGetsInByResumption(t *testing.T) {
	p := newPKI(t)
	pinnedAny := p.mutual()
	pinnedAny.AnyExtendedKeyUsage = true // checked in VerifyConnection, not by crypto/tls
	optional := p.mutual()
	optional.RequireClientCert, optional.ClientAuth = false, "optional"
	for name, props := range map[string]tlsprops.TlsProperties{"required": p.mutual(), "checked here": pinnedAny, "optional": optional} {
		t.Run(name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				p.ca.Write(p.dir, "ca.crt")
				source := load(t, props)
				config, err := source.ServerConfig()
				require.NoError(t, err)
				client := &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return new(p.client.TLS()), nil
				}}
				before, after, clientAfter := resumption(t, version, config, client, func() {
					testpki.NewCA(t, "New CA").Write(p.dir, "ca.crt")
					require.NoError(t, source.Reload())
				})
				require.True(t, before.state.DidResume, "tickets work at all")
				require.Error(t, after.err)
				assert.Error(t, clientAfter.err)
				assert.False(t, after.state.DidResume)
				var authority x509.UnknownAuthorityError
				assert.ErrorAs(t, after.err, &authority)
			})
		})
	}
}

func TestASessionOutlivesARotationOfTheCertificateAlone(t *testing.T) {
	p := newPKI(t)
	bothVersions(t, func(t *testing.T, version uint16) {
		source := load(t, p.mutual())
		config, err := source.ServerConfig()
		require.NoError(t, err)
		_, after, _ := resumption(t, version, config, clientConfig(t, p.known(), "localhost"), func() {
			p.ca.Server().Write(p.dir, "server")
			require.NoError(t, source.Reload())
			require.Equal(t, uint64(2), source.Status().Generation)
		})
		require.NoError(t, after.err)
		assert.True(t, after.state.DidResume)
	})
}

func TestListenersOfOneSourceShareTheirTickets(t *testing.T) {
	p := newPKI(t)
	source := load(t, p.listener())
	first, err := source.ServerConfig()
	require.NoError(t, err)
	second, err := source.ServerConfig()
	require.NoError(t, err)
	client := clientConfig(t, p.trusting(), "localhost")
	_, clientSide := handshake(first, client)
	require.NoError(t, clientSide.err)
	_, clientSide = handshake(second, client)
	require.NoError(t, clientSide.err)
	assert.True(t, clientSide.state.DidResume)
}

func TestAClientResumesUntilItsTrustChanges(t *testing.T) {
	p := newPKI(t)
	for _, mode := range []tlsprops.VerifyMode{tlsprops.VerifyFull, tlsprops.VerifyChainOnly} {
		t.Run(string(mode), func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				p.ca.Write(p.dir, "ca.crt")
				props := p.trusting()
				props.Verify = mode
				source := load(t, props)
				server := bare(p.server)
				server.MaxVersion = version
				dial := func() outcome {
					client, err := source.ClientConfig("localhost")
					require.NoError(t, err)
					_, clientSide := handshake(server, client)
					return clientSide
				}
				require.NoError(t, dial().err)
				again := dial()
				require.NoError(t, again.err)
				assert.True(t, again.state.DidResume)
				testpki.NewCA(t, "New CA").Write(p.dir, "ca.crt")
				require.NoError(t, source.Reload())
				var authority x509.UnknownAuthorityError
				assert.ErrorAs(t, dial().err, &authority)
			})
		})
	}
}

// A trust store replaces the host's roots, in both roles, unless both are asked for.
func TestATrustStoreReplacesTheRootsOfTheHost(t *testing.T) {
	p := newPKI(t)
	both, err := x509.SystemCertPool()
	require.NoError(t, err)
	both.AddCert(p.ca.Cert)
	for system, want := range map[bool]*x509.CertPool{false: p.ca.Pool(), true: both} {
		client, listener := p.known(), p.mutual()
		client.TrustSystemRoots, listener.TrustSystemRoots = system, system
		assert.True(t, clientConfig(t, client, "localhost").RootCAs.Equal(want), "client, the host's too: %v", system)
		config, err := load(t, listener).ServerConfig()
		require.NoError(t, err)
		config, err = config.GetConfigForClient(nil)
		require.NoError(t, err)
		assert.True(t, config.ClientCAs.Equal(want), "listener, the host's too: %v", system)
	}
}

// A resumed session speaks for the certificate that the client had when it began:
// after a rotation the server must see the new one, not what it remembers.
func TestAClientShowsItsNewCertificateAfterARotation(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		p := newPKI(t)
		source := load(t, p.known())
		server := bare(p.server)
		server.MaxVersion, server.ClientCAs, server.ClientAuth = version, p.ca.Pool(), tls.RequireAndVerifyClientCert
		shown := func() (subject string, resumed bool) {
			client, err := source.ClientConfig("localhost")
			require.NoError(t, err)
			serverSide, clientSide := handshake(server, client)
			require.NoError(t, clientSide.err)
			require.NoError(t, serverSide.err)
			return serverSide.state.PeerCertificates[0].Subject.CommonName, clientSide.state.DidResume
		}
		shown()
		before, resumed := shown()
		require.True(t, resumed, "or there is nothing to forget")
		require.Equal(t, "a client", before)
		p.ca.Client("a client, renewed").Write(p.dir, "client")
		require.NoError(t, source.Reload())
		after, _ := shown()
		assert.Equal(t, "a client, renewed", after)
	})
}

func TestPinsHoldInResumedHandshakes(t *testing.T) {
	p := newPKI(t)
	props := p.trusting()
	props.Verify, props.TrustStorePath, props.Pins = tlsprops.VerifyPinned, "", []string{p.server.Pin()}
	pinned := clientConfig(t, props, "localhost")
	props.Pins = []string{somePin}
	elsewhere := clientConfig(t, props, "localhost")
	bothVersions(t, func(t *testing.T, version uint16) {
		cache := tls.NewLRUClientSessionCache(1)
		for _, client := range []*tls.Config{pinned, elsewhere} {
			client.MaxVersion, client.ClientSessionCache = version, cache
		}
		server := bare(p.server)
		for range 2 {
			_, clientSide := handshake(server, pinned)
			require.NoError(t, clientSide.err)
		}
		_, clientSide := handshake(server, elsewhere)
		assert.ErrorContains(t, clientSide.err, "is none of pins")
	})
}
