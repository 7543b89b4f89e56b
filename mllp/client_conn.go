package mllp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// lastWord is how long Send waits, after a write failed, for what the peer
	// may have said before it stopped reading: a refusal of a message that is
	// too large, or the TLS alert about our certificate.
	lastWord = time.Second
	// keptFrame is the size up to which the buffer for a frame is kept in any case.
	keptFrame = 64 << 10
	// framePad is what stands before a frame in its buffer: with it, and the VT,
	// the message begins at a multiple of 16, without which copying one of 1 MiB
	// takes four times as long.
	framePad = 15
)

var (
	errClosed = fmt.Errorf("mllp: the connection was closed: %w", net.ErrClosed)
	// errGivenUp ends a connection on which a reply could still come for a
	// message that nobody waits for any more.
	errGivenUp = fmt.Errorf("mllp: the connection was closed because another message was given up: %w", net.ErrClosed)
)

// Conn is a connection on which messages are sent, made by [Dialer.DialContext].
// All methods are safe for concurrent use.
//
// A Conn stays usable as long as Err returns nil. It closes itself, for good,
// when a message's outcome is Unknown: an acknowledgement that comes too late
// can so never be taken for that of a later message. And it closes itself when,
// between messages, the peer ends the connection or says anything: what Send
// then returns is NotSent, and the message can go over a new Conn.
type Conn struct {
	// static after construction
	nc           net.Conn  // what messages are written to: raw, or TLS on top of it
	raw          net.Conn  // below TLS
	tls          *tls.Conn // nil without TLS
	frames       *Reader   // owned by readLoop
	timeout      time.Duration
	writeTimeout time.Duration
	match        Match
	enhanced     bool
	missing      AckCondition
	applyTimeout time.Duration // ApplicationTimeout
	correlator   *Correlator   // nil: none
	framing      Framing
	gap          time.Duration // silence that ends a reply; 0: something else does
	wire         *farewell     // below TLS; nil without
	observe      func(Event)   // nil: nobody
	opened       time.Time

	turn       chan struct{} // holds a token while a Send is about to write; calls take it in order
	slots      chan struct{} // holds a token for each message under way
	closed     chan struct{} // closed, with err set, when the Conn has ended
	readerDone chan struct{} // closed when readLoop has ended

	frame []byte // owned by the holder of turn

	writing sync.Mutex // held while a frame is written
	writeBy time.Time  // guarded by writing: the write deadline that is set

	mu       sync.Mutex
	err      error     // guarded by mu: why the Conn has ended; nil while it has not
	waiting  []*flight // guarded by mu: written or being written, oldest first
	idle     []*flight // guarded by mu: to be used again
	writeErr error     // guarded by mu: why nothing can be written any more
	strays   int       // guarded by mu: acknowledgements that were passed over
	owed     []string  // guarded by mu: messages whose commit acknowledgement may come after all
}

// Reply is a receiver's answer.
type Reply struct {
	Ack      Ack
	Raw      []byte        // the whole reply, without its frame
	Duration time.Duration // from the begin of writing the message to the reply
	// Strays is how many acknowledgements of other messages came in that time
	// and were passed over (MatchControlID).
	Strays int
	// Commit is the code of the commit acknowledgement that came before Ack, with
	// Dialer.Enhanced: CA or, if none came before, "".
	Commit AckCode
}

// newConn returns a Conn whose readLoop is still to be started.
func (d *Dialer) newConn(raw net.Conn, secured *tls.Conn, wire *farewell) *Conn {
	replies := d.Framing.ofReplies()
	c := &Conn{
		nc: raw, raw: raw, tls: secured,
		timeout:      duration(d.Timeout, defaultAckTimeout),
		writeTimeout: duration(d.WriteTimeout, defaultSendTimeout),
		match:        d.Match,
		enhanced:     d.Enhanced,
		missing:      d.MissingCondition,
		applyTimeout: duration(d.ApplicationTimeout, defaultAckTimeout),
		correlator:   d.Correlator,
		framing:      d.Framing,
		gap:          replies.gap(),
		wire:         wire,
		observe:      d.Observe,
		opened:       time.Now(),
		turn:         make(chan struct{}, 1),
		slots:        make(chan struct{}, max(d.Window, 1)),
		closed:       make(chan struct{}),
		readerDone:   make(chan struct{}),
	}
	if secured != nil {
		c.nc = secured
	}
	c.frames = new(Reader)
	replies.setUp(c.frames, incoming{c}, orDefault(d.MaxMessageBytes, defaultMaxMessage))
	return c
}

// Send writes msg in one frame and waits for its acknowledgement. Calls take
// their turns in the order in which they were made; no more than Dialer.Window
// messages are under way at a time. msg is not kept.
//
// With AA or CA, and under MatchNone when msg is written, the error is nil. (CA is
// the word of enhanced mode for having taken charge of a message: HL7 2.x, chapter
// 2.) With any other code the error's
// outcome is Nacked, and the reply is returned besides. Otherwise the reply is
// nil. The error is always a *[SendError]:
//
//   - NotSent if ctx ended before the message's turn; if the Conn had ended; and,
//     not Retryable, if msg has no MSH segment or no control ID (except with
//     MatchAny), or has bytes that a frame cannot carry.
//   - Unknown if ctx ended or a timeout passed after writing began, if the
//     connection broke, and if the peer sent anything but a frame with an
//     acknowledgement. The Conn is then closed, and the other messages under
//     way on it are Unknown too.
//
// Without Dialer.Enhanced, Send waits for one acknowledgement; an application's
// later one, which MSH-16 may ask for, ends the connection. With it:
//
//   - A message with MSH-16 AL waits for AA, AE or AR; CA before it is only noted
//     in the reply, CE and CR end the waiting. That the application's word comes
//     first, or that CA never comes after it, makes no difference; a CA that
//     comes later is passed over.
//   - If CA came and the application's word does not, within ApplicationTimeout or
//     because the connection ended, the reply is that of CA and the error is
//     Unknown with [ErrNoApplicationAck]. It is not Retryable: the receiver has
//     the message. A Correlator goes on waiting when the connection has ended.
//   - With MSH-16 NE or absent, Send waits for the commit acknowledgement, and
//     with both absent as without Enhanced. (Dialer.MissingCondition may say
//     otherwise of one that is absent.)
//   - A message that asks for no acknowledgement, or for one that comes only after
//     success or only after an error, is NotSent: silence could mean that all is
//     well, and that all is lost. (MSH-15 may do so if MSH-16 is AL.)
//   - An application's word that asks with MSH-15 for a commit acknowledgement
//     itself gets its CA.
//
// With MLLP release 2 the message is sent again, as Framing says, until the peer
// commits it; without a commit it is Unknown, or, if each try was answered 15,
// Nacked with the code CE. Send then waits for the acknowledgement, and commits
// it. To a message that wants none (MSH-16 is NE, MSH-15 too or empty) the commit
// is the answer, as CA and without Raw.
func (c *Conn) Send(ctx context.Context, msg []byte) (*Reply, error) {
	reply, err := c.observed(int64(len(msg)), func() (*Reply, *SendError) { return c.send(ctx, msg) })
	if err != nil {
		return reply, err
	}
	return reply, nil
}

// Start is the first half of Send: it returns when msg is written. wait, which must
// be called, is the other half, and returns what Send does. So one goroutine can
// fill a Dialer.Window with messages in order, and others wait for their
// acknowledgements. msg must stay as it is until wait returns; ctx bounds both.
func (c *Conn) Start(ctx context.Context, msg []byte) (wait func() (*Reply, error)) {
	began, size := time.Now(), int64(len(msg))
	if c.observe != nil {
		c.observe(Event{Kind: EventMessageBegun, Bytes: size})
	}
	f, reply, err := c.launch(ctx, msg)
	return func() (*Reply, error) {
		if f != nil {
			reply, err = c.await(ctx, f)
		}
		if c.observe != nil {
			c.observe(messageEnded(reply, err, size, time.Since(began)))
		}
		if err != nil {
			return reply, err
		}
		return reply, nil
	}
}

func (c *Conn) send(ctx context.Context, msg []byte) (*Reply, *SendError) {
	f, reply, err := c.launch(ctx, msg)
	if f == nil {
		return reply, err
	}
	return c.await(ctx, f)
}

// launch writes msg. It returns either a flight, for await, or its end.
func (c *Conn) launch(ctx context.Context, msg []byte) (*flight, *Reply, *SendError) {
	var h Header
	var wants asked
	if err := c.match.parse(&h, msg); err != nil {
		return nil, nil, refused(err)
	}
	if c.enhanced {
		if wants = h.asks(c.missing); !wants.answerable() {
			return nil, nil, refused(errNotAnswered)
		}
	}
	if err := c.takeTurn(ctx); err != nil {
		return nil, nil, notSent(err)
	}
	frame, err := c.framing.AppendFrame(slices.Grow(c.frame[:0], framePad+len(msg)+3)[:framePad], msg)
	c.frame = frame
	if err != nil {
		c.endTurn()
		<-c.slots
		return nil, nil, refused(err)
	}
	f, err := c.takeOff(h.ControlID, wants)
	if err != nil {
		c.endTurn()
		<-c.slots
		return nil, nil, notSent(err)
	}
	if c.framing.Mode == ModeMLLPv2 {
		defer c.endTurn()
		reply, failure := c.sendRelease2(ctx, f, &h, frame[framePad:])
		return nil, reply, failure
	}
	n, cause := c.write(ctx, frame[framePad:])
	if cause == nil {
		cause = c.endStream()
	}
	c.endTurn()
	if cause == nil {
		return f, nil, nil
	}
	reply, failure := c.crash(f, n, cause)
	c.stopWaiting(f)
	return nil, reply, failure
}

// contextError says why ctx has ended: as context.Canceled or DeadlineExceeded,
// and by its own cause if it has one.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// takeTurn waits until a message may be written. Holding the turn while it
// waits for a slot keeps the order of calls, whatever the window.
func (c *Conn) takeTurn(ctx context.Context) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return contextError(ctx)
	case <-c.closed:
		return c.Err()
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-c.turn
		return contextError(ctx)
	case <-c.closed:
		<-c.turn
		return c.Err()
	}
}

// endTurn lets the next Send write. It keeps the buffer for the frame as long as
// messages fill a quarter of it: one large message should not hold its memory
// for as long as the Conn lives.
func (c *Conn) endTurn() {
	if cap(c.frame) > max(keptFrame, 4*len(c.frame)) {
		c.frame = nil
	}
	<-c.turn
}

// takeOff puts a message among the waiting. That is before it is written, since
// its acknowledgement may be faster than the return of Write.
func (c *Conn) takeOff(id []byte, wants asked) (*flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	var f *flight
	if last := len(c.idle) - 1; last >= 0 {
		f, c.idle = c.idle[last], c.idle[:last]
	} else {
		f = &flight{reply: make(chan *Reply, 1)}
	}
	f.id, f.began, f.strays, f.asked = id, time.Now(), c.strays, wants
	if wants.application == always {
		c.expectTwo(f)
	}
	if c.framing.Mode == ModeMLLPv2 {
		f.blocks = make(chan []byte, backlog)
	}
	c.waiting = append(c.waiting, f)
	return f, nil
}

// write writes a frame, with one Write, and returns how much of it has gone. If
// that is not all of it the Conn has ended.
func (c *Conn) write(ctx context.Context, frame []byte) (int, error) {
	return c.writeIn(ctx, func() (int, error) { return c.put(frame) })
}

// writeIn is write by put, within the life of ctx.
func (c *Conn) writeIn(ctx context.Context, put func() (int, error)) (int, error) {
	if ctx.Done() != nil {
		// Closing is what wakes a Write, and what a Conn with half a message
		// written needs anyway.
		stop := context.AfterFunc(ctx, func() { _ = c.fail(errGivenUp) })
		defer stop()
	}
	n, err := put()
	source, fromSource := errors.AsType[*sourceError](err)
	switch {
	case err == nil:
		return n, nil
	case fromSource && ctx.Err() == nil:
		_ = c.fail(errGivenUp)
		return n, source
	case ctx.Err() != nil:
		_ = c.fail(errGivenUp)
		return n, contextError(ctx)
	}
	err = fmt.Errorf("mllp: %w", peerError(err))
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		_ = c.fail(err)
		return n, err
	}
	return n, c.hearOut(ctx, err)
}

// put writes a frame within the time that is allowed for it.
func (c *Conn) put(frame []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.putLocked(frame)
}

// putLocked is put for the holder of writing.
func (c *Conn) putLocked(frame []byte) (int, error) {
	if c.writeTimeout > 0 {
		limit := c.writeTimeout + time.Duration(len(frame)/slowestSend)*time.Second
		now := time.Now()
		// Good for all messages of the next second: setting one may wake the thread
		// that waits for the network, which costs as much as a tenth of a message.
		if left := c.writeBy.Sub(now); left < limit || left > limit+time.Second {
			c.writeBy = now.Add(limit + time.Second)
			if err := c.nc.SetWriteDeadline(c.writeBy); err != nil {
				return 0, err
			}
		}
	}
	n, err := c.nc.Write(frame)
	if err == nil && c.tls != nil {
		// TLS may have to write while it reads, to answer a key update. If this
		// fails the Conn has ended, which says nothing of this message.
		c.writeBy = time.Time{}
		_ = c.nc.SetWriteDeadline(c.writeBy)
	}
	return n, err
}

// hearOut ends the Conn after a write failed with err, but lets readLoop first
// come to the end of what the peer has said. It returns the reason of the end.
func (c *Conn) hearOut(ctx context.Context, err error) error {
	c.mu.Lock()
	c.writeErr = err
	c.mu.Unlock()
	if c.raw.SetReadDeadline(time.Now().Add(lastWord)) == nil {
		select {
		case <-c.readerDone:
		case <-ctx.Done():
		}
	}
	return c.fail(err)
}

// fail ends the Conn because of err, unless it has ended already, and returns
// the reason of its end.
func (c *Conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		if c.writeErr != nil && !errors.Is(err, ErrPeerRejectedCertificate) {
			err = c.writeErr
		}
		c.err = err
		close(c.closed)
		_ = c.raw.Close() // without TLS's farewell, which could wait for the peer
	}
	return c.err
}

// Err returns nil as long as messages can be sent, and then why they cannot.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the Conn. Messages under way become Unknown. It waits until all
// that belongs to the Conn has come to an end, which with TLS or MatchNone may
// take 5 s if the peer does not read. The error is always nil, also if the Conn had ended.
func (c *Conn) Close() error {
	c.mu.Lock()
	open := c.err == nil
	if open {
		c.err = errClosed
		close(c.closed)
	}
	c.mu.Unlock()
	if open && c.match == MatchNone {
		c.finish()
	}
	if open {
		_ = c.nc.Close() // nothing can be done if the farewell does not get through
	}
	<-c.readerDone
	return nil
}

// ConnectionState returns what TLS has negotiated, and false without TLS.
func (c *Conn) ConnectionState() (tls.ConnectionState, bool) {
	if c.tls == nil {
		return tls.ConnectionState{}, false
	}
	return c.tls.ConnectionState(), true
}

// LocalAddr returns the address of this end of the connection.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }
