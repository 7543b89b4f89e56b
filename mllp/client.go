package mllp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The defaults of a Client's back-off. Mirth waits for 5 s, always; a receiver
// that restarts is better served by senders that begin sooner, wait longer, and
// do not all come at once.
const (
	defaultMinBackoff = 500 * time.Millisecond
	defaultMaxBackoff = 30 * time.Second
)

// Errors found in the Err of a Client's SendError with errors.Is.
var (
	// ErrClientClosed is the reason of NotSent after Shutdown or Close.
	ErrClientClosed = errors.New("mllp: the Client was closed")
	// ErrUnreachable is the reason of NotSent if the fault is not the message's:
	// there is no connection to the receiver. What is wrong is said besides. If
	// the error is not Retryable, a person has to put it right; see [Client.Send].
	ErrUnreachable = errors.New("mllp: no connection to the receiver")
)

// A Client sends messages to one receiver, over connections that it makes when a
// message needs them, keeps, and makes anew when they have ended. Addr must be
// set; every other zero field has a default.
//
// Its fields must not be changed after the first call of a method; all methods
// are safe for concurrent use. A Client that is not needed any more must be closed.
//
// # Order
//
// Calls of Send get their turns in the order in which they were made. With one
// connection and without a window, as by default, each has its end before the
// next begins, tries again included: nothing is overtaken. With several
// connections messages run side by side. With a window (Dialer.Window) they are
// written in order, and acknowledged in the order that the receiver likes; a
// message that is sent again because of RetryCodes comes after those that were
// written in the meantime; and when a connection breaks, all messages under way
// on it are Unknown while those behind them go over the next one.
//
// # Trying again
//
// Send itself tries again what cannot make a duplicate: a message whose outcome
// is NotSent for a reason that may pass. What is Unknown is never sent again
// behind the caller's back.
//
// Before it connects again a Client waits for a random part, between nothing and
// all, of MinBackoff, twice that after the next failure, and so on up to
// MaxBackoff. Receivers that accept a connection and close it count as failed
// too: only an acknowledgement ends the doubling. The end of a connection that
// worked costs a wait of up to MinBackoff from then, so that the many senders
// that a restarted receiver has do not come back in the same moment. Clients of
// one process may besides share a [DialLimiter].
type Client struct {
	Addr string // the receiver's "host:port"; the name is resolved anew for each connection

	// Dialer makes the connections: TLS, timeouts, Window and Match are its
	// fields. Several Clients may share one, and so read its certificates once.
	// Nil means the zero Dialer.
	//
	// With MatchNone (Mirth's ignoreResponse) Send returns when a message is
	// written, with a Reply whose Outcome is Sent.
	Dialer *Dialer

	Conns int // most connections at a time; 0: 1. Negative is refused.
	// DialPerMessage makes a connection for each message and closes it after the
	// reply (Mirth's keepConnectionOpen set to false). With a Window it is refused.
	DialPerMessage bool
	// IdleTimeout is how long a connection is kept on which nothing is sent; 0 or
	// negative: as long as the receiver keeps it.
	IdleTimeout time.Duration

	// MaxAttempts is how often one message is tried, the first time included;
	// each time that no connection can be made for it counts. 0: until its
	// context ends. 1: once. Negative is refused.
	MaxAttempts int
	// RetryCodes are the answers, of AE, AR, CE and CR, after which a message is
	// sent again, with the same back-off, counted for each message. Nil: none.
	// HL7 (chapter 2, table 0008) means AE and CE to be tried again, by the
	// receiver's leave; AR and CR seldom get a better answer.
	RetryCodes []AckCode

	MinBackoff time.Duration // see above; 0: 0.5 s. Negative is refused.
	MaxBackoff time.Duration // see above; 0: 30 s, or MinBackoff if that is longer. Less than MinBackoff is refused.
	// Dials bounds how often this Client and all others with the same limiter
	// connect. Nil: nothing but the back-off does.
	Dials *DialLimiter
	// UnknownHostIsFaulty takes the word of DNS that there is no such host for a
	// mistake in Addr (StateFaulty) and not for the state of things.
	UnknownHostIsFaulty bool

	// Logger gets the events. If nil, nothing is logged.
	Logger *slog.Logger
	// Observe is called for each event, from several goroutines at a time, and
	// must not block. May be nil.
	Observe func(Event)

	once sync.Once
	// set in once, static then
	broken     error // what is wrong with the settings
	dialer     *Dialer
	window     int
	minBackoff time.Duration
	maxBackoff time.Duration
	events     config
	stopping   chan struct{} // closed by Shutdown and Close, once
	quit       chan struct{} // closed by Close, once
	drained    chan struct{} // closed when stopping, and the last Send has returned

	watchers sync.WaitGroup // one for each link

	mu sync.Mutex
	// guarded by mu
	lanes   []*lane
	queue   []chan *lane // of one each: messages that wait, in order of their turns
	spare   []chan *lane // to be used again
	gate    gate
	sending int // calls of Send
	stopped bool
	closed  bool
	told    State // of the last EventHealth

	lastAck atomic.Int64 // when the last acknowledgement came, in Unix nanoseconds; 0: never
}

// setUp resolves the defaults.
func (c *Client) setUp() {
	c.once.Do(func() {
		if c.dialer = c.Dialer; c.dialer == nil {
			c.dialer = new(Dialer)
		}
		c.window = max(c.dialer.Window, 1)
		c.minBackoff = duration(c.MinBackoff, defaultMinBackoff)
		c.maxBackoff = duration(c.MaxBackoff, max(defaultMaxBackoff, c.minBackoff))
		c.events = config{logger: c.Logger, observe: c.Observe}
		c.stopping, c.quit, c.drained = make(chan struct{}), make(chan struct{}), make(chan struct{})
		c.gate.changed = make(chan struct{})
		c.told = StateOK
		if c.broken = c.Validate(); c.broken != nil {
			return
		}
		for range max(c.Conns, 1) {
			c.lanes = append(c.lanes, new(lane))
		}
	})
}

// Validate returns the first error in the settings. Send calls it.
func (c *Client) Validate() error {
	d := c.Dialer
	if d == nil {
		d = new(Dialer)
	}
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("mllp: Client.Addr: %w", err)
	}
	if host == "" || port == "" {
		return errors.New("mllp: Client.Addr needs a host and a port")
	}
	for _, code := range c.RetryCodes {
		if code != AE && code != AR && code != CE && code != CR {
			return errors.New("mllp: Client.RetryCodes may hold AE, AR, CE and CR")
		}
	}
	switch {
	case c.Conns < 0:
		return errors.New("mllp: Client.Conns is negative")
	case c.MaxAttempts < 0:
		return errors.New("mllp: Client.MaxAttempts is negative")
	case c.MinBackoff < 0:
		return errors.New("mllp: Client.MinBackoff is negative")
	case c.MaxBackoff != 0 && c.MaxBackoff < duration(c.MinBackoff, defaultMinBackoff):
		return errors.New("mllp: Client.MaxBackoff is less than MinBackoff")
	case c.Dials != nil && c.Dials.PerSecond < 0:
		return errors.New("mllp: DialLimiter.PerSecond is negative")
	case c.DialPerMessage && d.Window > 1:
		return errors.New("mllp: with Client.DialPerMessage, Dialer.Window must be 1")
	}
	if err := d.check(); err != nil {
		return err
	}
	if from, _ := d.localAddr(); from != nil && from.Port != 0 && c.Conns > 1 {
		return errors.New("mllp: with a port in Dialer.LocalAddr, Client.Conns must be 1")
	}
	if d.TLSConfig == nil && d.TLS != nil {
		if err := d.TLS.Validate(); err != nil {
			return fmt.Errorf("mllp: Dialer.TLS: %w", err)
		}
	}
	return nil
}

// Send sends msg and waits for its acknowledgement, as [Conn.Send] does, over a
// connection that it makes if there is none. msg is not kept.
//
// The error is always a *[SendError], and means what it does there, with this
// difference: NotSent and Retryable comes only after MaxAttempts, and when ctx
// has ended. If the fault is not the message's, ErrUnreachable is in it.
//
// A fault that no waiting will cure, such as a certificate that either side
// refuses, is NotSent and not Retryable at once. The Client's state is then
// StateFaulty; for half of MaxBackoff at least, and MaxBackoff at most, Send
// fails in the same way without connecting, and then makes another try.
func (c *Client) Send(ctx context.Context, msg []byte) (*Reply, error) {
	c.setUp()
	var began time.Time
	watched := c.events.watched()
	if watched {
		began = time.Now()
		c.events.tell(ctx, Event{Kind: EventMessageBegun, Bytes: int64(len(msg))})
	}
	reply, err := c.send(ctx, msg)
	if watched {
		c.events.tell(ctx, messageEnded(reply, err, int64(len(msg)), time.Since(began)))
	}
	if err != nil {
		return reply, err
	}
	return reply, nil
}

func (c *Client) send(ctx context.Context, msg []byte) (*Reply, *SendError) {
	if err := c.enter(); err != nil {
		return nil, refused(err)
	}
	defer c.leave()
	l, err := c.acquire(ctx, nil)
	if err != nil {
		return nil, cutShort(err, nil)
	}
	for attempt := 1; ; attempt++ {
		var reply *Reply
		k, failure := c.connect(ctx, &l, msg)
		held := l != nil
		if failure == nil {
			reply, held, failure = c.try(ctx, k, msg)
		}
		if failure == nil || !c.again(ctx, failure, attempt) {
			if l != nil {
				c.release(l, held)
			}
			return reply, failure
		}
		if l != nil && !held {
			c.release(l, false)
			l = nil
		}
		var err error
		if failure.Outcome == Nacked {
			err = c.pause(ctx, fullJitter(attempt, c.minBackoff, c.maxBackoff))
		}
		if err == nil {
			l, err = c.acquire(ctx, l)
		} else if held {
			c.release(l, true)
		}
		switch {
		case err == nil:
		case failure.Outcome == Nacked: // which is the truth about the message
			return reply, failure
		default:
			return nil, cutShort(err, failure)
		}
	}
}

// again reports whether a message that failed is to be tried once more.
func (c *Client) again(ctx context.Context, failure *SendError, attempt int) bool {
	if ctx.Err() != nil || c.MaxAttempts > 0 && attempt >= c.MaxAttempts {
		return false
	}
	switch failure.Outcome {
	case NotSent:
		return failure.Retryable()
	case Nacked:
		return slices.Contains(c.RetryCodes, failure.AckCode)
	case Unknown, Acked, Sent:
	}
	return false
}

// cutShort is the end of a message that was waiting, because of err; last is the
// failure of the try before, nil if there was none.
func cutShort(err error, last *SendError) *SendError {
	if last != nil {
		err = fmt.Errorf("%w; the last try failed: %w", err, last.Err)
	}
	if errors.Is(err, ErrClientClosed) {
		return refused(err)
	}
	return notSent(err)
}

// try sends msg once. held reports whether the caller still holds the lane: with
// a window it is given up as soon as the message is written.
func (c *Client) try(ctx context.Context, k *link, msg []byte) (reply *Reply, held bool, failure *SendError) {
	held = true
	f, reply, failure := k.conn.launch(ctx, msg)
	if f != nil {
		if c.window > 1 {
			c.handBack(k.lane)
			held = false
		}
		reply, failure = k.conn.await(ctx, f)
	}
	if reply != nil && reply.Ack.Code != "" {
		c.acknowledged(k)
	}
	switch {
	case k.conn.Err() != nil:
		c.lost(k)
	case c.DialPerMessage && (failure == nil || failure.Outcome != NotSent):
		c.hangUp(k, ReasonDone)
	}
	return reply, held, failure
}

// enter counts a call of Send.
func (c *Client) enter() error {
	if c.broken != nil {
		return c.broken
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return ErrClientClosed
	}
	c.sending++
	return nil
}

func (c *Client) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sending--; c.sending == 0 && c.stopped {
		close(c.drained)
	}
}

// stop has Send refuse all messages, and those end that have not been written.
func (c *Client) stop() {
	c.setUp()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	c.stopped = true
	close(c.stopping)
	if c.sending == 0 {
		close(c.drained)
	}
	for _, l := range c.lanes {
		if l.cancel != nil {
			l.cancel(ErrClientClosed)
		}
	}
}

// Shutdown takes no more messages, ends those that wait for their turn or for a
// connection as NotSent, waits for the acknowledgements of the others, and
// closes the Client. If ctx ends first, what is then under way is Unknown, and
// Shutdown returns the error of ctx.
func (c *Client) Shutdown(ctx context.Context) error {
	c.stop()
	var err error
	select {
	case <-c.drained:
	case <-ctx.Done():
		err = contextError(ctx)
	}
	_ = c.Close() // which never fails
	return err
}

// Close ends all connections. Messages under way become Unknown, those that wait
// for their turn or for a connection NotSent. It returns when all that the
// Client has started has come to an end, which with TLS or MatchNone may take 5 s
// if the receiver does not read. The error is always nil.
func (c *Client) Close() error {
	c.stop()
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.quit)
	}
	told := c.noteLocked()
	c.mu.Unlock()
	c.tellHealth(told)
	c.watchers.Wait()
	return nil
}
