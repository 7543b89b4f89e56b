package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
)

// anyNonce lets a benchmark give one request again and again.
type anyNonce struct{}

func (anyNonce) Use(context.Context, string, time.Time) (bool, error) { return true, nil }

// taker is a handler that reads the body and answers a line.
var taker = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"messageId":1,"status":"SENT"}`)
})

// sink is a http.ResponseWriter without the cost of one.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header       { return s.header }
func (*sink) WriteHeader(int)             {}
func (*sink) Write(p []byte) (int, error) { return len(p), nil }

// again gives one request to a handler as often as it is called.
func again(h http.Handler, r *http.Request, text string) func() {
	r = arrive(r)
	w := &sink{header: make(http.Header)}
	body := strings.NewReader(text)
	r.Body = io.NopCloser(body)
	return func() {
		clear(w.header)
		body.Reset(text)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkHandler is what letting a request in costs beside the handler alone.
func BenchmarkHandler(b *testing.B) {
	auth := &cluster.Auth{Node: "node-b", Secret: secretA, Accept: []cluster.Secret{secretB}, Nonces: anyNonce{}}
	sender := &cluster.Auth{Node: "node-a", Secret: secretA}
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		text := strings.Repeat("x", size)
		plain := withSecret(post(b, text), string(secretA))
		wrong := withSecret(post(b, text), string(secretC))
		r := post(b, text)
		require.NoError(b, sender.Authorize(r, "node-b"))
		for _, bench := range []struct {
			name string
			call func()
		}{
			{"bare", again(taker, post(b, text), text)},
			{"refused", again(auth.Handler(taker), wrong, text)},
			{"plain", again(auth.Handler(taker), plain, text)},
			{"signed", again(auth.Handler(taker), r, text)},
		} {
			b.Run(fmt.Sprintf("%s/%dKiB", bench.name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					bench.call()
				}
			})
		}
	}
}

// BenchmarkDo is a request and its answer over loopback and TLS, beside the same
// of net/http alone.
func BenchmarkDo(b *testing.B) {
	sender := &cluster.Auth{Node: "node-a", Secret: secretA}
	auth := &cluster.Auth{Node: "node-b", Secret: secretA, MaxNonces: 1 << 24}
	text := strings.Repeat("x", 1<<10)
	for _, bench := range []struct {
		name    string
		handler http.Handler
		do      func(*http.Client, *http.Request) (*http.Response, error)
	}{
		{"bare", taker, (*http.Client).Do},
		{"signed", auth.Handler(taker), func(c *http.Client, r *http.Request) (*http.Response, error) { return sender.Do(c, r, "node-b") }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			srv := httptest.NewTLSServer(bench.handler)
			defer srv.Close()
			client := srv.Client()
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, srv.URL, strings.NewReader(text))
				if err != nil {
					b.Fatal(err)
				}
				resp, err := bench.do(client, r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Fatal(resp.Status)
				}
			}
		})
	}
}

func TestLettingARequestInStaysWithinItsBudgetOfAllocations(t *testing.T) {
	auth := &cluster.Auth{Node: "node-b", Secret: secretA, Accept: []cluster.Secret{secretB}, Nonces: anyNonce{}}
	sender := &cluster.Auth{Node: "node-a", Secret: secretA}
	const text = "{}"
	r := post(t, text)
	require.NoError(t, sender.Authorize(r, "node-b"))
	h := auth.Handler(taker)
	bare := testing.AllocsPerRun(200, again(taker, post(t, text), text))
	for name, test := range map[string]struct {
		call   func()
		budget float64
	}{
		"plain":   {again(h, withSecret(post(t, text), string(secretA)), text), 10},
		"refused": {again(h, withSecret(post(t, text), string(secretC)), text), 8},
		"signed":  {again(h, r, text), 42},
	} {
		t.Run(name, func(t *testing.T) {
			got := testing.AllocsPerRun(200, test.call) - bare
			t.Logf("%.0f allocations more than the handler alone", got)
			if got > test.budget {
				t.Errorf("%.0f allocations, the budget is %.0f", got, test.budget)
			}
		})
	}
}
