package mllp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// gaps returns the times between dials.
func (n *network) gaps() []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	var gaps []time.Duration
	for i := 1; i < len(n.dials); i++ {
		gaps = append(gaps, n.dials[i]-n.dials[i-1])
	}
	return gaps
}

func TestAMessageThatWasNotSentIsTriedUntilItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		c := newClient(t, n, &mllp.Client{})
		ch := post(t.Context(), c, "M1")
		time.Sleep(time.Hour)
		h := c.Health()
		assert.Equal(t, mllp.StateFailing, h.State)
		assert.Equal(t, n.dialed(), h.Failures)
		assert.Equal(t, 1, h.Messages)
		failed(t, h.Err, mllp.NotSent)
		n.up(accept)
		s := <-ch
		require.NoError(t, s.err)
		assert.LessOrEqual(t, s.took, time.Hour+30*time.Second)
		assert.Equal(t, mllp.StateOK, c.Health().State)
	})
}

// TestTheBackOffDoublesWithFullJitter looks at the distribution over many Clients.
func TestTheBackOffDoublesWithFullJitter(t *testing.T) {
	const clients, tries = 200, 10
	longest, sums := make([]time.Duration, tries), make([]time.Duration, tries)
	synctest.Test(t, func(t *testing.T) {
		for range clients {
			n := newNetwork(t)
			c := newClient(t, n, &mllp.Client{MaxAttempts: tries + 1})
			_, err := c.Send(t.Context(), adt("M1"))
			require.ErrorIs(t, err, mllp.ErrUnreachable)
			for i, gap := range n.gaps() {
				longest[i] = max(longest[i], gap)
				sums[i] += gap
			}
		}
	})
	for i, seconds := range []float64{0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30} {
		bound := time.Duration(seconds * float64(time.Second))
		assert.LessOrEqual(t, longest[i], bound)
		assert.Greater(t, longest[i], bound*9/10, "the whole of the time is used")
		assert.InDelta(t, bound/2, sums[i]/clients, float64(bound)/10, "evenly")
	}
}

func TestOnlyAnAcknowledgementEndsTheBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.up(func(p *peer) {}) // accepts, and closes at once
		c := newClient(t, n, &mllp.Client{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for ctx.Err() == nil { // some are written before the end is noticed, and so are Unknown
			if _, err := c.Send(ctx, adt("M1")); err == nil {
				t.Fatal("nobody can have acknowledged it")
			}
		}
		assert.Equal(t, mllp.StateFailing, c.Health().State)
		assert.Less(t, n.dialed(), 360, "at most every 15 s on average, but for the first")
		assert.Greater(t, slices.Max(n.gaps()), 25*time.Second)

		n.down()
		n.up(func(p *peer) { // takes one message of each connection
			id, _ := p.receive()
			io.WriteString(p, answer(mllp.AE, id))
		})
		began := n.dialed()
		for range 100 {
			for {
				_, err := c.Send(t.Context(), adt("M2"))
				if e, ok := errors.AsType[*mllp.SendError](err); ok && e.Outcome == mllp.Nacked {
					break
				}
			}
			synctest.Wait()
		}
		for _, gap := range n.gaps()[began+1:] {
			assert.LessOrEqual(t, gap, 500*time.Millisecond, "an answer, even a refusal, shows that the connection worked")
		}
	})
}

func TestTheEndOfTryingIsTheTruth(t *testing.T) {
	t.Run("by MaxAttempts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t)
			c := newClient(t, n, &mllp.Client{MaxAttempts: 3})
			_, err := c.Send(t.Context(), adt("M1"))
			assert.True(t, failed(t, err, mllp.NotSent).Retryable())
			require.ErrorIs(t, err, mllp.ErrUnreachable)
			assert.Equal(t, 3, n.dialed())
		})
	})
	t.Run("by the context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t)
			c := newClient(t, n, &mllp.Client{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			first, second := post(ctx, c, "M1"), post(ctx, c, "M2")
			for _, ch := range []<-chan sent{first, second} {
				s := <-ch
				assert.Equal(t, time.Minute, s.took)
				assert.True(t, failed(t, s.err, mllp.NotSent).Retryable())
				require.ErrorIs(t, s.err, context.DeadlineExceeded)
			}
			s := <-post(ctx, c, "M3")
			failed(t, s.err, mllp.NotSent)
			assert.Zero(t, s.took)
		})
	})
	t.Run("and why nobody was reached is said", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, newNetwork(t), &mllp.Client{MinBackoff: time.Hour, MaxBackoff: 2 * time.Hour})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Send(ctx, adt("M1"))
			require.ErrorIs(t, err, mllp.ErrUnreachable)
			assert.EqualError(t, err, "mllp: not sent: no connection to the receiver: context deadline exceeded; "+
				"the last try failed: mllp: dial tcp: connection refused")
		})
	})
}

func TestAMessageThatCannotBeSentDoesNotWaitForAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		c := newClient(t, n, &mllp.Client{})
		_, err := c.Send(t.Context(), []byte("MSH|^~\\&|||||||ADT^A01||P|2.5\r"))
		require.ErrorIs(t, err, mllp.ErrNoControlID)
		assert.NotErrorIs(t, err, mllp.ErrUnreachable)
		assert.False(t, failed(t, err, mllp.NotSent).Retryable())
		assert.Zero(t, n.dialed())
	})
}

func TestAnswersAreTriedAgainAsTheirCodesSay(t *testing.T) {
	for name, tt := range map[string]struct {
		answers []mllp.AckCode
		client  *mllp.Client
		want    mllp.Outcome
		tries   int
	}{
		"AE, by default":         {[]mllp.AckCode{mllp.AE, mllp.AA}, &mllp.Client{}, mllp.Nacked, 1},
		"AR, by default":         {[]mllp.AckCode{mllp.AR, mllp.AA}, &mllp.Client{}, mllp.Nacked, 1},
		"AE, asked for":          {[]mllp.AckCode{mllp.AE, mllp.AE, mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE, mllp.CE}}, mllp.Acked, 3},
		"CE, asked for":          {[]mllp.AckCode{mllp.CE, mllp.CA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE, mllp.CE}}, mllp.Acked, 2},
		"AR, not asked for":      {[]mllp.AckCode{mllp.AE, mllp.AR, mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}}, mllp.Nacked, 2},
		"CR, not asked for":      {[]mllp.AckCode{mllp.CR, mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.CE}}, mllp.Nacked, 1},
		"AR, asked for":          {[]mllp.AckCode{mllp.AR, mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AR}}, mllp.Acked, 2},
		"no more than so often":  {[]mllp.AckCode{mllp.AE, mllp.AE, mllp.AE, mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}, MaxAttempts: 3}, mllp.Nacked, 3},
		"a window":               {[]mllp.AckCode{mllp.AE, mllp.AE, mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}, Dialer: &mllp.Dialer{Window: 4}}, mllp.Acked, 3},
		"dialing for each":       {[]mllp.AckCode{mllp.AE, mllp.AE, mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}, DialPerMessage: true}, mllp.Acked, 3},
		"then silence":           {[]mllp.AckCode{mllp.AE, ""}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}}, mllp.Unknown, 2},
		"silence, never resent":  {[]mllp.AckCode{"", mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}}, mllp.Unknown, 1},
		"several connections":    {[]mllp.AckCode{mllp.AE, mllp.AA}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}, Conns: 3}, mllp.Acked, 2},
		"the last answer stands": {[]mllp.AckCode{mllp.AE, mllp.CE}, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}}, mllp.Nacked, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				tries := 0
				n.up(func(p *peer) {
					p.serve(func(id string) string {
						code := tt.answers[tries]
						if tries++; code == "" {
							return ""
						}
						return answer(code, id)
					})
				})
				c := newClient(t, n, tt.client)
				reply, err := c.Send(t.Context(), adt("M1"))
				assert.Equal(t, tt.tries, tries)
				switch tt.want {
				case mllp.Acked:
					require.NoError(t, err)
				case mllp.Nacked:
					e := failed(t, err, mllp.Nacked)
					assert.Equal(t, tt.answers[tries-1], e.AckCode)
					assert.Equal(t, tt.answers[tries-1], reply.Ack.Code)
				default:
					failed(t, err, tt.want)
					assert.Nil(t, reply)
				}
			})
		})
	}
}

func TestARefusalThatIsTriedAgainIsNotOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var order []string
		n.up(func(p *peer) {
			p.serve(func(id string) string {
				order = append(order, id)
				if id == "A" && len(order) < 4 {
					return answer(mllp.AE, id)
				}
				return answer(mllp.AA, id)
			})
		})
		c := newClient(t, n, &mllp.Client{RetryCodes: []mllp.AckCode{mllp.AE}})
		first, second := post(t.Context(), c, "A"), post(t.Context(), c, "B")
		require.NoError(t, (<-first).err)
		require.NoError(t, (<-second).err)
		assert.Equal(t, "AAAAB", strings.Join(order, ""))
	})
}

func TestAContextThatEndsBetweenTwoTriesLeavesTheLastAnswer(t *testing.T) {
	for _, window := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t)
			n.up(func(p *peer) { p.serve(func(id string) string { return answer(mllp.AE, id) }) })
			c := newClient(t, n, &mllp.Client{
				RetryCodes: []mllp.AckCode{mllp.AE}, MinBackoff: time.Hour, MaxBackoff: time.Hour, Dialer: &mllp.Dialer{Window: window},
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			reply, err := c.Send(ctx, adt("M1"))
			failed(t, err, mllp.Nacked)
			assert.Equal(t, mllp.AE, reply.Ack.Code)
			_, err = c.Send(t.Context(), []byte("nothing"))
			failed(t, err, mllp.NotSent) // the lane is free again
		})
	}
}

func TestAFaultBacksOffAtTheMaximumAndIsSaid(t *testing.T) {
	ca, other := testpki.NewCA(t, "CA"), testpki.NewCA(t, "Other CA")
	serve := func(certificate tls.Certificate) func(*peer) {
		return func(p *peer) {
			_ = tls.Server(p.Conn, &tls.Config{Certificates: []tls.Certificate{certificate}}).HandshakeContext(context.Background())
		}
	}
	secured := func() *mllp.Dialer { return &mllp.Dialer{TLSConfig: &tls.Config{RootCAs: ca.Pool()}} }
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			serve  func(*peer)
			dialer *mllp.Dialer
		}{
			"not trusted":  {serve(other.Server("receiver").TLS()), secured()},
			"another name": {serve(ca.Server("elsewhere").TLS()), secured()},
			"not TLS":      {func(p *peer) { p.Read(make([]byte, 4096)); io.WriteString(p, "Welcome") }, secured()},
		} {
			n := newNetwork(t)
			n.up(tt.serve)
			states := make(chan string, 9)
			c := newClient(t, n, &mllp.Client{Dialer: tt.dialer, Observe: func(e mllp.Event) {
				if e.Kind == mllp.EventHealth {
					states <- e.Detail
				}
			}})
			deadline := time.Now().Add(10 * time.Minute)
			for time.Now().Before(deadline) { // a caller that does not care
				_, err := c.Send(t.Context(), adt("M1"))
				require.ErrorIs(t, err, mllp.ErrUnreachable, name)
				require.False(t, failed(t, err, mllp.NotSent).Retryable(), name)
				time.Sleep(100 * time.Millisecond)
			}
			for _, gap := range n.gaps() {
				assert.GreaterOrEqual(t, gap, 15*time.Second, name)
				assert.LessOrEqual(t, gap, 30*time.Second+100*time.Millisecond, name)
			}
			assert.Equal(t, mllp.StateFaulty, c.Health().State, name)
			failed(t, c.Health().Err, mllp.NotSent)
			c.Close()
			assert.Equal(t, "faulty", <-states)
			assert.Equal(t, "closed", <-states)
			assert.Empty(t, states, "each change is told once")
		}
	})
}

func TestAfterAFailureOneConnectionIsTriedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		dialing, most, dials := 0, 0, 0
		c := &mllp.Client{Addr: "receiver:2575", Conns: 4, Dialer: &mllp.Dialer{NetDialer: dialFunc(func(ctx context.Context) (net.Conn, error) {
			mu.Lock()
			if dials++; dials > 4 { // the first of each lane, when nothing was known
				dialing++
				most = max(most, dialing)
				defer func() {
					mu.Lock()
					dialing--
					mu.Unlock()
				}()
			}
			mu.Unlock()
			<-ctx.Done() // it hangs
			return nil, ctx.Err()
		})}}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var results []<-chan sent
		for range 4 {
			results = append(results, post(ctx, c, "M"))
		}
		for _, ch := range results {
			failed(t, (<-ch).err, mllp.NotSent)
		}
		assert.Equal(t, 1, most)
		assert.Greater(t, dials, 4+20)
	})
}

func TestAnUnknownHostIsAFaultByPolicy(t *testing.T) {
	for faulty, state := range map[bool]mllp.State{false: mllp.StateFailing, true: mllp.StateFaulty} {
		synctest.Test(t, func(t *testing.T) {
			c := &mllp.Client{
				Addr: "nowhere:2575", UnknownHostIsFaulty: faulty, MaxAttempts: 5,
				Dialer: &mllp.Dialer{NetDialer: dialFunc(func(context.Context) (net.Conn, error) {
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "nowhere", IsNotFound: true}}
				})},
			}
			defer c.Close()
			_, err := c.Send(t.Context(), adt("M1"))
			assert.Equal(t, !faulty, failed(t, err, mllp.NotSent).Retryable())
			assert.Equal(t, state, c.Health().State)
		})
	}
}
