package mllp

import (
	"bytes"
	"strings"
)

// scanMLLP is scan for the frames of MLLP.
func (r *Reader) scanMLLP() ([]byte, error) {
	if !r.in {
		if ok, err := r.seek(); !ok {
			return nil, err
		}
	}
	data := r.buf[r.r:r.w]
	for {
		end, found := min(len(data), r.fs+scanBlock), false
		if i := bytes.IndexByte(data[r.fs:end], fs); i >= 0 {
			end, found = r.fs+i, true
		}
		if r.findMSH {
			r.secondMSH(data[:end])
		}
		for r.vt < end {
			i := bytes.IndexByte(data[r.vt:end], vt)
			if i < 0 {
				r.vt = end
				break
			}
			r.vt += i
			switch beginsMessage(data[r.vt+1:]) {
			case yes:
				return r.cutOff(r.vt)
			case unknown: // so the data ends here
				return r.more(r.vt)
			case no:
				r.frame.stray = true
				r.vt++
			}
		}
		r.fs = end
		if !found && end < len(data) {
			continue
		}
		if !found || end+1 == len(data) {
			return r.more(end)
		}
		switch data[end+1] {
		case cr:
			return r.whole(end, end+2)
		case vt:
			switch beginsMessage(data[end+2:]) {
			case yes:
				r.frame.missingCR = true
				return r.whole(end, end+1)
			case unknown:
				return r.more(end)
			case no:
			}
		}
		r.frame.stray = true
		r.fs++
	}
}

// seek skips to the next VT.
func (r *Reader) seek() (bool, error) {
	data := r.buf[r.r:r.w]
	junk, _, found := bytes.Cut(data, []byte{vt})
	if !found {
		return false, r.skip(data)
	}
	return r.enter(junk)
}

// pendingFS reports whether a frame is whole but for the CR after its FS.
func (r *Reader) pendingFS() bool {
	return r.in && r.shape <= shapeMLLPv2 && r.fs == r.w-r.r-1 && r.buf[r.w-1] == fs
}

// answer is a decision that may need more bytes.
type answer int

const (
	no answer = iota
	yes
	unknown
)

// beginsMessage tells whether data begins as a message or a batch does: a byte
// order mark or none, MSH, FHS or BHS, and a field separator.
func beginsMessage(data []byte) answer {
	if n := min(len(data), len(utf8BOM)); bytes.HasPrefix(utf8BOM, data[:n]) {
		if n < len(utf8BOM) {
			return unknown
		}
		data = data[n:]
	}
	switch head := string(data[:min(len(data), 3)]); {
	case !strings.HasPrefix("MSH", head) && !strings.HasPrefix("FHS", head) && !strings.HasPrefix("BHS", head):
		return no
	case len(data) <= 3:
		return unknown
	case isSeparator(data[3]):
		return yes
	}
	return no
}

// isSeparator reports whether c can be a field separator: a printable ASCII
// character that is neither letter, digit nor space.
func isSeparator(c byte) bool {
	switch {
	case c <= ' ' || c >= 0x7F:
		return false
	case '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z':
		return false
	}
	return true
}

// isBlank reports whether b holds nothing but white space and NUL.
func isBlank(b []byte) bool {
	for _, c := range b {
		switch c {
		case ' ', '\t', '\r', '\n', 0:
		default:
			return false
		}
	}
	return true
}
