package httpsender

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// smallBody is the size up to which the body of a request is handed to net/http
// as it is, which then writes it together with the header; it is small enough
// to be watched as one piece.
const smallBody = 64 << 10

// An attempt is one request on one connection, until the body of its answer has
// been closed.
//
// It is the context of its request as well, so that the functions of the
// transport find it. The first group is static, atomic fields are set by
// goroutines of the transport, the rest belongs to the goroutine of Do until it
// returns, then to the one that reads the answer.
type attempt struct {
	context.Context //nolint:containedctx // the attempt is a context

	s          *Sender
	parent     context.Context //nolint:containedctx // of the caller's request
	host       *host
	pool       *pool
	cancel     context.CancelCauseFunc
	start      time.Time
	trace      httptrace.ClientTrace
	method     string
	origin     string
	number     int
	repeatable bool // the request is idempotent

	dog          watchdog
	routes       atomic.Int32 // how many times a proxy was asked for
	replay       atomic.Bool  // net/http wanted to make another attempt of it
	reused       atomic.Bool
	connected    atomic.Int64 // all three in nanoseconds since start; 0: not yet
	wroteHeader  atomic.Bool
	wroteRequest atomic.Int64
	firstByte    atomic.Int64

	out    requestBody
	in     responseBody
	queued time.Duration
	judged bool // the breaker has had its verdict
	ended  bool
}

// attemptKey is the key of an attempt in its own context.
type attemptKey struct{}

// Value makes the attempt known to those who have its context.
func (a *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// traced returns the context for the request, with the functions by which
// net/http tells how far it got.
func (a *attempt) traced() context.Context {
	a.trace = httptrace.ClientTrace{
		GetConn: a.getConn, GotConn: a.gotConn, WroteHeaders: a.headerWritten,
		WroteRequest: a.requestWritten, GotFirstResponseByte: a.firstByteCame,
	}
	return httptrace.WithClientTrace(a, &a.trace)
}

// since returns the time since the start, never 0. If nobody wants to know, it is
// not looked at.
func (a *attempt) since() int64 {
	if !a.s.watched() {
		return 1
	}
	return max(1, int64(time.Since(a.start)))
}

func (a *attempt) getConn(string) {
	if a.connected.Load() != 0 {
		a.stopReplay() // HTTP/2 looks for another connection without asking for a route
	}
}

func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	a.connected.Store(a.since())
	a.reused.Store(info.Reused)
	a.dog.expect(sending, a.s.stall())
}

func (a *attempt) headerWritten() { a.wroteHeader.Store(true) }

func (a *attempt) requestWritten(info httptrace.WroteRequestInfo) {
	if info.Err == nil {
		a.wroteRequest.Store(a.since())
		a.dog.expect(waiting, a.s.headerTimeout())
	}
}

func (a *attempt) firstByteCame() { a.firstByte.Store(a.since()) }

// stopReplay ends an attempt that net/http would make again by itself: each
// attempt has a signature or a token of its own, and its own entry in the log.
func (a *attempt) stopReplay() {
	a.replay.Store(true)
	a.cancel(errReplay)
}

// refuseBody is the GetBody of the request: the transport asks for it when it
// would like to make another attempt.
func (a *attempt) refuseBody() (io.ReadCloser, error) {
	a.stopReplay()
	return nil, errReplay
}

// untouched tells, after a failed attempt, that the server cannot have acted on
// the request.
func (a *attempt) untouched(r *http.Request) bool {
	if !a.wroteHeader.Load() {
		return true
	}
	// For a request that is not replayable, net/http tries again only if not a
	// byte was written, or if the server refused the stream (RFC 9113, section 8.7).
	return a.replay.Load() && !replayable(r)
}

// fail returns what is known after an attempt that brought no answer.
func (a *attempt) fail(r *http.Request, err error) *SendError {
	err = a.why(err)
	shown := public(err)
	if _, broken := errors.AsType[*sourceError](err); broken {
		return a.sendError(a.lost(r), shown)
	}
	if a.parent.Err() == nil && errors.Is(shown, ErrPeerRejectedCertificate) && !a.reused.Load() {
		// TLS 1.3 tells a client so only when its handshake is done, and the
		// server's is not (RFC 8446, section 4.4.3): it did not read the request.
		return a.sendError(Rejected, shown)
	}
	if a.untouched(r) {
		if permanent(err) {
			return a.sendError(Rejected, shown)
		}
		return a.sendError(Retryable, shown)
	}
	return a.sendError(a.lost(r), shown)
}

// lost returns the outcome of an attempt after which the server may know the
// request or not.
func (a *attempt) lost(r *http.Request) Outcome {
	if a.untouched(r) || idempotent(r) {
		return Retryable
	}
	return Unknown
}

// why returns what is behind an error of the transport: the end of the caller's
// context, our own reason to stop the attempt, or the error itself.
func (a *attempt) why(err error) error {
	if ended := a.parent.Err(); ended != nil {
		return ended
	}
	if cause := context.Cause(a.Context); cause != nil {
		return cause
	}
	if a.s.life.Err() != nil && errors.Is(err, context.Canceled) {
		return ErrClosed // which ended the dialing
	}
	return err
}

func (a *attempt) sendError(o Outcome, err error) *SendError {
	return &SendError{Outcome: o, Method: a.method, Origin: a.origin, Err: err}
}

// report takes the verdict on the attempt to the breaker.
func (a *attempt) report(v verdict) {
	a.judged = true
	a.s.tellCircuit(a, a.origin, a.host.report(&a.s.Breaker, v))
}

// end gives back what the attempt holds. It may be called again.
func (a *attempt) end() {
	if a.ended {
		return
	}
	a.ended = true
	if !a.judged {
		a.report(noVerdict)
	}
	a.dog.stop()
	a.cancel(errBodyStopped)
	a.out.end()
	a.host.release()
	a.host.leave()
	a.pool.leave()
}

// event returns what is known of the attempt.
func (a *attempt) event(kind EventKind) Event {
	return Event{Kind: kind, Method: a.method, Origin: a.origin, Attempt: a.number}
}

// tellAttempt tells of an attempt when its answer is there, or will not come.
func (a *attempt) tellAttempt(resp *http.Response, err error) {
	if !a.s.watched() {
		return
	}
	e := a.event(EventAttempt)
	e.Reused, e.Err, e.Queued, e.Duration = a.reused.Load(), err, a.queued, time.Since(a.start)
	e.Connected = time.Duration(a.connected.Load())
	e.Written, e.FirstByte = time.Duration(a.wroteRequest.Load()), time.Duration(a.firstByte.Load())
	if resp != nil {
		e.Status, e.Proto = resp.StatusCode, resp.Proto
	}
	a.s.tell(a, e)
}

// A requestBody watches the body of a request while the transport reads it.
type requestBody struct {
	a       *attempt
	rc      io.ReadCloser // nil: there is none, or net/http reads it as it is
	oneShot bool          // rc is the caller's, and will be used again if not begun

	mu      sync.Mutex
	started bool // guarded by mu: a byte may have been read
	stopped bool // guarded by mu: none will be any more
}

// Read is called by a goroutine of the transport, which writes what it gets to
// the connection before it comes back for more.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	stopped := b.stopped
	b.started = b.started || !stopped
	b.mu.Unlock()
	if stopped {
		return 0, errBodyStopped
	}
	b.a.dog.relax(sending) // the source may take its time
	n, err := b.rc.Read(p)
	b.a.dog.expect(sending, b.a.s.stall())
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// Close does not close the source: the transport may call it before the source
// was begun.
func (b *requestBody) Close() error {
	b.stop()
	return nil
}

// stop makes sure that nothing more is read, and tells whether anything was.
func (b *requestBody) stop() (started bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	return b.started
}

// begun tells whether anything was read, and makes sure that nothing more is if
// nothing was.
func (b *requestBody) begun() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = b.stopped || !b.started
	return b.started
}

// end closes the source, unless another attempt can use it.
func (b *requestBody) end() {
	if b.rc == nil {
		return
	}
	if started := b.stop(); started || !b.oneShot {
		_ = b.rc.Close() // it was only read from
	}
}
