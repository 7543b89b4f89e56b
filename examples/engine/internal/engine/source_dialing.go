package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// How long a source that connects itself waits before it does so again: a random
// time up to bounds that double from the first to the second, like mllp.Client.
const (
	minRedial = 500 * time.Millisecond
	maxRedial = 30 * time.Second
	// connectTime is how long a connection, or its TLS handshake, may take.
	connectTime = 10 * time.Second
)

// dialing is the listener of a source in CLIENT mode. Instead of waiting for a
// sender it connects to one, and again when that connection has ended. So what
// comes in over it is received as from any port.
type dialing struct {
	// static after construction
	host, address string
	tls           *tlsprops.Source // nil: none
	taken         *atomic.Bool     // set when a message has been stored
	log           *slog.Logger
	ctx           context.Context //nolint:containedctx // ends with Close; Accept is given none
	cancel        context.CancelFunc

	// owned by Accept
	last  *dialed // nil: none yet
	tries int     // since a message was stored
}

func (s *tcpSource) newDialing() (*dialing, error) {
	s.taken.Store(false)
	d := &dialing{
		host: s.cfg.RemoteAddress, address: net.JoinHostPort(s.cfg.RemoteAddress, strconv.Itoa(s.cfg.RemotePort)),
		taken: &s.taken, log: s.log,
	}
	if s.tls != nil {
		source, err := tlsprops.Load(*s.tls)
		if err == nil {
			_, err = source.ClientConfig(d.host)
		}
		if err != nil {
			return nil, err
		}
		d.tls = source
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d, nil
}

// Accept waits for the end of the connection that there is, and makes the next.
func (d *dialing) Accept() (net.Conn, error) {
	if d.last != nil {
		select {
		case <-d.last.ended:
		case <-d.ctx.Done():
			return nil, net.ErrClosed
		}
	}
	for failing := false; ; failing = true {
		if d.taken.Swap(false) {
			d.tries = 1 // a connection proves nothing, a message does
		}
		if d.tries > 0 {
			select {
			case <-time.After(redialPause(d.tries)):
			case <-d.ctx.Done():
				return nil, net.ErrClosed
			}
		}
		d.tries++
		conn, err := d.dial()
		if err == nil {
			d.log.InfoContext(d.ctx, "connected to the sender", "address", d.address)
			d.last = &dialed{Conn: conn, ended: make(chan struct{})}
			return d.last, nil
		}
		if d.ctx.Err() != nil {
			return nil, net.ErrClosed
		}
		level := slog.LevelDebug
		if !failing {
			level = slog.LevelWarn
		}
		d.log.Log(d.ctx, level, "cannot connect to the sender, going on trying", "address", d.address, "err", err)
	}
}

// redialPause is the wait before a try. It is random down to nothing so that those
// who lost the same peer do not all come back at once.
func redialPause(tries int) time.Duration {
	return rand.N(min(minRedial<<min(tries-1, 16), maxRedial) + 1)
}

func (d *dialing) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, connectTime)
	defer cancel()
	var cfg *tls.Config
	if d.tls != nil {
		_ = d.tls.Refresh(ctx) // its only error is that ctx has ended, which dialing notices too
		var err error
		if cfg, err = d.tls.ClientConfig(d.host); err != nil {
			return nil, err
		}
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}}
	conn, err := dialer.DialContext(ctx, "tcp", d.address)
	if err != nil || cfg == nil {
		return conn, err
	}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

// Close ends the making of connections, not the one that there is.
func (d *dialing) Close() error {
	d.cancel()
	return nil
}

// Addr is the address of the sender.
func (d *dialing) Addr() net.Addr { return remoteAddr(d.address) }

type remoteAddr string

func (remoteAddr) Network() string  { return "tcp" }
func (a remoteAddr) String() string { return string(a) }

// dialed is a connection of which the end is noticed.
type dialed struct {
	net.Conn

	once  sync.Once
	ended chan struct{} // closed by Close
}

func (c *dialed) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.ended) })
	return err
}

// CloseWrite ends the direction to the sender, so that the last answer arrives.
func (c *dialed) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
