package mllp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/internal/netserver"
)

const (
	defaultFrameTimeout = 60 * time.Second
	// slowestRate is how many bytes of a frame buy its sender another second.
	slowestRate = 16 << 10
	// bufferLinger is how long a connection between frames keeps a buffer of
	// more than idleBuffer, so that a steady sender's frames fit at once.
	bufferLinger = 250 * time.Millisecond
	// lastLook is how long a draining connection waits for bytes that may have
	// arrived already.
	lastLook = 10 * time.Millisecond
	// closeLinger is how long a client may take to notice that the Server wants
	// to close: closing at once, with bytes of it unread, would make TCP throw away
	// the last acknowledgement. The same as in net/http.
	closeLinger = 500 * time.Millisecond
)

// Why reading ended, between two frames.
var (
	errDrained     = errors.New("mllp: draining")
	errIdleTooLong = errors.New("mllp: idle for too long")
)

// A conn is a connection of a Server. It is the source and the memory of its
// own Reader.
type conn struct {
	// static after construction
	cfg   *config
	raw   net.Conn
	lanes *lanes // nil without Server.Parallel

	draining atomic.Bool // set once, by Drain
	evicted  atomic.Bool // set by Evict, before draining
	busy     atomic.Bool // bytes of a message are in hand

	// owned by Serve; here they fill a gap, which counts with thousands of conns
	received bool // at least one byte
	told     bool // EventOpened
	looked   bool // lastLook has begun
	gentle   bool // to be closed so that what was sent arrives

	verified  atomic.Pointer[tls.ConnectionState] // set once, by the handshake; only if cfg.recheck
	dismissal atomic.Pointer[closeError]          // why to end without another message; set once, by recheck
	answered  atomic.Int64                        // Unix time, in ns, of the last answer or the beginning; only if cfg.evictIdle
	hand      hand

	// owned by Serve
	net    net.Conn        // raw, or TLS on it
	done   <-chan struct{} // of the context
	rd     Reader
	req    Request     // its addresses are static after construction
	own    exchange    // of req
	sender *SenderRule // for the client; nil: none
	buf    *buffer     // under rd.buf; nil before the first read
	likely int         // length of the next frame, from those before
	quick  *quickAck   // nil: the client has not sent a frame in pieces
	r2     *release2   // nil except with MLLP release 2
	body   *body       // of the message in hand; nil except with Server.Stream
	wire   *farewell   // below TLS; nil without

	began      time.Time // of Serve, or of the end of the handshake
	writeBy    time.Time // the write deadline that is set
	armed      time.Time // the read deadline that is set; zero: none
	frameAt    int64     // offset of the frame that began at frameBegan; -1: none
	frameBegan time.Time
	pauseAt    time.Time // when the last bytes came (DelimitIdle), or when the last byte was an FS (FSOnlyDelay; zero: it is not)
	idleSince  time.Time // of the last answer, or when Read found itself idle; zero: not idle

	unread struct { // the last acknowledgement, while nothing shows that it arrived
		code AckCode
		id   []byte
	}
}

func newConn(cfg *config, raw net.Conn, peer netserver.Peer) *conn {
	c := &conn{cfg: cfg, raw: raw, net: raw, frameAt: -1}
	c.req.RemoteAddr, c.req.ProxyAddr, c.req.LocalAddr = peer.Addr, peer.Proxy, raw.LocalAddr()
	c.own = exchange{conn: c, r: &c.req}
	c.answered.Store(time.Now().UnixNano())
	if cfg.parallel > 1 {
		c.lanes = newLanes(c, cfg.parallel)
	}
	return c
}

// Drain is part of netserver.Conn.
func (c *conn) Drain() {
	c.draining.Store(true)
	_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // wakes Read, which looks at draining; if not, the drain's end does
}

// Busy is part of netserver.Conn.
func (c *conn) Busy() bool {
	return c.busy.Load() || c.lanes != nil && c.lanes.pending.Load() > 0
}

// IdleSince is part of netserver.Evictable.
func (c *conn) IdleSince() time.Time { return time.Unix(0, c.answered.Load()) }

// Evict is part of netserver.Evictable.
func (c *conn) Evict() { c.evicted.Store(true) }

// Serve is part of netserver.Conn.
func (c *conn) Serve(ctx context.Context) {
	var err error
	defer func() {
		if v := recover(); v != nil {
			c.panicked(ctx, v)
			err = &closeError{reason: ReasonPanic}
		}
		if c.lanes != nil {
			if failed := c.lanes.finish(); failed != nil {
				err = failed
			}
		}
		c.close(ctx, err)
	}()
	c.began = time.Now()
	c.done = ctx.Done()
	if tc, ok := c.raw.(*net.TCPConn); ok {
		_ = tc.SetKeepAliveConfig(keepAlive) // if it fails, the connection has just ended
	}
	c.cfg.framing.setUp(&c.rd, c, c.cfg.maxMessage)
	c.rd.mem, c.rd.junkLimit, c.rd.findMSH = c, c.cfg.maxJunk, true
	if c.cfg.stream != nil {
		c.body = new(body)
		c.likely = streamBuffer - lookahead
	}
	if c.cfg.tls != nil {
		if err = c.handshake(ctx); err != nil {
			return
		}
		c.began = time.Now()
		ctx, err = c.open(ctx)
	}
	if c.cfg.framing.Mode == ModeMLLPv2 {
		c.r2 = &release2{client: c.cfg.recent.client(&c.req)}
	}
	for err == nil {
		if err = c.dismissed(); err == nil {
			ctx, err = c.next(ctx)
		}
	}
}

// next reads and answers a message, and returns the context of the ones to come.
// The error is nil if the connection can go on. It needs little of the stack, of
// which thousands of connections that wait have 4 KiB each, as long as it, and
// what it calls, fit.
func (c *conn) next(ctx context.Context) (context.Context, error) {
	var (
		text []byte
		err  error
	)
	if c.cfg.stream != nil {
		text, err = c.rd.begin(&c.body.pieces)
	} else {
		text, err = c.rd.next()
	}
	if c.received && !c.told {
		var refused error
		if ctx, refused = c.open(ctx); refused != nil {
			return ctx, refused
		}
	}
	c.idleSince = time.Time{}
	if err == nil {
		c.skipped(ctx)
		c.setBusy(true)
	}
	switch {
	case c.r2 != nil:
		return ctx, c.block(ctx, text, err)
	case err != nil:
		return ctx, c.badFrame(ctx, text, err)
	case c.cfg.stream != nil:
		err = c.streamed(ctx, text)
	default:
		c.likely = max(len(text), c.likely-c.likely/8)
		err = c.message(ctx, text)
	}
	if err == nil && !c.cfg.keepOpen {
		return ctx, c.endOfOne()
	}
	return ctx, err
}

// endOfOne ends a connection that carries one message only.
func (c *conn) endOfOne() error {
	c.gentle = true
	return &closeError{reason: ReasonNotKeptOpen}
}

// open tells of the connection, once there is something on it, and returns the
// context of all that follows.
//
//go:noinline // see next
func (c *conn) open(ctx context.Context) (context.Context, error) {
	c.told = true
	c.cfg.tell(ctx, Event{Kind: EventOpened, RemoteAddr: c.req.RemoteAddr, ProxyAddr: c.req.ProxyAddr, TLS: c.req.TLS})
	return c.connContext(ctx)
}

// skipped tells of bytes that did not belong to a frame.
func (c *conn) skipped(ctx context.Context) {
	f := &c.rd.frame
	if f.junk == 0 || !c.cfg.watched() {
		return
	}
	e := Event{Kind: EventSkipped, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS, Bytes: f.junk, Offset: f.junkAt}
	if !f.blank {
		e.Reason = ReasonJunk
	}
	c.cfg.tell(ctx, e)
}

// A closeError ends a connection for a reason that is not the stream's.
type closeError struct {
	reason Reason
	err    error
}

func (e *closeError) Error() string { return "mllp: " + string(e.reason) }
func (e *closeError) Unwrap() error { return e.err }

// close closes the connection and tells why.
func (c *conn) close(ctx context.Context, err error) {
	e := Event{Kind: EventClosed, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS, Duration: time.Since(c.began)}
	var (
		ce *closeError
		fe *FrameError
	)
	switch {
	case ctx.Err() != nil || errors.Is(err, net.ErrClosed): // nobody else closes it
		e.Reason = ReasonShutdown
	case errors.Is(err, errDrained):
		if e.Reason = ReasonShutdown; c.evicted.Load() {
			e.Reason = ReasonEvicted
		}
	case errors.As(err, &ce):
		e.Reason, e.Err = ce.reason, ce.err
		if ce.reason == ReasonTLSWithdrawn {
			e.Certificate = c.req.Identity.certificate()
			c.gentle = c.unread.code != "" // or what the client has sent since would cost it its answer
		}
	case errors.Is(err, errIdleTooLong):
		e.Reason = ReasonIdleTimeout
	case errors.As(err, &fe):
		e.Reason, e.Err = fe.Reason, fe.Err
	default:
		e.Reason = ReasonPeerClosed
	}
	if fe != nil && e.Reason == ReasonReadFailed && c.unread.code != "" {
		// A reset is TCP's answer to an acknowledgement that nobody waits for.
		c.undeliverable(ctx, fe.Err)
	}
	if c.gentle {
		c.endGently()
	}
	c.net.Close()
	c.release(true)
	switch {
	case c.told:
		c.cfg.tell(ctx, e)
	case !c.received && c.cfg.tls == nil && e.Reason != ReasonShutdown && e.Reason != ReasonEvicted && e.Reason != ReasonIdleTimeout:
		c.cfg.tell(ctx, Event{Kind: EventProbe, RemoteAddr: c.req.RemoteAddr})
	}
	c.setBusy(false)
}

// endGently ends the stream to the client and waits for it to do the same, while
// discarding what it sends.
func (c *conn) endGently() {
	if c.raw.SetDeadline(time.Now().Add(closeLinger)) != nil {
		return
	}
	for _, conn := range [...]net.Conn{c.net, c.raw} { // with TLS, first a close_notify
		if w, ok := conn.(interface{ CloseWrite() error }); ok && w.CloseWrite() != nil {
			return
		}
	}
	_, _ = io.CopyN(io.Discard, c.raw, c.cfg.maxMessage) // how it ends is of no interest
}

// panicked tells of a panic, without its text, which may quote a message.
func (c *conn) panicked(ctx context.Context, v any) {
	kind := fmt.Sprintf("%T", v)
	if l := c.cfg.logger; l != nil {
		l.LogAttrs(ctx, slog.LevelError, "mllp: panic", slog.String("type", kind), slog.String("stack", string(debug.Stack())))
	}
	c.cfg.tell(ctx, Event{Kind: EventHandlerFailed, Reason: ReasonPanic, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS, Detail: kind})
}
