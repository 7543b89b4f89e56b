package storetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

func skip(t *testing.T, f *fixture) {
	ctx := t.Context()
	for _, id := range []string{"1", "2", "3"} {
		f.intake("c", id, "d", "e")
	}
	next := time.Now().Add(time.Minute)
	first := f.pending("c", "d")[0]
	before := first.Seq
	require.NoError(t, f.Skip(ctx, &first, next, true, "AR"))
	second := f.pending("c", "d")[0]
	require.NoError(t, f.Skip(ctx, &second, next, false, "AR"))
	f.intake("c", "4", "d")

	list := f.pending("c", "d")
	assert.Equal(t, []string{"3", "4", "1", "2"}, controlIDs(list), "also after what came in later")
	assert.Equal(t, []store.Delivery{first, second}, list[2:], "the callers' copies are up to date")
	assert.True(t, first.Skipped && first.MaybeSent && !second.MaybeSent && !list[0].Skipped)
	assert.Equal(t, 1, first.Attempts)
	assert.Equal(t, "AR", first.LastError)
	assert.True(t, next.Equal(first.NextAt))
	assert.Greater(t, first.Seq, before)
	assert.Less(t, second.Seq, int64(1<<53), "it is exact in JSON")
	assert.Len(t, f.pending("c", "e"), 3)
	assert.Equal(t, int64(4), f.stats("c").Destinations[0].Queued)
	f.agree("c")

	f.reopen()
	f.intake("c", "5", "d")
	assert.Equal(t, []string{"3", "4", "5", "1", "2"}, controlIDs(f.pending("c", "d")))
	require.NoError(t, f.Skip(ctx, &first, next, false, "AR"))
	list = f.pending("c", "d")
	assert.Equal(t, []string{"3", "4", "5", "2", "1"}, controlIDs(list), "the last of those that are skipped")
	assert.Equal(t, 2, list[4].Attempts)

	require.NoError(t, f.Delivered(ctx, &list[4]))
	require.NoError(t, f.DeadLetter(ctx, &list[3], false, "AR"))
	_, err := f.Requeue(ctx, list[3].Seq)
	require.NoError(t, err)
	f.reopen() // what was numbered last was one that was skipped
	f.intake("c", "6", "d")
	list = f.pending("c", "d")
	assert.Equal(t, []string{"3", "4", "5", "2", "6"}, controlIDs(list))
	assert.False(t, list[3].Skipped)
	f.agree("c")
}

func remember(t *testing.T, f *fixture) {
	ctx, key := t.Context(), store.Once{Key: []byte("k"), For: time.Hour}
	recall := func(channel, key string) string {
		t.Helper()
		value, err := f.Recall(ctx, channel, []byte(key))
		require.NoError(t, err)
		return string(value)
	}
	require.NoError(t, f.Remember(ctx, "c", key, []byte("first")))
	require.NoError(t, f.Remember(ctx, "other", key, []byte("another's")))
	require.NoError(t, f.Remember(ctx, "c", key, []byte("second")))
	require.NoError(t, f.Remember(ctx, "c", store.Once{Key: []byte("brief"), For: time.Nanosecond}, []byte("gone")))
	f.reopen()
	assert.Equal(t, "second", recall("c", "k"))
	assert.Equal(t, "another's", recall("other", "k"))
	for _, nothing := range [][2]string{{"c", "brief"}, {"c", "x"}, {"nobody", "k"}} {
		assert.Empty(t, recall(nothing[0], nothing[1]))
	}
	assert.Zero(t, f.stats("c").Received, "it is no message")

	for name, bad := range map[string]store.Once{"no key": {For: 1}, "a long key": {Key: make([]byte, 65), For: 1}, "no time": {Key: key.Key}} {
		require.ErrorIs(t, f.Remember(ctx, "c", bad, nil), store.ErrInvalid, name)
	}
	require.ErrorIs(t, f.Remember(ctx, "", key, nil), store.ErrInvalid)
	require.ErrorIs(t, f.Remember(ctx, "c", key, make([]byte, 1<<17)), store.ErrInvalid)
}
