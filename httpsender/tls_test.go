package httpsender_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// pki is a CA with a server's and a client's pair, as files.
type pki struct {
	dir         string
	ca          *testpki.Authority
	server      *testpki.Pair
	caFile      string
	serverFiles testpki.Files
	clientFiles testpki.Files
}

// cas gives every CA a name of its own: servers tell clients whose certificates
// they accept by name.
var cas atomic.Int64

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), ca: testpki.NewCA(t, fmt.Sprintf("Test CA %d", cas.Add(1)))}
	p.server = p.ca.Server("localhost", "127.0.0.1", "::1", "mem.example")
	p.caFile = p.ca.Write(p.dir, "ca.crt")
	p.serverFiles = p.server.Write(p.dir, "server")
	p.clientFiles = p.ca.Client("a client").Write(p.dir, "client")
	return p
}

// known are the settings of a client with a certificate.
func (p *pki) known() *tlsprops.TlsProperties {
	return &tlsprops.TlsProperties{
		Enabled: true, TrustStorePath: p.caFile, KeyStorePath: p.clientFiles.Key, CertStorePath: p.clientFiles.Cert,
		ReloadInterval: 20 * time.Millisecond,
	}
}

// mutual is the configuration of a server that requires certificates.
func (p *pki) mutual() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{p.server.TLS()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.ca.Pool(),
	}
}

// proxyListener makes ln one of a proxy that would like a certificate.
func (p *pki) proxyListener(ln net.Listener) net.Listener {
	return tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, ClientAuth: tls.RequestClientCert})
}

// whoami answers with the name of the client.
func whoami(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	} else {
		io.WriteString(w, "nobody")
	}
}

// serveTLS runs a server that requires certificates; nil is whoami.
func serveTLS(t testing.TB, p *pki, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	if handler == nil {
		handler = whoami
	}
	srv := httptest.NewUnstartedServer(handler)
	srv.TLS = p.mutual()
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func servePlain(t testing.TB) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(whoami))
	t.Cleanup(srv.Close)
	return srv
}

// loopback returns an address of this machine that nobody else uses: every
// address of 127.0.0.0/8 has ports of its own.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d:47811", 1+rand.N(250), rand.N(250), 1+rand.N(250))
}

// child runs a program until the test ends, and returns when it listens on addr.
func child(t *testing.T, addr, path string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	deadline := time.After(patience)
	for {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s: %s", path, out.String())
		case <-deadline:
			t.Fatalf("%s does not listen on %s", path, addr)
		case <-time.After(20 * time.Millisecond): // it cannot tell when it is ready
		}
	}
}

func TestTwentyRequestsTakeOneHandshake(t *testing.T) {
	for name, off := range map[string]bool{"HTTP/2": false, "HTTP/1.1": true} {
		t.Run(name, func(t *testing.T) {
			p := newPKI(t)
			srv := serveTLS(t, p, nil)
			var j journal
			s := &httpsender.Sender{TLS: p.known(), DisableHTTP2: off, Observe: j.observe, ProxyURL: httpsender.DirectOnly}
			defer s.Close()
			for range 20 {
				_, body, err := exchange(s, request(t, "POST", srv.URL, text("x")))
				require.NoError(t, err)
				assert.Equal(t, "a client", body)
			}
			connected := j.of(httpsender.EventConnected)
			require.Len(t, connected, 1)
			assert.Positive(t, connected[0].Handshake)
			attempts := j.of(httpsender.EventAttempt)
			require.Len(t, attempts, 20)
			for i, e := range attempts {
				assert.Equal(t, i > 0, e.Reused)
				assert.Equal(t, map[bool]string{false: "HTTP/2.0", true: "HTTP/1.1"}[off], e.Proto)
				assert.Positive(t, e.Connected)
				assert.Positive(t, e.FirstByte)
				assert.Positive(t, e.Duration)
			}
			assert.Len(t, s.TLSStatus().Certificates, 2)
		})
	}
}

func TestCertificatesAreChecked(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	srv := serveTLS(t, p, nil)
	plain := servePlain(t)
	for name, c := range map[string]struct {
		tls  *tlsprops.TlsProperties
		url  string
		want string
	}{
		"by default with the host's roots": {nil, srv.URL, "certificate signed by unknown authority"},
		"with a disabled TLS too":          {&tlsprops.TlsProperties{}, srv.URL, "certificate signed by unknown authority"},
		"an unknown authority":             {&tlsprops.TlsProperties{Enabled: true, TrustStorePath: other.caFile}, srv.URL, "unknown authority"},
		"the wrong name":                   {&tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.caFile, SniServerName: "other.example"}, srv.URL, "other.example"},
		"no client certificate":            {&tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.caFile}, srv.URL, "rejected the client certificate"},
		"a client of another authority":    {&tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.caFile, KeyStorePath: other.clientFiles.Key, CertStorePath: other.clientFiles.Cert, AlwaysSendClientCert: true}, srv.URL, "rejected the client certificate"},
		"a server without TLS":             {p.known(), strings.Replace(plain.URL, "http:", "https:", 1), "does not speak TLS"},
		"a URL without TLS":                {p.known(), plain.URL, "http://"},
		"a file that is not there":         {&tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.dir + "/none"}, srv.URL, "trustStorePath"},
		"settings that are not enabled":    {&tlsprops.TlsProperties{TrustStorePath: p.caFile}, srv.URL, "enabled"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, off := range []bool{false, true} {
				s := &httpsender.Sender{TLS: c.tls, DisableHTTP2: off, ProxyURL: httpsender.DirectOnly, Retry: quick()}
				resp, err := s.Do(request(t, "POST", c.url, text("x")))
				if err == nil {
					resp.Body.Close()
				}
				e := failed(t, err)
				if strings.Contains(c.want, "client certificate") && !errors.Is(e, httpsender.ErrPeerRejectedCertificate) {
					// The alert is lost if the server's reset comes first, or if HTTP/2
					// meets it before the request: then it is not known why.
					assert.NotEqual(t, httpsender.Sent, e.Outcome)
					assert.NotErrorIs(t, e, httpsender.ErrBadResponse)
					s.Close()
					continue
				}
				assert.Contains(t, e.Error(), c.want)
				assert.Equal(t, httpsender.Rejected, e.Outcome, "%v", e)
				if !strings.Contains(c.want, "client certificate") {
					assert.LessOrEqual(t, e.Attempts, 1, "another try cannot help")
				}
				s.Close()
			}
		})
	}
}

func TestExtraRootsAddToTheHosts(t *testing.T) {
	p := newPKI(t)
	srv := serveTLS(t, p, nil)
	props := p.known()
	props.TrustSystemRoots = true
	s := &httpsender.Sender{TLS: props, ProxyURL: httpsender.DirectOnly}
	defer s.Close()
	_, _, err := exchange(s, request(t, "GET", srv.URL, nil))
	require.NoError(t, err)
}

func TestTLSConfigReplacesTLS(t *testing.T) {
	p := newPKI(t)
	srv := serveTLS(t, p, nil)
	config := &tls.Config{RootCAs: p.ca.Pool(), Certificates: []tls.Certificate{p.ca.Client("by hand").TLS()}}
	s := &httpsender.Sender{TLSConfig: config, TLS: &tlsprops.TlsProperties{Enabled: true, TrustStorePath: "none"}, ProxyURL: httpsender.DirectOnly}
	defer s.Close()
	_, body, err := exchange(s, request(t, "GET", srv.URL, nil))
	require.NoError(t, err)
	assert.Equal(t, "by hand", body)
	assert.Empty(t, config.NextProtos, "the caller's configuration is not touched")
	assert.ErrorIs(t, outcome(t, s, request(t, "GET", "http://127.0.0.1:1", nil)), httpsender.ErrPlaintext)
}

func TestANewClientCertificateIsUsedUnderLoadWithoutAFailure(t *testing.T) {
	for name, off := range map[string]bool{"HTTP/2": false, "HTTP/1.1": true} {
		t.Run(name, func(t *testing.T) {
			p := newPKI(t)
			srv := serveTLS(t, p, nil)
			var j journal
			s := &httpsender.Sender{TLS: p.known(), DisableHTTP2: off, Observe: j.observe, ProxyURL: httpsender.DirectOnly}
			defer s.Close()
			ctx, stop := context.WithTimeout(t.Context(), patience)
			defer stop()
			_, _, err := exchange(s, request(t, "POST", srv.URL, text("x")))
			require.NoError(t, err)
			var load sync.WaitGroup
			var sent atomic.Int64
			names := new(sync.Map)
			for range 4 {
				load.Go(func() {
					for ctx.Err() == nil {
						status, body, err := exchange(s, request(t, "POST", srv.URL, text(strings.Repeat("x", 1000))))
						if !assert.NoError(t, err) || !assert.Equal(t, 200, status) {
							return
						}
						names.Store(body, true)
						sent.Add(1)
					}
				})
			}
			for i := range 5 {
				want := fmt.Sprintf("client %d", i)
				p.ca.Client(want).Write(p.dir, "client")
				require.Eventually(t, func() bool { _, ok := names.Load(want); return ok }, patience, time.Millisecond, "%s was never seen", want)
			}
			stop()
			load.Wait()
			assert.GreaterOrEqual(t, len(j.of(httpsender.EventRotated)), 5)
			again := 0 // HTTP/2 requests that chose a connection as it was closed
			for _, e := range j.of(httpsender.EventAttempt) {
				if e.Err != nil {
					again++
				}
			}
			// What comes after a rotation uses the new certificate alone.
			_, body, err := exchange(s, request(t, "POST", srv.URL, text("x")))
			require.NoError(t, err)
			assert.Equal(t, "client 4", body)
			t.Logf("%d requests, none failed; %d were sent again", sent.Load(), again)
		})
	}
}

func TestARotationClosesIdleConnectionsWithoutARequest(t *testing.T) {
	p := newPKI(t)
	closed := make(chan struct{}, 10)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(whoami))
	srv.TLS = p.mutual()
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	srv.StartTLS()
	defer srv.Close()
	s := &httpsender.Sender{TLS: p.known(), ProxyURL: httpsender.DirectOnly}
	defer s.Close()
	_, _, err := exchange(s, request(t, "GET", srv.URL, nil))
	require.NoError(t, err)
	p.ca.Client("another").Write(p.dir, "client")
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the connection with the old certificate is still there")
	}
}

func TestANameThatWasNotFilledInIsRefused(t *testing.T) {
	_, err := httpsender.NewRequest(t.Context(), "GET", "https://${host}/", nil)
	require.Error(t, err)
}

// blackhole is a connection that can stop carrying bytes without a word.
type blackhole struct {
	net.Conn
	dark atomic.Bool
}

func (c *blackhole) Write(p []byte) (int, error) {
	if c.dark.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestADeadHTTP2PeerIsNoticedWithoutARequest(t *testing.T) {
	pk := newPKI(t)
	bubble(t, func(t *testing.T) {
		ln := memnet.Listen()
		srv := &http.Server{Handler: http.HandlerFunc(whoami), TLSConfig: pk.mutual(), ErrorLog: quiet}
		var serving sync.WaitGroup
		serving.Go(func() { srv.ServeTLS(ln, "", "") })
		var conn *blackhole
		s := &httpsender.Sender{
			TLSConfig: &tls.Config{RootCAs: pk.ca.Pool(), Certificates: []tls.Certificate{pk.ca.Client("c").TLS()}},
			ProxyURL:  httpsender.DirectOnly, PingInterval: 10 * time.Second, IdleConnTimeout: time.Hour,
			StallTimeout: time.Hour, ResponseHeaderTimeout: time.Hour,
			NetDialer: dialFunc(func(context.Context, string, string) (net.Conn, error) {
				c, err := ln.Dial()
				conn = &blackhole{Conn: c}
				return conn, err
			}),
		}
		t.Cleanup(func() {
			s.Close()
			srv.Close()
			serving.Wait()
		})
		_, _, err := exchange(s, request(t, "GET", "https://mem.example", nil))
		require.NoError(t, err)
		first := conn
		time.Sleep(time.Minute) // pings keep it alive
		_, _, err = exchange(s, request(t, "GET", "https://mem.example", nil))
		require.NoError(t, err)
		assert.Same(t, first, conn)

		first.dark.Store(true)
		start := time.Now()
		status, _, err := exchange(s, request(t, "GET", "https://mem.example", nil))
		require.NoError(t, err)
		assert.Equal(t, 200, status)
		assert.NotSame(t, first, conn)
		assert.LessOrEqual(t, time.Since(start), 26*time.Second, "10 s of silence, 15 s for a ping, and a pause")
		first.Close()
	})
}
