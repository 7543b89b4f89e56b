package mllp_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

func TestConnAndServerAgreeOnEveryControlID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memnet.Listen()
		srv := &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ctx, ln) }()
		c, err := (&mllp.Dialer{NetDialer: ln}).DialContext(t.Context(), "tcp", "receiver:2575")
		require.NoError(t, err)
		for _, msg := range []string{
			string(adt("a^b&c~d")), string(adt(`\F\\X0D\`)), string(adt(strings.Repeat("9", 199))), string(adt("\xC4\xFF")), string(adt(" ")),
			strings.ReplaceAll(string(adt("lf")), "\r", "\n"), "\xEF\xBB\xBF" + string(adt("bom")),
			"MSH#~!%@$#A#B#C#D###ADT~A01#7^|1#P#2.7\r", "MSH|^~\\&|||||||ADT|1|P|2.1\r", "MSH|^~\\&|||||||ADT|1\r",
		} {
			reply, err := c.Send(t.Context(), []byte(msg))
			if assert.NoError(t, err, "%q", msg) {
				assert.Equal(t, mllp.AA, reply.Ack.Code)
			}
		}
		require.NoError(t, c.Close())
		stop()
		require.ErrorIs(t, <-served, mllp.ErrServerClosed)
	})
}

// TestOutcomesAreTrueWhenTheServerGoesAway has senders whose receiver is stopped
// in the middle of it, in many ways. What was acknowledged must have been
// handled, what was not sent must not.
func TestOutcomesAreTrueWhenTheServerGoesAway(t *testing.T) {
	seen := map[mllp.Outcome]int{}
	for round := range 100 {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(round)))
			ln := memnet.Listen()
			var mu sync.Mutex
			handled, outcomes := map[string]bool{}, map[string]mllp.Outcome{}
			srv := &mllp.Server{
				DrainTimeout: time.Duration(rng.IntN(20)) * time.Millisecond,
				Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
					time.Sleep(time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					handled[string(r.Header.ControlID)] = true
					return nil, nil
				}),
			}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(context.Background(), ln) }()
			var senders sync.WaitGroup
			for s := range 3 {
				c, err := (&mllp.Dialer{NetDialer: ln, Window: 1 + s}).DialContext(t.Context(), "tcp", "receiver:2575")
				require.NoError(t, err)
				defer c.Close()
				for n := range 6 {
					pause := time.Duration(rng.IntN(10)) * time.Millisecond
					size := rng.IntN(2) * 80 << 10
					senders.Go(func() {
						time.Sleep(pause)
						id := fmt.Sprintf("%d-%d", s, n)
						_, err := c.Send(t.Context(), append(adt(id), make([]byte, size)...))
						outcome := mllp.Acked
						if e, ok := errors.AsType[*mllp.SendError](err); ok {
							outcome = e.Outcome
						}
						mu.Lock()
						defer mu.Unlock()
						outcomes[id] = outcome
					})
				}
			}
			time.Sleep(time.Duration(rng.IntN(12000)) * time.Microsecond)
			if rng.IntN(2) == 0 {
				srv.Close()
			} else {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(10))*time.Millisecond)
				srv.Shutdown(ctx)
				cancel()
				srv.Close()
			}
			senders.Wait()
			<-served
			for id, outcome := range outcomes {
				seen[outcome]++
				switch outcome {
				case mllp.Acked:
					assert.True(t, handled[id], "%s was acknowledged, but not handled", id)
				case mllp.NotSent, mllp.Nacked:
					assert.False(t, handled[id], "%s was %v, but handled", id, outcome)
				case mllp.Unknown, mllp.Sent:
				}
			}
		})
	}
	for _, outcome := range []mllp.Outcome{mllp.Acked, mllp.NotSent, mllp.Unknown} {
		assert.Positive(t, seen[outcome], "the test never met %v", outcome)
	}
}
