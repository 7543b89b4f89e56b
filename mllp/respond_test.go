package mllp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// flaky fails the first dials.
type flaky struct {
	*memnet.Listener
	failures int
}

func (f *flaky) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if f.failures != 0 {
		f.failures--
		return nil, errors.New("no route")
	}
	return f.Listener.DialContext(ctx, network, addr)
}

// returns is a Server of the sender's, which takes answers.
func returns(t *testing.T, srv *mllp.Server) *site {
	t.Helper()
	return serve(t, srv)
}

func TestAnswersGoOverAConnectionOfTheirOwn(t *testing.T) {
	for name, tc := range map[string]struct {
		msg      string
		enhanced bool
		same     []string // on the connection of the message
		returned []string
	}{
		"original mode":       {msg: msgA, same: nil, returned: []string{"AA id1"}},
		"commit, application": {msg: asking("id1", "AL", "AL"), enhanced: true, same: []string{"CA id1"}, returned: []string{"AA id1"}},
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
				back := returns(t, new(mllp.Server))
				s := start(&mllp.Server{Enhanced: tc.enhanced, Responder: &mllp.Responder{Addr: "sender:2575", Dialer: &mllp.Dialer{NetDialer: back.ln}}})
				c := s.call()
				c.say(frame(tc.msg))
				assert.Equal(t, tc.same, c.acks(len(tc.same)))
				var got []string
				for _, text := range back.delivered() {
					a, err := mllp.ParseAck([]byte(text))
					require.NoError(t, err)
					got = append(got, string(a.Code)+" "+a.ControlID)
				}
				assert.Equal(t, tc.returned, got)
				assert.Empty(t, s.told())
			})
		})
	}
}

func TestAnAnswerIsTriedAgainWithinItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := returns(t, new(mllp.Server))
		s := serve(t, &mllp.Server{Responder: &mllp.Responder{Addr: "sender:2575", Dialer: &mllp.Dialer{NetDialer: &flaky{back.ln, 3}}}})
		c := s.call()
		c.say(frame(msgA))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		assert.Len(t, back.delivered(), 1)
		assert.Equal(t, []string{"respond_failed", "respond_failed", "respond_failed"}, s.told())
	})
}

func TestAnAnswerThatCannotBeDeliveredIsToldAndTheSourceGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := returns(t, new(mllp.Server))
		s := serve(t, &mllp.Server{Responder: &mllp.Responder{
			Addr: "sender:2575", Timeout: 5 * time.Second, Pause: 2 * time.Second,
			Dialer: &mllp.Dialer{NetDialer: &flaky{back.ln, 3}},
		}})
		c := s.call()
		began := time.Now()
		c.say(frame(msgA) + frame(msgB))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{msgA, msgB}, s.delivered(), "the source waited no longer than the Timeout")
		assert.LessOrEqual(t, time.Since(began), 5*time.Second)
		assert.Equal(t, []string{"respond_failed", "respond_failed", "ack_undeliverable"}, s.told())
		assert.Equal(t, "id1", s.event(mllp.EventAckUndeliverable).ControlID)
		assert.Len(t, back.delivered(), 1, "that of the second message")
		assert.NotContains(t, s.log.String(), "id1")
	})
}

func TestASilentReturnAddressHoldsTheSourceUpNoLongerThanTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memnet.Listen() // accepts, and never reads
		go func() {
			for {
				if _, err := ln.Accept(); err != nil {
					return
				}
			}
		}()
		s := serve(t, &mllp.Server{
			Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				// As long as what it asks for does not come, it has not arrived.
				return []byte("MSH|^~\\&|C|D|A|B|2026||ACK|x1|P|2.5|||AL|NE\rMSA|AA|" + string(r.Header.ControlID) + "\r"), nil
			}),
			Responder: &mllp.Responder{Addr: "sender:2575", Timeout: 10 * time.Second, Dialer: &mllp.Dialer{NetDialer: ln}},
		})
		c := s.call()
		c.say(frame(msgA) + frame(msgB))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.Len(t, s.delivered(), 2)
		c.raw.Close()
		ln.Close()
	})
}

func TestAnswersUseANewConnectionOnlyWhenTheOldOneIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := returns(t, new(mllp.Server))
		release := make(chan struct{})
		s := serve(t, &mllp.Server{
			Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				if string(r.Header.ControlID) == "id2" {
					<-release
				}
				return nil, nil
			}),
			Responder: &mllp.Responder{Addr: "sender:2575", When: mllp.RespondOnRecovery, Dialer: &mllp.Dialer{NetDialer: back.ln}},
		})
		c := s.call()
		c.say(frame(msgA))
		assert.Equal(t, "AA id1", c.hear())
		assert.Empty(t, back.delivered())
		c.say(frame(msgB))
		synctest.Wait()
		c.raw.Abort()
		close(release)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, back.delivered(), 1)
		assert.Contains(t, back.delivered()[0], "MSA|AA|id2\r")
		assert.False(t, slices.Contains(s.told(), "ack_undeliverable"), "it was delivered")
	})
}

func TestAProgramCanAnswerAfterARestart(t *testing.T) {
	p := pki()
	synctest.Test(t, func(t *testing.T) {
		back := returns(t, &mllp.Server{
			Enhanced:  true,
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12},
			Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				if string(r.Header.ControlID) == "x2" {
					return nil, &mllp.Nak{Code: mllp.CR}
				}
				return nil, nil
			}),
		})
		r := &mllp.Responder{Addr: "localhost:2575", Dialer: &mllp.Dialer{NetDialer: back.ln, TLSConfig: &tls.Config{RootCAs: p.ca.Pool(), MinVersion: tls.VersionTLS12}}}
		var h mllp.Header
		require.NoError(t, h.Parse([]byte(msgA)))
		require.NoError(t, r.Respond(t.Context(), mllp.AppendAck(nil, &h, mllp.AA, "", []byte("x0"), time.Now())))
		require.NoError(t, r.Respond(t.Context(), []byte("MSH|^~\\&|C|D|A|B|2026||ACK|x1|P|2.5|||AL|NE\rMSA|AA|id1\r")), "the other side says CA")
		err := r.Respond(t.Context(), []byte("MSH|^~\\&|C|D|A|B|2026||ACK|x2|P|2.5|||AL|NE\rMSA|AA|id1\r"))
		assert.Equal(t, mllp.CR, failed(t, err, mllp.Nacked).AckCode)
		synctest.Wait()
		assert.Len(t, back.delivered(), 3)
		failed(t, (&mllp.Responder{}).Respond(t.Context(), nil), mllp.NotSent)
		failed(t, r.Respond(t.Context(), []byte("\x0b")), mllp.NotSent)
		var w mllp.RespondWhen
		require.NoError(t, w.UnmarshalText([]byte("recovery")))
		assert.Error(t, w.UnmarshalText([]byte("2")))
	})
}

func TestAnAnswerArrivesEvenIfItsReceiverTalksBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memnet.Listen()
		got := make(chan string, 1)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "welcome")
			time.Sleep(100 * time.Millisecond)
			text, err := mllp.NewReader(c, 0).Next()
			if err == nil {
				got <- string(text)
			}
			c.Close()
		}()
		var h mllp.Header
		require.NoError(t, h.Parse([]byte(msgA)))
		ack := mllp.AppendAck(nil, &h, mllp.AA, "", []byte("x0"), time.Now())
		_ = (&mllp.Responder{Addr: "a:1", Timeout: 10 * time.Second, Dialer: &mllp.Dialer{NetDialer: dialFunc(func(context.Context) (net.Conn, error) {
			c, err := ln.Dial()
			return lateWriter{c}, err
		})}}).Respond(t.Context(), ack)
		assert.Equal(t, string(ack), <-got)
		ln.Close()
	})
}

// lateWriter is a connection on which the other side always speaks first.
type lateWriter struct{ *memnet.Conn }

func (w lateWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return w.Conn.Write(p)
}
