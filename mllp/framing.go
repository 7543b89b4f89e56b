package mllp

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// A Mode is a way to tell messages apart on a connection. It must be the same
// at both ends: nothing in the bytes says which it is.
type Mode string

// The modes, in the words of Mirth's transmissionMode.
const (
	// ModeMLLP is MLLP release 1: VT, the message, FS, CR. The empty Mode means
	// it too.
	ModeMLLP Mode = "MLLP"
	// ModeMLLPv2 is MLLP release 2: the frames of release 1, each of which the
	// receiver answers with a frame that holds 06 (committed) or 15 (not
	// committed) alone.
	ModeMLLPv2 Mode = "MLLPv2"
	// ModeFRAME is frames with other bytes than those of MLLP.
	ModeFRAME Mode = "FRAME"
	// ModeRAW is no frames at all: see [Delimiter].
	ModeRAW Mode = "RAW"
)

// UnmarshalText accepts the words of the constants, and the empty text.
func (m *Mode) UnmarshalText(text []byte) error {
	switch v := Mode(text); v {
	case "", ModeMLLP, ModeMLLPv2, ModeFRAME, ModeRAW:
		*m = v
		return nil
	}
	return fmt.Errorf("mllp: unknown transmission mode %q: use MLLP, MLLPv2, FRAME or RAW", text)
}

// A Delimiter says what ends a message that has no frame.
type Delimiter string

// The delimiters. None of them but DelimitLength can tell a whole message from
// the first part of one; prefer a frame wherever the peer knows one.
const (
	// DelimitEOF ends a message with the stream, so that a connection carries one
	// message: the sender ends its direction, and reads the reply until the end of
	// the other. Over TLS the end counts only if the peer said so (close_notify):
	// see Framing.AllowUnverifiedEnd.
	DelimitEOF Delimiter = "eof"
	// DelimitIdle ends a message when nothing comes for Framing.Idle, or with the
	// stream. A pause in the middle of a message cuts it in two, and two messages
	// without a pause between them are one.
	DelimitIdle Delimiter = "idle"
	// DelimitLength ends a message after Framing.Length bytes. A reply has a
	// length of its own, and ends as with DelimitIdle.
	DelimitLength Delimiter = "length"
	// DelimitNewline ends a message, and a reply, with LF, which is no part of it.
	// What the end of the stream cuts off is no message.
	DelimitNewline Delimiter = "newline"
)

// UnmarshalText accepts the words of the constants, and the empty text.
func (d *Delimiter) UnmarshalText(text []byte) error {
	switch v := Delimiter(text); v {
	case "", DelimitEOF, DelimitIdle, DelimitLength, DelimitNewline:
		*d = v
		return nil
	}
	return fmt.Errorf("mllp: unknown delimiter %q: use eof, idle, length or newline", text)
}

const (
	defaultGap           = time.Second
	defaultCommitTimeout = 15 * time.Second
	defaultRetries       = 3
)

// Framing says how messages are told apart on a connection, in both directions.
// The zero value is MLLP release 1. Settings of another mode than Mode's are
// errors, not ignored.
type Framing struct {
	// Mode is MLLP (also if empty), MLLPv2, FRAME or RAW.
	Mode Mode `json:"transmissionMode,omitempty"`

	// Start and End are the bytes before and after each message with FRAME, 0 to
	// 32 and 1 to 32. Without Start a message begins where the one before ends.
	// End must not occur in a message: the frame ends there.
	Start FrameBytes `json:"startOfMessageBytes,omitempty"`
	End   FrameBytes `json:"endOfMessageBytes,omitempty"`

	// Delimiter is what ends a message with RAW. It has no default.
	Delimiter Delimiter `json:"delimiter,omitempty"`
	// Idle is the silence that ends a message with DelimitIdle, and a reply with
	// DelimitLength. If zero, 1 s; negative is an error.
	Idle time.Duration `json:"idle,omitempty"`
	// Length is the length in bytes of a message with DelimitLength.
	Length int64 `json:"length,omitempty"`
	// AllowUnverifiedEnd takes, with RAW over TLS, the end of a connection for that
	// of a message even if the peer did not announce it with a close_notify. Then
	// anybody on the way can cut a message short (RFC 8446, section 6.1) and the
	// part that came is acknowledged. A Server sets the flag UnverifiedEnd.
	AllowUnverifiedEnd bool `json:"allowUnverifiedEnd,omitempty"`

	// KeepOpen says whether a connection carries more than one message. If nil, it
	// does, except with DelimitEOF, with which it cannot. If false, a Server
	// closes the connection after its answer, and a Conn closes itself after a
	// reply.
	KeepOpen *bool `json:"keepConnectionOpen,omitempty"`

	// CommitTimeout is how long to wait, with MLLPv2, for the 06 or 15 of the other
	// side. If zero, 15 s; negative is an error. The other side should give a
	// frame at least twice that time to arrive.
	CommitTimeout time.Duration `json:"commitTimeout,omitempty"`
	// Retries is how often the same frame is sent again with MLLPv2 after a 15, or
	// when no commit came in time. If zero, 3; negative means never. (Mirth's
	// maxRetries counts otherwise: there 0 means for ever.)
	Retries int `json:"maxRetries,omitempty"`
}

// Validate returns the first contradiction in the settings. Server and Dialer
// call it.
func (f *Framing) Validate() error {
	mode := f.mode()
	switch {
	case mode != ModeMLLP && mode != ModeMLLPv2 && mode != ModeFRAME && mode != ModeRAW:
		return fmt.Errorf("mllp: Framing.Mode is %q: use MLLP, MLLPv2, FRAME or RAW", f.Mode)
	case mode != ModeFRAME && (len(f.Start) > 0 || len(f.End) > 0):
		return fmt.Errorf("mllp: Framing.Start and End are set, but Mode is %s", mode)
	case mode != ModeRAW && (f.Delimiter != "" || f.Idle != 0 || f.Length != 0 || f.AllowUnverifiedEnd):
		return fmt.Errorf("mllp: Framing.Delimiter, Idle, Length or AllowUnverifiedEnd is set, but Mode is %s", mode)
	case mode != ModeMLLPv2 && (f.CommitTimeout != 0 || f.Retries != 0):
		return fmt.Errorf("mllp: Framing.CommitTimeout or Retries is set, but Mode is %s", mode)
	case f.CommitTimeout < 0:
		return errors.New("mllp: Framing.CommitTimeout is negative: a commit that never comes would block the connection for ever")
	}
	switch mode {
	case ModeFRAME:
		return f.validateFrame()
	case ModeRAW:
		return f.validateRaw()
	case ModeMLLP, ModeMLLPv2:
	}
	return nil
}

func (f *Framing) validateFrame() error {
	switch {
	case len(f.End) == 0:
		return errors.New("mllp: Framing.End is empty: nothing would end a message")
	case len(f.Start) > maxFrameBytes || len(f.End) > maxFrameBytes:
		return fmt.Errorf("mllp: Framing.Start or End has more than %d bytes", maxFrameBytes)
	case len(f.Start) > 0 && (f.Start.contains(f.End) || f.End.contains(f.Start)):
		return errors.New("mllp: Framing.Start and End: one holds the other, so a frame's end would look like its start")
	}
	return nil
}

func (f *Framing) validateRaw() error {
	switch f.Delimiter {
	case DelimitEOF, DelimitIdle, DelimitLength, DelimitNewline:
	case "":
		return errors.New("mllp: Framing.Delimiter is not set: nothing would end a RAW message")
	default:
		return fmt.Errorf("mllp: Framing.Delimiter is %q: use eof, idle, length or newline", f.Delimiter)
	}
	switch {
	case f.Idle < 0:
		return errors.New("mllp: Framing.Idle is negative")
	case f.Idle != 0 && f.Delimiter != DelimitIdle && f.Delimiter != DelimitLength:
		return fmt.Errorf("mllp: Framing.Idle is set, but Delimiter is %s", f.Delimiter)
	case f.Delimiter == DelimitLength && f.Length <= 0:
		return fmt.Errorf("mllp: Framing.Length is %d with Delimiter length", f.Length)
	case f.Delimiter != DelimitLength && f.Length != 0:
		return fmt.Errorf("mllp: Framing.Length is set, but Delimiter is %s", f.Delimiter)
	case f.Delimiter == DelimitEOF && f.KeepOpen != nil && *f.KeepOpen:
		return errors.New("mllp: Framing.KeepOpen contradicts Delimiter eof: a message ends with its connection")
	case f.AllowUnverifiedEnd && f.Delimiter == DelimitNewline:
		return errors.New("mllp: Framing.AllowUnverifiedEnd is set, but with Delimiter newline the end of the stream ends no message")
	}
	return nil
}

func (f *Framing) mode() Mode {
	if f.Mode == "" {
		return ModeMLLP
	}
	return f.Mode
}

// keepOpen tells whether a connection carries more than one message.
func (f *Framing) keepOpen() bool {
	if f.KeepOpen != nil {
		return *f.KeepOpen
	}
	return f.Delimiter != DelimitEOF
}

// gap returns the silence that ends a message, 0 for none.
func (f *Framing) gap() time.Duration {
	if f.Delimiter != DelimitIdle {
		return 0
	}
	return orDefault(f.Idle, defaultGap)
}

// ofReplies returns the framing of the replies to messages with framing f.
func (f *Framing) ofReplies() Framing {
	replies := *f
	if f.Delimiter == DelimitLength {
		replies.Delimiter, replies.Length = DelimitIdle, 0
	}
	return replies
}

func (f *Framing) retries() int { return max(0, orDefault(f.Retries, defaultRetries)) }

func (f *Framing) commitTimeout() time.Duration {
	return orDefault(f.CommitTimeout, defaultCommitTimeout)
}

// transport names a connection with this framing.
func (f *Framing) transport(secure bool) string {
	switch mode := f.mode(); {
	case mode == ModeFRAME || mode == ModeRAW:
		if secure {
			return "TCP+TLS"
		}
		return "TCP"
	case secure:
		return "MLLPS"
	}
	return "MLLP"
}

// shape is the mode and delimiter as the Reader looks at them, for every frame.
type shape uint8

const (
	shapeMLLP shape = iota
	shapeMLLPv2
	shapeFrame
	shapeEOF
	shapeIdle
	shapeLength
	shapeNewline
)

func (f *Framing) shape() shape {
	switch f.mode() {
	case ModeMLLPv2:
		return shapeMLLPv2
	case ModeFRAME:
		return shapeFrame
	case ModeRAW:
		switch f.Delimiter {
		case DelimitEOF:
			return shapeEOF
		case DelimitIdle:
			return shapeIdle
		case DelimitLength:
			return shapeLength
		case DelimitNewline:
			return shapeNewline
		}
	case ModeMLLP:
	}
	return shapeMLLP
}

// NewReader returns a Reader of the messages of r with texts of at most limit
// bytes; 0 means 16 MiB, and with a negative limit Next fails, as it does if
// Validate has something to say. With DelimitIdle a Read of r that fails with a
// timeout (a net.Error) is the silence that ends a message; between messages it
// is an error like any other. The end of r is taken for verified. With MLLPv2 a
// commit acknowledgement is a text of one byte, 06 or 15.
func (f *Framing) NewReader(r io.Reader, limit int64) *Reader {
	if err := f.Validate(); err != nil {
		return &Reader{src: failing{err}, junkLimit: defaultMaxJunk, limit: 1}
	}
	if f.gap() > 0 {
		r = pausing{r}
	}
	reader := new(Reader)
	f.setUp(reader, r, orDefault(limit, defaultMaxMessage))
	return reader
}

// failing is a source with nothing but an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// setUp makes r a Reader; f must be valid.
func (f *Framing) setUp(r *Reader, src io.Reader, limit int64) {
	r.src, r.limit, r.junkLimit = src, min(limit, greatestLimit), defaultMaxJunk
	r.shape, r.start, r.stop, r.length, r.trusting = f.shape(), f.Start, f.End, f.Length, f.AllowUnverifiedEnd
	switch r.shape {
	case shapeMLLP, shapeMLLPv2:
		r.pre = 1
	case shapeFrame:
		r.pre = len(f.Start)
	case shapeEOF, shapeIdle, shapeLength, shapeNewline:
		r.heads = -1
	}
}
