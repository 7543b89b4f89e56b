package httpsender_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/tlsprops"
)

// dials makes s dial nothing, and returns where it would have.
func dials(s *httpsender.Sender) *atomic.Value {
	var addr atomic.Value
	s.Retry.MaxAttempts = -1
	s.NetDialer = dialFunc(func(_ context.Context, _, to string) (net.Conn, error) {
		addr.Store(to)
		return nil, os.ErrPermission
	})
	return &addr
}

func TestWhichHostsAreReachedThroughAProxy(t *testing.T) {
	const proxy = "proxy.example:3128"
	for name, c := range map[string]struct {
		noProxy string
		url     string
		direct  bool
	}{
		"none named":                       {"", "http://a.example", false},
		"all":                              {"*", "http://a.example", true},
		"all, among others":                {"b.example, *", "http://a.example", true},
		"the host":                         {"a.example", "http://a.example", true},
		"the host in other letters":        {"A.Example", "http://a.EXAMPLE", true},
		"what is below it":                 {"example", "https://a.b.example", true},
		"what only ends like it":           {"example", "http://badexample", false},
		"only what is below it":            {".example", "http://example", false},
		"what is below it, with a dot":     {".example", "http://a.example", true},
		"what is below it, with a star":    {"*.example", "http://a.example", true},
		"the port":                         {"a.example:8080", "http://a.example:8080", true},
		"another port":                     {"a.example:8080", "http://a.example", false},
		"the port that goes without":       {"a.example:443", "https://a.example", true},
		"an address":                       {"10.1.2.3", "http://10.1.2.3", true},
		"an address and port":              {"10.1.2.3:80", "http://10.1.2.3", true},
		"an address and another port":      {"10.1.2.3:81", "http://10.1.2.3", false},
		"a prefix":                         {"10.0.0.0/8", "http://10.1.2.3", true},
		"a prefix written from its middle": {"10.9.9.9/8", "http://10.1.2.3", true},
		"another prefix":                   {"11.0.0.0/8", "http://10.1.2.3", false},
		"an IPv6 address":                  {"2001:db8::1", "http://[2001:db8::1]", true},
		"an IPv6 address in brackets":      {"[2001:db8::1]", "http://[2001:db8::1]", true},
		"an IPv6 address with a port":      {"[2001:db8::1]:80", "http://[2001:db8::1]", true},
		"an IPv6 prefix":                   {"2001:db8::/32", "http://[2001:db8::1]", true},
		"an address in IPv6":               {"10.0.0.0/8", "http://[::ffff:10.1.2.3]", true},
		"a name that is no prefix":         {"10.0.0.0/8", "http://a.example", false},
		"blanks":                           {" , b.example , ", "http://b.example", true},
		"this machine, if not named":       {"", "http://localhost", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &httpsender.Sender{ProxyURL: "http://" + proxy, NoProxy: c.noProxy}
			defer s.Close()
			addr := dials(s)
			outcome(t, s, request(t, "GET", c.url, nil))
			if c.direct {
				assert.NotEqual(t, proxy, addr.Load())
			} else {
				assert.Equal(t, proxy, addr.Load())
			}
		})
	}
}

func TestProxiesOfTheEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		env    map[string]string
		sender *httpsender.Sender
		url    string
		want   string
	}{
		"for http":                  {map[string]string{"HTTP_PROXY": "http://p:1"}, &httpsender.Sender{}, "http://a.example", "p:1"},
		"for https":                 {map[string]string{"HTTPS_PROXY": "http://p:1"}, &httpsender.Sender{}, "https://a.example", "p:1"},
		"not for the other":         {map[string]string{"HTTP_PROXY": "http://p:1"}, &httpsender.Sender{}, "https://a.example", "a.example:443"},
		"in lower case":             {map[string]string{"http_proxy": "p"}, &httpsender.Sender{}, "http://a.example", "p:80"},
		"with its exceptions":       {map[string]string{"HTTP_PROXY": "p:1", "NO_PROXY": "a.example"}, &httpsender.Sender{}, "http://a.example", "a.example:80"},
		"never for this machine":    {map[string]string{"HTTP_PROXY": "p:1"}, &httpsender.Sender{}, "http://127.0.0.1:99", "127.0.0.1:99"},
		"nor by its name":           {map[string]string{"HTTP_PROXY": "p:1"}, &httpsender.Sender{}, "http://localhost:99", "localhost:99"},
		"not in a CGI program":      {map[string]string{"HTTP_PROXY": "p:1", "REQUEST_METHOD": "GET"}, &httpsender.Sender{}, "http://a.example", "a.example:80"},
		"unless there is a setting": {map[string]string{"HTTP_PROXY": "p:1"}, &httpsender.Sender{ProxyURL: "http://q:2"}, "http://a.example", "q:2"},
		"whose exceptions hold":     {map[string]string{"NO_PROXY": "a.example"}, &httpsender.Sender{ProxyURL: "http://q:2"}, "http://a.example", "q:2"},
		"or exceptions alone":       {map[string]string{"HTTP_PROXY": "p:1", "NO_PROXY": "b.example"}, &httpsender.Sender{NoProxy: "a.example"}, "http://a.example", "a.example:80"},
		"or it says none":           {map[string]string{"HTTP_PROXY": "p:1"}, &httpsender.Sender{ProxyURL: httpsender.DirectOnly}, "http://a.example", "a.example:80"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUEST_METHOD"} {
				t.Setenv(v, "")
				t.Setenv(strings.ToLower(v), "")
			}
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			s := c.sender
			defer s.Close()
			addr := dials(s)
			outcome(t, s, request(t, "GET", c.url, nil))
			assert.Equal(t, c.want, addr.Load())
			t.Setenv("HTTP_PROXY", "http://later:1") // it is read once
			t.Setenv("HTTPS_PROXY", "http://later:1")
			outcome(t, s, request(t, "GET", c.url, nil))
			assert.Equal(t, c.want, addr.Load())
		})
	}
}

// aProxy is a CONNECT proxy in this process.
type aProxy struct {
	addr    string
	answer  string // in place of a tunnel
	got     chan *http.Request
	certs   atomic.Int32 // client certificates that were shown to it
	tunnels atomic.Int32
}

// proxying runs p, with TLS if pair is not nil.
func proxying(t *testing.T, p *aProxy, config func() (net.Listener, error)) *aProxy {
	t.Helper()
	ln, err := config()
	require.NoError(t, err)
	p.addr, p.got = ln.Addr().String(), make(chan *http.Request, 100)
	var serving sync.WaitGroup
	conns := make(chan net.Conn, 100)
	serving.Go(func() {
		defer close(conns)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- c
			serving.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		for c := range conns {
			c.Close()
		}
		serving.Wait()
	})
	return p
}

func (p *aProxy) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if secure, ok := c.(*tls.Conn); ok && len(secure.ConnectionState().PeerCertificates) > 0 {
		p.certs.Add(1)
	}
	p.got <- r
	if p.answer != "" {
		io.WriteString(c, p.answer)
		return
	}
	up, err := net.DialTimeout("tcp", r.Host, patience)
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer up.Close()
	p.tunnels.Add(1)
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\nX-Proxy: 1\r\n\r\n")
	done := make(chan struct{}, 2)
	go func() { io.Copy(up, in); done <- struct{}{} }()
	go func() { io.Copy(c, up); done <- struct{}{} }()
	<-done
	c.Close()
	up.Close()
	<-done
}

func TestATunnelShowsTheProxyNeitherCertificateNorRequest(t *testing.T) {
	p := newPKI(t)
	server := serveTLS(t, p, nil)
	for name, secure := range map[string]bool{"http proxy": false, "https proxy": true} {
		t.Run(name, func(t *testing.T) {
			proxy := proxying(t, &aProxy{}, func() (net.Listener, error) {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if secure && err == nil {
					ln = p.proxyListener(ln)
				}
				return ln, err
			})
			scheme := map[bool]string{false: "http", true: "https"}[secure]
			s := &httpsender.Sender{
				TLS: p.known(), ProxyTLS: &tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.caFile},
				ProxyURL: scheme + "://us%40er:pa%3Ass@" + proxy.addr,
			}
			defer s.Close()
			for range 3 {
				r := request(t, "POST", server.URL+"/secret", text("secret"))
				r.Header.Set("X-Secret", "1")
				status, body, err := exchange(s, r)
				require.NoError(t, err)
				assert.Equal(t, 200, status)
				assert.Equal(t, "a client", body, "the server knows the client")
			}
			connect := <-proxy.got
			assert.Equal(t, "CONNECT", connect.Method)
			assert.Equal(t, strings.TrimPrefix(server.URL, "https://"), connect.RequestURI)
			assert.Equal(t, "Basic dXNAZXI6cGE6c3M=", connect.Header.Get("Proxy-Authorization"))
			assert.NotContains(t, fmt.Sprint(connect.Header), "Secret")
			assert.Equal(t, int32(1), proxy.tunnels.Load())
			assert.Zero(t, proxy.certs.Load(), "the client certificate is not for the proxy")
		})
	}
}

func TestPlainHTTPGoesThroughAnHTTPSProxy(t *testing.T) {
	p := newPKI(t)
	proxy := proxying(t, &aProxy{answer: fine}, func() (net.Listener, error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			ln = p.proxyListener(ln)
		}
		return ln, err
	})
	s := &httpsender.Sender{
		ProxyURL: "https://user:secret1@" + proxy.addr, ProxyTLS: &tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.caFile},
	}
	defer s.Close()
	_, body, err := exchange(s, request(t, "PUT", "http://server.example/x?q", text("x")))
	require.NoError(t, err)
	assert.Equal(t, "ok", body)
	got := <-proxy.got
	assert.Equal(t, "http://server.example/x?q", got.RequestURI)
	assert.Equal(t, "Basic dXNlcjpzZWNyZXQx", got.Header.Get("Proxy-Authorization"))

	distrustful := &httpsender.Sender{ProxyURL: "https://user:secret1@" + proxy.addr}
	defer distrustful.Close()
	e := outcome(t, distrustful, request(t, "PUT", "http://server.example/x", text("x")))
	assert.Equal(t, httpsender.Rejected, e.Outcome, "%v", e)
	assert.Contains(t, e.Error(), "unknown authority")

	wrong := &httpsender.Sender{ProxyURL: "https://p", ProxyTLS: &tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.dir + "/none"}}
	defer wrong.Close()
	assert.Contains(t, outcome(t, wrong, request(t, "GET", "http://server.example", nil)).Error(), "ProxyTLS")
}

func TestWhatAProxyAnswersToCONNECT(t *testing.T) {
	p := newPKI(t)
	for name, c := range map[string]struct {
		answer  string
		outcome httpsender.Outcome
		text    string
	}{
		"407":               {"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 5\r\n\r\nMeier", httpsender.Rejected, "user and password"},
		"401, of tinyproxy": {"HTTP/1.1 401 Who\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 5\r\n\r\nMeier", httpsender.Rejected, "user and password"},
		"403":               {"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", httpsender.Rejected, "403"},
		"502":               {"HTTP/1.1 502 Down\r\n\r\n", httpsender.Retryable, "502"},
		"503":               {"HTTP/1.1 503 Down\r\n\r\n", httpsender.Retryable, "503"},
		"garbage":           {"Meier\r\n\r\n", httpsender.Retryable, "not well-formed"},
		"a header for ever": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 20<<10), httpsender.Retryable, "not well-formed"},
		"more than it may":  {"HTTP/1.1 200 OK\r\n\r\nMeier", httpsender.Retryable, "not well-formed"},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := proxying(t, &aProxy{answer: c.answer}, func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
			s := &httpsender.Sender{TLS: p.known(), ProxyURL: "http://u:hunter2@" + proxy.addr, Retry: httpsender.Retry{MaxAttempts: -1}}
			defer s.Close()
			e := outcome(t, s, request(t, "POST", "https://server.example", text("x")))
			assert.Equal(t, c.outcome, e.Outcome, "%v", e)
			assert.False(t, e.MaybeDelivered())
			assert.Contains(t, e.Error(), c.text)
			for _, secret := range []string{"Meier", "hunter2"} {
				assert.NotContains(t, e.Error(), secret)
			}
		})
	}
}

func TestASilentProxyIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{ProxyURL: "http://proxy", DialTimeout: 5 * time.Second, Retry: httpsender.Retry{MaxAttempts: -1}}
		rawly(t, s, nil, func(*memnet.Conn, *seen) bool { time.Sleep(time.Hour); return false })
		start := time.Now()
		e := outcome(t, s, request(t, "POST", "https://server.example", text("x")))
		assert.Equal(t, 5*time.Second, time.Since(start))
		assert.ErrorIs(t, e, context.DeadlineExceeded)
		assert.False(t, e.MaybeDelivered())
	})
}

// tinyproxy runs the real one on a port of its own.
func tinyproxy(t *testing.T, extra string) string {
	t.Helper()
	path := interop.Need(t, "tinyproxy")
	addr := loopback()
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	config := filepath.Join(t.TempDir(), "tinyproxy.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil,
		"Port %s\nListen %s\nTimeout 30\nMaxClients 20\n%s\n", port, host, extra), 0o600))
	child(t, addr, path, "-d", "-c", config)
	return addr
}

func TestTinyproxy(t *testing.T) {
	addr := tinyproxy(t, "BasicAuth user secret1")
	p := newPKI(t)
	secure := serveTLS(t, p, nil)
	plain := servePlain(t)
	for name, target := range map[string]string{"a tunnel for https": secure.URL, "http as it is": plain.URL} {
		t.Run(name, func(t *testing.T) {
			for password, good := range map[string]bool{"secret1": true, "hunter2": false} {
				s := &httpsender.Sender{ProxyURL: "http://user:" + password + "@" + addr}
				if target == secure.URL {
					s.TLS = p.known()
				}
				for range 3 {
					// It closes connections that it said nothing about, which a POST may meet.
					status, body, err := exchange(s, request(t, "PUT", target, text("x")))
					if good {
						require.NoError(t, err)
						assert.Equal(t, 200, status)
						assert.NotEmpty(t, body)
						continue
					}
					assert.NotEqual(t, 200, status)
					if err != nil { // in a tunnel; or the proxy did not wait for the body
						e := failed(t, err)
						assert.Equal(t, httpsender.Rejected, e.Outcome, "%v", e)
						assert.Equal(t, target == secure.URL, errors.Is(err, httpsender.ErrProxyAuth))
						assert.NotContains(t, e.Error(), "hunter2")
					}
				}
				s.Close()
			}
		})
	}
	t.Run("not for NoProxy", func(t *testing.T) {
		s := &httpsender.Sender{ProxyURL: "http://user:hunter2@" + addr, NoProxy: "127.0.0.0/8"}
		defer s.Close()
		status, _, err := exchange(s, request(t, "GET", plain.URL, nil))
		require.NoError(t, err)
		assert.Equal(t, 200, status)
	})
}
