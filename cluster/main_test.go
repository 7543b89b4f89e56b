package cluster_test

import (
	"crypto/fips140"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/internal/memnet"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// bubble is synctest.Test. In FIPS 140-3 mode crypto/rand makes its entropy from
// how long things take, and in a bubble nothing takes any time.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		t.Skip("skipped: crypto/rand has no entropy in a bubble in FIPS mode")
	}
	synctest.Test(t, f)
}

// Secrets as `openssl rand -base64 32` makes them.
const (
	secretA = cluster.Secret("f2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E=")
	secretB = cluster.Secret("Kq8vRt1zWm3cXy6bNj9pLs2dFg5hJk7aQe4uIo0iTwY=")
	secretC = cluster.Secret("3nB7vC1xZ9lK5jH2gF8dS4aP6oI0uY+tR/eW3qM7kVs=")
)

const refusal = `{"error":"Invalid cluster secret"}`

// journal collects events. The zero value is ready.
type journal struct {
	mu     sync.Mutex
	events []cluster.Event // guarded by mu
}

func (j *journal) observe(e cluster.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
}

// take returns the events since the last call.
func (j *journal) take() []cluster.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	events := j.events
	j.events = nil
	return events
}

// last returns the event that came last.
func (j *journal) last(t *testing.T) cluster.Event {
	t.Helper()
	events := j.take()
	require.NotEmpty(t, events)
	return events[len(events)-1]
}

// pair returns the two ends of a link, node-a that sends and node-b that
// receives, and node-b's events.
func pair(t *testing.T, change ...func(a, b *cluster.Auth)) (a, b *cluster.Auth, seen *journal) {
	t.Helper()
	seen = &journal{}
	a = &cluster.Auth{Node: "node-a", Secret: secretA}
	b = &cluster.Auth{Node: "node-b", Secret: secretA, Observe: seen.observe}
	for _, f := range change {
		f(a, b)
	}
	require.NoError(t, a.Validate())
	require.NoError(t, b.Validate())
	seen.take() // the loading of the secrets
	return a, b, seen
}

// echo answers with the body it gets, and counts.
type echo struct {
	mu    sync.Mutex
	calls int // guarded by mu
	last  *http.Request
	err   error // of reading the last body
}

func (h *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	h.mu.Lock()
	h.calls++
	h.last, h.err = r, err
	h.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func (h *echo) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

const dispatchURL = "https://node-b:8443/api/internal/dispatch?try=1"

// post returns a request as a client sends it.
func post(t testing.TB, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, dispatchURL, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	return r
}

// arrive returns a client's request as the server sees it.
func arrive(r *http.Request) *http.Request {
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "198.51.100.1:50000"
	in.Host = r.URL.Host
	if r.Body == nil {
		in.Body = http.NoBody
	}
	if r.GetBody != nil {
		in.Body, _ = r.GetBody()
	}
	return in
}

// give hands a client's request to a handler.
func give(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, arrive(r))
	return w
}

// signed returns a request that a has signed for node-b.
func signed(t testing.TB, a *cluster.Auth, body string) *http.Request {
	t.Helper()
	r := post(t, body)
	require.NoError(t, a.Authorize(r, "node-b"))
	return r
}

// requireRefused asserts that an answer is the one that every refused request
// gets.
func requireRefused(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Equal(t, refusal, w.Body.String())
	require.Equal(t, http.Header{
		"Content-Type":   {"application/json; charset=utf-8"},
		"Content-Length": {"34"},
	}, w.Header())
}

// serve runs a handler on a server in memory until the test ends, and returns a
// client that reaches it at every address.
func serve(t testing.TB, h http.Handler) *http.Client {
	t.Helper()
	ln := memnet.Listen()
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	transport := &http.Transport{DialContext: ln.DialContext}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = srv.Close()
		<-done
	})
	return &http.Client{Transport: transport}
}
