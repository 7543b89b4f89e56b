package netserver_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/netserver"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// echo sends back what it gets. A byte of '!' keeps it busy for a second, '*'
// until its context ends.
type echo struct {
	net.Conn
	peer                    netserver.Peer
	idle                    time.Time // since when; not written after the first read
	busy, draining, evicted atomic.Bool
}

func (e *echo) Serve(ctx context.Context) {
	buf := make([]byte, 1)
	for !e.draining.Load() {
		if _, err := e.Read(buf); err != nil {
			return
		}
		e.busy.Store(true)
		switch buf[0] {
		case '!':
			time.Sleep(time.Second)
		case '*':
			<-ctx.Done()
			return
		}
		e.Write(buf)
		e.busy.Store(false)
	}
}

func (e *echo) Drain() {
	e.draining.Store(true)
	e.SetReadDeadline(time.Unix(1, 0))
}

func (e *echo) Busy() bool { return e.busy.Load() }

func (e *echo) IdleSince() time.Time { return e.idle }
func (e *echo) Evict()               { e.evicted.Store(true) }

type refusal struct {
	netserver.Peer
	why error
}

type rig struct {
	srv     netserver.Server
	ln      *memnet.Listener
	stop    context.CancelFunc
	served  chan error
	refused []refusal
	pauses  []time.Duration
}

func start(t *testing.T, o netserver.Options, wrap func(net.Listener) net.Listener) *rig {
	t.Helper()
	r := &rig{ln: memnet.Listen(), served: make(chan error, 1)}
	o.NewConn = func(c net.Conn, p netserver.Peer) netserver.Conn { return &echo{Conn: c, peer: p, idle: time.Now()} }
	o.Refused = func(p netserver.Peer, why error) { r.refused = append(r.refused, refusal{p, why}) }
	o.AcceptFailed = func(_ error, pause time.Duration) { r.pauses = append(r.pauses, pause) }
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	ln := net.Listener(r.ln)
	if wrap != nil {
		ln = wrap(ln)
	}
	go func() { r.served <- r.srv.Serve(ctx, ln, o) }()
	synctest.Wait()
	t.Cleanup(func() {
		r.srv.Close()
		stop()
	})
	return r
}

// why returns the reasons of the refusals.
func (r *rig) why() (all []error) {
	for _, f := range r.refused {
		all = append(all, f.why)
	}
	return all
}

// say sends a byte and returns what comes back.
func say(c net.Conn, b byte) error {
	if _, err := c.Write([]byte{b}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func (r *rig) dial(t *testing.T, ip byte) *memnet.Conn {
	t.Helper()
	c, err := r.ln.DialFrom(net.IPv4(10, 0, 0, ip))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	synctest.Wait()
	return c
}

func TestExcessConnectionsAreRefusedAndNobodyIsEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{MaxConns: 3, MaxConnsPerHost: 2}, nil)
		a, b := r.dial(t, 1), r.dial(t, 1)
		assert.ErrorIs(t, say(r.dial(t, 1), 'x'), syscall.EPIPE)
		c := r.dial(t, 2)
		assert.Error(t, say(r.dial(t, 3), 'x'))
		assert.Equal(t, []error{netserver.ErrHostFull, netserver.ErrFull}, r.why())
		assert.Equal(t, 3, r.srv.Conns())
		for _, conn := range []net.Conn{a, b, c} {
			assert.NoError(t, say(conn, 'x'))
		}
		a.Close()
		synctest.Wait()
		assert.NoError(t, say(r.dial(t, 1), 'x'), "a slot was freed")
		ip6, err := r.ln.DialFrom(net.ParseIP("::ffff:10.0.0.1"))
		require.NoError(t, err)
		synctest.Wait()
		assert.Error(t, say(ip6, 'x'), "the same host, written as IPv6")
	})
}

// failing is a listener that fails n times before it works.
type failing struct {
	net.Listener
	n int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.n--; f.n >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptErrorsAreWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := start(t, netserver.Options{}, func(ln net.Listener) net.Listener { return &failing{ln, 10} })
		require.NoError(t, say(r.dial(t, 1), 'x'))
		const ms = time.Millisecond
		assert.Equal(t, []time.Duration{5 * ms, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, 1000 * ms, 1000 * ms}, r.pauses)
		assert.Equal(t, 3275*ms, time.Since(began))
	})
}

func TestShutdownDuringAPauseOfAcceptIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{}, func(ln net.Listener) net.Listener { return &failing{ln, 1 << 30} })
		time.Sleep(time.Minute)
		began := time.Now()
		r.srv.Shutdown(t.Context())
		assert.ErrorIs(t, <-r.served, netserver.ErrClosed)
		assert.Zero(t, time.Since(began))
	})
}

func TestShutdownLetsWhatIsInHandFinish(t *testing.T) {
	for name, end := range map[string]func(*rig, *testing.T){
		"Shutdown":       func(r *rig, t *testing.T) { r.srv.Shutdown(t.Context()) },
		"end of context": func(r *rig, _ *testing.T) { r.stop() },
		"closed listener": func(r *rig, _ *testing.T) {
			r.ln.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, netserver.Options{DrainTimeout: 30 * time.Second}, nil)
				idle, busy := r.dial(t, 1), r.dial(t, 2)
				result := make(chan error, 1)
				go func() { result <- say(busy, '!') }()
				synctest.Wait()
				began := time.Now()
				end(r, t)
				assert.Error(t, <-r.served)
				assert.NoError(t, <-result)
				assert.Equal(t, time.Second, time.Since(began))
				assert.Zero(t, r.srv.Conns())
				assert.Zero(t, r.srv.Abandoned())
				assert.Error(t, say(idle, 'x'))
			})
		})
	}
}

func TestTheDrainHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{DrainTimeout: 30 * time.Second}, nil)
		a, b := r.dial(t, 1), r.dial(t, 2)
		var wg sync.WaitGroup
		for _, c := range []net.Conn{a, b} {
			wg.Go(func() { assert.Error(t, say(c, '*')) })
		}
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r.srv.Shutdown(ctx)
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Equal(t, 2, r.srv.Abandoned())
		assert.ErrorIs(t, <-r.served, netserver.ErrClosed)
		wg.Wait()
	})
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{DrainTimeout: 30 * time.Second}, nil)
		c := r.dial(t, 1)
		go say(c, '*')
		synctest.Wait()
		began := time.Now()
		r.srv.Shutdown(t.Context())
		assert.Equal(t, 30*time.Second, time.Since(began), "DrainTimeout holds for Shutdown too")
		assert.Equal(t, 1, r.srv.Abandoned())
	})
}

func TestCloseEndsEverythingAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{DrainTimeout: time.Minute}, nil)
		c := r.dial(t, 1)
		result := make(chan error, 1)
		go func() { result <- say(c, '*') }()
		synctest.Wait()
		began := time.Now()
		r.srv.Close()
		assert.Error(t, <-result)
		assert.ErrorIs(t, <-r.served, netserver.ErrClosed)
		assert.Zero(t, time.Since(began))
		r.srv.Close()

		ln := memnet.Listen()
		assert.ErrorIs(t, r.srv.Serve(t.Context(), ln, netserver.Options{}), netserver.ErrClosed)
		_, err := ln.Accept()
		assert.ErrorIs(t, err, net.ErrClosed, "a refused listener is closed")
	})
}

func TestServeKeepsTheValuesOfItsContextButNotItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var srv netserver.Server
		ln := memnet.Listen()
		ctx, stop := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		got := make(chan context.Context, 1)
		served := make(chan error)
		go func() {
			served <- srv.Serve(ctx, ln, netserver.Options{
				DrainTimeout: time.Second,
				NewConn: func(net.Conn, netserver.Peer) netserver.Conn {
					return funcConn(func(ctx context.Context) { got <- ctx; <-ctx.Done() })
				},
			})
		}()
		c, err := ln.Dial()
		require.NoError(t, err)
		defer c.Close()
		inner := <-got
		assert.Equal(t, "value", inner.Value(key{}))
		began := time.Now()
		stop()
		synctest.Wait()
		assert.NoError(t, inner.Err())
		assert.True(t, errors.Is(<-served, netserver.ErrClosed))
		assert.Equal(t, time.Second, time.Since(began))
		assert.Error(t, inner.Err())
	})
}

type funcConn func(ctx context.Context)

func (f funcConn) Serve(ctx context.Context) { f(ctx) }
func (funcConn) Drain()                      {}
func (funcConn) Busy() bool                  { return true }
