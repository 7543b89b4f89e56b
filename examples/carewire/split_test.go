package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// adt returns a small message with the control id.
func adt(id string) string {
	return "MSH|^~\\&|LAB|HOSP|ADT|HOSP|20260102030405||ADT^A01^ADT_A01|" + id + "|P|2.5\rEVN|A01|20260102030405\rPID|1||4711^^^HOSP||CANARY^PATIENT\r"
}

// framed puts a message into an MLLP frame.
func framed(message string) string { return "\x0B" + message + "\x1C\r" }

// texts returns what the spans of a file hold.
func texts(data string, spans []span) []string {
	var out []string
	for _, s := range spans {
		out = append(out, data[s.start:s.end])
	}
	return out
}

func TestEveryMessageOfAFileIsFound(t *testing.T) {
	one := strings.TrimRight(adt("1"), "\r")
	two := strings.TrimRight(adt("2"), "\r")
	lf := strings.ReplaceAll(one, "\r", "\n")
	crlf := strings.ReplaceAll(one, "\r", "\r\n")
	hash := "MSH#~!%@#LAB#HOSP#ADT#HOSP#20260102##ADT~A01#3#P#2.5"
	for name, tt := range map[string]struct {
		file string
		want []string
	}{
		"one message":                              {one, []string{one}},
		"with a byte order mark":                   {"\xEF\xBB\xBF" + one, []string{one}},
		"two, each segment ended by CR":            {one + "\r" + two + "\r", []string{one, two}},
		"two with a blank line between":            {one + "\r\n\r\n" + two + "\r\n", []string{one, two}},
		"lines ended by LF":                        {lf + "\n\n" + two, []string{lf, two}},
		"lines ended by CR LF":                     {crlf + "\r\n" + crlf, []string{crlf, crlf}},
		"separators of its own":                    {hash + "\r" + one, []string{hash, one}},
		"a line of free text beginning with MSH":   {one + "\nMSH-3 is the sender\r" + two, []string{one + "\nMSH-3 is the sender", two}},
		"a batch":                                  {"FHS|^~\\&|A\rBHS|^~\\&|A\r" + one + "\r" + two + "\rBTS|2\rFTS|1\r", []string{one, two}},
		"two batches":                              {"BHS|^~\\&\n" + one + "\nBTS|1\nBHS|^~\\&\n" + two + "\nBTS\n", []string{one, two}},
		"a file envelope without batches":          {"FHS|^~\\&|A\r" + one + "\rFTS|1\r", []string{one}},
		"frames":                                   {framed(adt("1")) + framed(adt("2")), []string{adt("1"), adt("2")}},
		"frames with line ends between":            {"\r\n" + framed(one) + "\n\n" + framed(two) + "\r\n", []string{one, two}},
		"frames whose CR an editor made LF":        {"\x0B" + lf + "\x1C\n\x0B" + two + "\x1C\n", []string{lf, two}},
		"frames without the CR after FS":           {"\x0B" + one + "\x1C\x0B" + two + "\x1C", []string{one, two}},
		"an empty frame among others":              {framed(one) + framed("") + framed("\r\r") + framed(two), []string{one, two}},
		"a frame holding VT and FS as content":     {framed(one + "\x0Bx\x1Cy"), []string{one + "\x0Bx\x1Cy"}},
		"a frame that begins with a byte order mk": {framed("\xEF\xBB\xBF" + one), []string{"\xEF\xBB\xBF" + one}},
		"a batch in a frame":                       {framed("BHS|^~\\&|A\r" + one + "\r" + two + "\rBTS|2\r"), []string{one, two}},
		"bytes that are not UTF-8":                 {one + "\xE9\xFF", []string{one + "\xE9\xFF"}},
	} {
		t.Run(name, func(t *testing.T) {
			spans, err := split([]byte(tt.file))
			require.NoError(t, err)
			assert.Equal(t, tt.want, texts(tt.file, spans))
		})
	}
}

func TestAFileThatWouldLoseSomethingIsRefusedWithThePlace(t *testing.T) {
	one := adt("1")
	for name, tt := range map[string]struct{ file, want string }{
		"empty":                             {"", "there is no message"},
		"only an envelope":                  {"BHS|^~\\&\rBTS|0\r", "there is no message"},
		"text before the first message":     {"From: lab\n" + one, "line 1: neither"},
		"text after a batch":                {"BHS|^~\\&\n" + strings.ReplaceAll(one, "\r", "\n") + "BTS|1\nPID|1\n", "line 6: neither"},
		"no separators":                     {"MSH\rPID|1\r", "line 1: neither"},
		"not HL7":                           {"{\"resourceType\":\"Patient\"}", "line 1: neither"},
		"a batch that is cut short":         {"BHS|^~\\&\r" + one + "BTS|2\r", "line 5: the batch trailer counts 2 messages, but 1 are there"},
		"a file of batches that is cut":     {"FHS|^~\\&\rBHS|^~\\&\r" + one + "BTS|1\rFTS|2\r", "line 7: the file trailer counts 2 batches, but 1 are there"},
		"a frame without an end":            {framed(one) + "\x0B" + one, fmt.Sprintf("byte %d: the MLLP frame that begins here has no end", len(framed(one))+1)},
		"a frame cut short before the next": {"\x0BMSH|^~\\&|A" + framed(one), "byte 1: the MLLP frame that begins here has no end before the next begins at byte 12"},
		"text between frames":               {framed(one) + "x" + framed(one), "not the start of an MLLP frame (hex 78)"},
		"a frame without HL7":               {framed("PID|1"), "byte 1: the MLLP frame that begins here does not hold an HL7 message"},
		"a frame after plain messages":      {one + framed(one), "line 4: the framing byte 0B within text"},
		"UTF-16":                            {"\xFF\xFEM\x00S\x00H\x00", "UTF-16"},
	} {
		t.Run(name, func(t *testing.T) {
			spans, err := split([]byte(tt.file))
			require.ErrorContains(t, err, tt.want)
			assert.Nil(t, spans)
			assert.NotContains(t, err.Error(), "CANARY")
		})
	}
}

func TestSegmentsEndWithCR(t *testing.T) {
	for name, tt := range map[string]struct {
		in, want string
		changed  bool
	}{
		"already":                        {"MSH|a\rPID|b\r", "MSH|a\rPID|b\r", false},
		"but for the last":               {"MSH|a\rPID|b", "MSH|a\rPID|b\r", false},
		"one segment":                    {"MSH|a", "MSH|a\r", false},
		"lines ended by LF":              {"MSH|a\nPID|b\n", "MSH|a\rPID|b\r", true},
		"lines ended by CR LF":           {"MSH|a\r\nPID|b\r\n", "MSH|a\rPID|b\r", true},
		"a blank line":                   {"MSH|a\n \nPID|b\n", "MSH|a\rPID|b\r", true},
		"an LF within a field":           {"MSH|a\rOBX|one\ntwo\rNTE|c\r\n", "MSH|a\rOBX|one\ntwo\rNTE|c\r", false},
		"bytes that are not UTF-8 stay":  {"MSH|\xE9\nPID|\xFF", "MSH|\xE9\rPID|\xFF\r", true},
		"a field that ends with a space": {"MSH|a \nPID|b", "MSH|a \rPID|b\r", true},
	} {
		t.Run(name, func(t *testing.T) {
			got, changed := withSegmentEnds([]byte(tt.in))
			assert.Equal(t, tt.want, string(got))
			assert.Equal(t, tt.changed, changed)
		})
	}
}

func TestTheControlIDIsReplacedAndNothingElse(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"a usual header":         {"MSH|^~\\&|A|B|C|D|2026||ADT^A01|OLD|P|2.5\rPID|1\r", "MSH|^~\\&|A|B|C|D|2026||ADT^A01|NEW|P|2.5\rPID|1\r"},
		"an empty control id":    {"MSH|^~\\&|A|B|C|D|2026||ADT^A01||P|2.5\r", "MSH|^~\\&|A|B|C|D|2026||ADT^A01|NEW|P|2.5\r"},
		"the last field":         {"MSH|^~\\&|A|B|C|D|2026||ADT^A01|OLD\rPID|1\r", "MSH|^~\\&|A|B|C|D|2026||ADT^A01|NEW\rPID|1\r"},
		"other separators":       {"MSH#~!%@#A#B#C#D#2026##ADT~A01#OLD#P#2.5\r", "MSH#~!%@#A#B#C#D#2026##ADT~A01#NEW#P#2.5\r"},
		"a header that is short": {"MSH|^~\\&|A\rPID|1|2|3|4|5|6|7|8|9\r", "MSH|^~\\&|A|||||||NEW\rPID|1|2|3|4|5|6|7|8|9\r"},
		"only the separators":    {"MSH|^~\\&\r", "MSH|^~\\&||||||||NEW\r"},
	} {
		t.Run(name, func(t *testing.T) {
			in := []byte(tt.in)
			assert.Equal(t, tt.want, string(setControlID(in, "NEW")))
			assert.Equal(t, tt.in, string(in), "the original stays as it is")
		})
	}
}

// FuzzSplitLosesNothing: whatever split accepts, every byte of the file is either
// in exactly one message, or is a blank, a framing byte, a byte order mark or part
// of an envelope segment; and every message begins with its header.
func FuzzSplitLosesNothing(f *testing.F) {
	for _, seed := range []string{
		adt("1"), adt("1") + adt("2"), framed(adt("1")) + framed(adt("2")), framed(adt("1") + "\x1Cx\x0By"),
		"FHS|^~\\&|A\rBHS|^~\\&|A\r" + adt("1") + "\r\n\r\n" + adt("2") + "BTS|2\rFTS|1\r",
		framed("BHS|^~\\&|A\r" + adt("1") + "BTS|1"), strings.ReplaceAll(adt("1"), "\r", "\n"), framed("\xEF\xBB\xBF" + adt("1")),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		spans, err := split(data)
		if err != nil {
			return
		}
		at := 0
		for _, s := range spans {
			if s.start < at || s.end <= s.start || s.end > len(data) {
				t.Fatalf("span %v after %d of %d bytes", s, at, len(data))
			}
			assertNothingLost(t, data[at:s.start])
			if kindOf(bytes.TrimPrefix(data[s.start:s.end], []byte("\xEF\xBB\xBF"))) != messageHeader {
				t.Fatalf("span %v does not begin with a header", s)
			}
			at = s.end
		}
		assertNothingLost(t, data[at:])
	})
}

func assertNothingLost(t *testing.T, gap []byte) {
	t.Helper()
	gap = bytes.ReplaceAll(gap, []byte("\xEF\xBB\xBF"), nil)
	for line := range bytes.FieldsFuncSeq(gap, func(r rune) bool { return r == '\r' || r == '\n' || r == frameStart || r == frameEnd }) {
		switch kindOf(line) {
		case blankLine, envelopeHeader, envelopeTrailer:
		case messageHeader, otherLine:
			t.Fatalf("left out: %q", line)
		}
	}
}

// FuzzJoinedMessagesSplitAgain: messages put into one file, framed or not, come
// out as they were.
func FuzzJoinedMessagesSplitAgain(f *testing.F) {
	f.Add("MRN4711", "free text", uint8(3))
	f.Add("MSH-1", "a\x1Cb\x0Bc", uint8(2))
	f.Fuzz(func(t *testing.T, id, field string, n uint8) {
		if strings.ContainsAny(id+field, "\r\n") || strings.Contains(field, "\x0BMSH") || strings.ContainsAny(id, "|\x0B\x1C") || strings.HasSuffix(field, "\x1C") || strings.Contains(field, "\x1C\x0B") {
			return
		}
		var captured, plain strings.Builder
		var want []string
		for i := range int(n%8) + 1 {
			message := fmt.Sprintf("MSH|^~\\&|A|B|C|D|2026||ADT^A01|%s%d|P|2.5\rNTE|1||%s\r", id, i, field)
			want = append(want, message)
			captured.WriteString(framed(message))
			plain.WriteString(message)
		}
		spans, err := split([]byte(captured.String()))
		require.NoError(t, err)
		require.Equal(t, want, texts(captured.String(), spans))
		if strings.ContainsAny(field, "\x0B\x1C") {
			return // only frames can carry these
		}
		spans, err = split([]byte(plain.String()))
		require.NoError(t, err)
		for i, s := range spans {
			message, changed := withSegmentEnds([]byte(plain.String()[s.start:s.end]))
			require.False(t, changed)
			require.Equal(t, want[i], string(message))
		}
		require.Len(t, spans, len(want))
	})
}

// FuzzSetControlID: a message whose header can be read has the new control id
// afterwards, and every other field as it was.
func FuzzSetControlID(f *testing.F) {
	f.Add([]byte(adt("1")))
	f.Add([]byte("MSH|^~\\&\rPID|1"))
	f.Add([]byte("MSH#~!%@#A\nPID#1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var before, after mllp.Header
		if before.Parse(text) != nil || kindOf(text) != messageHeader {
			return
		}
		changed := setControlID(text, "NEW1")
		if err := after.Parse(changed); err != nil {
			t.Fatalf("%q: %v", changed, err)
		}
		require.Equal(t, "NEW1", string(after.ControlID))
		before.ControlID, after.ControlID = nil, nil
		for _, fields := range [][2][]byte{
			{before.EncodingChars, after.EncodingChars},
			{before.SendingApplication, after.SendingApplication},
			{before.MessageType, after.MessageType},
			{before.VersionID, after.VersionID},
			{before.CharacterSet, after.CharacterSet},
		} {
			require.Equal(t, string(fields[0]), string(fields[1]))
		}
		_, rest := endOfLine(text, 0)
		require.True(t, bytes.HasSuffix(changed, text[rest:]))
	})
}
