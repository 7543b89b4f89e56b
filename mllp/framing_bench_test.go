package mllp_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// frameEcho is the least that can be done with a framing: it looks for the bytes
// that end a message, or counts them, and answers with ack. With MLLP release 2
// that is 06 and the acknowledgement in one write, and to commit, with which the
// client answers it, nothing is answered. It takes two messages in one frame for
// one, and what was cut off by another message too; with checking it makes the
// searches without which that cannot be seen (rows 19 and 38 of the edge cases):
// for what begins a frame, for a byte that only a second MSH has, and, with
// MLLP release 2, the hash by which a message that comes again is known (row 92).
type frameEcho struct {
	start, end  []byte
	size        int // with no end
	ack, commit []byte
	checking    bool
	seed        maphash.Seed
}

func (e *frameEcho) serve(ln net.Listener, wg *sync.WaitGroup) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			buf := make([]byte, max(4096, e.size+64))
			begin, n, last := 0, 0, uint64(0) // the message begins at buf[begin]
			for {
				k, err := conn.Read(buf[n:])
				if err != nil {
					return
				}
				at := n
				n += k
				if e.commit != nil && begin == 0 && bytes.HasPrefix(buf[:n], e.commit) {
					begin = len(e.commit)
					at = max(at, begin)
				}
				if n == begin {
					continue
				}
				ended := n >= e.size
				if len(e.end) > 0 {
					ended = bytes.IndexByte(buf[at:n], e.end[0]) >= 0 && bytes.HasSuffix(buf[:n], e.end)
				}
				if e.checking && e.damaged(buf[max(at, min(n, begin+len(e.start)+8)):n]) {
					return
				}
				if !ended {
					continue
				}
				if e.checking && e.commit != nil {
					hash := maphash.Bytes(e.seed, buf[begin:n])
					if hash == last {
						return
					}
					last = hash
				}
				if _, err := conn.Write(e.ack); err != nil {
					return
				}
				begin, n = 0, 0
			}
		})
	}
}

// damaged makes the two searches in bytes of a message that come after its first.
func (e *frameEcho) damaged(text []byte) bool {
	return len(e.start) > 0 && bytes.Contains(text, e.start) || bytes.IndexByte(text, '~') >= 0
}

// BenchmarkFraming compares the Server in each mode with the least loop for it,
// and with the least one that notices what was lost, in turn, for a moment each.
// ratio is the Server's messages per second by the first one's, ratio-checking by
// the second one's: the medians of all turns, since other work on the machine hits
// some of them. FRAME with MLLP's own bytes shows what their being settable costs.
func BenchmarkFraming(b *testing.B) {
	for _, size := range []int{255, 4 << 10, 64 << 10} {
		for name, f := range map[string]mllp.Framing{
			"MLLP": {}, "MLLPv2": {Mode: mllp.ModeMLLPv2, Retries: -1}, "FRAME": frameOf("\x0b", "\x1c\r"), "FRAME-text": frameOf("<SOM>", "<EOM>"),
			"RAW-newline": raw(mllp.DelimitNewline), "RAW-length": {Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: int64(size)},
		} {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) { benchFraming(b, f, size) })
		}
	}
}

func benchFraming(b *testing.B, f mllp.Framing, size int) {
	text := []byte(message(size))
	framed, err := f.AppendFrame(nil, text)
	require.NoError(b, err)
	var h mllp.Header
	require.NoError(b, h.Parse(text))
	replies := f
	if f.Delimiter == mllp.DelimitLength {
		replies = raw(mllp.DelimitIdle)
	}
	ack, err := replies.AppendFrame(nil, mllp.AppendAck(nil, &h, mllp.AA, "", []byte("01234567"), time.Now()))
	require.NoError(b, err)
	end := map[bool][]byte{true: f.End, false: []byte("\x1c\r")}[f.Mode == mllp.ModeFRAME]
	switch f.Delimiter {
	case mllp.DelimitNewline:
		end = []byte("\n")
	case mllp.DelimitLength:
		end = nil
	case mllp.DelimitEOF, mllp.DelimitIdle:
	}
	var commit []byte
	if f.Mode == mllp.ModeMLLPv2 {
		commit = []byte(ack06)
		ack = append([]byte(ack06), ack...)
	}

	start := map[bool][]byte{true: f.Start, false: []byte("\x0b")}[f.Mode == mllp.ModeFRAME]
	if f.Mode == mllp.ModeRAW {
		start = nil
	}

	var wg sync.WaitGroup
	b.Cleanup(wg.Wait)
	var lns [3]net.Listener
	for i := range lns {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		b.Cleanup(func() { ln.Close() })
		lns[i] = ln
	}
	for i, ln := range lns[:2] {
		echo := &frameEcho{start: start, end: end, size: size, ack: ack, commit: commit, checking: i == 1, seed: maphash.MakeSeed()}
		wg.Go(func() { echo.serve(ln, &wg) })
	}
	srv := &mllp.Server{Framing: f, Handler: accepting}
	wg.Go(func() { srv.Serve(context.Background(), lns[2]) })
	b.Cleanup(func() { srv.Close() })
	var clients [3]net.Conn
	for i, ln := range lns {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		b.Cleanup(func() { c.Close() })
		clients[i] = c
	}
	id, at := 0, bytes.Index(framed, []byte("MSG00001"))
	buf := make([]byte, len(ack)+64)
	last := ack[len(ack)-1:]
	if len(end) > 0 {
		last = end
	}
	exchange := func(c net.Conn) {
		id++ // each message is another, as release 2 would otherwise know it
		for i, n := 7, id; i >= 0; i, n = i-1, n/10 {
			framed[at+i] = byte('0' + n%10)
		}
		if _, err := c.Write(framed); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < len(ack)/2 || !bytes.HasSuffix(buf[:n], last); {
			k, err := c.Read(buf[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
		if commit != nil {
			if _, err := c.Write(commit); err != nil {
				b.Fatal(err)
			}
		}
	}
	const turn = 20
	var took [3][]time.Duration
	b.ReportAllocs()
	b.SetBytes(int64(3 * turn * size))
	for b.Loop() {
		for i, c := range clients {
			began := time.Now()
			for range turn {
				exchange(c)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	reportRatios(b, took)
	b.ReportMetric(turn/median(took[0]), "least-msg/s")
	b.ReportMetric(turn/median(took[2]), "msg/s")
}

// reportRatios reports how the third of three compares with the first, and with
// the second, which took turns in the same run.
func reportRatios(b *testing.B, took [3][]time.Duration) {
	b.ReportMetric(median(took[0])/median(took[2]), "ratio")
	b.ReportMetric(median(took[1])/median(took[2]), "ratio-checking")
	b.ReportMetric(0, "ns/op")
}

// median returns the median of d, in seconds.
func median(d []time.Duration) float64 {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2].Seconds()
}

// BenchmarkReader compares reading frames with the one search that it cannot do
// without.
func BenchmarkReader(b *testing.B) {
	for _, size := range []int{255, 4 << 10, 64 << 10} {
		text := []byte(message(size))
		b.Run(fmt.Sprintf("limit/%dB", size), func(b *testing.B) {
			framed, err := mllp.AppendFrame(nil, text)
			require.NoError(b, err)
			src := &repeating{frame: framed}
			buf := make([]byte, len(framed))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.ReadFull(src, buf); err != nil || bytes.IndexByte(buf, 0x1c) != len(buf)-2 {
					b.Fatal(err)
				}
			}
		})
		for _, f := range []mllp.Framing{{}, {Mode: mllp.ModeMLLPv2}, frameOf("\x0b", "\x1c\r"), frameOf("<SOM>", "<EOM>"), raw(mllp.DelimitNewline)} {
			b.Run(fmt.Sprintf("%s%s%s/%dB", f.Mode, f.Delimiter, f.Start, size), func(b *testing.B) {
				framed, err := f.AppendFrame(nil, text)
				require.NoError(b, err)
				r := f.NewReader(&repeating{frame: framed}, 0)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.Next(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkStream compares a stream of 16 MiB with the least that reads as much.
func BenchmarkStream(b *testing.B) {
	const size = 16 << 20
	run := func(b *testing.B, ln net.Listener) {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		defer c.Close()
		framed := []byte(frame(message(size)))
		buf := make([]byte, 4096)
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Write(framed); err != nil {
				b.Fatal(err)
			}
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		return ln
	}
	b.Run("limit", func(b *testing.B) {
		ln := listen()
		var wg sync.WaitGroup
		wg.Go(func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			buf := make([]byte, 40<<10)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if bytes.IndexByte(buf[:n], 0x1c) >= 0 {
					c.Write([]byte(answer(mllp.AA, "x")))
				}
			}
		})
		run(b, ln)
		ln.Close()
		wg.Wait()
	})
	b.Run("Stream", func(b *testing.B) {
		ln := listen()
		srv := &mllp.Server{Stream: mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 40<<10))
			return nil, err
		})}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), ln) }()
		run(b, ln)
		srv.Close()
		<-served
	})
}
