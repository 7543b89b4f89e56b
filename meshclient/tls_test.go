package meshclient_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
	"github.com/carewire/carewire/tlsprops"
)

// stranger gives a client a certificate of an authority that nobody knows.
func stranger(t *testing.T) func(*meshclient.Config) {
	t.Helper()
	files := testpki.NewCA(t, "unknown").Client("stranger").Write(t.TempDir(), "stranger")
	return func(c *meshclient.Config) {
		ca := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(ca, []byte(c.CACert), 0o600))
		c.ClientCert, c.ClientKey, c.CACert = "", "", ""
		c.TLS = &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, TrustStorePath: ca, AlwaysSendClientCert: true,
		}
	}
}

func noCertificate(c *meshclient.Config) { c.ClientCert, c.ClientKey = "", "" }

func TestAClientCertificateThatIsRejectedIsSaidToBeHoweverTheServerSaysIt(t *testing.T) {
	for name, o := range map[string]meshtest.Options{
		"TLS 1.2": {MaxTLS: tls.VersionTLS12}, "TLS 1.3": {}, "a page of HTML": {CertificateByHTTP: true},
	} {
		for who, change := range map[string]func(*meshclient.Config){"stranger": stranger(t), "none": noCertificate} {
			t.Run(name+", "+who, func(t *testing.T) {
				s := serve(t, o)
				_, err := connect(t, s, alice, change).Inbox(bounded(t), nil)
				e := failed(t, err)
				assert.ErrorIs(t, e, meshclient.ErrClientCertificate)
				assert.False(t, e.Retryable())
				assert.False(t, e.MaybeDelivered())
				for range 3 { // what a body does to the alert is a matter of luck
					m := message(noise(4<<20, 1))
					_, err = connect(t, s, alice, change).Send(bounded(t), m)
					e = failed(t, err)
					assert.ErrorIs(t, e, meshclient.ErrClientCertificate, "%v", e)
					assert.False(t, e.Retryable())
					assert.False(t, e.MaybeDelivered())
				}
				assert.Empty(t, s.Waiting(bob))
			})
		}
	}
}

func TestAServerThatCannotBeVerifiedGetsNothing(t *testing.T) {
	s := serve(t, meshtest.Options{})
	other := serve(t, meshtest.Options{})
	for name, change := range map[string]func(*meshclient.Config){
		"unknown root":     func(c *meshclient.Config) { c.CACert = string(other.CA()) },
		"the host's roots": func(c *meshclient.Config) { c.CACert = "" },
		"another name":     func(c *meshclient.Config) { c.BaseURL = "https://mesh.example:" + port(s.URL); c.NetDialer = to(s.URL) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := connect(t, s, alice, change).Send(bounded(t), message([]byte("x")))
			e := failed(t, err)
			_, verification := asType[*tls.CertificateVerificationError](e)
			assert.True(t, verification, "%v", e)
			assert.False(t, e.Retryable())
			assert.False(t, e.MaybeDelivered())
			assert.NotErrorIs(t, e, meshclient.ErrClientCertificate)
		})
	}
	assert.Empty(t, s.Requests())
}

func TestManyRequestsTakeOneHandshake(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := serve(t, meshtest.Options{HTTP2: h2})
		var connections atomic.Int32
		a := connect(t, s, alice, func(c *meshclient.Config) {
			c.Observe = func(e httpsender.Event) {
				if e.Kind == httpsender.EventConnected {
					connections.Add(1)
				}
			}
		})
		for i := range 20 {
			_, err := a.Send(bounded(t), message(noise(1000, uint64(i))))
			require.NoError(t, err)
		}
		assert.Equal(t, int32(1), connections.Load())
	}
}

func TestACertificateThatIsRenewedOnDiskIsUsedWithoutARestart(t *testing.T) {
	s := serve(t, meshtest.Options{})
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path+".new", b, 0o600))
		require.NoError(t, os.Rename(path+".new", path))
		return path
	}
	renew := func() (cert, key string) {
		c, k, err := s.Client(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		require.NoError(t, err)
		both := append(bytes.Clone(c), k...) // in one file, so that they change at once
		return write("client.pem", both), ""
	}
	cert, key := renew()
	rotated := make(chan struct{}, 10)
	a := connect(t, s, alice, func(c *meshclient.Config) {
		c.ClientCert, c.ClientKey, c.CACert = "", "", ""
		c.TLS = &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: cert, CertStorePath: key, TrustStorePath: write("ca.pem", s.CA()), ReloadInterval: 10 * time.Millisecond,
		}
		c.Observe = func(e httpsender.Event) {
			if e.Kind == httpsender.EventRotated {
				rotated <- struct{}{}
			}
		}
	})
	require.NoError(t, a.Handshake(bounded(t)))
	before := a.TLSStatus()
	renew()
	for waiting := true; waiting; {
		select {
		case <-rotated:
			waiting = false
		case <-bounded(t).Done():
			t.Fatal("the new certificate was not noticed")
		default:
			require.NoError(t, a.Handshake(bounded(t)), "no request fails meanwhile")
		}
	}
	require.NoError(t, a.Handshake(bounded(t)))
	assert.NotEqual(t, before, a.TLSStatus())
}

// certificate is an authority as meshtest takes it.
func certificate(ca *testpki.Authority) *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{ca.Cert.Raw}, PrivateKey: ca.Key}
}

func TestTheFakeTakesTheCallersAuthority(t *testing.T) {
	ca := testpki.NewCA(t, "mine")
	s := serve(t, meshtest.Options{CA: certificate(ca)})
	assert.Equal(t, string(ca.PEM()), string(s.CA()))
	require.NoError(t, connect(t, s, alice).Handshake(bounded(t)))
	_, err := meshtest.New(meshtest.Options{CA: &tls.Certificate{}})
	require.Error(t, err)
	_, err = meshtest.New(meshtest.Options{Mailboxes: map[string]string{"a": ""}})
	require.Error(t, err)
}

// NHS's own client still has the root that expired in 2024 beside the one that
// followed.
func TestARootThatHasExpiredMayStandBesideAGoodOneAndIsReported(t *testing.T) {
	s := serve(t, meshtest.Options{})
	old := testpki.NewCAWith(t, testpki.Options{CommonName: "old root", NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)})
	bundle := string(old.PEM()) + string(s.CA())
	file := filepath.Join(t.TempDir(), "roots.pem")
	require.NoError(t, os.WriteFile(file, []byte(bundle), 0o600))
	for name, set := range map[string]func(*meshclient.Config){
		"PEM": func(c *meshclient.Config) { c.CACert = bundle },
		"files": func(c *meshclient.Config) {
			dir := t.TempDir()
			for i, text := range []*string{&c.ClientCert, &c.ClientKey} {
				path := filepath.Join(dir, []string{"cert.pem", "key.pem"}[i])
				require.NoError(t, os.WriteFile(path, []byte(*text), 0o600))
				*text = path
			}
			c.CACert = file
		},
	} {
		var said bytes.Buffer
		c := connect(t, s, bob, set, func(c *meshclient.Config) { c.Logger = everything(&said) })
		require.NoError(t, c.Handshake(bounded(t)), name)
		assert.Contains(t, said.String(), "old root", name)
		assert.Contains(t, said.String(), "expire", name)
	}
}

// tunnel is a CONNECT proxy that wants a password.
func tunnel(t *testing.T) (addr string, tunnels func() int) {
	t.Helper()
	var count atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := proxyAuth(r); !ok || user != "engine" || password != "pass:word" {
			w.Header().Set("Proxy-Authenticate", "Basic")
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		up, err := new(net.Dialer).DialContext(r.Context(), "tcp", r.Host)
		if err != nil || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer up.Close()
		count.Add(1)
		w.WriteHeader(http.StatusOK)
		down, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(up, buffered); up.Close() })
		_, _ = io.Copy(down, up)
		down.Close()
		both.Wait()
	}))
	t.Cleanup(proxy.Close)
	return proxy.Listener.Addr().String(), func() int { return int(count.Load()) }
}

func proxyAuth(r *http.Request) (user, password string, ok bool) {
	return (&http.Request{Header: http.Header{"Authorization": r.Header.Values("Proxy-Authorization")}}).BasicAuth()
}

// The server wants the client's certificate, and the proxy sees a tunnel: what it is
// shown itself is tested in package httpsender.
func TestMESHIsReachedThroughAProxyWithTheCertificateAndVerified(t *testing.T) {
	s := serve(t, meshtest.Options{})
	proxy, tunnels := tunnel(t)
	through := func(c *meshclient.Config) { c.ProxyURL = "http://engine:pass%3Aword@" + proxy }
	require.NoError(t, connect(t, s, bob, through).Handshake(bounded(t)))
	assert.Equal(t, 1, tunnels())
	_, err := connect(t, s, alice, through).Send(bounded(t), message(noise(1<<20, 1)))
	require.NoError(t, err)
	assert.Equal(t, 2, tunnels())

	for name, bad := range map[string]func(*meshclient.Config){
		"another root":   func(c *meshclient.Config) { c.CACert = string(testpki.NewCA(t, "other").PEM()) },
		"no certificate": noCertificate,
		"no password":    func(c *meshclient.Config) { c.ProxyURL = "http://" + proxy },
	} {
		err := connect(t, s, bob, through, bad, once).Handshake(bounded(t))
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "pass:word", name)
	}
	assert.Len(t, ops(s, "handshake"), 1)
	before := tunnels()
	require.NoError(t, connect(t, s, bob, through, func(c *meshclient.Config) { c.NoProxy = "127.0.0.1" }).Handshake(bounded(t)))
	assert.Equal(t, before, tunnels(), "NO_PROXY")
}

func once(c *meshclient.Config) { c.Retry.MaxAttempts = -1 }

func TestAClosedClientSaysSo(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	require.NoError(t, a.Handshake(bounded(t)))
	require.NoError(t, a.Close())
	e := failed(t, a.Handshake(bounded(t)))
	assert.ErrorIs(t, e, httpsender.ErrClosed)
	assert.False(t, e.Retryable())
}
