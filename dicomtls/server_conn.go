package dicomtls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lastPDU is how long writing an A-ABORT or A-ASSOCIATE-RJ may take.
	lastPDU = 2 * time.Second
	// mostLingering is how many bytes are thrown away while the client is waited
	// for: what a client can have on the way when it is told to stop.
	mostLingering = 16 << 20
	// abortGrace is how long an A-ABORT may take when there is no time left.
	abortGrace = 250 * time.Millisecond
)

// keepAlive finds within two minutes that a peer has vanished without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

// A conn is a connection of a Server, on which there is at most one association
// (PS3.8, 9.1.1).
type conn struct {
	// static after construction
	cfg *config
	raw net.Conn

	draining atomic.Bool // set once, by Drain
	busy     atomic.Bool // a message is in hand, or an association is being made

	writing sync.Mutex // held while PDUs are written
	aborted bool       // guarded by writing: the last word has been said by abort

	// owned by Serve
	net      net.Conn // raw, or TLS on it
	l        *link
	info     AssociationInfo
	began    time.Time // the association
	accepted bool
	objects  int64
	bytes    int64

	eventID  uint16      // message ID of the last N-EVENT-REPORT of ours
	reported func(error) // what waits for the response to it; nil: nothing

	// While a handler runs, watching lends the link's reading side to a goroutine
	// that looks for the client's abort, which ends the handler's context.
	cancel   context.CancelCauseFunc // of the handler's context; nil: no handler runs
	watching chan struct{}           // closed by the watcher; nil: there is none
}

func newConn(cfg *config, raw net.Conn) *conn { return &conn{cfg: cfg, raw: raw} }

// Drain is part of netserver.Conn.
func (c *conn) Drain() {
	c.draining.Store(true)
	_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // wakes the reader, which looks at draining; if not, the drain's end does
}

// Busy is part of netserver.Conn.
func (c *conn) Busy() bool { return c.busy.Load() }

// An ending says why and how a connection ends. It is an error so that it can be
// returned through the layers.
type ending struct {
	reason Reason // empty: there is nothing to tell of
	err    error  // for the event; may be nil
	pdu    []byte // the last word; nil: none
	detail string
}

func (e *ending) Error() string { return "dicomtls: ended: " + string(e.reason) }

func (e *ending) Unwrap() error { return e.err }

// Serve is part of netserver.Conn.
func (c *conn) Serve(ctx context.Context) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(ctx, "", v)
			c.finish(ctx, &ending{reason: ReasonPanic})
		}
	}()
	c.began = time.Now()
	c.info.RemoteAddr, c.info.LocalAddr = c.raw.RemoteAddr(), c.raw.LocalAddr()
	if tc, ok := c.raw.(*net.TCPConn); ok {
		_ = tc.SetKeepAliveConfig(keepAlive) // if it fails, the connection has just ended
	}
	c.net = quick(c.raw)
	if c.cfg.tls != nil && !c.handshake(ctx) {
		return
	}
	c.l = newLink(c.net, c.cfg.maxPDU, c.cfg.messageTimeout, &c.draining)
	end := c.associate(ctx)
	if end == nil {
		end = c.operate(ctx)
	}
	c.finish(ctx, end)
}

// operate handles messages until the end.
func (c *conn) operate(ctx context.Context) *ending {
	for {
		c.busy.Store(false)
		c.l.mayStop = true
		c.l.waitUntil(after(c.cfg.idleTimeout))
		err := c.l.need(1)
		c.l.mayStop = false
		if errors.Is(err, errSilent) {
			return &ending{reason: ReasonIdleTimeout, pdu: abortPDU(abortByUser, 0)}
		}
		if err == nil {
			c.busy.Store(true)
			c.l.progress()
			err = c.message(ctx)
		}
		if err != nil {
			return c.endingOf(ctx, err)
		}
	}
}

// endingOf says how an error on an association ends it.
func (c *conn) endingOf(ctx context.Context, err error) *ending {
	var (
		end      *ending
		protocol *protocolError
		abort    *AbortError
		large    *TooLargeError
	)
	switch {
	case errors.As(err, &end):
		return end
	case errors.Is(err, errReleaseRequest):
		return &ending{reason: ReasonReleased, pdu: appendShort(nil, pduReleaseRP, 0, 0, 0)}
	case errors.Is(err, errReleaseReply): // we never ask for release
		return &ending{reason: ReasonProtocol, pdu: abortPDU(abortByProvider, abortUnexpectedPDU)}
	case errors.As(err, &abort):
		return &ending{reason: ReasonPeerAborted, err: abort}
	case errors.As(err, &protocol):
		return &ending{reason: ReasonProtocol, err: protocol, pdu: abortPDU(abortByProvider, protocol.reason)}
	case errors.As(err, &large):
		return &ending{reason: ReasonObjectTooLong, err: large, pdu: abortPDU(abortByUser, 0)}
	case errors.Is(err, errDraining), ctx.Err() != nil:
		return &ending{reason: ReasonShutdown, pdu: abortPDU(abortByUser, 0)}
	case errors.Is(err, errSilent):
		return &ending{reason: ReasonSilent, pdu: abortPDU(abortByProvider, abortNotSpecified)}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &ending{reason: ReasonPeerClosed}
	default:
		return &ending{reason: ReasonReadFailed, err: err}
	}
}

// write writes whole PDUs, unless abort came first.
func (c *conn) write(pdus []byte, timeout time.Duration) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.aborted {
		return &AbortError{}
	}
	return c.l.write(pdus, timeout)
}

// abort sends A-ABORT because the Server has no more time. It is called from
// another goroutine, and gives up if a PDU is just being written.
func (c *conn) abort() {
	if !c.writing.TryLock() {
		return
	}
	defer c.writing.Unlock()
	c.aborted = true
	_ = c.l.write(abortPDU(abortByUser, 0), abortGrace) // the connection is cut in any case
}

func abortPDU(source, reason uint8) []byte { return appendShort(nil, pduAbort, 0, source, reason) }

// finish says the last word and ends the connection.
func (c *conn) finish(ctx context.Context, end *ending) {
	c.unwatch()
	c.busy.Store(false)
	e := Event{
		Kind: EventRejected, Reason: end.reason, RemoteAddr: c.info.RemoteAddr, TLS: c.info.TLS, Err: end.err, Detail: end.detail,
		CallingAE: c.info.CallingAE, CalledAE: c.info.CalledAE, Code: codeOf(end),
	}
	if c.accepted {
		e.Kind, e.Duration, e.Objects, e.Bytes = EventClosed, time.Since(c.began), c.objects, c.bytes
		c.cfg.census.leave(c)
	}
	if c.reported != nil {
		c.reported(notAnswered(end))
		c.reported = nil
	}
	var err error
	if end.pdu != nil {
		err = c.write(end.pdu, lastPDU)
	}
	if end.reason != "" {
		c.cfg.tell(ctx, e)
	}
	if end.pdu != nil && err == nil {
		c.linger(end)
	}
	if c.net != nil {
		c.net.Close()
	}
}

// codeOf returns the code of the PDU that ended or prevented an association.
func codeOf(end *ending) string {
	if abort, ok := errors.AsType[*AbortError](end.err); ok {
		return abort.Code()
	}
	if len(end.pdu) != 10 {
		return ""
	}
	switch end.pdu[0] {
	case pduAbort:
		return (&AbortError{Source: end.pdu[8], Reason: end.pdu[9]}).Code()
	case pduAssociateRJ:
		return (&RejectError{end.pdu[7], end.pdu[8], end.pdu[9]}).Code()
	}
	return ""
}

// linger is state 13 of PS3.8: it waits for the client to close, so that the
// last PDU is not lost to a reset, and throws away what still comes.
func (c *conn) linger(end *ending) {
	limit := c.cfg.lingerTimeout
	if limit <= 0 {
		limit = 5 * time.Second // a client must not be able to stay for ever
	}
	if end.reason == ReasonShutdown || end.reason == ReasonWrongProtocol || c.draining.Load() {
		limit = min(limit, 250*time.Millisecond)
		if w, ok := c.raw.(interface{ CloseWrite() error }); ok {
			_ = w.CloseWrite() // the client may then see the end at once
		}
	}
	c.l.waitUntil(time.Now().Add(limit))
	c.l.mayStop = false
	if end.reason == ReasonReleased || end.pdu[0] == pduAssociateRJ { // the stream is in step
		if kind, _, err := c.l.header(); err == nil && kind == pduAssociateRQ {
			_ = c.l.write(abortPDU(abortByProvider, abortUnexpectedPDU), lastPDU) // AA-7; then it is of no interest
		}
	}
	for total := 0; total < mostLingering; {
		n, err := c.l.read(c.l.buf)
		if err != nil {
			return
		}
		total += n
	}
}

// call runs a handler. Its context ends when the client aborts, which watch
// notices from the end of the data set on.
func (c *conn) call(ctx context.Context, operation string, f func(context.Context) Status) (status Status) {
	var stop context.CancelFunc = func() {}
	if t := c.cfg.HandlerTimeout; t > 0 {
		ctx, stop = context.WithTimeout(ctx, t)
	}
	defer stop()
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer func() {
		c.unwatch()
		c.cancel(nil)
		c.cancel = nil
		if v := recover(); v != nil {
			c.panicked(ctx, operation, v)
			status = StatusProcessingFailure
		}
	}()
	return f(ctx)
}

// watch begins to look for the client's abort, if a handler runs.
func (c *conn) watch() {
	if c.cancel == nil || c.watching != nil || c.l.failed != nil {
		return
	}
	if c.l.r < c.l.w {
		if c.l.buf[c.l.r] == pduAbort {
			c.cancel(&AbortError{ByPeer: true})
		}
		return // a request that came early
	}
	if c.net.SetReadDeadline(time.Time{}) != nil || c.draining.Load() {
		return
	}
	done, cancel := make(chan struct{}), c.cancel
	c.watching = done
	go func() {
		defer close(done)
		n, err := c.net.Read(c.l.buf)
		c.l.r, c.l.w = 0, n
		switch {
		case n > 0:
			if c.l.buf[0] == pduAbort {
				cancel(&AbortError{ByPeer: true})
			}
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			c.l.failed = err
			cancel(fmt.Errorf("dicomtls: the connection has ended: %w", midway(err)))
		}
	}()
}

// unwatch takes the link back.
func (c *conn) unwatch() {
	if c.watching == nil {
		return
	}
	_ = c.net.SetReadDeadline(time.Unix(1, 0)) // fails only if the watcher has failed as well
	<-c.watching
	c.watching = nil
}

// panicked tells of a panic, without its text, which may quote an object.
func (c *conn) panicked(ctx context.Context, operation string, v any) {
	kind := fmt.Sprintf("%T", v)
	if l := c.cfg.Logger; l != nil {
		l.LogAttrs(ctx, slog.LevelError, "dicomtls: panic", slog.String("type", kind), slog.String("stack", string(debug.Stack())))
	}
	c.cfg.tell(ctx, Event{
		Kind: EventHandlerFailed, Reason: ReasonPanic, RemoteAddr: c.info.RemoteAddr, TLS: c.info.TLS,
		CallingAE: c.info.CallingAE, CalledAE: c.info.CalledAE, Operation: operation, Status: StatusProcessingFailure, Detail: kind,
	})
}
