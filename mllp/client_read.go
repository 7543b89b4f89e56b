package mllp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

var (
	errPeerClosed = fmt.Errorf("mllp: the peer closed the connection: %w", io.EOF)
	errUnframed   = errors.New("mllp: the peer replied outside of a frame")
)

// readLoop reads replies until the Conn ends.
func (c *Conn) readLoop() {
	defer close(c.readerDone)
	if c.observe != nil {
		defer func() { c.observe(connClosed(c, c.opened)) }()
	}
	if c.match == MatchNone {
		_ = c.fail(readError(c.drain()))
		return
	}
	for {
		reply, err := c.frames.Next()
		if err == nil {
			err = c.deliver(reply)
		}
		if err != nil {
			_ = c.fail(readError(err))
			return
		}
	}
}

// readError says why reading ended.
func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return errPeerClosed
	}
	if fe, ok := errors.AsType[*FrameError](err); ok && fe.Reason == ReasonReadFailed {
		err = fe.Err // between frames it is the connection that failed, no frame
	}
	return peerError(err)
}

// deliver hands a reply to the message that it acknowledges.
func (c *Conn) deliver(raw []byte) error {
	if c.framing.Mode == ModeMLLPv2 {
		return c.deliverBlock(raw)
	}
	ack, err := findMSA(raw)
	if err != nil {
		return fmt.Errorf("mllp: unusable reply: %w", err)
	}
	if err := c.assign(raw, ack); err != nil || !c.enhanced {
		return err
	}
	return c.confirm(raw, ack.code)
}

// assign is deliver without what may be answered to the reply.
func (c *Conn) assign(raw []byte, ack acknowledgement) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := 0
	if c.match != MatchAny {
		i = slices.IndexFunc(c.waiting, func(f *flight) bool { return bytes.Equal(f.id, ack.controlID) })
	}
	if i < 0 || len(c.waiting) == 0 {
		switch {
		case c.expected(raw, ack):
			return nil
		case len(c.waiting) == 0:
			return ErrUnsolicited
		}
		c.strays++
		if c.match == MatchStrict {
			return ErrMismatch
		}
		return nil
	}
	f := c.waiting[i]
	reply := &Reply{Ack: ack.export(), Raw: bytes.Clone(raw), Duration: time.Since(f.began), Strays: c.strays - f.strays}
	if f.commits != nil && !c.lastOf(f, reply) {
		return nil
	}
	c.waiting = slices.Delete(c.waiting, i, i+1)
	f.reply <- reply
	return nil
}

// incoming is the connection as its frame Reader sees it: it fails at bytes that
// are no part of a framed reply, which the Reader would skip in search of one.
type incoming struct{ c *Conn }

func (in incoming) Read(p []byte) (int, error) {
	if err := in.c.armGap(); err != nil {
		return 0, err
	}
	n, err := in.c.nc.Read(p)
	if err != nil && n == 0 {
		return 0, in.c.rawEnd(err)
	}
	got := p[:n]
	if isBlank(got) { // some peers end a frame with CR LF, or keep a line alive with blanks
		return n, err
	}
	in.c.mu.Lock()
	waiting := len(in.c.waiting) > 0 || in.c.expecting()
	in.c.mu.Unlock()
	switch {
	case !waiting:
		return 0, ErrUnsolicited
	case !in.c.frames.in && in.c.frames.pre > 0 && beginsMessage(bytes.TrimLeft(got, " \t\r\n\x00")) == yes:
		return 0, errUnframed
	}
	return n, err
}
