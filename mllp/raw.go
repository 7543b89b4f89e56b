package mllp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
)

// errGap is what a source answers when nothing came for so long that the message
// is at its end (DelimitIdle).
var errGap = errors.New("mllp: silence")

// errUnverifiedEnd is what a source answers in place of io.EOF when the
// connection under TLS ended, but the peer did not say so.
var errUnverifiedEnd = fmt.Errorf("mllp: the connection ended without a close_notify: %w", io.EOF)

// scanRaw is scan for messages that have no frame.
func (r *Reader) scanRaw() ([]byte, error) {
	data := r.buf[r.r:r.w]
	if len(data) == 0 {
		return nil, nil
	}
	if !r.in {
		if ok, err := r.enter(nil); !ok {
			return nil, err
		}
	}
	if r.frame.offset == 0 && r.shape != shapeLength && bytes.HasPrefix(data, []byte(tlsHandshake)) {
		return nil, r.fail(&FrameError{Reason: ReasonWrongProtocol, Detail: otherProtocol(data[:2])})
	}
	end := len(data)
	switch r.shape {
	case shapeLength:
		if int64(end) >= r.length {
			end = int(r.length)
			if r.findMSH {
				r.secondMSH(data[:end])
			}
			return r.whole(end, end)
		}
	case shapeNewline:
		if i := bytes.IndexByte(data[r.fs:], '\n'); i >= 0 {
			end = r.fs + i
			if r.findMSH {
				r.secondMSH(data[:end])
			}
			return r.whole(end, end+1)
		}
		r.fs = end
	case shapeMLLP, shapeMLLPv2, shapeFrame, shapeEOF, shapeIdle:
	}
	if r.findMSH {
		r.secondMSH(data)
	}
	return r.more(end)
}

// endRaw says whether what is at hand may end where its source stopped, and ends
// it then.
func (r *Reader) endRaw() (text []byte, ended bool, err error) {
	n := r.w - r.r
	atEOF := errors.Is(r.err, io.EOF)
	switch r.shape {
	case shapeFrame:
		// A line break after the last frame, where no start bytes tell it apart.
		if atEOF && len(r.start) == 0 && isBlank(r.buf[r.r:r.w]) {
			r.in = false
			return nil, true, io.EOF
		}
		return nil, false, nil
	case shapeEOF, shapeIdle:
	case shapeNewline:
		if atEOF && isBlank(r.buf[r.r:r.w]) {
			r.in = false
			return nil, true, io.EOF
		}
		return nil, false, nil
	case shapeMLLP, shapeMLLPv2, shapeLength:
		return nil, false, nil
	}
	switch {
	case errors.Is(r.err, errGap):
		r.err = nil
	case errors.Is(r.err, errUnverifiedEnd):
		if !r.trusting {
			text = r.buf[r.r:r.w]
			return text, true, r.fail(&FrameError{
				Reason: ReasonUnverifiedEnd, Offset: r.frame.offset, Length: int64(n), Err: io.ErrUnexpectedEOF,
				Detail: "the peer ended the connection without a close_notify",
			})
		}
		r.frame.unsure = true
	case !atEOF:
		return nil, false, nil
	}
	text, err = r.whole(n, n)
	return text, true, err
}

// tlsHandshake is how a client with TLS begins, who has come to the wrong port.
var tlsHandshake = protocols[0].prefix

// pausing is a reader whose timeouts are the silence that ends a message.
type pausing struct{ io.Reader }

func (p pausing) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return n, errGap
	}
	return n, err
}

// A farewell is a connection under TLS that remembers how it ended. crypto/tls
// answers io.EOF to a close_notify and also, between two records, to the end of
// the connection alone, which anybody on the way can bring about; but only the
// latter is asked of the connection itself.
type farewell struct {
	net.Conn

	received bool // at least one byte
	cut      bool // it has ended
}

func (c *farewell) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received = c.received || n > 0
	c.cut = c.cut || n == 0 && errors.Is(err, io.EOF)
	return n, err
}
