package mllp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// canary stands for a patient's name: it must show up in no error.
const canary = "Doe^Canary"

// adt returns a message with control ID id.
func adt(id string) []byte {
	return []byte("MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ADT^A01^ADT_A01|" + id + "|P|2.5\rPID|1||MRN-4711||" + canary + "\r")
}

// answer returns the framed acknowledgement of message id.
func answer(code mllp.AckCode, id string) string {
	return "\x0BMSH|^~\\&|EHR|CLINIC|LAB|HOSP|20250102030405||ACK^A01^ACK|R" + id + "|P|2.5\rMSA|" + string(code) + "|" + id + "|" + canary + "\r\x1C\r"
}

// peer is the receiver's end of a Conn: it does what the test tells it.
type peer struct {
	*memnet.Conn
	t      *testing.T
	frames *mllp.Reader
}

// dial connects d to a peer.
func dial(t *testing.T, d *mllp.Dialer) (*mllp.Conn, *peer) {
	t.Helper()
	ln := memnet.Listen()
	d.NetDialer = ln
	c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
	require.NoError(t, err)
	nc, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		nc.Close()
		ln.Close()
	})
	return c, &peer{Conn: nc.(*memnet.Conn), t: t, frames: mllp.NewReader(nc, 0)}
}

// receive returns the control ID of the next message, and whether there is one.
func (p *peer) receive() (string, bool) {
	msg, err := p.frames.Next()
	if err != nil {
		return "", false
	}
	var h mllp.Header
	if !assert.NoError(p.t, h.Parse(msg)) {
		return "", false
	}
	return string(h.ControlID), true
}

// say writes each part by itself, and lets the other end see it by itself. The
// Conn may have had enough before the last one.
func (p *peer) say(parts ...string) {
	for _, part := range parts {
		if _, err := io.WriteString(p.Conn, part); err != nil {
			return
		}
		synctest.Wait()
	}
}

// serve answers every message with what reply returns, until the Conn ends.
func (p *peer) serve(reply func(id string) string) {
	for {
		id, ok := p.receive()
		if !ok {
			return
		}
		if _, err := io.WriteString(p.Conn, reply(id)); err != nil {
			return
		}
	}
}

// sent is the result of a Send that runs on its own.
type sent struct {
	reply *mllp.Reply
	err   error
	took  time.Duration
}

func send(ctx context.Context, c *mllp.Conn, msg []byte) <-chan sent {
	ch := make(chan sent, 1)
	go func() {
		start := time.Now()
		reply, err := c.Send(ctx, msg)
		ch <- sent{reply, err, time.Since(start)}
	}()
	synctest.Wait()
	return ch
}

// failed requires that err is a SendError with this outcome, that what it says
// agrees with that, and that it gives nothing away.
func failed(t *testing.T, err error, outcome mllp.Outcome) *mllp.SendError {
	t.Helper()
	e, ok := errors.AsType[*mllp.SendError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, outcome, e.Outcome, "%v", err)
	assert.Equal(t, outcome == mllp.Unknown, e.MaybeDelivered())
	assert.Equal(t, string(e.AckCode), e.Code())
	assert.NotContains(t, err.Error(), canary)
	assert.NotContains(t, err.Error(), "MRN-4711")
	return e
}

func TestAnAcceptedMessageReturnsItsReply(t *testing.T) {
	for _, code := range []mllp.AckCode{mllp.AA, mllp.CA} {
		synctest.Test(t, func(t *testing.T) {
			c, p := dial(t, &mllp.Dialer{})
			go p.serve(func(id string) string {
				time.Sleep(3 * time.Second)
				return answer(code, id)
			})
			reply, err := c.Send(t.Context(), adt("M1"))
			require.NoError(t, err)
			assert.Equal(t, mllp.Ack{Code: code, ControlID: "M1", Text: canary}, reply.Ack)
			assert.Equal(t, strings.Trim(answer(code, "M1"), "\x0B\x1C")[:len(answer(code, "M1"))-3], string(reply.Raw))
			assert.Equal(t, 3*time.Second, reply.Duration)
			assert.NoError(t, c.Err())
		})
	}
}

func TestARefusalIsNackedAndLeavesTheConnOpen(t *testing.T) {
	for code, retryable := range map[mllp.AckCode]bool{mllp.AE: true, mllp.CE: true, mllp.AR: false, mllp.CR: false} {
		synctest.Test(t, func(t *testing.T) {
			c, p := dial(t, &mllp.Dialer{})
			go p.serve(func(id string) string {
				if id == "M1" {
					return answer(code, id)
				}
				return answer(mllp.AA, id)
			})
			reply, err := c.Send(t.Context(), adt("M1"))
			e := failed(t, err, mllp.Nacked)
			assert.Equal(t, code, reply.Ack.Code)
			assert.Equal(t, string(code), e.Code())
			assert.Equal(t, retryable, e.Retryable())
			_, err = c.Send(t.Context(), adt("M2"))
			assert.NoError(t, err)
		})
	}
}

func TestAMessageThatCannotBeSentIsRefusedBeforeWriting(t *testing.T) {
	for name, msg := range map[string]string{
		"no control ID":       "MSH|^~\\&|||||||ADT^A01||P|2.5\rPID|||" + canary + "\r",
		"not HL7":             `{"name": "` + canary + `"}`,
		"nothing":             "",
		"start of a frame":    string(adt("M1")) + "NTE|1||\x0BMSH|^~\\&|" + canary + "\r",
		"end of a frame":      string(adt("M1")) + "NTE|1||" + canary + "\x1C\r",
		"framing in the MSH":  "MSH|^~\\&|||||||ADT|M\x1C1|P|2.5\r",
		"the frame itself":    "\x0B" + string(adt("M1")) + "\x1C\r",
		"only a header start": "MSH|",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := dial(t, &mllp.Dialer{})
				reply, err := c.Send(t.Context(), []byte(msg))
				assert.Nil(t, reply)
				assert.False(t, failed(t, err, mllp.NotSent).Retryable())
				require.NoError(t, c.Err(), "the Conn stays usable")
				go p.serve(func(id string) string { return answer(mllp.AA, id) })
				reply, err = c.Send(t.Context(), adt("M2"))
				require.NoError(t, err)
				assert.Equal(t, "M2", reply.Ack.ControlID, "nothing of the refused message was written")
			})
		})
	}
}

func TestNoAcknowledgementInTimeIsUnknownAndClosesTheConn(t *testing.T) {
	for want, d := range map[time.Duration]*mllp.Dialer{30 * time.Second: {}, 5 * time.Second: {Timeout: 5 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			c, p := dial(t, d)
			s := <-send(t.Context(), c, adt("M1"))
			assert.True(t, failed(t, s.err, mllp.Unknown).Retryable())
			assert.ErrorIs(t, s.err, os.ErrDeadlineExceeded)
			assert.Equal(t, want, s.took)
			require.Error(t, c.Err())
			id, _ := p.receive()
			assert.Equal(t, "M1", id, "the message had arrived")
		})
	}
}

func TestWithoutATimeoutSendWaitsAsLongAsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := dial(t, &mllp.Dialer{Timeout: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		s := <-send(ctx, c, adt("M1"))
		failed(t, s.err, mllp.Unknown)
		require.ErrorIs(t, s.err, context.DeadlineExceeded)
		assert.Equal(t, 24*time.Hour, s.took)
	})
}

func TestALateAcknowledgementNeverReachesALaterMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Timeout: 5 * time.Second})
		s := <-send(t.Context(), c, adt("M1"))
		failed(t, s.err, mllp.Unknown)
		_, _ = io.WriteString(p, answer(mllp.AA, "M1"))
		_, err := c.Send(t.Context(), adt("M1"))
		e := failed(t, err, mllp.NotSent)
		assert.True(t, e.Retryable())
		assert.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestAPeerThatClosesBeforeTheAcknowledgementIsUnknown(t *testing.T) {
	for name, end := range map[string]func(*peer){
		"close":                 func(p *peer) { p.receive(); p.Close() },
		"close without reading": func(p *peer) { p.Close() },
		"reset":                 func(p *peer) { p.receive(); p.Abort() },
		"half-close":            func(p *peer) { p.CloseWrite() },
		"half an answer":        func(p *peer) { p.say(answer(mllp.AA, "M1")[:60]); p.CloseWrite() },
		"all but FS CR":         func(p *peer) { p.say(strings.TrimRight(answer(mllp.AA, "M1"), "\x1C\r")); p.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := dial(t, &mllp.Dialer{})
				ch := send(t.Context(), c, adt("M1"))
				end(p)
				s := <-ch
				assert.Nil(t, s.reply)
				assert.True(t, failed(t, s.err, mllp.Unknown).Retryable())
				assert.Zero(t, s.took.Round(time.Second), "Send notices at once")
				require.Error(t, c.Err())
			})
		})
	}
}

func TestAConnThatHasEndedIsNoticedBeforeWriting(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(*peer)
		want error
	}{
		"close":            {func(p *peer) { p.CloseWrite() }, io.EOF},
		"reset":            {func(p *peer) { p.Abort() }, syscall.ECONNRESET},
		"banner":           {func(p *peer) { p.say("Welcome " + canary) }, mllp.ErrUnsolicited},
		"late answer":      {func(p *peer) { p.say(answer(mllp.AA, "M0")) }, mllp.ErrUnsolicited},
		"its first byte":   {func(p *peer) { p.say("\x0B") }, mllp.ErrUnsolicited},
		"answer to itself": {func(p *peer) { p.say(answer(mllp.AA, "M1")) }, mllp.ErrUnsolicited},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := dial(t, &mllp.Dialer{})
				tt.end(p)
				synctest.Wait()
				require.ErrorIs(t, c.Err(), tt.want)
				_, err := c.Send(t.Context(), adt("M1"))
				e := failed(t, err, mllp.NotSent)
				assert.True(t, e.Retryable())
				require.ErrorIs(t, err, tt.want)
				_, ok := p.receive()
				assert.False(t, ok, "nothing was written")
			})
		})
	}
}

func TestBlanksBetweenRepliesAreNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{})
		for _, id := range []string{"M1", "M2"} {
			ch := send(t.Context(), c, adt(id))
			p.receive()
			p.say("\r\n", answer(mllp.AA, id), "\n", " \x00\t\r")
			s := <-ch
			require.NoError(t, s.err)
			require.NoError(t, c.Err())
		}
	})
}

func TestACancelledSendReturnsAtOnceWithTheTruth(t *testing.T) {
	reason := errors.New("the channel was stopped")
	t.Run("before its turn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, p := dial(t, &mllp.Dialer{})
			first := send(t.Context(), c, adt("M1"))
			ctx, cancel := context.WithCancelCause(t.Context())
			second := send(ctx, c, adt("M2"))
			cancel(reason)
			s := <-second
			require.ErrorIs(t, s.err, reason)
			assert.True(t, failed(t, s.err, mllp.NotSent).Retryable())
			require.NoError(t, c.Err(), "the message under way is not concerned")
			p.say(answer(mllp.AA, "M1"))
			require.NoError(t, (<-first).err)

			_, err := c.Send(ctx, adt("M3"))
			failed(t, err, mllp.NotSent)
			require.NoError(t, c.Err())
			fourth := send(t.Context(), c, adt("M4"))
			p.say(answer(mllp.AA, "M4"))
			require.NoError(t, (<-fourth).err, "its turn has come")
		})
	})
	t.Run("far from its turn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := dial(t, &mllp.Dialer{})
			send(t.Context(), c, adt("M1"))
			send(t.Context(), c, adt("M2"))
			ctx, cancel := context.WithCancelCause(t.Context())
			third := send(ctx, c, adt("M3"))
			cancel(reason)
			failed(t, (<-third).err, mllp.NotSent)
			require.NoError(t, c.Err())
		})
	})
	t.Run("while it waits for the acknowledgement", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := dial(t, &mllp.Dialer{})
			ctx, cancel := context.WithCancelCause(t.Context())
			ch := send(ctx, c, adt("M1"))
			cancel(reason)
			s := <-ch
			require.ErrorIs(t, s.err, reason)
			failed(t, s.err, mllp.Unknown)
			require.Error(t, c.Err())
		})
	})
	t.Run("while it writes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := dial(t, &mllp.Dialer{})
			ctx, cancel := context.WithCancelCause(t.Context())
			ch := send(ctx, c, append(adt("M1"), make([]byte, 1<<20)...)) // more than the network holds
			cancel(reason)
			s := <-ch
			require.ErrorIs(t, s.err, reason)
			failed(t, s.err, mllp.Unknown)
			require.Error(t, c.Err())
		})
	})
	t.Run("while it cannot write a byte", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := dial(t, &mllp.Dialer{Window: 2})
			first := send(t.Context(), c, append(adt("M1"), make([]byte, 64<<10-len(adt("M1"))-3)...)) // as much as the network holds
			ctx, cancel := context.WithCancelCause(t.Context())
			ch := send(ctx, c, adt("M2"))
			cancel(reason)
			s := <-ch
			require.ErrorIs(t, s.err, reason)
			failed(t, s.err, mllp.NotSent)
			require.ErrorIs(t, c.Err(), net.ErrClosed)
			s = <-first
			failed(t, s.err, mllp.Unknown)
			assert.NotErrorIs(t, s.err, reason, "it is not this message that was cancelled")
		})
	})
}

func TestACancellationKeepsBothItsKindAndItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := dial(t, &mllp.Dialer{})
		reason := errors.New("the channel was stopped")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		_, err := c.Send(ctx, adt("M1"))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, reason)
	})
}

func TestAPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := dial(t, &mllp.Dialer{WriteTimeout: 2 * time.Second})
		s := <-send(t.Context(), c, append(adt("M1"), make([]byte, 160<<10)...))
		failed(t, s.err, mllp.Unknown)
		assert.Equal(t, 13*time.Second, s.took, "2 s, 1 s for every 16 KiB, and up to one more")
		assert.ErrorIs(t, s.err, os.ErrDeadlineExceeded)
		assert.Error(t, c.Err())
	})
}

func TestARefusalInTheMiddleOfAMessageIsHeard(t *testing.T) {
	large := append(adt("M1"), make([]byte, 1<<20)...)
	for name, tt := range map[string]struct {
		code mllp.AckCode
		want mllp.Outcome
	}{
		"refused":  {mllp.AR, mllp.Nacked},
		"accepted": {mllp.AA, mllp.Unknown}, // what has not arrived whole cannot have been accepted
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := dial(t, &mllp.Dialer{})
				ch := send(t.Context(), c, large)
				_, err := io.ReadFull(p, make([]byte, 64<<10))
				require.NoError(t, err)
				p.say(answer(tt.code, "M1"))
				p.Close()
				s := <-ch
				failed(t, s.err, tt.want)
				assert.Error(t, c.Err())
			})
		})
	}
}

func TestABrokenPipeBeforeTheFirstByteIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memnet.Listen()
		defer ln.Close()
		broken := &brokenPipe{failed: make(chan struct{})}
		d := &mllp.Dialer{NetDialer: dialFunc(func(context.Context) (nc net.Conn, err error) {
			broken.Conn, err = ln.Dial()
			return broken, err
		})}
		c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
		require.NoError(t, err)
		defer c.Close()
		broken.now.Store(true)
		s := <-send(t.Context(), c, adt("M1"))
		assert.True(t, failed(t, s.err, mllp.NotSent).Retryable())
		require.ErrorIs(t, s.err, syscall.EPIPE)
		require.ErrorIs(t, c.Err(), syscall.EPIPE)
		assert.Equal(t, time.Second, s.took, "so long the peer may still explain itself")
	})
}

func TestCloseMakesMessagesUnderWayUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{})
		first, second := send(t.Context(), c, adt("M1")), send(t.Context(), c, adt("M2"))
		require.NoError(t, c.Close())
		require.NoError(t, c.Close(), "once more is nothing")
		s := <-first
		failed(t, s.err, mllp.Unknown)
		require.ErrorIs(t, s.err, net.ErrClosed)
		s = <-second
		failed(t, s.err, mllp.NotSent)
		require.ErrorIs(t, c.Err(), net.ErrClosed)
		id, _ := p.receive()
		assert.Equal(t, "M1", id)
		_, ok := p.receive()
		assert.False(t, ok)
	})
}

func TestCallsTakeTurnsInTheirOrder(t *testing.T) {
	for _, window := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			c, p := dial(t, &mllp.Dialer{Window: window})
			var order []string
			results := make([]<-chan sent, 10)
			for i := range results {
				results[i] = send(t.Context(), c, adt(string(rune('A'+i))))
			}
			go p.serve(func(id string) string {
				order = append(order, id)
				return answer(mllp.AA, id)
			})
			for _, ch := range results {
				require.NoError(t, (<-ch).err)
			}
			synctest.Wait()
			assert.Equal(t, "ABCDEFGHIJ", strings.Join(order, ""))
		})
	}
}

func TestAWindowBoundsWhatIsUnderWayAndMatchesByControlID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Window: 3})
		var results []<-chan sent
		for _, id := range []string{"A", "B", "C", "D"} {
			results = append(results, send(t.Context(), c, adt(id)))
		}
		for _, want := range []string{"A", "B", "C"} {
			id, _ := p.receive()
			assert.Equal(t, want, id)
		}
		require.NoError(t, p.SetReadDeadline(time.Now().Add(time.Minute/4)))
		_, err := p.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the fourth waits for room")
		p.SetReadDeadline(time.Time{})

		p.say(answer(mllp.AA, "C")+answer(mllp.AE, "A"), answer(mllp.AA, "B"), answer(mllp.AA, "D"))
		assert.NoError(t, (<-results[1]).err)
		assert.NoError(t, (<-results[2]).err)
		assert.NoError(t, (<-results[3]).err)
		failed(t, (<-results[0]).err, mllp.Nacked)
	})
}

func TestALostConnectionMakesTheWholeWindowUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Window: 4})
		var results []<-chan sent
		for _, id := range []string{"A", "B", "C", "D", "E"} {
			results = append(results, send(t.Context(), c, adt(id)))
		}
		p.say(answer(mllp.AA, "B"))
		p.Close()
		for i, want := range []mllp.Outcome{mllp.Unknown, mllp.Acked, mllp.Unknown, mllp.Unknown, mllp.Unknown} {
			s := <-results[i]
			if want == mllp.Acked {
				assert.NoError(t, s.err)
				continue
			}
			failed(t, s.err, want)
		}
	})
}

func TestOutcomesHaveNames(t *testing.T) {
	assert.Equal(t, "unknown, not sent, nacked, acked, sent, Outcome(9)",
		mllp.Unknown.String()+", "+mllp.NotSent.String()+", "+mllp.Nacked.String()+", "+mllp.Acked.String()+", "+mllp.Sent.String()+", "+mllp.Outcome(9).String())
}
