package mllp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// pipelinePeer is echoPeer for peers that do not wait: it answers each frame of
// what a read brings, with one write.
func pipelinePeer(tb testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	reply := []byte(answer(mllp.AA, "M"))
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer nc.Close()
				buf, out := make([]byte, 64<<10), []byte(nil)
				for {
					n, err := nc.Read(buf)
					if err != nil {
						return
					}
					out = out[:0]
					for range bytes.Count(buf[:n], []byte{0x1C}) { // the CR may be still to come; nobody minds
						out = append(out, reply...)
					}
					if _, err := nc.Write(out); err != nil {
						return
					}
				}
			})
		}
	})
	tb.Cleanup(func() {
		ln.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

// BenchmarkClient compares a Conn and a Client with the least loop that keeps as
// many messages under way: they take turns, and the ratios are those of the
// medians. That loop waits for ever, and learns that the peer has gone only by
// trying; ratio-watching compares with the least one that does not: another
// goroutine reads, also between messages, and a timer bounds each wait (rows 54
// and 56 of the edge cases).
func BenchmarkClient(b *testing.B) {
	for _, window := range []int{1, 16} {
		for _, size := range []int{255, 4 << 10} {
			b.Run(fmt.Sprintf("window=%d/%d", window, size), func(b *testing.B) { benchClient(b, window, size) })
		}
	}
}

func benchClient(b *testing.B, window, size int) {
	msg := adt("M")
	msg = append(msg, strings.Repeat("x", size-len(msg)-1)+"\r"...)
	framed := append(append([]byte{0x0B}, msg...), 0x1C, '\r')
	dial := func() (net.Conn, *bufio.Reader) {
		nc, err := net.Dial("tcp", pipelinePeer(b))
		require.NoError(b, err)
		b.Cleanup(func() { nc.Close() })
		return nc, bufio.NewReader(nc)
	}
	readFrame := func(r *bufio.Reader) error {
		if _, err := r.ReadSlice(0x1C); err != nil {
			return err
		}
		_, err := r.ReadByte()
		return err
	}
	least, replies := dial()
	leastTurn := func(n int) error {
		for i := range n + window - 1 {
			if i < n {
				if _, err := least.Write(framed); err != nil {
					return err
				}
			}
			if i >= window-1 {
				if err := readFrame(replies); err != nil {
					return err
				}
			}
		}
		return nil
	}
	watching, watched := dial()
	came := make(chan struct{}, window)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		defer close(came)
		for readFrame(watched) == nil {
			came <- struct{}{}
		}
	})
	b.Cleanup(func() {
		watching.Close()
		watcher.Wait()
	})
	timer := time.NewTimer(time.Minute)
	watchingTurn := func(n int) error {
		for i := range n + window - 1 {
			if i < n {
				if _, err := watching.Write(framed); err != nil {
					return err
				}
			}
			if i >= window-1 {
				timer.Reset(time.Minute)
				select {
				case _, ok := <-came:
					if !ok {
						return io.EOF
					}
				case <-timer.C:
					return os.ErrDeadlineExceeded
				}
				timer.Stop()
			}
		}
		return nil
	}
	sending := func(send func(context.Context, []byte) (*mllp.Reply, error)) func(int) error {
		return func(n int) error {
			var senders sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(n))
			errs := make(chan error, window)
			for range window {
				senders.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := send(context.Background(), msg); err != nil {
							errs <- err
							return
						}
					}
				})
			}
			senders.Wait()
			close(errs)
			return <-errs
		}
	}
	d := &mllp.Dialer{Window: window}
	conn, err := d.DialContext(b.Context(), "tcp", pipelinePeer(b))
	require.NoError(b, err)
	defer conn.Close()
	client := &mllp.Client{Addr: pipelinePeer(b), Dialer: d}
	defer client.Close()

	const turn = 200
	var took [4][]time.Duration
	b.ReportAllocs()
	for b.Loop() {
		for i, do := range []func(int) error{leastTurn, watchingTurn, sending(conn.Send), sending(client.Send)} {
			began := time.Now()
			if err := do(turn); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	b.ReportMetric(turn/median(took[0]), "least-msg/s")
	for i, name := range map[int]string{2: "Conn", 3: "Client"} {
		b.ReportMetric(median(took[0])/median(took[i]), name+"-ratio")
		b.ReportMetric(median(took[1])/median(took[i]), name+"-ratio-watching")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRestart measures how a thousand Clients, each with a message to send,
// come back to a Server that was away for a second.
func BenchmarkRestart(b *testing.B) {
	const clients = 1000
	ca := testpki.NewCA(b, "CA")
	for _, mode := range []string{"plain", "TLS", "TLS, 200 dials a second"} {
		b.Run(mode, func(b *testing.B) {
			var server, client *tls.Config
			var limit *mllp.DialLimiter
			if strings.Contains(mode, "dials") {
				limit = &mllp.DialLimiter{PerSecond: 200}
			}
			if mode != "plain" {
				server = &tls.Config{Certificates: []tls.Certificate{ca.Server("127.0.0.1").TLS()}}
				client = &tls.Config{RootCAs: ca.Pool()}
			}
			for b.Loop() {
				addr := "127.0.0.1:0"
				start := func() (stop func()) {
					ln, err := net.Listen("tcp", addr)
					require.NoError(b, err)
					addr = ln.Addr().String()
					srv := &mllp.Server{MaxConns: 4 * clients, MaxConnsPerHost: 4 * clients, TLSConfig: server, Handler: mllp.HandlerFunc(
						func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil },
					)}
					served := make(chan struct{})
					go func() {
						defer close(served)
						_ = srv.Serve(context.Background(), ln)
					}()
					return func() {
						srv.Close()
						<-served
					}
				}
				stop := start()
				var mu sync.Mutex
				var dials, recovered []time.Duration
				var lost time.Time
				all := make([]*mllp.Client, clients)
				closed := make(chan struct{}, clients)
				for i := range all {
					dial := dialFunc(func(ctx context.Context) (net.Conn, error) {
						mu.Lock()
						dials = append(dials, time.Since(lost))
						mu.Unlock()
						return new(net.Dialer).DialContext(ctx, "tcp", addr)
					})
					all[i] = &mllp.Client{Addr: addr, Dials: limit, Dialer: &mllp.Dialer{TLSConfig: client, NetDialer: dial}, Observe: func(e mllp.Event) {
						if e.Kind == mllp.EventClosed {
							closed <- struct{}{}
						}
					}}
					_, err := all[i].Send(b.Context(), adt("M1"))
					require.NoError(b, err)
				}
				stop()
				mu.Lock()
				lost, dials = time.Now(), nil // no dial is under way
				mu.Unlock()
				for range clients {
					<-closed
				}
				var sending sync.WaitGroup
				unknown := 0
				for _, c := range all {
					sending.Go(func() {
						_, err := c.Send(b.Context(), adt("M2"))
						mu.Lock()
						defer mu.Unlock()
						if err != nil {
							unknown++
						}
						recovered = append(recovered, time.Since(lost)-time.Second)
					})
				}
				time.Sleep(time.Second) // the outage that is measured
				stop = start()
				sending.Wait()
				for _, c := range all {
					c.Close()
					<-closed
				}
				stop()
				slices.Sort(recovered)
				b.ReportMetric(recovered[clients/2].Seconds(), "s-half")
				b.ReportMetric(recovered[clients-1].Seconds(), "s-all")
				b.ReportMetric(float64(len(dials)), "dials")
				b.ReportMetric(float64(peak(dials, 100*time.Millisecond)), "peak-dials/100ms")
				b.ReportMetric(float64(unknown), "unknown")
			}
		})
	}
}

func TestAClientAllocatesNoMoreThanAConn(t *testing.T) {
	c := &mllp.Client{Addr: echoPeer(t, nil)}
	defer c.Close()
	msg := adt("M")
	assert.LessOrEqual(t, testing.AllocsPerRun(200, func() {
		if _, err := c.Send(context.Background(), msg); err != nil {
			t.Error(err)
		}
	}), 4.0, "the Reply, its bytes, MSA-2 and MSA-3")
	var _ io.Closer = c
}
