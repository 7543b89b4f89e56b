package mllp_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// TestWhatAClientMaySendOverTCP has the kernel in between, and TLS: in their hands
// it is how the bytes come in pieces, and whether the last answer outlives a close.
func TestWhatAClientMaySendOverTCP(t *testing.T) {
	t.Parallel()
	p := pki()
	for _, mode := range []string{"plain", "TLS"} {
		for _, x := range exchanges() {
			if x.wait > 0 || mode == "TLS" && x.in == "" { // what is about time has its own, and a handshake is no probe
				continue
			}
			t.Run(mode+"/"+x.name, func(t *testing.T) {
				t.Parallel()
				if x.srv == nil {
					x.srv = new(mllp.Server)
				}
				var client *tls.Config
				if mode == "TLS" {
					x.srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}}
					client = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost"}
				}
				x.runOverTCP(t, client)
			})
		}
	}
}

func (x *exchange) runOverTCP(t *testing.T, client *tls.Config) {
	var mu sync.Mutex
	s := &site{t: t, srv: x.srv}
	x.srv.Handler = mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		s.got = append(s.got, string(r.Message))
		return nil, nil
	})
	x.srv.Observe = func(e mllp.Event) {
		mu.Lock()
		defer mu.Unlock()
		s.events = append(s.events, e)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- x.srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() { x.srv.Close() })

	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	if client != nil {
		nc = tls.Client(nc, client)
	}
	end := func() { _ = nc.(interface{ CloseWrite() error }).CloseWrite() } // which the server may have been faster to do
	written := make(chan struct{})
	go func() {
		defer close(written)
		if _, err := io.WriteString(nc, x.in); err == nil && x.fin {
			end()
		}
	}()
	c := &caller{Conn: nc, t: t, frames: mllp.NewReader(nc, 0)}
	answers := slices.Clone(x.answers)
	if last := len(answers) - 1; last < 0 || answers[last] != "end" && answers[last] != "reset" {
		for _, want := range answers {
			assert.Equal(t, want, c.hear())
		}
		<-written
		end()
		answers = []string{"end"}
	}
	for _, want := range answers {
		got := c.hear()
		if got == "reset" && want == "end" || got == "end" && want == "reset" { // which of them is up to the kernel
			got = want
		}
		assert.Equal(t, want, got)
	}
	<-written
	nc.Close()
	_ = x.srv.Shutdown(t.Context())
	<-served // all has been told
	assert.Equal(t, x.delivered, s.got, "delivered")
	assert.Equal(t, x.told, notable(s.events), "events")
}
