package engine

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// charsetNote is the source map's key for the character set that a source's
// configuration gives to its messages.
const charsetNote = "charsetEncoding"

// A charsetError is a message that cannot be converted. However often it is
// tried, that remains so.
type charsetError struct{ err error }

func (e *charsetError) Error() string        { return "the message cannot be converted: " + e.err.Error() }
func (e *charsetError) Unwrap() error        { return e.err }
func (e *charsetError) MaybeDelivered() bool { return false }
func (e *charsetError) Retryable() bool      { return false }
func (e *charsetError) Code() string         { return "charset" }

var errBatch = errors.New("a batch may hold messages in several character sets")

// convert returns the message in the character set to, from that of its source or
// of its MSH-18. What it would not change it returns as it is; else MSH-18 says
// what the message is in now, since a receiver that heeds it would misread names
// otherwise.
func convert(m *store.Message, to mllp.Charset) ([]byte, error) {
	var h mllp.Header
	if err := h.Parse(m.Raw); err != nil {
		return nil, &charsetError{err}
	}
	if h.IsBatch {
		return nil, &charsetError{errBatch}
	}
	from, err := charsetOf(m, &h)
	if err != nil {
		return nil, &charsetError{err}
	}
	if from == to || from == mllp.CharsetRaw {
		return m.Raw, nil
	}
	text, err := from.Decode(m.Raw)
	if err != nil {
		return nil, &charsetError{err}
	}
	converted, err := to.Encode(make([]byte, 0, len(m.Raw)+len(m.Raw)/8), text, 0)
	if err != nil {
		return nil, &charsetError{err}
	}
	if bytes.Equal(converted, m.Raw) {
		return m.Raw, nil
	}
	return withCharset(converted, h.FieldSeparator, to), nil
}

// charsetOf returns the set of a message.
func charsetOf(m *store.Message, h *mllp.Header) (mllp.Charset, error) {
	notes, err := m.Source.Notes()
	if err != nil {
		return "", err
	}
	if name := notes[charsetNote]; name != "" {
		return mllp.ParseCharset(name)
	}
	set, err := mllp.CharsetAuto.For(h)
	if err != nil {
		return "", fmt.Errorf("MSH-18: %w", err)
	}
	return set, nil
}

// withCharset returns msg, which begins with MSH or a byte order mark, with MSH-18
// set, and with as many separators before it as that takes.
func withCharset(msg []byte, separator byte, set mllp.Charset) []byte {
	const field = 17 // of those between separators, from the segment's name at 0: MSH-1 is a separator
	begin := bytes.Index(msg, []byte("MSH"))
	end := begin + bytes.IndexAny(msg[begin:], "\r\n")
	if end < begin {
		end = len(msg)
	}
	fields := bytes.Split(msg[begin:end], []byte{separator})
	for len(fields) <= field {
		fields = append(fields, nil)
	}
	fields[field] = []byte(set)
	out := bytes.Clone(msg[:begin])
	out = append(out, bytes.Join(fields, []byte{separator})...)
	return append(out, msg[end:]...)
}
