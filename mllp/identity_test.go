package mllp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

func TestConnContextIsAskedOnceForAConnection(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		type key struct{}
		var calls atomic.Int32
		var infos []mllp.ConnInfo
		s := start(&mllp.Server{
			ConnContext: func(ctx context.Context, info mllp.ConnInfo) context.Context {
				infos = append(infos, info)
				return context.WithValue(ctx, key{}, calls.Add(1))
			},
			Handler: mllp.HandlerFunc(func(ctx context.Context, r *mllp.Request) ([]byte, error) {
				assert.Equal(t, calls.Load(), ctx.Value(key{}))
				last := infos[len(infos)-1]
				assert.Equal(t, mllp.ConnInfo{RemoteAddr: r.RemoteAddr, LocalAddr: r.LocalAddr, TLS: r.TLS, Identity: r.Identity}, last)
				assert.Same(t, last.Identity, r.Identity)
				return nil, nil
			}),
		})
		for n := range int32(2) {
			c := s.call()
			for range 3 {
				c.say(frame(msgA))
				require.Equal(t, "AA id1", c.hear())
			}
			assert.Equal(t, n+1, calls.Load())
			c.raw.Close()
			synctest.Wait()
		}
		probe := s.call()
		probe.raw.Close()
		synctest.Wait()
		assert.EqualValues(t, 2, calls.Load(), "a probe is no connection")
	})
}

func TestAConnContextThatReturnsNilOrPanicsClosesTheConnection(t *testing.T) {
	for name, hook := range map[string]func(context.Context, mllp.ConnInfo) context.Context{
		"nil":   func(context.Context, mllp.ConnInfo) context.Context { return nil },
		"panic": func(context.Context, mllp.ConnInfo) context.Context { panic("x") },
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
				s := start(&mllp.Server{ConnContext: hook})
				c := s.call()
				io.WriteString(c.Conn, frame(msgA)) // with TLS it may be closed by then
				assert.NotEqual(t, "AA id1", c.hear())
				synctest.Wait()
				assert.Empty(t, s.delivered())
				assert.Equal(t, mllp.ReasonPanic, s.event(mllp.EventClosed).Reason)
			})
		})
	}
}

// whoCalls returns the Identity of the requests of a client with a certificate.
func whoCalls(t *testing.T, srv *mllp.Server, client *testpki.Pair) *mllp.Identity {
	t.Helper()
	p := pki()
	var got *mllp.Identity
	synctest.Test(t, func(t *testing.T) {
		srv.Handler = mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			got = r.Identity
			return nil, nil
		})
		s := serve(t, srv)
		s.clients = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
		if client != nil {
			s.clients.Certificates = []tls.Certificate{client.TLS()}
		}
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "AA id1", c.hear())
	})
	return got
}

func TestTheIdentityIsThatOfTheVerifiedCertificate(t *testing.T) {
	p, dir := pki(), t.TempDir()
	client := p.ca.Issue(testpki.Options{
		CommonName: "ward 7", Hosts: []string{"ward7.example.org", "192.0.2.7", "2001:db8::7"},
		URIs: []string{"urn:example:ward:7"}, Emails: []string{"ward7@example.org"},
	})
	files, ca := p.server.Write(dir, "server"), p.ca.Write(dir, "ca")
	props := func(change func(*tlsprops.TlsProperties)) *mllp.Server {
		tp := &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, TrustStorePath: ca, RequireClientCert: true,
			ReloadInterval: -1,
		}
		change(tp)
		return &mllp.Server{TLS: tp}
	}
	config := func(auth tls.ClientAuthType) *mllp.Server {
		return &mllp.Server{TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12, ClientCAs: p.ca.Pool(), ClientAuth: auth,
		}}
	}
	full := &mllp.Identity{
		Subject: "CN=ward 7", CommonName: "ward 7", Issuer: "CN=Test CA", DNSNames: []string{"ward7.example.org"},
		IPAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
		URIs:        []string{"urn:example:ward:7"}, EmailAddresses: []string{"ward7@example.org"}, SPKI: client.Pin(),
	}
	for name, tc := range map[string]struct {
		srv  *mllp.Server
		none bool // the client presents no certificate
		want *mllp.Identity
	}{
		"required":  {srv: props(func(*tlsprops.TlsProperties) {}), want: full},
		"any usage": {srv: props(func(p *tlsprops.TlsProperties) { p.AnyExtendedKeyUsage = true }), want: full},
		"only the key verified": {srv: props(func(p *tlsprops.TlsProperties) {
			p.TrustStorePath, p.Verify, p.Pins = "", tlsprops.VerifyPinned, []string{client.Pin()}
		}), want: &mllp.Identity{SPKI: client.Pin()}},
		"optional":              {srv: props(func(p *tlsprops.TlsProperties) { p.RequireClientCert, p.ClientAuth = false, "optional" }), want: full},
		"optional, none":        {srv: props(func(p *tlsprops.TlsProperties) { p.RequireClientCert, p.ClientAuth = false, "optional" }), none: true},
		"own config":            {srv: config(tls.RequireAndVerifyClientCert), want: full},
		"own config, unchecked": {srv: config(tls.RequireAnyClientCert)},
	} {
		t.Run(name, func(t *testing.T) {
			pair := client
			if tc.none {
				pair = nil
			}
			got := whoCalls(t, tc.srv, pair)
			if tc.want == nil {
				assert.Nil(t, got)
				return
			}
			require.NotNil(t, got)
			assert.Equal(t, client.Cert.Raw, got.Certificate.Raw)
			bare := *got
			if bare.Serial != "" {
				assert.Equal(t, strings.ToUpper(client.Cert.SerialNumber.Text(16)), bare.Serial)
			}
			bare.Certificate, bare.Serial = (*x509.Certificate)(nil), ""
			assert.Equal(t, tc.want, &bare)
		})
	}
}
