package mllp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// A lane is a place for one of a Client's connections.
type lane struct {
	// guarded by Client.mu
	taken  bool                    // held by a message that is not yet written, or waits without a window
	flying int                     // messages that hold it, or wait for a reply on it
	link   *link                   // nil: not connected
	cancel context.CancelCauseFunc // of the dial under way; nil: none
}

// A link is a connection of a Client. A goroutine of its own, watch, waits for its
// end and closes it.
type link struct {
	// static after construction
	conn   *Conn
	lane   *lane
	opened time.Time
	done   chan struct{} // closed when the Client has no more use for it

	acked atomic.Bool // it has brought an acknowledgement

	// guarded by Client.mu
	gone      bool      // it has been taken off its lane
	why       Reason    // if it was the Client that ended it
	idleSince time.Time // zero: not idle
}

// acquire waits for the message's turn and returns the lane that it then holds.
// With a lane from, which the message holds already, it comes before all others;
// from is given up, whatever the result.
func (c *Client) acquire(ctx context.Context, from *lane) (*lane, error) {
	c.mu.Lock()
	if from != nil {
		from.taken = false
		from.flying--
	}
	switch {
	case ctx.Err() != nil:
		c.serveLocked()
		c.mu.Unlock()
		return nil, contextError(ctx)
	case c.stopped:
		c.mu.Unlock()
		return nil, ErrClientClosed
	case from != nil || len(c.queue) == 0:
		if l := c.pickLocked(); l != nil {
			c.serveLocked()
			c.mu.Unlock()
			return l, nil
		}
	}
	var turn chan *lane
	if last := len(c.spare) - 1; last >= 0 {
		turn, c.spare = c.spare[last], c.spare[:last]
	} else {
		turn = make(chan *lane, 1)
	}
	if from != nil {
		c.queue = slices.Insert(c.queue, 0, turn)
	} else {
		c.queue = append(c.queue, turn)
	}
	c.mu.Unlock()

	var l *lane
	var err error
	select {
	case l = <-turn:
	case <-ctx.Done():
		err = contextError(ctx)
	case <-c.stopping:
		err = ErrClientClosed
	}
	c.mu.Lock()
	if err != nil {
		if i := slices.Index(c.queue, turn); i >= 0 {
			c.queue = slices.Delete(c.queue, i, i+1)
		} else { // its turn came at the same moment
			c.releaseLocked(<-turn, true)
		}
		l = nil
	}
	c.spare = append(c.spare, turn)
	c.mu.Unlock()
	return l, err
}

// pickLocked takes the best lane for a message: of those with room the one with
// the fewest messages, connected rather than not. A lane that has to be connected
// first is none while it would have to wait, and other lanes are connected.
func (c *Client) pickLocked() *lane {
	var best *lane
	waits := c.gate.failures > 0 && (c.gate.probing || time.Until(c.gate.notBefore) > 0) && c.connectedLocked()
	for _, l := range c.lanes {
		switch {
		case l.taken || l.flying >= c.window || l.link == nil && waits:
		case best == nil || l.flying < best.flying || l.flying == best.flying && best.link == nil && l.link != nil:
			best = l
		}
	}
	if best != nil {
		best.taken = true
		best.flying++
	}
	return best
}

// connectedLocked reports whether there is a connection.
func (c *Client) connectedLocked() bool {
	return slices.ContainsFunc(c.lanes, func(l *lane) bool { return l.link != nil })
}

// serveLocked gives the lanes that are free to those that wait.
func (c *Client) serveLocked() {
	for len(c.queue) > 0 {
		l := c.pickLocked()
		if l == nil {
			return
		}
		c.queue[0] <- l
		c.queue = slices.Delete(c.queue, 0, 1)
	}
}

// handBack lets the next message use l, while a reply is waited for.
func (c *Client) handBack(l *lane) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.taken = false
	c.serveLocked()
}

// release is the end of a message on l; held says whether it still holds it.
func (c *Client) release(l *lane, held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releaseLocked(l, held)
}

func (c *Client) releaseLocked(l *lane, held bool) {
	if held {
		l.taken = false
	}
	if l.flying--; l.flying == 0 && l.link != nil && c.IdleTimeout > 0 {
		l.link.idleSince = time.Now()
	}
	c.serveLocked()
}

// pause waits for d.
func (c *Client) pause(ctx context.Context, d time.Duration) error {
	return sleep(ctx, c.stopping, d)
}

// sleep waits for d, unless ctx or the Client ends first.
func sleep(ctx context.Context, stopping <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	case <-stopping:
		return ErrClientClosed
	}
}

// connect returns the link of the lane, which the caller holds, after making it if
// need be. If that would have to wait while other lanes are connected, it changes
// the lane; to nil if the message was cut short between the two.
func (c *Client) connect(ctx context.Context, held **lane, msg []byte) (*link, *SendError) {
	var calm bool
	for wait := true; wait; {
		l := *held
		c.mu.Lock()
		k := l.link
		if k != nil {
			k.idleSince = time.Time{}
		}
		c.mu.Unlock()
		if k != nil {
			if k.conn.Err() == nil {
				return k, nil
			}
			c.lost(k)
		}
		if err := c.dialer.Match.parse(new(Header), msg); err != nil {
			return nil, refused(err) // which no connection would change
		}
		var failure *SendError
		if calm, wait, failure = c.mayDial(ctx); failure != nil {
			return nil, failure
		}
		if wait {
			var err error
			if *held, err = c.acquire(ctx, l); err != nil {
				return nil, cutShort(err, nil)
			}
		}
	}
	if c.Dials != nil && (!c.DialPerMessage || !calm) {
		if err := c.Dials.wait(ctx, c.stopping); err != nil {
			c.settle()
			return nil, unreachable(cutShort(err, nil))
		}
	}
	return c.dial(ctx, *held)
}

// dial makes the link of l.
func (c *Client) dial(ctx context.Context, l *lane) (*link, *SendError) {
	dialing, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	l.cancel = cancel
	if c.stopped {
		cancel(ErrClientClosed)
	}
	c.mu.Unlock()

	began := time.Now()
	conn, failure := c.dialer.dial(dialing, "tcp", c.Addr)
	took := time.Since(began)
	c.mu.Lock()
	l.cancel = nil
	if failure == nil && !c.stopped {
		k := &link{conn: conn, lane: l, opened: time.Now(), done: make(chan struct{})}
		l.link = k
		c.watchers.Add(1) // before Close waits, which sets stopped first
		c.settleLocked()
		c.mu.Unlock()
		go c.watch(k)
		if c.events.watched() {
			c.events.tell(ctx, dialed(conn, took))
		}
		return k, nil
	}
	var told State
	stopped := c.stopped
	theirs := !stopped && !errors.Is(ctx.Err(), context.Canceled) // which would say nothing of the receiver
	if theirs {
		told = c.failedLocked(failure)
	} else {
		c.settleLocked()
	}
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // it was not wanted any more
	}
	if theirs && c.events.watched() {
		c.events.tell(ctx, dialFailed(failure, took))
	}
	c.tellHealth(told)
	if stopped {
		return nil, unreachable(refused(ErrClientClosed))
	}
	return nil, unreachable(failure)
}

// unreachable is failure as Send returns it.
func unreachable(failure *SendError) *SendError {
	return &SendError{Outcome: NotSent, Err: fmt.Errorf("%w: %w", ErrUnreachable, failure.Err), permanent: failure.permanent}
}

// watch waits for the end of k, or for the time to bring it about.
func (c *Client) watch(k *link) {
	defer c.watchers.Done()
	var (
		idle      <-chan time.Time
		idleTimer *time.Timer
		proven    <-chan time.Time
	)
	if c.IdleTimeout > 0 {
		idleTimer = time.NewTimer(c.IdleTimeout)
		defer idleTimer.Stop()
		idle = idleTimer.C
	}
	if c.dialer.Match == MatchNone {
		timer := time.NewTimer(c.maxBackoff)
		defer timer.Stop()
		proven = timer.C
	}
	for open := true; open; {
		select {
		case <-k.conn.closed:
			c.lost(k)
			open = false
		case <-k.done:
			open = false
		case <-c.quit:
			c.hangUp(k, ReasonShutdown)
			open = false
		case <-proven: // without acknowledgements, a long life has to do
			c.proven(k)
		case <-idle:
			idleTimer.Reset(c.hangUpIdle(k))
		}
	}
	_ = k.conn.Close() // which never fails
	c.mu.Lock()
	why := k.why
	c.mu.Unlock()
	if c.events.watched() {
		c.events.tell(context.Background(), linkClosed(k, why))
	}
}

// hangUp takes a link out of use that the Client wants to end.
func (c *Client) hangUp(k *link, why Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangUpLocked(k, why)
}

func (c *Client) hangUpLocked(k *link, why Reason) {
	if c.takeOffLocked(k) {
		k.why = why
		close(k.done)
	}
}

// hangUpIdle ends k if it has not been used for IdleTimeout, and returns when to
// look again.
func (c *Client) hangUpIdle(k *link) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.idleSince.IsZero() {
		return c.IdleTimeout
	}
	left := c.IdleTimeout - time.Since(k.idleSince)
	if left <= 0 {
		c.hangUpLocked(k, ReasonIdleTimeout)
	}
	return max(left, 0)
}

// takeOffLocked takes k off its lane, and reports whether it was on it.
func (c *Client) takeOffLocked(k *link) bool {
	if k.gone {
		return false
	}
	k.gone = true
	k.lane.link = nil
	c.serveLocked() // a lane may have become the only one
	return true
}

// lost notes, once, that k has ended and not by the Client's wish.
func (c *Client) lost(k *link) {
	c.mu.Lock()
	var told State
	if c.takeOffLocked(k) {
		switch {
		case !k.acked.Load():
			told = c.failedLocked(&SendError{Outcome: NotSent, Err: k.conn.Err()})
		case time.Until(c.gate.notBefore) <= 0: // several that end together have one delay
			c.gate.steps = max(c.gate.steps, 1)
			c.delayLocked(fullJitter(c.gate.steps, c.minBackoff, c.maxBackoff))
		}
	}
	c.mu.Unlock()
	c.tellHealth(told)
}
