package mllp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

func TestParseFrameBytes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "0B": "\x0b", "1C0D": "\x1c\r", "1c0d": "\x1c\r", "<VT>": "\x0b", "<FS><cr>": "\x1c\r", "1C <CR>": "\x1c\r",
		"3C534F4D3E": "<SOM>", "00": "\x00", "FF": "\xff", strings.Repeat("1C", 32): strings.Repeat("\x1c", 32),
	} {
		got, err := mllp.ParseFrameBytes(in)
		require.NoError(t, err, in)
		assert.Equal(t, want, string(got), in)
		again, err := mllp.ParseFrameBytes(got.String())
		require.NoError(t, err)
		assert.Equal(t, got, again)
	}
	for _, in := range []string{"0", "0B0", "0x0B", "ZZ", "<VT", "<XX>", "<>", "VT", "1C,0D", strings.Repeat("1C", 33)} {
		_, err := mllp.ParseFrameBytes(in)
		assert.Error(t, err, in)
	}
}

func FuzzParseFrameBytes(f *testing.F) {
	for _, s := range []string{"0B", "1C0D", "<VT>", "<FS> 0d", "<", "3C534F4D3E"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := mllp.ParseFrameBytes(s)
		if err != nil {
			require.Nil(t, b)
			return
		}
		again, err := mllp.ParseFrameBytes(b.String())
		require.NoError(t, err)
		require.Equal(t, b, again)
		require.LessOrEqual(t, len(b), 32)
	})
}

func TestFramingAsJSON(t *testing.T) {
	var f mllp.Framing
	require.NoError(t, json.Unmarshal([]byte(`{"transmissionMode":"FRAME","startOfMessageBytes":"0B","endOfMessageBytes":"1C0D"}`), &f))
	assert.Equal(t, mllp.Framing{Mode: mllp.ModeFRAME, Start: mllp.FrameBytes{0x0B}, End: mllp.FrameBytes{0x1C, 0x0D}}, f)
	text, err := json.Marshal(f)
	require.NoError(t, err)
	assert.JSONEq(t, `{"transmissionMode":"FRAME","startOfMessageBytes":"0B","endOfMessageBytes":"1C0D"}`, string(text))
	for _, bad := range []string{`{"transmissionMode":"mllp"}`, `{"delimiter":"EOF"}`, `{"startOfMessageBytes":"0"}`} {
		assert.Error(t, json.Unmarshal([]byte(bad), &f), bad)
	}
	for _, word := range []mllp.Mode{"", mllp.ModeMLLP, mllp.ModeMLLPv2, mllp.ModeFRAME, mllp.ModeRAW} {
		var m mllp.Mode
		require.NoError(t, m.UnmarshalText([]byte(word)))
		assert.Equal(t, word, m)
	}
}

func frameOf(start, end string) mllp.Framing {
	return mllp.Framing{Mode: mllp.ModeFRAME, Start: mllp.FrameBytes(start), End: mllp.FrameBytes(end)}
}

func raw(d mllp.Delimiter) mllp.Framing { return mllp.Framing{Mode: mllp.ModeRAW, Delimiter: d} }

func TestContradictionsInFramingAreRefusedAtTheStart(t *testing.T) {
	valid := []mllp.Framing{
		{},
		{Mode: mllp.ModeMLLP},
		{Mode: mllp.ModeMLLPv2},
		{Mode: mllp.ModeMLLPv2, Retries: -1, CommitTimeout: time.Second},
		frameOf("", "\x03"), frameOf("\x02", "\x03"), frameOf("<SOM>", "<EOM>"), frameOf(strings.Repeat("a", 32), strings.Repeat("b", 32)),
		raw(mllp.DelimitEOF), raw(mllp.DelimitIdle), raw(mllp.DelimitNewline),
		{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: 10, Idle: time.Second},
		{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitEOF, KeepOpen: new(false), AllowUnverifiedEnd: true},
	}
	for _, f := range valid {
		assert.NoError(t, f.Validate(), "%+v", f)
	}
	for word, f := range map[string]mllp.Framing{
		"Mode":                             {Mode: "mllp"},
		"Start and End are set":            {Start: mllp.FrameBytes{1}},
		"Mode is MLLPv2":                   {Mode: mllp.ModeMLLPv2, End: mllp.FrameBytes{1}},
		"End is empty":                     frameOf("\x0b", ""),
		"more than 32":                     frameOf(strings.Repeat("a", 33), "b"),
		"holds the other":                  frameOf("\x1c\r", "\r"),
		"Delimiter is not set":             {Mode: mllp.ModeRAW},
		`Delimiter is "x"`:                 raw("x"),
		"Idle is negative":                 {Mode: mllp.ModeRAW, Delimiter: mllp.DelimitIdle, Idle: -1},
		"Idle is set":                      {Mode: mllp.ModeRAW, Delimiter: mllp.DelimitEOF, Idle: 1},
		"Length is 0":                      raw(mllp.DelimitLength),
		"Length is -1":                     {Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: -1},
		"Length is set":                    {Mode: mllp.ModeRAW, Delimiter: mllp.DelimitIdle, Length: 1},
		"KeepOpen contradicts":             {Mode: mllp.ModeRAW, Delimiter: mllp.DelimitEOF, KeepOpen: new(true)},
		"ends no message":                  {Mode: mllp.ModeRAW, Delimiter: mllp.DelimitNewline, AllowUnverifiedEnd: true},
		"AllowUnverifiedEnd is set, but M": {AllowUnverifiedEnd: true},
		"Retries is set":                   {Retries: 2},
		"CommitTimeout is negative":        {Mode: mllp.ModeMLLPv2, CommitTimeout: -1},
	} {
		assert.ErrorContains(t, f.Validate(), word)
		srv := &mllp.Server{Framing: f, Handler: accepting}
		assert.ErrorContains(t, srv.Validate(), word)
		_, err := (&mllp.Dialer{Framing: f}).DialContext(t.Context(), "tcp", "127.0.0.1:1")
		assert.False(t, failed(t, err, mllp.NotSent).Retryable())
		assert.ErrorContains(t, err, word)
		_, err = f.NewReader(strings.NewReader("x"), 0).Next()
		assert.ErrorContains(t, err, word)
	}
	srv := &mllp.Server{Handler: accepting, MaxMessageBytes: 9, Framing: mllp.Framing{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: 10}}
	assert.ErrorContains(t, srv.Validate(), "Length")
	for _, f := range []mllp.Framing{{Mode: mllp.ModeMLLPv2}, raw(mllp.DelimitEOF), {KeepOpen: new(false)}} {
		_, err := (&mllp.Dialer{Framing: f, Window: 2}).DialContext(t.Context(), "tcp", "127.0.0.1:1")
		assert.ErrorContains(t, err, "Window")
	}
}

func TestTransportNames(t *testing.T) {
	for _, tc := range []struct {
		framing       mllp.Framing
		plain, secure string
	}{
		{mllp.Framing{}, "MLLP", "MLLPS"},
		{mllp.Framing{Mode: mllp.ModeMLLPv2}, "MLLP", "MLLPS"},
		{frameOf("", "\x03"), "TCP", "TCP+TLS"},
		{raw(mllp.DelimitEOF), "TCP", "TCP+TLS"},
	} {
		on := &tlsprops.TlsProperties{Enabled: true}
		assert.Equal(t, tc.plain, (&mllp.Server{Framing: tc.framing}).Transport())
		assert.Equal(t, tc.secure, (&mllp.Server{Framing: tc.framing, TLS: on}).Transport())
		assert.Equal(t, tc.plain, (&mllp.Dialer{Framing: tc.framing}).Transport())
		assert.Equal(t, tc.secure, (&mllp.Dialer{Framing: tc.framing, TLS: on}).Transport())
	}
}

func TestReadingFramesOfOtherBytes(t *testing.T) {
	eof := step{eof: true}
	cut := step{reason: mllp.ReasonTruncated}
	for _, tc := range []struct {
		name, start, end, in string
		want                 []step
	}{
		{"as MLLP", "\x0b", "\x1c\r", frame(msgA) + frame(msgB), []step{{text: msgA}, {text: msgB}, eof}},
		{"text", "<SOM>", "<EOM>", "<SOM>" + msgA + "<EOM><SOM>" + msgB + "<EOM>", []step{{text: msgA}, {text: msgB}, eof}},
		{"no start bytes", "", "\x03", msgA + "\x03" + msgB + "\x03", []step{{text: msgA}, {text: msgB}, eof}},
		{"no start bytes, line breaks between", "", "\x03", msgA + "\x03\r\n", []step{{text: msgA}, eof}},
		{"an end that overlaps itself", "", "\x1c\x1c\r", "a\x1c\x1c\x1c\r" + "b\x1c\x1c\r", []step{{text: "a\x1c"}, {text: "b"}, eof}},
		{"the first byte of the end in the text", "\x02", "\x03\x04", "\x02\x03MSH|a\x03b\x03\x04", []step{{text: "\x03MSH|a\x03b"}, eof}},
		{"bytes before a frame", "<SOM>", "<EOM>", "hello <SO <SOM>a<EOM> \r\n<SOM>b<EOM>", []step{{text: "a"}, {text: "b"}, eof}},
		{"the start again, and no message", "<S>", "<E>", "<S>a<S>b<E>", []step{{text: "a<S>b"}, eof}},
		{"another frame begins", "<S>", "<E>", "<S>" + msgA + "<S>" + msgB + "<E>", []step{cut, {text: msgB}, eof}},
		{"cut off", "<S>", "<E>", "<S>" + msgA + "<", []step{cut}},
		{"cut off in the start", "<S>", "<E>", "<S>a<E><S", []step{{text: "a"}, eof}},
		{"cut off without start bytes", "", "<E>", msgA, []step{cut}},
		{"empty", "<S>", "<E>", "<S><E><S> \r<E><S>a<E>", []step{{reason: mllp.ReasonEmpty}, {reason: mllp.ReasonEmpty}, {text: "a"}, eof}},
		{"06 alone is text", "\x02", "\x03", "\x02\x06\x03", []step{{text: "\x06"}, eof}},
		{"another protocol", "\x02", "\x03", "GET / HTTP/1.1\r\n", []step{{reason: mllp.ReasonWrongProtocol}}},
		{"junk without end", "\x02", "\x03", strings.Repeat("x", 5000), []step{{reason: mllp.ReasonPreambleTooLong}}},
		{"nothing", "", "\x03", "", []step{eof}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := frameOf(tc.start, tc.end)
			require.NoError(t, f.Validate())
			assert.Equal(t, tc.want, steps(f.NewReader(strings.NewReader(tc.in), 0)))
			assert.Equal(t, tc.want, steps(f.NewReader(iotest.OneByteReader(strings.NewReader(tc.in)), 0)), "a byte at a time")
		})
	}
}

func TestReadingMessagesWithoutFrames(t *testing.T) {
	eof := step{eof: true}
	length := mllp.Framing{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: 4}
	for _, tc := range []struct {
		name, in string
		framing  mllp.Framing
		want     []step
	}{
		{"the stream", msgA + msgB, raw(mllp.DelimitEOF), []step{{text: msgA + msgB}, eof}},
		{"no stream", "", raw(mllp.DelimitEOF), []step{eof}},
		{"white space alone", "\r\n", raw(mllp.DelimitEOF), []step{{reason: mllp.ReasonEmpty}, eof}},
		{"a client with TLS", "\x16\x03\x01", raw(mllp.DelimitEOF), []step{{reason: mllp.ReasonWrongProtocol}}},
		{"lines", msgA + "\n" + msgB + "\n", raw(mllp.DelimitNewline), []step{{text: msgA}, {text: msgB}, eof}},
		{"an empty line", "a\n\nb\n\r", raw(mllp.DelimitNewline), []step{{text: "a"}, {reason: mllp.ReasonEmpty}, {text: "b"}, eof}},
		{"a line that is cut off", "a\nb", raw(mllp.DelimitNewline), []step{{text: "a"}, {reason: mllp.ReasonTruncated}}},
		{"a length", "abcdefgh", length, []step{{text: "abcd"}, {text: "efgh"}, eof}},
		{"less than the length", "abcdef", length, []step{{text: "abcd"}, {reason: mllp.ReasonTruncated}}},
		{"the end instead of silence", msgA, raw(mllp.DelimitIdle), []step{{text: msgA}, eof}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.NoError(t, tc.framing.Validate())
			assert.Equal(t, tc.want, steps(tc.framing.NewReader(strings.NewReader(tc.in), 0)))
			assert.Equal(t, tc.want, steps(tc.framing.NewReader(iotest.OneByteReader(strings.NewReader(tc.in)), 0)), "a byte at a time")
		})
	}
	f := raw(mllp.DelimitIdle)
	assert.Equal(t, []step{{text: "ab"}, {text: "c"}, eof}, steps(f.NewReader(io.MultiReader(
		strings.NewReader("a"), strings.NewReader("b"), &pause{}, strings.NewReader("c"),
	), 0)), "a timeout is silence")
	_, err := f.NewReader(iotest.DataErrReader(io.MultiReader(strings.NewReader("a"), iotest.ErrReader(io.ErrClosedPipe))), 0).Next()
	assert.ErrorIs(t, err, io.ErrClosedPipe, "but a broken connection is not")
}

// pause is a read that times out, once.
type pause struct{ over bool }

func (p *pause) Read([]byte) (int, error) {
	if p.over {
		return 0, io.EOF
	}
	p.over = true
	return 0, os.ErrDeadlineExceeded
}

func TestFramesOfOtherBytesHaveTheSameLimit(t *testing.T) {
	for _, f := range []mllp.Framing{frameOf("<SOM>", "<EOM>"), frameOf("", "\x1c\x1c\r"), raw(mllp.DelimitNewline)} {
		const limit = 100
		text := bytes.Repeat([]byte("x"), limit)
		whole, err := f.AppendFrame(nil, text)
		require.NoError(t, err)
		got, err := f.NewReader(bytes.NewReader(whole), limit).Next()
		require.NoError(t, err)
		assert.Equal(t, text, got)
		long, err := f.AppendFrame(nil, append(text, 'x'))
		require.NoError(t, err)
		for _, in := range [][]byte{long, long[:len(long)-len(f.End)] /* and no end */} {
			src := &counting{r: io.MultiReader(bytes.NewReader(in), strings.NewReader(strings.Repeat("x", 1<<16)))}
			_, err = f.NewReader(iotest.OneByteReader(src), limit).Next()
			var fe *mllp.FrameError
			require.ErrorAs(t, err, &fe)
			assert.Equal(t, mllp.ReasonTooLarge, fe.Reason)
			assert.Equal(t, int64(limit), fe.Limit)
			assert.LessOrEqual(t, src.n, int64(limit+16+64))
		}
	}
}

func TestAMessageThatItsFrameCannotCarryIsNotSent(t *testing.T) {
	length := mllp.Framing{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: 4}
	for _, tc := range []struct {
		framing mllp.Framing
		msg     string
		reason  mllp.Reason
	}{
		{frameOf("<S>", "<E>"), "a<E>b", mllp.ReasonStrayControl},
		{frameOf("<S>", "<E>"), "a<S>MSH|b", mllp.ReasonStrayControl},
		{frameOf("<S>", "<E>"), " ", mllp.ReasonEmpty},
		{frameOf("", "\x1c\x1c\r"), "a\x1c\x1c\r", mllp.ReasonStrayControl},
		{frameOf("", "aba"), "xab", mllp.ReasonStrayControl}, // xab aba: the end is found at "ab" "a"
		{raw(mllp.DelimitNewline), "a\nb", mllp.ReasonStrayControl},
		{raw(mllp.DelimitEOF), "", mllp.ReasonEmpty},
		{length, "abc", mllp.ReasonWrongLength},
		{mllp.Framing{Mode: mllp.ModeMLLPv2}, "\x06", mllp.ReasonMLLPR2},
	} {
		dst, err := tc.framing.AppendFrame([]byte("kept"), []byte(tc.msg))
		var fe *mllp.FrameError
		require.ErrorAs(t, err, &fe, "%q", tc.msg)
		assert.Equal(t, tc.reason, fe.Reason, "%q", tc.msg)
		assert.Equal(t, "kept", string(dst))
	}
	f := frameOf("<S>", "<E>")
	framed, err := f.AppendFrame([]byte("kept"), []byte("a<S>b<"))
	require.NoError(t, err, "the start bytes in a text begin nothing")
	assert.Equal(t, "kept<S>a<S>b<<E>", string(framed))
}

// framings are one of each kind, for tests of all.
var framings = []mllp.Framing{
	{Mode: mllp.ModeMLLPv2},
	frameOf("\x0b", "\x1c\r"), frameOf("", "\x1c\x1c\r"), frameOf("<S>", "<<E>"), frameOf("ab", "ba"), frameOf("", "aba"),
	raw(mllp.DelimitEOF), raw(mllp.DelimitIdle), raw(mllp.DelimitNewline),
	{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: 7},
}

// FuzzFraming: in whatever pieces a stream arrives, the same messages and errors
// come out of it, with MLLP release 2, FRAME and RAW.
func FuzzFraming(f *testing.F) {
	for i := range framings {
		for _, s := range []string{
			frame(msgA) + frame("\x06") + frame("\x15\x06"), "junk" + frame(msgA) + "\n" + frame(msgB), "\x0b" + msgA + frame(msgB), "a\x1c\x1c\x1c\r", "<S>a<<<E>",
			"<<S>a<S>MSH|<<E> <S", "abMSH|ababa", "ababba", "abaababa", "a\nb\n\n", "1234567123", "\x16\x03", "\x16", "GET /", "abMSH|^~\\&|\rMSH|^~\\&|ba", strings.Repeat("x", 80) + "ba",
		} {
			f.Add(uint8(i), []byte(s), byte(3))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, in []byte, n byte) {
		const limit = 64
		framing := framings[int(which)%len(framings)]
		want := steps(framing.NewReader(bytes.NewReader(in), limit))
		assert.Equal(t, want, steps(framing.NewReader(iotest.OneByteReader(bytes.NewReader(in)), limit)))
		assert.Equal(t, want, steps(framing.NewReader(&chunks{data: in, n: int(n) + 1}, limit)))
		for _, s := range want {
			if len(s.text) > limit || !bytes.Contains(in, []byte(s.text)) {
				t.Fatalf("%q", s.text)
			}
		}
	})
}

// FuzzFramingAppend: what AppendFrame accepts arrives as it was.
func FuzzFramingAppend(f *testing.F) {
	for i := range framings {
		for _, s := range []string{msgA, "a\x1c\x1c", "ab", "aabab", "<<", "1234567", "a\n", "\x06", "", "abMSH|", "b", "xba", "\x16"} {
			f.Add(uint8(i), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, msg []byte) {
		framing := framings[int(which)%len(framings)]
		framed, err := framing.AppendFrame(nil, msg)
		if err != nil {
			return
		}
		times := 2
		if framing.Delimiter == mllp.DelimitEOF || framing.Delimiter == mllp.DelimitIdle {
			times = 1
		}
		if framing.Mode == mllp.ModeRAW && bytes.HasPrefix(msg, []byte("\x16\x03")) {
			return // taken for TLS
		}
		r := framing.NewReader(bytes.NewReader(bytes.Repeat(framed, times)), 0)
		for range times {
			got, err := r.Next()
			require.NoError(t, err)
			assert.Equal(t, msg, got)
		}
		_, err = r.Next()
		assert.ErrorIs(t, err, io.EOF)
	})
}

func TestReadingAFrameAllocatesNothing(t *testing.T) {
	for _, f := range append([]mllp.Framing{{}}, framings...) {
		if f.Delimiter == mllp.DelimitEOF || f.Delimiter == mllp.DelimitIdle {
			continue // one message for each Reader
		}
		for _, size := range []int{255, 4 << 10, 64 << 10} {
			text := []byte(message(size))
			if f.Delimiter == mllp.DelimitLength {
				f.Length = int64(size)
			}
			framed, err := f.AppendFrame(nil, text)
			require.NoError(t, err)
			r := f.NewReader(&repeating{frame: framed}, 0)
			for range 3 {
				_, err := r.Next()
				require.NoError(t, err)
			}
			assert.Zero(t, testing.AllocsPerRun(50, func() {
				if got, err := r.Next(); err != nil || len(got) != size {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}), "%s %s, %d bytes", f.Mode, f.Delimiter, size)
		}
	}
}

// repeating is a stream of one frame again and again.
type repeating struct {
	frame []byte
	at    int
}

func (e *repeating) Read(p []byte) (int, error) {
	n := copy(p, e.frame[e.at:])
	if e.at += n; e.at == len(e.frame) {
		e.at = 0
	}
	return n, nil
}

// accepting takes every message.
var accepting = mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })
