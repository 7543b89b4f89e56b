package mllp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// word is the framed application acknowledgement of a message; it asks for this
// commit acknowledgement itself.
func word(code mllp.AckCode, id, accept string) string {
	return frame("MSH|^~\\&|EHR|CLINIC|LAB|HOSP|2025||ACK^A01^ACK|W" + id + "|P|2.5|||" + accept + "|\rMSA|" + string(code) + "|" + id + "\r")
}

func TestSendWaitsForTheApplicationsWord(t *testing.T) {
	type step struct {
		pause time.Duration
		say   string
	}
	const minute = time.Minute
	for name, tc := range map[string]struct {
		accept, apply string
		steps         []step
		ends          bool // the peer ends the connection after the steps
		code          mllp.AckCode
		commit        mllp.AckCode
		outcome       mllp.Outcome
		took          time.Duration
		timeout       bool
		goesOn        bool // the Conn can be used
	}{
		"CA, then AA":                 {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M1")}, {minute, answer(mllp.AA, "M1")}}, code: mllp.AA, commit: mllp.CA, took: minute, outcome: mllp.Acked, goesOn: true},
		"CA and AA at once":           {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M1") + answer(mllp.AA, "M1")}}, code: mllp.AA, commit: mllp.CA, outcome: mllp.Acked, goesOn: true},
		"CA, then AE":                 {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M1")}, {0, answer(mllp.AE, "M1")}}, code: mllp.AE, commit: mllp.CA, outcome: mllp.Nacked, goesOn: true},
		"CA twice, then AA":           {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M1") + answer(mllp.CA, "M1")}, {0, answer(mllp.AA, "M1")}}, code: mllp.AA, commit: mllp.CA, outcome: mllp.Acked, goesOn: true},
		"AA before CA":                {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.AA, "M1")}, {minute, answer(mllp.CA, "M1")}}, code: mllp.AA, outcome: mllp.Acked, goesOn: true},
		"AA and never CA":             {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.AA, "M1")}}, code: mllp.AA, outcome: mllp.Acked, goesOn: true},
		"CE":                          {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CE, "M1")}}, code: mllp.CE, outcome: mllp.Nacked, goesOn: true},
		"CR after a while":            {accept: "ER", apply: "AL", steps: []step{{20 * time.Second, answer(mllp.CR, "M1")}}, code: mllp.CR, took: 20 * time.Second, outcome: mllp.Nacked, goesOn: true},
		"AA alone is asked for":       {accept: "NE", apply: "AL", steps: []step{{20 * time.Second, answer(mllp.AA, "M1")}}, code: mllp.AA, took: 20 * time.Second, outcome: mllp.Acked, goesOn: true},
		"CA alone is asked for":       {accept: "AL", apply: "NE", steps: []step{{0, answer(mllp.CA, "M1")}}, code: mllp.CA, outcome: mllp.Acked, goesOn: true},
		"CA alone, AA comes":          {accept: "AL", apply: "", steps: []step{{0, answer(mllp.AA, "M1")}}, code: mllp.AA, outcome: mllp.Acked, goesOn: true},
		"original mode":               {steps: []step{{0, answer(mllp.AA, "M1")}}, code: mllp.AA, outcome: mllp.Acked, goesOn: true},
		"neither":                     {accept: "AL", apply: "AL", outcome: mllp.Unknown, took: 30 * time.Second, timeout: true},
		"CA and no AA":                {accept: "AL", apply: "AL", steps: []step{{10 * time.Second, answer(mllp.CA, "M1")}}, code: mllp.CA, outcome: mllp.Unknown, took: 100 * time.Second, timeout: true},
		"CA and the end":              {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M1")}}, ends: true, code: mllp.CA, outcome: mllp.Unknown},
		"the end":                     {accept: "AL", apply: "AL", ends: true, outcome: mllp.Unknown},
		"CA and AA and the end":       {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M1") + answer(mllp.AA, "M1")}}, ends: true, code: mllp.AA, commit: mllp.CA, outcome: mllp.Acked},
		"CA, then AA of another":      {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M1")}, {0, answer(mllp.AA, "M0")}}, code: mllp.CA, outcome: mllp.Unknown, took: 90 * time.Second, timeout: true},
		"CA of another, then AA":      {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M0")}, {0, answer(mllp.AA, "M1")}}, code: mllp.AA, outcome: mllp.Acked, goesOn: true},
		"nothing asked for":           {accept: "NE", apply: "NE", outcome: mllp.NotSent, goesOn: true},
		"only errors are asked for":   {accept: "ER", apply: "NE", outcome: mllp.NotSent, goesOn: true},
		"only success is asked for":   {accept: "AL", apply: "SU", outcome: mllp.NotSent, goesOn: true},
		"CA, and nonsense afterwards": {accept: "AL", apply: "AL", steps: []step{{0, answer(mllp.CA, "M1")}, {0, frame("hello")}}, code: mllp.CA, outcome: mllp.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := dial(t, &mllp.Dialer{Enhanced: true, ApplicationTimeout: 90 * time.Second})
				ch := send(t.Context(), c, []byte(asking("M1", tc.accept, tc.apply)))
				go func() {
					if tc.outcome != mllp.NotSent {
						p.receive()
					}
					for _, s := range tc.steps {
						time.Sleep(s.pause)
						p.say(s.say)
					}
					if tc.ends {
						p.CloseWrite()
					}
				}()
				s := <-ch
				assert.Equal(t, tc.took, s.took)
				if tc.outcome == mllp.Acked {
					require.NoError(t, s.err)
				} else {
					e := failed(t, s.err, tc.outcome)
					if tc.outcome == mllp.Unknown {
						committed := tc.code == mllp.CA
						assert.Equal(t, committed, errors.Is(e, mllp.ErrNoApplicationAck), "%v", e)
						assert.Equal(t, !committed, e.Retryable(), "the receiver has what it has committed")
						assert.Equal(t, tc.timeout, errors.Is(e, os.ErrDeadlineExceeded))
					}
				}
				if tc.code != "" {
					require.NotNil(t, s.reply)
					assert.Equal(t, tc.code, s.reply.Ack.Code)
					assert.Equal(t, tc.commit, s.reply.Commit)
				} else {
					assert.Nil(t, s.reply)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if !tc.goesOn {
					require.Error(t, c.Err())
					return
				}
				require.NoError(t, c.Err())
				ch = send(t.Context(), c, adt("M2"))
				p.receive()
				p.say(answer(mllp.AA, "M2"))
				require.NoError(t, (<-ch).err)
			})
		})
	}
}

func TestACommitThatNobodyIsOwedEndsTheConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Enhanced: true})
		ch := send(t.Context(), c, []byte(asking("M1", "AL", "AL")))
		p.say(answer(mllp.AA, "M1"))
		require.NoError(t, (<-ch).err)
		p.say(answer(mllp.CA, "M1"))
		require.NoError(t, c.Err(), "it was asked for")
		p.say(answer(mllp.CA, "M1"))
		require.ErrorIs(t, c.Err(), mllp.ErrUnsolicited)
	})
}

func TestTheApplicationsWordGetsTheCommitThatItAsksForOverTheConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Enhanced: true, Window: 2})
		first, second := send(t.Context(), c, []byte(asking("M1", "AL", "AL"))), send(t.Context(), c, []byte(asking("M2", "AL", "AL")))
		p.receive()
		p.receive()
		p.say(answer(mllp.CA, "M1")+answer(mllp.CA, "M2"), word(mllp.AA, "M2", "AL"), word(mllp.AR, "M1", "NE"))
		failed(t, (<-first).err, mllp.Nacked)
		require.NoError(t, (<-second).err)
		text, err := p.frames.Next()
		require.NoError(t, err)
		a, err := mllp.ParseAck(text)
		require.NoError(t, err)
		assert.Equal(t, mllp.Ack{Code: mllp.CA, ControlID: "WM2"}, a)
		var h mllp.Header
		require.NoError(t, h.Parse(text))
		assert.Equal(t, "LAB", string(h.SendingApplication))
		assert.Len(t, h.ControlID, 20)
		ch := send(t.Context(), c, adt("M3"))
		id, _ := p.receive()
		assert.Equal(t, "M3", id, "and no other")
		p.say(answer(mllp.AA, "M3"))
		require.NoError(t, (<-ch).err)
	})
}

func TestACorrelatorBringsTheWordFromAnotherConnection(t *testing.T) {
	for name, lost := range map[string]bool{"the first one stays": false, "the first one is lost": true} {
		for via, overConn := range map[string]bool{"a Server of ours": false, "another Conn of the Dialer": true} {
			t.Run(name+", "+via, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					corr := new(mllp.Correlator)
					back := serve(t, &mllp.Server{Enhanced: true, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
						if r.Flags&mllp.IsAck == 0 || !corr.Deliver(r.Message) {
							return nil, &mllp.Nak{Code: mllp.AR}
						}
						return nil, nil
					})})
					d := &mllp.Dialer{Enhanced: true, Correlator: corr}
					c, p := dial(t, d)
					ch := send(t.Context(), c, []byte(asking("M1", "AL", "AL")))
					p.receive()
					p.say(answer(mllp.CA, "M1"))
					if lost {
						p.Abort()
						synctest.Wait()
						require.Error(t, c.Err())
					}
					assert.Empty(t, ch)
					time.Sleep(20 * time.Second)
					var commit string
					if overConn {
						other, q := dial(t, d)
						q.say(word(mllp.AA, "M1", "AL"))
						text, err := q.frames.Next()
						require.NoError(t, err)
						a, err := mllp.ParseAck(text)
						require.NoError(t, err)
						commit = string(a.Code) + " " + a.ControlID
						require.NoError(t, other.Err())
						q.say(word(mllp.AA, "M1", "AL"))
						require.ErrorIs(t, other.Err(), mllp.ErrUnsolicited, "nobody waits for a second one")
					} else {
						r := back.call()
						r.say(word(mllp.AA, "M1", "AL"))
						commit = r.hear()
						r.say(word(mllp.AA, "M1", "AL"))
						assert.Equal(t, "CR WM1", r.hear(), "nobody waits for a second one")
					}
					assert.Equal(t, "CA WM1", commit)
					s := <-ch
					require.NoError(t, s.err)
					assert.Equal(t, mllp.AA, s.reply.Ack.Code)
					assert.Equal(t, mllp.CA, s.reply.Commit)
					assert.Equal(t, 20*time.Second, s.reply.Duration)
					assert.Equal(t, lost, c.Err() != nil)
				})
			})
		}
	}
}

func TestACorrelatorSettlesWhatWasNotCommittedAndForgetsWhatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		corr := new(mllp.Correlator)
		c, p := dial(t, &mllp.Dialer{Enhanced: true, Correlator: corr})
		ch := send(t.Context(), c, []byte(asking("M1", "AL", "AL")))
		aa := strings.Trim(word(mllp.AA, "M1", ""), "\x0b\x1c")
		aa = aa[:len(aa)-1] // the CR after FS
		assert.False(t, corr.Deliver([]byte("MSH|^~\\&|\rMSA|CA|M1\r")), "no application's word")
		assert.False(t, corr.Deliver([]byte("hello")))
		assert.True(t, corr.Deliver([]byte(aa)))
		s := <-ch
		require.NoError(t, s.err)
		assert.Empty(t, s.reply.Commit)
		p.say(answer(mllp.CA, "M1"))
		require.NoError(t, c.Err(), "CA comes late, and is passed over")

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ch = send(ctx, c, []byte(asking("M2", "AL", "AL")))
		p.say(answer(mllp.CA, "M2"))
		p.Abort()
		s = <-ch
		assert.Equal(t, 30*time.Second, s.took, "ApplicationTimeout")
		require.ErrorIs(t, s.err, mllp.ErrNoApplicationAck)
		assert.False(t, corr.Deliver([]byte(strings.ReplaceAll(aa, "M1", "M2"))), "given up")
	})
}

func TestSendWaitsForWhatAMissingConditionCountsAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Enhanced: true, MissingCondition: mllp.AckAlways})
		ch := send(t.Context(), c, []byte(asking("M1", "AL", "")))
		p.receive()
		p.say(answer(mllp.CA, "M1"))
		synctest.Wait()
		p.say(answer(mllp.AA, "M1"))
		s := <-ch
		require.NoError(t, s.err)
		assert.Equal(t, mllp.AA, s.reply.Ack.Code)
		assert.Equal(t, mllp.CA, s.reply.Commit)
		assert.NoError(t, c.Err())
	})
}

func TestContradictionsOfEnhancedModeAreRefused(t *testing.T) {
	for want, d := range map[string]*mllp.Dialer{
		"with MatchAny, Dialer.Enhanced": {Enhanced: true, Match: mllp.MatchAny},
		"Dialer.Correlator is set":       {Correlator: new(mllp.Correlator)},
	} {
		_, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
		assert.False(t, failed(t, err, mllp.NotSent).Retryable())
		assert.ErrorContains(t, err, want)
	}
}

// TestBothRolesInEnhancedMode has many senders, over real sockets, and a Server
// that returns each application's word over a connection of its own.
func TestBothRolesInEnhancedMode(t *testing.T) {
	p := pki()
	for mode, secured := range map[string]bool{"plain": false, "TLS": true} {
		for how, apart := range map[string]bool{"on one connection": false, "on two": true} {
			t.Run(mode+", "+how, func(t *testing.T) {
				var server, client *tls.Config
				if secured {
					server = &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12}
					client = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
				}
				run := func(srv *mllp.Server) string {
					ln, err := net.Listen("tcp", "127.0.0.1:0")
					require.NoError(t, err)
					srv.TLSConfig = server
					served := make(chan struct{})
					go func() {
						srv.Serve(t.Context(), ln)
						close(served)
					}()
					t.Cleanup(func() {
						srv.Close()
						<-served
					})
					return ln.Addr().String()
				}
				corr := new(mllp.Correlator)
				receiver := &mllp.Server{
					Enhanced: true,
					Handler:  mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
					Application: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
						if strings.HasSuffix(string(r.Header.ControlID), "3") {
							return nil, &mllp.Nak{Code: mllp.AE}
						}
						return nil, nil
					}),
				}
				if apart {
					receiver.Responder = &mllp.Responder{Dialer: &mllp.Dialer{TLSConfig: client}, Addr: run(&mllp.Server{
						Enhanced: true,
						Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
							assert.True(t, corr.Deliver(r.Message))
							return nil, nil
						}),
					})}
				}
				addr := run(receiver)
				d := &mllp.Dialer{Enhanced: true, TLSConfig: client, Window: 4, Correlator: corr}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var wg sync.WaitGroup
				for s := range 4 {
					c, err := d.DialContext(ctx, "tcp", addr)
					require.NoError(t, err)
					defer c.Close()
					for i := range 20 {
						wg.Go(func() {
							reply, err := c.Send(ctx, []byte(asking(fmt.Sprintf("%d-%d", s, i), "AL", "AL")))
							if i%10 == 3 {
								failed(t, err, mllp.Nacked)
							} else {
								assert.NoError(t, err)
							}
							if assert.NotNil(t, reply) && !apart { // over another connection it may be faster
								assert.Equal(t, mllp.CA, reply.Commit)
							}
						})
					}
				}
				wg.Wait()
			})
		}
	}
}
