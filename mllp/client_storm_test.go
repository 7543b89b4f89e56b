package mllp_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// peak returns the largest number of times within one span.
func peak(times []time.Duration, span time.Duration) int {
	slices.Sort(times)
	most, first := 0, 0
	for i, at := range times {
		for at-times[first] >= span {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// TestAThousandClientsDoNotStormARestartedServer has them all lose their
// connections in one moment, to a Server that is away for a while. It was busy:
// each of them has a message to send.
func TestAThousandClientsDoNotStormARestartedServer(t *testing.T) {
	const clients = 1000
	for name, tt := range map[string]struct {
		dials       *mllp.DialLimiter
		span        time.Duration
		most        int           // dials in that span
		recoversIn  time.Duration // after the Server is back
		outage      time.Duration
		leastOfMost int // the positive control: as many dials in that span there must have been
	}{
		// Half a second for a thousand first tries: 200 in a tenth, and what chance adds.
		"by jitter alone": {nil, 100 * time.Millisecond, 400, 31 * time.Second, 20 * time.Second, 150},
		"by a limiter":    {&mllp.DialLimiter{PerSecond: 200}, time.Second, 201, 40 * time.Second, 20 * time.Second, 200},
		"a short restart": {nil, 100 * time.Millisecond, 400, 16 * time.Second, time.Second, 150},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				start := func() (stop func()) {
					ln := memnet.Listen()
					n.mu.Lock()
					n.ln = ln
					n.mu.Unlock()
					srv := &mllp.Server{MaxConns: 2 * clients, MaxConnsPerHost: 2 * clients, Handler: mllp.HandlerFunc(
						func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil },
					)}
					served := make(chan struct{})
					go func() {
						defer close(served)
						_ = srv.Serve(context.WithoutCancel(t.Context()), ln)
					}()
					return func() {
						n.down()
						srv.Close()
						<-served
					}
				}
				stop := start()
				all := make([]*mllp.Client, clients)
				for i := range all {
					all[i] = newClient(t, n, &mllp.Client{Dials: tt.dials})
					_, err := all[i].Send(t.Context(), adt("M1"))
					require.NoError(t, err)
				}
				stop()
				synctest.Wait()
				lost := time.Now()
				n.mu.Lock()
				n.began, n.dials = lost, nil
				n.mu.Unlock()

				var waiting sync.WaitGroup
				var mu sync.Mutex
				var recovered []time.Duration
				for _, c := range all {
					waiting.Go(func() {
						_, err := c.Send(t.Context(), adt("M2"))
						assert.NoError(t, err, "nothing was written before the Server was back")
						mu.Lock()
						defer mu.Unlock()
						recovered = append(recovered, time.Since(lost)-tt.outage)
					})
				}
				time.Sleep(tt.outage)
				stop = start()
				waiting.Wait()
				for _, c := range all {
					c.Close()
				}
				stop()

				slices.Sort(recovered)
				assert.LessOrEqual(t, recovered[clients-1], tt.recoversIn)
				n.mu.Lock()
				defer n.mu.Unlock()
				most := peak(n.dials, tt.span)
				assert.LessOrEqual(t, most, tt.most)
				assert.GreaterOrEqual(t, most, tt.leastOfMost)
				t.Logf("%d dials, at most %d in %v; recovery: half after %v, all after %v",
					len(n.dials), most, tt.span, recovered[clients/2], recovered[clients-1])
			})
		})
	}
}

func TestADialLimiterKeepsTheOrderAndLetsThoseGoThatGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.up(accept)
		limit := &mllp.DialLimiter{PerSecond: 2}
		ctx, cancel := context.WithCancel(t.Context())
		var results, given []<-chan sent
		for range 5 {
			results = append(results, post(t.Context(), newClient(t, n, &mllp.Client{Dials: limit}), "M"))
		}
		for range 100 {
			given = append(given, post(ctx, newClient(t, n, &mllp.Client{Dials: limit}), "M"))
		}
		last := post(t.Context(), newClient(t, n, &mllp.Client{Dials: limit}), "M")
		closed := newClient(t, n, &mllp.Client{Dials: limit})
		ended := post(t.Context(), closed, "M")
		closed.Close()
		failed(t, (<-ended).err, mllp.NotSent)
		cancel()
		for _, ch := range given {
			failed(t, (<-ch).err, mllp.NotSent)
		}
		for i, ch := range append(results, last) {
			s := <-ch
			require.NoError(t, s.err)
			assert.Equal(t, time.Duration(i)*500*time.Millisecond, s.took)
		}
	})
}
