package mllp

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// flight is a message under way.
type flight struct {
	reply chan *Reply // of one; readLoop sends when it takes the flight off the waiting ones

	// Set before the flight is among the waiting, then read-only.
	id     []byte // MSH-10, in the caller's message
	began  time.Time
	strays int // Conn.strays at that time
	asked  asked

	// Of enhanced mode, nil without.
	commits chan struct{} // of one; readLoop sends when it has set commit
	commit  *Reply        // guarded by Conn.mu: the commit acknowledgement, while the application's is waited for
	other   *awaited      // where that may arrive besides; nil: nowhere

	blocks chan []byte // with MLLP release 2, in place of reply: what the peer sends

	timer *time.Timer // owned by Send
}

// await waits for the reply to f, which has been written.
func (c *Conn) await(ctx context.Context, f *flight) (*Reply, *SendError) {
	if c.match == MatchNone {
		return c.sent(f)
	}
	if f.commits != nil {
		defer c.stopWaiting(f)
	}
	var timeout <-chan time.Time
	if c.timeout > 0 {
		if f.timer == nil {
			f.timer = time.NewTimer(c.timeout)
		} else {
			f.timer.Reset(c.timeout)
		}
		timeout = f.timer.C
	}
	var cause error
	select {
	case reply := <-f.reply:
		return c.land(f, reply)
	case <-f.commits:
		return c.awaitApplication(ctx, f)
	case reply := <-f.elsewhere():
		return c.landElsewhere(f, reply)
	case <-c.closed:
		cause = c.Err()
	case <-ctx.Done():
		cause = contextError(ctx)
	case <-timeout:
		cause = c.timedOut(f)
	}
	if c.hasCommit(f) { // it came at the last moment
		return c.awaitApplication(ctx, f)
	}
	if reply := c.withdraw(f); reply != nil { // likewise
		return c.land(f, reply)
	}
	_ = c.fail(errGivenUp)
	<-c.slots
	return nil, &SendError{Outcome: Unknown, Err: cause}
}

// timedOut is the reason of giving f up, with what an operator needs to know
// whether the peer is slow or confused.
func (c *Conn) timedOut(f *flight) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if strays := c.strays - f.strays; strays > 0 {
		return fmt.Errorf("mllp: no acknowledgement within %v, but %d of other messages: %w", c.timeout, strays, os.ErrDeadlineExceeded)
	}
	return fmt.Errorf("mllp: no acknowledgement within %v: %w", c.timeout, os.ErrDeadlineExceeded)
}

// crash is the end of f after n bytes of its frame, and not all, were written.
func (c *Conn) crash(f *flight, n int, cause error) (*Reply, *SendError) {
	reply := c.withdraw(f)
	if n > 0 && reply != nil && !reply.Ack.Code.Accepted() {
		return c.land(f, reply) // the peer refused the message before its end
	}
	<-c.slots
	if n > 0 {
		// An acceptance of what cannot have arrived whole is no acceptance.
		return nil, &SendError{Outcome: Unknown, Err: cause}
	}
	// The kernel took nothing; or, with TLS, not all of the first record, of
	// which the peer can then decrypt nothing.
	return nil, notSent(cause)
}

// withdraw takes f off the waiting, or returns the reply that it has got.
func (c *Conn) withdraw(f *flight) *Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.waiting, f); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
		return nil
	}
	return <-f.reply
}

// land turns the reply to f into the result of Send.
func (c *Conn) land(f *flight, reply *Reply) (*Reply, *SendError) {
	if f.timer != nil {
		f.timer.Stop()
	}
	if f.id = nil; f.commits == nil {
		c.mu.Lock()
		c.idle = append(c.idle, f)
		c.mu.Unlock()
	}
	if !c.framing.keepOpen() {
		if c.match == MatchNone {
			c.finish() // nothing shows that the message has arrived
		}
		_ = c.fail(errNotKeptOpen)
	}
	<-c.slots
	if reply.Outcome() == Nacked {
		return reply, &SendError{Outcome: Nacked, AckCode: reply.Ack.Code}
	}
	return reply, nil
}
