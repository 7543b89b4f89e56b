package mllp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

func TestEventsTellOfConnectionsAndMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var events []mllp.Event
		var mu sync.Mutex
		c := newClient(t, n, &mllp.Client{MaxAttempts: 2, IdleTimeout: time.Minute, Observe: func(e mllp.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}})
		_, err := c.Send(t.Context(), adt("M1"))
		failed(t, err, mllp.NotSent)
		n.up(func(p *peer) {
			p.serve(func(id string) string {
				time.Sleep(time.Second)
				if id == "M3" {
					return answer(mllp.AR, id)
				}
				if id == "M4" {
					return ""
				}
				return answer(mllp.AA, id)
			})
		})
		_, err = c.Send(t.Context(), adt("M2"))
		require.NoError(t, err)
		_, err = c.Send(t.Context(), adt("M3"))
		failed(t, err, mllp.Nacked)
		time.Sleep(2 * time.Minute)
		_, err = c.Send(t.Context(), adt("M4"))
		failed(t, err, mllp.Unknown)
		c.Close()
		synctest.Wait()

		type told struct {
			kind    mllp.EventKind
			reason  mllp.Reason
			outcome mllp.Outcome
			code    mllp.AckCode
			detail  string
		}
		got := map[string][]told{} // what different goroutines tell has no order
		for _, e := range events {
			subject := "connection"
			switch e.Kind {
			case mllp.EventMessageBegun, mllp.EventMessageEnded:
				subject = "message"
				assert.Equal(t, int64(len(adt("M1"))), e.Bytes)
			case mllp.EventHealth:
				subject = "health"
			case mllp.EventDialed, mllp.EventClosed:
				assert.Equal(t, "192.0.2.1:2575", e.RemoteAddr.String())
			default:
			}
			got[subject] = append(got[subject], told{e.Kind, e.Reason, e.Outcome, e.Code, e.Detail})
			assert.NotContains(t, e.String(), canary)
			if e.Outcome == mllp.Acked {
				assert.GreaterOrEqual(t, e.Duration, time.Second)
			}
		}
		begun := told{kind: mllp.EventMessageBegun}
		assert.Equal(t, []told{
			begun,
			{kind: mllp.EventMessageEnded, outcome: mllp.NotSent},
			begun,
			{kind: mllp.EventMessageEnded, outcome: mllp.Acked, code: mllp.AA},
			begun,
			{kind: mllp.EventMessageEnded, outcome: mllp.Nacked, code: mllp.AR},
			begun,
			{kind: mllp.EventMessageEnded, outcome: mllp.Unknown},
		}, got["message"])
		assert.Equal(t, []told{
			{kind: mllp.EventDialFailed, reason: mllp.ReasonConnRefused},
			{kind: mllp.EventDialFailed, reason: mllp.ReasonConnRefused},
			{kind: mllp.EventDialed},
			{kind: mllp.EventClosed, reason: mllp.ReasonIdleTimeout},
			{kind: mllp.EventDialed},
			{kind: mllp.EventClosed, reason: mllp.ReasonGivenUp},
		}, got["connection"])
		assert.Equal(t, []told{
			{kind: mllp.EventHealth, detail: "failing"},
			{kind: mllp.EventHealth, detail: "ok"},
			{kind: mllp.EventHealth, detail: "failing"},
			{kind: mllp.EventHealth, detail: "closed"},
		}, got["health"])
	})
}

func TestEventsNameTheReasonOfAFailedDial(t *testing.T) {
	ca, other := testpki.NewCA(t, "CA"), testpki.NewCA(t, "Other CA")
	secured := func(certificate tls.Certificate) func(*peer) {
		return func(p *peer) {
			_ = tls.Server(p.Conn, &tls.Config{Certificates: []tls.Certificate{certificate}}).HandshakeContext(context.Background())
		}
	}
	fail := func(err error) func(context.Context) (net.Conn, error) {
		return func(context.Context) (net.Conn, error) { return nil, err }
	}
	silent := func(ctx context.Context) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	synctest.Test(t, func(t *testing.T) {
		for want, tt := range map[mllp.Reason]struct {
			serve func(*peer) // nil: dial
			dial  dialFunc
		}{
			mllp.ReasonHostUnknown:         {dial: fail(&net.DNSError{Err: "no such host", IsNotFound: true})},
			mllp.ReasonResolve:             {dial: fail(&net.DNSError{Err: "server misbehaving"})},
			mllp.ReasonDialTimeout:         {dial: silent},
			mllp.ReasonDialFailed:          {dial: fail(io.ErrUnexpectedEOF)},
			mllp.ReasonTLSUnknownAuthority: {serve: secured(other.Server("receiver").TLS())},
			mllp.ReasonTLSWrongName:        {serve: secured(ca.Server("elsewhere").TLS())},
			mllp.ReasonTLSExpired: {serve: secured(ca.Issue(testpki.Options{
				Hosts: []string{"receiver"}, NotAfter: time.Now().Add(-time.Hour),
			}).TLS())},
			mllp.ReasonNotTLS: {serve: func(p *peer) { p.Read(make([]byte, 4096)); io.WriteString(p, "Welcome "+canary) }},
			mllp.ReasonTLSPeerRefused: {serve: func(p *peer) {
				_ = tls.Server(p.Conn, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}).HandshakeContext(context.Background())
			}},
		} {
			n := newNetwork(t)
			var got []mllp.Event
			c := newClient(t, n, &mllp.Client{
				MaxAttempts: 1, Dialer: &mllp.Dialer{TLSConfig: &tls.Config{RootCAs: ca.Pool()}},
				Observe: func(e mllp.Event) {
					if e.Kind == mllp.EventDialFailed {
						got = append(got, e)
					}
				},
			})
			if tt.serve != nil {
				n.up(tt.serve)
			} else {
				c.Dialer.NetDialer = tt.dial
			}
			_, err := c.Send(t.Context(), adt("M1"))
			failed(t, err, mllp.NotSent)
			if assert.Len(t, got, 1, want) {
				assert.Equal(t, want, got[0].Reason)
				assert.NotContains(t, got[0].String(), canary)
				assert.Equal(t, want == mllp.ReasonTLSUnknownAuthority || want == mllp.ReasonTLSWrongName || want == mllp.ReasonTLSExpired,
					got[0].Certificate != nil, "%s: the receiver's certificate is named", want)
			}
		}
	})
}

func TestEventsNameTheReasonOfAConnectionsEnd(t *testing.T) {
	for want, tt := range map[mllp.Reason]struct {
		match mllp.Match
		serve func(*peer)
	}{
		mllp.ReasonPeerClosed: {serve: func(p *peer) { p.receive() }},
		mllp.ReasonReadFailed: {serve: func(p *peer) { p.receive(); p.Abort() }},
		mllp.ReasonMismatch:   {mllp.MatchStrict, func(p *peer) { p.receive(); io.WriteString(p, answer(mllp.AA, "M0")); p.receive() }},
		mllp.ReasonGivenUp:    {serve: func(p *peer) { p.receive(); p.receive() }},
		mllp.ReasonUnsolicited: {serve: func(p *peer) {
			id, _ := p.receive()
			io.WriteString(p, answer(mllp.AA, id))
			time.Sleep(time.Second)
			io.WriteString(p, canary)
			p.receive()
		}},
		mllp.ReasonShutdown: {serve: accept},
	} {
		t.Run(string(want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				n.up(tt.serve)
				ends := make(chan mllp.Event, 1)
				c := newClient(t, n, &mllp.Client{Dialer: &mllp.Dialer{Match: tt.match}, Observe: func(e mllp.Event) {
					if e.Kind == mllp.EventClosed {
						ends <- e
					}
				}})
				_, _ = c.Send(t.Context(), adt("M1")) // whose outcome other tests look at
				if want == mllp.ReasonShutdown {
					c.Close()
				}
				e := <-ends
				assert.Equal(t, want, e.Reason)
				assert.NotContains(t, e.String(), canary)
			})
		})
	}
}

func TestTheLogOfAClientHoldsNothingOfAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.up(func(p *peer) {
			p.serve(func(id string) string {
				if id == "M2" {
					return canary // no frame
				}
				return answer(mllp.AR, id)
			})
		})
		var log bytes.Buffer
		c := newClient(t, n, &mllp.Client{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		for _, id := range []string{"M1", "M2"} {
			_, err := c.Send(t.Context(), adt(id))
			require.Error(t, err)
		}
		c.Close()
		synctest.Wait()
		for _, word := range []string{"dialed", "message_begun", "outcome=nacked", "code=AR", "outcome=unknown", "closed", "health"} {
			assert.Contains(t, log.String(), word)
		}
		assert.NotContains(t, log.String(), canary)
		assert.NotContains(t, log.String(), "4711")
	})
}

func TestWithoutAcknowledgementsAConnectionThatEndsIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		peers := make(chan *peer, 9)
		n.up(func(p *peer) {
			peers <- p
			p.receive()
			p.receive()
		})
		c := newClient(t, n, &mllp.Client{Dialer: &mllp.Dialer{Match: mllp.MatchNone}})
		_, err := c.Send(t.Context(), adt("M1"))
		require.NoError(t, err)
		(<-peers).CloseWrite()
		synctest.Wait()
		assert.Equal(t, mllp.StateFailing, c.Health().State, "it has proved nothing")
		_, err = c.Send(t.Context(), adt("M2"))
		require.NoError(t, err)
		assert.Equal(t, 2, n.dialed())
		time.Sleep(29 * time.Second)
		assert.Equal(t, mllp.StateFailing, c.Health().State)
		time.Sleep(2 * time.Second)
		assert.Equal(t, mllp.StateOK, c.Health().State, "a connection that lives for MaxBackoff works, as far as can be seen")
	})
}

func TestADialerTellsOfItsConnectionsAndOfWhatTheySend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []mllp.Event
		d := &mllp.Dialer{Observe: func(e mllp.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
			assert.NotContains(t, e.String(), canary)
		}}
		told := func() (kinds []string) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				kinds = append(kinds, strings.TrimSpace(fmt.Sprintf("%s %s", e.Kind, e.Reason)))
			}
			events = nil
			return kinds
		}
		c, p := dial(t, d)
		ch := send(t.Context(), c, adt("M1"))
		p.receive()
		time.Sleep(time.Second)
		p.say(answer(mllp.AR, "M1"))
		failed(t, (<-ch).err, mllp.Nacked)
		mu.Lock()
		ended := events[2]
		mu.Unlock()
		assert.Equal(t, mllp.Nacked, ended.Outcome)
		assert.Equal(t, mllp.AR, ended.Code)
		assert.Equal(t, int64(len(adt("M1"))), ended.Bytes)
		assert.Equal(t, time.Second, ended.Duration)
		c.Close()
		assert.Equal(t, []string{"dialed", "message_begun", "message_ended", "closed shutdown"}, told())

		c, p = dial(t, d)
		p.Close()
		synctest.Wait()
		require.Error(t, c.Err())
		assert.Equal(t, []string{"dialed", "closed peer_closed"}, told())

		d.NetDialer = dialFunc(func(context.Context) (net.Conn, error) { return nil, syscall.ECONNREFUSED })
		_, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
		failed(t, err, mllp.NotSent)
		assert.Equal(t, []string{"dial_failed conn_refused"}, told())

		// One message for each connection, sent by a Client.
		n := newNetwork(t)
		n.up(func(p *peer) { p.serve(func(id string) string { return answer(mllp.AA, id) }) })
		no := false
		client := newClient(t, n, &mllp.Client{Dialer: &mllp.Dialer{Framing: mllp.Framing{KeepOpen: &no}, Observe: d.Observe}})
		_, err = client.Send(t.Context(), adt("M2"))
		require.NoError(t, err)
		client.Close()
		assert.Equal(t, []string{"dialed", "closed not_kept_open"}, told())
	})
}
