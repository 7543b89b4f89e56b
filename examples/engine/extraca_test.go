package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// secureRecorder listens with a certificate of ca until the test ends.
func secureRecorder(t *testing.T, ca *testpki.Authority) (*recorder, int) {
	t.Helper()
	pair := ca.Server().Write(t.TempDir(), "server")
	certificate, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	require.NoError(t, err)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r, done := new(recorder), make(chan struct{})
	server := &mllp.Server{Handler: r}
	go func() {
		defer close(done)
		server.Serve(context.Background(), tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return r, ln.Addr().(*net.TCPAddr).Port
}

func TestExtraCAsAreTrustedWhereTheHostsAre(t *testing.T) {
	ca, other, dir := testpki.NewCA(t, "Extra CA"), testpki.NewCA(t, "Other CA"), t.TempDir()
	trusting, trustingPort := secureRecorder(t, ca)
	pinned, pinnedPort := secureRecorder(t, ca)
	in := freePort(t)
	path := writeConfig(t, `channels:
  - id: adt
    source: {type: tcp, host: 127.0.0.1, port: %d}
    destinations:
      - {name: host, type: tcp, host: 127.0.0.1, port: %d, tls: {enabled: true}, queue: {retryInterval: 10ms}}
      - {name: pinned, type: tcp, host: 127.0.0.1, port: %d, tls: {enabled: true, trustStorePath: %s}, queue: {retryInterval: 10ms}}
`, in, trustingPort, pinnedPort, other.Write(dir, "other"))
	p := launch(t, []string{"NODE_EXTRA_CA_CERTS=" + ca.Write(dir, "extra"), "DB_HOST=db"}, "-config", path)
	p.says("engine ready")
	assert.Contains(t, p.stderr.String(), "not supported")
	assert.Contains(t, p.stderr.String(), "DB_HOST")
	_, err := dial(t, in, nil).Send(t.Context(), message("M1"))
	require.NoError(t, err)
	eventually(t, "delivered", func() bool { return len(trusting.received()) == 1 })
	p.says("destination")
	assert.Empty(t, pinned.received(), "a trust store of its own stays alone")
}

// The CA is in NODE_EXTRA_CA_CERTS and nowhere else: with it a message arrives by
// HTTPS, without it not a byte of one.
func TestExtraCAsAreTrustedByHTTPDestinations(t *testing.T) {
	ca := testpki.NewCA(t, "Extra CA")
	extra := ca.Write(t.TempDir(), "extra")
	for _, env := range [][]string{{"NODE_EXTRA_CA_CERTS=" + extra}, nil} {
		arrived := make(chan string, 100)
		peer := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			text, _ := io.ReadAll(r.Body) // a part is seen in the comparison
			arrived <- string(text)
		}))
		peer.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		peer.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Server().TLS()}}
		peer.StartTLS()
		defer peer.Close()
		in := freePort(t)
		p := launch(t, env, "-config", writeConfig(t, `channels:
  - id: adt
    source: {type: tcp, host: 127.0.0.1, port: %d}
    destinations: [{name: lab, type: http, host: "%s/in", queue: {retryInterval: 10ms}}]
`, in, peer.URL))
		p.says("engine ready")
		_, err := dial(t, in, nil).Send(t.Context(), message("M1"))
		require.NoError(t, err)
		if env == nil {
			p.says("unknown authority")
			assert.Empty(t, arrived)
			continue
		}
		select {
		case text := <-arrived:
			assert.Equal(t, string(message("M1")), text)
		case <-time.After(patience):
			t.Fatal("the message has not arrived")
		}
	}
}

func TestExtraCAsThatCannotBeReadStopTheStart(t *testing.T) {
	dir := t.TempDir()
	pair := testpki.NewCA(t, "CA").Server().Write(dir, "server")
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	path := writeConfig(t, oneChannel, freePort(t))
	for _, name := range []string{filepath.Join(dir, "nowhere"), empty, pair.Key} {
		p := launch(t, []string{"NODE_EXTRA_CA_CERTS=" + name}, "-config", path)
		assert.Equal(t, 1, p.code())
		assert.Contains(t, p.stderr.String(), "NODE_EXTRA_CA_CERTS: ")
		assert.Contains(t, p.stderr.String(), name, fmt.Sprint(name))
	}
}
