package mllp

import (
	"bytes"
	"slices"
)

// AppendFrame appends to dst the frame that carries msg in MLLP and returns the
// extended slice, to be sent with one Write. MLLP has no way to escape its own
// bytes: a message that holds a VT, or an FS before a CR, or nothing but white
// space, would arrive as something else, and is refused with a *FrameError. dst
// is then returned as it was.
func AppendFrame(dst, msg []byte) ([]byte, error) {
	return new(Framing).AppendFrame(dst, msg)
}

// AppendFrame is the function of this name for the framing f, which must be
// valid. It refuses a message in which the end of its frame, or the beginning of
// another, would be found, or which has not the length that f says.
func (f *Framing) AppendFrame(dst, msg []byte) ([]byte, error) {
	if f.Delimiter == DelimitLength && int64(len(msg)) != f.Length {
		return dst, &FrameError{Reason: ReasonWrongLength, Length: int64(len(msg)), Limit: f.Length}
	}
	start := len(dst)
	dst = f.begin(slices.Grow(dst, len(f.Start)+len(msg)+len(f.End)+3))
	return f.end(append(dst, msg...), start)
}

// text returns the message in a frame that AppendFrame has made.
func (f *Framing) text(frame []byte) []byte {
	switch f.mode() {
	case ModeFRAME:
		return frame[len(f.Start) : len(frame)-len(f.End)]
	case ModeRAW:
		if f.Delimiter == DelimitNewline {
			return frame[:len(frame)-1]
		}
		return frame
	case ModeMLLP, ModeMLLPv2:
	}
	return frame[1 : len(frame)-2]
}

// begin appends what comes before a message.
func (f *Framing) begin(dst []byte) []byte {
	switch f.mode() {
	case ModeFRAME:
		return append(dst, f.Start...)
	case ModeRAW:
		return dst
	case ModeMLLP, ModeMLLPv2:
	}
	return append(dst, vt)
}

// end ends the frame that begins at dst[start].
func (f *Framing) end(dst []byte, start int) ([]byte, error) {
	var (
		ended []byte
		err   error
	)
	switch f.mode() {
	case ModeFRAME:
		ended, err = f.endCustom(dst, start)
	case ModeRAW:
		ended, err = f.endRaw(dst, start)
	default:
		ended, err = endMLLP(dst, start)
	}
	if err != nil {
		return dst[:start], err
	}
	return ended, nil
}

func endMLLP(dst []byte, start int) ([]byte, error) {
	msg := dst[start+1:]
	if i := bytes.IndexByte(msg, vt); i >= 0 {
		return nil, &FrameError{Reason: ReasonStrayControl, Offset: int64(i), Length: 1, Detail: "the message holds a VT"}
	}
	for i := 0; ; i++ {
		n := bytes.IndexByte(msg[i:], fs)
		if n < 0 {
			break
		}
		if i += n; i+1 < len(msg) && msg[i+1] == cr {
			return nil, &FrameError{Reason: ReasonStrayControl, Offset: int64(i), Length: 2, Detail: "the message holds FS CR"}
		}
	}
	if isBlank(msg) {
		return nil, &FrameError{Reason: ReasonEmpty, Length: int64(len(msg))}
	}
	if isCommit(msg) {
		return nil, &FrameError{Reason: ReasonMLLPR2, Length: 1}
	}
	return append(dst, fs, cr), nil
}

func (f *Framing) endCustom(dst []byte, start int) ([]byte, error) {
	n := len(dst) - start - len(f.Start)
	ended := append(dst, f.End...)
	text := ended[start+len(f.Start):]
	if isBlank(text[:n]) {
		return nil, &FrameError{Reason: ReasonEmpty, Length: int64(n)}
	}
	// The end may also begin in the message's last bytes.
	if i := bytes.Index(text, f.End); i < n {
		return nil, &FrameError{Reason: ReasonStrayControl, Offset: int64(i), Length: int64(len(f.End)), Detail: "the message holds what ends a frame"}
	}
	for i := 0; len(f.Start) > 0; i++ {
		k := bytes.Index(text[i:n], f.Start)
		if k < 0 {
			break
		}
		if i += k; beginsMessage(text[i+len(f.Start):]) == yes {
			return nil, &FrameError{Reason: ReasonStrayControl, Offset: int64(i), Length: int64(len(f.Start)), Detail: "the message holds the beginning of another frame"}
		}
	}
	return ended, nil
}

func (f *Framing) endRaw(dst []byte, start int) ([]byte, error) {
	msg := dst[start:]
	if isBlank(msg) {
		return nil, &FrameError{Reason: ReasonEmpty, Length: int64(len(msg))}
	}
	if f.Delimiter != DelimitNewline {
		return dst, nil
	}
	if i := bytes.IndexByte(msg, '\n'); i >= 0 {
		return nil, &FrameError{Reason: ReasonStrayControl, Offset: int64(i), Length: 1, Detail: "the message holds LF, which would end it"}
	}
	return append(dst, '\n'), nil
}

// The commit acknowledgements of MLLP release 2.
const (
	commitACK = 0x06
	commitNAK = 0x15
)

// isCommit tells whether text is a commit acknowledgement.
func isCommit(text []byte) bool {
	return len(text) == 1 && (text[0] == commitACK || text[0] == commitNAK)
}
