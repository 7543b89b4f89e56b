package mllp_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// FuzzServer: whatever arrives, AA is sent only for messages that the handler
// took, in their order, and the handler gets nothing but the whole text of one
// frame, as it was sent.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		frame(msgA) + frame(msgB), "\x0b" + msgA + frame(msgB), "\x0b" + msgA[:48] + frame(msgB), "\x0b" + msgA + "\x1c" + frame(msgB),
		"\x0b" + msgA + "\x1c", frame(msgA + msgB), frame("FHS|^~\\&|A|B|C|D|1|||c|f1\r" + msgA), "x\n" + frame(msgA), frame("\x06"), frame(""),
		frame(strings.Replace(msgA, "ADT^A01", "ACK", 1) + "MSA|AA|x\r"), frame(msgA + "OBX|\x1c\x0b\r"), frame("MSH#~!%@#A#B#C#D#1##ADT#id!#P#2.1\r"),
		frame("MSH|^~\\&|||||||||\n\x1c\rMSH|"), "\x0b\xef\xbb\xbf" + msgA + "\x0b\xef\xbb\xbf" + msgB + "\x1c\r",
	} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(255))
	}
	deliver := func(bits uint8, bit int) mllp.Policy {
		if bits>>bit&1 == 1 {
			return mllp.PolicyDeliver
		}
		return ""
	}
	f.Fuzz(func(t *testing.T, in []byte, bits uint8) {
		var (
			mu    sync.Mutex
			taken []string // control IDs
		)
		srv := &mllp.Server{
			Strict: bits&1 == 1, NotHL7: deliver(bits, 1), NoControlID: deliver(bits, 2), MultipleMSH: deliver(bits, 3), Batches: deliver(bits, 4),
			MaxMessageBytes: 4096,
			Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				if r.Flags&(mllp.IsAck|mllp.NotHL7) == 0 {
					taken = append(taken, string(r.Header.ControlID))
				}
				if !bytes.Contains(in, slices.Concat([]byte("\x0b"), r.Message, []byte("\x1c"))) {
					t.Errorf("%q is not the text of a frame", r.Message)
				}
				for _, header := range []string{"MSH", "FHS", "BHS"} {
					if i := bytes.Index(r.Message, []byte("\x0b"+header)); i >= 0 && i+4 < len(r.Message) && strings.IndexByte("|#^~", r.Message[i+4]) >= 0 {
						t.Errorf("%q is more than one frame", r.Message)
					}
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
			c.Write(in)
			c.CloseWrite()
		}()
		var accepted []string
		replies := mllp.NewReader(c, 0)
		for {
			text, err := replies.Next()
			if err != nil {
				break // the end, or a reset after too much
			}
			a, err := mllp.ParseAck(text)
			require.NoError(t, err)
			if a.Code == mllp.AA {
				accepted = append(accepted, a.ControlID)
			}
		}
		io.Copy(io.Discard, c)
		c.Close()
		require.NoError(t, srv.Close())
		<-served
		assert.Equal(t, taken[:len(accepted)], accepted)
	})
}

func TestNoAllocationForAMessageAndAtMostTwoForItsAcknowledgement(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	for _, size := range []int{255, 4 << 10, 64 << 10, 1 << 20} {
		framed := []byte(frame(message(size)))
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		r := mllp.NewReader(c, 0)
		exchange := func() {
			if _, err := c.Write(framed); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			exchange()
		}
		// The time stamp is made anew each second; a large buffer may be taken
		// from a pool that has just been emptied.
		assert.LessOrEqual(t, testing.AllocsPerRun(200, exchange), 1.0, "%d bytes", size)
		c.Close()
	}
	require.NoError(t, srv.Close())
	<-served
}
