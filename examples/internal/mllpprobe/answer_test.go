package mllpprobe

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWhatComesIsPutIntoWords(t *testing.T) {
	const head = "\vMSH|^~\\&|A|B|C|D|20260101||ACK|x|T|2.5\r"
	for name, tt := range map[string]struct{ in, want string }{
		"an acknowledgement":            {head + "MSA|AA|1\r\x1c\r", "AA 1"},
		"three in order":                {head + "MSA|AA|1\r\x1c\r" + head + "MSA|AA|2\r\x1c\r" + head + "MSA|AA|3\r\x1c\r", "AA 1-3"},
		"a gap":                         {head + "MSA|AA|1\r\x1c\r" + head + "MSA|AA|3\r\x1c\r", "AA 1, AA 3"},
		"another code":                  {head + "MSA|AA|1\r\x1c\r" + head + "MSA|AE|2\r\x1c\r", "AA 1, AE 2"},
		"one twice":                     {head + "MSA|AA|1\r\x1c\r" + head + "MSA|AA|1\r\x1c\r", "AA 1, AA 1"},
		"another's id":                  {head + "MSA|AA|10\r\x1c\r", "AA ?"},
		"no id":                         {head + "MSA|AR|\r\x1c\r" + head + "MSA|AR\r\x1c\r", "AR -, AR -"},
		"a batch of answers":            {head + "MSA|AA|1\rMSH|^~\\&|A\rMSA|AA|2\r\x1c\r", "AA 1-2"},
		"a code that is none":           {head + "MSA|OK|1\r\x1c\r", "an unknown code"},
		"other separators":              {"\vMSH#~!%@#A\rMSA#AA#1\r\x1c\r", "AA 1"},
		"LF":                            {"\vMSH|^~\\&|A\nMSA|AA|1\n\x1c\r", "AA 1"},
		"white space between":           {"\r\n" + head + "MSA|AA|1\r\x1c\r\n\x00", "AA 1"},
		"bytes before":                  {"OK\r" + head + "MSA|AA|1\r\x1c\r", "2 bytes outside a frame, AA 1"},
		"bytes after":                   {head + "MSA|AA|1\r\x1c\rOK", "AA 1, 2 bytes outside a frame"},
		"white space among them":        {"O K \r\x00!", "3 bytes outside a frame"},
		"no end":                        {head + "MSA|AA|1\r\x1c", "part of a frame"},
		"an empty frame":                {"\v\x1c\r", "a frame without MSH"},
		"a segment that begins as MSA":  {head + "MSAX|AA|1\r\x1c\r", "a frame without MSA"},
		"a commit block":                {"\v\x15\x1c\r", "commit 15"},
		"XML":                           {"\v<ACK/>\x1c\r", "XML"},
		"HTTP":                          {"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP answer"},
		"a TLS alert":                   {"\x15\x03\x01\x00\x02\x02\x46", "a TLS alert"},
		"nothing":                       {"", "silence"},
		"a header that is only a start": {"\vMSH\x1c\r", "a frame without MSH"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.want, heard([]byte(tt.in), 1<<20))
			assert.Equal(t, tt.want, heard([]byte(tt.in), 1), "byte by byte")
		})
	}
}

// heard is the outcome of what comes in reads of n bytes.
func heard(data []byte, n int) string {
	var p parser
	var came []answer
	for chunk := range slices.Chunk(data, n) {
		came = append(came, p.feed(chunk)...)
	}
	return outcome([]string{"1", "2", "3"}, append(came, p.end()...), "")
}

func FuzzOutcomeDoesNotDependOnReads(f *testing.F) {
	f.Add([]byte("x\vMSH|^~\\&|A\rMSA|AA|1\r\x1c\r\vMSH|^~\\&|A\rMSA|AE|2\r\x1c\r\v\x06\x1c"), 3)
	f.Add([]byte("HTTP/1.1\v\x1c\v\x1c\r\r"), 1)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		whole := heard(data, max(1, len(data)))
		assert.Equal(t, whole, heard(data, 1+min(max(n, 0), len(data))))
		if bytes.Contains(data, []byte("CANARY")) {
			assert.NotContains(t, whole, "CANARY")
		}
	})
}

func TestTheBestReadingOfARefusalCounts(t *testing.T) {
	s := &Scenario{good: []string{"AA 1-2", "AR 1, AA 3"}, tolerable: []meaning{{"NAK 1, AA 2", "refuses"}}, bad: []meaning{{"AA 1", "lost"}}}
	answers := func(words string) *talk {
		peer := &talk{sent: []string{"1", "2", "3"}}
		for word := range strings.SplitSeq(words, ", ") {
			code, id, _ := strings.Cut(word, " ")
			peer.came = append(peer.came, answer{code: code, id: id})
		}
		return peer
	}
	for came, want := range map[string]Grade{
		"AA 1, AA 2": OK, "AR 1, AR 2": OK, "AR 1, AA 2": OK, "AR 1, AR 3": OK, "AE 1, AA 2": Differs, "AE 1, AR 2": Differs, "AA 1": Bad, "AR 1": Bad, "AR 2, AR 1": Bad,
	} {
		peer := answers(came)
		grade, _ := s.judge(peer.outcome(), peer.readings("AR")...)
		assert.Equal(t, want, grade, came)
	}
	peer := answers("AR 1, AR 2")
	assert.Empty(t, peer.readings(""), "the ordinary message was taken")
	grade, remark := s.judge(peer.outcome())
	assert.Equal(t, Bad, grade)
	assert.Empty(t, remark)
	s.literal = true
	grade, _ = s.judge(peer.outcome(), peer.readings("AR")...)
	assert.Equal(t, Bad, grade)
}

func TestEveryPatternCompiles(t *testing.T) {
	for _, s := range catalogue {
		for _, p := range s.good {
			match(p, "")
		}
		for _, m := range slices.Concat(s.tolerable, s.bad, badOnes) {
			match(m.pattern, "")
			assert.NotEmpty(t, m.remark, s.Name)
		}
		grade, _ := s.judge("no connection")
		assert.Equal(t, Bad, grade, s.Name)
	}
}
