package engine_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// taking is a channel called in whose source the configuration file would make of
// these keys, one a line, and whose port is free. It files what it gets in dir.
func taking(t *testing.T, dir, keys string) config.Channel {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.yaml")
	text := "channels:\n  - id: in\n    source:\n      " + strings.ReplaceAll(strings.TrimSpace(keys), "\n", "\n      ") +
		"\n    destinations: [{name: archive, type: file, directory: '" + dir + "'}]\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	cfg, err := config.Load(path, func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	ch := cfg.Channels[0]
	ch.Destinations[0].Queue = quick
	if ch.Source.HTTP != nil {
		ch.Source.HTTP.Port = 0
	}
	return ch
}

const onLoopback = "type: http\nhost: 127.0.0.1\nport: 1\n"

// browser sends requests to a source.
type browser struct {
	t      *testing.T
	client *http.Client
	base   string
}

func browse(t *testing.T, e *running, conf *tls.Config) *browser {
	t.Helper()
	b := &browser{t: t, base: "http://" + e.addr("in")}
	transport := &http.Transport{TLSClientConfig: conf}
	if conf != nil {
		b.base = "https://" + e.addr("in")
	}
	t.Cleanup(transport.CloseIdleConnections)
	b.client = &http.Client{Transport: transport, Timeout: patience}
	return b
}

// answered is an answer without its body.
type answered struct {
	StatusCode int
	Header     http.Header
}

func (b *browser) do(method, path string, body io.Reader, headers ...string) answered {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, body)
	require.NoError(b.t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.client.Do(r)
	require.NoError(b.t, err)
	_, _ = io.Copy(io.Discard, resp.Body)
	require.NoError(b.t, resp.Body.Close())
	return answered{resp.StatusCode, resp.Header}
}

func (b *browser) post(content string, headers ...string) int {
	b.t.Helper()
	return b.do(http.MethodPost, "/", strings.NewReader(content), headers...).StatusCode
}

func TestAnHTTPSourceTakesBodiesInAsTheyAre(t *testing.T) {
	t.Parallel()
	p, dir := newPKI(t), t.TempDir()
	ch := taking(t, dir, onLoopback+"contextPath: /hl7\nresponseStatusCode: 202\nresponseContentType: application/hl7-v2\nresponseHeaders: [{name: X-Engine, value: carewire}]")
	ch.Source.HTTP.TLS = p.server()
	st := openStore(t, t.TempDir())
	e := start(t, st, ch)
	pair, err := tls.LoadX509KeyPair(p.client().CertStorePath, p.client().KeyStorePath)
	require.NoError(t, err)
	b := browse(t, e, &tls.Config{RootCAs: p.ca.Pool(), Certificates: []tls.Certificate{pair}})
	contents := []string{string(message("M1")), "\x00\r\n\xff\x0b{}\x1c\r", "<ClinicalDocument/>\n", strings.Repeat("x", 3<<20)}
	for i, content := range contents {
		method := []string{http.MethodPost, http.MethodPut}[i%2]
		resp := b.do(method, "/hl7", strings.NewReader(content), "Content-Type", "text/xml; charset=ISO-8859-1")
		assert.Equal(t, 202, resp.StatusCode)
		assert.Equal(t, "application/hl7-v2", resp.Header.Get("Content-Type"))
		assert.Equal(t, "carewire", resp.Header.Get("X-Engine"))
	}
	eventually(t, "all are filed", func() bool { return len(filed(t, dir)) == len(contents) })
	assert.Equal(t, contents, filed(t, dir))
	status, err := e.Status(t.Context(), "in")
	require.NoError(t, err)
	assert.Equal(t, "HTTPS", status.Listener.Transport)
	assert.Equal(t, 1, status.Listener.Connections, "it is kept open")
	assert.NotContains(t, e.log.String(), "ClinicalDocument")

	require.NoError(t, e.StopChannel(t.Context(), "in"))
	addr := e.addr("in")
	require.NoError(t, e.StartChannel(t.Context(), "in"))
	assert.Equal(t, addr, e.addr("in"), "its port stays the same")
	b.client.CloseIdleConnections() // the source has closed it, which the client may not know yet
	assert.Equal(t, 202, b.do(http.MethodPost, "/hl7", strings.NewReader("again")).StatusCode)
	stranger := browse(t, e, &tls.Config{RootCAs: p.ca.Pool()})
	_, err = stranger.client.Get(stranger.base + "/hl7") //nolint:bodyclose // it comes to no answer
	assert.Error(t, err, "a client without a certificate")
}

func TestAnHTTPSourceSaysWhatItDoesNotTake(t *testing.T) {
	t.Parallel()
	ch := taking(t, t.TempDir(), onLoopback+"useAuthentication: true\nusername: ward\npassword: p:w\nmaxMessageSize: 1000")
	e := start(t, openStore(t, t.TempDir()), ch)
	b := browse(t, e, nil)
	good := []string{"Authorization", "Basic d2FyZDpwOnc="} // ward:p:w
	resp := b.do(http.MethodPost, "/", strings.NewReader("x"))
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	assert.Contains(t, resp.Header.Get("WWW-Authenticate"), "Basic")
	for name, row := range map[string]struct {
		method, path string
		body         io.Reader
		headers      []string
		want         int
	}{
		"another password":      {"POST", "/", strings.NewReader("x"), []string{"Authorization", "Basic d2FyZDp4"}, 401},
		"another path":          {"POST", "/x", strings.NewReader("x"), good, 404},
		"another method":        {"PATCH", "/", strings.NewReader("x"), good, 405},
		"no body":               {"POST", "/", nil, good, 400},
		"a compressed body":     {"POST", "/", strings.NewReader("x"), append([]string{"Content-Encoding", "gzip"}, good...), 415},
		"a long body":           {"POST", "/", strings.NewReader(strings.Repeat("x", 1001)), good, 413},
		"a long body in chunks": {"POST", "/", struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 1001))}, good, 413},
		"as long as it may be":  {"POST", "/", struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 1000))}, good, 200},
	} {
		assert.Equal(t, row.want, b.do(row.method, row.path, row.body, row.headers...).StatusCode, name)
	}
	assert.Equal(t, "POST, PUT", b.do("PATCH", "/", nil, good...).Header.Get("Allow"))
	assert.EqualValues(t, 1, e.stats("in").Received)
	assert.NotContains(t, e.log.String(), "p:w")
}

// wavering is a store that cannot store while it is told so.
type wavering struct {
	store.Store
	err atomic.Pointer[error]
}

func (w *wavering) Intake(ctx context.Context, in store.Intake) (int64, error) {
	if err := w.err.Load(); err != nil {
		return 0, *err
	}
	return w.Store.Intake(ctx, in)
}

func TestAnHTTPSourceAnswers2xxOnlyForWhatIsStored(t *testing.T) {
	t.Parallel()
	st := &wavering{Store: openStore(t, t.TempDir())}
	e := start(t, st, taking(t, t.TempDir(), onLoopback))
	b := browse(t, e, nil)
	for err, want := range map[error]int{store.ErrFull: 503, store.ErrFailed: 503, store.ErrInvalid: 422} {
		st.err.Store(&err)
		resp := b.do(http.MethodPost, "/", strings.NewReader("x"))
		assert.Equal(t, want, resp.StatusCode, "%v", err)
		assert.Equal(t, want == 503, resp.Header.Get("Retry-After") != "")
	}
	st.err.Store(nil)
	assert.Equal(t, 200, b.post("x"))
	assert.EqualValues(t, 1, e.stats("in").Received)

	// What no destination's frames can carry is refused here, rather than wait there
	// for ever.
	ch := taking(t, t.TempDir(), onLoopback)
	ch.Destinations = append(ch.Destinations, toTCP("lab", "127.0.0.1:1"))
	e = start(t, openStore(t, t.TempDir()), ch)
	b = browse(t, e, nil)
	assert.Equal(t, 422, b.post("MSH|^~\\&|\x1c\rX"))
	assert.Equal(t, 200, b.post(string(message("M1"))))
}

func TestAnAnswerWaitsForTheStoreAndAStopForTheAnswer(t *testing.T) {
	t.Parallel()
	g := &gate{Store: openStore(t, t.TempDir()), entered: make(chan struct{}, 1), open: make(chan struct{}, 1)}
	e := start(t, g, taking(t, t.TempDir(), onLoopback))
	b := browse(t, e, nil)
	answered, stopped := make(chan int, 1), make(chan error, 1)
	go func() { answered <- b.post("x") }()
	<-g.entered
	go func() { stopped <- e.StopChannel(t.Context(), "in") }()
	eventually(t, "the port is closed", func() bool {
		st, err := e.Status(t.Context(), "in")
		require.NoError(t, err)
		return !st.Listener.Listening
	})
	assert.Empty(t, answered)
	assert.Empty(t, stopped)
	g.open <- struct{}{}
	assert.Equal(t, 200, <-answered)
	require.NoError(t, <-stopped)
	assert.EqualValues(t, 1, e.stats("in").Received)
}

func TestSendersThatAreSlowOrTooManyAreCutOff(t *testing.T) {
	t.Parallel()
	ch := taking(t, t.TempDir(), onLoopback+"maxConnections: 1")
	ch.Source.HTTP.Timeout = 50 * time.Millisecond
	e := start(t, openStore(t, t.TempDir()), ch)
	slow := plain(t, e.addr("in"))
	_, err := io.WriteString(slow, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
	require.NoError(t, err)
	assert.NotContains(t, string(closed(t, slow)), "200 OK")
	eventually(t, "there is room again", func() bool {
		st, err := e.Status(t.Context(), "in")
		require.NoError(t, err)
		return st.Listener.Connections == 0
	})
	first := plain(t, e.addr("in"))
	eventually(t, "it is in", func() bool {
		st, err := e.Status(t.Context(), "in")
		require.NoError(t, err)
		return st.Listener.Connections == 1
	})
	assert.Empty(t, closed(t, plain(t, e.addr("in"))), "one too many")
	assert.Zero(t, e.stats("in").Received)
	require.NoError(t, first.Close())
}

func TestAnHTTPSourceWhoseCertificateIsRenewedGoesOn(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	ch := taking(t, t.TempDir(), onLoopback)
	ch.Source.HTTP.TLS = p.server()
	ch.Source.HTTP.TLS.RequireClientCert = false
	e := start(t, openStore(t, t.TempDir()), ch)
	serial := func() string {
		conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: p.ca.Pool()}, NetDialer: &net.Dialer{Timeout: patience}}).DialContext(t.Context(), "tcp", e.addr("in"))
		require.NoError(t, err)
		defer conn.Close()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	p.ca.Server().Write(p.dir, "server")
	eventually(t, "the new one is in use", func() bool { return serial() != before })

	broken := taking(t, t.TempDir(), onLoopback)
	broken.Source.HTTP.TLS = p.pair("missing")
	e2 := engine.New(&config.Config{Channels: []config.Channel{broken}}, openStore(t, t.TempDir()), engine.Options{})
	assert.ErrorContains(t, e2.StartSources(t.Context()), "missing.key", "nothing falls back to plaintext")
}
