package mllp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

const (
	ack06 = "\x0b\x06\x1c\r"
	nak15 = "\x0b\x15\x1c\r"
)

var release2 = mllp.Framing{Mode: mllp.ModeMLLPv2}

// hear2 returns the next frame: "06", "15", "CODE id", "end" or "reset".
func (c *caller) hear2() string {
	c.t.Helper()
	f := release2
	if c.frames2 == nil {
		c.frames2 = f.NewReader(c.Conn, 0)
	}
	text, err := c.frames2.Next()
	switch {
	case errors.Is(err, io.EOF):
		return "end"
	case err != nil:
		return "reset"
	case string(text) == "\x06":
		return "06"
	case string(text) == "\x15":
		return "15"
	}
	a, err := mllp.ParseAck(text)
	require.NoError(c.t, err)
	return string(a.Code) + " " + a.ControlID
}

func TestRelease2CommitsAfterTheHandlerAndThenAcknowledges(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Framing: release2, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
			time.Sleep(5 * time.Second)
			return nil, nil
		})})
		c := s.call()
		for _, msg := range []string{msgA, msgB} {
			c.say(frame(msg))
			began := time.Now()
			assert.Equal(t, "06", c.hear2())
			assert.Equal(t, 5*time.Second, time.Since(began), "not before the handler has it")
			assert.Equal(t, "AA id"+map[string]string{msgA: "1", msgB: "2"}[msg], c.hear2())
			c.say(ack06)
			synctest.Wait()
		}
		time.Sleep(24 * time.Hour) // what is committed is not sent again
		c.raw.Close()
		synctest.Wait()
		assert.Empty(t, s.told())
		assert.Equal(t, []string{msgA, msgB}, s.delivered())
	})
}

func TestRelease2AnswersAreTrue(t *testing.T) {
	secret := errors.New("Doe^John")
	for _, tc := range []struct {
		name   string
		reply  string
		err    error
		msg    string
		want   []string
		called int // for the message and the same once more
	}{
		{"an error", "", secret, msgA, []string{"15"}, 2},
		{"AE", "", &mllp.Nak{Code: mllp.AE}, msgA, []string{"15"}, 2},
		{"AR, which another try cannot change", "", &mllp.Nak{Code: mllp.AR}, msgA, []string{"06", "AR id1"}, 1},
		{"a reply of the handler's", "MSH|^~\\&|||||||ACK|R|P|2.5\rMSA|AA|id1\r", nil, msgA, []string{"06", "AA id1"}, 1},
		{"a reply of the handler's, with AE", "MSH|^~\\&|||||||ACK|R|P|2.5\rMSA|AE|id1\r", nil, msgA, []string{"15"}, 2},
		{"a reply that no frame can carry", "MSH|^~\\&|||||||ACK|R|P|2.5\rMSA|AA|id1|\x0b\r", nil, msgA, []string{"15"}, 2},
		{"a message that is refused unseen", "", nil, strings.Replace(msgA, "id1", "", 1), []string{"15"}, 0},
		{"two messages in a frame", "", nil, msgA + msgB, []string{"15"}, 0},
		{"an acknowledgement is not acknowledged", "", nil, "MSH|^~\\&|||||||ACK|R|P|2.5\rMSA|AA|id1\r", []string{"06"}, 1},
		{"nor if the handler fails", "", secret, "MSH|^~\\&|||||||ACK|R|P|2.5\rMSA|AA|id1\r", []string{"15"}, 2},
		{"no reply", "", mllp.ErrNoReply, msgA, []string{"end"}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{Framing: release2, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
					if tc.reply != "" {
						return []byte(tc.reply), tc.err
					}
					return nil, tc.err
				})})
				c := s.call()
				for range 2 {
					if _, err := io.WriteString(c.Conn, frame(tc.msg)); err != nil {
						break
					}
					for _, want := range tc.want {
						require.Equal(t, want, c.hear2())
					}
					if len(tc.want) == 2 {
						c.say(ack06)
						synctest.Wait()
					}
				}
				c.SetReadDeadline(time.Now().Add(time.Second))
				n, _ := c.Conn.Read(make([]byte, 1))
				assert.Zero(t, n, "nothing more")
				assert.Len(t, s.delivered(), tc.called)
				s.mu.Lock()
				defer s.mu.Unlock()
				for _, e := range s.events {
					if e.Kind == mllp.EventMessage || e.Kind == mllp.EventRejected {
						assert.Equal(t, tc.want[0] == "15" && e.Code != "", e.Code == mllp.CE, "%v", e)
					}
				}
			})
		})
	}
}

func TestRelease2AfterAPanicOrTooLongATimeIsNotCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: release2, HandlerTimeout: time.Second, Handler: mllp.HandlerFunc(func(ctx context.Context, r *mllp.Request) ([]byte, error) {
			if string(r.Header.ControlID) == "id1" {
				panic("Doe^John")
			}
			<-ctx.Done()
			return nil, nil
		})})
		c := s.call()
		c.say(frame(msgA))
		assert.Equal(t, "15", c.hear2())
		c.say(frame(msgB))
		assert.Equal(t, "15", c.hear2())
		c.say(frame(msgB))
		assert.Equal(t, "15", c.hear2())
		assert.Len(t, s.delivered(), 3)
	})
}

func TestRelease2AnswersAResendAfterALostCommitFromMemory(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Framing: release2})
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "06", c.hear2())
		require.Equal(t, "AA id1", c.hear2())
		c.say(frame(msgA)) // the 06 got lost, and so no commit of the AA comes
		require.Equal(t, "06", c.hear2())
		require.Equal(t, "AA id1", c.hear2())
		c.say(ack06)
		c.raw.Close()

		c = s.call()
		c.say(frame(msgA)) // and on another connection
		require.Equal(t, "06", c.hear2())
		require.Equal(t, "AA id1", c.hear2())
		c.say(ack06)
		assert.Len(t, s.delivered(), 1)

		other := strings.Replace(msgA, "PID|1", "PID|2", 1)
		c.say(frame(other)) // the same control ID, but not the same bytes
		require.Equal(t, "06", c.hear2())
		require.Equal(t, "AA id1", c.hear2())
		c.say(ack06)
		assert.Equal(t, []string{msgA, other}, s.delivered())

		time.Sleep(10 * time.Minute) // long after the last retry
		c.say(frame(msgA))
		require.Equal(t, "06", c.hear2())
		assert.Len(t, s.delivered(), 3)
	})
}

func TestRelease2GivesNobodyTheAnswerOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: release2})
		for i, ip := range []byte{1, 2} {
			raw, err := s.ln.DialFrom([]byte{192, 0, 2, ip})
			require.NoError(t, err)
			c := s.callOn(raw)
			c.say(frame(msgA))
			require.Equal(t, "06", c.hear2())
			assert.Len(t, s.delivered(), i+1)
		}
	})
}

func TestRelease2AResendWaitsForTheHandlerThatHasTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan error)
		s := serve(t, &mllp.Server{Framing: release2, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
			return nil, <-release
		})})
		first, second := s.call(), s.call()
		first.say(frame(msgA))
		synctest.Wait()
		second.say(frame(msgA))
		synctest.Wait()
		assert.Len(t, s.delivered(), 1)
		release <- errors.New("no")
		assert.Equal(t, "15", first.hear2())
		release <- nil // of the second, which is a new try
		assert.Equal(t, "06", second.hear2())
		assert.Len(t, s.delivered(), 2)
		first.say(frame(msgA))
		assert.Equal(t, "06", first.hear2())
		assert.Len(t, s.delivered(), 2)
	})
}

// A resend is known by all of its bytes, also where hundreds of messages begin
// alike and are of one length.
func TestRelease2TellsMessagesApartThatBeginAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: release2})
		c := s.call()
		alike := func(i int) string {
			return frame(fmt.Sprintf("%sOBX|1|TX|||%s%04d\r", msgA, strings.Repeat("x", 600), i))
		}
		exchange := func(i, delivered int) {
			t.Helper()
			c.say(alike(i))
			require.Equal(t, "06", c.hear2())
			require.Equal(t, "AA id1", c.hear2())
			c.say(ack06)
			require.Len(t, s.delivered(), delivered)
		}
		for i := range 1100 {
			exchange(i, i+1)
		}
		for _, i := range []int{1099, 500, 76} { // the youngest, one in the middle, the oldest of 1024
			exchange(i, 1100)
		}
		exchange(75, 1101) // which went to make room
		exchange(1099, 1101)
		exchange(75, 1101)
	})
}

func TestRelease2MemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := []byte("MSH|^~\\&|||||||ACK|R|P|2.5\rMSA|AA|x\rNTE|" + strings.Repeat("x", 1000<<10) + "\r")
		s := serve(t, &mllp.Server{Framing: release2, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
			return big, nil
		})})
		c := s.call()
		exchange := func(id string) {
			c.say(frame(string(adt(id))))
			require.Equal(t, "06", c.hear2())
			c.hear2()
			c.say(ack06)
		}
		for _, id := range []string{"1", "2", "3", "4", "5"} {
			exchange(id)
		}
		exchange("5")
		assert.Len(t, s.delivered(), 5)
		exchange("1") // it went to make room
		assert.Len(t, s.delivered(), 6)
	})
}

func TestRelease2SendsAnAcknowledgementAgainUntilItIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: mllp.Framing{Mode: mllp.ModeMLLPv2, Retries: 2, CommitTimeout: 10 * time.Second}})
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "06", c.hear2())
		require.Equal(t, "AA id1", c.hear2())
		began := time.Now()
		c.say(nak15)
		require.Equal(t, "AA id1", c.hear2())
		assert.Zero(t, time.Since(began))
		require.Equal(t, "AA id1", c.hear2(), "after silence")
		assert.Equal(t, 10*time.Second, time.Since(began))
		require.Equal(t, "end", c.hear2(), "two retries are enough")
		c.raw.Close()
		synctest.Wait()
		assert.Equal(t, []string{"ack_undeliverable", "closed commit"}, s.told())
		assert.Equal(t, "id1", s.event(mllp.EventAckUndeliverable).ControlID)
		assert.Len(t, s.delivered(), 1)
	})
}

func TestRelease2ServerNamesAClientOfRelease1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: release2})
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "06", c.hear2())
		require.Equal(t, "AA id1", c.hear2())
		c.say(frame(msgB)) // without a commit
		require.Equal(t, "06", c.hear2())
		require.Equal(t, "AA id2", c.hear2())
		assert.Equal(t, []string{"ack_undeliverable mllp_r1"}, s.told())
	})
}

func TestRelease2ServerPassesOverACommitOfNothingAndATruncatedFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: release2})
		c := s.call()
		c.say(ack06 + frame("") + "\x0b" + msgA + frame(msgA))
		require.Equal(t, "06", c.hear2(), "of the second try alone")
		require.Equal(t, "AA id1", c.hear2())
		assert.Equal(t, []string{msgA}, s.delivered())
		assert.Equal(t, []string{"bad_frame commit", "bad_frame empty", "bad_frame truncated"}, s.told())
	})
}

func TestRelease2DrainWaitsForTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: release2})
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "06", c.hear2())
		require.Equal(t, "AA id1", c.hear2())
		s.stop()
		time.Sleep(10 * time.Second)
		c.say(ack06)
		require.Equal(t, "end", c.hear2())
		c.raw.Close()
		<-s.ended
		assert.Equal(t, mllp.ErrServerClosed, s.err)
		assert.NotContains(t, strings.Join(s.told(), " "), "undeliverable")
	})
}

// peer2 is a receiver with MLLP release 2 that answers the nth frame with script[n].
func peer2(t *testing.T, d *mllp.Dialer, script ...string) (*mllp.Conn, *atomic.Int32, func() []string) {
	if d.Framing.Mode == "" {
		d.Framing = release2
	}
	c, p := dial(t, d)
	var frames atomic.Int32
	var got []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		f := release2
		r := f.NewReader(p.Conn, 0)
		for {
			text, err := r.Next()
			if err != nil {
				return
			}
			got = append(got, string(text))
			if n := int(frames.Add(1)); n <= len(script) {
				io.WriteString(p.Conn, script[n-1])
			}
		}
	}()
	return c, &frames, func() []string {
		c.Close()
		<-done
		return got
	}
}

func TestRelease2ClientCommitsTheAcknowledgement(t *testing.T) {
	for code, outcome := range map[mllp.AckCode]mllp.Outcome{mllp.AA: mllp.Acked, mllp.AE: mllp.Nacked, mllp.AR: mllp.Nacked} {
		synctest.Test(t, func(t *testing.T) {
			c, _, got := peer2(t, &mllp.Dialer{}, ack06+answer(code, "M1"), "", ack06+answer(code, "M2"))
			for _, id := range []string{"M1", "M2"} {
				reply, err := c.Send(t.Context(), adt(id))
				if outcome == mllp.Acked {
					require.NoError(t, err)
				} else {
					assert.Equal(t, code, failed(t, err, outcome).AckCode)
				}
				assert.Equal(t, code, reply.Ack.Code)
				synctest.Wait()
			}
			require.NoError(t, c.Err())
			assert.Equal(t, []string{string(adt("M1")), "\x06", string(adt("M2")), "\x06"}, got())
		})
	}
}

func TestRelease2ClientSendsTheSameBytesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, got := peer2(t, &mllp.Dialer{}, nak15, "" /* silence */, nak15, ack06+answer(mllp.AA, "M1"))
		began := time.Now()
		reply, err := c.Send(t.Context(), adt("M1"))
		require.NoError(t, err)
		assert.Equal(t, mllp.AA, reply.Ack.Code)
		assert.Equal(t, 15*time.Second, time.Since(began))
		msg := string(adt("M1"))
		synctest.Wait()
		assert.Error(t, c.Err(), "a late commit of the try that was given up could be taken for that of the next message")
		assert.Equal(t, []string{msg, msg, msg, msg, "\x06"}, got())
	})
}

func TestRelease2ClientGivesUpTruthfully(t *testing.T) {
	r1 := answer(mllp.AA, "M1")
	for _, tc := range []struct {
		name    string
		framing mllp.Framing
		script  []string
		outcome mllp.Outcome
		code    mllp.AckCode
		frames  int32
		took    time.Duration
		reason  mllp.Reason
		retry   bool
		usable  bool
	}{
		{name: "each try refused", script: []string{nak15, nak15, nak15, nak15}, outcome: mllp.Nacked, code: mllp.CE, frames: 4, retry: true, usable: true},
		{name: "no retries", framing: mllp.Framing{Mode: mllp.ModeMLLPv2, Retries: -1}, script: []string{nak15}, outcome: mllp.Nacked, code: mllp.CE, frames: 1, retry: true, usable: true},
		{name: "silence", outcome: mllp.Unknown, frames: 4, took: time.Minute, retry: true},
		{name: "silence, then refused", script: []string{"", nak15, nak15, nak15}, outcome: mllp.Unknown, frames: 4, took: 15 * time.Second, retry: true},
		{name: "committed, but no acknowledgement", script: []string{ack06}, outcome: mllp.Unknown, frames: 1, took: 30 * time.Second, retry: true},
		{name: "something else than a commit", script: []string{frame("\x07")}, outcome: mllp.Unknown, frames: 1, reason: mllp.ReasonCommit, retry: true},
		{name: "a receiver of release 1", script: []string{r1}, outcome: mllp.Unknown, frames: 1, reason: mllp.ReasonMLLPR1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, frames, _ := peer2(t, &mllp.Dialer{Framing: tc.framing}, tc.script...)
				began := time.Now()
				_, err := c.Send(t.Context(), adt("M1"))
				e := failed(t, err, tc.outcome)
				assert.Equal(t, tc.code, e.AckCode)
				assert.Equal(t, tc.retry, e.Retryable())
				assert.Equal(t, tc.took, time.Since(began))
				assert.Equal(t, tc.frames, frames.Load())
				if tc.reason != "" {
					var fe *mllp.FrameError
					require.ErrorAs(t, err, &fe)
					assert.Equal(t, tc.reason, fe.Reason)
				}
				synctest.Wait()
				assert.Equal(t, tc.usable, c.Err() == nil)
			})
		})
	}
}

func TestRelease2ClientNeedsNoAcknowledgementThatItDidNotAskFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, got := peer2(t, &mllp.Dialer{}, ack06, ack06)
		msg := "MSH|^~\\&|A|B|C|D|20260101||ADT^A01|M1|P|2.5|||NE|NE\rPID|1\r"
		for range 2 {
			reply, err := c.Send(t.Context(), []byte(msg))
			require.NoError(t, err)
			assert.Equal(t, mllp.Ack{Code: mllp.CA, ControlID: "M1"}, reply.Ack)
		}
		assert.Equal(t, []string{msg, msg}, got())
	})
}

func TestRelease2ClientPassesOverTheAcknowledgementOfAnotherMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, got := peer2(t, &mllp.Dialer{}, ack06+answer(mllp.AA, "M0"), answer(mllp.AA, "M1"))
		reply, err := c.Send(t.Context(), adt("M1"))
		require.NoError(t, err)
		assert.Equal(t, 1, reply.Strays)
		synctest.Wait()
		assert.Equal(t, []string{string(adt("M1")), "\x06", "\x06"}, got())
	})
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := peer2(t, &mllp.Dialer{Match: mllp.MatchStrict}, ack06+answer(mllp.AA, "M0"))
		_, err := c.Send(t.Context(), adt("M1"))
		failed(t, err, mllp.Unknown)
		assert.ErrorIs(t, err, mllp.ErrMismatch)
	})
}

func TestRelease2ClientIsNotFooledByACommitThatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := peer2(t, &mllp.Dialer{}, ack06+answer(mllp.AA, "M1")+ack06)
		_, err := c.Send(t.Context(), adt("M1"))
		require.NoError(t, err)
		synctest.Wait()
		_, err = c.Send(t.Context(), adt("M2"))
		failed(t, err, mllp.NotSent)
	})
}

func TestRelease2SendHeedsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, frames, _ := peer2(t, &mllp.Dialer{})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		_, err := c.Send(ctx, adt("M1"))
		failed(t, err, mllp.Unknown)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 20*time.Second, time.Since(began))
		assert.Equal(t, int32(2), frames.Load())
	})
}

func TestARelease1SideNamesARelease2Peer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := link(t, &mllp.Server{Framing: release2}, &mllp.Dialer{}, nil, nil)
		_, err := dial().Send(t.Context(), adt("M1"))
		failed(t, err, mllp.Unknown)
		var fe *mllp.FrameError
		require.ErrorAs(t, err, &fe)
		assert.Equal(t, mllp.ReasonMLLPR2, fe.Reason)
		assert.Len(t, s.delivered(), 1)
	})
	synctest.Test(t, func(t *testing.T) {
		s, dial := link(t, &mllp.Server{}, &mllp.Dialer{Framing: release2}, nil, nil)
		_, err := dial().Send(t.Context(), adt("M1"))
		failed(t, err, mllp.Unknown)
		var fe *mllp.FrameError
		require.ErrorAs(t, err, &fe)
		assert.Equal(t, mllp.ReasonMLLPR1, fe.Reason)
		assert.Len(t, s.delivered(), 1)
	})
}

func TestRelease2ALargeMessageGivesItsMemoryBackBeforeTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		s := serve(t, &mllp.Server{Framing: release2, MaxMessageBytes: size, MaxBufferedBytes: 3 * size})
		large := func(id string) string {
			msg := string(adt(id))
			return msg + strings.Repeat("OBX|1\r", (size-len(msg))/6)
		}
		var waiting []*caller
		for _, id := range []string{"M1", "M2", "M3", "M4", "M5"} {
			c := s.call()
			waiting = append(waiting, c)
			go c.say(frame(large(id)))
			require.Equal(t, "06", c.hear2(), id)
			require.Equal(t, "AA "+id, c.hear2())
		}
		for i, c := range waiting {
			require.Equal(t, "AA M"+string(rune('1'+i)), c.hear2(), "and it is sent again when no commit comes")
			c.say(ack06)
		}
		synctest.Wait()
		assert.Empty(t, s.told())
	})
}
