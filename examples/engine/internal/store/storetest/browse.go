package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

func (f *fixture) find(channel string, filter store.Filter) []store.Summary {
	f.t.Helper()
	list, err := f.Find(f.t.Context(), channel, filter, 0, 1000)
	require.NoError(f.t, err)
	n, err := f.Count(f.t.Context(), channel, filter)
	require.NoError(f.t, err)
	require.Equal(f.t, int64(len(list)), n, "Count agrees with Find")
	return list
}

// found shows messages by their control ids.
func found(list []store.Summary) string {
	var ids []string
	for i := range list {
		ids = append(ids, list[i].ControlID)
	}
	return strings.Join(ids, " ")
}

// states shows a message's deliveries.
func states(m *store.Summary) string {
	var all []string
	for _, o := range m.Deliveries {
		all = append(all, fmt.Sprintf("%s:%d", o.Destination, o.State))
	}
	return strings.Join(all, " ")
}

func findMessages(t *testing.T, f *fixture) {
	ctx := t.Context()
	assert.Empty(t, f.find("c", store.Filter{}))
	for _, id := range []string{"1", "2", "3", "4"} {
		f.intake("c", id, "d", "e")
		f.intake("other", id, "d")
	}
	last := f.intake("c", "5")
	list := f.pending("c", "d")
	require.NoError(t, f.Delivered(ctx, &list[0]))
	require.NoError(t, f.DeadLetter(ctx, &list[1], true, "AR"))
	e := f.pending("c", "e")
	require.NoError(t, f.Delivered(ctx, &e[3]))
	all := f.find("c", store.Filter{})
	for _, tt := range []struct {
		filter store.Filter
		want   string
	}{
		{store.Filter{}, "5 4 3 2 1"},
		{store.Filter{ControlID: "3"}, "3"},
		{store.Filter{ControlID: "' OR 1=1 --"}, ""},
		{store.Filter{MinID: all[2].ID}, "5 4 3"},
		{store.Filter{MaxID: all[2].ID}, "3 2 1"},
		{store.Filter{MinID: last, MaxID: last}, "5"},
		{store.Filter{From: all[4].Received}, "5 4 3 2 1"},
		{store.Filter{To: all[4].Received}, ""},
		{store.Filter{From: time.Now().Add(time.Hour)}, ""},
		{store.Filter{State: store.Queued}, "4 3 2 1"},
		{store.Filter{State: store.Queued, Destination: "d"}, "4 3"},
		{store.Filter{State: store.Sent}, "4 1"},
		{store.Filter{State: store.Sent, Destination: "e"}, "4"},
		{store.Filter{State: store.Dead}, "2"},
		{store.Filter{State: store.Dead, Destination: "e"}, ""},
		{store.Filter{State: store.Filtered}, "5"},
		{store.Filter{State: store.Queued, ControlID: "2", MaxID: last, From: all[4].Received}, "2"},
	} {
		assert.Equal(t, tt.want, found(f.find("c", tt.filter)), "%+v", tt.filter)
	}
	page, err := f.Find(ctx, "c", store.Filter{}, 1, 2)
	require.NoError(t, err)
	assert.Equal(t, "4 3", found(page))
	page, err = f.Find(ctx, "c", store.Filter{State: store.Sent}, 1, 5)
	require.NoError(t, err)
	assert.Equal(t, "1", found(page))
	assert.Empty(t, f.find("nobody", store.Filter{}))
}

func oneMessage(t *testing.T, f *fixture) {
	ctx := t.Context()
	in := store.Intake{
		Channel: "c", ControlID: "\xff", Raw: []byte("MSH|\xe4\x00"), Destinations: []string{"d", "e", "f"},
		Source: store.NewSource(map[string]string{"remoteAddress": "x"}),
	}
	id, err := f.Intake(ctx, in)
	require.NoError(t, err)
	f.intake("c", "other", "d", "e", "f")
	d, e := f.pending("c", "d")[0], f.pending("c", "e")[0]
	require.NoError(t, f.Delivered(ctx, &d))
	require.NoError(t, f.Failed(ctx, &e, time.Now().Add(time.Hour), true, "refused"))

	m, err := f.Message(ctx, "c", id)
	require.NoError(t, err)
	assert.Equal(t, in.Raw, m.Raw)
	assert.Equal(t, in.Source, m.Source)
	assert.Equal(t, in.ControlID, m.ControlID)
	s := f.find("c", store.Filter{MinID: id, MaxID: id})[0]
	assert.Equal(t, m.Received, s.Received)
	assert.Nil(t, s.Raw)
	assert.Equal(t, int64(6), s.Bytes)
	assert.Equal(t, in.Source, s.Source)
	require.Equal(t, "d:2 e:1 f:1", states(&s))
	assert.False(t, s.Deliveries[0].DoneAt.IsZero())
	assert.Equal(t, store.Outcome{
		Seq: e.Seq, Destination: "e", State: store.Queued, Attempts: 1, MaybeSent: true, LastError: "refused", NextAt: e.NextAt,
	}, s.Deliveries[1])

	_, err = f.Message(ctx, "c", id+10)
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = f.Message(ctx, "other", id)
	require.ErrorIs(t, err, store.ErrNotFound, "of another channel")
}

func movedOutcomes(t *testing.T, f *fixture) {
	ctx := t.Context()
	for _, id := range []string{"1", "2"} {
		f.intake("c", id, "d", "e")
	}
	one := func() *store.Summary { return &f.find("c", store.Filter{ControlID: "1"})[0] }
	for range 2 { // moved, and moved again
		d := f.pending("c", "d")
		i := 0
		for d[i].Message.ControlID != "1" {
			i++
		}
		require.NoError(t, f.DeadLetter(ctx, &d[i], false, "AR"))
		assert.Contains(t, states(one()), "d:3")
		assert.Equal(t, "1", found(f.find("c", store.Filter{State: store.Dead})))
		_, err := f.Requeue(ctx, d[i].Seq)
		require.NoError(t, err)
		assert.Equal(t, "e:1 d:1", states(one()))
		assert.Equal(t, "2 1", found(f.find("c", store.Filter{State: store.Queued, Destination: "d"})))
	}
	f.reopen()
	d := f.pending("c", "d")[1]
	require.NoError(t, f.Delivered(ctx, &d))
	assert.Equal(t, "e:1 d:2", states(one()))
	assert.Equal(t, "1", found(f.find("c", store.Filter{State: store.Sent})))
}

func requeueAll(t *testing.T, f *fixture) {
	ctx := t.Context()
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		f.intake("c", id, "d", "e")
	}
	for _, name := range []string{"d", "e"} {
		list := f.pending("c", name)
		for i := range 4 {
			require.NoError(t, f.DeadLetter(ctx, &list[i], true, "AR"))
		}
	}
	n, err := f.RequeueAll(ctx, "c", "d", 3)
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Equal(t, []string{"5", "1", "2", "3"}, controlIDs(f.pending("c", "d")))
	assert.Equal(t, []string{"4"}, controlIDs(f.deadLetters("c", "d")))
	assert.Len(t, f.deadLetters("c", "e"), 4, "another queue's")
	assert.True(t, f.pending("c", "d")[1].MaybeSent)
	n, err = f.RequeueAll(ctx, "c", "d", 3)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	for _, name := range []string{"d", "nobody"} {
		n, err = f.RequeueAll(ctx, "c", name, 3)
		require.NoError(t, err)
		assert.Zero(t, n)
	}
	stats := f.stats("c")
	assert.Equal(t, []int64{6, 4}, []int64{stats.Queued, stats.Error})
}

func once(t *testing.T, f *fixture) {
	ctx := t.Context()
	take := func(channel, key string, keep time.Duration) int64 {
		t.Helper()
		id, err := f.Intake(ctx, store.Intake{
			Channel: channel, Destinations: []string{"d"}, Once: store.Once{Key: []byte(key), For: keep},
		})
		require.NoError(t, err)
		return id
	}
	first := take("c", "k", time.Hour)
	assert.Equal(t, first, take("c", "k", time.Hour))
	assert.NotEqual(t, first, take("c", "l", time.Hour))
	assert.NotEqual(t, first, take("b", "k", time.Hour), "each channel has its own")
	f.reopen()
	assert.Equal(t, first, take("c", "k", time.Hour), "also after a restart")
	assert.Len(t, f.pending("c", "d"), 2)
	assert.Equal(t, int64(2), f.stats("c").Received)

	short := take("c", "short", time.Nanosecond)
	again := take("c", "short", time.Nanosecond)
	assert.NotEqual(t, short, again, "what is past is forgotten")

	for name, bad := range map[string]store.Once{
		"a key without bound": {Key: make([]byte, 65), For: time.Hour}, "no time": {Key: []byte("k")},
	} {
		_, err := f.Intake(ctx, store.Intake{Channel: "c", Once: bad})
		assert.ErrorIs(t, err, store.ErrInvalid, name)
	}

	// The same from many callers at once is stored once.
	results := make(chan int64, 20)
	for range cap(results) {
		go func() {
			id, _ := f.Intake(ctx, store.Intake{Channel: "c", Once: store.Once{Key: []byte("race"), For: time.Hour}})
			results <- id
		}()
	}
	want := <-results
	assert.Positive(t, want)
	for range cap(results) - 1 {
		assert.Equal(t, want, <-results)
	}
}

func waitingQueues(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.intake("b", "1", "d", "e")
	f.intake("a", "1", "d")
	f.intake("a", "2", "d")
	f.intake("a", "filtered")
	d := f.pending("b", "e")[0]
	require.NoError(t, f.Delivered(ctx, &d))
	list, err := f.Waiting(ctx)
	require.NoError(t, err)
	assert.Equal(t, []store.QueueLength{{Channel: "a", Destination: "d", Queued: 2}, {Channel: "b", Destination: "d", Queued: 1}}, list)
}
