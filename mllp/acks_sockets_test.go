package mllp_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// TestManySendersWithEverythingOn has senders over real sockets that send all
// messages, batches among them, without waiting, break off, and send them again:
// each message is handled once, and answered in its place.
func TestManySendersWithEverythingOn(t *testing.T) {
	p := pki()
	const senders, messages = 6, 200
	for mode, secured := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(mode, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			var server *tls.Config
			dial := func() net.Conn {
				c, err := net.Dial("tcp", ln.Addr().String())
				require.NoError(t, err)
				require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
				if secured {
					return tls.Client(c, &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})
				}
				return c
			}
			if secured {
				server = &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12}
			}
			var calls, undelivered atomic.Int32
			var seen sync.Map
			srv := &mllp.Server{
				TLSConfig: server, Enhanced: true, Key: patientOf, Parallel: 8, Replay: new(mllp.MemoryReplay), Batches: mllp.PolicyPerMessage,
				Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
					calls.Add(1)
					_, again := seen.LoadOrStore(string(r.Header.ControlID), true)
					assert.False(t, again, "%s was handled twice", r.Header.ControlID)
					return nil, nil
				}),
				Observe: func(e mllp.Event) {
					if e.Kind == mllp.EventAckUndeliverable {
						undelivered.Add(1)
					}
				},
			}
			served := make(chan struct{})
			go func() {
				srv.Serve(t.Context(), ln)
				close(served)
			}()
			var wg sync.WaitGroup
			for s := range senders {
				wg.Go(func() {
					var frames strings.Builder
					var ids []string
					for i := range messages {
						id := fmt.Sprintf("%d-%d", s, i)
						msg := keyed(id, fmt.Sprint("p", i%11))
						if i%50 == 49 {
							msg = "BHS|^~\\&\r" + msg + keyed(id+"b", "p") + "BTS|2\r"
						}
						frames.WriteString(frame(msg))
						if ids = append(ids, id); i%50 == 49 {
							ids = append(ids, id+"b")
						}
					}
					for breakOff := range 2 {
						c := dial()
						defer c.Close()
						go func() { _, _ = c.Write([]byte(frames.String())) }()
						r := mllp.NewReader(c, 0)
						for n, id := range ids {
							if breakOff == 0 && n == 50 {
								c.Close()
								break
							}
							text, err := r.Next()
							if !assert.NoError(t, err) {
								return
							}
							a, err := mllp.ParseAck(text)
							assert.NoError(t, err)
							assert.Equal(t, mllp.Ack{Code: mllp.AA, ControlID: id}, a)
						}
					}
				})
			}
			wg.Wait()
			require.NoError(t, srv.Close())
			<-served
			assert.Equal(t, int32(senders*(messages+4)), calls.Load())
			t.Logf("%d answers did not arrive at first", undelivered.Load())
		})
	}
}
