package mllp

import (
	"context"
	"errors"
	"slices"
	"time"
)

var (
	// errNoCommit is what the source answers when no commit came in time.
	errNoCommit = errors.New("mllp: no commit acknowledgement came in time")
	// errCommitNAK is the end of a frame that the other side did not take.
	errCommitNAK = errors.New("mllp: the peer did not commit (15)")
)

// The commit acknowledgements as frames (ANSI/HL7 V3 TRMLLP R2).
var (
	commitACKBlock = []byte{vt, commitACK, fs, cr}
	commitNAKBlock = []byte{vt, commitNAK, fs, cr}
)

// release2 is what a connection of a Server has to know more with MLLP release 2.
//
// Each message is answered 06, and then by its HL7 acknowledgement in a frame of
// its own, which the client answers 06 in turn; or it is answered 15, and the
// client sends it again. 06 goes out when the handler has taken the message, or
// has rejected it for good (AR, CR), which sending again would not change.
// Everything else, AE too, is 15: then nothing more is said, since the client
// waits for nothing more.
type release2 struct {
	client uint64 // who it is: see recent.client

	// of the message in hand
	committed bool   // the handler has decided on it
	answered  bool   // 06 or 15 has been written
	answer    []byte // that was written, if it begins with 06

	// of the acknowledgement that the client has not committed yet
	commitBy time.Time // until when it may; zero: there is none
	sent     []byte    // the frame
	resent   int       // how often that was sent again
	of       digest    // of the message
	id       []byte    // its control ID, copied
	code     AckCode
}

// judge says what becomes of a message that the handler has decided on.
func (r *release2) judge(o *outcome) {
	r.committed = !o.silent && (o.accepted() || o.code == AR || o.code == CR)
}

// block deals with what the Reader returned.
func (c *conn) block(ctx context.Context, text []byte, err error) error {
	r := c.r2
	r.committed = false
	switch {
	case errors.Is(err, errNoCommit):
		return c.again(ctx, errNoCommit)
	case err != nil:
		if fe, ok := errors.AsType[*FrameError](err); ok && fe.Reason == ReasonTruncated && fe.Resumable() {
			// A sender that begins anew does not wait for an answer to the first try.
			c.tellBadFrame(ctx, fe)
			return nil
		}
		if fe, ok := errors.AsType[*FrameError](err); !ok || !fe.Resumable() {
			c.uncommitted(ctx, err, "")
		}
		return c.badFrame(ctx, text, err)
	case isCommit(text):
		return c.commitCame(ctx, text[0])
	}
	c.likely = max(len(text), c.likely-c.likely/8)
	d := c.cfg.recent.digest(r.client, text)
	if !r.commitBy.IsZero() && r.of != d {
		c.uncommitted(ctx, nil, "the peer goes on without a commit: is it set to MLLP release 1?")
	}
	r.commitBy = time.Time{}
	r.of = d
	err = c.claim(ctx, text)
	if err == nil && r.commitBy.IsZero() && !c.cfg.keepOpen {
		return c.endOfOne()
	}
	return err
}

// claim hands a message to the handler, or, if that has taken it already, gives
// the answer of that time again.
func (c *conn) claim(ctx context.Context, text []byte) error {
	r := c.r2
	known, first := c.cfg.recent.claim(ctx, r.of, text)
	if !first {
		if known == nil {
			return &closeError{reason: ReasonShutdown}
		}
		_ = c.own.check(ctx, text) // for the control ID that goes with an answer that does not arrive
		c.cfg.tell(ctx, c.own.event(EventRepeated))
		return c.deliver(ctx, known.code, c.own.commitOut(known.answer, known.code, time.Now()))
	}
	r.committed, r.answered, r.answer, r.code = false, false, nil, ""
	defer func() { c.cfg.recent.settle(known, text, r.answer, r.code) }() // also after a panic
	err := c.message(ctx, text)
	if err == nil && !r.answered {
		err = c.deliver(ctx, "", c.own.commit(nil, "", time.Now()))
	}
	return err
}

// commit answers the message in hand: 06 and frame, if there is one, or 15.
func (x *exchange) commit(frame []byte, code AckCode, now time.Time) error {
	r := x.r2
	r.answered = true
	if !r.committed || code == AE || code == CE {
		r.committed = false
		return x.writeOut(commitNAKBlock, code, now)
	}
	r.answer, r.code = slices.Concat(commitACKBlock, frame), code
	return x.commitOut(r.answer, code, now)
}

// said returns the code to tell of where code was to be sent: CE is what 15 means.
func (c *conn) said(code AckCode) AckCode {
	if c.r2 != nil && !c.r2.committed && code != "" {
		return CE
	}
	return code
}

// commitOut writes an answer that begins with 06.
func (x *exchange) commitOut(answer []byte, code AckCode, now time.Time) error {
	if frame := answer[len(commitACKBlock):]; len(frame) > 0 {
		x.r2.sent, x.r2.resent, x.r2.code = frame, 0, code
		x.r2.id = append(x.r2.id[:0], x.r.Header.ControlID...)
		x.r2.commitBy = now.Add(x.cfg.framing.commitTimeout())
	}
	return x.writeOut(answer, code, now)
}

// deliver tells of an answer that could not be written, because of err, and
// returns err.
func (c *conn) deliver(ctx context.Context, code AckCode, err error) error {
	if err != nil {
		c.own.lose(ctx, code, errors.Unwrap(err))
	}
	return err
}

// commitCame deals with a commit acknowledgement.
func (c *conn) commitCame(ctx context.Context, code byte) error {
	r := c.r2
	switch {
	case r.commitBy.IsZero():
		c.tellBadFrame(ctx, &FrameError{
			Reason: ReasonCommit, Offset: c.rd.frame.offset, Length: 1, Detail: "a commit acknowledgement for which nothing was sent",
		})
		return nil
	case code == commitNAK:
		return c.again(ctx, errCommitNAK)
	}
	r.commitBy = time.Time{}
	if !c.cfg.keepOpen {
		return c.endOfOne()
	}
	return nil
}

// again sends the last acknowledgement again, if it has not been sent too often.
func (c *conn) again(ctx context.Context, cause error) error {
	r := c.r2
	if r.resent >= c.cfg.framing.retries() {
		c.uncommitted(ctx, cause, "")
		return &closeError{reason: ReasonCommit, err: cause}
	}
	r.resent++
	// What the request says has gone with the buffer that it was part of.
	c.req.Header, c.req.Message = Header{ControlID: r.id}, nil
	now := time.Now()
	r.commitBy = now.Add(c.cfg.framing.commitTimeout())
	return c.deliver(ctx, r.code, c.own.writeOut(r.sent, r.code, now))
}

// uncommitted tells that the client did not commit an acknowledgement.
func (c *conn) uncommitted(ctx context.Context, cause error, detail string) {
	r := c.r2
	if r.commitBy.IsZero() {
		return
	}
	r.commitBy = time.Time{}
	e := Event{
		Kind: EventAckUndeliverable, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS,
		Code: r.code, ControlID: string(r.id), Detail: detail, Err: cause,
	}
	if detail != "" {
		e.Reason = ReasonMLLPR1
	}
	c.cfg.tell(ctx, e)
}

// tellBadFrame tells of a frame that is passed over.
func (c *conn) tellBadFrame(ctx context.Context, fe *FrameError) {
	c.cfg.tell(ctx, Event{
		Kind: EventBadFrame, Reason: fe.Reason, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS,
		Bytes: fe.Length, Offset: fe.Offset, Detail: fe.Detail, Err: fe.Err,
	})
}
