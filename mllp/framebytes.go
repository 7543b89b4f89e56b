package mllp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
)

// maxFrameBytes is the greatest length of FrameBytes.
const maxFrameBytes = 32

// FrameBytes are the bytes that begin or end a frame. In text and JSON they are
// written as Mirth writes them: two hexadecimal digits for each.
type FrameBytes []byte

// controlNames are the names of the ASCII control characters, 00 to 1F.
var controlNames = [...]string{
	"NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "TAB", "LF", "VT", "FF", "CR", "SO", "SI",
	"DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
}

// ParseFrameBytes reads the bytes that begin or end a frame, at most 32, as
// Mirth's startOfMessageBytes and endOfMessageBytes have them: in hexadecimal,
// two digits for each byte and in either case ("0B", "1C0D"), or as the name of
// an ASCII control character in angle brackets ("<VT>", "<FS><CR>"), as Mirth
// shows them. Both may be mixed, with blanks between them. Empty text is no bytes.
func ParseFrameBytes(s string) (FrameBytes, error) {
	var parsed FrameBytes
	for rest := strings.TrimLeft(s, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		if len(parsed) == maxFrameBytes {
			return nil, fmt.Errorf("mllp: %q is more than %d bytes", s, maxFrameBytes)
		}
		if name, after, ok := strings.Cut(rest, ">"); ok && strings.HasPrefix(name, "<") {
			code := controlCode(name[1:])
			if code < 0 {
				return nil, fmt.Errorf("mllp: %q is not the name of a control character, such as <VT>", name+">")
			}
			parsed, rest = append(parsed, byte(code)), after
			continue
		}
		var b [1]byte
		if _, err := hex.Decode(b[:], []byte(rest[:min(2, len(rest))])); err != nil {
			return nil, fmt.Errorf("mllp: %q is not pairs of hexadecimal digits, such as 1C0D", s)
		}
		parsed, rest = append(parsed, b[0]), rest[2:]
	}
	return parsed, nil
}

// controlCode returns the control character with a name, -1 if there is none.
func controlCode(name string) int {
	for code, known := range controlNames {
		if strings.EqualFold(name, known) {
			return code
		}
	}
	return -1
}

// String returns the bytes in hexadecimal.
func (b FrameBytes) String() string { return strings.ToUpper(hex.EncodeToString(b)) }

// MarshalText returns what String does.
func (b FrameBytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads text as ParseFrameBytes does.
func (b *FrameBytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseFrameBytes(string(text))
	return err
}

func (b FrameBytes) contains(other FrameBytes) bool { return bytes.Contains(b, other) }
