package mllp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const defaultMaxStream = 1 << 30

// A StreamHandler takes messages while they arrive, so that one of hundreds of
// megabytes, with a document in its OBX segment, needs no more memory than a
// short one. What it returns means the same as with a Handler, and nothing is
// answered before the message has arrived whole.
//
// The part of a message that was read may turn out not to be one: if it is cut
// off, or too long, or another one begins in it, Body returns a *FrameError in
// place of io.EOF. Whatever the handler returns then, the answer is not AA, and
// what it has stored must not be taken for a message. A handler that returns
// before the end of Body has accepted what follows unseen; the Server reads it,
// and answers AA only if it is as it should be.
//
// Streams need frames: MLLP release 1 or FRAME. While the handler does not read,
// the sender waits, and FrameTimeout does not run.
type StreamHandler interface {
	ServeMLLPStream(ctx context.Context, r *StreamRequest) (reply []byte, err error)
}

// StreamHandlerFunc is a function as a StreamHandler.
type StreamHandlerFunc func(ctx context.Context, r *StreamRequest) (reply []byte, err error)

// ServeMLLPStream calls f.
func (f StreamHandlerFunc) ServeMLLPStream(ctx context.Context, r *StreamRequest) ([]byte, error) {
	return f(ctx, r)
}

// A StreamRequest is a message that is arriving. Message is its first segment,
// with the CR or LF that ends it, of at most 32 KiB; Header is what that says.
// The flags are those that it gives rise to; others are added before Body
// returns io.EOF.
type StreamRequest struct {
	Request

	// Body is the whole text of the frame, its first segment too, to the byte. It
	// must not be used after the handler has returned: its Read then fails.
	Body io.Reader
}

// validateStream returns the first contradiction between the handlers.
func (s *Server) validateStream() error {
	switch {
	case s.Handler == nil && s.Stream == nil:
		return errors.New("mllp: Server.Handler is not set")
	case s.Stream == nil && s.MaxStreamBytes != 0:
		return errors.New("mllp: Server.MaxStreamBytes is set, but Stream is not")
	case s.Stream == nil:
		return nil
	case s.Handler != nil:
		return errors.New("mllp: Server.Handler and Stream are both set")
	case s.MaxStreamBytes < 0:
		return fmt.Errorf("mllp: Server.MaxStreamBytes is negative (%d)", s.MaxStreamBytes)
	case s.HandlerTimeout > 0:
		return errors.New("mllp: Server.HandlerTimeout is set with Stream, whose handler must wait for the sender: use FrameTimeout")
	case s.Framing.mode() != ModeMLLP && s.Framing.mode() != ModeFRAME:
		return fmt.Errorf("mllp: Server.Stream is set, but Framing.Mode is %s: use MLLP or FRAME", s.Framing.mode())
	}
	return nil
}

var errBodyClosed = errors.New("mllp: the Body was read after its handler had returned")

// A body is what a stream handler reads, and the state of the message below.
type body struct {
	pieces  pieces // owned by the Reader
	conn    *conn
	request *StreamRequest // that the handler has; nil: none
	head    []byte         // the first segment
	length  int64          // that was read

	mu sync.Mutex // held while Read runs: the handler may have left it to another goroutine
	// guarded by mu
	over    bool      // the handler has returned
	err     error     // why the text has ended
	refusal refusal   // of a whole message, which the handler has been told of
	asked   time.Time // when the last Read ended
}

// Read is the handler's.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, errBodyClosed
	}
	return b.readLocked(p)
}

func (b *body) readLocked(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	c := b.conn
	now := time.Now()
	if c.frameAt == c.rd.frame.offset {
		c.frameBegan = c.frameBegan.Add(now.Sub(b.asked)) // which the sender has no part in
	}
	n, err := c.rd.piece(p)
	b.asked = time.Now()
	b.length += int64(n)
	if err == nil {
		return n, nil
	}
	b.err = err
	if errors.Is(err, io.EOF) {
		// Only now all its flaws are known.
		if b.refusal = c.own.weigh(c.req.Flags&NotHL7 == 0); b.refusal.policy != "" {
			b.err = &FrameError{Reason: b.refusal.reason, Offset: c.rd.frame.offset, Length: b.length}
		}
		if b.request != nil {
			b.request.Flags = c.req.Flags
		}
	}
	return n, b.err
}

// rest reads what the handler left, and returns why the text has ended.
func (b *body) rest() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	b.request = nil
	buf := getBuffer(16 << 10)
	defer putBuffer(buf)
	for b.err == nil {
		_, _ = b.readLocked(buf.bytes) // its error is b.err
	}
	return b.err
}

// streamed deals with a message whose first segment is head.
func (c *conn) streamed(ctx context.Context, head []byte) error {
	b := c.body
	if cap(b.head) > idleBuffer {
		b.head = nil
	}
	b.head = append(b.head[:0], head...)
	b.conn, b.length, b.over, b.err, b.refusal, b.asked = c, 0, false, nil, refusal{}, time.Now()

	x := &c.own
	no := x.check(ctx, b.head)
	if no.policy == PolicyClose {
		return x.refuse(ctx, no)
	}
	var (
		began  time.Time
		reply  []byte
		failed error
	)
	if no.policy == "" {
		began = time.Now()
		r := &StreamRequest{Request: c.req, Body: b}
		b.request = r
		c.hand.take(x.r)
		defer c.hand.drop(x.r)
		reply, failed = c.stream(ctx, r)
	}
	if err := b.rest(); !errors.Is(err, io.EOF) && b.refusal.policy == "" {
		return c.badFrame(ctx, b.head, err)
	}
	if b.refusal.policy != "" {
		return x.refuse(ctx, b.refusal)
	}
	x.tolerateFlaws(ctx)
	o := x.judge(ctx, reply, failed, began)
	return x.counted(x.conclude(ctx, &o))
}

// streamedBytes is how much was read of the stream in hand.
func (c *conn) streamedBytes() int64 {
	if c.body == nil {
		return 0
	}
	return c.body.length
}

// stream calls the handler.
func (c *conn) stream(ctx context.Context, r *StreamRequest) (reply []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(ctx, v)
			reply, err = nil, errPanicked
		}
	}()
	return c.cfg.stream.ServeMLLPStream(ctx, r)
}
