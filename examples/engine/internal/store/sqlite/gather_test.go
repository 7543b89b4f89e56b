package sqlite

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A commit waits for the callers that the last one has answered, while they come,
// and for nobody else.
func TestLinger(t *testing.T) {
	const commit = 8 * time.Millisecond // a part is 2 ms
	for name, test := range map[string]struct {
		callers int
		first   int             // requests that are here
		later   []time.Duration // when more come
		closing time.Duration   // when the store is closed; 0: not
		commit  time.Duration   // how long one took; 0: as above
		waits   time.Duration
	}{
		"a single caller":             {callers: 1, first: 1},
		"nobody was answered":         {callers: 0, first: 1},
		"nobody waits":                {callers: 5, first: 0},
		"all are here":                {callers: 3, first: 3},
		"the others come":             {callers: 3, first: 1, later: []time.Duration{time.Millisecond, 3 * time.Millisecond}, waits: 3 * time.Millisecond},
		"nobody comes":                {callers: 3, first: 1, waits: commit / lingerPart},
		"some come":                   {callers: 9, first: 1, later: []time.Duration{time.Millisecond, 3 * time.Millisecond}, waits: 3 * commit / lingerPart},
		"they trickle":                {callers: 99, first: 1, later: every(time.Millisecond, 50), waits: commit},
		"the store is closed":         {callers: 3, first: 1, closing: time.Millisecond, waits: time.Millisecond},
		"a sync took long":            {callers: 99, first: 1, later: every(time.Millisecond, 50), commit: time.Minute, waits: lingerLimit},
		"more callers than one group": {callers: 2 * groupRequests, first: groupRequests},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Store{inbox: inbox{arrived: make(chan struct{}, 1)}, closing: make(chan struct{})}
				w := writer{store: s, callers: test.callers, commitTime: commit}
				if test.commit != 0 {
					w.commitTime = test.commit
				}
				for range test.first {
					s.inbox.put(new(request))
				}
				for _, after := range test.later {
					time.AfterFunc(after, func() { s.inbox.put(new(request)) })
				}
				if test.closing != 0 {
					time.AfterFunc(test.closing, func() { close(s.closing) })
				}
				begin := time.Now()
				w.linger()
				require.Equal(t, test.waits, time.Since(begin))

				// Afterwards a single request wakes the writer again.
				s.inbox.take(nil)
				time.Sleep(time.Minute) // and synctest.Wait, for what is still to come
				synctest.Wait()
				s.inbox.take(nil)
				select {
				case <-s.inbox.arrived:
				default:
				}
				s.inbox.put(new(request))
				require.Len(t, s.inbox.arrived, 1)
			})
		})
	}
}

// every returns n times at such a distance.
func every(distance time.Duration, n int) []time.Duration {
	times := make([]time.Duration, n)
	for i := range times {
		times[i] = time.Duration(i+1)*distance - distance/2
	}
	return times
}
