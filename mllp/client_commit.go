package mllp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// maxOwed bounds the commit acknowledgements that may come after the
// application's.
const maxOwed = 64

var errNotAnswered = errors.New("mllp: with MSH-15 and MSH-16 as they are, silence could mean success and loss")

// answerable tells whether a sender learns what became of its message.
func (a asked) answerable() bool {
	return !a.enhanced || a.application == always || a.application == never && a.commit == always
}

// A Correlator brings application acknowledgements to the Send that waits for
// them when they do not come over its own Conn: over another one of the same
// Dialer, made after the first was lost, or over a connection that the receiver
// made to a [Server] of ours, whose handler calls Deliver.
//
// Messages are found by their control ID alone (MSH-10, MSA-2), which must
// differ among all that one Correlator waits for. The zero value is ready to
// use; a Correlator must not be copied. Its methods are safe for concurrent use.
type Correlator struct {
	mu      sync.Mutex
	waiting []*awaited // guarded by mu: oldest first
}

// awaited is an application acknowledgement that a Send waits for.
type awaited struct {
	id    []byte      // MSH-10, in the caller's message
	reply chan *Reply // of one
}

// Deliver takes an application acknowledgement, without its frame, and reports
// whether a Send waited for it. A reply that is none, or that is a commit
// acknowledgement, is not taken. reply is not kept.
func (c *Correlator) Deliver(reply []byte) bool {
	ack, err := findMSA(reply)
	return err == nil && c.deliver(reply, ack)
}

func (c *Correlator) deliver(raw []byte, ack acknowledgement) bool {
	if c == nil || ack.code.commit() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.waiting, func(a *awaited) bool { return bytes.Equal(a.id, ack.controlID) })
	if i < 0 {
		return false
	}
	c.waiting[i].reply <- &Reply{Ack: ack.export(), Raw: bytes.Clone(raw)}
	c.waiting = slices.Delete(c.waiting, i, i+1)
	return true
}

func (c *Correlator) await(id []byte) *awaited {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &awaited{id: id, reply: make(chan *Reply, 1)}
	c.waiting = append(c.waiting, a)
	return a
}

func (c *Correlator) forget(a *awaited) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.waiting, a); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
}

func (c *Correlator) waits() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) > 0
}

// expectTwo makes f wait for the application's acknowledgement, after that of the
// commit. The caller must hold mu.
func (c *Conn) expectTwo(f *flight) {
	f.commits = make(chan struct{}, 1)
	f.other = c.correlator.await(f.id)
}

// stopWaiting is the end of what expectTwo began.
func (c *Conn) stopWaiting(f *flight) {
	if f.other != nil {
		c.correlator.forget(f.other)
	}
}

// elsewhere returns where the reply may arrive beside f.reply, nil for nowhere.
func (f *flight) elsewhere() <-chan *Reply {
	if f.other == nil {
		return nil
	}
	return f.other.reply
}

// hasCommit tells whether the commit acknowledgement of f has come, and the
// application's is waited for.
func (c *Conn) hasCommit(f *flight) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.commit != nil
}

// lastOf deals with a reply to a message that may get two, and reports whether
// that is the last one. The caller must hold mu.
func (c *Conn) lastOf(f *flight, reply *Reply) bool {
	if reply.Ack.Code == CA {
		if f.commit == nil {
			f.commit = reply
			f.commits <- struct{}{}
		}
		return false
	}
	c.noteCommit(f, reply)
	return true
}

// noteCommit notes in the last reply to f whether a commit acknowledgement has
// come and, if not, that it may come yet. The caller must hold mu.
func (c *Conn) noteCommit(f *flight, reply *Reply) {
	switch {
	case f.commit != nil:
		reply.Commit = f.commit.Ack.Code
	case f.asked.commit.wants(true) && !reply.Ack.Code.commit():
		if len(c.owed) == maxOwed {
			c.owed = slices.Delete(c.owed, 0, 1)
		}
		c.owed = append(c.owed, string(f.id))
	}
}

// expecting tells whether something may come although no message waits here. The
// caller must hold mu.
func (c *Conn) expecting() bool { return len(c.owed) > 0 || c.correlator.waits() }

// expected deals with an acknowledgement that no message waits for here, and
// reports whether it was due. The caller must hold mu.
func (c *Conn) expected(raw []byte, ack acknowledgement) bool {
	if !ack.code.commit() {
		return c.correlator.deliver(raw, ack)
	}
	i := slices.Index(c.owed, string(ack.controlID))
	if i < 0 {
		return false
	}
	c.owed = slices.Delete(c.owed, i, i+1)
	return true
}

// confirm sends the commit acknowledgement of an application's, if that asks for it.
func (c *Conn) confirm(raw []byte, code AckCode) error {
	var h Header
	if code.commit() {
		return nil
	}
	if err := h.Parse(raw); err != nil {
		return fmt.Errorf("mllp: unusable reply: %w", err)
	}
	if !h.asks(AckNever).commit.wants(true) {
		return nil
	}
	id := rand.Text()[:20] // as long as MSH-10 may be up to HL7 2.6
	frame, err := c.framing.end(AppendAck(c.framing.begin(nil), &h, CA, "", []byte(id), time.Now()), 0)
	if err != nil {
		return fmt.Errorf("mllp: unusable reply: %w", err)
	}
	_, err = c.put(frame)
	return err
}

// awaitApplication waits for the application's acknowledgement of f, of which
// that of the commit has come.
func (c *Conn) awaitApplication(ctx context.Context, f *flight) (*Reply, *SendError) {
	var timeout <-chan time.Time
	if c.applyTimeout > 0 {
		timer := time.NewTimer(c.applyTimeout)
		defer timer.Stop()
		timeout = timer.C
	}
	closed := (<-chan struct{})(c.closed)
	if c.correlator != nil {
		closed = nil // it may come over another connection
	}
	var cause error
	select {
	case reply := <-f.reply:
		return c.land(f, reply)
	case reply := <-f.elsewhere():
		return c.landElsewhere(f, reply)
	case <-closed:
		cause = c.Err()
	case <-ctx.Done():
		cause = contextError(ctx)
	case <-timeout:
		cause = fmt.Errorf("mllp: not within %v: %w", c.applyTimeout, os.ErrDeadlineExceeded)
	}
	if reply := c.withdraw(f); reply != nil {
		return c.land(f, reply)
	}
	_ = c.fail(errGivenUp)
	<-c.slots
	return f.commit, &SendError{Outcome: Unknown, Err: fmt.Errorf("%w: %w", ErrNoApplicationAck, cause), permanent: true}
}

// landElsewhere is land for a reply that arrived at the Correlator.
func (c *Conn) landElsewhere(f *flight, reply *Reply) (*Reply, *SendError) {
	if own := c.withdraw(f); own != nil {
		return c.land(f, own)
	}
	c.mu.Lock()
	reply.Duration, reply.Strays = time.Since(f.began), c.strays-f.strays
	c.noteCommit(f, reply)
	c.mu.Unlock()
	return c.land(f, reply)
}
