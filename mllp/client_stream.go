package mllp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

const (
	// sendChunk is how much of a message SendReader has in memory at a time.
	sendChunk = 64 << 10
	// held is how many bytes are not written until those that follow are known: as
	// many as tell whether a frame ends or begins there.
	held = maxFrameBytes + lookahead
)

// A sourceError is why a message that SendReader reads cannot be sent to its end.
type sourceError struct {
	err       error
	permanent bool // it is the message's fault
}

func (e *sourceError) Error() string {
	return "mllp: the message was not written to its end: " + reason(e.err)
}
func (e *sourceError) Unwrap() error { return e.err }

var errAnsweredEarly = errors.New("mllp: the peer answered before the end of the message")

// SendReader is Send for a message of size bytes that is read from r while it is
// written, so that one of hundreds of megabytes takes no more than 80 KiB of memory.
// It reads no more than size bytes. While r makes it wait, so do the calls of Send
// behind it, and the receiver, whose patience with an unfinished frame has an end;
// if ctx ends it returns as soon as r does.
//
// The results are those of Send, with these differences. A message can turn out to
// be one that cannot be sent when a part of it has left: if r fails or ends too
// soon (io.ErrUnexpectedEOF), or if there are bytes in it that its frame cannot
// carry (*[FrameError]; not Retryable). Its frame then is not ended but the Conn
// is: a good receiver discards such a message, but the outcome is Unknown. What
// is found in the first 64 KiB is NotSent. Header segments that are longer are refused.
//
// Frames are needed, and those that need not be sent again: with RAW and MLLPv2
// every message is refused.
func (c *Conn) SendReader(ctx context.Context, r io.Reader, size int64) (*Reply, error) {
	reply, err := c.observed(size, func() (*Reply, *SendError) { return c.sendReader(ctx, r, size) })
	if err != nil {
		return reply, err
	}
	return reply, nil
}

func (c *Conn) sendReader(ctx context.Context, r io.Reader, size int64) (*Reply, *SendError) {
	if mode := c.framing.mode(); mode != ModeMLLP && mode != ModeFRAME {
		return nil, refused(fmt.Errorf("mllp: SendReader cannot be used with %s", mode))
	}
	if size <= 0 {
		return nil, refused(fmt.Errorf("mllp: a message of %d bytes", size))
	}
	memory := getBuffer(len(c.framing.Start) + sendChunk + held + maxFrameBytes)
	defer putBuffer(memory)
	out := outgoing{conn: c, src: readerIn{ctx, r}, left: size, buf: c.framing.begin(memory.bytes[:0])}
	out.text = len(out.buf)
	if err := out.fill(); err != nil {
		return nil, &SendError{Outcome: NotSent, Err: err, permanent: err.permanent}
	}
	head := out.buf[out.text:][:min(size, sendChunk)]
	switch {
	case isBlank(head) || isCommit(head):
		return nil, refused(&FrameError{Reason: ReasonEmpty, Length: size})
	case out.left > 0 && segmentEnd(head) == len(head):
		return nil, refused(errHeaderLength)
	}
	var h Header
	var wants asked
	if err := c.match.parse(&h, head); err != nil {
		return nil, refused(err)
	}
	if c.enhanced {
		if wants = h.asks(c.missing); !wants.answerable() {
			return nil, refused(errNotAnswered)
		}
	}
	if err := c.takeTurn(ctx); err != nil {
		return nil, notSent(err)
	}
	f, err := c.takeOff(bytes.Clone(h.ControlID), wants)
	if err != nil {
		c.endTurn()
		<-c.slots
		return nil, notSent(err)
	}
	n, cause := c.writeIn(ctx, func() (int, error) { return out.write(f) })
	c.endTurn()
	if cause == nil {
		return c.await(ctx, f)
	}
	reply, failure := c.crash(f, n, cause)
	c.stopWaiting(f)
	if source, ok := errors.AsType[*sourceError](cause); ok && failure != nil {
		failure.permanent = failure.permanent || source.permanent
	}
	return reply, failure
}

// readerIn is a reader that fails when ctx has ended.
type readerIn struct {
	ctx context.Context //nolint:containedctx // of the one call that it lives for
	r   io.Reader
}

func (r readerIn) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, contextError(r.ctx)
	}
	return r.r.Read(p)
}

// outgoing is a message on its way from a reader to a Conn.
type outgoing struct {
	conn *Conn
	src  io.Reader
	left int64  // bytes that have not been read
	buf  []byte // of the frame, from its start bytes on; read, and not yet written
	text int    // where in buf the message begins; after that has gone, 0
	gone int64  // bytes of the message before buf
}

// fill reads on, and sees to it that the frame can carry what it has read. At the
// end of the message it ends the frame.
func (o *outgoing) fill() *sourceError {
	begin := len(o.buf)
	n := int(min(o.left, sendChunk))
	o.buf = o.buf[:begin+n]
	if _, err := io.ReadFull(o.src, o.buf[begin:]); err != nil {
		o.buf = o.buf[:begin]
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return &sourceError{err: err}
	}
	f := &o.conn.framing
	ends := []byte{fs, cr}
	if f.mode() == ModeFRAME {
		ends = f.End
	}
	if o.left -= int64(n); o.left == 0 {
		o.buf = append(o.buf, ends...)
	}
	message := o.buf[o.text:]
	at, length := bytes.Index(message, ends), len(ends)
	if at < 0 || o.left == 0 && at == len(message)-len(ends) {
		at, length = f.beginsIn(message)
	}
	if at < 0 {
		return nil
	}
	return &sourceError{permanent: true, err: &FrameError{
		Reason: ReasonStrayControl, Offset: o.gone + int64(at), Length: int64(length), Detail: "the message holds what ends or begins a frame",
	}}
}

// beginsIn returns where in text, and in how many bytes, something is that would
// be taken for the beginning of another frame, -1 for nowhere: see AppendFrame.
func (f *Framing) beginsIn(text []byte) (at, length int) {
	if f.mode() != ModeFRAME {
		return bytes.IndexByte(text, vt), 1
	}
	for i := 0; len(f.Start) > 0; i++ {
		n := bytes.Index(text[i:], f.Start)
		if n < 0 {
			break
		}
		if i += n; beginsMessage(text[i+len(f.Start):]) == yes {
			return i, len(f.Start)
		}
	}
	return -1, 0
}

// write writes the frame, and returns how much of it has gone.
func (o *outgoing) write(f *flight) (written int, _ error) {
	c := o.conn
	c.writing.Lock()
	defer c.writing.Unlock()
	for {
		ready := len(o.buf)
		if o.left > 0 {
			ready -= held
		}
		n, err := c.putLocked(o.buf[:ready])
		written += n
		switch {
		case err != nil:
			return written, err
		case o.left == 0:
			return written, nil
		case len(f.reply) > 0:
			return written, &sourceError{err: errAnsweredEarly}
		}
		o.gone += int64(ready - o.text)
		o.buf, o.text = o.buf[:copy(o.buf, o.buf[ready:])], 0
		if err := o.fill(); err != nil {
			return written, err
		}
	}
}
