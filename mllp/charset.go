package mllp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A Charset is a character set as MSH-18 names it (HL7 2.x, table 0211), or one of
// CharsetAuto and CharsetRaw. Package mllp never changes the bytes of a message;
// a Charset is for programs that want its text.
//
// Decode and Encode know ASCII, UTF-8, and parts 1 to 9 and 15 of ISO 8859. The
// other sets of the table (JIS X 0201, 0208 and 0212, KS X 1001, GB 18030, CNS
// 11643, Big5, UTF-16, UTF-32) are recognised, and an error: their tables are
// large, and UTF-16 and UTF-32 cannot be in a frame at all.
type Charset string

// The character sets that have a name of their own here; the zero value is
// CharsetAuto. Parts of ISO 8859 are "8859/1" to "8859/9" and "8859/15".
const (
	CharsetAuto   Charset = ""              // that of MSH-18: see For
	CharsetRaw    Charset = "raw"           // bytes as they are
	CharsetASCII  Charset = "ASCII"         // what an empty MSH-18 means
	CharsetUTF8   Charset = "UNICODE UTF-8" // since HL7 2.4
	CharsetLatin1 Charset = "8859/1"        // ISO 8859-1
)

// Errors of a Charset. Nothing of the text is quoted.
var (
	// ErrUnknownCharset is returned for a name that is in no use.
	ErrUnknownCharset = errors.New("mllp: unknown character set")
	// ErrCharset is returned by Decode for bytes that are no text of the set, by
	// Encode for characters that are not in it, and by both for a set that they do
	// not know.
	ErrCharset = errors.New("mllp: not in the character set")
)

// charsetAliases are the names in use, without blanks, hyphens, dots, slashes and
// underscores, and in small letters.
var charsetAliases = sync.OnceValue(func() map[string]Charset {
	names := map[string]Charset{
		"auto": CharsetAuto, "raw": CharsetRaw,
		"ascii": CharsetASCII, "usascii": CharsetASCII, "isoir6": CharsetASCII, "ansix34": CharsetASCII,
		"unicode": CharsetUTF8, "utf8": CharsetUTF8, "unicodeutf8": CharsetUTF8, "isoir192": CharsetUTF8,
		"unicodeutf16": "UNICODE UTF-16", "utf16": "UNICODE UTF-16", "unicodeutf32": "UNICODE UTF-32", "utf32": "UNICODE UTF-32",
		"isoir14": "ISO IR14", "isoir87": "ISO IR87", "isoir159": "ISO IR159",
		"gb18030": "GB 18030-2000", "gb180302000": "GB 18030-2000", "ksx1001": "KS X 1001", "cns11643": "CNS 11643-1992",
		"cns116431992": "CNS 11643-1992", "big5": "BIG-5",
	}
	for set := range upperHalves {
		part := strings.TrimPrefix(string(set), "8859/")
		for _, prefix := range []string{"8859", "iso8859"} {
			names[prefix+part] = set
		}
	}
	for n, ir := range map[string]string{"1": "100", "2": "101", "3": "109", "4": "110", "5": "144", "6": "127", "7": "126", "8": "138", "9": "148"} {
		names["isoir"+ir] = Charset("8859/" + n)
	}
	for i, n := range []string{"1", "2", "3", "4", "9"} { // Latin-5 is part 9
		names["latin"+string(rune('1'+i))] = Charset("8859/" + n)
	}
	names["latin9"] = "8859/15"
	return names
})

// ParseCharset returns the set that name stands for: a name of table 0211, one
// that is in use for it, such as UTF-8 or ISO-8859-1, or auto or raw. Letters'
// case, blanks, hyphens, slashes, dots and underscores do not count. An empty name
// is CharsetAuto. The error is ErrUnknownCharset.
func ParseCharset(name string) (Charset, error) {
	if name == "" {
		return CharsetAuto, nil
	}
	if set, ok := lookupCharset([]byte(name)); ok {
		return set, nil
	}
	return "", ErrUnknownCharset
}

// lookupCharset is ParseCharset without allocations.
func lookupCharset(name []byte) (Charset, bool) {
	var buf [32]byte
	key := buf[:0]
	for _, c := range name {
		switch {
		case c == ' ' || c == '-' || c == '/' || c == '_' || c == '.':
			continue
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		if len(key) == len(buf) {
			return "", false
		}
		key = append(key, c)
	}
	set, ok := charsetAliases()[string(key)]
	return set, ok
}

// UnmarshalText is ParseCharset.
func (c *Charset) UnmarshalText(text []byte) error {
	set, err := ParseCharset(string(text))
	if err != nil {
		return fmt.Errorf("%w %q", err, text)
	}
	*c = set
	return nil
}

// For returns the set of a message with header h: c or, for CharsetAuto, what
// MSH-18 says. That is ASCII where it is empty; of several repetitions the first,
// which is the message's default, the others being for what stands behind escape
// sequences of ISO 2022. The error is ErrUnknownCharset.
func (c Charset) For(h *Header) (Charset, error) {
	if c != CharsetAuto {
		return c, nil
	}
	name := nth(h.CharacterSet, h.repetition(), 0)
	if len(name) == 0 {
		return CharsetASCII, nil
	}
	set, known := lookupCharset(name)
	if !known || set == CharsetAuto || set == CharsetRaw {
		return "", ErrUnknownCharset
	}
	return set, nil
}

// repetition returns the character between repetitions of a field.
func (h *Header) repetition() byte {
	if len(h.EncodingChars) < 2 {
		return '~'
	}
	return h.EncodingChars[1]
}

// Decode returns text as UTF-8. The error wraps ErrCharset and says where: for
// bytes that stand for no character of the set, for an escape sequence of ISO
// 2022, and for a set that Decode does not know. CharsetAuto is not known: see
// For. CharsetRaw returns text as it is.
func (c Charset) Decode(text []byte) (string, error) {
	upper, ok := upperHalves[c]
	switch {
	case c == CharsetRaw:
		return string(text), nil
	case c == CharsetUTF8:
		for i := 0; i < len(text); {
			r, n := utf8.DecodeRune(text[i:])
			if r == utf8.RuneError && n <= 1 {
				return "", c.wrong("byte", i)
			}
			i += n
		}
		return string(text), nil
	case !ok && c != CharsetASCII:
		return "", fmt.Errorf("%w: %s is not known to Decode and Encode", ErrCharset, c)
	}
	table := []rune(upper)
	var b strings.Builder
	b.Grow(len(text))
	for i, ch := range text {
		r := rune(ch)
		if ch >= 0xA0 && ok {
			r = table[ch-0xA0]
		}
		if ch == 0x1B || r == utf8.RuneError || ch >= 0x80 && !ok {
			return "", c.wrong("byte", i)
		}
		b.WriteRune(r)
	}
	return b.String(), nil
}

// Encode appends to dst the bytes of text, which is UTF-8, and returns the extended
// slice. With replacement zero, a character that is not in the set is an error
// that wraps ErrCharset and says where, and dst is returned as it was; else that
// byte stands for it, mostly '?'.
func (c Charset) Encode(dst []byte, text string, replacement byte) ([]byte, error) {
	upper, ok := upperHalves[c]
	switch {
	case c == CharsetRaw:
		return append(dst, text...), nil
	case !ok && c != CharsetASCII && c != CharsetUTF8:
		return dst, fmt.Errorf("%w: %s is not known to Decode and Encode", ErrCharset, c)
	}
	table, out := []rune(upper), dst
	for i, r := range text {
		// Of U+FFFD that is in the text and one that stands for a wrong byte, the
		// latter is in no set.
		wrong := r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD")
		at := -1
		if r >= 0xA0 && r != utf8.RuneError {
			at = slices.Index(table, r)
		}
		switch {
		case c == CharsetUTF8 && !wrong:
			out = utf8.AppendRune(out, r)
		case r < 0x80 && r != 0x1B, r < 0xA0 && r >= 0x80 && ok:
			out = append(out, byte(r))
		case at >= 0:
			out = append(out, byte(0xA0+at))
		case replacement == 0:
			return dst, c.wrong("character at byte", i)
		default:
			out = append(out, replacement)
		}
	}
	return out, nil
}

func (c Charset) wrong(what string, at int) error {
	return fmt.Errorf("%w: %s, %s %d", ErrCharset, c, what, at)
}
