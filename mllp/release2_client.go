package mllp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// backlog is how many frames of a peer may wait until Send looks at them: with
// MLLP release 2 a commit and an acknowledgement, and both again.
const backlog = 4

// A committing is a message under way with MLLP release 2. It has the turn to
// write from its beginning to its end.
type committing struct {
	c *Conn
	f *flight
	h *Header

	resent int // frames of this message whose commit did not come in time
}

// deliverBlock hands a frame to the message under way.
func (c *Conn) deliverBlock(text []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		return ErrUnsolicited
	}
	select {
	case c.waiting[0].blocks <- bytes.Clone(text):
		return nil
	default:
		return &FrameError{Reason: ReasonCommit, Detail: "more frames than a message gives rise to"}
	}
}

// sendRelease2 sends frame until the peer commits it, waits for the acknowledgement
// and commits that.
func (c *Conn) sendRelease2(ctx context.Context, f *flight, h *Header, frame []byte) (*Reply, *SendError) {
	x := committing{c: c, f: f, h: h}
	for try := 0; ; try++ {
		n, err := c.write(ctx, frame)
		if err != nil && try == 0 {
			return c.crash(f, n, err)
		}
		var commit byte
		if err == nil {
			commit, err = x.awaitCommit(ctx)
		}
		switch last := try >= c.framing.retries(); {
		case err == nil && commit == commitACK:
			return x.awaitReply(ctx)
		case err == nil && !last:
		case err == nil && x.resent == 0:
			// Each try was refused, so the peer does not have the message.
			return x.land(nil, &SendError{Outcome: Nacked, AckCode: CE, Err: errCommitNAK})
		case errors.Is(err, errNoCommit) && !last:
			x.resent++
		default:
			return x.giveUp(err)
		}
	}
}

// next returns the next frame of the peer, or errLate after d.
func (x *committing) next(ctx context.Context, timeout <-chan time.Time) ([]byte, error) {
	select {
	case block := <-x.f.blocks:
		return block, nil
	case <-timeout:
		return nil, os.ErrDeadlineExceeded
	case <-ctx.Done():
		return nil, contextError(ctx)
	case <-x.c.closed:
	}
	select { // what came before the end counts
	case block := <-x.f.blocks:
		return block, nil
	default:
		return nil, x.c.Err()
	}
}

// awaitCommit waits for 06 or 15.
func (x *committing) awaitCommit(ctx context.Context) (byte, error) {
	timer := time.NewTimer(x.c.framing.commitTimeout())
	defer timer.Stop()
	for {
		block, err := x.next(ctx, timer.C)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
			return 0, fmt.Errorf("%w: %w", errNoCommit, err)
		case err != nil:
			return 0, err
		case isCommit(block):
			return block[0], nil
		}
		ack, err := findMSA(block)
		switch {
		case err != nil:
			return 0, &FrameError{Reason: ReasonCommit, Length: int64(len(block)), Detail: "the peer answered with something else than 06 or 15"}
		case bytes.Equal(ack.controlID, x.h.ControlID):
			return 0, &FrameError{
				Reason: ReasonMLLPR1, Length: int64(len(block)),
				Detail: "the peer answered with an acknowledgement and no commit: it is set to MLLP release 1",
			}
		}
		// That of an earlier message, sent again because our commit got lost.
		if err := x.stray(ctx); err != nil {
			return 0, err
		}
	}
}

// awaitReply waits for the acknowledgement of a message that is committed.
func (x *committing) awaitReply(ctx context.Context) (*Reply, *SendError) {
	c := x.c
	if x.wantsNothing() {
		reply := &Reply{Ack: Ack{Code: CA, ControlID: string(x.h.ControlID)}, Duration: time.Since(x.f.began)}
		return x.land(reply, nil)
	}
	var timeout <-chan time.Time
	if c.timeout > 0 {
		timer := time.NewTimer(c.timeout)
		defer timer.Stop()
		timeout = timer.C
	}
	for spare := x.resent; ; {
		block, err := x.next(ctx, timeout)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
			return x.giveUp(fmt.Errorf("mllp: committed, but no acknowledgement within %v: %w", c.timeout, err))
		case err != nil:
			return x.giveUp(err)
		case isCommit(block) && spare > 0: // of a try that was given up too early
			spare--
			continue
		}
		ack, err := findMSA(block)
		switch {
		case err != nil:
			return x.giveUp(fmt.Errorf("mllp: unusable reply: %w", err))
		case c.match == MatchAny || bytes.Equal(ack.controlID, x.h.ControlID):
			reply := &Reply{Ack: ack.export(), Raw: block, Duration: time.Since(x.f.began), Strays: c.passedOver(x.f)}
			// If the commit does not get through the Conn has ended. The peer will
			// send its acknowledgement again, but this one counts.
			_, _ = c.write(ctx, commitACKBlock)
			if code := reply.Ack.Code; !code.Accepted() {
				return x.land(reply, &SendError{Outcome: Nacked, AckCode: code})
			}
			return x.land(reply, nil)
		}
		if err := x.stray(ctx); err != nil {
			return x.giveUp(err)
		}
	}
}

// wantsNothing tells whether the message says that no acknowledgement is wanted
// beside the commit (HL7 table 0155).
func (x *committing) wantsNothing() bool {
	return string(x.h.ApplicationAck) == "NE" && (len(x.h.AcceptAck) == 0 || string(x.h.AcceptAck) == "NE")
}

// stray commits an acknowledgement that is not the message's, so that the peer
// does not send it again.
func (x *committing) stray(ctx context.Context) error {
	c := x.c
	c.mu.Lock()
	c.strays++
	c.mu.Unlock()
	if c.match == MatchStrict {
		return ErrMismatch
	}
	_, err := c.write(ctx, commitACKBlock)
	return err
}

// land ends the exchange with a result. If the peer may still say something of
// it, the Conn ends: a commit says nothing of which message it means.
func (x *committing) land(reply *Reply, err *SendError) (*Reply, *SendError) {
	left := x.leave()
	switch {
	case x.resent > 0 || left:
		_ = x.c.fail(errGivenUp)
	case !x.c.framing.keepOpen():
		_ = x.c.fail(errNotKeptOpen)
	}
	return reply, err
}

// giveUp ends the exchange and the Conn.
func (x *committing) giveUp(cause error) (*Reply, *SendError) {
	x.leave()
	_ = x.c.fail(errGivenUp)
	fe, isFrame := errors.AsType[*FrameError](cause)
	return nil, &SendError{Outcome: Unknown, Err: cause, permanent: isFrame && fe.Reason == ReasonMLLPR1}
}

// leave takes the message off those under way, and reports whether frames are left.
func (x *committing) leave() bool {
	c := x.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.waiting, x.f); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	<-c.slots
	return len(x.f.blocks) > 0
}

// passedOver returns how many acknowledgements of other messages came since f began.
func (c *Conn) passedOver(f *flight) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.strays - f.strays
}
