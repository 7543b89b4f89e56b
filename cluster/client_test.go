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

func TestDoReturnsEveryAnswerThatTheNodeSigned(t *testing.T) {
	long := strings.Repeat("<x>", 200<<10)
	for name, test := range map[string]struct {
		method string
		answer http.HandlerFunc
		status int
		body   string
	}{
		"nothing written": {http.MethodPost, func(http.ResponseWriter, *http.Request) {}, 200, ""},
		"a body":          {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }, 200, "ok"},
		"in parts": {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusCreated)
			w.WriteHeader(http.StatusTeapot)
			for range 3 {
				io.WriteString(w, "part ")
			}
		}, 201, "part part part "},
		"a long one": {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, long) }, 200, long},
		"its own type": {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", " text/x ")
			io.WriteString(w, "<html>")
		}, 200, "<html>"},
		"no type": {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		}, 200, "<html>"},
		"a wrong length": {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "7")
			io.WriteString(w, "ok")
		}, 200, "ok"},
		"compressed": {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "\x1f\x8b")
		}, 200, "\x1f\x8b"},
		"an error": {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no such channel", http.StatusInternalServerError)
		}, 500, "no such channel\n"},
		"its own 403": {http.MethodPost, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not yours", http.StatusForbidden) }, 403, "not yours\n"},
		"no content":  {http.MethodDelete, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204); io.WriteString(w, "x") }, 204, ""},
		"not modified": {http.MethodGet, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/x")
			w.WriteHeader(304)
		}, 304, ""},
		"head":            {http.MethodHead, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, 200, ""},
		"no method":       {"", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method) }, 200, "GET"},
		"to another path": {http.MethodPost, http.RedirectHandler("/elsewhere", http.StatusTemporaryRedirect).ServeHTTP, 307, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, _ := pair(t)
			client := serve(t, b.Handler(test.answer))
			r := atLoopback(post(t, "{}"))
			r.Method = test.method
			if test.method != http.MethodPost {
				r.Body, r.GetBody, r.ContentLength = nil, nil, 0
			}
			for range 2 { // on a connection in use as well
				status, body, h, err := do(t, a, client, r)
				require.NoError(t, err)
				assert.Equal(t, test.status, status)
				assert.Equal(t, test.body, body)
				assert.NotEmpty(t, h.Get(cluster.SignatureHeader))
			}
			assert.Empty(t, r.Header.Get(cluster.SignatureHeader), "the caller's request was modified")
		})
	}
}

// Positive control: what is sent unaltered is returned by
// TestDoReturnsEveryAnswerThatTheNodeSigned.
func TestAnAnswerThatTheNodeDidNotSignIsNotReturned(t *testing.T) {
	a, b, _ := pair(t)
	honest := b.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, `{"error":"disk full"}`)
	}))
	other := &cluster.Auth{Node: "node-c", Secret: secretA} // has the secret, and another name
	stranger := &cluster.Auth{Node: "node-b", Secret: secretC}
	yes := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"messageId":1}`) })
	earlier := give(b.Handler(yes), signed(t, a, "{}")).Result()

	for name, forge := range map[string]func(r *http.Request) *http.Response{
		"a 200 without a signature": func(*http.Request) *http.Response {
			w := httptest.NewRecorder()
			io.WriteString(w, `{"messageId":1}`)
			return w.Result()
		},
		"another status": func(r *http.Request) *http.Response {
			resp := give(honest, r).Result()
			resp.StatusCode, resp.Status = 200, "200 OK"
			return resp
		},
		"another body": func(r *http.Request) *http.Response {
			resp := give(honest, r).Result()
			resp.Body = io.NopCloser(strings.NewReader(`{"messageId":1}`))
			return resp
		},
		"a body cut short": func(r *http.Request) *http.Response {
			resp := give(honest, r).Result()
			resp.Body = http.NoBody
			return resp
		},
		"another type": func(r *http.Request) *http.Response {
			resp := give(honest, r).Result()
			resp.Header.Set("Content-Type", "text/html")
			return resp
		},
		"an encoding": func(r *http.Request) *http.Response {
			resp := give(honest, r).Result()
			resp.Header.Set("Content-Encoding", "br")
			return resp
		},
		"a good answer to an earlier request": func(*http.Request) *http.Response {
			resp := *earlier
			resp.Header = earlier.Header.Clone()
			resp.Body = io.NopCloser(strings.NewReader(`{"messageId":1}`))
			return &resp
		},
		"its signature among two": func(r *http.Request) *http.Response {
			resp := give(honest, r).Result()
			resp.Header.Add(cluster.SignatureHeader, resp.Header.Get(cluster.SignatureHeader))
			return resp
		},
		"not a signature": func(r *http.Request) *http.Response {
			resp := give(honest, r).Result()
			resp.Header.Set(cluster.SignatureHeader, "v1;kid=")
			return resp
		},
		"the request's own signature": func(r *http.Request) *http.Response {
			resp := give(honest, r).Result()
			resp.Header.Set(cluster.SignatureHeader, r.Header.Get(cluster.SignatureHeader))
			return resp
		},
		"of another node": func(r *http.Request) *http.Response {
			again := post(t, "{}")
			require.NoError(t, a.Authorize(again, "node-c"))
			return give(other.Handler(yes), again).Result()
		},
		"of another secret": func(*http.Request) *http.Response {
			again := post(t, "{}")
			require.NoError(t, stranger.Authorize(again, "node-b"))
			return give(stranger.Handler(yes), again).Result()
		},
		"a refusal": func(r *http.Request) *http.Response { return give(stranger.Handler(yes), r).Result() },
	} {
		t.Run(name, func(t *testing.T) {
			var forged *http.Response
			client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				forged = forge(r)
				forged.Request = r
				return forged, nil
			})}
			_, _, _, err := do(t, a, client, post(t, "{}"))
			failed := sendError(t, err)
			assert.ErrorIs(t, err, cluster.ErrUnverified)
			assert.Equal(t, forged.StatusCode, failed.Status)
			assert.Equal(t, fmt.Sprint(forged.StatusCode), failed.Code())
			assert.True(t, failed.MaybeDelivered())
			assert.True(t, failed.Retryable())
			assert.NotContains(t, err.Error(), "disk full")
			assert.NotContains(t, err.Error(), "messageId")
		})
	}
}

func TestAnAnswerIsLimited(t *testing.T) {
	for name, test := range map[string]struct{ sender, receiver int64 }{
		"by the node that answers": {5000, 1000},
		"by the node that asks":    {1000, 5000},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, seen := pair(t, func(a, b *cluster.Auth) { a.MaxBodyBytes, b.MaxBodyBytes = test.sender, test.receiver })
			var wrote error
			client := serve(t, b.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				io.WriteString(w, strings.Repeat("x", 1000))
				_, wrote = io.WriteString(w, "x")
			})))
			status, body, h, err := do(t, a, client, atLoopback(post(t, "{}")))
			if test.receiver == 1000 {
				require.NoError(t, err)
				assert.Equal(t, 500, status)
				assert.Contains(t, body, "too large")
				assert.Empty(t, h.Get("Content-Encoding"))
				_, cut := errors.AsType[*http.MaxBytesError](wrote)
				assert.True(t, cut)
				assert.Equal(t, cluster.AnswerTooLarge, seen.last(t).Kind)
				return
			}
			require.NoError(t, wrote)
			_, cut := errors.AsType[*http.MaxBytesError](err)
			assert.True(t, cut, "%v", err)
			assert.True(t, sendError(t, err).MaybeDelivered())
		})
	}
}

func TestAPanickingHandlerSendsNothing(t *testing.T) {
	a, b, _ := pair(t)
	client := serve(t, b.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half of it")
		panic("a bug")
	})))
	_, _, _, err := do(t, a, client, atLoopback(post(t, "{}")))
	failed := sendError(t, err)
	assert.True(t, failed.MaybeDelivered())
	assert.True(t, failed.Retryable())
	assert.Empty(t, failed.Code())
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
