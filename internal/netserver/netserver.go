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
	NewConn func(net.Conn) Conn
	// MaxConns and MaxConnsPerHost limit the connections of the Server as a
	// whole and of one client address. Zero or less: no limit.
	MaxConns, MaxConnsPerHost int
	// DrainTimeout is how long connections may take when ctx ends. Negative: for
	// ever; zero: none.
	DrainTimeout time.Duration
	// Refused is called for a connection that was closed at once because one
	// of the limits was reached.
	Refused func(from net.Addr, perHost bool)
	// AcceptFailed is called when Accept has failed and will be tried again
	// after pause.
	AcceptFailed func(err error, pause time.Duration)
}

// A Server holds the connections of any number of Serve calls. The zero value is
// ready to use. All methods may be called concurrently.
type Server struct {
	mu sync.Mutex
	// guarded by mu
	closing   bool
	serving   map[*serving]struct{}
	conns     map[*tracked]struct{}
	hosts     map[netip.Addr]int
	empty     chan struct{} // made with closing; closed when no connection is left
	abandoned int           // connections that were busy when they were cut
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
	Conn

	raw  net.Conn
	host netip.Addr
	cut  bool // guarded by Server.mu: closed by cut
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
	err := s.accept(base, v, o, &conns)
	close(ended)
	conns.Wait()
	drain.Wait()
	return err
}

// accept is the accept loop. It starts the connections in wg.
func (s *Server) accept(ctx context.Context, v *serving, o Options, wg *sync.WaitGroup) error {
	const shortest, longest = 5 * time.Millisecond, time.Second // those of net/http
	pause := shortest
	for {
		raw, err := v.Accept()
		if err == nil {
			pause = shortest
			t := &tracked{raw: raw, host: hostOf(raw.RemoteAddr())}
			switch err := s.enter(t, o); {
			case err == nil:
				wg.Go(func() {
					defer s.leave(t)
					t.Serve(ctx)
				})
			case errors.Is(err, ErrClosed):
				raw.Close()
				return err
			default:
				raw.Close()
				o.Refused(raw.RemoteAddr(), errors.Is(err, errHostFull))
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

var (
	errFull     = errors.New("netserver: too many connections")
	errHostFull = errors.New("netserver: too many connections from one address")
)

// enter adds a connection, or says why not.
func (s *Server) enter(t *tracked, o Options) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return ErrClosed
	case o.MaxConns > 0 && len(s.conns) >= o.MaxConns:
		return errFull
	case o.MaxConnsPerHost > 0 && s.hosts[t.host] >= o.MaxConnsPerHost:
		return errHostFull
	}
	t.Conn = o.NewConn(t.raw)
	s.conns[t] = struct{}{}
	s.hosts[t.host]++
	return nil
}

func (s *Server) leave(t *tracked) {
	t.raw.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, t)
	if s.hosts[t.host]--; s.hosts[t.host] == 0 {
		delete(s.hosts, t.host)
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
		t.Drain()
	}
	return s.empty
}

// cut closes the connections that are left.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.conns {
		if !t.cut && t.Busy() {
			s.abandoned++
		}
		t.cut = true
	}
	for v := range s.serving {
		v.cancel()
	}
	for t := range s.conns {
		t.raw.Close()
	}
}

// hostOf returns the IP address of a, or the zero Addr: all peers without one
// count as one host.
func hostOf(a net.Addr) netip.Addr {
	if a, ok := a.(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
