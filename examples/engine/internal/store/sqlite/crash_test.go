package sqlite_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

func TestWhatWasAcknowledgedIsThereAfterKill9UnderLoad(t *testing.T) {
	dir := t.TempDir()
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	var acks, gone []string
	for range rounds {
		c := start(t, "load", dir, sqlite.SynchronousFull)
		c.waitFor(t, acknowledged, 50+rand.IntN(400))
		c.kill(t)
		acks, gone = append(acks, c.said(acknowledged)...), append(gone, c.said(sent)...)

		st := reopened(t, dir)
		assert.Empty(t, missing(acks, everyone(t, st, quiet)))
		waiting := everyone(t, st, drained)
		assert.Empty(t, missing(acks, append(slices.Clone(gone), waiting...)))
		assertOnlyHeadMaybeSent(t, st, gone)
		assertStatsAddUp(t, st)
		require.NoError(t, st.Close())
	}
	require.Greater(t, len(acks), 50*rounds)
}

// The control: a child that acknowledges before the commit is found out.
func TestAnAcknowledgementBeforeTheCommitIsFoundMissingAfterKill9(t *testing.T) {
	dir := t.TempDir()
	var acks []string
	for range 20 {
		c := start(t, "load-lying", dir, sqlite.SynchronousFull)
		c.waitFor(t, acknowledged, 60)
		c.kill(t)
		acks = append(acks, c.said(acknowledged)...)
		st := reopened(t, dir)
		lost := missing(acks, everyone(t, st, quiet))
		require.NoError(t, st.Close())
		if len(lost) > 0 {
			return
		}
	}
	assert.Fail(t, "twenty kills, and no lie was found out")
}

func reopened(t *testing.T, dir string) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), dir, noReserve)
	require.NoError(t, err)
	return st
}

// queue returns all of a queue of channel c.
func queue(t *testing.T, st store.Store, destination string) []store.Delivery {
	t.Helper()
	var all []store.Delivery
	for after := int64(0); ; {
		list, err := st.Pending(context.Background(), "c", destination, after, 500)
		require.NoError(t, err)
		if len(list) == 0 {
			return all
		}
		after = list[len(list)-1].Seq
		all = append(all, list...)
	}
}

// everyone returns the control ids in a queue.
func everyone(t *testing.T, st store.Store, destination string) []string {
	t.Helper()
	var ids []string
	for _, d := range queue(t, st, destination) {
		ids = append(ids, d.Message.ControlID)
	}
	return ids
}

// missing returns those of want that got lacks.
func missing(want, got []string) []string {
	there := make(map[string]bool, len(got))
	for _, id := range got {
		there[id] = true
	}
	return slices.DeleteFunc(slices.Clone(want), func(id string) bool { return there[id] })
}

// assertOnlyHeadMaybeSent checks what recovery marked: the heads, and that none
// that was sent already waits unmarked.
func assertOnlyHeadMaybeSent(t *testing.T, st store.Store, gone []string) {
	t.Helper()
	for _, destination := range []string{drained, quiet} {
		for i, d := range queue(t, st, destination) {
			assert.Equal(t, i == 0, d.MaybeSent, "%s, %d", destination, i)
			if destination == drained && slices.Contains(gone, d.Message.ControlID) {
				assert.True(t, d.MaybeSent, "%s was sent before the crash", d.Message.ControlID)
			}
		}
	}
}

func assertStatsAddUp(t *testing.T, st store.Store) {
	t.Helper()
	stats, err := st.Stats(context.Background(), "c")
	require.NoError(t, err)
	assert.Equal(t, 2*stats.Received, stats.Sent+stats.Queued+stats.Error)
	for _, d := range stats.Destinations {
		assert.Equal(t, stats.Received, d.Received)
		assert.Len(t, queue(t, st, d.Name), int(d.Queued))
		// What each message says of itself agrees with the counters.
		for state, want := range map[store.State]int64{store.Queued: d.Queued, store.Sent: d.Sent, store.Dead: d.Error} {
			n, err := st.Count(context.Background(), "c", store.Filter{State: state, Destination: d.Name})
			assert.NoError(t, err)
			assert.Equal(t, want, n, "%s, %d", d.Name, state)
		}
	}
	all, err := st.Count(context.Background(), "c", store.Filter{})
	require.NoError(t, err)
	assert.Equal(t, stats.Received, all)
}

// The first of those that were skipped may have been the head when the process died:
// others that came in meanwhile go before it.
func TestAfterAKillTheFirstOfWhatWasSkippedMayHaveBeenSent(t *testing.T) {
	dir := t.TempDir()
	c := start(t, "skip", dir, sqlite.SynchronousFull)
	c.waitFor(t, childDone, 1)
	assert.Empty(t, c.said(refused))
	c.kill(t)
	st := reopened(t, dir)
	defer st.Close()
	var marked []string
	for _, d := range queue(t, st, drained) {
		if d.MaybeSent {
			marked = append(marked, d.Message.ControlID)
		}
	}
	assert.Equal(t, []string{"2", "0"}, marked)
	assertStatsAddUp(t, st)
}
