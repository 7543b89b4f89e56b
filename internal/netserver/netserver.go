// Package netserver is the part of a server that is the same for every protocol:
// it accepts connections, keeps count of them, refuses those beyond the limits,
// and ends them, at once or when they have done what they have in hand.
package netserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ErrClosed is returned by Serve after Shutdown, Close, or the end of its context.
var ErrClosed = errors.New("netserver: closed")

// A Conn is what a protocol makes of a connection.
type Conn interface {
	// Serve runs in a goroutine of its own; the connection is closed when it
	// returns. At the end of ctx it must return soon; the connection is then
	// being closed.
	Serve(ctx context.Context)
	// Drain asks for the end of Serve as soon as nothing is in hand. It is
	// called at most once, from another goroutine, and must not block.
	Drain()
	// Busy reports whether something is in hand that would be lost if the
	// connection were closed now. It may be called from any goroutine.
	Busy() bool
}

// Options of a call of Serve.
type Options struct {
	// NewConn is called for each connection before its Serve. It must neither
	// block nor call the Server.
	NewConn func(net.Conn, Peer) Conn
	// Deny and, if it is not empty, Allow say which clients may connect; Deny
	// comes first. Both must be Canonical.
	Allow, Deny Prefixes
	// Proxies are the peers that begin each connection with a header of the PROXY
	// protocol, and must. Allow and Deny then apply to the client that it names, or
	// to the proxy itself if it names none. Must be Canonical.
	Proxies Prefixes
	// HeaderTimeout is how long that header may take. Zero or less: no limit.
	HeaderTimeout time.Duration
	// MaxConns and MaxConnsPerHost limit the connections of the Server as a
	// whole and of one client address. Zero or less: no limit. Of connections
	// whose proxy has not named their client yet there may be MaxConns more.
	MaxConns, MaxConnsPerHost int
	// EvictIdle, if positive, makes room for a connection beyond one of the
	// limits: of the Evictables that have been idle for so long, the one that has
	// been so longest is drained.
	EvictIdle time.Duration
	// DrainTimeout is how long connections may take when ctx ends. Negative: for
	// ever; zero: none.
	DrainTimeout time.Duration
	// Refused is called for a connection that is closed without having been
	// served.
	Refused func(from Peer, why error)
	// AcceptFailed is called when Accept has failed and will be tried again
	// after pause.
	AcceptFailed func(err error, pause time.Duration)
	// Abandoned, if not nil, is called for a Conn that is busy when it is cut,
	// before it is closed. It must neither block nor call the Server.
	Abandoned func(Conn)
}

// A Server holds the connections of any number of Serve calls. The zero value is
// ready to use. All methods may be called concurrently.
type Server struct {
	mu sync.Mutex
	// guarded by mu
	closing   bool
	serving   map[*serving]struct{}
	conns     map[*tracked]struct{}
	hosts     map[netip.Addr]int // how many conns, without those that are evicted
	evicting  int                // conns that are evicted
	waiting   int                // conns whose proxy has not named their client
	empty     chan struct{}      // made with closing; closed when no connection is left
	abandoned int                // connections that were busy when they were cut
}

// serving is a call of Serve.
type serving struct {
	net.Listener

	once   sync.Once
	closed chan struct{}      // closed by Close
	cancel context.CancelFunc // ends the context of its connections
}

func (v *serving) Close() (err error) {
	v.once.Do(func() {
		close(v.closed)
		err = v.Listener.Close()
	})
	return err
}

// tracked is a connection that is being served.
type tracked struct {
	// static after construction
	raw net.Conn
	o   *Options

	// Written by introduce before conn is set, static then.
	peer Peer
	host netip.Addr

	// guarded by Server.mu
	conn    Conn // nil while the header of a proxy is awaited; static then
	drained bool
	evicted bool
	cut     bool // closed by cut
}

// drainLocked drains the connection, if that has not been done.
func (t *tracked) drainLocked() {
	switch {
	case t.drained:
	case t.conn == nil:
		t.raw.Close() // nothing is in hand
	default:
		t.conn.Drain()
	}
	t.drained = true
}

// Serve accepts connections on ln, which it closes in the end, until ctx ends,
// Shutdown or Close is called, or ln is closed by someone else; each of these
// drains the Server as a whole, and it cannot be used again. Serve returns when
// nothing that it started still runs. Its error is ErrClosed, or that of the
// listener.
func (s *Server) Serve(ctx context.Context, ln net.Listener, o Options) error {
	// What is in hand when ctx ends may still be finished.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	v := &serving{Listener: ln, closed: make(chan struct{}), cancel: cancel}
	defer v.Close()
	if !s.start(v) {
		return ErrClosed
	}
	defer s.stop(v)

	var conns, drain sync.WaitGroup
	ended := make(chan struct{})
	drain.Go(func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		limit := base
		if o.DrainTimeout >= 0 {
			var stop context.CancelFunc
			limit, stop = context.WithTimeout(base, o.DrainTimeout)
			defer stop()
		}
		s.Shutdown(limit)
	})
	err := s.accept(base, v, &o, &conns)
	close(ended)
	conns.Wait()
	drain.Wait()
	return err
}

// accept is the accept loop. It starts the connections in wg.
func (s *Server) accept(ctx context.Context, v *serving, o *Options, wg *sync.WaitGroup) error {
	const shortest, longest = 5 * time.Millisecond, time.Second // those of net/http
	pause := shortest
	for {
		raw, err := v.Accept()
		if err == nil {
			pause = shortest
			t := &tracked{raw: raw, o: o, peer: Peer{Addr: raw.RemoteAddr()}, host: hostOf(raw.RemoteAddr())}
			switch err := s.enter(t); {
			case err == nil:
				wg.Go(func() {
					defer s.leave(t)
					s.serve(ctx, t)
				})
			case errors.Is(err, ErrClosed):
				raw.Close()
				return err
			default:
				raw.Close()
				o.Refused(t.peer, err)
			}
			continue
		}
		switch {
		case s.isClosing():
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("netserver: %w", err)
		}
		// Such as EMFILE. Giving up would lose the listener for good.
		o.AcceptFailed(err, pause)
		select {
		case <-time.After(pause):
		case <-v.closed:
		}
		pause = min(2*pause, longest)
	}
}

// serve serves a connection that has entered.
func (s *Server) serve(ctx context.Context, t *tracked) {
	if t.conn == nil { // nobody else sets it
		if err := s.introduce(t); err != nil {
			t.raw.Close()
			if !s.isClosing() {
				t.o.Refused(t.peer, err)
			}
			return
		}
	}
	t.conn.Serve(ctx)
}

// Shutdown closes the listeners and the connections that have nothing in hand,
// and waits for the others. When ctx ends it cuts those that are left, and
// returns without waiting for what does not heed the end of its context.
func (s *Server) Shutdown(ctx context.Context) {
	select {
	case <-s.close():
	case <-ctx.Done():
		s.cut()
	}
}

// Close closes the listeners and all connections at once, and ends the context of
// what they do. It does not wait.
func (s *Server) Close() {
	s.close()
	s.cut()
}

// Abandoned returns how many connections were busy when they were cut.
func (s *Server) Abandoned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.abandoned
}

// Each calls f for each Conn, one after the other. It must neither block nor call
// the Server.
func (s *Server) Each(f func(Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.conns {
		if t.conn != nil {
			f(t.conn)
		}
	}
}

// Conns returns the number of connections.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) start(v *serving) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	if s.serving == nil {
		s.serving = make(map[*serving]struct{})
		s.conns = make(map[*tracked]struct{})
		s.hosts = make(map[netip.Addr]int)
	}
	s.serving[v] = struct{}{}
	return true
}

func (s *Server) stop(v *serving) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.serving, v)
}

func (s *Server) leave(t *tracked) {
	t.raw.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, t)
	switch {
	case t.evicted:
		s.evicting--
	case t.conn != nil:
		s.uncountLocked(t)
	default:
		s.waiting--
	}
	if s.closing && len(s.conns) == 0 {
		close(s.empty)
	}
}

// close begins the end: nothing new comes in after it.
func (s *Server) close() (empty <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return s.empty
	}
	s.closing = true
	s.empty = make(chan struct{})
	if len(s.conns) == 0 {
		close(s.empty)
	}
	for v := range s.serving {
		v.Close()
	}
	for t := range s.conns {
		t.drainLocked()
	}
	return s.empty
}

// cut closes the connections that are left.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.conns {
		if !t.cut && t.conn != nil && t.conn.Busy() {
			s.abandoned++
			if t.o.Abandoned != nil {
				t.o.Abandoned(t.conn)
			}
		}
		t.cut = true
	}
	// First the connections: what a handler says because its context has ended must
	// not get out any more, as it was counted as abandoned.
	for t := range s.conns {
		t.raw.Close()
	}
	for v := range s.serving {
		v.cancel()
	}
}
