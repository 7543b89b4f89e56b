package mllp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// frameEcho is the least that can be done with a framing: it looks for the bytes
// that end a message, or counts them, and answers with ack. To commit, what comes
// back for each ack with MLLP release 2, it answers nothing.
func frameEcho(ln net.Listener, end []byte, size int, ack, commit []byte, wg *sync.WaitGroup) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			buf := make([]byte, max(4096, size+64))
			n := 0
			for {
				k, err := conn.Read(buf[n:])
				if err != nil {
					return
				}
				n += k
				if len(end) > 0 && bytes.IndexByte(buf[n-k:n], end[0]) < 0 || len(end) == 0 && n < size || !bytes.HasSuffix(buf[:n], end) {
					continue
				}
				if commit != nil && bytes.Equal(buf[:n], commit) {
					n = 0
					continue
				}
				if _, err := conn.Write(ack); err != nil {
					return
				}
				n = 0
			}
		})
	}
}

// BenchmarkFraming compares the Server in each mode with the least loop for it,
// both in turn, for a moment each; ratio is the Server's messages per second by
// the loop's. FRAME with MLLP's own bytes shows what their being settable costs.
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

	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		return ln
	}
	ours, theirs := listen(), listen()
	srv := &mllp.Server{Framing: f, Handler: accepting}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(context.Background(), ours) })
	wg.Go(func() { frameEcho(theirs, end, size, ack, commit, &wg) })
	b.Cleanup(wg.Wait)
	b.Cleanup(func() {
		srv.Close()
		theirs.Close()
	})
	type client struct {
		net.Conn
		n int
		d time.Duration
	}
	clients := make([]*client, 2)
	for i, ln := range []net.Listener{theirs, ours} {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		b.Cleanup(func() { c.Close() })
		clients[i] = &client{Conn: c}
	}
	id, at := 0, bytes.Index(framed, []byte("MSG00001"))
	buf := make([]byte, len(ack)+64)
	last := ack[len(ack)-1:]
	if len(end) > 0 {
		last = end
	}
	exchange := func(c *client) {
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
	b.ReportAllocs()
	b.SetBytes(int64(2 * size))
	for b.Loop() {
		for _, c := range clients {
			began := time.Now()
			for range 50 {
				exchange(c)
			}
			c.d += time.Since(began)
			c.n += 50
		}
	}
	rate := func(c *client) float64 { return float64(c.n) / c.d.Seconds() }
	b.ReportMetric(rate(clients[0]), "least-msg/s")
	b.ReportMetric(rate(clients[1]), "msg/s")
	b.ReportMetric(rate(clients[1])/rate(clients[0]), "ratio")
	b.ReportMetric(0, "ns/op")
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
