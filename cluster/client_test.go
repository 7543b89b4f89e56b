package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
)

// roundTripper is a function as a transport.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// sendError returns err as what Do promises.
func sendError(t *testing.T, err error) *cluster.SendError {
	t.Helper()
	failed, ok := err.(*cluster.SendError) //nolint:errorlint // the type that is promised
	require.True(t, ok, "%T %v", err, err)
	return failed
}

func do(t *testing.T, a *cluster.Auth, c *http.Client, r *http.Request) (status int, body string, h http.Header, err error) {
	t.Helper()
	resp, err := a.Do(c, r, "node-b")
	if err != nil {
		assert.Nil(t, resp)
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(data), resp.Header, nil
}

func TestSignedRequestsPassOverTLSInBothVersionsOfHTTPAndThroughAProxy(t *testing.T) {
	for _, version := range []int{1, 2} {
		for _, proxied := range []bool{false, true} {
			t.Run(fmt.Sprintf("HTTP/%d proxied %t", version, proxied), func(t *testing.T) {
				a, b, _ := pair(t)
				start := func(h http.Handler) *httptest.Server {
					srv := httptest.NewUnstartedServer(h)
					srv.EnableHTTP2 = version == 2
					srv.StartTLS()
					t.Cleanup(srv.Close)
					return srv
				}
				next := &echo{}
				node := start(b.Handler(next))
				front := node
				if proxied {
					inner, err := url.Parse(node.URL)
					require.NoError(t, err)
					front = start(&httputil.ReverseProxy{
						Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(inner); r.SetXForwarded() },
						Transport: node.Client().Transport,
					})
				}
				for _, text := range []string{"", "{}", strings.Repeat("x", 200<<10)} {
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/a%2Fb//c;d?x=%20&y=+#part", strings.NewReader(text))
					require.NoError(t, err)
					status, got, _, err := do(t, a, front.Client(), r)
					require.NoError(t, err)
					assert.Equal(t, http.StatusOK, status)
					assert.Equal(t, text, got)
					assert.Equal(t, version, next.last.ProtoMajor)
					assert.Equal(t, proxied, next.last.Header.Get("X-Forwarded-For") != "")
				}
			})
		}
	}
}

func TestNoRedirectCarriesTheCredentialOn(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %t", plain), func(t *testing.T) {
			elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				t.Errorf("a redirect was followed, with headers %v", r.Header)
			}))
			defer elsewhere.Close()
			a, b, _ := pair(t, func(a, _ *cluster.Auth) { a.PlainHeader = plain })
			for _, status := range []int{301, 302, 303, 307, 308} {
				client := serve(t, b.Handler(http.RedirectHandler(elsewhere.URL, status)))
				client.CheckRedirect = func(*http.Request, []*http.Request) error { return nil } // follow all
				got, _, _, err := do(t, a, client, atLoopback(post(t, "{}")))
				require.NoError(t, err)
				assert.Equal(t, status, got)
			}
		})
	}
}

// What Authorize sets may be carried on by a client that is not ours.
func TestARedirectThatIsFollowedCarriesNothingThatPassesElsewhere(t *testing.T) {
	a, b, _ := pair(t)
	c := &cluster.Auth{Node: "node-c", Secret: secretA}
	next := &echo{}
	second := httptest.NewServer(c.Handler(next))
	defer second.Close()
	first := httptest.NewServer(b.Handler(http.RedirectHandler(second.URL+"/api/internal/dispatch?try=1", http.StatusTemporaryRedirect)))
	defer first.Close()

	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, first.URL+"/api/internal/dispatch?try=1", strings.NewReader("{}"))
	require.NoError(t, err)
	require.NoError(t, a.Authorize(r, "node-b"))
	resp, err := first.Client().Do(r) //nolint:bodyclose // Verify closes it
	require.NoError(t, err)
	assert.Equal(t, http.StatusForbidden, resp.StatusCode)
	assert.NotEmpty(t, resp.Request.Header.Get(cluster.SignatureHeader), "positive control: net/http carried the header on")
	assert.ErrorIs(t, a.Verify(resp), cluster.ErrUnverified)
	assert.Zero(t, next.count())
}

func TestThePlainHeaderIsSentToNodesThatKnowNothingElse(t *testing.T) {
	a, _, _ := pair(t, func(a, _ *cluster.Auth) { a.PlainHeader = true })
	var got http.Header
	client := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		io.WriteString(w, `{"messageId":1,"status":"SENT"}`)
	}))
	r := atLoopback(post(t, "{}"))
	resp, err := a.Do(client, r, "")
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, []string{string(secretA)}, got[cluster.Header])
	assert.Empty(t, got[cluster.SignatureHeader])
	assert.NotContains(t, r.Header, cluster.Header)
	assert.NotContains(t, resp.Request.Header, cluster.Header, "the answer leads to the secret")
}

func TestMessagesAreNotShownToTheNetworkUnlessThatIsSet(t *testing.T) {
	for target, fine := range map[string]bool{
		"https://node-b.example.org/x":   true,
		"http://node-b.example.org/x":    false,
		"http://10.0.0.7:8080/x":         false,
		"http://localhost.example.org/x": false,
		"http://127.0.0.1.example.org/x": false,
		"http://localhost:8080/x":        true,
		"http://127.0.0.1:8080/x":        true,
		"http://[::1]:8080/x":            true,
		"http://[::ffff:127.0.0.1]/x":    true,
		"ftp://node-b/x":                 false,
		"/x":                             false,
	} {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s plain %t", target, plain), func(t *testing.T) {
				reached := false
				client := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
					reached = true
					return nil, errors.New("no network here")
				})}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("{}"))
				require.NoError(t, err)
				a, _, _ := pair(t, func(a, _ *cluster.Auth) { a.PlainHeader = plain })
				_, err = a.Do(client, r, "node-b") //nolint:bodyclose // there is none
				assert.Equal(t, fine, reached)
				assert.Equal(t, fine, sendError(t, err).MaybeDelivered())
				assert.Equal(t, fine, a.Authorize(r.Clone(t.Context()), "node-b") == nil)
				assert.Empty(t, r.Header)
			})
		}
	}
	a, _, _ := pair(t, func(a, _ *cluster.Auth) { a.AllowPlaintext = true })
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://node-b.example.org/x", nil)
	require.NoError(t, err)
	assert.NoError(t, a.Authorize(r, "node-b"))
}

func TestErrorsTellWhetherTheNodeMayHaveTheRequest(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	untrusted := httptest.NewUnstartedServer(nil)
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // what it thinks of us
	untrusted.StartTLS()
	defer untrusted.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer cut.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()

	for name, test := range map[string]struct {
		url              string
		client           *http.Client
		change           func(*http.Request) *http.Request
		maybe, retryable bool
	}{
		"nobody listens":      {url: closed.URL, retryable: true},
		"a foreign cert":      {url: untrusted.URL},
		"cut off":             {url: cut.URL, maybe: true, retryable: true},
		"a transport's error": {url: "https://node-b", client: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })}, maybe: true, retryable: true},
		"the caller gave up":  {url: cut.URL, change: func(r *http.Request) *http.Request { return r.WithContext(gone) }, maybe: true, retryable: true},
		"a body too large":    {url: cut.URL, change: func(r *http.Request) *http.Request { body(r, strings.Repeat("x", 10<<20+1)); return r }},
		"a body that fails": {url: cut.URL, change: func(r *http.Request) *http.Request {
			r.GetBody = func() (io.ReadCloser, error) { return nil, io.ErrClosedPipe }
			return r
		}},
		"one that fails later": {url: cut.URL, change: func(r *http.Request) *http.Request { r.GetBody = nil; r.Body = io.NopCloser(blockedOnce{}); return r }},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, _ := pair(t)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, test.url, strings.NewReader("{}"))
			require.NoError(t, err)
			if test.change != nil {
				r = test.change(r)
			}
			client := test.client
			if client == nil {
				client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			}
			_, _, _, err = do(t, a, client, r)
			failed := sendError(t, err)
			assert.Equal(t, test.maybe, failed.MaybeDelivered(), "%v", err)
			assert.Equal(t, test.retryable, failed.Retryable(), "%v", err)
			assert.Equal(t, "node-b", failed.Node)
		})
	}
}

type blockedOnce struct{}

func (blockedOnce) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A transport that has lost a connection may dial again by itself, and that dial
// may fail.
func TestAFailedDialAfterAConnectionSaysNothing(t *testing.T) {
	a, b, _ := pair(t)
	srv := httptest.NewServer(b.Handler(&echo{}))
	defer srv.Close()
	dials := 0
	var conn net.Conn
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials++; dials > 1 {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("refused")}
		}
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return &cutAfterUse{Conn: conn}, err
	}}
	defer transport.CloseIdleConnections()
	send := func() error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, strings.NewReader("{}"))
		require.NoError(t, err)
		r.Header.Set("Idempotency-Key", "7") // net/http then sends again by itself
		_, _, _, err = do(t, a, &http.Client{Transport: transport}, r)
		return err
	}
	require.NoError(t, send())
	err := send()
	op, ok := errors.AsType[*net.OpError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "dial", op.Op)
	assert.True(t, sendError(t, err).MaybeDelivered())
}

// cutAfterUse loses the second request on it, and itself.
type cutAfterUse struct {
	net.Conn
	writes int
}

func (c *cutAfterUse) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		_ = c.Conn.Close()
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestARequestIsSentAgainByAnotherDo(t *testing.T) {
	a, b, _ := pair(t)
	next := &echo{}
	client := serve(t, b.Handler(next))
	r := atLoopback(post(t, `{"n":1}`))
	for range 3 {
		status, body, _, err := do(t, a, client, r)
		require.NoError(t, err)
		assert.Equal(t, 200, status)
		assert.Equal(t, `{"n":1}`, body)
	}
	assert.Equal(t, 3, next.count())
}

func TestABodyThatCanBeReadOnceIsSentWhole(t *testing.T) {
	a, b, _ := pair(t)
	client := serve(t, b.Handler(&echo{}))
	r := atLoopback(post(t, ""))
	r.GetBody = nil
	r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("one "), bytes.NewReader([]byte("two")))), -1
	_, body, _, err := do(t, a, client, r)
	require.NoError(t, err)
	assert.Equal(t, "one two", body)
}

func TestAClientOfNoneHasATimeLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, _ := pair(t)
		stop := make(chan struct{})
		client := serve(t, b.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop })))
		old := http.DefaultTransport
		http.DefaultTransport = client.Transport
		defer func() { http.DefaultTransport = old }()
		begun := time.Now()
		_, _, _, err := do(t, a, nil, atLoopback(post(t, "{}")))
		assert.True(t, sendError(t, err).MaybeDelivered())
		assert.Equal(t, 30*time.Second, time.Since(begun))
		close(stop)
	})
}

func TestANodeWhoseClockIsWrongIsNamedByBothSides(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, seen := pair(t)
		h := b.Handler(&echo{})
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			time.Sleep(10 * time.Minute) // to node-b it looks as if node-a's clock were behind
			resp := give(h, r).Result()
			resp.Request = r
			resp.Header.Set("Date", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
			return resp, nil
		})}
		_, _, _, err := do(t, a, client, post(t, "{}"))
		assert.ErrorContains(t, err, "the clock of who answered is 10m0s ahead of ours")
		e := seen.last(t)
		assert.Equal(t, cluster.ReasonSkew, e.Reason)
		assert.Equal(t, "node-a", e.Node)
		assert.Equal(t, -10*time.Minute, e.Skew)
	})
}
