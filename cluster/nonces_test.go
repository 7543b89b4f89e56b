package cluster

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A machine whose clock jumps cannot be made in a bubble of testing/synctest, so
// this test gives the clock and the time that has really passed apart.
func TestNoJumpOfTheClockMakesANonceFreshAgain(t *testing.T) {
	const window = 5 * time.Minute
	for name, jumps := range map[string][]struct{ clock, elapsed time.Duration }{
		// The clock, from the true time, after so long.
		"forward for a moment, and back":   {{time.Hour, time.Second}, {0, 2 * time.Second}, {0, time.Minute}},
		"forward for long, and back":       {{time.Hour, time.Second}, {time.Hour, 20 * time.Minute}, {-20 * time.Minute, 20*time.Minute + time.Second}},
		"back, and to the right time":      {{-time.Hour, time.Second}, {0, 2 * time.Second}},
		"back by as much as has passed":    {{0, 11 * time.Minute}, {-11 * time.Minute, 11*time.Minute + 1}},
		"back after a year":                {{0, 365 * 24 * time.Hour}, {-365 * 24 * time.Hour, 365*24*time.Hour + 1}},
		"forward and back again and again": {{time.Hour, 1}, {0, 2}, {time.Hour, 3}, {0, 4}, {24 * time.Hour, 5}, {0, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(1000, window)
			first := &signature{nonce: newNonce(), millis: m.start.UnixMilli()}
			fresh, err := m.useAt(first, m.start.UnixMilli(), 0)
			require.NoError(t, err)
			require.True(t, fresh)
			for _, j := range jumps {
				now := m.start.Add(j.elapsed + j.clock).UnixMilli()
				_, err := m.useAt(&signature{nonce: newNonce(), millis: now}, now, j.elapsed) // any traffic
				if err != nil {
					assert.ErrorIs(t, err, errTooEarly)
				}
				// Whether it is in the window is asked elsewhere.
				fresh, err := m.useAt(first, now, j.elapsed)
				assert.NoError(t, err)
				assert.False(t, fresh, "at %v", j)
			}
		})
	}
}

func TestAShortJumpOfTheClockShutsNobodyOut(t *testing.T) {
	m := newMemory(1000, 5*time.Minute)
	for i, clock := range []time.Duration{0, 0, time.Hour, 0, 0} {
		elapsed := time.Duration(i) * time.Millisecond
		now := m.start.Add(elapsed + clock).UnixMilli()
		fresh, err := m.useAt(&signature{nonce: newNonce(), millis: now}, now, elapsed)
		require.NoError(t, err)
		assert.True(t, fresh, "after %v", elapsed)
	}
}

func TestAClockThatWasWrongAtTheStartDoesNotShutRequestsOutForLong(t *testing.T) {
	const window = 5 * time.Minute
	m := newMemory(1000, window)
	for _, test := range []struct {
		elapsed time.Duration
		passes  bool
	}{{time.Second, false}, {2 * window, false}, {2*window + time.Second, true}} {
		now := m.start.Add(test.elapsed - time.Hour).UnixMilli() // the clock was an hour ahead
		fresh, err := m.useAt(&signature{nonce: newNonce(), millis: now}, now, test.elapsed)
		assert.Equal(t, test.passes, fresh)
		assert.Equal(t, test.passes, err == nil)
	}
}

func TestMemoryOfNoncesStaysFlat(t *testing.T) {
	const window, perSecond = 5 * time.Minute, 20
	m := newMemory(1<<20, window)
	most := 0
	for second := range 3600 {
		elapsed := time.Duration(second) * time.Second
		now := m.start.Add(elapsed).UnixMilli()
		for range perSecond {
			fresh, err := m.useAt(&signature{nonce: newNonce(), millis: now}, now, elapsed)
			require.NoError(t, err)
			require.True(t, fresh)
		}
		most = max(most, m.count)
	}
	// The window, a portion begun, and one not yet out of it.
	assert.LessOrEqual(t, most, 300*perSecond*(portionsInWindow+2)/portionsInWindow)
	assert.LessOrEqual(t, len(m.portions), portionsInWindow+2)
}

func TestANonceTakesFortyBytesAtMost(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	const nonces = defaultNonces / 8
	before := heap()
	m := newMemory(nonces, 5*time.Minute)
	for i := range nonces {
		elapsed := time.Duration(i) * 5 * time.Minute / nonces
		now := m.start.Add(elapsed).UnixMilli()
		fresh, err := m.useAt(&signature{nonce: newNonce(), millis: now}, now, elapsed)
		if err != nil || !fresh {
			t.Fatal(fresh, err)
		}
	}
	used := heap() - before
	runtime.KeepAlive(m)
	t.Logf("%d bytes each", used/nonces)
	assert.Less(t, used, uint64(40*nonces))
}
