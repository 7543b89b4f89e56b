package mllp

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
)

// The three bytes of MLLP release 1 (HL7 Version 3 Standard: Transport
// Specification - MLLP, release 1): SB message EB CR.
const (
	vt = 0x0B // start block
	fs = 0x1C // end block
	cr = 0x0D // carriage return, after the end block and after each segment
)

const (
	defaultMaxMessage = 16 << 20
	defaultMaxJunk    = 4 << 10
	// idleBuffer is the size of a buffer that waits for a frame: most messages fit,
	// and it is what thousands of idle connections cost most of.
	idleBuffer = 1536
	// lookahead is how many bytes beside the longest message the buffer must hold
	// to tell its end from a stray FS: VT, FS, VT, a byte order mark, "MSH|". Bytes
	// of the user's that begin or end a frame come on top of that.
	lookahead = 16
	// scanBlock is how much is searched for one byte before it is searched for the
	// next, so that it stays in the processor's first cache.
	scanBlock = 16 << 10
)

// errGoIdle is what a source answers in place of waiting longer with a large
// buffer; the reader gives the buffer back and asks again.
var errGoIdle = errors.New("mllp: idle")

// errFSOnly is what a source answers when it has waited long enough for the CR
// after an FS; the reader takes the frame as whole.
var errFSOnly = errors.New("mllp: no CR after FS")

// memory is where a Reader gets its buffers from.
type memory interface {
	// resize returns a buffer of at least n bytes that begins with data, and takes
	// back the one before, of which data is a part. After an error that stays.
	resize(data []byte, n int) ([]byte, error)
}

// A Reader reads the frames of a stream. It tolerates what real senders do: up
// to 4 KiB of other bytes before a frame, VT or FS inside of the text, a frame
// without its last CR when the next one or the end of the stream follows.
// It is not safe for concurrent use.
type Reader struct {
	// static after construction
	src       io.Reader
	mem       memory // nil: the heap
	limit     int64
	junkLimit int64
	findMSH   bool // set frame.second
	shape     shape
	pre       int // length of what stands before the text in buf: VT, or start
	// with shapeFrame
	start, stop []byte
	length      int64 // with shapeLength
	trusting    bool  // an unverified end of the stream ends a message

	// buf[r:w] is received and not consumed. In a frame, buf[r+pre] is where its
	// text begins, or, if it is read in pieces, goes on.
	buf  []byte
	r, w int
	off  int64 // offset in the stream of buf[r]

	in     bool    // a frame has begun
	fs, vt int     // buf[r:r+fs] holds no FS (or stop) that ends the frame, buf[r:r+vt] no VT (or start) that begins one
	msh    int     // buf[r:r+msh] has been searched for a second MSH
	last   int     // bytes to consume at the next call
	pieces *pieces // nil: the frame is returned in one

	head  [16]byte // first bytes of the stream while no frame has begun
	heads int      // how many; -1: a frame has begun
	frame frame
	err   error // that ended the stream
}

// frame is what is known of the frame at hand beside its text.
type frame struct {
	offset    int64 // of its VT
	junk      int64 // bytes skipped before it
	junkAt    int64 // where those begin
	blank     bool  // they are white space and NUL alone
	missingCR bool
	unsure    bool // the stream ended it, over TLS and without close_notify
	stray     bool // VT or FS in the text
	second    bool // another segment begins as the first does: MSH and the same separators
}

// NewReader returns a Reader of the frames of r with texts of at most limit
// bytes; 0 means 16 MiB, and with a negative limit Next fails.
func NewReader(r io.Reader, limit int64) *Reader {
	if limit == 0 {
		limit = defaultMaxMessage
	}
	return &Reader{src: r, limit: min(limit, greatestLimit), junkLimit: defaultMaxJunk, pre: 1}
}

// Next returns the text of the next frame, which is valid until the next call.
// At the end of the stream, between two frames, it returns io.EOF. Every other
// error is a *FrameError; unless that is Resumable, each further call returns it
// again.
func (r *Reader) Next() ([]byte, error) {
	text, err := r.next()
	if err != nil {
		return nil, err
	}
	return text, nil
}

// next is Next, but with an error it returns what there is of the text.
func (r *Reader) next() ([]byte, error) {
	if r.limit < 0 {
		return nil, &FrameError{Reason: ReasonInvalidLimit, Detail: "negative"}
	}
	r.consume()
	for {
		text, err := r.scan()
		if text != nil || err != nil {
			return text, err
		}
		if r.err != nil {
			return r.end()
		}
		r.fill()
	}
}

// consume forgets the last frame.
func (r *Reader) consume() {
	r.r += r.last
	r.off += int64(r.last)
	r.last, r.in, r.pieces = 0, false, nil
	r.frame = frame{blank: true, junkAt: r.off}
}

// scan looks at what has been received since it was last called. It returns nil
// and nil if it needs more.
func (r *Reader) scan() ([]byte, error) {
	switch r.shape {
	case shapeMLLP, shapeMLLPv2:
		return r.scanMLLP()
	case shapeFrame:
		return r.scanCustom()
	case shapeEOF, shapeIdle, shapeLength, shapeNewline:
	}
	return r.scanRaw()
}

// secondMSH looks on for a segment in data that begins as the first one does, up
// to the second encoding character, mostly ~. That is rare in most messages, so
// the search for it runs at the speed of memory.
func (r *Reader) secondMSH(data []byte) {
	first := data[r.pre:]
	if r.pieces != nil && r.pieces.gone > 0 {
		first = r.pieces.first
	}
	first = bytes.TrimPrefix(first, utf8BOM)
	const known = len("MSH|^~")
	if len(first) < known {
		return
	}
	first = first[:known]
	for r.msh < len(data) {
		i := bytes.IndexByte(data[r.msh:], first[known-1])
		if i < 0 {
			break
		}
		r.msh += i + 1
		if begin := r.msh - known; begin > 1 && (data[begin-1] == '\r' || data[begin-1] == '\n') && bytes.Equal(data[begin:r.msh], first) {
			r.frame.second = true
		}
	}
	r.msh = len(data)
}

// skip consumes bytes that belong to no frame.
func (r *Reader) skip(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if r.heads >= 0 {
		r.heads += copy(r.head[r.heads:], data)
		if name := otherProtocol(r.head[:r.heads]); name != "" {
			return r.fail(&FrameError{Reason: ReasonWrongProtocol, Detail: name})
		}
	}
	r.frame.blank = r.frame.blank && isBlank(data)
	r.frame.junk += int64(len(data))
	if r.frame.junk > r.junkLimit {
		return r.fail(&FrameError{Reason: ReasonPreambleTooLong, Offset: r.frame.junkAt, Limit: r.junkLimit})
	}
	r.r += len(data)
	r.off += int64(len(data))
	return nil
}

// enter begins the frame that comes after junk.
func (r *Reader) enter(junk []byte) (bool, error) {
	if err := r.skip(junk); err != nil {
		return false, err
	}
	r.in, r.heads = true, -1
	r.fs, r.vt, r.msh = r.pre, r.pre, r.pre
	r.frame.offset = r.off
	return true, nil
}

// lengthAt is how long the text is if it ends at n.
func (r *Reader) lengthAt(n int) int64 {
	if r.pieces != nil {
		return r.pieces.gone + int64(n-r.pre)
	}
	return int64(n - r.pre)
}

// more says that the end of the frame has not come, and that its first n bytes
// surely belong to it.
func (r *Reader) more(n int) ([]byte, error) {
	if r.lengthAt(n) > r.limit {
		return r.tooLarge()
	}
	if r.pieces != nil {
		r.pieces.sure = n
	}
	return nil, nil
}

// whole ends the frame whose text ends at end.
func (r *Reader) whole(end, consumed int) ([]byte, error) {
	text := r.buf[r.r+r.pre : r.r+end]
	r.last = consumed
	n := r.lengthAt(end)
	switch {
	case n > r.limit:
		return r.tooLarge()
	case n > int64(len(text)): // its beginning was looked at before
	case r.shape == shapeMLLP && isCommit(text):
		return text, &FrameError{Reason: ReasonMLLPR2, Offset: r.off, Length: 1, Detail: "the peer uses MLLP release 2"}
	case isBlank(text):
		return text, &FrameError{Reason: ReasonEmpty, Offset: r.off, Length: n}
	}
	return text, nil
}

// cutOff ends the frame in which, at n, another one begins.
func (r *Reader) cutOff(n int) ([]byte, error) {
	text := r.buf[r.r+r.pre : r.r+n]
	r.last = n
	length := r.lengthAt(n)
	if length > r.limit {
		return r.tooLarge()
	}
	return text, &FrameError{Reason: ReasonTruncated, Offset: r.frame.offset, Length: length, Detail: "another message begins in it"}
}

func (r *Reader) tooLarge() ([]byte, error) {
	var text []byte
	if r.pieces == nil {
		text = r.buf[r.r+r.pre : r.r+r.pre+int(r.limit)]
	}
	return text, r.fail(&FrameError{Reason: ReasonTooLarge, Offset: r.frame.offset, Limit: r.limit})
}

// fail ends the stream with an error of its own.
func (r *Reader) fail(e *FrameError) error {
	r.err = e
	r.r, r.w, r.last, r.in = 0, 0, 0, false
	return e
}

// end says what the end of the stream means where the scan stands.
func (r *Reader) end() ([]byte, error) {
	if _, ok := errors.AsType[*FrameError](r.err); ok {
		return nil, r.err
	}
	if !r.in {
		if errors.Is(r.err, errNoCommit) {
			r.err = nil
			return nil, errNoCommit
		}
		if errors.Is(r.err, io.EOF) {
			return nil, io.EOF
		}
		return nil, r.fail(&FrameError{Reason: ReasonReadFailed, Offset: r.off, Err: r.err})
	}
	if r.pendingFS() && (errors.Is(r.err, io.EOF) || errors.Is(r.err, errFSOnly)) {
		if errors.Is(r.err, errFSOnly) {
			r.err = nil
		}
		r.frame.missingCR = true
		return r.whole(r.fs, r.fs+1)
	}
	if text, ended, err := r.endRaw(); ended {
		return text, err
	}
	text := r.buf[min(r.r+r.pre, r.w):r.w]
	e := &FrameError{Reason: ReasonTruncated, Offset: r.frame.offset, Length: r.lengthAt(r.w - r.r), Err: r.err}
	if errors.Is(r.err, io.EOF) {
		e.Err = io.ErrUnexpectedEOF
	}
	var ne net.Error
	if errors.As(r.err, &ne) && ne.Timeout() {
		e.Reason = ReasonTimeout
	}
	return text, r.fail(e)
}

// fill reads once, and leaves an error in r.err.
func (r *Reader) fill() {
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
	if r.w == len(r.buf) {
		data := r.buf[r.r:r.w]
		if len(r.buf) > 0 && len(data) <= len(r.buf)/2 {
			copy(r.buf, data)
		} else if r.err = r.grow(data, max(2*len(r.buf), idleBuffer)); r.err != nil {
			return
		}
		r.r, r.w = 0, len(data)
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		if errors.Is(err, errGoIdle) && n == 0 && r.r == r.w {
			r.r, r.w = 0, 0
			if r.err = r.grow(nil, idleBuffer); r.err != nil {
				return
			}
			continue
		}
		if r.err = err; n > 0 || err != nil {
			return
		}
	}
	r.err = io.ErrNoProgress
}

// longest is what the longest allowed frame takes in the buffer.
func (r *Reader) longest() int { return int(r.limit) + lookahead + len(r.start) + len(r.stop) }

// greatestLimit is the limit that none can exceed.
const greatestLimit = math.MaxInt - lookahead - 2*maxFrameBytes

// grow moves data, which is part of the buffer, to a buffer of n bytes, or of as
// many as the longest allowed frame takes.
func (r *Reader) grow(data []byte, n int) (err error) {
	n = min(n, r.longest())
	var buf []byte
	if r.mem == nil {
		buf = make([]byte, n)
		copy(buf, data)
	} else if buf, err = r.mem.resize(data, n); err != nil {
		return err
	}
	r.buf = buf
	return nil
}
