package smtpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"
)

const (
	defaultMaxConns    = 4
	defaultMaxMessages = 100
	defaultIdle        = 30 * time.Second
	// freshFor is how long a connection from the pool is believed to be alive
	// without asking.
	freshFor = 5 * time.Second
	// askTime is how long the answer to NOOP and RSET may take: a new connection
	// is the better choice then.
	askTime = 10 * time.Second
)

// acquire takes one of the places for connections.
func (s *Sender) acquire(ctx context.Context) (release func(), _ *SendError) {
	s.mu.Lock()
	if s.slots == nil {
		s.slots = make(chan struct{}, cmp.Or(s.MaxConns, defaultMaxConns))
		s.done = make(chan struct{})
	}
	slots, done, closed := s.slots, s.done, s.closed
	s.mu.Unlock()
	if closed {
		return nil, unfit(ErrClosed)
	}
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-done:
		return nil, unfit(ErrClosed)
	case <-ctx.Done():
		return nil, notSent(fmt.Errorf("smtpx: waiting for one of %d connections: %w", cap(slots), context.Cause(ctx)))
	}
}

// take returns a connection from the pool that seems to be alive, or nil.
func (s *Sender) take(ctx context.Context) *conn {
	var now uint64
	looked := false
	for {
		s.mu.Lock()
		if len(s.idle) == 0 {
			s.mu.Unlock()
			return nil
		}
		last := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		s.mu.Unlock()
		if !last.timer.Stop() {
			continue // the timer has it
		}
		s.ending.Done()
		c := last.conn
		if !looked {
			now, looked = s.generation(ctx), true
		}
		switch {
		case c.source != now:
			s.drop(ctx, c, ReasonRotated)
		case time.Since(c.since) >= freshFor && !c.ask(ctx, "NOOP"):
			s.drop(ctx, c, ReasonStale)
		default:
			return c
		}
	}
}

// ask tells whether the server answers 250 to a command without consequences.
func (c *conn) ask(ctx context.Context, command string) bool {
	stop := c.watch(ctx)
	ans, err := c.command(askTime, command)
	return stop() && err == nil && ans.Code == 250
}

// put gives c back to the pool, after RSET if a transaction may be open in it, or
// closes it if it has done enough.
func (s *Sender) put(ctx context.Context, c *conn, reset bool) {
	limit := cmp.Or(s.MaxMessagesPerConn, defaultMaxMessages)
	idle := cmp.Or(s.IdleTimeout, defaultIdle)
	switch {
	case limit > 0 && c.sent >= limit:
		s.drop(ctx, c, ReasonMessages)
		return
	case idle < 0:
		s.drop(ctx, c, ReasonNotKept)
		return
	case reset && !c.ask(ctx, "RSET"):
		s.drop(ctx, c, ReasonFailed)
		return
	}
	c.since = time.Now()
	if !s.keep(ctx, c, idle) {
		s.drop(ctx, c, ReasonClosed)
	}
}

// keep puts c among the idle connections, unless the Sender is closed.
func (s *Sender) keep(ctx context.Context, c *conn, idle time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	kept := &idleConn{conn: c}
	s.ending.Add(1)
	kept.timer = time.AfterFunc(idle, func() {
		defer s.ending.Done()
		s.mu.Lock()
		for i, other := range s.idle {
			if other == kept {
				s.idle = append(s.idle[:i], s.idle[i+1:]...)
				break
			}
		}
		s.mu.Unlock()
		s.drop(context.WithoutCancel(ctx), c, ReasonIdle)
	})
	s.idle = append(s.idle, kept)
	return true
}

// drop closes c; if there is hope that the server listens, it is told so.
func (s *Sender) drop(ctx context.Context, c *conn, why Reason) {
	if why == ReasonFailed || why == ReasonStale {
		c.abandon()
	} else {
		c.quit()
	}
	s.tell(ctx, Event{Kind: EventClosed, Reason: why, RemoteAddr: c.remote(), Messages: c.sent, Duration: time.Since(c.opened)})
}

// Close closes the connections that wait for a message, which takes a second at
// most, and makes every later Send fail with ErrClosed. What is being sent goes
// on; to end it, end its context. Close may be called more than once.
func (s *Sender) Close() error {
	s.mu.Lock()
	if !s.closed && s.done != nil {
		close(s.done)
	}
	s.closed = true
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	var quits sync.WaitGroup
	for _, kept := range idle {
		if kept.timer.Stop() {
			quits.Go(func() {
				defer s.ending.Done()
				s.drop(context.Background(), kept.conn, ReasonClosed)
			})
		}
	}
	quits.Wait()
	s.ending.Wait()
	return nil
}

// state returns the state of TLS, nil without.
func (c *conn) state() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	state := c.tls.ConnectionState()
	return &state
}
