package mllp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// within waits for what must come.
func within[T any](t *testing.T, what string, from <-chan T) (got T) {
	t.Helper()
	select {
	case got = <-from:
	case <-time.After(20 * time.Second):
		t.Fatalf("not in 20 s: %s", what)
	}
	return got
}

func TestASilentServerTakesMessagesAndAnswersNothing(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]*mllp.Server{
		"one after the other": {}, "side by side": {Parallel: 4, Key: func(r *mllp.Request) []byte { return r.Header.ControlID }},
		"batches": {Batches: mllp.PolicyBatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			taken := make(chan string, 8)
			server.Silent = true
			server.Handler = mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				taken <- string(r.Header.ControlID)
				switch string(r.Header.ControlID) {
				case "REFUSED":
					return nil, &mllp.Nak{Code: mllp.AR}
				case "LAST":
					return nil, mllp.ErrNoReply
				}
				return nil, nil
			})
			ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			require.NoError(t, err)
			done := make(chan struct{})
			go func() { defer close(done); server.Serve(context.Background(), ln) }()
			t.Cleanup(func() { server.Close(); <-done })
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))

			for _, id := range []string{"M1", "REFUSED", "M2"} {
				_, err = fmt.Fprintf(conn, "\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01|%s|P|2.5\r\x1c\r", id)
				require.NoError(t, err)
				assert.Equal(t, id, within(t, "the handler has "+id, taken))
			}
			if server.Batches != "" {
				_, err = io.WriteString(conn, "\x0bBHS|^~\\&|A|B|C|D\rMSH|^~\\&|A|B|C|D|20260101||ADT^A01|B1|P|2.5\rBTS|1\r\x1c\r")
				require.NoError(t, err)
				assert.Equal(t, "B1", within(t, "the handler has B1", taken))
			}
			_, err = io.WriteString(conn, "\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01||P|2.5\r\x1c\r") // refused without the handler
			require.NoError(t, err)
			_, err = io.WriteString(conn, "\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01|LAST|P|2.5\r\x1c\r")
			require.NoError(t, err)
			assert.Equal(t, "LAST", within(t, "the handler has LAST", taken))
			got, err := io.ReadAll(conn)
			require.NoError(t, err)
			assert.Empty(t, got)
		})
	}
}

func TestSilenceExcludesWhatIsAboutAnswers(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]*mllp.Server{
		"enhanced mode": {Enhanced: true}, "answers elsewhere": {Responder: &mllp.Responder{Addr: "localhost:1"}},
		"answers again": {Replay: new(mllp.MemoryReplay)}, "commits": {Framing: mllp.Framing{Mode: mllp.ModeMLLPv2}},
	} {
		server.Handler, server.Silent = mllp.HandlerFunc(nil), true
		require.ErrorContains(t, server.Validate(), "Silent", name)
		server.Silent = false
		require.NoError(t, server.Validate(), name)
	}
}

// Without an answer nothing shows that a message has arrived; so a connection of
// one message must not be torn down behind it, however much the receiver says.
func TestMessagesOfOneConnectionEachArriveWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	big := append([]byte("MSH|^~\\&|A|B|C|D|20260101||ADT^A01|M1|P|2.5\r"), bytes.Repeat([]byte("NTE|1||text\r"), 100_000)...)
	type result struct {
		n   int
		err error
	}
	results := make(chan result, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			results <- result{err: err}
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		var r result
		for chunk := make([]byte, 4096); r.err == nil; {
			var n int
			n, r.err = conn.Read(chunk)
			r.n += n
			_, _ = io.WriteString(conn, "hello") // where nobody is there any more, TCP throws away what is still to come
		}
		results <- r
	}()
	d := &mllp.Dialer{Match: mllp.MatchNone, Framing: mllp.Framing{KeepOpen: new(false)}}
	conn, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	reply, err := conn.Send(t.Context(), big)
	require.NoError(t, err)
	assert.Equal(t, mllp.Sent, reply.Outcome())
	assert.Error(t, conn.Err(), "it carries one message")
	assert.Equal(t, result{len(big) + 3, io.EOF}, within(t, "the receiver has read to the end", results))
}
