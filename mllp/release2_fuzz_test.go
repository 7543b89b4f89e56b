package mllp_test

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// FuzzRelease2: whatever a client says, in whatever pieces, a message reaches the
// handler once, and the answers that say so come after it and in its order.
func FuzzRelease2(f *testing.F) {
	for _, s := range []string{
		frame(msgA) + ack06 + frame(msgB) + ack06, frame(msgA) + frame(msgA) + ack06, frame(msgA) + nak15 + nak15 + nak15 + nak15, ack06 + nak15,
		"\x0b" + msgA + frame(msgA), frame(msgA) + frame(msgB) + frame(msgA), frame("MSH|^~\\&|||||||ACK|R|P|2.5\rMSA|AA|id1\r"), frame(msgA + msgB),
	} {
		f.Add([]byte(s), byte(0))
		f.Add([]byte(s), byte(100))
	}
	f.Fuzz(func(t *testing.T, in []byte, n byte) {
		var taken []string
		calls := make(map[string]int)
		srv := &mllp.Server{Framing: release2, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			calls[string(r.Message)]++
			taken = append(taken, string(r.Header.ControlID))
			return nil, nil
		})}
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
		committed := 0
		var accepted []string
		framing := release2
		for replies := framing.NewReader(c, 0); ; {
			text, err := replies.Next()
			if err != nil {
				break
			}
			if len(text) == 1 {
				if text[0] == 0x06 {
					committed++
				}
				continue
			}
			a, err := mllp.ParseAck(text)
			require.NoError(t, err)
			if a.Code == mllp.AA && !slices.Contains(accepted, a.ControlID) {
				accepted = append(accepted, a.ControlID)
			}
		}
		io.Copy(io.Discard, c)
		c.Close()
		require.NoError(t, srv.Close())
		<-served
		for text, times := range calls {
			assert.Equal(t, 1, times, "%q", text)
		}
		assert.True(t, committed > 0 || len(accepted) == 0)
		for _, id := range accepted {
			assert.Contains(t, taken, id)
		}
	})
}
