package mllp_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

func TestMessagesArriveInTheOrderOfTheirCalls(t *testing.T) {
	for _, window := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t)
			c := newClient(t, n, &mllp.Client{Dialer: &mllp.Dialer{Window: window}})
			var want, order []string
			var results []<-chan sent
			for i := range 50 { // while nobody listens
				want = append(want, fmt.Sprint(i))
				results = append(results, post(t.Context(), c, want[i]))
			}
			n.up(func(p *peer) {
				p.serve(func(id string) string {
					order = append(order, id)
					return answer(mllp.AA, id)
				})
			})
			for _, ch := range results {
				require.NoError(t, (<-ch).err)
			}
			assert.Equal(t, want, order)
		})
	}
}

func TestALostWindowIsUnknownAndWhatWasBehindItGoesOnInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var seen []string
		n.up(func(p *peer) {
			for range 4 {
				id, _ := p.receive()
				seen = append(seen, id)
			}
		})
		c := newClient(t, n, &mllp.Client{Dialer: &mllp.Dialer{Window: 4}})
		first := post(t.Context(), c, "A")
		n.down() // after the first connection
		n.up(func(p *peer) {
			p.serve(func(id string) string {
				seen = append(seen, id)
				return answer(mllp.AA, id)
			})
		})
		results := []<-chan sent{first}
		for _, id := range []string{"B", "C", "D", "E", "F", "G"} {
			results = append(results, post(t.Context(), c, id))
		}
		for i, ch := range results {
			s := <-ch
			if i < 4 {
				failed(t, s.err, mllp.Unknown)
				continue
			}
			require.NoError(t, s.err)
		}
		assert.Equal(t, []string{"A", "B", "C", "D", "E", "F", "G"}, seen, "nothing was sent twice")
	})
}

func TestWithSeveralWindowsAMessageTakesTheFirstRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		pauses := make(chan time.Duration, 2)
		pauses <- 10 * time.Second
		pauses <- time.Second
		n.up(func(p *peer) {
			pause := <-pauses
			p.serve(func(id string) string {
				time.Sleep(pause)
				return answer(mllp.AA, id)
			})
		})
		c := newClient(t, n, &mllp.Client{Conns: 2, Dialer: &mllp.Dialer{Window: 2}})
		var results []<-chan sent
		for _, id := range []string{"A", "B", "C", "D", "E"} {
			results = append(results, post(t.Context(), c, id))
		}
		for i, took := range []time.Duration{10 * time.Second, time.Second, 20 * time.Second, 2 * time.Second, 3 * time.Second} {
			s := <-results[i]
			require.NoError(t, s.err)
			assert.Equal(t, took, s.took)
		}
	})
}

func TestAMessageThatIsCancelledWhileItWaitsLetsTheNextOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var order []string
		n.up(func(p *peer) {
			p.serve(func(id string) string {
				order = append(order, id)
				time.Sleep(time.Second)
				return answer(mllp.AA, id)
			})
		})
		c := newClient(t, n, &mllp.Client{})
		reason := errors.New("the channel was stopped")
		ctx, cancel := context.WithCancelCause(t.Context())
		first, second, third := post(t.Context(), c, "A"), post(ctx, c, "B"), post(t.Context(), c, "C")
		cancel(reason)
		s := <-second
		require.ErrorIs(t, s.err, reason)
		failed(t, s.err, mllp.NotSent)
		require.NoError(t, (<-first).err)
		require.NoError(t, (<-third).err)
		assert.Equal(t, []string{"A", "C"}, order)
	})
}

// TestAClientTellsTheTruthWhateverHappens has many messages, contexts that end,
// and a receiver that goes away in many ways. What was acknowledged must have been
// received, what was not sent must not, and nothing may have been received twice.
func TestAClientTellsTheTruthWhateverHappens(t *testing.T) {
	seen := map[mllp.Outcome]int{}
	for round := range 60 {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(2, uint64(round)))
			n := newNetwork(t)
			var mu sync.Mutex
			received, outcomes := map[string]int{}, map[string]mllp.Outcome{}
			moods := make([]uint64, 64)
			for i := range moods {
				moods[i] = rng.Uint64()
			}
			conns := 0
			serve := func(p *peer) {
				mu.Lock()
				mood := rand.New(rand.NewPCG(3, moods[conns%len(moods)]))
				conns++
				mu.Unlock()
				for mood.IntN(8) > 0 {
					if mood.IntN(8) == 0 {
						p.Abort()
						return
					}
					id, ok := p.receive()
					if !ok {
						return
					}
					time.Sleep(time.Duration(mood.IntN(20)) * time.Millisecond)
					mu.Lock()
					received[id]++
					mu.Unlock()
					code := []mllp.AckCode{mllp.AA, mllp.AA, mllp.AR, ""}[mood.IntN(4)]
					if code != "" {
						if _, err := p.Write([]byte(answer(code, id))); err != nil {
							return
						}
					}
				}
			}
			n.up(serve)
			c := newClient(t, n, &mllp.Client{
				Conns: 1 + rng.IntN(3), DialPerMessage: rng.IntN(4) == 0, IdleTimeout: time.Duration(rng.IntN(2)) * 30 * time.Millisecond,
				Dialer: &mllp.Dialer{Timeout: 100 * time.Millisecond},
			})
			if !c.DialPerMessage {
				c.Dialer.Window = 1 + rng.IntN(4)
			}
			var senders sync.WaitGroup
			for i := range 40 {
				pause, patience := time.Duration(rng.IntN(200))*time.Millisecond, time.Duration(rng.IntN(2000))*time.Millisecond
				size := rng.IntN(2) * 80 << 10
				senders.Go(func() {
					time.Sleep(pause)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					id := fmt.Sprint(i)
					_, err := c.Send(ctx, append(adt(id), make([]byte, size)...))
					outcome := mllp.Acked
					if e, ok := errors.AsType[*mllp.SendError](err); ok {
						outcome = e.Outcome
					}
					mu.Lock()
					defer mu.Unlock()
					outcomes[id] = outcome
				})
			}
			time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
			if rng.IntN(3) == 0 {
				n.down()
				time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
				n.up(serve)
			}
			if rng.IntN(3) == 0 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(200))*time.Millisecond)
				_ = c.Shutdown(ctx)
				cancel()
			}
			senders.Wait()
			c.Close()
			n.down()
			n.running.Wait()
			for id, outcome := range outcomes {
				seen[outcome]++
				assert.LessOrEqual(t, received[id], 1, "%s was received more than once, and is %v", id, outcome)
				switch outcome {
				case mllp.Acked, mllp.Nacked:
					assert.Equal(t, 1, received[id], "%s is %v", id, outcome)
				case mllp.NotSent:
					assert.Zero(t, received[id], "%s is %v", id, outcome)
				case mllp.Unknown, mllp.Sent:
				}
			}
		})
	}
	for _, outcome := range []mllp.Outcome{mllp.Acked, mllp.Nacked, mllp.NotSent, mllp.Unknown} {
		assert.Positive(t, seen[outcome], "the test never met %v", outcome)
	}
}

func TestOneGoroutineFillsAWindowInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Window: 3})
		var waits []func() (*mllp.Reply, error)
		for _, id := range []string{"M1", "M2", "M3"} {
			waits = append(waits, c.Start(t.Context(), adt(id)))
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Start(ctx, adt("M4"))() // the window is full
		failed(t, err, mllp.NotSent)
		assert.Equal(t, time.Second, time.Since(began))
		for _, id := range []string{"M1", "M2", "M3"} {
			got, _ := p.receive()
			assert.Equal(t, id, got)
		}
		p.say(answer(mllp.AR, "M3") + answer(mllp.AA, "M1"))
		reply, err := waits[0]()
		require.NoError(t, err)
		assert.Equal(t, "M1", reply.Ack.ControlID)
		_, err = waits[2]()
		failed(t, err, mllp.Nacked)
		p.Close()
		_, err = waits[1]()
		failed(t, err, mllp.Unknown)
	})
}
