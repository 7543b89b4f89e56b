package mllp

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A gate is what lies between a Client and its next dial. All of it is guarded by
// the Client's mu.
type gate struct {
	failures  int        // since the last acknowledgement that was the first of its connection
	steps     int        // of the back-off since then
	notBefore time.Time  // of the next dial
	last      *SendError // the last failure; nil: none since that acknowledgement
	fault     *SendError // it, if no waiting will cure it; nil: some may
	probing   bool       // a dial is under way, and failures > 0: others wait for it
	changed   chan struct{}
}

// fullJitter returns a random time up to bounds that double with each step, from
// shortest to longest.
//
// "Full" jitter, from nothing on, spreads many clients best: see M. Brooker,
// "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
func fullJitter(steps int, shortest, longest time.Duration) time.Duration {
	bound := shortest
	for range steps - 1 {
		if bound >= longest/2 {
			bound = longest
			break
		}
		bound *= 2
	}
	return rand.N(bound + 1)
}

// mayDial waits until a dial is permitted; after failures that is one at a time,
// and calm is false. The end of the dial, or settle, must follow. But if another
// lane is connected it does not wait for the end of a back-off: elsewhere is true.
func (c *Client) mayDial(ctx context.Context) (calm, elsewhere bool, failure *SendError) {
	for {
		c.mu.Lock()
		g := &c.gate
		wait := time.Until(g.notBefore)
		switch {
		case g.fault != nil && (wait > 0 || g.probing):
			failure = unreachable(g.fault)
			c.mu.Unlock()
			return false, false, failure
		case g.failures > 0 && (wait > 0 || g.probing) && c.connectedLocked():
			c.mu.Unlock()
			return false, true, nil
		case wait <= 0 && !g.probing:
			calm = g.failures == 0
			g.probing = !calm
			c.mu.Unlock()
			return calm, false, nil
		case wait <= 0: // the end of the other's dial is a change
			wait = c.maxBackoff
		}
		changed, last := g.changed, g.last
		c.mu.Unlock()
		if err := c.sleepOr(ctx, changed, wait); err != nil {
			if last != nil {
				return false, false, unreachable(cutShort(err, last))
			}
			return false, false, unreachable(cutShort(err, nil))
		}
	}
}

// sleepOr is pause, and ends when changed is closed too.
func (c *Client) sleepOr(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-changed:
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	case <-c.stopping:
		return ErrClientClosed
	}
}

// settle is the end of a dial that was not made.
func (c *Client) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked()
}

// settleLocked is the end of a dial, and wakes those that waited for it.
func (c *Client) settleLocked() {
	c.gate.probing = false
	close(c.gate.changed)
	c.gate.changed = make(chan struct{})
}

// delayLocked permits no dial before d has passed.
func (c *Client) delayLocked(d time.Duration) {
	if at := time.Now().Add(d); at.After(c.gate.notBefore) {
		c.gate.notBefore = at
	}
}

// failedLocked notes that a dial failed, or that a connection ended without ever
// having brought an acknowledgement. It returns the state to tell, if any.
func (c *Client) failedLocked(failure *SendError) State {
	g := &c.gate
	g.failures++
	g.last, g.fault = failure, nil
	if !failure.Retryable() || c.UnknownHostIsFaulty && hostUnknown(failure) {
		g.fault = failure
		g.fault.permanent = true
		c.delayLocked(c.maxBackoff/2 + rand.N(c.maxBackoff/2+1))
	} else {
		g.steps++
		c.delayLocked(fullJitter(g.steps, c.minBackoff, c.maxBackoff))
	}
	c.settleLocked()
	return c.noteLocked()
}

// hostUnknown reports whether DNS says that there is no such host.
func hostUnknown(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}

// acknowledged notes that k has brought an acknowledgement.
func (c *Client) acknowledged(k *link) {
	c.lastAck.Store(time.Now().UnixNano())
	c.proven(k)
}

// proven notes that k works. Only the first time counts: while one connection
// works, another that the receiver does not want must not be dialed without end.
func (c *Client) proven(k *link) {
	if k.acked.Swap(true) {
		return
	}
	c.mu.Lock()
	g := &c.gate
	g.failures, g.steps, g.last, g.fault, g.notBefore = 0, 0, nil, nil, time.Time{}
	c.settleLocked()
	told := c.noteLocked()
	c.serveLocked() // lanes that are not connected may be now
	c.mu.Unlock()
	c.tellHealth(told)
}

// A DialLimiter bounds the connections that all Clients which share it begin in a
// second, so that a process with many of them does not overrun what lies between
// it and its receivers. They get their turns in order, at even distances. The
// zero value is ready to use.
//
// It counts all dials, but not those of a Client with DialPerMessage whose last
// one has worked: what bounds these is the rate of its messages.
type DialLimiter struct {
	PerSecond int // 0: 100. Negative is refused.

	once sync.Once
	turn chan struct{} // set in once; holds a token while next is in use
	next time.Time     // owned by the holder of turn: not before then
}

// defaultDialRate is a tenth of the TLS handshakes that a processor core can do in
// a second.
const defaultDialRate = 100

// wait waits for the turn of a dial.
func (l *DialLimiter) wait(ctx context.Context, stopping <-chan struct{}) error {
	l.once.Do(func() { l.turn = make(chan struct{}, 1) })
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return contextError(ctx)
	case <-stopping:
		return ErrClientClosed
	}
	defer func() { <-l.turn }()
	if d := time.Until(l.next); d > 0 {
		if err := sleep(ctx, stopping, d); err != nil {
			return err
		}
	}
	rate := l.PerSecond
	if rate == 0 {
		rate = defaultDialRate
	}
	l.next = time.Now().Add(time.Second / time.Duration(rate))
	return nil
}
