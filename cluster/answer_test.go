package cluster_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
)

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
