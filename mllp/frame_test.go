package mllp_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

const (
	msgA = "MSH|^~\\&|A|B|C|D|20260101||ADT^A01|id1|P|2.5\rPID|1\r"
	msgB = "MSH|^~\\&|A|B|C|D|20260101||ADT^A01|id2|P|2.5\rPID|2\r"
)

func frame(msg string) string { return "\x0b" + msg + "\x1c\r" }

// step is what one call of Next answers.
type step struct {
	text   string
	reason mllp.Reason
	eof    bool
}

func steps(r *mllp.Reader) []step {
	var all []step
	for {
		text, err := r.Next()
		var fe *mllp.FrameError
		switch {
		case err == nil:
			all = append(all, step{text: string(text)})
			continue
		case errors.Is(err, io.EOF):
			return append(all, step{eof: true})
		case errors.As(err, &fe):
			all = append(all, step{reason: fe.Reason})
			if fe.Resumable() {
				continue
			}
			return all
		default:
			return append(all, step{text: "not a FrameError: " + err.Error()})
		}
	}
}

func TestReader(t *testing.T) {
	eof := step{eof: true}
	for _, tc := range []struct {
		name, in string
		want     []step
	}{
		{"a frame", frame(msgA), []step{{text: msgA}, eof}},
		{"two frames in one read", frame(msgA) + frame(msgB), []step{{text: msgA}, {text: msgB}, eof}},
		{"white space and NUL between frames", "\r\n  " + frame(msgA) + "\n\x00\x00" + frame(msgB), []step{{text: msgA}, {text: msgB}, eof}},
		{"log text before a frame", "Connected to host\r\n" + frame(msgA), []step{{text: msgA}, eof}},
		{"as much junk as is allowed", strings.Repeat("x", 4096) + frame(msgA), []step{{text: msgA}, eof}},
		{"too much junk", strings.Repeat("x", 4097) + frame(msgA), []step{{reason: mllp.ReasonPreambleTooLong}}},
		{"endless junk", strings.Repeat("x", 100_000), []step{{reason: mllp.ReasonPreambleTooLong}}},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", []step{{reason: mllp.ReasonWrongProtocol}}},
		{"a TLS hello that holds a VT", "\x16\x03\x01\x02\x00\x01\x00\x0b", []step{{reason: mllp.ReasonWrongProtocol}}},
		{"SSH", "SSH-2.0-x\r\n", []step{{reason: mllp.ReasonWrongProtocol}}},
		{"PROXY 1", "PROXY TCP4 1.2.3.4 ", []step{{reason: mllp.ReasonWrongProtocol}}},
		{"PROXY 2", "\r\n\r\n\x00\r\nQUIT\n\x21\x11", []step{{reason: mllp.ReasonWrongProtocol}}},
		{"words of another protocol between frames are junk", frame(msgA) + "GET / " + frame(msgB), []step{{text: msgA}, {text: msgB}, eof}},
		{"no CR before the next frame", "\x0b" + msgA + "\x1c" + frame(msgB), []step{{text: msgA}, {text: msgB}, eof}},
		{"no CR before the end of the stream", "\x0b" + msgA + "\x1c", []step{{text: msgA}, eof}},
		{"an FS in the text", frame("MSH|a\x1cb\r"), []step{{text: "MSH|a\x1cb\r"}, eof}},
		{"an FS last in the text", frame("MSH|a\x1c"), []step{{text: "MSH|a\x1c"}, eof}},
		{"FS CR in the text ends the frame", frame("MSH|a\x1c\rrest\r") + frame(msgB), []step{{text: "MSH|a"}, {text: msgB}, eof}},
		{"a VT in the text", frame("MSH|a\x0bMSb\x0b\r"), []step{{text: "MSH|a\x0bMSb\x0b\r"}, eof}},
		{"FS VT in the text", frame("MSH|a\x1c\x0bb\r"), []step{{text: "MSH|a\x1c\x0bb\r"}, eof}},
		{"VT and what is no header", frame("MSH|a\x0bMSHa\x0bBSH|\x0bMHS|\x0bFSH|\r"), []step{{text: "MSH|a\x0bMSHa\x0bBSH|\x0bMHS|\x0bFSH|\r"}, eof}},
		{"a message cut off by the next", "\x0b" + msgA + frame(msgB), []step{{reason: mllp.ReasonTruncated}, {text: msgB}, eof}},
		{"cut off by a batch", "\x0b" + msgA + frame("FHS|x\r"), []step{{reason: mllp.ReasonTruncated}, {text: "FHS|x\r"}, eof}},
		{"cut off by a batch without file header", "\x0b" + msgA + frame("BHS|x\r"), []step{{reason: mllp.ReasonTruncated}, {text: "BHS|x\r"}, eof}},
		{"cut off by a message with a byte order mark", "\x0b" + msgA + frame("\xef\xbb\xbf"+msgB), []step{{reason: mllp.ReasonTruncated}, {text: "\xef\xbb\xbf" + msgB}, eof}},
		{"cut off by a message with other separators", "\x0b" + msgA + frame("MSH#~!%@#"), []step{{reason: mllp.ReasonTruncated}, {text: "MSH#~!%@#"}, eof}},
		{"empty frames", frame("") + frame("\r\r \n") + frame(msgA), []step{{reason: mllp.ReasonEmpty}, {reason: mllp.ReasonEmpty}, {text: msgA}, eof}},
		{"commit acknowledgements of release 2", frame("\x06") + frame("\x15") + frame(msgA), []step{{reason: mllp.ReasonMLLPR2}, {reason: mllp.ReasonMLLPR2}, {text: msgA}, eof}},
		{"the stream ends in a frame", frame(msgA) + "\x0bMSH|", []step{{text: msgA}, {reason: mllp.ReasonTruncated}}},
		{"the stream ends where a header may begin", "\x0b" + msgA + "\x1c\x0bMS", []step{{reason: mllp.ReasonTruncated}}},
		{"nothing", "", []step{eof}},
		{"invalid UTF-8", frame("MSH|\xff\xfe\x80\r") + frame(msgB), []step{{text: "MSH|\xff\xfe\x80\r"}, {text: msgB}, eof}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.want, steps(mllp.NewReader(strings.NewReader(tc.in), 0)), "at once")
			assert.Equal(t, tc.want, steps(mllp.NewReader(iotest.OneByteReader(strings.NewReader(tc.in)), 0)), "byte by byte")
			assert.Equal(t, tc.want, steps(mllp.NewReader(iotest.DataErrReader(strings.NewReader(tc.in)), 0)), "end of stream with the last bytes")
		})
	}
}

func TestReaderLimitIsExact(t *testing.T) {
	for _, limit := range []int64{10, 4096, 100_000} {
		fits := "MSH|" + strings.Repeat("x", int(limit)-4)
		for _, tc := range []struct {
			name, in string
			want     []step
		}{
			{"as long as allowed", frame(fits) + frame(fits), []step{{text: fits}, {text: fits}, {eof: true}}},
			{"one more", frame(fits + "x"), []step{{reason: mllp.ReasonTooLarge}}},
			{"one more, without end", "\x0b" + fits + "x", []step{{reason: mllp.ReasonTooLarge}}},
			{"as long as allowed, cut off", "\x0b" + fits + frame("MSH|x"), []step{{reason: mllp.ReasonTruncated}, {text: "MSH|x"}, {eof: true}}},
			{"one more, cut off", "\x0b" + fits + "x" + frame("MSH|x"), []step{{reason: mllp.ReasonTooLarge}}},
		} {
			assert.Equal(t, tc.want, steps(mllp.NewReader(strings.NewReader(tc.in), limit)), "%s, %d, at once", tc.name, limit)
			assert.Equal(t, tc.want, steps(mllp.NewReader(iotest.OneByteReader(strings.NewReader(tc.in)), limit)), "%s, %d, byte by byte", tc.name, limit)
		}
	}
}

func TestReaderStopsReadingAtTheLimit(t *testing.T) {
	src := &counting{r: io.MultiReader(strings.NewReader("\x0bMSH|"), endless{})}
	assert.Equal(t, []step{{reason: mllp.ReasonTooLarge}}, steps(mllp.NewReader(src, 1<<20)))
	assert.LessOrEqual(t, src.n, int64(1<<20+32))
}

func TestReaderWithANegativeLimitFails(t *testing.T) {
	_, err := mllp.NewReader(strings.NewReader(frame(msgA)), -1).Next()
	var fe *mllp.FrameError
	require.ErrorAs(t, err, &fe)
	assert.Equal(t, mllp.ReasonInvalidLimit, fe.Reason)
}

func TestFrameErrorTellsWhereButNeverWhat(t *testing.T) {
	r := mllp.NewReader(strings.NewReader(frame(msgA)+"\x0b"+msgA+frame(msgB)), 0)
	_, err := r.Next()
	require.NoError(t, err)
	_, err = r.Next()
	var fe *mllp.FrameError
	require.ErrorAs(t, err, &fe)
	assert.Equal(t, int64(len(frame(msgA))), fe.Offset)
	assert.Equal(t, int64(len(msgA)), fe.Length)
	assert.NotContains(t, err.Error(), "PID")

	r = mllp.NewReader(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(frame(msgA)))), 0)
	_, err = r.Next()
	assert.ErrorIs(t, err, iotest.ErrTimeout)
	_, again := r.Next()
	assert.Equal(t, err, again)
}

func TestAppendFrame(t *testing.T) {
	got, err := mllp.AppendFrame([]byte("x"), []byte(msgA))
	require.NoError(t, err)
	assert.Equal(t, "x"+frame(msgA), string(got))
	for _, tc := range []struct {
		name, msg string
		reason    mllp.Reason
		offset    int64
	}{
		{"a header after a VT", "MSH|a\r\x0bMSH|b\r", mllp.ReasonStrayControl, 6},
		{"a VT", "MSH|a\x0b", mllp.ReasonStrayControl, 5},
		{"FS CR", "MSH|a\x1c \x1c\r", mllp.ReasonStrayControl, 7},
		{"nothing", "", mllp.ReasonEmpty, 0},
		{"white space", "\r\n", mllp.ReasonEmpty, 0},
		{"a commit acknowledgement", "\x06", mllp.ReasonMLLPR2, 0},
	} {
		got, err := mllp.AppendFrame([]byte("x"), []byte(tc.msg))
		var fe *mllp.FrameError
		require.ErrorAs(t, err, &fe, tc.name)
		assert.Equal(t, tc.reason, fe.Reason, tc.name)
		assert.Equal(t, tc.offset, fe.Offset, tc.name)
		assert.Equal(t, "x", string(got), tc.name)
	}
}

func TestReaderAllocatesNothingPerFrame(t *testing.T) {
	one := []byte(frame(msgA))
	r := mllp.NewReader(&repeat{data: one}, 0)
	_, err := r.Next()
	require.NoError(t, err)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}))
}

// FuzzReader: in whatever pieces a stream arrives, the same frames come out of it.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		frame(msgA), "junk" + frame(msgA) + "\n" + frame(msgB), "\x0b" + msgA + frame(msgB), "\x0b" + msgA + "\x1c" + frame(msgB),
		frame("MSH|a\x1cb\x0bc\x1c\x0b"), frame(""), frame("\x06"), "GET / ", "\x16\x03", "\x0b\xef\xbb\xbfMSH|\x0b\xef\xbb\xbfBHS|\x1c", "\x0b\x1c\x0bMS",
	} {
		f.Add([]byte(s), byte(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, n byte) {
		const limit = 64
		want := steps(mllp.NewReader(bytes.NewReader(in), limit))
		assert.Equal(t, want, steps(mllp.NewReader(iotest.OneByteReader(bytes.NewReader(in)), limit)))
		assert.Equal(t, want, steps(mllp.NewReader(&chunks{data: in, n: int(n) + 1}, limit)))
		for _, s := range want {
			if len(s.text) > limit {
				t.Fatalf("%d bytes", len(s.text))
			}
		}
	})
}

// FuzzAppendFrame: what AppendFrame accepts arrives as it was.
func FuzzAppendFrame(f *testing.F) {
	for _, s := range []string{msgA, "MSH|a\x1c", "\x1c\x1c", "MSH|\x1c\r", "\x0b", "\x06", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		framed, err := mllp.AppendFrame(nil, msg)
		if err != nil {
			return
		}
		r := mllp.NewReader(bytes.NewReader(append(framed, framed...)), 0)
		for range 2 {
			got, err := r.Next()
			require.NoError(t, err)
			assert.Equal(t, msg, got)
		}
		_, err = r.Next()
		assert.ErrorIs(t, err, io.EOF)
	})
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// repeat is a stream that repeats data for ever, once in each read.
type repeat struct{ data []byte }

func (r *repeat) Read(p []byte) (int, error) { return copy(p, r.data), nil }

// chunks reads at most n bytes at a time.
type chunks struct {
	data []byte
	n    int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.data)
	c.data = c.data[n:]
	return n, nil
}
