package mllp

import (
	"errors"
	"io"
	"net"
	"time"
)

// errNotKeptOpen is the reason of the end of a Conn that carries one message.
var errNotKeptOpen = errors.New("mllp: the connection carries one message only")

// A halfCloser is a connection of which one direction can be ended.
type halfCloser interface{ CloseWrite() error }

// checkRaw says what is wrong with nc for f.
func (f *Framing) checkRaw(nc net.Conn) error {
	if _, ok := nc.(halfCloser); !ok && f.Delimiter == DelimitEOF {
		return errors.New("mllp: with Delimiter eof the connection must have a method CloseWrite, to end a message")
	}
	return nil
}

// endStream ends the message that has been written, where that takes more than
// its bytes.
func (c *Conn) endStream() error {
	if c.framing.Delimiter != DelimitEOF {
		return nil
	}
	return c.nc.(halfCloser).CloseWrite() // checkRaw has looked
}

// armGap sets the deadline of the next read where silence ends a reply.
func (c *Conn) armGap() error {
	if c.gap == 0 {
		return nil
	}
	var until time.Time
	if c.frames.in {
		until = time.Now().Add(c.gap)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeErr != nil {
		return nil // Send has set one, for the peer's last word
	}
	return c.nc.SetReadDeadline(until)
}

// rawEnd says what an error of reading means where replies have no frame.
func (c *Conn) rawEnd(err error) error {
	switch {
	case c.gap > 0 && c.frames.in && isTimeout(err):
		return errGap
	case c.wire != nil && c.wire.cut && errors.Is(err, io.EOF):
		return errUnverifiedEnd
	}
	return err
}
