package mllp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// streamed is what a stream handler saw of a message.
type streamed struct {
	head, text string
	id         string
	err        error
	flags      mllp.Flags // when it had read all
}

// streaming runs srv with a stream handler that reads all, and returns what it saw.
func streaming(t *testing.T, srv *mllp.Server) (*site, func() []streamed) {
	t.Helper()
	var mu sync.Mutex
	var seen []streamed
	if srv.Stream == nil {
		srv.Stream = mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
			text, err := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, streamed{head: string(r.Message), text: string(text), id: string(r.Header.ControlID), err: err, flags: r.Flags})
			return nil, nil // AA, whatever came
		})
	}
	s := serve(t, srv)
	return s, func() []streamed {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

func TestAStreamedMessageArrivesByteForByte(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		var seen []streamed
		s := start(&mllp.Server{Stream: mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
			assert.NotNil(t, r.RemoteAddr)
			text, err := io.ReadAll(r.Body)
			seen = append(seen, streamed{head: string(r.Message), text: string(text), id: string(r.Header.ControlID), err: err, flags: r.Flags})
			return nil, nil
		})})
		large := msgB + strings.Repeat("OBX|1|ED|~~\x1c \x0b"+strings.Repeat("QUJD", 100)+"\r", 2000)
		c := s.call()
		go c.say(frame(msgA) + frame(large) + "\n" + frame(msgA))
		for _, want := range []string{"AA id1", "AA id2", "AA id1"} {
			assert.Equal(t, want, c.hear())
		}
		require.Len(t, seen, 3)
		for i, want := range []string{msgA, large, msgA} {
			assert.NoError(t, seen[i].err)
			assert.True(t, seen[i].text == want, "message %d", i)
			assert.Equal(t, want[:strings.IndexByte(want, '\r')+1], seen[i].head)
		}
		assert.Equal(t, mllp.StrayControl, seen[1].flags)
		assert.Equal(t, int64(len(large)), s.event(mllp.EventTolerated).Bytes)
	})
}

func TestAStreamedMessageThatDidNotArriveWholeIsNeverAccepted(t *testing.T) {
	long := strings.Repeat("OBX|1|ED|"+strings.Repeat("QUJD", 100)+"\r", 500)
	for _, tc := range []struct {
		name, in string
		set      func(*mllp.Server)
		want     []string // answers
		reason   mllp.Reason
	}{
		{name: "cut off by the next one", in: "\x0b" + msgA + long + frame(msgB), want: []string{"AE id1", "AA id2"}, reason: mllp.ReasonTruncated},
		{name: "cut off by the next one, strictly", in: "\x0b" + msgA + long + frame(msgB), set: func(s *mllp.Server) { s.Truncated = mllp.PolicyClose }, reason: mllp.ReasonTruncated},
		{name: "cut off by the end", in: "\x0b" + msgA + long, reason: mllp.ReasonTruncated},
		{name: "too long", in: frame(msgA + long), set: func(s *mllp.Server) { s.MaxStreamBytes = 100_000 }, want: []string{"AR id1"}, reason: mllp.ReasonTooLarge},
		{name: "another message in it", in: frame(msgA + long + msgB), want: []string{"AR id1"}, reason: mllp.ReasonMultipleMSH},
		{name: "a flaw, strictly", in: frame(msgA + long + "\x0b\r"), set: func(s *mllp.Server) { s.Strict = true }, want: []string{"AR id1"}, reason: mllp.ReasonStrayControl},
	} {
		for _, whole := range []bool{true, false} { // the handler reads all of it, or nothing
			t.Run(fmt.Sprintf("%s/%v", tc.name, whole), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := new(mllp.Server)
					if tc.set != nil {
						tc.set(srv)
					}
					var failed error
					srv.Stream = mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
						if whole {
							text, err := io.ReadAll(r.Body)
							if failed == nil {
								failed = err
							}
							if err == nil {
								assert.Equal(t, msgB, string(text))
							}
						}
						return nil, nil
					})
					s, _ := streaming(t, srv)
					c := s.call()
					go func() {
						io.WriteString(c.Conn, tc.in)
						c.raw.CloseWrite()
					}()
					var got []string
					for {
						a := c.hear()
						if a == "end" || a == "reset" {
							break
						}
						got = append(got, a)
					}
					assert.Equal(t, tc.want, got)
					if whole {
						var fe *mllp.FrameError
						require.ErrorAs(t, failed, &fe)
						assert.Equal(t, tc.reason, fe.Reason)
					}
					c.raw.Close()
					synctest.Wait()
					assert.Contains(t, strings.Join(s.told(), " "), string(tc.reason))
				})
			})
		}
	}
}

func TestAStreamHandlersResultIsTheAnswer(t *testing.T) {
	for _, tc := range []struct {
		reply string
		err   error
		want  string
	}{
		{"", errors.New("Doe^John"), "AE id1"},
		{"", &mllp.Nak{Code: mllp.AR}, "AR id1"},
		{"MSH|^~\\&|||||||ACK|R|P|2.5\rMSA|CA|id1\r", nil, "CA id1"},
		{"", mllp.ErrNoReply, "end"},
		{"panic", nil, "AE id1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := streaming(t, &mllp.Server{Stream: mllp.StreamHandlerFunc(func(context.Context, *mllp.StreamRequest) ([]byte, error) {
				if tc.reply == "panic" {
					panic("Doe^John")
				}
				if tc.reply == "" {
					return nil, tc.err
				}
				return []byte(tc.reply), tc.err
			})})
			c := s.call()
			c.say("\x0b" + msgA)
			c.quiet(time.Second) // the handler has returned, but the message is not whole
			c.say("\x1c\r")
			assert.Equal(t, tc.want, c.hear())
			c.raw.Close()
			synctest.Wait()
			assert.NotContains(t, s.log.String(), "Doe^John")
		})
	}
}

func TestAStreamThatIsRefusedDoesNotReachTheHandler(t *testing.T) {
	for in, want := range map[string]string{
		strings.Replace(msgA, "id1", "", 1):          "AR ",
		"FHS|^~\\&|A|B|C|D|1|||c|f1\r" + msgA:        "AR f1",
		"{}":                                         "end",
		"MSH|^~\\&|" + strings.Repeat("x", 40<<10):   "end", // the first segment has no end
		"MSH|^~\\&|A|B|C|D|1||ACK|id1|P|2.5\rMSA|AA": "end",
	} {
		synctest.Test(t, func(t *testing.T) {
			called := false
			s, _ := streaming(t, &mllp.Server{Stream: mllp.StreamHandlerFunc(func(context.Context, *mllp.StreamRequest) ([]byte, error) {
				called = true
				return nil, nil
			})})
			c := s.call()
			go func() {
				io.WriteString(c.Conn, frame(in))
				c.raw.CloseWrite()
			}()
			assert.Equal(t, want, strings.Replace(c.hear(), "reset", "end", 1))
			assert.Equal(t, strings.Contains(in, "ACK"), called, "an acknowledgement does, and is not answered")
		})
	}
}

func TestASlowStreamHandlerCostsItsSenderNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := streaming(t, &mllp.Server{Stream: mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
			for {
				_, err := r.Body.Read(make([]byte, 10_000))
				if err != nil {
					return nil, nil //nolint:nilerr // AA, if it were for the handler
				}
				time.Sleep(10 * time.Minute)
			}
		})})
		c := s.call()
		go c.say(frame(msgA + strings.Repeat("OBX|1\r", 50_000)))
		assert.Equal(t, "AA id1", c.hear())

		c.say("\x0b" + msgA) // but it must go on
		assert.Equal(t, "end", c.hear())
		synctest.Wait()
		assert.Contains(t, s.told(), "bad_frame timeout")
	})
}

func TestTheBodyOfAStreamEndsWithItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := make(chan io.Reader, 1)
		s, _ := streaming(t, &mllp.Server{Stream: mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
			kept <- r.Body
			return nil, nil
		})})
		c := s.call()
		c.say(frame(msgA))
		assert.Equal(t, "AA id1", c.hear())
		n, err := (<-kept).Read(make([]byte, 1))
		assert.Zero(t, n)
		assert.Error(t, err)
	})
}

func TestStreamSettingsThatContradictEachOtherAreRefused(t *testing.T) {
	stream := mllp.StreamHandlerFunc(func(context.Context, *mllp.StreamRequest) ([]byte, error) { return nil, nil })
	for word, srv := range map[string]*mllp.Server{
		"Handler is not set": {},
		"both set":           {Handler: accepting, Stream: stream},
		"Stream is not":      {Handler: accepting, MaxStreamBytes: 1},
		"negative":           {Stream: stream, MaxStreamBytes: -1},
		"HandlerTimeout":     {Stream: stream, HandlerTimeout: 1},
		"Mode is MLLPv2":     {Stream: stream, Framing: release2},
		"Mode is RAW":        {Stream: stream, Framing: raw(mllp.DelimitEOF)},
	} {
		assert.ErrorContains(t, srv.Validate(), word)
	}
}

// FuzzStream: a stream handler sees what a Reader of the same bytes returns, in
// whatever pieces they arrive, and AA is sent for the whole messages alone.
func FuzzStream(f *testing.F) {
	for _, s := range []string{
		frame(msgA) + frame(msgB), "\x0b" + msgA + frame(msgB), "\x0b" + msgA + "\x1c" + frame(msgB), "\x0b" + msgA + "\x1c", frame(msgA + msgB),
		frame(msgA + "OBX|\x1c\x0b\r"), frame("MSH|^~\\&|||||||||\n\x1c\rMSH|"), frame("\x06") + frame("") + frame(msgA), "\x0b" + msgA + "\x1c\x0b\xef",
		frame("\xef\xbb\xbf" + msgA + strings.Repeat("x", 5000) + "\r" + msgA), "<S>" + msgA + "<<<E><S>" + msgB, "x" + frame("MSH|^~"),
	} {
		f.Add([]byte(s), byte(0), false)
		f.Add([]byte(s), byte(40), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, n byte, custom bool) {
		framing := mllp.Framing{}
		if custom {
			framing = frameOf("<S>", "<<E>")
		}
		const limit = 6000
		var want []string
		frames := framing.NewReader(bytes.NewReader(in), limit)
		for {
			text, err := frames.Next()
			var fe *mllp.FrameError
			if err == nil {
				want = append(want, string(text))
			} else if !errors.As(err, &fe) || !fe.Resumable() {
				break
			}
		}
		var whole, bad []string
		srv := &mllp.Server{
			Framing: framing, MaxStreamBytes: limit,
			NotHL7: mllp.PolicyDeliver, NoControlID: mllp.PolicyDeliver, MultipleMSH: mllp.PolicyDeliver, Batches: mllp.PolicyDeliver,
			Stream: mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
				text, err := io.ReadAll(r.Body)
				if err == nil {
					whole = append(whole, string(text))
				} else {
					bad = append(bad, string(text))
				}
				return nil, nil
			}),
		}
		ln := memnet.Listen()
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), ln) }()
		c, err := ln.DialFrom(net.IPv4(10, 0, 0, 1))
		require.NoError(t, err)
		go func() {
			for part := range slices.Chunk(in, int(n)+1) {
				c.Write(part)
			}
			c.CloseWrite()
		}()
		accepted := 0
		replies := framing.NewReader(c, 0)
		for {
			text, err := replies.Next()
			if err != nil {
				break
			}
			if a, err := mllp.ParseAck(text); assert.NoError(t, err) && a.Code == mllp.AA {
				accepted++
			}
		}
		io.Copy(io.Discard, c)
		c.Close()
		require.NoError(t, srv.Close())
		<-served
		assert.True(t, len(whole) <= len(want) && slices.Equal(want[:len(whole)], whole), "%q, not %q; %q", whole, want, bad)
		assert.LessOrEqual(t, accepted, len(whole))
		for _, text := range bad {
			assert.True(t, bytes.Contains(in, []byte(text)))
		}
	})
}

// pattern is a message with a document in it that takes no memory.
type pattern struct{ at, size int64 }

const patternBlock = "OBX|1|ED|PDF||^application^pdf^Base64^JVBERi0xLjQKJcOkw7zDtsOfCjIgMCBvYmoKPDwvTGVuZ3RoIDMgMCBSL0ZpbHRlci9GbGF0ZURlY29kZT4+\r"

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.size-p.at)]
	n := 0
	for n < len(b) {
		n += copy(b[n:], patternBlock[(p.at+int64(n))%int64(len(patternBlock)):])
	}
	p.at += int64(n)
	return n, nil
}

func TestAStreamOf200MegabytesNeedsLessThanTwoOfMemory(t *testing.T) {
	const size = 200 << 20
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	want := sha256.New()
	buf := make([]byte, 64<<10)
	want.Write([]byte(msgA))
	_, err = io.CopyBuffer(struct{ io.Writer }{want}, &pattern{size: size}, buf)
	require.NoError(t, err)

	var got [sha256.Size]byte
	var total int64
	srv := &mllp.Server{Stream: mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		total = n
		h.Sum(got[:0])
		return nil, err
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = io.WriteString(c, "\x0b"+msgA)
	require.NoError(t, err)
	_, err = io.CopyBuffer(struct{ io.Writer }{c}, &pattern{size: size}, buf)
	require.NoError(t, err)
	_, err = io.WriteString(c, "\x1c\r")
	require.NoError(t, err)
	reply, err := mllp.NewReader(c, 0).Next()
	require.NoError(t, err)
	runtime.ReadMemStats(&after)

	a, err := mllp.ParseAck(reply)
	require.NoError(t, err)
	assert.Equal(t, mllp.AA, a.Code)
	assert.Equal(t, int64(size+len(msgA)), total)
	assert.Equal(t, want.Sum(nil), got[:])
	t.Logf("%d bytes allocated in all", after.TotalAlloc-before.TotalAlloc)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2<<20))
	require.NoError(t, srv.Close())
	<-served
}
