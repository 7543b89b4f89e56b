package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The bytes that frame a message in MLLP (HL7 v2, appendix C; MLLP release 1).
const (
	frameStart = 0x0B // VT
	frameEnd   = 0x1C // FS
)

// span is the place of one message in a file: data[start:end].
type span struct{ start, end int }

// split finds the messages of a file. The file may be a capture of MLLP frames,
// or text in which every message begins on a line of its own with MSH; blank
// lines and the envelopes of the batch protocol (FHS, BHS, BTS, FTS: HL7 v2,
// chapter 2.10.3) may lie between messages and belong to none.
//
// What is neither a message nor one of these is an error, so that nothing of a
// file is left out silently; so is a batch whose trailer counts more or fewer
// messages than there are. Errors give places, never content.
func split(data []byte) ([]span, error) {
	if bytes.HasPrefix(data, []byte{0xFF, 0xFE}) || bytes.HasPrefix(data, []byte{0xFE, 0xFF}) {
		return nil, errors.New("the file is UTF-16, which MLLP cannot carry: convert it to UTF-8 or a single-byte character set")
	}
	at := 0
	if bytes.HasPrefix(data, []byte("\xEF\xBB\xBF")) {
		at = 3 // an editor's byte order mark
	}
	at = skipBlank(data, at)
	var spans []span
	var err error
	if at < len(data) && data[at] == frameStart {
		spans, err = splitFrames(data, at)
	} else {
		spans, err = splitLines(data, at, len(data))
	}
	if err == nil && len(spans) == 0 {
		err = errors.New("there is no message in it")
	}
	return spans, err
}

// splitFrames finds the messages of a capture of MLLP frames. A frame ends at FS
// CR; since editors rewrite line ends and captures stop early, FS LF, FS at the
// end of the file and FS directly before the next frame end it too.
func splitFrames(data []byte, at int) ([]span, error) {
	var spans []span
	for at = skipBlank(data, at); at < len(data); at = skipBlank(data, at) {
		if data[at] != frameStart {
			return nil, fmt.Errorf("byte %d: not the start of an MLLP frame (hex %02X), though the file begins with one", at+1, data[at])
		}
		start := at + 1
		end := endOfFrame(data, start)
		if end < 0 {
			return nil, fmt.Errorf("byte %d: the MLLP frame that begins here has no end", at+1)
		}
		if i := headerInside(data[start:end]); i >= 0 {
			return nil, fmt.Errorf("byte %d: the MLLP frame that begins here has no end before the next begins at byte %d", at+1, start+i+1)
		}
		text := bytes.TrimPrefix(data[start:end], []byte("\xEF\xBB\xBF"))
		switch kindOf(text) {
		case messageHeader:
			spans = append(spans, span{start, end})
		case envelopeHeader:
			inner, err := splitLines(data, end-len(text), end)
			if err != nil {
				return nil, fmt.Errorf("in the MLLP frame at byte %d: %w", at+1, err)
			}
			spans = append(spans, inner...)
		case blankLine, envelopeTrailer, otherLine:
			if skipBlank(data[:end], start) < end {
				return nil, fmt.Errorf("byte %d: the MLLP frame that begins here does not hold an HL7 message", at+1)
			}
		}
		at = end + 1
	}
	return spans, nil
}

// endOfFrame returns the place of the FS that ends the frame whose content
// begins at from, or -1. A lone FS is content.
func endOfFrame(data []byte, from int) int {
	for {
		i := bytes.IndexByte(data[from:], frameEnd)
		if i < 0 {
			return -1
		}
		end := from + i
		if end+1 == len(data) {
			return end
		}
		switch data[end+1] {
		case '\r', '\n', frameStart:
			return end
		}
		from = end + 1
	}
}

// headerInside returns where in a frame's content another frame begins, or -1.
func headerInside(content []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(content[from:], frameStart)
		if i < 0 {
			return -1
		}
		from += i + 1
		switch kindOf(content[from:]) {
		case messageHeader, envelopeHeader:
			return from - 1
		case blankLine, envelopeTrailer, otherLine:
		}
	}
}

// splitLines finds the messages in data[from:to], where each begins on a line of
// its own. Lines end with CR, LF or both.
func splitLines(data []byte, from, to int) ([]span, error) {
	var spans []span
	var open bool // the last span has not ended
	var batch envelope
	line := 1 + bytes.Count(data[:from], []byte("\n"))
	for at := from; at < to; line++ {
		end, next := endOfLine(data[:to], at)
		if i := bytes.IndexAny(data[at:end], "\x0B\x1C"); i >= 0 {
			return nil, fmt.Errorf("line %d: the framing byte %02X within text: MLLP frames and plain messages are mixed", line, data[at+i])
		}
		kind := kindOf(data[at:end])
		switch kind {
		case messageHeader:
			spans = append(spans, span{start: at})
			open = true
			batch.messages++
		case envelopeHeader, envelopeTrailer:
			open = false
			if err := batch.see(data[at:end]); err != nil {
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
		case otherLine:
			if !open {
				return nil, fmt.Errorf("line %d: neither a message (MSH and its separators) nor a batch envelope begins here", line)
			}
		case blankLine:
		}
		if open && kind != blankLine {
			spans[len(spans)-1].end = end // without the line's end, and so without blank lines that follow
		}
		at = next
	}
	return spans, nil
}

// endOfLine returns where the line that begins at from ends, and where the next
// begins.
func endOfLine(data []byte, from int) (end, next int) {
	i := bytes.IndexAny(data[from:], "\r\n")
	if i < 0 {
		return len(data), len(data)
	}
	end = from + i
	if bytes.HasPrefix(data[end:], []byte("\r\n")) {
		return end, end + 2
	}
	return end, end + 1
}

// skipBlank returns the place of the first byte from at on that is not space.
func skipBlank(data []byte, at int) int {
	for at < len(data) && (data[at] == '\r' || data[at] == '\n' || data[at] == ' ' || data[at] == '\t') {
		at++
	}
	return at
}

// lineKind is what a line is to the splitter.
type lineKind int

const (
	otherLine       lineKind = iota // any other segment
	blankLine                       // nothing but space
	messageHeader                   // MSH: a message begins
	envelopeHeader                  // FHS, BHS
	envelopeTrailer                 // BTS, FTS
)

// kindOf classifies the line that line begins with. A header must have its
// separators: free text in which a line begins with the letters MSH is no header.
func kindOf(line []byte) lineKind {
	if skipBlank(line, 0) == len(line) {
		return blankLine
	}
	if len(line) < 3 {
		return otherLine
	}
	switch string(line[:3]) {
	case "MSH":
		if hasSeparators(line) {
			return messageHeader
		}
	case "FHS", "BHS":
		if hasSeparators(line) {
			return envelopeHeader
		}
	case "FTS", "BTS":
		if len(line) == 3 || isPunctuation(line[3]) || line[3] == '\r' || line[3] == '\n' {
			return envelopeTrailer
		}
	}
	return otherLine
}

// hasSeparators tells whether a header segment names its separators: a field
// separator, and one to five encoding characters up to the next (four in most
// messages, five since HL7 2.7). Package mllp holds that +, - and . are none.
func hasSeparators(header []byte) bool {
	if len(header) < 5 || !isPunctuation(header[3]) || strings.IndexByte("+-.", header[3]) >= 0 {
		return false
	}
	for i, c := range header[4:] {
		if c == header[3] || c == '\r' || c == '\n' {
			return i > 0
		}
		if i == 5 || !isPunctuation(c) {
			return false
		}
	}
	return true
}

// isPunctuation tells what may be a separator: a visible ASCII character that is
// neither a letter nor a digit.
func isPunctuation(c byte) bool {
	return c > ' ' && c < 0x7F && !isAlphanumeric(c)
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// envelope counts what the trailers of the batch protocol count.
type envelope struct {
	messages int // since the batch's header
	batches  int // since the file's header
}

// see takes note of an envelope segment, and checks a trailer's count where it
// gives one: BTS-1 is the number of messages, FTS-1 that of batches.
func (e *envelope) see(segment []byte) error {
	switch string(segment[:3]) {
	case "FHS":
		*e = envelope{}
	case "BHS":
		e.messages = 0
		e.batches++
	case "BTS":
		if n, ok := trailerCount(segment); ok && n != e.messages {
			return fmt.Errorf("the batch trailer counts %d messages, but %d are there", n, e.messages)
		}
		e.messages = 0
	case "FTS":
		// Without BHS segments, which are optional, there is nothing to count.
		if n, ok := trailerCount(segment); ok && e.batches > 0 && n != e.batches {
			return fmt.Errorf("the file trailer counts %d batches, but %d are there", n, e.batches)
		}
		*e = envelope{}
	}
	return nil
}

// trailerCount reads the first field of a trailer, if it is a number.
func trailerCount(segment []byte) (int, bool) {
	if len(segment) < 5 {
		return 0, false
	}
	field, _, _ := bytes.Cut(segment[4:], segment[3:4])
	n, err := strconv.Atoi(string(bytes.TrimSpace(field)))
	return n, err == nil
}

// withSegmentEnds returns a message of a text file as HL7 wants it: every segment
// ends with CR (HL7 v2, chapter 2.5.2), the last one too. A message that has CRs
// of its own keeps all its bytes, since its LFs are content; in any other the ends
// of lines become CR, and changed says so.
func withSegmentEnds(text []byte) (message []byte, changed bool) {
	text = bytes.TrimRight(text, "\r\n")
	message = make([]byte, 0, len(text)+1)
	if hasLoneCR(text) || !bytes.ContainsRune(text, '\n') {
		return append(append(message, text...), '\r'), false
	}
	for line := range bytes.FieldsFuncSeq(text, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if kindOf(line) != blankLine {
			message = append(append(message, line...), '\r')
		}
	}
	return message, true
}

// hasLoneCR tells whether text holds a CR that is not half of CR LF.
func hasLoneCR(text []byte) bool {
	return bytes.Count(text, []byte("\r")) > bytes.Count(text, []byte("\r\n"))
}

// setControlID returns a copy of message with MSH-10 replaced. A header that ends
// before MSH-10 is lengthened.
func setControlID(message []byte, id string) []byte {
	separator := message[3]
	end, _ := endOfLine(message, 0)
	at := 3
	fields := 1 // MSH-1 is the separator itself
	for fields < 9 && at < end {
		i := bytes.IndexByte(message[at+1:end], separator)
		if i < 0 {
			break
		}
		at += 1 + i
		fields++
	}
	out := make([]byte, 0, len(message)+len(id)+8)
	if fields < 9 {
		out = append(out, message[:end]...)
		out = append(out, bytes.Repeat([]byte{separator}, 9-fields)...)
		return append(append(out, id...), message[end:]...)
	}
	rest := end
	if i := bytes.IndexByte(message[at+1:end], separator); i >= 0 {
		rest = at + 1 + i
	}
	out = append(append(out, message[:at+1]...), id...)
	return append(out, message[rest:]...)
}
