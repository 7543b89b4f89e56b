package httpsender_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/memnet"
)

// stalled requires that err is a StallError, and a timeout to those who know
// nothing of it.
func stalled(t testing.TB, err error) *httpsender.StallError {
	t.Helper()
	stall, ok := errors.AsType[*httpsender.StallError](err)
	require.True(t, ok, "%v", err)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	assert.True(t, timeout.Timeout())
	return stall
}

func TestAServerThatTakesNoMoreBytesEndsTheUpload(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{StallTimeout: 7 * time.Second, Breaker: httpsender.Breaker{Failures: -1}}
		rawly(t, s, func(c *memnet.Conn, _ int) bool {
			io.ReadFull(c, make([]byte, 200_000)) // and then no more
			time.Sleep(time.Hour)
			return false
		}, nil)
		start := time.Now()
		e := outcome(t, s, request(t, "POST", origin, httpsender.Bytes("", make([]byte, 10<<20))))
		assert.Equal(t, 7*time.Second, time.Since(start))
		assert.Equal(t, "sending", stalled(t, e).Phase)
		assert.True(t, e.MaybeDelivered())
	})
}

func TestAServerThatDoesNotAnswerEndsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{ResponseHeaderTimeout: 11 * time.Second, StallTimeout: time.Hour}
		rawly(t, s, nil, func(*memnet.Conn, *seen) bool { time.Sleep(time.Hour); return false })
		for _, body := range []*httpsender.Body{nil, text("small"), httpsender.Bytes("", make([]byte, 1<<20))} {
			start := time.Now()
			e := outcome(t, s, request(t, "POST", origin, body))
			assert.Equal(t, 11*time.Second, time.Since(start))
			assert.Equal(t, "waiting for the answer", stalled(t, e).Phase)
			assert.Equal(t, httpsender.Unknown, e.Outcome)
		}
	})
}

func TestAnAnswerThatStopsComingEndsTheDownload(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{StallTimeout: 5 * time.Second, ResponseHeaderTimeout: time.Hour}
		rawly(t, s, nil, func(c *memnet.Conn, _ *seen) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
			time.Sleep(time.Hour)
			return false
		})
		resp, err := s.Do(request(t, "POST", origin, text("x")))
		require.NoError(t, err)
		start := time.Now()
		body, err := read(resp)
		assert.Equal(t, 5*time.Second, time.Since(start))
		assert.Equal(t, "begun", body)
		e := failed(t, err)
		assert.Equal(t, "receiving", stalled(t, err).Phase)
		assert.Equal(t, "200", e.Code())
		assert.Equal(t, httpsender.Unknown, e.Outcome)
	})
}

func TestATransferInWhichBytesFlowMayTakeAsLongAsItTakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{StallTimeout: 5 * time.Second, ResponseHeaderTimeout: time.Minute}
		rawly(t, s, func(c *memnet.Conn, _ int) bool {
			in := bufio.NewReaderSize(c, 16)
			r, err := http.ReadRequest(in)
			if err != nil {
				return false
			}
			for n, piece := 0, make([]byte, 1<<16); n < 4<<20; { // 4 MiB in 64 pieces, one every 4 s
				k, err := io.ReadFull(r.Body, piece)
				if n += k; err != nil {
					return false
				}
				time.Sleep(4 * time.Second)
			}
			time.Sleep(50 * time.Second)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
			for range 100 {
				time.Sleep(4 * time.Second)
				io.WriteString(c, "x")
			}
			return false
		}, nil)
		start := time.Now()
		resp, err := s.Do(request(t, "POST", origin, httpsender.Bytes("", make([]byte, 4<<20))))
		require.NoError(t, err)
		time.Sleep(time.Hour) // the reader may take its time as well
		body, err := read(resp)
		require.NoError(t, err)
		assert.Equal(t, strings.Repeat("x", 100), body)
		assert.Greater(t, time.Since(start), 65*time.Minute)
	})
}

func TestASlowSourceIsNoStall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{StallTimeout: 5 * time.Second}
		server := rawly(t, s, nil, say(fine))
		slow := httpsender.Func("", -1, func() (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() {
				for range 3 {
					time.Sleep(time.Minute)
					io.WriteString(w, "piece ")
				}
				w.Close()
			}()
			return r, nil
		})
		_, _, err := exchange(s, request(t, "POST", origin, slow))
		require.NoError(t, err)
		assert.Equal(t, "piece piece piece ", server.got()[0].body)
	})
}

func TestNegativeTimeoutsAreNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{StallTimeout: -1, ResponseHeaderTimeout: -1}
		rawly(t, s, nil, func(c *memnet.Conn, _ *seen) bool {
			time.Sleep(24 * time.Hour)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			time.Sleep(24 * time.Hour)
			io.WriteString(c, "k")
			return true
		})
		_, body, err := exchange(s, request(t, "POST", origin, text("x")))
		require.NoError(t, err)
		assert.Equal(t, "ok", body)
	})
}

func TestTheEndOfTheContextEndsEveryStep(t *testing.T) {
	for name, c := range map[string]struct {
		dial    dialFunc
		answer  reply
		outcome httpsender.Outcome
	}{
		"dialing": {dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, outcome: httpsender.Retryable},
		"waiting": {answer: func(*memnet.Conn, *seen) bool { time.Sleep(time.Hour); return false }, outcome: httpsender.Unknown},
		"receiving": {answer: func(c *memnet.Conn, _ *seen) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			time.Sleep(time.Hour)
			return false
		}, outcome: httpsender.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &httpsender.Sender{}
				rawly(t, s, nil, c.answer)
				if c.dial != nil {
					s.NetDialer = c.dial
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				_, _, err := exchange(s, request(t, "POST", origin, text("x")).WithContext(ctx))
				assert.Equal(t, 3*time.Second, time.Since(start))
				e := failed(t, err)
				assert.ErrorIs(t, e, context.DeadlineExceeded)
				assert.Equal(t, c.outcome, e.Outcome)
				s.Close() // ends what is being dialed
			})
		})
	}
}

func TestDialingIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{
			DialTimeout: 3 * time.Second, Retry: httpsender.Retry{MaxAttempts: -1}, ProxyURL: httpsender.DirectOnly,
			NetDialer: dialFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}),
		}
		defer s.Close()
		start := time.Now()
		e := outcome(t, s, request(t, "POST", origin, text("x")))
		assert.Equal(t, 3*time.Second, time.Since(start))
		assert.Equal(t, httpsender.Retryable, e.Outcome)
		assert.ErrorIs(t, e, context.DeadlineExceeded)
	})
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{TLSHandshakeTimeout: 4 * time.Second, Retry: httpsender.Retry{MaxAttempts: -1}}
		rawly(t, s, func(*memnet.Conn, int) bool { time.Sleep(time.Hour); return false }, nil)
		start := time.Now()
		e := outcome(t, s, request(t, "POST", "https://mem.example", text("x")))
		assert.Equal(t, 4*time.Second, time.Since(start))
		assert.Equal(t, httpsender.Retryable, e.Outcome)
		assert.ErrorIs(t, e, context.DeadlineExceeded)
	})
}
