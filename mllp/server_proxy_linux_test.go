package mllp_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/mllp"
)

// TestHAProxyNamesTheClient runs messages through HAProxy with both versions of
// its protocol, the second with a checksum and with health checks (LOCAL).
func TestHAProxyNamesTheClient(t *testing.T) {
	haproxy := interop.Need(t, "haproxy")
	type seen struct{ remote, proxy net.Addr }
	var (
		mu     sync.Mutex
		came   []seen
		events []mllp.Event
	)
	srv := &mllp.Server{
		TrustedProxies: ranges(t, "127.0.0.1"), Allow: ranges(t, "127.0.0.2"),
		Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			came = append(came, seen{r.RemoteAddr, r.ProxyAddr})
			return nil, nil
		}),
		Observe: func(e mllp.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == mllp.EventRefused {
				events = append(events, e)
			}
		},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	defer func() {
		srv.Close()
		<-served
	}()

	var ports []*net.TCPListener // HAProxy's
	cmd := exec.Command(haproxy, "-db", "-f", filepath.Join(t.TempDir(), "cfg"))
	for range 2 {
		port, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		defer port.Close()
		file, err := port.File()
		require.NoError(t, err)
		defer file.Close()
		ports, cmd.ExtraFiles = append(ports, port), append(cmd.ExtraFiles, file) // fd 3 and 4
	}
	require.NoError(t, os.WriteFile(cmd.Args[3], fmt.Appendf(nil, `
defaults
	mode tcp
	timeout connect 10s
	timeout client 30s
	timeout server 30s
listen one
	bind fd@3
	server s %[1]s send-proxy
listen two
	bind fd@4
	server s %[1]s send-proxy-v2 proxy-v2-options crc32c check inter 100ms fall 1000
`, ln.Addr()), 0o600))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	}()

	for i, port := range ports {
		dialer := &mllp.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		c, err := dialer.DialContext(ctx, "tcp", port.Addr().String())
		require.NoError(t, err)
		_, err = c.Send(ctx, adt("id1"))
		require.NoError(t, err, "version %d", i+1)
		mu.Lock()
		last := came[len(came)-1]
		mu.Unlock()
		assert.Equal(t, c.LocalAddr().String(), last.remote.String())
		assert.Equal(t, "127.0.0.1", last.proxy.(*net.TCPAddr).IP.String())
		c.Close()
	}
	// A health check names no client: the proxy itself is not allowed.
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(events) > 0
	}, 30*time.Second, 10*time.Millisecond, "a health check")
	mu.Lock()
	defer mu.Unlock()
	for _, e := range events {
		assert.Equal(t, mllp.ReasonAddressDenied, e.Reason, "%s", e)
		assert.Nil(t, e.ProxyAddr)
	}
}
