package mllp

import (
	"errors"
	"io"
	"os"
	"time"
)

// readChunk is how much is read at once if there is room for more than twice as
// much: what comes in one piece is then searched while it is in the processor's
// first cache, which for frames of 1 MiB is worth a tenth. Frames of 64 KiB gain
// more by one call of the system the less.
const readChunk = 48 << 10

// Read is the source of the connection's Reader. It waits for bytes for as long
// as the state of that allows.
//
// Setting a deadline costs a few percent of a short message. So one that is set
// and comes before the right one is left; when it passes, Read thinks again.
func (c *conn) Read(p []byte) (int, error) {
	for {
		if err := c.dismissed(); err != nil {
			return 0, err
		}
		want, err := c.deadline()
		if err != nil {
			return 0, err
		}
		if !want.IsZero() && (c.armed.IsZero() || want.Before(c.armed)) {
			c.armed = want
			if err := c.net.SetReadDeadline(want); err != nil {
				return 0, err
			}
			if c.draining.Load() && !c.looked && !c.rd.in || c.dismissal.Load() != nil || c.lanes != nil && c.lanes.failed() != nil {
				continue // Drain, recheck or fail may have come before, and its waking been undone
			}
		}
		if c.quick != nil && c.rd.in {
			c.quick.before(c.raw)
		}
		if len(p) > 2*readChunk {
			p = p[:readChunk]
		}
		n, err := c.net.Read(p)
		if n > 0 {
			c.inPieces(n)
			c.received = true
			c.setBusy(true)
			if c.lanes == nil { // beside others, it says nothing of the last one
				c.unread.code = ""
			}
			if c.cfg.gap > 0 {
				c.pauseAt = time.Now()
			}
			return n, err
		}
		if c.wire != nil && c.wire.cut && errors.Is(err, io.EOF) {
			return 0, errUnverifiedEnd
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		c.armed = time.Time{}
		if err := c.net.SetReadDeadline(c.armed); err != nil {
			return 0, err
		}
	}
}

// inPieces looks at a read of n bytes: one that holds VT or FS CR alone shows
// that the client writes frames in pieces.
func (c *conn) inPieces(n int) {
	if n <= 2 && c.quick == nil {
		c.quick = new(quickAck)
	}
}

// setBusy sets busy, unless it is set already: looking costs less.
func (c *conn) setBusy(b bool) {
	if c.busy.Load() != b {
		c.busy.Store(b)
	}
}

// deadline returns until when to read, the zero time for no limit, or why not to
// read any more.
func (c *conn) deadline() (time.Time, error) {
	if c.lanes != nil {
		if err := c.lanes.failed(); err != nil {
			return time.Time{}, err
		}
	}
	if !c.rd.in {
		return c.idleDeadline()
	}
	now := time.Now()
	want := c.frameDeadline(now)
	if !want.IsZero() && !now.Before(want) {
		return want, os.ErrDeadlineExceeded
	}
	if c.cfg.gap > 0 {
		enough := c.pauseAt.Add(c.cfg.gap)
		if !now.Before(enough) {
			return enough, errGap
		}
		return earlier(want, enough), nil
	}
	if c.cfg.fsOnlyDelay <= 0 || !c.rd.pendingFS() {
		c.pauseAt = time.Time{}
		return want, nil
	}
	if c.pauseAt.IsZero() {
		c.pauseAt = now
	}
	enough := c.pauseAt.Add(c.cfg.fsOnlyDelay)
	if !now.Before(enough) {
		c.pauseAt = time.Time{}
		return enough, errFSOnly
	}
	return earlier(want, enough), nil
}

// frameDeadline returns until when the frame that is arriving must be whole.
func (c *conn) frameDeadline(now time.Time) time.Time {
	if c.frameAt != c.rd.frame.offset {
		c.frameAt, c.frameBegan = c.rd.frame.offset, now
	}
	if c.cfg.frameTimeout <= 0 {
		return time.Time{}
	}
	earned := time.Duration(c.rd.lengthAt(c.rd.w-c.rd.r)) * time.Second / slowestRate
	return c.frameBegan.Add(c.cfg.frameTimeout + earned)
}

// idleDeadline is deadline between frames.
func (c *conn) idleDeadline() (want time.Time, err error) {
	if c.r2 != nil && !c.r2.commitBy.IsZero() { // also while draining
		return c.commitDeadline()
	}
	if c.draining.Load() {
		if c.looked {
			return want, errDrained
		}
		c.looked = true
		return time.Now().Add(lastLook), nil
	}
	c.setBusy(false)
	if c.lanes != nil && c.lanes.pending.Load() > 0 {
		c.idleSince = time.Time{}
	}
	// With FRAME the first bytes of a start may be waiting for the rest.
	large := c.hasLargeBuffer()
	if !large && c.cfg.idleTimeout <= 0 {
		return want, nil
	}
	// Right after an answer, idleSince is what the clock says, or nearly.
	now := c.idleSince
	if now.IsZero() || c.armed.IsZero() {
		now = time.Now()
	}
	if c.idleSince.IsZero() {
		c.idleSince = now
	}
	if large {
		if want, err = c.linger(now); err != nil {
			return want, err
		}
	}
	if c.cfg.idleTimeout > 0 {
		end := c.idleSince.Add(c.cfg.idleTimeout)
		if !now.Before(end) {
			return end, errIdleTooLong
		}
		want = earlier(want, end)
	}
	return want, nil
}

// commitDeadline is idleDeadline while the client has to commit an acknowledgement
// (MLLP release 2).
func (c *conn) commitDeadline() (want time.Time, err error) {
	now := c.idleSince // of the acknowledgement: see idleDeadline
	if now.IsZero() || c.armed.IsZero() {
		now = time.Now()
	}
	if !now.Before(c.r2.commitBy) {
		return c.r2.commitBy, errNoCommit
	}
	if c.hasLargeBuffer() {
		if want, err = c.linger(now); err != nil {
			return want, err
		}
	}
	return earlier(want, c.r2.commitBy), nil
}

// hasLargeBuffer tells whether the Reader has a buffer that could be given back.
func (c *conn) hasLargeBuffer() bool { return len(c.rd.buf) > idleBuffer && c.rd.r == c.rd.w }

// linger returns until when a large buffer is kept for the next frame, which mostly
// is as long as the last one, or errGoIdle. One from the budget is kept only if it
// fits, and nobody waits for one.
func (c *conn) linger(now time.Time) (time.Time, error) {
	until := c.idleSince.Add(bufferLinger)
	needed := len(c.rd.buf) > freeBuffer && (c.cfg.budget.waiting.Load() > 0 || c.likely < len(c.rd.buf)/8*5)
	if needed || !now.Before(until) {
		return until, errGoIdle
	}
	return until, nil
}

// earlier returns the earlier of two times, of which zero is the latest.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// resize is the memory of the connection's Reader. Buffers come from pools, in
// the size that the last frames had, and the large ones
// from the budget.
func (c *conn) resize(data []byte, n int) ([]byte, error) {
	longest := c.rd.longest()
	if n > idleBuffer {
		n = min(max(n, c.likely+3), longest)
	}
	_, size := class(n)
	if charge := budgeted(size); charge > 0 {
		now := time.Now()
		until := c.frameDeadline(now)
		if until.IsZero() { // even then, one that stands in the way of others must end
			until = now.Add(defaultFrameTimeout)
		}
		if !c.cfg.budget.take(c, charge, until, c.done) {
			return nil, &FrameError{Reason: ReasonBuffersExhausted, Offset: c.rd.off, Length: int64(len(data))}
		}
	}
	fresh := getBuffer(n)
	copy(fresh.bytes, data)
	c.release(budgeted(size) == 0)
	c.buf = fresh
	return fresh.bytes[:min(len(fresh.bytes), longest)], nil
}

// release gives the buffer back; last says that no other one that counts has
// taken its place.
func (c *conn) release(last bool) {
	if c.buf == nil {
		return
	}
	charge := budgeted(len(c.buf.bytes))
	putBuffer(c.buf)
	c.buf = nil
	if charge > 0 {
		c.cfg.budget.give(c, charge, last)
	}
}
