package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// prune removes all that p says and returns how many messages that were.
func (f *fixture) prune(channel string, p store.Pruning) int {
	f.t.Helper()
	removed := 0
	for {
		done, err := f.Prune(f.t.Context(), channel, p)
		require.NoError(f.t, err)
		removed += done.Messages
		if done.Next == 0 {
			return removed
		}
		require.Greater(f.t, done.Next, p.After, "it gets on")
		p.After = done.Next
	}
}

// later is when everything is old.
func later() time.Time { return time.Now().Add(time.Hour) }

// deliverAll completes what is queued.
func (f *fixture) deliverAll(channel, destination string) {
	f.t.Helper()
	for list := f.pending(channel, destination); len(list) > 0; list = f.pending(channel, destination) {
		for i := range list {
			require.NoError(f.t, f.Delivered(f.t.Context(), &list[i]))
		}
	}
}

func prune(t *testing.T, f *fixture) {
	assert.Zero(t, f.prune("nobody", store.Pruning{Before: later()}))
	const several = 150 // more than one call removes
	for i := range several {
		f.intake("c", fmt.Sprint(i), "d", "e")
		f.intake("other", fmt.Sprint(i), "d")
	}
	filtered := f.intake("c", "filtered")
	f.deliverAll("c", "d")
	f.deliverAll("c", "e")
	f.deliverAll("other", "d")
	oldest := f.find("c", store.Filter{})[several].Received

	assert.Zero(t, f.prune("c", store.Pruning{}), "the zero value removes nothing")
	assert.Zero(t, f.prune("c", store.Pruning{Before: oldest}), "before, not at")
	assert.Len(t, f.find("c", store.Filter{}), several+1)

	young := f.find("c", store.Filter{})[0].Received
	assert.LessOrEqual(t, f.prune("c", store.Pruning{Before: young}), several)
	assert.Equal(t, filtered, f.find("c", store.Filter{})[0].ID)
	f.prune("c", store.Pruning{Before: later()})
	assert.Empty(t, f.find("c", store.Filter{}))
	_, err := f.Message(t.Context(), "c", filtered)
	require.ErrorIs(t, err, store.ErrNotFound)
	assert.Len(t, f.find("other", store.Filter{}), several, "another channel's")

	channels, err := f.Channels(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"c", "other"}, channels)
}

func pruneDead(t *testing.T, f *fixture) {
	ctx := t.Context()
	for _, id := range []string{"1", "2", "3"} {
		f.intake("c", id, "d", "e")
	}
	f.deliverAll("c", "e")
	list := f.pending("c", "d")
	require.NoError(t, f.Delivered(ctx, &list[0]))
	require.NoError(t, f.DeadLetter(ctx, &list[1], true, "AR"))
	require.NoError(t, f.DeadLetter(ctx, &list[2], true, "AR"))
	set := f.find("c", store.Filter{ControlID: "2"})[0].Deliveries[0].DoneAt

	assert.Equal(t, 1, f.prune("c", store.Pruning{Before: later()}), "without a time for dead letters they stay")
	assert.Equal(t, []string{"2", "3"}, controlIDs(f.deadLetters("c", "d")))
	assert.Zero(t, f.prune("c", store.Pruning{Before: later(), DeadBefore: set}), "set aside before, not at")
	_, err := f.Requeue(ctx, list[2].Seq)
	require.NoError(t, err)
	assert.Equal(t, 1, f.prune("c", store.Pruning{Before: later(), DeadBefore: later()}))
	assert.Empty(t, f.deadLetters("c", "d"))
	assert.Equal(t, []string{"3"}, controlIDs(f.pending("c", "d")), "what was requeued waits")
	_, err = f.Requeue(ctx, list[1].Seq)
	require.ErrorIs(t, err, store.ErrNotFound)

	// Requeued, dead again, requeued again and sent: all of it goes.
	d := f.pending("c", "d")[0]
	require.NoError(t, f.DeadLetter(ctx, &d, true, "AR"))
	assert.Zero(t, f.prune("c", store.Pruning{Before: later()}))
	_, err = f.Requeue(ctx, d.Seq)
	require.NoError(t, err)
	f.deliverAll("c", "d")
	assert.Equal(t, 1, f.prune("c", store.Pruning{Before: later()}))
	assert.Empty(t, f.find("c", store.Filter{}))
}

func pruneNothingQueued(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.intake("c", "1", "d", "e")
	f.intake("c", "2", "d", "e")
	f.deliverAll("c", "e")
	head := f.pending("c", "d")[0]
	require.NoError(t, f.Failed(ctx, &head, time.Now().Add(time.Hour), true, "refused"))
	before := f.find("c", store.Filter{})
	f.reopen()
	assert.Zero(t, f.prune("c", store.Pruning{Before: later(), DeadBefore: later()}))
	assert.Equal(t, before, f.find("c", store.Filter{}), "nor a part of it")
	assert.Equal(t, []string{"1", "2"}, controlIDs(f.pending("c", "d")))
}

func pruneKeepsCounts(t *testing.T, f *fixture) {
	ctx := t.Context()
	again := store.Intake{Channel: "c", Destinations: []string{"d"}, Once: store.Once{Key: []byte("k"), For: time.Hour}}
	first, err := f.Intake(ctx, again)
	require.NoError(t, err)
	for range 4 {
		f.intake("c", "x", "d")
	}
	last := f.intake("c", "filtered")
	list := f.pending("c", "d")
	require.NoError(t, f.DeadLetter(ctx, &list[4], false, "AR"))
	for i := range 4 {
		require.NoError(t, f.Delivered(ctx, &list[i]))
	}
	stats := f.stats("c")
	assert.Equal(t, 6, f.prune("c", store.Pruning{Before: later(), DeadBefore: later()}))
	stats.LastReceived = time.Time{} // of what is kept
	for _, when := range []string{"now", "after a restart"} {
		assert.Equal(t, stats, f.stats("c"), when)
		id, err := f.Intake(ctx, again)
		require.NoError(t, err)
		assert.Equal(t, first, id, "what came once is still known, %s", when)
		f.reopen()
	}
	waiting, err := f.Waiting(ctx)
	require.NoError(t, err)
	assert.Empty(t, waiting)
	assert.ErrorIs(t, f.Delivered(ctx, &list[0]), store.ErrNotFound)
	n, err := f.RequeueAll(ctx, "c", "d", 10)
	require.NoError(t, err)
	assert.Zero(t, n)

	assert.Greater(t, f.intake("c", "new", "d"), last, "no number twice")
	fresh := f.pending("c", "d")
	require.Len(t, fresh, 1)
	assert.Greater(t, fresh[0].Seq, list[4].Seq)
	assert.Equal(t, stats.Received+1, f.stats("c").Received)
}

// pruneUnderLoad takes in, delivers and prunes at once.
func pruneUnderLoad(t *testing.T, f *fixture) {
	const callers, each = 8, 100
	ctx := t.Context()
	var senders, others sync.WaitGroup
	var failed atomic.Pointer[error]
	check := func(err error) {
		if err != nil {
			failed.Store(&err)
		}
	}
	ended := make(chan struct{})
	until := func(work func()) {
		for {
			work()
			select {
			case <-ended:
				return
			default:
			}
		}
	}
	var removed atomic.Int64
	others.Go(func() {
		until(func() {
			list, err := f.Pending(ctx, "c", "d", 0, 16)
			check(err)
			for i := range list {
				check(f.Delivered(ctx, &list[i]))
			}
		})
	})
	others.Go(func() {
		until(func() {
			done, err := f.Prune(ctx, "c", store.Pruning{Before: later()})
			check(err)
			removed.Add(int64(done.Messages))
		})
	})
	for c := range callers {
		senders.Go(func() {
			for i := range each {
				_, err := f.Intake(ctx, store.Intake{Channel: "c", ControlID: fmt.Sprintf("%d-%d", c, i), Destinations: []string{"d", "e"}})
				check(err)
			}
		})
	}
	senders.Wait()
	close(ended)
	others.Wait()
	if err := failed.Load(); err != nil {
		require.NoError(t, *err)
	}
	assert.Zero(t, removed.Load(), "all of it waits for e")
	f.deliverAll("c", "d")
	assert.Len(t, f.pending("c", "e"), callers*each)
	f.deliverAll("c", "e")
	assert.Equal(t, callers*each, f.prune("c", store.Pruning{Before: later()}))
	stats := f.stats("c")
	assert.Equal(t, []int64{callers * each, 2 * callers * each}, []int64{stats.Received, stats.Sent})
}

func sealingKeys(t *testing.T, f *fixture) {
	ctx := t.Context()
	known := func() (ids []string) {
		t.Helper()
		list, err := f.SealingKeys(ctx)
		require.NoError(t, err)
		for _, key := range list {
			assert.Equal(t, "check of "+key.ID, string(key.Check))
			ids = append(ids, key.ID)
		}
		return ids
	}
	use := func(id string) {
		t.Helper()
		key := store.SealingKey{ID: id}
		if id != "" {
			key.Check = []byte("check of " + id)
		}
		require.NoError(t, f.UseSealingKey(ctx, key))
	}
	pruneBefore := func(id int64) {
		t.Helper()
		m, err := f.Message(ctx, "c", id)
		require.NoError(t, err)
		f.prune("c", store.Pruning{Before: m.Received})
	}
	assert.Empty(t, known())
	require.ErrorIs(t, f.UseSealingKey(ctx, store.SealingKey{ID: "a"}), store.ErrInvalid)
	use("a")
	assert.Empty(t, known(), "there is nothing that it could open")
	f.intake("c", "1")
	assert.Equal(t, []string{"a"}, known())
	f.reopen()
	use("a")
	use("b")
	assert.Equal(t, []string{"a", "b"}, known())
	f.intake("c", "2")
	f.reopen()
	use("")
	third := f.intake("c", "3")
	assert.Equal(t, []string{"a", "b"}, known())
	fourth := f.intake("c", "4")
	use("b")
	pruneBefore(third)
	assert.NotContains(t, known(), "a", "its messages are gone")
	pruneBefore(fourth)
	assert.Equal(t, []string{"b"}, known())
	f.prune("c", store.Pruning{Before: later()})
	assert.Empty(t, known())
}
