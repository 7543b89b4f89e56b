package api_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/users"
	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// cheap makes passwords quick to hash.
var cheap = users.Options{Cost: users.Cost{Memory: 64, Passes: 1, Threads: 1}}

// password is that of every user of the tests.
const password = "correct horse battery"

// everybody is a store with one user of each role, named after it.
func everybody(t *testing.T) *users.Store {
	t.Helper()
	store, err := users.Open(filepath.Join(t.TempDir(), "users.json"), cheap)
	require.NoError(t, err)
	for _, role := range []users.Role{users.Admin, users.Operator, users.Viewer} {
		_, err := store.Create(t.Context(), string(role), password, role)
		require.NoError(t, err)
	}
	return store
}

// serve returns a server over e, which ends with the test, with one user of each
// role unless opts has others.
func serve(t *testing.T, e api.Engine, opts api.Options) *api.Server {
	t.Helper()
	if opts.Users == nil {
		opts.Users = everybody(t)
	}
	if opts.Audit == nil {
		opts.Audit = new(notebook)
	}
	if opts.Metrics == nil {
		opts.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "carewire_up 1\n") })
	}
	s, err := api.New(e, opts)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	theirs.Store(s, t)
	t.Cleanup(func() {
		theirs.Delete(s)
		contracts.Delete(s)
	})
	return s
}

// notebook is an audit log in memory.
type notebook struct {
	err    error
	events []audit.Event
}

func (n *notebook) Append(e audit.Event) error {
	e.Attributes = maps.Clone(e.Attributes)
	if n.err == nil {
		n.events = append(n.events, e)
	}
	return n.err
}

func (n *notebook) Read(limit int, _ uint64) ([]audit.Record, error) {
	var list []audit.Record
	for i, e := range slices.Backward(n.events) {
		if len(list) < limit {
			list = append(list, audit.Record{Event: e, Seq: uint64(i) + 1}) //nolint:gosec // a small number
		}
	}
	return list, n.err
}

type edit = func(*http.Request)

func request(h http.Handler, method, target string, edits ...edit) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.Background(), method, "http://localhost:8080"+target, nil)
	r.RemoteAddr = "127.0.0.1:50000"
	for _, f := range edits {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	hold(h, r, w)
	return w
}

func header(name, value string) edit { return func(r *http.Request) { r.Header.Set(name, value) } }

// from is the address that a request comes from.
func from(addr string) edit { return func(r *http.Request) { r.RemoteAddr = addr + ":50000" } }

func session(id string) edit { return header("X-Session-ID", id) }

func cookie(id string) edit {
	return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "JSESSIONID", Value: id}) }
}

// sends gives a request a body.
func sends(contentType, text string) edit {
	return func(r *http.Request) {
		with := httptest.NewRequest(r.Method, r.URL.String(), strings.NewReader(text))
		r.Body, r.ContentLength = with.Body, with.ContentLength
		r.Header.Set("Content-Type", contentType)
	}
}

func sendsJSON(text string) edit { return sends("application/json", text) }

func login(h http.Handler, name, password string, edits ...edit) *httptest.ResponseRecorder {
	text, _ := json.Marshal(map[string]string{"username": name, "password": password})
	return request(h, "POST", "/api/users/_login", append([]edit{sendsJSON(string(text))}, edits...)...)
}

// as signs in as a user and returns what makes a request theirs.
func as(t *testing.T, h http.Handler, name string, edits ...edit) edit {
	t.Helper()
	w := login(h, name, password, edits...)
	require.Equal(t, http.StatusOK, w.Code, "%s", w.Body)
	return session(w.Header().Get("X-Session-ID"))
}

func body(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &m), "%s", w.Body)
	return m
}

// changing is a fake whose channel stops while others look.
type changing struct {
	fake

	stopped atomic.Bool
}

func (c *changing) Status(ctx context.Context, id string) (engine.Status, error) {
	status, err := c.fake.Status(ctx, id)
	if c.stopped.Load() {
		status.State = engine.Stopped
	}
	return status, err
}

func (c *changing) Statuses(ctx context.Context) ([]engine.Status, error) {
	status, err := c.Status(ctx, "adt")
	return []engine.Status{status}, err
}
