package httpsender

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// A pool holds the connections of a Sender that were made since its certificates
// changed last, or for as long as ConnLifetime. Then it is retired: requests
// under way end on it, new ones go to the next.
type pool struct {
	// static
	secure *http.Transport // for https://
	plain  *http.Transport // for http://
	made   time.Time

	users   atomic.Int64
	retired atomic.Bool

	mu    sync.Mutex
	conns map[*pooledConn]struct{} // guarded by mu: those that are not closed
}

// A pooledConn knows its pool.
type pooledConn struct {
	net.Conn
	pool *pool
}

// Close closes the connection.
func (c *pooledConn) Close() error {
	c.pool.mu.Lock()
	delete(c.pool.conns, c)
	c.pool.mu.Unlock()
	return c.Conn.Close()
}

// keep makes conn one of the pool's, unless nobody will use it any more.
func (p *pool) keep(conn net.Conn) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired.Load() && p.users.Load() == 0 {
		_ = conn.Close() // it was never used
		return nil, ErrClosed
	}
	c := &pooledConn{conn, p}
	p.conns[c] = struct{}{}
	return c, nil
}

// keepAlive finds within two minutes that a peer has vanished without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

func (s *Sender) newPool() *pool {
	p := &pool{made: time.Now(), conns: make(map[*pooledConn]struct{})}
	p.secure, p.plain = s.transport(), s.transport()
	p.secure.DialContext = refuseDial
	p.secure.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return s.dialSecure(ctx, p, network, addr)
	}
	p.secure.Proxy = routeOnce(nil)
	p.plain.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return s.dialPlain(ctx, p, network, addr, false)
	}
	p.plain.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return s.dialPlain(ctx, p, network, addr, true) // https:// is the proxy
	}
	p.plain.Proxy = routeOnce(func(u *url.URL) *url.URL { return s.proxies.forURL(u) })
	p.plain.Protocols = protocols(false)
	return p
}

// transport returns what both transports of a pool have in common.
func (s *Sender) transport() *http.Transport {
	t := &http.Transport{
		// Decoding is bounded here, timeouts are the watchdog's.
		DisableCompression:     true,
		MaxConnsPerHost:        max(0, orDefault(s.MaxConnsPerHost, defaultConnsPerHost)),
		MaxIdleConnsPerHost:    orDefault(s.MaxIdleConnsPerHost, defaultIdlePerHost),
		MaxIdleConns:           0, // bounded for each host
		IdleConnTimeout:        max(0, orDefault(s.IdleConnTimeout, defaultIdle)),
		ExpectContinueTimeout:  time.Second, // where the caller asks for it
		MaxResponseHeaderBytes: orDefault(s.MaxResponseHeaderBytes, defaultHeaderBytes),
		ForceAttemptHTTP2:      !s.DisableHTTP2,
		Protocols:              protocols(!s.DisableHTTP2),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  max(0, orDefault(s.PingInterval, defaultPing)),
			PingTimeout:      pingTimeout,
			WriteByteTimeout: max(0, s.stall()),
		},
	}
	if s.MaxConnsPerHost > 0 {
		t.MaxIdleConnsPerHost = min(t.MaxIdleConnsPerHost, s.MaxConnsPerHost)
	}
	return t
}

func protocols(http2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(http2)
	return p
}

// routeOnce returns the Proxy of a transport. It is asked at the beginning of
// every try of net/http, also of those that it makes by itself after a connection
// from the pool turned out to be dead, which end here: see attempt.stopReplay.
func routeOnce(route func(*url.URL) *url.URL) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if a, ok := r.Context().Value(attemptKey{}).(*attempt); ok && a.routes.Add(1) > 1 {
			a.stopReplay()
			return nil, errReplay
		}
		if route == nil {
			return nil, nil
		}
		return route(r.URL), nil
	}
}

// enter returns the pool for a new request; leave gives it back.
func (s *Sender) enter(ctx context.Context) *pool {
	for {
		p := s.pool.Load()
		if life := s.ConnLifetime; life > 0 && time.Since(p.made) > life {
			s.retire(ctx, p)
			continue
		}
		p.users.Add(1)
		if !p.retired.Load() {
			return p
		}
		p.leave()
	}
}

func (p *pool) leave() {
	if p.users.Add(-1) == 0 && p.retired.Load() {
		p.closeAll()
	}
}

// closeAll ends a pool that is retired and has no users. net/http closes idle
// connections only, and one of HTTP/2 is not for a moment after its last request.
func (p *pool) closeAll() {
	p.closeIdle()
	p.mu.Lock()
	left := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	for _, c := range left {
		_ = c.Close() // nobody uses it
	}
}

func (p *pool) closeIdle() {
	p.secure.CloseIdleConnections()
	p.plain.CloseIdleConnections()
}

// retire puts a new pool in the place of p, if it is not there yet.
func (s *Sender) retire(ctx context.Context, p *pool) {
	if !s.pool.CompareAndSwap(p, s.newPool()) {
		return
	}
	p.retired.Store(true)
	p.closeIdle() // and each other when its request ends
	if p.users.Load() == 0 {
		p.closeAll()
	}
	if s.watched() {
		s.tell(ctx, Event{Kind: EventRotated})
	}
}

func (p *pool) transportFor(u *url.URL) *http.Transport {
	if u.Scheme == "https" {
		return p.secure
	}
	return p.plain
}

// refuseDial stands where a connection without TLS for an https:// URL would be
// made.
func refuseDial(context.Context, string, string) (net.Conn, error) { return nil, ErrPlaintext }

// dialSecure makes a connection for https://, through a proxy if need be. The
// transport has no part in that, because it would show the client certificate to
// a proxy that speaks TLS.
func (s *Sender) dialSecure(ctx context.Context, p *pool, network, addr string) (net.Conn, error) {
	ctx, stop := s.untilClosed(ctx)
	defer stop()
	start := time.Now()
	conn, handshake, err := s.dialVia(ctx, p, network, addr, s.proxies.forHost("https", addr))
	s.tellConnected(ctx, addr, start, handshake, err)
	return conn, err
}

func (s *Sender) dialVia(ctx context.Context, p *pool, network, addr string, proxy *url.URL) (net.Conn, time.Duration, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, 0, err
	}
	config, err := s.tlsFor(ctx, host)
	if err != nil {
		return nil, 0, err
	}
	config.NextProtos = []string{"http/1.1"}
	if !s.DisableHTTP2 {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	var conn net.Conn
	if proxy != nil {
		conn, err = s.tunnel(ctx, network, addr, proxy)
	} else {
		conn, err = s.dial(ctx, network, addr)
	}
	if err == nil {
		conn, err = p.keep(conn)
	}
	if err != nil {
		return nil, 0, err
	}
	start := time.Now()
	secured, err := s.handshake(ctx, conn, config)
	return secured, time.Since(start), err
}

// dialPlain makes a connection for http://, or to a proxy for it, with TLS if
// secure is set.
func (s *Sender) dialPlain(ctx context.Context, p *pool, network, addr string, secure bool) (net.Conn, error) {
	ctx, stop := s.untilClosed(ctx)
	defer stop()
	start := time.Now()
	conn, err := s.dialProxy(ctx, network, addr, secure)
	if err == nil {
		conn, err = p.keep(conn)
	}
	s.tellConnected(ctx, addr, start, 0, err)
	return conn, err
}

func (s *Sender) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := s.NetDialer
	if dialer == nil {
		dialer = &net.Dialer{KeepAliveConfig: keepAlive}
	}
	ctx, cancel := withTimeout(ctx, orDefault(s.DialTimeout, defaultDial))
	defer cancel()
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &dialError{err}
	}
	return conn, nil
}

// handshake makes conn a TLS connection, or closes it.
func (s *Sender) handshake(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	ctx, cancel := withTimeout(ctx, orDefault(s.TLSHandshakeTimeout, defaultHandshake))
	defer cancel()
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error is the one that matters
		return nil, err
	}
	return secured, nil
}

// tlsFor returns the configuration for a connection to host.
func (s *Sender) tlsFor(ctx context.Context, host string) (*tls.Config, error) {
	if s.TLSConfig != nil {
		config := s.TLSConfig.Clone()
		if config.ServerName == "" {
			config.ServerName = host
		}
		return config, nil
	}
	_ = s.source.Refresh(ctx) // its only error is that ctx has ended, which dialing notices too
	return s.source.ClientConfig(host)
}

// load reads the files of the TLS settings.
func (s *Sender) load() error {
	props := tlsprops.TlsProperties{Enabled: true}
	if s.TLS != nil {
		props = *s.TLS
		if !props.Enabled {
			if err := props.Validate(); err != nil {
				return err // settings without Enabled are a mistake, not a wish
			}
			props.Enabled = true // for https:// URLs, with the host's roots
		}
	}
	observe := props.Observe
	props.Observe = func(e tlsprops.Event) {
		if e.Kind == tlsprops.Loaded && e.Generation > 1 {
			s.CloseIdleConnections()
		}
		if observe != nil {
			observe(e)
		}
	}
	source, err := tlsprops.Load(props)
	if err != nil {
		return err
	}
	if _, err := source.ClientConfig("host.invalid"); err != nil {
		return err
	}
	s.source = source
	if s.TLS != nil && s.TLS.Enabled {
		s.polling.Go(func() { source.Watch(s.life) })
	}
	return nil
}

// untilClosed returns a context for making a connection, which net/http detaches
// from the request that wanted it: it ends when the Sender is closed.
func (s *Sender) untilClosed(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

func (s *Sender) tellConnected(ctx context.Context, addr string, start time.Time, handshake time.Duration, err error) {
	if !s.watched() {
		return
	}
	if err != nil {
		err = public(err)
	}
	s.tell(ctx, Event{Kind: EventConnected, Origin: addr, Duration: time.Since(start), Handshake: handshake, Err: err})
}

// withTimeout bounds ctx by d, unless d is negative.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d < 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

var errNotHTTP = errors.New("httpsender: the URL must begin with https:// or http://, and have a host")
