package dicomtls

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	// maxDepth is how deep sequences may be nested, counting sequences and their
	// items. Structured reports come to some tens; each level costs a sender 16
	// bytes, and a recursive reader its stack.
	maxDepth = 256
	// undefinedLength is the length of what ends with a delimiter (PS3.5 7.1.1).
	undefinedLength = math.MaxUint32
)

// The tags that hold a data set together (PS3.5 7.5).
const (
	tagItem        = 0xFFFE_E000
	tagItemEnd     = 0xFFFE_E00D
	tagSequenceEnd = 0xFFFE_E0DD
	tagPixelData   = 0x7FE0_0010
)

// ErrTruncated is in the *DataSetError for a data set that ends too early.
var ErrTruncated = errors.New("the data set ends too early")

// A DataSetError says that a data set breaks the rules of its encoding (PS3.5
// section 7), and where. It holds no value of the data set.
type DataSetError struct {
	Offset int64  // in bytes, of the element, within the data set after inflating
	Tag    uint32 // gggg<<16 | eeee; 0 if the error comes before one is read
	Err    error
}

// Error returns "dicomtls: data set, byte offset, (gggg,eeee): reason".
func (e *DataSetError) Error() string {
	at := ""
	if e.Tag != 0 {
		at = fmt.Sprintf(" (%04X,%04X)", e.Tag>>16, e.Tag&0xFFFF)
	}
	return fmt.Sprintf("dicomtls: data set, byte %d%s: %v", e.Offset, at, e.Err)
}

// Unwrap returns the reason.
func (e *DataSetError) Unwrap() error { return e.Err }

// tokenKind is what a walker came upon.
type tokenKind uint8

const (
	tokenElement      tokenKind = iota // its value follows
	tokenFragment                      // of encapsulated pixel data: its value follows
	tokenSequence                      // items follow
	tokenEncapsulated                  // fragments follow
	tokenItem                          // elements follow
	tokenItemEnd                       // of the innermost item
	tokenSequenceEnd                   // of the innermost sequence
	tokenFragmentsEnd                  // of the encapsulated pixel data
	tokenEnd                           // of the data set
)

// token is a part of a data set.
type token struct {
	kind   tokenKind
	tag    uint32
	vr     vr     // 0 if the encoding has none
	length uint32 // as it is written; of tokens that end something: 0
}

// level is a data set, a sequence, or a run of fragments, within others.
type level struct {
	kind  tokenKind // tokenItem (also of the whole data set), tokenSequence, tokenEncapsulated
	end   int64     // offset of its end; -1 if a delimiter ends it
	bound int64     // end of the innermost level with one, this or above; MaxInt64 if none has
	last  uint32    // tag of the element before
	enc   encoding  // of what is in it
}

// walker goes through a data set from front to back, in constant memory, and
// checks that it holds together: tags ascend, every length stays within what is
// around it, everything that begins ends. It is for one goroutine.
type walker struct {
	r *bufio.Reader // of at least 16 bytes
	// isSequence tells in an encoding without VRs which elements of defined length
	// are sequences. nil: they are not looked into.
	isSequence func(tag uint32) bool

	offset int64 // of the next byte
	value  int64 // bytes of the current value that were not taken
	count  int   // elements, items and fragments so far
	depth  int
	levels [maxDepth + 1]level
}

func newWalker(r *bufio.Reader, enc encoding) *walker {
	w := &walker{r: r}
	w.levels[0] = level{kind: tokenItem, end: -1, bound: math.MaxInt64, enc: enc}
	return w
}

// enc is the encoding of what comes next.
func (w *walker) enc() encoding { return w.levels[w.depth].enc }

func (w *walker) fail(tag uint32, format string, args ...any) error {
	return &DataSetError{Offset: w.offset, Tag: tag, Err: fmt.Errorf(format, args...)}
}

// truncated is the error for the end of the data where more should be; another
// error of the reader stays what it is.
func (w *walker) truncated(tag uint32, err error) error {
	if isEnd(err) {
		return &DataSetError{Offset: w.offset, Tag: tag, Err: ErrTruncated}
	}
	return err
}

// isEnd tells the end of the data from an error that wraps it, such as that of a
// connection that was closed in the middle.
func isEnd(err error) bool { return err == io.EOF } //nolint:errorlint // see above

// next skips what is left of the current value and returns what comes next. An
// error ends the walk: it is a *DataSetError or that of the reader.
func (w *walker) next() (token, error) {
	if err := w.skip(); err != nil {
		return token{}, err
	}
	here := &w.levels[w.depth]
	if here.end == w.offset {
		return w.leave(), nil
	}
	b, err := w.r.Peek(8)
	if len(b) == 0 && w.depth == 0 && isEnd(err) {
		return token{kind: tokenEnd}, nil
	}
	if err != nil {
		return token{}, w.truncated(0, err)
	}
	order := here.enc.order()
	tag := uint32(order.Uint16(b))<<16 | uint32(order.Uint16(b[2:]))
	w.count++
	switch {
	case here.kind != tokenItem:
		return w.nextItem(tag, order.Uint32(b[4:]))
	case tag>>16 == tagItem>>16:
		if tag == tagItemEnd && w.depth > 0 && here.end < 0 && order.Uint32(b[4:]) == 0 {
			return w.delimited()
		}
		return token{}, w.fail(tag, "a delimiter where an element should be")
	}
	return w.nextElement(tag, b)
}

// nextElement reads the header of an element, of which b are the first 8 bytes.
func (w *walker) nextElement(tag uint32, b []byte) (token, error) {
	here := &w.levels[w.depth]
	switch {
	case tag <= here.last && here.last != 0:
		return token{}, w.fail(tag, "comes after (%04X,%04X): tags must ascend", here.last>>16, here.last&0xFFFF)
	case w.depth == 0 && (tag>>16 == 0 || tag>>16 == 2):
		return token{}, w.fail(tag, "is of a group that no data set has (PS3.5 7.1)")
	}
	here.last = tag
	t := token{kind: tokenElement, tag: tag}
	order, size := here.enc.order(), 8
	switch {
	case here.enc.implicit:
		t.length = order.Uint32(b[4:])
	default:
		t.vr = vr(b[4])<<8 | vr(b[5])
		if !t.vr.long() {
			t.length = uint32(order.Uint16(b[6:]))
			break
		}
		size = 12
		long, err := w.r.Peek(size)
		if err != nil {
			return token{}, w.truncated(tag, err)
		}
		t.length = order.Uint32(long[8:])
	}
	inside, nested := w.contents(t)
	if !nested && t.length == undefinedLength {
		return token{}, w.fail(tag, "has no length, which its VR does not allow")
	}
	if err := w.take(tag, size, t.length); err != nil {
		return token{}, err
	}
	if nested {
		t.kind = inside.kind
		return t, w.enter(tag, inside, t.length)
	}
	w.value = int64(t.length)
	return t, nil
}

// contents tells whether there are items in an element, and of what kind.
func (w *walker) contents(t token) (level, bool) {
	enc := w.enc()
	undefined := t.length == undefinedLength
	switch {
	case undefined && (t.tag == tagPixelData || t.vr.encapsulates()):
		return level{kind: tokenEncapsulated, enc: enc}, true
	case enc.implicit && undefined, enc.implicit && w.isSequence != nil && w.isSequence(t.tag), t.vr == vrSQ:
		return level{kind: tokenSequence, enc: enc}, true
	case undefined && t.vr == vrUN:
		// Whoever wrote it knew no VRs: what is inside is in the default encoding
		// (PS3.5 6.2.2, note 4).
		return level{kind: tokenSequence, enc: encoding{implicit: true}}, true
	}
	return level{}, false
}

// nextItem reads the header of an item, of a fragment, or of a delimiter.
func (w *walker) nextItem(tag, length uint32) (token, error) {
	here := &w.levels[w.depth]
	switch {
	case tag == tagSequenceEnd && here.end < 0 && length == 0:
		return w.delimited()
	case tag != tagItem:
		return token{}, w.fail(tag, "is in a sequence where an item should be")
	}
	if here.kind == tokenSequence {
		if err := w.take(tag, 8, length); err != nil {
			return token{}, err
		}
		return token{kind: tokenItem, tag: tag, length: length}, w.enter(tag, level{kind: tokenItem, enc: here.enc}, length)
	}
	if length == undefinedLength {
		return token{}, w.fail(tag, "is a fragment of no length")
	}
	if err := w.take(tag, 8, length); err != nil {
		return token{}, err
	}
	w.value = int64(length)
	return token{kind: tokenFragment, tag: tag, length: length}, nil
}

// take goes past a header of size bytes whose value has length bytes, having
// checked that both fit into what is around them.
func (w *walker) take(tag uint32, size int, length uint32) error {
	end := w.offset + int64(size)
	if length != undefinedLength {
		end += int64(length)
	}
	if end > w.levels[w.depth].bound {
		return w.fail(tag, "is longer than the sequence or item that it is in")
	}
	if _, err := w.r.Discard(size); err != nil {
		return w.truncated(tag, err)
	}
	w.offset += int64(size)
	return nil
}

// enter goes into a level whose header has been taken.
func (w *walker) enter(tag uint32, in level, length uint32) error {
	if w.depth == maxDepth {
		return w.fail(tag, "is nested more than %d deep", maxDepth)
	}
	in.end, in.bound = -1, w.levels[w.depth].bound
	if length != undefinedLength {
		in.end = w.offset + int64(length)
		in.bound = in.end
	}
	w.depth++
	w.levels[w.depth] = in
	return nil
}

// delimited takes a delimiter and leaves the level that it ends.
func (w *walker) delimited() (token, error) {
	if err := w.take(0, 8, 0); err != nil {
		return token{}, err
	}
	return w.leave(), nil
}

// leave goes up one level.
func (w *walker) leave() token {
	var t token
	switch w.levels[w.depth].kind {
	case tokenSequence:
		t.kind = tokenSequenceEnd
	case tokenEncapsulated:
		t.kind = tokenFragmentsEnd
	default:
		t.kind = tokenItemEnd
	}
	w.depth--
	return t
}

// skip goes past what is left of the current value.
func (w *walker) skip() error {
	for w.value > 0 {
		n, err := w.r.Discard(int(min(w.value, 1<<30)))
		w.offset += int64(n)
		w.value -= int64(n)
		if err != nil {
			return w.truncated(0, err)
		}
	}
	return nil
}

// Read reads from the current value: io.EOF is its end.
func (w *walker) Read(p []byte) (int, error) {
	if w.value == 0 {
		return 0, io.EOF
	}
	n, err := w.r.Read(p[:min(int64(len(p)), w.value)])
	w.offset += int64(n)
	w.value -= int64(n)
	if err != nil {
		return n, w.truncated(0, err)
	}
	return n, nil
}

// uid reads the current value as a UID.
func (w *walker) uid() (string, error) {
	if w.value > maxUID+2 { // padded, to an even length
		return "", w.fail(0, "a UID of more than %d characters", maxUID)
	}
	b := make([]byte, w.value)
	if _, err := io.ReadFull(w, b); err != nil {
		return "", err
	}
	return cleanUID(b), nil
}

func (e encoding) order() binary.ByteOrder {
	if e.bigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}
