package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

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
