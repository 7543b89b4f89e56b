package sqlite_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

var pruneMessages = flag.Int("prune-messages", 2000, "how many messages the test of pruning under load prunes")

const said = "removed" // by the child that prunes, with how many it has

// pruning takes in from 10 callers, delivers to one of two destinations that there
// may be, and prunes what is done, until it is killed.
func pruning() {
	st := openAsChild()
	ctx := context.Background()
	var number atomic.Int64
	for range 10 {
		go func() {
			for {
				n := number.Add(1)
				id := fmt.Sprintf("%d-%d", os.Getpid(), n)
				destinations := []string{drained}
				if n%10 == 0 {
					destinations = append(destinations, quiet)
				}
				_, err := st.Intake(ctx, store.Intake{Channel: "c", ControlID: id, Raw: make([]byte, rand.IntN(9000)), Destinations: destinations})
				if err == nil {
					say(acknowledged, id)
				}
			}
		}()
	}
	go func() {
		for {
			list, _ := st.Pending(ctx, "c", drained, 0, 8)
			for i := range list {
				say(sent, list[i].Message.ControlID)
				_ = st.Delivered(ctx, &list[i])
			}
		}
	}()
	p := store.Pruning{Before: time.Now().Add(24 * time.Hour)}
	for {
		done, err := st.Prune(ctx, "c", p)
		if err != nil {
			say(refused, err)
		}
		say(said, done.Messages)
		p.After = done.Next
	}
}

func TestKillingAPruneLeavesWholeMessagesOrNone(t *testing.T) {
	dir := t.TempDir()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	var acks, gone []string
	var last int64
	for range rounds {
		c := start(t, "prune", dir, sqlite.SynchronousFull)
		c.waitFor(t, acknowledged, 200+rand.IntN(200))
		c.waitFor(t, said, 5+rand.IntN(40))
		c.kill(t)
		assert.Empty(t, c.said(refused))
		acks, gone = append(acks, c.said(acknowledged)...), append(gone, c.said(sent)...)

		db := beside(t, dir)
		for what, query := range map[string]string{
			"queued": "SELECT count(*) FROM queued WHERE message NOT IN (SELECT id FROM message)",
			"done":   "SELECT count(*) FROM done WHERE message NOT IN (SELECT id FROM message)",
			"removed although it waited": `SELECT count(*) FROM message m LEFT JOIN (
				SELECT message, count(*) AS n FROM (SELECT message FROM done UNION ALL SELECT message FROM queued) GROUP BY message
				) d ON d.message = m.id WHERE m.deliveries <> coalesce(d.n, 0)`,
		} {
			assert.Zero(t, number(t, db, query), what)
		}
		assert.Zero(t, number(t, db, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"))
		require.NoError(t, db.Close())

		st := reopened(t, dir)
		stats, err := st.Stats(t.Context(), "c")
		require.NoError(t, err)
		assert.GreaterOrEqual(t, stats.Received, int64(len(acks)), "also of those that are gone")
		kept, err := st.Find(t.Context(), "c", store.Filter{}, 0, len(acks)+1000)
		require.NoError(t, err)
		assert.Less(t, len(kept), int(stats.Received), "some were pruned")
		there := make([]string, len(kept))
		for i := range kept {
			there[i] = kept[i].ControlID
		}
		assert.Empty(t, missing(acks, append(there, gone...)), "what was not sent is there")
		id, err := st.Intake(t.Context(), store.Intake{Channel: "c", Destinations: []string{drained}})
		require.NoError(t, err)
		assert.Greater(t, id, last)
		last = max(id, stats.Received)
		assert.GreaterOrEqual(t, id, stats.Received, "no number twice")
		require.NoError(t, st.Close())
	}
}

// Row 22. What a person waits for is measured and shown; the limit is wide, as other
// programs share the machine.
func TestPruningDoesNotHoldUpIntake(t *testing.T) {
	dir := t.TempDir()
	st := reopened(t, dir)
	require.NoError(t, intake(st, "of its schema"))
	require.NoError(t, st.Close())
	_, err := beside(t, dir).ExecContext(t.Context(), `
		WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= ?1)
		INSERT INTO message (id, channel, received, control_id, raw, first_seq, deliveries)
			SELECT i, 1, i, CAST(i AS BLOB), randomblob(1024), 2 * i - 1, 2 FROM n;
		INSERT INTO done SELECT first_seq, 2, id, 1, 0, 0, '', received FROM message WHERE id > 1
			UNION ALL SELECT first_seq + 1, 3, id, 1, 0, 0, '', received FROM message WHERE id > 1`, *pruneMessages)
	require.NoError(t, err)

	st = reopened(t, dir)
	defer st.Close()
	longest := func(until <-chan struct{}) (time.Duration, int) {
		const callers = 8
		var wg sync.WaitGroup
		var worst [callers]time.Duration
		var n atomic.Int64
		for c := range callers {
			wg.Go(func() {
				for {
					begun := time.Now()
					if !assert.NoError(t, intake(st, "of now")) {
						return
					}
					worst[c] = max(worst[c], time.Since(begun))
					n.Add(1)
					select {
					case <-until:
						return
					default:
					}
				}
			})
		}
		wg.Wait()
		most := time.Duration(0)
		for _, d := range worst {
			most = max(most, d)
		}
		return most, int(n.Load())
	}

	pruned := make(chan struct{})
	removed, calls, most := 0, 0, 0
	begun := time.Now()
	go func() {
		defer close(pruned)
		for p := (store.Pruning{Before: time.Unix(1000, 0)}); ; {
			at := time.Now()
			done, err := st.Prune(context.Background(), "c", p)
			if !assert.NoError(t, err) {
				return
			}
			removed, calls, most = removed+done.Messages, calls+1, max(most, done.Messages)
			if p.After = done.Next; done.Next == 0 {
				return
			}
			time.Sleep(time.Since(at)) // as package retention does
		}
	}()
	with, n := longest(pruned)
	took := time.Since(begun)
	alone := make(chan struct{})
	time.AfterFunc(min(took, 20*time.Second), func() { close(alone) })
	without, _ := longest(alone)
	t.Logf("%d messages pruned in %v, %d at most in one of %d calls; %d messages taken in meanwhile; longest intake %v, without pruning %v",
		removed, took.Round(time.Millisecond), most, calls, n, with, without)
	assert.Equal(t, *pruneMessages, removed)
	assert.LessOrEqual(t, most, 64)
	assert.Less(t, with, 10*time.Second)
	left, err := st.Count(t.Context(), "c", store.Filter{})
	require.NoError(t, err)
	assert.GreaterOrEqual(t, left, int64(n+1), "nothing else was removed")
}

func TestPrunedPagesAreUsedAgain(t *testing.T) {
	dir := t.TempDir()
	st := reopened(t, dir)
	defer st.Close()
	size := func() int64 {
		return number(t, beside(t, dir), "PRAGMA page_count") // also of what is in the log
	}
	round := func() {
		for i := range 40 {
			_, err := st.Intake(t.Context(), store.Intake{Channel: "c", ControlID: fmt.Sprint(i), Raw: make([]byte, 100_000), Destinations: []string{drained}})
			require.NoError(t, err)
		}
		for _, d := range queue(t, st, drained) {
			require.NoError(t, st.Delivered(t.Context(), &d))
		}
	}
	pruneAll := func() {
		for p := (store.Pruning{Before: time.Now().Add(time.Hour)}); ; {
			done, err := st.Prune(t.Context(), "c", p)
			require.NoError(t, err)
			assert.LessOrEqual(t, done.Messages, 21, "no more than 2 MiB at once")
			if p.After = done.Next; done.Next == 0 {
				return
			}
		}
	}
	round()
	full := size()
	for range 3 {
		pruneAll()
		assert.Equal(t, full, size(), "the file does not shrink")
		round()
		assert.InDelta(t, full, size(), 10, "nor does it grow")
	}
}
