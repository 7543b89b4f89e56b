package mllpprobe

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// maxAnswer is how long an answer may be: as much as anyone would buffer.
const maxAnswer = 1 << 20

// An answer is one thing that came: an acknowledgement, or fixed words for what is
// none.
type answer struct {
	words string // what it is, if it is no acknowledgement

	code   string // MSA-1
	id     string // MSA-2
	header []string
	pieces int      // in how many reads its frame came
	flaws  []string // of its form, in fixed words
}

// A parser finds answers in what the peer sends. It is stricter than a sender
// would be, since it judges.
type parser struct {
	buf     []byte
	open    bool   // buf begins with VT
	pieces  int    // reads since the VT
	outside int    // bytes outside of frames, not told yet
	first   []byte // of these
	broken  bool   // nothing more can be understood
}

// feed takes what one read has brought and returns the answers that it ends.
func (p *parser) feed(data []byte) (answers []answer) {
	if p.broken {
		return nil
	}
	p.buf = append(p.buf, data...)
	p.pieces++
	for {
		if !p.open {
			begin := bytes.IndexByte(p.buf, vt[0])
			n := begin
			if begin < 0 {
				n = len(p.buf)
			}
			p.skip(p.buf[:n])
			p.buf = p.buf[n:]
			if begin < 0 {
				return answers
			}
			answers = append(answers, p.flush()...)
			p.open, p.pieces = true, 1
		}
		end := bytes.Index(p.buf, []byte(fs+cr))
		if end < 0 {
			if len(p.buf) > maxAnswer {
				p.broken, p.buf, p.open = true, nil, false
				answers = append(answers, answer{words: "an answer without end"})
			}
			return answers
		}
		answers = append(answers, interpret(p.buf[1:end], p.pieces)...)
		p.buf, p.open = p.buf[end+2:], false
	}
}

// skip notes bytes outside of frames. White space and NUL do no harm there.
func (p *parser) skip(data []byte) {
	for _, c := range data {
		switch c {
		case ' ', '\t', '\r', '\n', 0:
			continue
		}
		p.outside++
		if len(p.first) < 8 {
			p.first = append(p.first, c)
		}
	}
}

// flush tells of what came outside of frames.
func (p *parser) flush() []answer {
	if p.outside == 0 {
		return nil
	}
	words := fmt.Sprintf("%d bytes outside a frame", p.outside)
	switch {
	case bytes.HasPrefix(p.first, []byte("HTTP/")):
		words = "an HTTP answer"
	case bytes.HasPrefix(p.first, []byte("\x15\x03")):
		words = "a TLS alert"
	case bytes.HasPrefix(p.first, []byte("\x16\x03")):
		words = "a TLS handshake"
	}
	p.outside, p.first = 0, nil
	return []answer{{words: words}}
}

// end tells of what was left when no more came.
func (p *parser) end() []answer {
	rest := p.flush()
	if p.open {
		rest = append(rest, answer{words: "part of a frame"})
		p.open, p.buf = false, nil
	}
	return rest
}

// interpret reads the text of a frame. That of a batch may hold several
// acknowledgements.
func interpret(text []byte, pieces int) []answer {
	switch {
	case len(text) == 1 && (text[0] == 0x06 || text[0] == 0x15):
		return []answer{{words: fmt.Sprintf("commit %02x", text[0])}}
	case bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")):
		return []answer{{words: "XML"}}
	}
	segments := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\r' || r == '\n' })
	if len(segments) == 0 || len(segments[0]) < 8 || !slices.Contains([]string{"MSH", "BHS", "FHS"}, segments[0][:3]) {
		return []answer{{words: "a frame without MSH"}}
	}
	separator := segments[0][3:4]
	var flaws []string
	if bytes.IndexByte(text, '\n') >= 0 {
		flaws = append(flaws, "LF ends segments")
	}
	if !bytes.HasSuffix(text, []byte(cr)) {
		flaws = append(flaws, "no CR after the last segment")
	}
	var answers []answer
	var header []string
	for _, segment := range segments {
		parts := strings.Split(segment, separator)
		switch parts[0] {
		case "MSH":
			header = append([]string{"MSH", separator}, parts[1:]...) // MSH-n is header[n]
		case "MSA":
			a := answer{code: field(parts, 1), id: field(parts, 2), header: header, pieces: pieces, flaws: flaws}
			if !slices.Contains([]string{"AA", "AE", "AR", "CA", "CE", "CR"}, a.code) {
				a.words = "an unknown code"
			}
			answers = append(answers, a)
		}
	}
	if len(answers) == 0 {
		return []answer{{words: "a frame without MSA"}}
	}
	return answers
}

// field returns field n of a segment, empty if there are not so many.
func field(parts []string, n int) string {
	if n < len(parts) {
		return parts[n]
	}
	return ""
}

// outcome puts what came into one line of words; sent are the control ids of the
// messages, in order.
func outcome(sent []string, came []answer, end string) string {
	number := map[string]int{}
	for i, id := range slices.Backward(sent) {
		number[id] = i + 1
	}
	var words []string
	for i := 0; i < len(came); i++ {
		a := &came[i]
		n := number[a.id]
		switch {
		case a.words != "":
			words = append(words, a.words)
		case a.id == "":
			words = append(words, a.code+" -")
		case n == 0:
			words = append(words, a.code+" ?")
		default:
			last := n
			for i+1 < len(came) && came[i+1].words == "" && came[i+1].code == a.code && number[came[i+1].id] == last+1 && came[i+1].id != "" {
				i++
				last++
			}
			if last == n {
				words = append(words, fmt.Sprintf("%s %d", a.code, n))
			} else {
				words = append(words, fmt.Sprintf("%s %d-%d", a.code, n, last))
			}
		}
	}
	switch {
	case end != "":
		words = append(words, end)
	case len(words) == 0:
		return "silence"
	}
	return strings.Join(words, ", ")
}
