package retention_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/examples/engine/internal/retention"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const day = 24 * time.Hour

// shelf is a store that notes what it is asked to remove.
type shelf struct {
	left  map[string]int // calls that each channel's pass takes
	work  time.Duration  // that one takes
	fail  error
	calls []string
}

func (s *shelf) Channels(context.Context) ([]string, error) {
	return []string{"a", "b", "kept"}, s.fail
}

func (s *shelf) Prune(_ context.Context, channel string, p store.Pruning) (store.Pruned, error) {
	age := func(t time.Time) time.Duration {
		if t.IsZero() {
			return 0
		}
		return time.Since(t).Round(time.Hour)
	}
	s.calls = append(s.calls, fmt.Sprintf("%s %v %v after %d", channel, age(p.Before), age(p.DeadBefore), p.After))
	time.Sleep(s.work)
	if s.fail != nil {
		return store.Pruned{}, s.fail
	}
	if p.After >= int64(s.left[channel]) {
		return store.Pruned{}, nil
	}
	return store.Pruned{Messages: 10, Next: p.After + 1}, nil
}

func limits(channel string) retention.Limits {
	return map[string]retention.Limits{
		"a": {Messages: 30 * day, DeadLetters: 90 * day}, "b": {Messages: day}, "kept": {DeadLetters: day},
	}[channel]
}

// keeping runs a Keeper on s for so long, and returns its log.
func keeping(s *shelf, long time.Duration) string {
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	k := &retention.Keeper{Store: s, Limits: limits, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	time.Sleep(long)
	synctest.Wait()
	cancel()
	<-done
	return log.String()
}

func TestEachChannelIsPrunedByItsOwnLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{left: map[string]int{"a": 2}}
		assert.Empty(t, keeping(s, time.Minute-1), "a start is not disturbed")
		assert.Empty(t, s.calls)
		log := keeping(s, 2*time.Minute)
		assert.Equal(t, []string{
			"a 720h0m0s 2160h0m0s after 0", "a 720h0m0s 2160h0m0s after 1", "a 720h0m0s 2160h0m0s after 2", "b 24h0m0s 0s after 0",
		}, s.calls)
		assert.Contains(t, log, `msg="old messages removed" channel=a messages=20`)
		assert.NotContains(t, log, "channel=b", "nothing was removed there")
		before := len(s.calls)
		keeping(s, 24*time.Hour)
		assert.Len(t, s.calls, 5*before, "four times a day, and at the start")
	})
}

func TestPruningLeavesTheStoreThreeQuartersOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{left: map[string]int{"a": 1000}, work: 10 * time.Millisecond}
		keeping(s, time.Minute+4*time.Second)
		assert.InDelta(t, 100, len(s.calls), 2)
	})
}

func TestAStoreThatIsNotWellIsTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{fail: errors.New("disk full")}
		log := keeping(s, 2*time.Minute)
		assert.Contains(t, log, "disk full")
		assert.Len(t, s.calls, 2, "one for each channel, and no more")
		keeping(s, 7*time.Hour)
		assert.Len(t, s.calls, 6)
	})
}
