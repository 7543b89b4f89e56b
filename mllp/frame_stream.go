package mllp

import (
	"bytes"
	"io"
)

const (
	// streamHead is the longest first segment of a message that is read in pieces.
	streamHead = 32 << 10
	// streamBuffer is the buffer for such messages, however long they are. It is
	// small enough not to count against the budget of all connections.
	streamBuffer = 40 << 10
	// lookback is how much of what was handed out stays in the buffer: the search
	// for a second MSH segment looks back as far as "MSH|^~" and a line end reach.
	lookback = 16
)

// pieces is the state of a Reader that hands out the text of a frame in pieces,
// and keeps only those in its buffer that it has not handed out.
type pieces struct {
	first []byte // of the text, for the search for a second one like it
	gone  int64  // bytes of the text that have left the buffer
	sure  int    // buf[r:r+sure] belongs to the frame
	given int    // buf[r:r+given] has been handed out, or is not text
	err   error  // after the last piece: io.EOF if the frame is whole; nil while it goes on
}

// begin reads the next frame up to the end of its first segment, and returns
// that with the character that ends it. All of the text can then be read with
// piece. An error is one of next.
func (r *Reader) begin(p *pieces) ([]byte, error) {
	r.consume()
	*p = pieces{first: p.first[:0], given: r.pre}
	r.pieces = p
	for {
		text, err := r.scan()
		switch {
		case err != nil:
			return text, err
		case text != nil:
			p.sure, p.err = r.pre+len(text), io.EOF
		case r.in && p.sure > r.pre:
			text = r.buf[r.r+r.pre : r.r+p.sure]
		}
		if head, err := r.firstSegment(text, p.err != nil); head != nil || err != nil {
			return head, err
		}
		if r.err != nil {
			if text, err = r.end(); err != nil {
				return text, err
			}
			p.sure, p.err = r.pre+len(text), io.EOF
			return r.firstSegment(text, true)
		}
		r.fill()
	}
}

// firstSegment returns the first segment of a text that may go on unless it is
// whole; nil and nil if its end has not come.
func (r *Reader) firstSegment(text []byte, whole bool) ([]byte, error) {
	i := bytes.IndexAny(text[:min(len(text), streamHead)], "\r\n")
	switch {
	case i >= 0:
		return text[:i+1], nil
	case len(text) >= streamHead:
		// To cut it would be to invent a control ID.
		return nil, r.fail(&FrameError{
			Reason: ReasonNotHL7, Offset: r.frame.offset, Length: int64(len(text)), Detail: "the first segment has no end",
		})
	case whole:
		return text, nil
	}
	return nil, nil
}

// piece reads on in the text of the frame that begin has begun. It returns
// io.EOF only if the frame is whole.
func (r *Reader) piece(b []byte) (int, error) {
	p := r.pieces
	for {
		if n := copy(b, r.buf[r.r+p.given:r.r+p.sure]); n > 0 || len(b) == 0 {
			p.given += n
			return n, nil
		}
		if p.err != nil {
			return 0, p.err
		}
		r.drop()
		ended := r.err != nil
		var text []byte
		var err error
		if ended {
			text, err = r.end()
		} else {
			if data := r.buf[r.r:r.w]; r.w == len(r.buf) && len(r.buf) < streamBuffer-lookahead {
				if r.err = r.grow(data, streamBuffer); r.err != nil {
					continue
				}
				r.r, r.w = 0, len(data)
			}
			r.fill()
			text, err = r.scan()
		}
		switch {
		case err != nil:
			p.err = err
		case text != nil:
			p.err = io.EOF
		}
		if text != nil && r.w > 0 { // else the stream has ended with the frame, and its buffer is empty
			p.sure = r.pre + len(text)
		} else if p.err != nil {
			p.given, p.sure = 0, 0
		}
	}
}

// drop forgets what was handed out.
func (r *Reader) drop() {
	p := r.pieces
	n := p.given - r.pre - lookback
	if n <= 0 {
		return
	}
	if p.gone == 0 {
		p.first = append(p.first, r.buf[r.r+r.pre:min(r.w, r.r+r.pre+lookback)]...)
	}
	r.r += n
	r.off += int64(n)
	p.gone += int64(n)
	p.given -= n
	p.sure -= n
	// What was handed out has been searched.
	r.fs, r.vt, r.msh = max(r.fs-n, r.pre), max(r.vt-n, r.pre), max(r.msh-n, r.pre)
}
