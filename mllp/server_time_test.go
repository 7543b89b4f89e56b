package mllp_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

func TestAnAcknowledgementWaitsForTheLastByte(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		c := start(&mllp.Server{}).call()
		c.say("\x0b" + msgA + "\x1c")
		c.quiet(60 * time.Millisecond)
		c.say("\r")
		assert.Equal(t, "AA id1", c.hear())
	})
}

func TestAPauseWithinTheFrameTimeoutDoesNoHarm(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{})
		c := s.call()
		for _, pause := range []time.Duration{700 * time.Millisecond, 5 * time.Second, 30 * time.Second, 59 * time.Second} {
			c.say("\x0b" + msgA[:20])
			time.Sleep(pause)
			c.say(msgA[20:] + "\x1c\r")
			assert.Equal(t, "AA id1", c.hear(), "%v", pause)
		}
		time.Sleep(24 * 365 * time.Hour) // between frames there is no limit
		c.say(frame(msgA))
		assert.Equal(t, "AA id1", c.hear())
		assert.Empty(t, s.told())
	})
}

func TestASlowFrameIsClosedAtItsDeadline(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{})
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "AA id1", c.hear())
		time.Sleep(time.Hour)
		began := time.Now()
		go func() { // a byte each second
			for _, b := range []byte("\x0b" + strings.Repeat("x", 1000)) {
				if _, err := c.Conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		assert.Contains(t, []string{"end", "reset"}, c.hear())
		assert.Equal(t, 60*time.Second, time.Since(began).Truncate(time.Second), "60 bytes earn no second")
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"bad_frame timeout", "closed timeout"}, s.told())
	})
}

func TestBytesEarnTheirFrameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{})
		c := s.call()
		began := time.Now()
		c.say("\x0bMSH|" + strings.Repeat("x", 30*16<<10))
		assert.Contains(t, []string{"end", "reset"}, c.hear())
		assert.Equal(t, 90*time.Second, time.Since(began).Round(time.Second))
	})
}

func TestAClientThatDoesNotReadIsClosed(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{})
		deaf, other := s.call(), s.call()
		other.say(frame(msgA))
		require.Equal(t, "AA id1", other.hear())
		began := time.Now()
		frames, _ := repeatFrames(10_000)
		_, err := io.WriteString(deaf.Conn, frames)
		assert.Error(t, err)
		took := time.Since(began)
		assert.GreaterOrEqual(t, took, 10*time.Second)
		assert.LessOrEqual(t, took, 17*time.Second) // with TLS, closing tries an alert for 5 s
		other.say(frame(msgA))
		assert.Equal(t, "AA id1", other.hear())
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"ack_undeliverable", "closed write_timeout"}, s.told())
		assert.NotEmpty(t, s.event(mllp.EventAckUndeliverable).ControlID)
	})
}

func TestAClientThatLeavesBeforeItsAcknowledgementIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := serve(t, &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
			<-release
			return nil, nil
		})})
		c := s.call()
		c.say(frame(msgA))
		synctest.Wait()
		c.raw.Abort()
		close(release)
		synctest.Wait()
		e := s.event(mllp.EventAckUndeliverable)
		assert.Equal(t, "id1", e.ControlID)
		assert.Equal(t, mllp.AA, e.Code)
		assert.NotContains(t, e.String(), "id1")
	})
}

func TestAResetAfterAnAcknowledgementIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{})
		c := s.call()
		c.say(frame(msgA))
		synctest.Wait() // the acknowledgement is on its way
		c.raw.Abort()
		synctest.Wait()
		assert.Equal(t, "id1", s.event(mllp.EventAckUndeliverable).ControlID)
	})
}

func TestAHandlerThatTakesTooLong(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		var late error
		s := start(&mllp.Server{
			HandlerTimeout: 5 * time.Second,
			Handler: mllp.HandlerFunc(func(ctx context.Context, r *mllp.Request) ([]byte, error) {
				if string(r.Header.ControlID) == "id1" {
					time.Sleep(20 * time.Second)
					late = ctx.Err()
					return []byte("MSH|^~\\&|x\rMSA|AA|late\r"), nil
				}
				return nil, nil
			}),
		})
		c := s.call()
		began := time.Now()
		c.say(frame(msgA) + frame(msgB))
		text, err := c.frames.Next()
		require.NoError(t, err)
		a, err := mllp.ParseAck(text)
		require.NoError(t, err)
		assert.Equal(t, mllp.Ack{Code: mllp.AE, ControlID: "id1", Text: "timeout", ErrorCode: "207"}, a)
		assert.Equal(t, 5*time.Second, time.Since(began))
		assert.Equal(t, "AA id2", c.hear(), "the late reply is discarded")
		assert.Equal(t, 20*time.Second, time.Since(began), "the next message waits")
		assert.ErrorIs(t, late, context.DeadlineExceeded)
		assert.Equal(t, []string{"handler_failed timeout"}, s.told())
	})
}

func TestShutdown(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{
			Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
				time.Sleep(time.Second)
				return nil, nil
			}),
		})
		idle, working, half := s.call(), s.call(), s.call()
		for _, c := range []*caller{idle, working, half} {
			c.say(frame(msgA))
			require.Equal(t, "AA id1", c.hear())
		}
		working.say(frame(msgA) + frame(msgB))
		half.say("\x0b" + msgB[:10])
		synctest.Wait()
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- s.srv.Shutdown(t.Context()) }()

		assert.Equal(t, "end", idle.hear())
		assert.LessOrEqual(t, time.Since(began), 10*time.Millisecond, "idle connections are closed at once")
		assert.Equal(t, "AA id1", working.hear())
		assert.Equal(t, "AA id2", working.hear(), "what has arrived is handled")
		assert.Equal(t, "end", working.hear())
		working.raw.Close()
		_, err := s.ln.Dial()
		assert.Error(t, err, "nothing new is accepted")

		time.Sleep(10 * time.Second)
		half.say(msgB[10:] + "\x1c\r")
		assert.Equal(t, "AA id2", half.hear(), "what has begun may be finished")
		assert.Equal(t, "end", half.hear())
		half.raw.Close()
		assert.NoError(t, <-done)
		<-s.ended
		assert.Equal(t, mllp.ErrServerClosed, s.err)
		for _, e := range s.told() {
			assert.Equal(t, "closed shutdown", e)
		}
	})
}

func TestAMessageThatArrivesAtTheMomentOfShutdownIsHandled(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{})
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "AA id1", c.hear())
		synctest.Wait()
		c.say(frame(msgB))
		require.NoError(t, s.srv.Shutdown(t.Context()))
		assert.Equal(t, "AA id2", c.hear())
		assert.Equal(t, "end", c.hear())
	})
}

func TestShutdownTellsHowManyItAbandoned(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Handler: mllp.HandlerFunc(func(ctx context.Context, _ *mllp.Request) ([]byte, error) {
			<-ctx.Done()
			return nil, nil
		})})
		working, half, idle := s.call(), s.call(), s.call()
		working.say(frame(msgA))
		half.say("\x0b" + msgB[:10])
		idle.say("\r")
		synctest.Wait()
		began := time.Now()
		s.stop()
		<-s.ended
		assert.Equal(t, 30*time.Second, time.Since(began))
		var de *mllp.DrainError
		require.ErrorAs(t, s.err, &de)
		assert.Equal(t, 2, de.Abandoned)
		assert.ErrorIs(t, s.err, mllp.ErrServerClosed)
		require.ErrorAs(t, s.srv.Shutdown(t.Context()), &de)
		assert.NotContains(t, []string{"AA id1"}, working.hear())
	})
}

func TestShutdownWhileAClientDoesNotReadIsBounded(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{WriteTimeout: -1})
		c := s.call()
		frames, _ := repeatFrames(10_000)
		go io.WriteString(c.Conn, frames)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		var de *mllp.DrainError
		require.ErrorAs(t, s.srv.Shutdown(ctx), &de)
		assert.Equal(t, 1, de.Abandoned)
		assert.ErrorIs(t, de, context.DeadlineExceeded)
		<-s.ended
		assert.LessOrEqual(t, time.Since(began), 9*time.Second)
	})
}

func TestCloseEndsHandlersContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Handler: mllp.HandlerFunc(func(ctx context.Context, _ *mllp.Request) ([]byte, error) {
			<-ctx.Done()
			return nil, nil
		})})
		c := s.call()
		c.say(frame(msgA))
		synctest.Wait()
		began := time.Now()
		require.NoError(t, s.srv.Close())
		<-s.ended
		assert.Zero(t, time.Since(began))
		assert.ErrorIs(t, s.err, mllp.ErrServerClosed)
		assert.ErrorIs(t, s.srv.Serve(t.Context(), memnet.Listen()), mllp.ErrServerClosed)
	})
}

func TestConnectionLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{MaxConns: 3, MaxConnsPerHost: 2})
		first := s.call()
		first.say(frame(msgA))
		require.Equal(t, "AA id1", first.hear())
		second := s.call()
		assert.NotContains(t, s.call().hear(), "AA")
		elsewhere, err := s.ln.DialFrom(net.IPv4(10, 0, 0, 1))
		require.NoError(t, err)
		third := s.callOn(elsewhere)
		further, err := s.ln.DialFrom(net.IPv4(10, 0, 0, 2))
		require.NoError(t, err)
		assert.NotContains(t, s.callOn(further).hear(), "AA")
		for _, c := range []*caller{first, second, third} {
			c.say(frame(msgA))
			assert.Equal(t, "AA id1", c.hear())
		}
		assert.Equal(t, 3, s.srv.Conns())
		assert.Equal(t, []string{"refused too_many_conns_of_host", "refused too_many_conns"}, s.told())
	})
}

func TestHalfSentLongFramesShareTheBudgetAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, limit = 1 << 20, 2 << 20
		s := serve(t, &mllp.Server{MaxMessageBytes: limit, MaxBufferedBytes: 6 << 20, MaxConns: -1, MaxConnsPerHost: -1})
		long := string(adt("id1")) + strings.Repeat("x", size)
		var (
			senders  []*caller
			wg       sync.WaitGroup
			finish   = make(chan struct{})
			answered atomic.Int32
		)
		for range 50 {
			c := s.call()
			senders = append(senders, c)
			wg.Go(func() {
				io.WriteString(c.Conn, "\x0b"+long)
				<-finish
				c.say("\x1c\r")
				if c.hear() == "AA id1" {
					answered.Add(1)
				}
			})
		}
		synctest.Wait()
		short := s.call()
		short.say(frame(msgA))
		assert.Equal(t, "AA id1", short.hear(), "small messages need no budget")
		// Those that have a buffer end; then others get it, until all are through.
		close(finish)
		wg.Wait()
		assert.EqualValues(t, 50, answered.Load())
		for _, c := range senders {
			c.Close()
		}
		synctest.Wait()
		assert.Empty(t, s.told())
	})
}

func TestLongFramesThatNeverEndGiveTheirMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{MaxMessageBytes: 2 << 20, MaxBufferedBytes: 6 << 20, MaxConns: -1, MaxConnsPerHost: -1})
		for range 20 {
			c := s.call()
			go io.WriteString(c.Conn, "\x0bMSH|"+strings.Repeat("x", 1<<20))
		}
		synctest.Wait()
		time.Sleep(5 * time.Minute)
		c := s.call()
		long := string(adt("id1")) + strings.Repeat("x", 2_000_000)
		go c.say(frame(long))
		assert.Equal(t, "AA id1", c.hear())
		reasons := map[string]int{}
		for _, e := range s.told() {
			reasons[e]++
		}
		assert.Equal(t, 20, reasons["closed timeout"]+reasons["closed buffers_exhausted"])
		assert.Positive(t, reasons["closed buffers_exhausted"])
	})
}

func TestAFrameThatNeverEndsIsNotReadBeyondTheLimit(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		const limit = 1 << 20
		s := start(&mllp.Server{MaxMessageBytes: limit})
		c := s.call()
		var sent atomic.Int64
		go func() {
			io.WriteString(c.Conn, "\x0b"+string(adt("id1")))
			for {
				n, err := c.Conn.Write(make([]byte, 4096))
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		}()
		assert.Equal(t, "AR id1", c.hear(), "the answer is not lost to a reset")
		assert.Contains(t, []string{"end", "reset"}, c.hear())
		time.Sleep(10 * time.Second)
		assert.LessOrEqual(t, sent.Load(), int64(2*limit+(256<<10)))
		assert.Equal(t, mllp.ReasonTooLarge, s.event(mllp.EventBadFrame).Reason)
	})
}

func TestTheIdleTimeoutIsExactWithLargeBuffersToo(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		c := start(&mllp.Server{IdleTimeout: time.Minute}).call()
		long := string(adt("id1")) + strings.Repeat("x", 100_000)
		for range 5 { // the large buffer's time passes in between
			go c.say(frame(long))
			assert.Equal(t, "AA id1", c.hear())
			time.Sleep(30 * time.Second)
		}
		began := time.Now()
		assert.Equal(t, "end", c.hear())
		assert.Equal(t, 30*time.Second, time.Since(began))
	})
}
