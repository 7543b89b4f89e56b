package httpsender_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/memnet"
)

func TestRequestsBeyondTheLimitOfAHostWaitInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var j journal
		s := &httpsender.Sender{MaxRequestsPerHost: 1, Observe: j.observe}
		var most, now atomic.Int32
		var mu sync.Mutex
		var order []string
		handled(t, s, func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			order = append(order, r.URL.Path)
			mu.Unlock()
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
		})
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				_, _, err := exchange(s, request(t, "GET", fmt.Sprintf("%s/%d", origin, i), nil))
				assert.NoError(t, err)
			})
			synctest.Wait() // so that they come in this order
		}
		all.Wait()
		assert.Equal(t, int32(1), most.Load())
		assert.Equal(t, []string{"/0", "/1", "/2", "/3", "/4", "/5"}, order)
		var queued []time.Duration
		for _, e := range j.of(httpsender.EventAttempt) {
			queued = append(queued, e.Queued)
		}
		assert.ElementsMatch(t, []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 5 * time.Second}, queued)
	})
}

func TestAPlaceIsHeldUntilTheAnswerIsClosedAndNoLonger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{MaxRequestsPerHost: 1, QueueTimeout: 3 * time.Second}
		handled(t, s, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "answer") })
		resp, err := s.Do(request(t, "GET", origin, nil))
		require.NoError(t, err)
		start := time.Now()
		e := outcome(t, s, request(t, "POST", origin, text("x")))
		assert.Equal(t, 3*time.Second, time.Since(start))
		assert.ErrorIs(t, e, httpsender.ErrQueueTimeout)
		assert.Equal(t, httpsender.Retryable, e.Outcome)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		e = outcome(t, s, request(t, "POST", origin, text("x")).WithContext(ctx))
		assert.ErrorIs(t, e, context.DeadlineExceeded)
		assert.False(t, e.MaybeDelivered())

		require.NoError(t, resp.Body.Close())
		for range 3 { // answers that were read, closed, or had no body give it back
			_, _, err = exchange(s, request(t, "GET", origin, nil))
			require.NoError(t, err)
			resp, err := s.Do(request(t, "HEAD", origin, nil)) //nolint:bodyclose // that is the point
			require.NoError(t, err)
			assert.Equal(t, http.NoBody, resp.Body)
		}
	})
}

func TestAPauseHoldsNoPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{MaxRequestsPerHost: 1, Retry: httpsender.Retry{MinBackoff: -1}}
		var refused atomic.Bool
		handled(t, s, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/later" && !refused.Swap(true) {
				w.Header().Set("Retry-After", "60")
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		var waiting sync.WaitGroup
		waiting.Go(func() {
			status, _, err := exchange(s, request(t, "POST", origin+"/later", text("x")))
			assert.NoError(t, err)
			assert.Equal(t, 200, status)
		})
		synctest.Wait()
		start := time.Now()
		_, _, err := exchange(s, request(t, "GET", origin+"/now", nil))
		require.NoError(t, err)
		assert.Zero(t, time.Since(start))
		waiting.Wait()
		assert.Equal(t, time.Minute, time.Since(start))
	})
}

func TestABreakerOpensAfterFailuresAndLetsOneThroughLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var j journal
		s := &httpsender.Sender{Retry: httpsender.Retry{MaxAttempts: -1}, Observe: j.observe}
		var down atomic.Bool
		var served atomic.Int32
		down.Store(true)
		handled(t, s, func(w http.ResponseWriter, _ *http.Request) {
			served.Add(1)
			time.Sleep(time.Second)
			if down.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		send := func() error {
			resp, err := s.Do(request(t, "GET", origin, nil))
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		for range 5 {
			require.NoError(t, send())
		}
		start := time.Now()
		for range 100 {
			e := failed(t, send())
			assert.ErrorIs(t, e, httpsender.ErrCircuitOpen)
			assert.Equal(t, httpsender.Retryable, e.Outcome)
			assert.False(t, e.MaybeDelivered())
		}
		assert.Zero(t, time.Since(start))
		assert.Equal(t, int32(5), served.Load())

		time.Sleep(10 * time.Second)
		require.NoError(t, send()) // one is let through, and fails
		assert.ErrorIs(t, send(), httpsender.ErrCircuitOpen)
		down.Store(false)
		time.Sleep(10 * time.Second)
		var all sync.WaitGroup
		var through, turned atomic.Int32
		for range 10 {
			all.Go(func() {
				if send() == nil {
					through.Add(1)
				} else {
					turned.Add(1)
				}
			})
		}
		all.Wait()
		assert.Equal(t, int32(1), through.Load(), "one request tries whether the host is back")
		assert.Equal(t, int32(9), turned.Load())
		for range 10 {
			require.NoError(t, send())
		}
		var states []httpsender.CircuitState
		for _, e := range j.of(httpsender.EventCircuit) {
			assert.Equal(t, origin, e.Origin)
			states = append(states, e.Circuit)
		}
		assert.Equal(t, []httpsender.CircuitState{"open", "half-open", "open", "half-open", "closed"}, states)
	})
}

func TestWhatTheHostIsNotToBlameForDoesNotOpenTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{Retry: httpsender.Retry{MaxAttempts: -1}, Breaker: httpsender.Breaker{Failures: 1}}
		rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool {
			if r.URL.Path == "/slow" {
				time.Sleep(time.Minute)
				return false
			}
			return say("HTTP/1.1 "+r.URL.Path[1:]+" X\r\nContent-Length: 0\r\n\r\n")(c, r)
		})
		for _, status := range []string{"400", "401", "404", "408", "425", "429"} {
			got, _, err := exchange(s, request(t, "GET", origin+"/"+status, nil))
			require.NoError(t, err)
			assert.Equal(t, status, fmt.Sprint(got))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, outcome(t, s, request(t, "GET", origin+"/slow", nil).WithContext(ctx)), context.DeadlineExceeded)
		broken := httpsender.Func("", 1<<20, func() (io.ReadCloser, error) { return nil, errors.New("no such file") })
		assert.NotErrorIs(t, outcome(t, s, request(t, "POST", origin+"/200", broken)), httpsender.ErrCircuitOpen)
		_, _, err := exchange(s, request(t, "GET", origin+"/200", nil))
		require.NoError(t, err)
		got, _, err := exchange(s, request(t, "GET", origin+"/500", nil)) // the control
		require.NoError(t, err)
		assert.Equal(t, 500, got)
		assert.ErrorIs(t, outcome(t, s, request(t, "GET", origin+"/200", nil)), httpsender.ErrCircuitOpen)
	})
}

func TestABreakerIsOfOneHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{Retry: httpsender.Retry{MaxAttempts: -1}, Breaker: httpsender.Breaker{Failures: 1}}
		server := rawly(t, s, nil, say(fine))
		s.NetDialer = dialFunc(func(_ context.Context, _, addr string) (net.Conn, error) {
			if addr == "down.example:80" {
				return nil, syscall.ECONNREFUSED
			}
			return server.ln.Dial()
		})
		down := request(t, "GET", "http://down.example", nil)
		assert.ErrorIs(t, outcome(t, s, down), syscall.ECONNREFUSED)
		assert.ErrorIs(t, outcome(t, s, down), httpsender.ErrCircuitOpen)
		_, _, err := exchange(s, request(t, "GET", "http://up.example", nil))
		require.NoError(t, err)
	})
}

func TestAProbeThatIsCancelledDecidesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{Retry: httpsender.Retry{MaxAttempts: -1}, Breaker: httpsender.Breaker{Failures: 1, OpenFor: time.Second}}
		var status atomic.Int32
		status.Store(500)
		handled(t, s, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(10 * time.Second)
			w.WriteHeader(int(status.Load()))
		})
		_, _, err := exchange(s, request(t, "GET", origin, nil))
		require.NoError(t, err)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, outcome(t, s, request(t, "GET", origin, nil).WithContext(ctx)), context.DeadlineExceeded)
		status.Store(200)
		_, _, err = exchange(s, request(t, "GET", origin, nil)) // the next one probes
		require.NoError(t, err)
		_, _, err = exchange(s, request(t, "GET", origin, nil))
		require.NoError(t, err)
	})
}

func TestManyHostsAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{MaxIdleConnsPerHost: -1, Retry: httpsender.Retry{MaxAttempts: -1}, Breaker: httpsender.Breaker{Failures: 1, OpenFor: time.Hour}}
		server := rawly(t, s, nil, say(fine))
		s.NetDialer = dialFunc(func(_ context.Context, _, addr string) (net.Conn, error) {
			if addr == "down.example:80" {
				return nil, syscall.ECONNREFUSED
			}
			return server.ln.Dial()
		})
		outcome(t, s, request(t, "GET", "http://down.example", nil))
		for i := range 1500 {
			_, _, err := exchange(s, request(t, "GET", fmt.Sprintf("http://h%d.example", i), nil))
			require.NoError(t, err)
		}
		e := outcome(t, s, request(t, "GET", "http://down.example", nil))
		assert.ErrorIs(t, e, httpsender.ErrCircuitOpen, "but not those that are known to be down")
	})
}

func TestConnectionsAreKeptAsLongAsTheyMay(t *testing.T) {
	for name, c := range map[string]struct {
		sender *httpsender.Sender
		pause  time.Duration
		conns  int // that ten requests take
	}{
		"by default":             {&httpsender.Sender{}, 50 * time.Second, 1},
		"idle for too long":      {&httpsender.Sender{}, 56 * time.Second, 10},
		"none, as set":           {&httpsender.Sender{MaxIdleConnsPerHost: -1}, 0, 10},
		"until they are too old": {&httpsender.Sender{ConnLifetime: 100 * time.Second}, 30 * time.Second, 3},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := c.sender
				server := rawly(t, s, nil, say(fine))
				for range 10 {
					_, _, err := exchange(s, request(t, "GET", origin, nil))
					require.NoError(t, err)
					time.Sleep(c.pause)
				}
				got := server.got()
				assert.Equal(t, c.conns, got[9].conn)
			})
		})
	}
}

func TestConnectionsOfAHostAreLimited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{MaxConnsPerHost: 3}
		server := rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool {
			time.Sleep(time.Second)
			return say(fine)(c, r)
		})
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				_, _, err := exchange(s, request(t, "GET", origin, nil))
				assert.NoError(t, err)
			})
		}
		all.Wait()
		most := 0
		for _, r := range server.got() {
			most = max(most, r.conn)
		}
		assert.Equal(t, 3, most)
	})
}

func TestARequestUnderWayOutlivesItsPool(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{}
		server := rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool {
			time.Sleep(time.Second)
			return say(fine)(c, r)
		})
		var all sync.WaitGroup
		all.Go(func() {
			_, body, err := exchange(s, request(t, "POST", origin, text("x")))
			assert.NoError(t, err)
			assert.Equal(t, "ok", body)
		})
		synctest.Wait()
		s.CloseIdleConnections()
		all.Wait()
		_, _, err := exchange(s, request(t, "POST", origin, text("x")))
		require.NoError(t, err)
		assert.Equal(t, 2, server.got()[1].conn, "the connection was closed when its request ended")
	})
}
