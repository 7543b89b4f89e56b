package mllp

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrNotHL7 is returned, itself or wrapped, by [Header.Parse] and [ParseAck]
// for bytes that do not begin with a header segment of HL7 version 2 in its
// vertical-bar encoding. Nothing of the bytes is quoted.
var ErrNotHL7 = errors.New("mllp: no HL7 header segment")

// The ways in which a header segment is refused. They are made once because
// Parse does not allocate.
var (
	errHeaderSeparators = fmt.Errorf("%w: bad field separator or encoding characters", ErrNotHL7)
	errHeaderFraming    = fmt.Errorf("%w: it contains a framing character (VT or FS)", ErrNotHL7)
	errHeaderLength     = fmt.Errorf("%w: it is longer than 64 KiB", ErrNotHL7)
)

// maxHeaderBytes bounds the header segment, and with it an acknowledgement that
// quotes its fields. Real ones have 100 to 300 bytes; HL7 2.9's own maximum
// lengths add up to less than 4 KiB.
const maxHeaderBytes = 64 << 10

var utf8BOM = []byte("\xEF\xBB\xBF")

// Header is what a transport has to know of a message: fields of its MSH
// segment (HL7 2.x, chapter 2, "MSH - message header segment"), or of the FHS
// or BHS segment that begins a batch. The fields are parts of the message that
// was parsed, in its own encoding and with escape sequences as they stand; they
// are valid as long as that message's bytes are. An absent field is empty.
//
// The zero Header stands for a message of which nothing could be read.
type Header struct {
	FieldSeparator byte   // MSH-1, mostly '|'
	EncodingChars  []byte // MSH-2, mostly `^~\&`; a fifth is HL7 2.7's truncation character

	SendingApplication   []byte // MSH-3
	SendingFacility      []byte // MSH-4
	ReceivingApplication []byte // MSH-5
	ReceivingFacility    []byte // MSH-6
	MessageType          []byte // MSH-9, such as ADT^A01^ADT_A01
	ControlID            []byte // MSH-10, to the byte; in a batch FHS-11 or BHS-11
	ProcessingID         []byte // MSH-11
	VersionID            []byte // MSH-12
	AcceptAck            []byte // MSH-15
	ApplicationAck       []byte // MSH-16
	CharacterSet         []byte // MSH-18, with its repetitions

	// IsBatch tells that the first segment is FHS or BHS. A batch header has
	// the separators, the senders and receivers and a control ID, and no more.
	IsBatch bool
}

// Parse reads the header segment at the start of msg, after a byte order mark
// if there is one. The segment ends at CR, LF or the end of msg: what is in a
// Header can hold neither, nor the framing characters VT and FS, and so cannot
// grow into a segment or a frame of its own where it is quoted.
//
// The error is or wraps [ErrNotHL7], and h is then zero. It is returned where
// msg begins otherwise than with MSH, FHS or BHS, where the separators are not
// ASCII punctuation, where the field separator is +, - or ., where there are none or more than five encoding
// characters, and for a segment of more than 64 KiB. Parse does not allocate.
func (h *Header) Parse(msg []byte) error {
	err := h.parse(msg)
	if err != nil {
		*h = Header{}
	}
	return err
}

// parse is Parse, but leaves h as it happens to be after an error.
func (h *Header) parse(msg []byte) error {
	msg = bytes.TrimPrefix(msg, utf8BOM)
	if len(msg) < 4 {
		return ErrNotHL7
	}
	batch := false
	switch string(msg[:3]) {
	case "MSH":
	case "FHS", "BHS":
		batch = true
	default:
		return ErrNotHL7
	}
	sep := msg[3]
	if !isSeparator(sep) || sep == '+' || sep == '-' || sep == '.' {
		return errHeaderSeparators // times and versions are written with +, - and .
	}
	*h = Header{FieldSeparator: sep, IsBatch: batch}

	end := segmentEnd(msg[:min(len(msg), maxHeaderBytes+1)])
	rest := msg[4:end]
	if bytes.IndexByte(rest, vt) >= 0 || bytes.IndexByte(rest, fs) >= 0 {
		return errHeaderFraming
	}
	if end > maxHeaderBytes {
		return errHeaderLength
	}
	for n := 2; len(rest) > 0 && n <= lastField; n++ {
		field := rest
		if i := bytes.IndexByte(rest, sep); i >= 0 {
			field, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		h.set(n, field)
	}
	if n := len(h.EncodingChars); n == 0 || n > 5 {
		return errHeaderSeparators
	}
	for _, c := range h.EncodingChars {
		if !isSeparator(c) {
			return errHeaderSeparators
		}
	}
	return nil
}

// lastField is the last field of the header segment that a Header has.
const lastField = 18

// set stores field n of the header segment.
func (h *Header) set(n int, field []byte) {
	if h.IsBatch && n > 6 {
		if n == 11 {
			h.ControlID = field
		}
		return
	}
	switch n {
	case 2:
		h.EncodingChars = field
	case 3:
		h.SendingApplication = field
	case 4:
		h.SendingFacility = field
	case 5:
		h.ReceivingApplication = field
	case 6:
		h.ReceivingFacility = field
	case 9:
		h.MessageType = field
	case 10:
		h.ControlID = field
	case 11:
		h.ProcessingID = field
	case 12:
		h.VersionID = field
	case 15:
		h.AcceptAck = field
	case 16:
		h.ApplicationAck = field
	case 18:
		h.CharacterSet = field
	}
}

// IsAck tells whether the message is a general acknowledgement (MSH-9.1 is
// ACK), which in original mode is never itself acknowledged.
func (h *Header) IsAck() bool {
	return string(h.component(h.MessageType, 0)) == "ACK"
}

// component returns component n of field, counted from 0.
func (h *Header) component(field []byte, n int) []byte {
	if len(h.EncodingChars) == 0 {
		return nil
	}
	return nth(field, h.EncodingChars[0], n)
}

// minorVersion returns N of version 2.N, and latest for any other text: a
// version that we do not know is taken for a new one, an absent one is 2.5.
func (h *Header) minorVersion() int {
	const latest = 9
	v := h.component(h.VersionID, 0)
	switch {
	case len(v) == 0:
		return defaultMinorVersion
	case len(v) >= 3 && v[0] == '2' && v[1] == '.' && '1' <= v[2] && v[2] <= '9':
		return int(v[2] - '0')
	}
	return latest
}

// nth returns the part of s with index n between separators, nil if there are
// not so many.
func nth(s []byte, sep byte, n int) []byte {
	begin := 0
	for i, c := range s {
		if c != sep {
			continue
		}
		if n == 0 {
			return s[begin:i]
		}
		begin = i + 1
		n--
	}
	if n > 0 {
		return nil
	}
	return s[begin:]
}

// segmentEnd returns the length of the first segment of s without what ends it.
// It looks at little more than that: a text of short segments that all end with LF
// is not searched for a CR from each of them on.
func segmentEnd(s []byte) int {
	for n := 256; ; n *= 2 {
		head := s[:min(n, len(s))]
		i := bytes.IndexByte(head, '\r')
		if i >= 0 {
			head = head[:i]
		}
		if j := bytes.IndexByte(head, '\n'); j >= 0 {
			return j
		}
		if i >= 0 || len(head) == len(s) {
			return len(head)
		}
	}
}
