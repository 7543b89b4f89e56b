package mllp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// sendReader sends in a goroutine of its own.
func sendReader(ctx context.Context, c *mllp.Conn, r io.Reader, size int) <-chan sent {
	ch := make(chan sent, 1)
	began := time.Now()
	go func() {
		reply, err := c.SendReader(ctx, r, int64(size))
		ch <- sent{reply, err, time.Since(began)}
	}()
	return ch
}

// long returns a message of n bytes.
func long(n int) []byte {
	return append(append(adt("M1"), bytes.Repeat([]byte("x"), n-len(adt("M1"))-1)...), '\r')
}

func TestAReadMessageArrivesAsASentOne(t *testing.T) {
	for _, size := range []int{len(adt("M1")) + 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 64<<10 + 48, 128 << 10, 1<<20 + 3} {
		for name, f := range map[string]mllp.Framing{"MLLP": {}, "FRAME": frameOf("<SOM>", "<EOM>"), "no start": frameOf("", "\x1c\x1c\r")} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, p := dial(t, &mllp.Dialer{Framing: f})
					frames := f.NewReader(p, 0)
					for _, read := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.HalfReader, iotest.DataErrReader} {
						src := strings.NewReader(string(long(size)) + "the next one's")
						ch := sendReader(t.Context(), c, read(src), size)
						got, err := frames.Next()
						require.NoError(t, err)
						require.True(t, bytes.Equal(long(size), got))
						reply, err := f.AppendFrame(nil, []byte(strings.TrimSuffix(answer(mllp.AA, "M1")[1:], "\x1c\r")))
						require.NoError(t, err)
						p.say(string(reply))
						s := <-ch
						require.NoError(t, s.err)
						assert.Equal(t, "M1", s.reply.Ack.ControlID)
					}
					require.NoError(t, c.Err())
				})
			})
		}
	}
}

// What AppendFrame refuses must not arrive as a message, wherever in it the bytes
// are, and what it accepts must arrive as the same bytes.
func TestAReadMessageIsCheckedAsASentOne(t *testing.T) {
	const size = 64<<10 + 200
	text, custom := mllp.Framing{}, frameOf("<S>", "<E><E>")
	for name, tc := range map[string]struct {
		f    mllp.Framing
		with string
	}{
		"VT": {text, "\x0b"}, "FS CR": {text, "\x1c\r"}, "FS": {text, "\x1c"},
		"the end": {custom, "<E><E>"}, "half of it": {custom, "<E>"}, "more than it": {custom, "<E><E><E>"},
		"a beginning": {custom, "<S>MSH|"}, "one with a mark": {custom, "<S>\xef\xbb\xbfBHS|"}, "no beginning": {custom, "<S>MSHX"},
	} {
		t.Run(name, func(t *testing.T) {
			for at := 64<<10 - 70; at <= 64<<10+20; at++ {
				msg := long(size)
				copy(msg[at:], tc.with)
				checkAgainstAppendFrame(t, tc.f, msg, at)
			}
			for n := range len(tc.with) + 1 { // at the very end, whole or in part
				msg := long(size)
				copy(msg[size-n:], tc.with)
				checkAgainstAppendFrame(t, tc.f, msg, size-n)
			}
		})
	}
}

func checkAgainstAppendFrame(t *testing.T, f mllp.Framing, msg []byte, at int) {
	t.Helper()
	ours, theirs := net.Pipe()
	d := &mllp.Dialer{Framing: f, Match: mllp.MatchNone, NetDialer: dialFunc(func(context.Context) (net.Conn, error) { return ours, nil })}
	c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
	require.NoError(t, err)
	written := make(chan []byte)
	go func() {
		got, _ := io.ReadAll(theirs)
		written <- got
	}()
	_, err = c.SendReader(t.Context(), bytes.NewReader(msg), int64(len(msg)))
	theirs.Close() // what was written has been read
	got := <-written
	c.Close()
	framed, refusal := f.AppendFrame(nil, msg)
	if refusal == nil {
		require.NoError(t, err, "at %d", at)
		require.True(t, bytes.Equal(framed, got), "at %d", at)
		return
	}
	outcome := mllp.Unknown
	if len(got) == 0 { // it was found in what is read before anything is written
		require.Less(t, at, 64<<10)
		outcome = mllp.NotSent
	}
	e := failed(t, err, outcome)
	require.False(t, e.Retryable())
	fe, ok := errors.AsType[*mllp.FrameError](err)
	require.True(t, ok)
	require.Equal(t, mllp.ReasonStrayControl, fe.Reason)
	require.EqualValues(t, at, fe.Offset)
	r := f.NewReader(bytes.NewReader(got), 0)
	_, err = r.Next()
	require.Error(t, err, "at %d a message arrived", at)
}

func TestAReadMessageThatCannotBeSentIsRefusedBeforeWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, new(mllp.Dialer))
		for want, msg := range map[string]string{
			"no HL7 header segment":   "PID|1\r",
			"no control ID":           "MSH|^~\\&|A|B|C|D|||ADT^A01||P|2.5\r",
			"stray_control":           string(adt("M1")) + "\x0b",
			"longer than 64 KiB":      "MSH|^~\\&|" + strings.Repeat("x", 70<<10),
			"a message of 0 bytes":    "",
			"unexpected EOF":          "",
			"empty":                   " \r",
			"the reader's own reason": "",
		} {
			var src io.Reader = strings.NewReader(msg)
			size := len(msg)
			switch want {
			case "unexpected EOF":
				src, size = bytes.NewReader(adt("M1")), len(adt("M1"))+1
			case "the reader's own reason":
				src, size = iotest.ErrReader(errors.New(want)), 5
			}
			_, err := c.SendReader(t.Context(), src, int64(size))
			failed(t, err, mllp.NotSent)
			assert.ErrorContains(t, err, want)
		}
		ch := sendReader(t.Context(), c, bytes.NewReader(adt("M2")), len(adt("M2")))
		id, _ := p.receive() // the first that arrives
		assert.Equal(t, "M2", id)
		p.say(answer(mllp.AA, "M2"))
		require.NoError(t, (<-ch).err)
	})
	for _, f := range []mllp.Framing{release2, raw(mllp.DelimitEOF)} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := dial(t, &mllp.Dialer{Framing: f})
			_, err := c.SendReader(t.Context(), bytes.NewReader(adt("M1")), int64(len(adt("M1"))))
			assert.False(t, failed(t, err, mllp.NotSent).Retryable())
			assert.ErrorContains(t, err, "SendReader cannot be used with "+string(f.Mode))
		})
	}
}

func TestAReadMessageThatBreaksOffIsUnknownAndNeverWhole(t *testing.T) {
	const size = 300 << 10
	broken := errors.New("the disk is gone")
	for name, tc := range map[string]struct {
		src       io.Reader
		is        error
		retryable bool
	}{
		"the reader fails":     {io.MultiReader(bytes.NewReader(long(size)[:200<<10]), iotest.ErrReader(broken)), broken, true},
		"the reader ends":      {bytes.NewReader(long(size)[:200<<10]), io.ErrUnexpectedEOF, true},
		"bytes it cannot have": {bytes.NewReader(bytes.Replace(long(size), []byte("xxxxx\r"), []byte("xx\x1c\rx\r"), 1)), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := dial(t, new(mllp.Dialer))
				ch := sendReader(t.Context(), c, tc.src, size)
				_, err := p.frames.Next()
				fe, ok := errors.AsType[*mllp.FrameError](err)
				require.True(t, ok, "%v", err)
				assert.Contains(t, []mllp.Reason{mllp.ReasonTruncated, mllp.ReasonReadFailed}, fe.Reason)
				s := <-ch
				e := failed(t, s.err, mllp.Unknown)
				assert.Equal(t, tc.retryable, e.Retryable())
				if tc.is != nil {
					require.ErrorIs(t, e, tc.is)
				}
				require.Error(t, c.Err())
			})
		})
	}
}

func TestARefusalInTheMiddleOfAReadMessageEndsIt(t *testing.T) {
	for code, outcome := range map[mllp.AckCode]mllp.Outcome{mllp.AR: mllp.Nacked, mllp.AA: mllp.Unknown} {
		synctest.Test(t, func(t *testing.T) {
			c, p := dial(t, new(mllp.Dialer))
			r, w := io.Pipe()
			ch := sendReader(t.Context(), c, r, 1<<30)
			_, err := w.Write(long(64 << 10))
			require.NoError(t, err)
			synctest.Wait()
			p.say(answer(code, "M1"))
			go func() { // it reads on until it notices
				for err == nil {
					_, err = w.Write(make([]byte, 1<<10))
				}
			}()
			go io.Copy(io.Discard, p)
			failed(t, (<-ch).err, outcome)
			require.Error(t, c.Err())
			r.Close()
		})
	}
}

func TestSendReaderHeedsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, new(mllp.Dialer))
		go io.Copy(io.Discard, p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, w := io.Pipe()
		ch := sendReader(ctx, c, r, 1<<30)
		go func() {
			for _, err := w.Write(long(64 << 10)); err == nil; _, err = w.Write(make([]byte, 1<<10)) {
				time.Sleep(time.Second)
			}
		}()
		s := <-ch
		r.Close()
		time.Sleep(time.Second) // the writer's last one
		failed(t, s.err, mllp.Unknown)
		require.ErrorIs(t, s.err, context.DeadlineExceeded)
		assert.LessOrEqual(t, s.took, 61*time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // the receiver does not read
		c, _ := dial(t, new(mllp.Dialer))
		s := <-sendReader(t.Context(), c, bytes.NewReader(long(4<<20)), 4<<20)
		failed(t, s.err, mllp.Unknown)
		require.ErrorIs(t, s.err, os.ErrDeadlineExceeded)
	})
}

// repeated is a long message that takes no memory.
type repeated struct {
	head []byte
	left int
}

func (r *repeated) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), r.left)
	for i := range p[:n] {
		p[i] = 'x'
	}
	if r.left -= n; r.left == 0 {
		p[n-1] = '\r'
	}
	return n, nil
}

func TestALongMessageGoesFromReaderToStreamInLittleMemory(t *testing.T) {
	const size = 64 << 20
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hash := sha256.New()
	srv := &mllp.Server{Stream: mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
		_, err := io.CopyBuffer(struct{ io.Writer }{hash}, r.Body, make([]byte, 32<<10))
		return nil, err
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	defer func() {
		srv.Close()
		<-served
	}()
	c, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	want := sha256.New()
	_, err = io.Copy(want, &repeated{adt("M1"), size})
	require.NoError(t, err)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	reply, err := c.SendReader(t.Context(), &repeated{adt("M1"), size}, int64(size+len(adt("M1"))))
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	assert.Equal(t, mllp.AA, reply.Ack.Code)
	assert.Equal(t, want.Sum(nil), hash.Sum(nil))
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), "of both ends together")
}
