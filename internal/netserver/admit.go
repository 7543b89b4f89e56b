package netserver

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/carewire/carewire/internal/proxyproto"
)

// A Peer is who is at the other end of a connection.
type Peer struct {
	Addr  net.Addr // of the client; behind a proxy, as that has given it
	Proxy net.Addr // of the proxy; nil: none
}

// Host returns the IP address of the client. All clients without one have the
// zero Addr, and count as one host.
func (p Peer) Host() netip.Addr { return hostOf(p.Addr) }

// Why a connection is refused; anything else is an error of the PROXY protocol's
// header, or of reading it.
var (
	ErrDenied   = errors.New("netserver: address is not allowed")
	ErrFull     = errors.New("netserver: too many connections")
	ErrHostFull = errors.New("netserver: too many connections from one address")
)

// An Evictable is a Conn that can make room for another one.
type Evictable interface {
	Conn
	// IdleSince returns since when nothing has been in hand. It is asked only
	// while Busy is false.
	IdleSince() time.Time
	// Evict is called before Drain, if that is the reason.
	Evict()
}

// maxEvicting is how many more connections than the limits allow there may be for
// the moment that evicted ones take to end.
const maxEvicting = 8

// admits reports whether a client may connect.
func (o *Options) admits(host netip.Addr) bool {
	return !o.Deny.Contains(host) && (len(o.Allow) == 0 || o.Allow.Contains(host))
}

// enter adds a connection that was accepted, or says why not.
func (s *Server) enter(t *tracked) error {
	proxied := t.o.Proxies.Contains(t.host)
	if !proxied && !t.o.admits(t.host) {
		return ErrDenied
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrClosed
	}
	if proxied { // it counts when its client is known
		if t.o.MaxConns > 0 && s.waiting >= t.o.MaxConns {
			return ErrFull
		}
		s.waiting++
	} else if err := s.startLocked(t); err != nil {
		return err
	}
	s.conns[t] = struct{}{}
	return nil
}

// introduce reads from a proxy who its client is, and makes the Conn. It is
// called in the connection's goroutine.
func (s *Server) introduce(t *tracked) error {
	if limit := t.o.HeaderTimeout; limit > 0 {
		if err := t.raw.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
	}
	h, err := proxyproto.Read(t.raw)
	if err != nil {
		return err
	}
	if err := t.raw.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if h.Source.IsValid() {
		t.peer = Peer{Addr: net.TCPAddrFromAddrPort(h.Source), Proxy: t.peer.Addr}
		t.host = t.peer.Host()
	}
	if !t.o.admits(t.host) {
		return ErrDenied
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrClosed
	}
	if err := s.startLocked(t); err != nil {
		return err
	}
	s.waiting--
	return nil
}

// startLocked counts a connection whose client is known, and makes its Conn.
func (s *Server) startLocked(t *tracked) error {
	if limit := t.o.MaxConnsPerHost; limit > 0 && s.hosts[t.host] >= limit && !s.evictLocked(t, true) {
		return ErrHostFull
	}
	if limit := t.o.MaxConns; limit > 0 && s.startedLocked() >= limit && !s.evictLocked(t, false) {
		return ErrFull
	}
	t.conn = t.o.NewConn(t.raw, t.peer)
	s.hosts[t.host]++
	return nil
}

// startedLocked returns how many connections count for MaxConns.
func (s *Server) startedLocked() int { return len(s.conns) - s.waiting - s.evicting }

// evictLocked ends, in favour of t, the connection that has been idle longest, of
// the same host or of all. It reports whether there was one.
func (s *Server) evictLocked(t *tracked, sameHost bool) bool {
	if t.o.EvictIdle <= 0 || s.evicting >= maxEvicting {
		return false
	}
	var (
		idlest *tracked
		victim Evictable // its conn
	)
	since := time.Now().Add(-t.o.EvictIdle)
	for v := range s.conns {
		if v.evicted || v.conn == nil || sameHost && v.host != t.host {
			continue
		}
		if e, ok := v.conn.(Evictable); ok && !e.Busy() {
			if at := e.IdleSince(); !at.After(since) {
				idlest, victim, since = v, e, at
			}
		}
	}
	if idlest == nil {
		return false
	}
	idlest.evicted = true
	s.evicting++
	s.uncountLocked(idlest)
	victim.Evict()
	idlest.drainLocked()
	return true
}

// uncountLocked takes a connection that startLocked has counted off its host.
func (s *Server) uncountLocked(t *tracked) {
	if s.hosts[t.host]--; s.hosts[t.host] == 0 {
		delete(s.hosts, t.host)
	}
}

// hostOf returns the IP address of a, or the zero Addr.
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
