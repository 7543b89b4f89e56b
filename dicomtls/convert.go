package dicomtls

import (
	"bufio"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// convertible are the transfer syntaxes that differ in nothing but how elements
// are written.
var convertible = []string{ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian}

// ErrNotConvertible is in the error for a data set that cannot be had in another
// transfer syntax without loss: compressed pixels, and syntaxes that are not known.
var ErrNotConvertible = errors.New("dicomtls: only Implicit and Explicit VR Little Endian, Deflated and Explicit VR Big Endian are converted into each other")

// CanConvert reports whether Convert converts data sets of the transfer syntax
// from to the transfer syntax to.
func CanConvert(from, to string) bool {
	return from == to || slices.Contains(convertible, from) && slices.Contains(convertible, to)
}

// Convert reads a data set in the transfer syntax from and writes it in the
// transfer syntax to, in constant memory. No value changes but for its byte order.
//
// VRs that Implicit VR does not have come from the dictionary of PS3.6; what is
// not in it, private elements above all, becomes UN (PS3.5 6.2.2). Where lengths
// change, sequences and items get delimiters in place of lengths, and the retired
// group lengths are left out.
//
// The error is ErrNotConvertible, a *[DataSetError], or that of src or dst; what
// was written is then of no use. If from is to, the bytes are copied as they are.
func Convert(dst io.Writer, src io.Reader, from, to string) error {
	if from == to {
		_, err := io.Copy(dst, src)
		return err
	}
	if !CanConvert(from, to) {
		return fmt.Errorf("%w: not %s into %s", ErrNotConvertible, from, to)
	}
	in, _ := encodingOf(from) // both are known
	out, _ := encodingOf(to)
	r := bufio.NewReaderSize(src, convertBuffer)
	if in.deflated {
		r = bufio.NewReaderSize(flate.NewReader(r), convertBuffer)
	}
	count := &countingWriter{w: dst}
	var w io.Writer = count
	var deflate *flate.Writer
	if out.deflated {
		var err error
		if deflate, err = flate.NewWriter(count, flate.DefaultCompression); err != nil {
			return err
		}
		w = deflate
	}
	c := &converter{walker: newWalker(r, in), w: bufio.NewWriterSize(w, convertBuffer), keepLengths: in.implicit == out.implicit}
	c.isSequence = dictionarySequence
	c.out[0] = outLevel{enc: out}
	if err := c.run(); err != nil {
		return err
	}
	if deflate == nil {
		return nil
	}
	if err := deflate.Close(); err != nil {
		return err
	}
	if count.n%2 == 1 { // PS3.5 A.5
		_, err := dst.Write([]byte{0})
		return err
	}
	return nil
}

// convertBuffer is how much is read and written at a time; a multiple of every
// unit that a byte order turns around.
const convertBuffer = 64 << 10

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// outLevel is a level of the walker as it is written.
type outLevel struct {
	enc       encoding
	delimited bool // ends with a delimiter
}

// converter writes what a walker comes upon.
type converter struct {
	*walker

	w           *bufio.Writer
	keepLengths bool // headers are as long as they were
	signed      bool // Pixel Representation is 1
	out         [maxDepth + 1]outLevel
	scratch     [convertBuffer]byte
}

func (c *converter) run() error {
	for {
		t, err := c.next()
		if err == nil && t.kind == tokenEnd {
			return c.w.Flush()
		}
		if err == nil {
			err = c.token(t)
		}
		if err != nil {
			return err
		}
	}
}

// token writes one token. The walker is already inside of what it begins, and
// outside of what it ends.
func (c *converter) token(t token) error {
	switch t.kind {
	case tokenElement:
		return c.element(t)
	case tokenSequence:
		return c.sequence(t)
	case tokenItem:
		c.open(c.out[c.depth-1].enc, t.length)
		return c.header(c.out[c.depth-1].enc, tagItem, 0, c.length(t.length))
	case tokenItemEnd:
		return c.end(tagItemEnd)
	case tokenSequenceEnd:
		return c.end(tagSequenceEnd)
	default:
		return c.fail(t.tag, "is encapsulated, which cannot be converted: %w", ErrNotConvertible)
	}
}

// sequence writes the header of a sequence.
func (c *converter) sequence(t token) error {
	outer := c.out[c.depth-1].enc
	v, inner := vrSQ, outer
	if t.vr == vrUN && !outer.implicit {
		// It stays what it is: Implicit VR inside of Explicit VR (PS3.5 6.2.2, note 4).
		v, inner = vrUN, encoding{implicit: true}
	}
	c.open(inner, t.length)
	return c.header(outer, t.tag, v, c.length(t.length))
}

// open records how the level that the walker has entered is written.
func (c *converter) open(enc encoding, length uint32) {
	c.out[c.depth] = outLevel{enc: enc, delimited: c.length(length) == undefinedLength}
}

// length is the length to write for a sequence or an item of that length.
func (c *converter) length(length uint32) uint32 {
	if c.keepLengths {
		return length
	}
	return undefinedLength
}

// end writes the delimiter of the level that the walker has left, if it has one.
func (c *converter) end(tag uint32) error {
	left := c.out[c.depth+1]
	if !left.delimited {
		return nil
	}
	return c.header(left.enc, tag, 0, 0)
}

// element writes a whole element.
func (c *converter) element(t token) error {
	if uint16(t.tag) == 0 && !c.keepLengths {
		return nil // a group length, which would be wrong
	}
	from, to := c.enc(), c.out[c.depth].enc
	v := t.vr
	if from.implicit {
		v = dictionaryVR(t.tag, c.signed)
	}
	if !to.implicit && !v.long() && t.length > 0xFFFF {
		v = vrUN // PS3.5 6.2.2, note 5
	}
	unit := v.unit()
	if from.bigEndian == to.bigEndian {
		unit = 1
	}
	if int64(t.length)%int64(unit) != 0 {
		return c.fail(t.tag, "has a length that is no multiple of %d, which %s has", unit, v)
	}
	if err := c.header(to, t.tag, v, t.length); err != nil {
		return err
	}
	for first := true; c.value > 0; first = false {
		p := c.scratch[:min(c.value, convertBuffer)]
		if _, err := io.ReadFull(c.walker, p); err != nil {
			return err
		}
		if first && t.tag == tagPixelRepresentation && len(p) == 2 && c.depth == 0 {
			c.signed = from.order().Uint16(p) == 1
		}
		swap(p, unit)
		if _, err := c.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

const tagPixelRepresentation = 0x0028_0103

// header writes a tag, its VR if the encoding has it and it is no item or
// delimiter, and a length. Elements whose VR are two NULs keep those.
func (c *converter) header(enc encoding, tag uint32, v vr, length uint32) error {
	var order binary.AppendByteOrder = binary.LittleEndian
	if enc.bigEndian {
		order = binary.BigEndian
	}
	b := order.AppendUint16(c.scratch[:0], uint16(tag>>16))
	b = order.AppendUint16(b, uint16(tag))
	switch {
	case enc.implicit || tag>>16 == tagItem>>16:
		b = order.AppendUint32(b, length)
	case v.long():
		b = append(b, byte(v>>8), byte(v), 0, 0)
		b = order.AppendUint32(b, length)
	default:
		b = append(b, byte(v>>8), byte(v))
		b = order.AppendUint16(b, uint16(length))
	}
	_, err := c.w.Write(b)
	return err
}

// swap turns the bytes of each unit of p around.
func swap(p []byte, unit int) {
	switch unit {
	case 2:
		for i := 0; i+1 < len(p); i += 2 {
			p[i], p[i+1] = p[i+1], p[i]
		}
	case 4:
		for i := 0; i+3 < len(p); i += 4 {
			p[i], p[i+1], p[i+2], p[i+3] = p[i+3], p[i+2], p[i+1], p[i]
		}
	case 8:
		for i := 0; i+7 < len(p); i += 8 {
			slices.Reverse(p[i : i+8])
		}
	}
}
