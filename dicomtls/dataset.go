package dicomtls

import (
	"bytes"
	"errors"
	"io"
)

// A dataSet reads the data set of a message from a link. Its error, once there
// is one, stays.
type dataSet struct {
	// static after construction
	l       *link
	context uint8
	limit   int64  // bytes; 0: none
	ended   func() // called once when the last byte has been read; may be nil

	// owned by the goroutine that reads
	last bool  // the fragment that is being read is the last one
	n    int64 // bytes that have been read
	err  error // io.EOF after the whole data set
	over bool  // limit has been passed
}

// advance goes to the next fragment that has bytes.
func (d *dataSet) advance() error {
	for d.err == nil && d.l.pdvLeft == 0 {
		if d.last {
			d.err = io.EOF
			if d.ended != nil {
				d.ended()
			}
			break
		}
		f, err := d.l.next()
		switch {
		case errors.Is(err, errReleaseRequest), errors.Is(err, errReleaseReply):
			d.err = &protocolError{abortUnexpectedPDU, "release in the middle of a data set"}
		case err != nil:
			d.err = midway(err)
		case f.command:
			d.err = &protocolError{abortUnexpectedParameter, "a command in the middle of a data set"}
		case f.context != d.context:
			d.err = &protocolError{abortUnexpectedParameter, "the presentation context changes in a data set"}
		default:
			d.last = f.last
		}
	}
	return d.err
}

// tooLarge reports whether the limit has been passed.
func (d *dataSet) tooLarge() bool {
	d.over = d.over || d.limit > 0 && d.n > d.limit
	return d.over
}

// Read is what a handler reads.
func (d *dataSet) Read(p []byte) (int, error) {
	if d.tooLarge() {
		return 0, &TooLargeError{Limit: d.limit}
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := d.advance(); err != nil {
		return 0, err
	}
	n, err := d.l.readFragment(p)
	d.n += int64(n)
	if err != nil {
		d.err = err
	}
	if d.tooLarge() {
		return 0, &TooLargeError{Limit: d.limit}
	}
	return n, d.err
}

// WriteTo hands the data set to w from the link's own buffer, without another copy.
func (d *dataSet) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if d.tooLarge() {
			return total, &TooLargeError{Limit: d.limit}
		}
		if err := d.advance(); errors.Is(err, io.EOF) {
			return total, nil
		} else if err != nil {
			return total, err
		}
		if err := d.l.need(1); err != nil {
			d.err = midway(err)
			return total, d.err
		}
		n := min(int(d.l.pdvLeft), d.l.w-d.l.r)
		if d.n += int64(n); d.tooLarge() {
			d.skipped(n)
			continue
		}
		m, err := w.Write(d.l.buf[d.l.r : d.l.r+n])
		d.skipped(n)
		if total += int64(m); err != nil {
			return total, err
		}
	}
}

// skipped says that n bytes of the link's buffer have been used.
func (d *dataSet) skipped(n int) {
	d.l.r += n
	d.l.pdvLeft -= uint32(n) //nolint:gosec // at most pdvLeft
	d.l.earn(n)
}

// discard reads the rest. It returns nil if the data set arrived whole. It gives
// up beyond twice the limit: no honest peer sends that much.
func (d *dataSet) discard() error {
	for {
		err := d.advance()
		if errors.Is(err, io.EOF) {
			d.tooLarge()
			return nil
		}
		if err != nil {
			return err
		}
		n, err := d.l.readFragment(nil)
		if d.n += int64(n); err != nil {
			d.err = err
			return err
		}
		if d.limit > 0 && d.n/2 > d.limit {
			d.over, d.err = true, &TooLargeError{Limit: d.limit}
			return d.err
		}
	}
}

// whole reads the data set into memory, up to limit bytes; what is longer is
// discarded, and nil returned with a *TooLargeError.
func (d *dataSet) whole(limit int64) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.Copy(&b, io.LimitReader(justReader{d}, limit+1))
	if err == nil && int64(b.Len()) > limit {
		err = &TooLargeError{Limit: limit}
	}
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// justReader hides WriteTo, which knows no limit.
type justReader struct{ io.Reader }
