package mllp_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/mllp"
)

func TestFramesThatDoNotReachTheHandlerAreQuarantined(t *testing.T) {
	long := msgA + strings.Repeat("x", 5000)
	for name, tc := range map[string]struct {
		in    string
		bytes int // Server.QuarantineBytes
		want  []mllp.QuarantinedFrame
	}{
		"good":                 {in: frame(msgA)},
		"tolerated":            {in: "x" + frame(msgA+"OBX|\x0b\r")},
		"cut off by another":   {in: frame(msgB) + "\x0b" + msgA[:48] + frame(msgB), want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonTruncated, Detail: "another message begins in it", Offset: int64(len(frame(msgB))), Length: 48, ControlID: "id1", Code: mllp.AE}}},
		"cut off in its ID":    {in: "\x0b" + msgA[:strings.Index(msgA, "id1")+2] + frame(msgB), want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonTruncated, Detail: "another message begins in it", Length: int64(strings.Index(msgA, "id1")) + 2}}},
		"the end in it":        {in: "\x0b" + msgA, bytes: 10, want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonTruncated, Length: int64(len(msgA)), ControlID: "id1", Bytes: []byte(msgA[:10])}}},
		"too large":            {in: frame(long), bytes: 1 << 20, want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonTooLarge, Length: 4096, ControlID: "id1", Code: mllp.AR, Bytes: []byte(long[:4096])}}},
		"no control ID":        {in: frame("MSH|^~\\&|A|B|C|D|1||ADT||P|2.5\r"), bytes: 3, want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonNoControlID, Length: 31, Code: mllp.AR, Bytes: []byte("MSH")}}},
		"two messages in one":  {in: frame(msgA + msgB), want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonMultipleMSH, Length: int64(len(msgA + msgB)), ControlID: "id1", Code: mllp.AR}}},
		"not HL7":              {in: frame("PID|1"), bytes: 9, want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonNotHL7, Length: 5, Bytes: []byte("PID|1")}}},
		"empty":                {in: frame(" "), bytes: -1, want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonEmpty, Length: 1}}},
		"nothing of the frame": {in: "GET / HTTP/1.1\r\n", bytes: 9, want: []mllp.QuarantinedFrame{{Reason: mllp.ReasonWrongProtocol, Detail: "HTTP"}}},
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
				var got []mllp.QuarantinedFrame
				s := start(&mllp.Server{MaxMessageBytes: 4096, QuarantineBytes: tc.bytes, Quarantine: func(_ context.Context, f mllp.QuarantinedFrame) {
					assert.NotNil(t, f.RemoteAddr)
					f.RemoteAddr = nil
					f.Identity = nil
					assert.Equal(t, len(f.Bytes), cap(f.Bytes), "what is behind it is not the hook's")
					f.Bytes = append([]byte(nil), f.Bytes...)
					got = append(got, f)
				}})
				c := s.call()
				io.WriteString(c.Conn, tc.in)
				c.raw.CloseWrite()
				time.Sleep(time.Second)
				synctest.Wait()
				assert.Equal(t, tc.want, got)
			})
		})
	}
}

func TestQuarantineWorksInTheContextOfTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		seen := false
		s := serve(t, &mllp.Server{
			ConnContext: func(ctx context.Context, _ mllp.ConnInfo) context.Context {
				return context.WithValue(ctx, key{}, "value")
			},
			Quarantine: func(ctx context.Context, _ mllp.QuarantinedFrame) {
				seen = ctx.Value(key{}) == "value"
				time.Sleep(time.Minute) // only this connection waits for it
			},
		})
		c, other := s.call(), s.call()
		c.say(frame("") + frame(msgA))
		other.say(frame(msgA))
		began := time.Now()
		assert.Equal(t, "AA id1", other.hear())
		assert.Zero(t, time.Since(began))
		assert.Equal(t, "AA id1", c.hear())
		assert.Equal(t, time.Minute, time.Since(began))
		assert.True(t, seen)
	})
}
