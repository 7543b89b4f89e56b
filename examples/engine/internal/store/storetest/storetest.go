// Package storetest holds what every [store.Store] must pass.
package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// Run tests an implementation. place is called once for each test; the function
// that it returns opens the store of that test, which is empty at first, and is
// called again after the store was closed.
func Run(t *testing.T, place func(t *testing.T) (open func() (store.Store, error))) {
	run(t, place, map[string]func(t *testing.T, f *fixture){
		"intake queues the message for every destination":  intakeQueues,
		"payloads of every size come back byte for byte":   payloads,
		"what cannot be kept is refused":                   invalidIntake,
		"a queue is read in order and in pages":            pages,
		"a batch of deliveries is bounded in bytes":        batchBytes,
		"one destination that is down holds up no other":   fanOut,
		"a failed attempt stays the head":                  failedHead,
		"a dead letter leaves the queue and can come back": deadLetter,
		"forwarding moves a message exactly once":          forward,
		"completing twice is harmless":                     twice,
		"a delivery that never was is not found":           notFound,
		"concurrent intake keeps each caller's order":      concurrent,
		"a cancelled context changes nothing":              cancelled,
		"all is there after reopening":                     reopen,
		"an attempt without an end is marked":              attemptWithoutEnd,
		"after Close everything is refused":                closed,
		"closing under load loses nothing":                 closeUnderLoad,
		"random operations agree with a model":             model,
		"messages are found by what people know of them":   findMessages,
		"one message is shown with what became of it":      oneMessage,
		"a requeued delivery is still its message's":       movedOutcomes,
		"dead letters go back all at once, in order":       requeueAll,
		"what comes again is taken in once":                once,
		"queues that are not empty are listed":             waitingQueues,
		"what was skipped comes after all others":          skip,
		"what was remembered is recalled until its time":   remember,
		"what is old and done is pruned":                   prune,
		"dead letters are pruned by a time of their own":   pruneDead,
		"nothing that waits is pruned":                     pruneNothingQueued,
		"what was counted and numbered stays so":           pruneKeepsCounts,
		"pruning beside intake and delivery harms neither": pruneUnderLoad,
	})
}

// RunSealing tests an implementation that is not sealed itself, in the same way.
func RunSealing(t *testing.T, place func(t *testing.T) (open func() (store.Store, error))) {
	run(t, place, map[string]func(t *testing.T, f *fixture){
		"keys are remembered while they may be needed": sealingKeys,
	})
}

func run(t *testing.T, place func(t *testing.T) func() (store.Store, error), tests map[string]func(t *testing.T, f *fixture)) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := &fixture{t: t, open: place(t)}
			f.reopen()
			t.Cleanup(func() { assert.NoError(t, f.Close()) })
			test(t, f)
		})
	}
}

// A fixture is the store of one test with the calls that must succeed made short.
type fixture struct {
	store.Store

	t    *testing.T
	open func() (store.Store, error)
}

func (f *fixture) reopen() {
	f.t.Helper()
	if f.Store != nil {
		require.NoError(f.t, f.Close())
	}
	st, err := f.open()
	require.NoError(f.t, err)
	f.Store = st
	require.NoError(f.t, f.Healthy())
}

func (f *fixture) intake(channel, controlID string, destinations ...string) int64 {
	f.t.Helper()
	id, err := f.Intake(f.t.Context(), store.Intake{
		Channel: channel, ControlID: controlID, Raw: []byte("MSH|" + controlID), Destinations: destinations,
	})
	require.NoError(f.t, err)
	require.Positive(f.t, id)
	return id
}

func (f *fixture) pending(channel, destination string) []store.Delivery {
	f.t.Helper()
	list, err := f.Pending(f.t.Context(), channel, destination, 0, 1000)
	require.NoError(f.t, err)
	return list
}

func (f *fixture) deadLetters(channel, destination string) []store.Delivery {
	f.t.Helper()
	list, err := f.DeadLetters(f.t.Context(), channel, destination, 0, 1000)
	require.NoError(f.t, err)
	return list
}

func (f *fixture) stats(channel string) store.Stats {
	f.t.Helper()
	stats, err := f.Stats(f.t.Context(), channel)
	require.NoError(f.t, err)
	return stats
}

// controlIDs shows a queue.
func controlIDs(list []store.Delivery) []string {
	ids := []string{}
	for _, d := range list {
		ids = append(ids, d.Message.ControlID)
	}
	return ids
}

func intakeQueues(t *testing.T, f *fixture) {
	before := time.Now().Add(-time.Second)
	in := store.Intake{
		Channel:      "adt",
		ControlID:    "A\xe41\x00|", // Latin-1, NUL: whatever the sender wrote
		Raw:          []byte("MSH|^~\\&|\xe4\x00\r"),
		Source:       store.NewSource(map[string]string{"remoteAddress": "127.0.0.1:1", "": "empty key"}),
		Destinations: []string{"lab", "archive"},
	}
	id, err := f.Intake(t.Context(), in)
	require.NoError(t, err)
	for _, name := range in.Destinations {
		list := f.pending("adt", name)
		require.Len(t, list, 1)
		d := list[0]
		assert.WithinRange(t, d.Message.Received, before, time.Now().Add(time.Second))
		d.Message.Received = time.Time{}
		assert.Equal(t, store.Delivery{
			Seq: d.Seq, Destination: name,
			Message: store.Message{ID: id, Channel: "adt", ControlID: in.ControlID, Raw: in.Raw, Source: in.Source},
		}, d)
		assert.Positive(t, d.Seq)
	}
	assert.Empty(t, f.pending("adt", "nobody"))
	assert.Empty(t, f.pending("other", "lab"))

	f.intake("adt", "filtered")
	stats := f.stats("adt")
	assert.Equal(t, []int64{2, 1, 2}, []int64{stats.Received, stats.Filtered, stats.Queued})
	assert.WithinRange(t, stats.LastReceived, before, time.Now().Add(time.Second))
	assert.False(t, stats.LastReceived.Before(stats.OldestQueued))
	assert.Zero(t, f.stats("other"))
	f.intake("second", "1", "lab")
	all, err := f.AllStats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]store.Stats{"adt": stats, "second": f.stats("second")}, all, "AllStats agrees with Stats")
}

func payloads(t *testing.T, f *fixture) {
	for _, size := range []int{0, 1, 4095, 4096, 1 << 20, 16 << 20} {
		raw := make([]byte, size)
		for i := range raw {
			raw[i] = byte(i * 7)
		}
		_, err := f.Intake(t.Context(), store.Intake{Channel: "c", Raw: raw, Destinations: []string{"d"}})
		require.NoError(t, err)
		list := f.pending("c", "d")
		require.Len(t, list, 1)
		require.True(t, string(raw) == string(list[0].Message.Raw), "%d bytes", size)
		require.Zero(t, list[0].Message.Source)
		require.NoError(t, f.Delivered(t.Context(), &list[0]))
	}
}

func invalidIntake(t *testing.T, f *fixture) {
	for name, in := range map[string]store.Intake{
		"no channel":              {Raw: []byte("x"), Destinations: []string{"d"}},
		"an unnamed destination":  {Channel: "c", Destinations: []string{"d", ""}},
		"a destination twice":     {Channel: "c", Destinations: []string{"d", "e", "d"}},
		"a payload without bound": {Channel: "c", Destinations: []string{"d"}, Raw: make([]byte, 1<<28)},
	} {
		_, err := f.Intake(t.Context(), in)
		assert.ErrorIs(t, err, store.ErrInvalid, name)
	}
	assert.Zero(t, f.stats("c"))
	assert.Empty(t, f.pending("c", "d"))
}

func pages(t *testing.T, f *fixture) {
	var want []string
	for i := range 25 {
		want = append(want, string(rune('a'+i)))
		f.intake("c", want[i], "d")
		f.intake("c", "-", "other")
	}
	var got []string
	for after := int64(0); ; {
		list, err := f.Pending(t.Context(), "c", "d", after, 10)
		require.NoError(t, err)
		if len(list) == 0 {
			break
		}
		require.LessOrEqual(t, len(list), 10)
		for _, d := range list {
			require.Greater(t, d.Seq, after)
			after = d.Seq
		}
		got = append(got, controlIDs(list)...)
	}
	assert.Equal(t, want, got)
}

func batchBytes(t *testing.T, f *fixture) {
	for range 5 {
		_, err := f.Intake(t.Context(), store.Intake{Channel: "c", Raw: make([]byte, 6<<20), Destinations: []string{"d"}})
		require.NoError(t, err)
	}
	assert.Len(t, f.pending("c", "d"), 1, "each of these is more than a batch")
}

func fanOut(t *testing.T, f *fixture) {
	ctx := t.Context()
	ids := []string{"1", "2", "3"}
	for _, id := range ids {
		f.intake("c", id, "up", "down", "up too")
	}
	for _, name := range []string{"up", "up too"} {
		for _, d := range f.pending("c", name) {
			require.NoError(t, f.Delivered(ctx, &d))
		}
		assert.Empty(t, f.pending("c", name))
	}
	assert.Equal(t, ids, controlIDs(f.pending("c", "down")))
	stats := f.stats("c")
	assert.Equal(t, []int64{3, 6, 3}, []int64{stats.Received, stats.Sent, stats.Queued})
	assert.Equal(t, f.pending("c", "down")[0].Message.Received, stats.OldestQueued)
}

func failedHead(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.intake("c", "1", "d")
	f.intake("c", "2", "d")
	head := f.pending("c", "d")[0]
	next := time.Now().Add(time.Minute)
	require.NoError(t, f.Failed(ctx, &head, next, false, "refused"))
	require.NoError(t, f.Failed(ctx, &head, next, true, "timeout"))
	require.NoError(t, f.Failed(ctx, &head, next.Add(time.Hour), false, "refused again"))

	list := f.pending("c", "d")
	assert.Equal(t, []string{"1", "2"}, controlIDs(list))
	assert.Equal(t, head, list[0], "the caller's copy is up to date")
	assert.True(t, next.Add(time.Hour).Equal(head.NextAt))
	assert.Equal(t, 3, head.Attempts)
	assert.Equal(t, "refused again", head.LastError)
	assert.True(t, head.MaybeSent, "what may have arrived once stays so")
	assert.Zero(t, list[1].Attempts)
	assert.Equal(t, int64(2), f.stats("c").Queued)
}

func deadLetter(t *testing.T, f *fixture) {
	ctx := t.Context()
	for _, id := range []string{"1", "2", "3"} {
		f.intake("c", id, "d", "e")
	}
	list := f.pending("c", "d")
	require.NoError(t, f.DeadLetter(ctx, &list[0], true, "AR"))
	require.NoError(t, f.DeadLetter(ctx, &list[1], false, "AE"))
	assert.Equal(t, []string{"3"}, controlIDs(f.pending("c", "d")))
	assert.Len(t, f.pending("c", "e"), 3)

	dead := f.deadLetters("c", "d")
	assert.Equal(t, []string{"1", "2"}, controlIDs(dead))
	assert.Equal(t, []store.Delivery{list[0], list[1]}, dead, "the caller's copies are up to date")
	assert.Equal(t, 1, dead[0].Attempts)
	assert.Equal(t, "AR", dead[0].LastError)
	assert.True(t, dead[0].MaybeSent)
	assert.False(t, dead[1].MaybeSent)

	seq, err := f.Requeue(ctx, dead[0].Seq)
	require.NoError(t, err)
	list = f.pending("c", "d")
	assert.Equal(t, []string{"3", "1"}, controlIDs(list), "at the end")
	assert.Equal(t, seq, list[1].Seq)
	assert.Zero(t, list[1].Attempts)
	assert.True(t, list[1].MaybeSent)
	stats := f.stats("c").Destinations[0]
	assert.Equal(t, store.DestinationStats{
		Name: "d", Received: 3, Queued: 2, Error: 1, OldestQueued: list[0].Message.Received,
	}, stats)

	_, err = f.Requeue(ctx, dead[0].Seq)
	require.ErrorIs(t, err, store.ErrNotFound, "requeued already")
	_, err = f.Requeue(ctx, seq)
	require.ErrorIs(t, err, store.ErrNotFound, "queued")
}

func forward(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.intake("a", "1", "to b")
	d := f.pending("a", "to b")[0]
	in := store.Intake{Channel: "b", ControlID: "1", Raw: d.Message.Raw, Destinations: []string{"x", "y"}}

	bad := in
	bad.Destinations = []string{""}
	_, err := f.Forward(ctx, &d, bad)
	require.ErrorIs(t, err, store.ErrInvalid)
	assert.Len(t, f.pending("a", "to b"), 1, "neither")

	id, err := f.Forward(ctx, &d, in)
	require.NoError(t, err)
	assert.Empty(t, f.pending("a", "to b"))
	for _, name := range in.Destinations {
		require.Len(t, f.pending("b", name), 1)
		assert.Equal(t, id, f.pending("b", name)[0].Message.ID)
	}
	id, err = f.Forward(ctx, &d, in)
	require.NoError(t, err)
	assert.Zero(t, id)
	assert.Equal(t, int64(1), f.stats("b").Received)
	assert.Equal(t, int64(1), f.stats("a").Sent)
}

func twice(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.intake("c", "1", "d")
	f.intake("c", "2", "d")
	list := f.pending("c", "d")
	for range 2 {
		require.NoError(t, f.Delivered(ctx, &list[0]))
		require.NoError(t, f.DeadLetter(ctx, &list[1], false, "AR"))
	}
	require.NoError(t, f.Failed(ctx, &list[0], time.Now(), true, "late"))
	require.NoError(t, f.DeadLetter(ctx, &list[0], true, "late"))
	require.NoError(t, f.Skip(ctx, &list[0], time.Now(), true, "late"))
	require.NoError(t, f.Delivered(ctx, &list[1]))
	stats := f.stats("c")
	assert.Equal(t, []int64{1, 0, 1}, []int64{stats.Sent, stats.Queued, stats.Error})
	assert.Len(t, f.deadLetters("c", "d"), 1)
	assert.Zero(t, list[0].Attempts)
}

func notFound(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.intake("c", "1", "d")
	for _, d := range []store.Delivery{
		{Seq: 99, Destination: "d", Message: store.Message{Channel: "c"}},
		{Seq: 99, Destination: "e", Message: store.Message{Channel: "c"}},
	} {
		assert.ErrorIs(t, f.Delivered(ctx, &d), store.ErrNotFound)
		assert.ErrorIs(t, f.Failed(ctx, &d, time.Now(), false, ""), store.ErrNotFound)
		assert.ErrorIs(t, f.DeadLetter(ctx, &d, false, ""), store.ErrNotFound)
		assert.ErrorIs(t, f.Skip(ctx, &d, time.Now(), false, ""), store.ErrNotFound)
		_, err := f.Forward(ctx, &d, store.Intake{Channel: "b"})
		assert.ErrorIs(t, err, store.ErrNotFound)
	}
	_, err := f.Requeue(ctx, 99)
	require.ErrorIs(t, err, store.ErrNotFound)
	assert.Zero(t, f.stats("b"))
	require.NoError(t, f.Healthy())
}

func cancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Intake(ctx, store.Intake{Channel: "c", Destinations: []string{"d"}})
	require.ErrorIs(t, err, context.Canceled)
	f.intake("c", "1", "d")
	d := f.pending("c", "d")[0]
	require.ErrorIs(t, f.Delivered(ctx, &d), context.Canceled)
	_, err = f.Pending(ctx, "c", "d", 0, 1)
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []string{"1"}, controlIDs(f.pending("c", "d")))
	assert.Equal(t, int64(1), f.stats("c").Received)
}

func reopen(t *testing.T, f *fixture) {
	ctx := t.Context()
	for _, id := range []string{"1", "2", "3", "4"} {
		f.intake("c", id, "d", "e")
	}
	list := f.pending("c", "d")
	require.NoError(t, f.Delivered(ctx, &list[0]))
	require.NoError(t, f.DeadLetter(ctx, &list[1], true, "AR"))
	require.NoError(t, f.Failed(ctx, &list[2], time.Now().Add(time.Hour), false, "refused"))
	stats := f.stats("c")
	last := list[3]

	f.reopen()
	assert.Equal(t, list[2:], f.pending("c", "d"))
	assert.Equal(t, list[1:2], f.deadLetters("c", "d"))
	assert.Len(t, f.pending("c", "e"), 4)
	assert.Equal(t, stats, f.stats("c"))

	id := f.intake("c", "5", "d")
	list = f.pending("c", "d")
	assert.Equal(t, []string{"3", "4", "5"}, controlIDs(list))
	assert.Greater(t, id, last.Message.ID)
	assert.Greater(t, list[2].Seq, last.Seq)
}

func attemptWithoutEnd(t *testing.T, f *fixture) {
	ctx := t.Context()
	names := []string{"in flight", "failed", "delivered", "idle"}
	for range 2 {
		f.intake("c", "1", names...)
	}
	for _, name := range names[:3] {
		d := f.pending("c", name)[0]
		f.Attempting(&d)
		switch name {
		case "failed":
			require.NoError(t, f.Failed(ctx, &d, time.Now(), false, "refused"))
		case "delivered":
			require.NoError(t, f.Delivered(ctx, &d))
		}
	}
	f.reopen()
	for _, name := range names {
		for i, d := range f.pending("c", name) {
			assert.Equal(t, name == "in flight" && i == 0, d.MaybeSent, "%s, %d", name, i)
		}
	}
}

func closed(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.intake("c", "1", "d")
	d := f.pending("c", "d")[0]
	require.NoError(t, f.Close())
	require.NoError(t, f.Close(), "a second time")
	_, intake := f.Intake(ctx, store.Intake{Channel: "c"})
	_, forward := f.Forward(ctx, &d, store.Intake{Channel: "c"})
	_, requeue := f.Requeue(ctx, 1)
	_, pending := f.Pending(ctx, "c", "d", 0, 1)
	_, dead := f.DeadLetters(ctx, "c", "d", 0, 1)
	_, stats := f.Stats(ctx, "c")
	_, all := f.RequeueAll(ctx, "c", "d", 1)
	_, find := f.Find(ctx, "c", store.Filter{}, 0, 1)
	_, count := f.Count(ctx, "c", store.Filter{})
	_, message := f.Message(ctx, "c", 1)
	_, waiting := f.Waiting(ctx)
	_, recall := f.Recall(ctx, "c", []byte("k"))
	_, overview := f.AllStats(ctx)
	for i, err := range []error{
		intake, forward, requeue, pending, dead, stats, all, find, count, message, waiting, overview, f.Healthy(),
		f.Delivered(ctx, &d), f.Failed(ctx, &d, time.Now(), false, ""), f.DeadLetter(ctx, &d, false, ""),
		f.Skip(ctx, &d, time.Now(), false, ""), recall, f.Remember(ctx, "c", store.Once{Key: []byte("k"), For: time.Hour}, nil),
	} {
		assert.True(t, errors.Is(err, store.ErrClosed), "%d: %v", i, err)
	}
}
