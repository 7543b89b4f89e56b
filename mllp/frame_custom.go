package mllp

import "bytes"

// scanCustom is scan for frames that begin and end with bytes of the user's.
func (r *Reader) scanCustom() ([]byte, error) {
	if !r.in {
		if ok, err := r.seekStart(); !ok {
			return nil, err
		}
	}
	data := r.buf[r.r:r.w]
	for {
		// What has been searched may end with the first bytes of stop.
		from := max(r.pre, r.fs-len(r.stop)+1)
		block := data[:min(len(data), from+scanBlock)]
		end := bytes.Index(block[from:], r.stop)
		found := end >= 0
		if found {
			end += from
		} else {
			end = len(block) - partial(block[from:], r.stop)
		}
		if r.findMSH {
			r.secondMSH(data[:end])
		}
		if text, cut, err := r.secondStart(data, end); cut {
			return text, err
		}
		if found {
			return r.whole(end, end+len(r.stop))
		}
		r.fs = len(block)
		if len(block) == len(data) {
			return r.more(end)
		}
	}
}

// secondStart looks, before end, for the beginning of another frame: that of
// this one must have been cut off then. Without start bytes there is no telling.
func (r *Reader) secondStart(data []byte, end int) (text []byte, cut bool, err error) {
	if len(r.start) == 0 {
		return nil, false, nil
	}
	before := data[:min(len(data), end+len(r.start)-1)]
	for r.vt < end {
		i := bytes.Index(before[r.vt:], r.start)
		if i < 0 {
			r.vt = max(r.vt, len(before)-len(r.start)+1)
			break
		}
		r.vt += i
		switch beginsMessage(data[r.vt+len(r.start):]) {
		case yes:
			text, err = r.cutOff(r.vt)
			return text, true, err
		case unknown:
			text, err = r.more(r.vt)
			return text, true, err
		case no:
			r.frame.stray = true
			r.vt++
		}
	}
	return nil, false, nil
}

// seekStart skips to the beginning of the next frame.
func (r *Reader) seekStart() (bool, error) {
	data := r.buf[r.r:r.w]
	if len(r.start) == 0 {
		if len(data) == 0 {
			return false, nil
		}
		return r.enter(nil)
	}
	n := bytes.Index(data, r.start)
	if n < 0 {
		return false, r.skip(data[:len(data)-partial(data, r.start)])
	}
	return r.enter(data[:n])
}

// partial returns how many bytes at the end of data may be the first ones of seq.
func partial(data, seq []byte) int {
	for n := min(len(data), len(seq)-1); n > 0; n-- {
		if bytes.HasPrefix(seq, data[len(data)-n:]) {
			return n
		}
	}
	return 0
}
