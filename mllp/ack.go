package mllp

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// AckCode is an acknowledgement code, MSA-1 (HL7 table 0008).
type AckCode string

// The acknowledgement codes. The commit codes belong to enhanced mode (HL7 2.2
// and later): a receiver took, or did not take, charge of the message, and says
// nothing yet of what its application thinks of it.
const (
	AA AckCode = "AA" // application accept
	AE AckCode = "AE" // application error: another try may succeed
	AR AckCode = "AR" // application reject: the same message will be rejected again
	CA AckCode = "CA" // commit accept
	CE AckCode = "CE" // commit error
	CR AckCode = "CR" // commit reject
)

// Valid tells whether c is one of the six codes.
func (c AckCode) Valid() bool {
	switch c {
	case AA, AE, AR, CA, CE, CR:
		return true
	}
	return false
}

// Accepted tells whether c is AA or CA: the receiver has taken the message.
func (c AckCode) Accepted() bool { return c == AA || c == CA }

// Ack is an acknowledgement as it was received.
type Ack struct {
	Code      AckCode // MSA-1
	ControlID string  // MSA-2, to the byte
	// Text is MSA-3. It is the peer's own text and may quote patient data:
	// it is in no error and no log line of this package.
	Text string
	// ErrorCode is the code of the first ERR segment (ERR-3.1, or ERR-1.4 up
	// to HL7 2.4), such as "207" (table 0357). It is empty where there is none,
	// or where it is not of 1 to 20 letters and digits.
	ErrorCode string
}

// Errors of ParseAck. ErrNotHL7 is one too.
var (
	errNoMSA   = errors.New("mllp: the reply has no MSA segment")
	errManyMSA = errors.New("mllp: the reply has more than one MSA segment")
	errMSACode = errors.New("mllp: the reply's MSA-1 is not an acknowledgement code")
)

// ParseAck reads the acknowledgement in reply. Segments may end with CR, LF or
// CRLF, the last one with nothing; a byte order mark is skipped. A reply that
// does not begin with a header segment, that has no MSA segment or several, or
// whose code is not in table 0008 is an error, which quotes nothing of it.
func ParseAck(reply []byte) (Ack, error) {
	msa, err := findMSA(reply)
	if err != nil {
		return Ack{}, err
	}
	return msa.export(), nil
}

// acknowledgement is an Ack that points into the reply it was read from.
type acknowledgement struct {
	code                       AckCode
	controlID, text, errorCode []byte
}

func (a acknowledgement) export() Ack {
	return Ack{Code: a.code, ControlID: string(a.controlID), Text: string(a.text), ErrorCode: string(a.errorCode)}
}

// findMSA is ParseAck without its allocations.
func findMSA(reply []byte) (acknowledgement, error) {
	var (
		h   Header
		ack acknowledgement
	)
	if err := h.Parse(reply); err != nil {
		return ack, err
	}
	found, hasERR := false, false
	for rest := reply; len(rest) > 0; {
		end := segmentEnd(rest)
		segment := rest[:end]
		rest = rest[min(end+1, len(rest)):]
		if len(segment) < 4 || segment[3] != h.FieldSeparator {
			continue
		}
		switch string(segment[:3]) {
		case "MSA":
			if found {
				return acknowledgement{}, errManyMSA
			}
			found = true
			ack.code = ackCode(nth(segment, h.FieldSeparator, 1))
			ack.controlID = nth(segment, h.FieldSeparator, 2)
			ack.text = nth(segment, h.FieldSeparator, 3)
		case "ERR":
			if !hasERR {
				hasERR = true
				ack.errorCode = h.errorCode(segment)
			}
		}
	}
	switch {
	case !found:
		return acknowledgement{}, errNoMSA
	case ack.code == "":
		return acknowledgement{}, errMSACode
	}
	return ack, nil
}

// ackCode returns the code that s spells, "" for anything else. The constants
// are returned rather than a copy of s, which would be allocated.
func ackCode(s []byte) AckCode {
	for _, code := range [...]AckCode{AA, AE, AR, CA, CE, CR} {
		if string(s) == string(code) {
			return code
		}
	}
	return ""
}

// errorCode returns the code of an ERR segment, nil if it has none that is fit
// to be shown: a code is short and of letters and digits, so no name passes for one
// with its separators, and a log line that shows it stays one line.
func (h *Header) errorCode(segment []byte) []byte {
	code := h.component(nth(segment, h.FieldSeparator, 3), 0)
	if len(code) == 0 {
		code = h.component(nth(segment, h.FieldSeparator, 1), 3)
		if len(h.EncodingChars) >= 4 {
			code = nth(code, h.EncodingChars[3], 0)
		}
	}
	if len(code) > 20 || bytes.ContainsFunc(code, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return nil
	}
	return code
}

const (
	// defaultMinorVersion is the HL7 2.N of an acknowledgement whose message
	// does not say its own version.
	defaultMinorVersion = 5
	// maxAckText is the length of MSA-3 up to HL7 2.6 (chapter 2, "MSA").
	maxAckText = 80
)

// AppendAck appends to dst the acknowledgement of the message with header h and
// returns the extended buffer. It has an MSH and an MSA segment, and with a
// code other than AA and CA, from HL7 2.5 on, an ERR segment. All segments end
// with CR (HL7 2.x, chapter 2, "Message acknowledgment: original mode").
//
//   - MSH-1, MSH-2 (the separators), MSH-11, MSH-12 and MSH-18 are the
//     message's; an absent MSH-12 becomes 2.5.
//   - MSH-3 and MSH-4 are the message's MSH-5 and MSH-6, and the other way round.
//   - MSH-7 is now, in its own time zone.
//   - MSH-9 is ACK^event^ACK, as HL7 has it since 2.4; ACK^event in 2.3 and
//     2.3.1; ACK in 2.1 and 2.2, and where the message names no event.
//   - MSH-10 is id, the acknowledgement's own control ID.
//   - MSA-1 is code. An invalid code is written as AE: what is not known to be
//     accepted is not. HL7 2.1 has no commit codes: there CA becomes AA, and so on.
//   - MSA-2 is the message's MSH-10, byte for byte.
//   - MSA-3 is text, of which the first 80 bytes are used. It must say
//     nothing of the message's content: it travels on, and is logged by peers.
//   - ERR-3 is 207 (table 0357, application internal error), ERR-4 is E.
//
// In id and text the separators and control characters become blanks, and what
// is not ASCII becomes question marks, since the message's character set is not
// known to be theirs. The header's fields are taken as [Header.Parse] left
// them. A zero h makes an acknowledgement with the usual separators and an
// empty MSA-2. AppendAck allocates nothing if dst has room.
func AppendAck(dst []byte, h *Header, code AckCode, text string, id []byte, now time.Time) []byte {
	sep, encoding := h.FieldSeparator, h.EncodingChars
	if len(encoding) == 0 {
		sep, encoding = '|', []byte(`^~\&`)
	}
	minor := h.minorVersion()
	if !code.Valid() {
		code = AE
	}
	dst = slices.Grow(dst, 160+len(encoding)+len(h.SendingApplication)+len(h.SendingFacility)+
		len(h.ReceivingApplication)+len(h.ReceivingFacility)+len(h.MessageType)+len(id)+len(h.ProcessingID)+
		len(h.VersionID)+len(h.CharacterSet)+len(h.ControlID)+min(len(text), maxAckText))

	dst = append(dst, "MSH"...)
	dst = append(dst, sep)
	dst = append(dst, encoding...)
	for _, field := range [...][]byte{h.ReceivingApplication, h.ReceivingFacility, h.SendingApplication, h.SendingFacility} {
		dst = append(append(dst, sep), field...)
	}
	dst = append(dst, sep)
	dst = appendTime(dst, now)
	dst = append(dst, sep, sep)
	dst = append(dst, "ACK"...)
	if event := h.component(h.MessageType, 1); len(event) > 0 && minor >= 3 {
		dst = append(append(dst, encoding[0]), event...)
		if minor >= 4 {
			dst = append(append(dst, encoding[0]), "ACK"...)
		}
	}
	dst = append(dst, sep)
	dst = appendClean(dst, id, len(id), sep, encoding)
	dst = append(append(dst, sep), h.ProcessingID...)
	dst = append(dst, sep)
	if len(h.VersionID) > 0 {
		dst = append(dst, h.VersionID...)
	} else {
		dst = append(dst, '2', '.', '0'+defaultMinorVersion)
	}
	if len(h.CharacterSet) > 0 {
		dst = append(dst, sep, sep, sep, sep, sep, sep)
		dst = append(dst, h.CharacterSet...)
	}

	dst = append(dst, "\rMSA"...)
	dst = append(dst, sep)
	if minor == 1 {
		dst = append(dst, 'A', code[1])
	} else {
		dst = append(dst, code...)
	}
	dst = append(append(dst, sep), h.ControlID...)
	if text != "" {
		dst = append(dst, sep)
		dst = appendClean(dst, text, maxAckText, sep, encoding)
	}
	dst = append(dst, '\r')

	if minor >= 5 && !code.Accepted() {
		dst = append(dst, "ERR"...)
		dst = append(dst, sep, sep, sep)
		dst = append(append(dst, "207"...), encoding[0])
		dst = append(append(dst, "Application internal error"...), encoding[0])
		dst = append(append(dst, "HL70357"...), sep, 'E', '\r')
	}
	return dst
}

// stamp is a time as text. Acknowledgements follow each other more often than
// seconds do, and formatting is a third of the work of making one.
type stamp struct {
	second int64
	zone   *time.Location
	text   []byte
}

var lastStamp atomic.Pointer[stamp]

// appendTime appends now, to the second and with its zone (HL7 2.x, chapter 2A, "DTM").
func appendTime(dst []byte, now time.Time) []byte {
	s := lastStamp.Load()
	if second, zone := now.Unix(), now.Location(); s == nil || s.second != second || s.zone != zone {
		s = &stamp{second: second, zone: zone, text: now.AppendFormat(nil, "20060102150405-0700")}
		lastStamp.Store(s)
	}
	return append(dst, s.text...)
}

// appendClean appends the first limit bytes of s in a form in which they are
// nothing but text: see AppendAck.
func appendClean[T string | []byte](dst []byte, s T, limit int, sep byte, encoding []byte) []byte {
	for i := range min(len(s), limit) {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9', 'a' <= c && c <= 'z': // no separators: see Header.Parse
		case c >= 0x80:
			c = '?'
		case c < ' ' || c == 0x7F || c == sep || bytes.IndexByte(encoding, c) >= 0:
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}
