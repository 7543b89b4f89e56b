package storetest

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// concurrent takes in from 50 callers at once: what each of them was told first
// comes first.
func concurrent(t *testing.T, f *fixture) {
	const callers, each = 50, 10
	var wg sync.WaitGroup
	var errs [callers]error
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				_, err := f.Intake(t.Context(), store.Intake{
					Channel: "c", ControlID: fmt.Sprintf("%02d-%03d", c, i), Destinations: []string{"d", "e"},
				})
				if err != nil {
					errs[c] = err
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	d, e := controlIDs(f.pending("c", "d")), controlIDs(f.pending("c", "e"))
	require.Len(t, d, callers*each)
	assert.Equal(t, d, e, "all queues have the order of intake")
	byCaller := make(map[string][]string)
	for _, id := range d {
		byCaller[id[:2]] = append(byCaller[id[:2]], id)
	}
	assert.Len(t, byCaller, callers)
	for _, ids := range byCaller {
		assert.Len(t, slices.Compact(slices.Clone(ids)), each)
		assert.True(t, slices.IsSorted(ids))
	}
}

// closeUnderLoad closes the store while 20 callers take in: what they were told is
// in is there, what they were told is not is not.
func closeUnderLoad(t *testing.T, f *fixture) {
	const callers = 20
	var wg sync.WaitGroup
	var confirmed [callers][]string
	var errs [callers]error
	for c := range callers {
		wg.Go(func() {
			for i := 0; errs[c] == nil; i++ {
				id := fmt.Sprintf("%d-%d", c, i)
				if _, errs[c] = f.Intake(t.Context(), store.Intake{Channel: "c", ControlID: id, Destinations: []string{"d"}}); errs[c] == nil {
					confirmed[c] = append(confirmed[c], id)
				}
			}
		})
	}
	for len(f.pending("c", "d")) < 2*callers {
		runtime.Gosched()
	}
	require.NoError(t, f.Close())
	wg.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, store.ErrClosed)
	}
	f.reopen()
	got, want := []string{}, slices.Concat(confirmed[:]...)
	for after := int64(0); ; {
		list, err := f.Pending(t.Context(), "c", "d", after, 1000)
		require.NoError(t, err)
		if len(list) == 0 {
			break
		}
		after = list[len(list)-1].Seq
		got = append(got, controlIDs(list)...)
	}
	assert.ElementsMatch(t, want, got)
}

// A modelQueue is what a queue should hold, by control ids.
type modelQueue struct {
	received, sent int64
	queued, dead   []modelDelivery
}

type modelDelivery struct {
	controlID string
	attempts  int
	maybeSent bool
	skipped   bool
}

// skip puts the head behind all others.
func (q *modelQueue) skip() {
	head := q.queued[0]
	head.skipped = true
	q.queued = append(q.queued[1:], head)
}

// add puts a delivery behind those that are not skipped.
func (q *modelQueue) add(d modelDelivery) {
	d.skipped = false
	behind := slices.IndexFunc(q.queued, func(other modelDelivery) bool { return other.skipped })
	if behind < 0 {
		behind = len(q.queued)
	}
	q.queued = slices.Insert(q.queued, behind, d)
}

// A modelStore is the store in its plainest form.
type modelStore struct {
	received, filtered map[string]int64
	queues             map[[2]string]*modelQueue
}

func (m *modelStore) intake(in store.Intake) {
	m.received[in.Channel]++
	if len(in.Destinations) == 0 {
		m.filtered[in.Channel]++
	}
	for _, d := range in.Destinations {
		key := [2]string{in.Channel, d}
		if m.queues[key] == nil {
			m.queues[key] = new(modelQueue)
		}
		q := m.queues[key]
		q.received++
		q.add(modelDelivery{controlID: in.ControlID})
	}
}

// model makes random changes to the store and to a model and compares them. The
// seed is part of the subtest's name: a failure repeats.
func model(t *testing.T, f *fixture) {
	const seed = 20260801
	rnd := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	m := &modelStore{received: map[string]int64{}, filtered: map[string]int64{}, queues: map[[2]string]*modelQueue{}}
	channels, destinations := []string{"a", "b"}, []string{"x", "y", "z"}
	steps := 600
	if testing.Short() {
		steps = 150
	}
	for step := range steps {
		channel, destination := channels[rnd.IntN(2)], destinations[rnd.IntN(3)]
		in := store.Intake{Channel: channels[rnd.IntN(2)], ControlID: fmt.Sprint(step), Raw: []byte{byte(step)}}
		for _, d := range destinations {
			if rnd.IntN(2) == 0 {
				in.Destinations = append(in.Destinations, d)
			}
		}
		q := m.queues[[2]string{channel, destination}]
		if q == nil {
			q = new(modelQueue)
		}
		if err := randomStep(t, f, rnd, m, q, channel, destination, in); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		if step%50 == 49 {
			f.compare(m)
		}
	}
	f.compare(m)
}

// randomStep makes one change; one in three is an intake.
func randomStep(t *testing.T, f *fixture, rnd *rand.Rand, m *modelStore, q *modelQueue, channel, destination string, in store.Intake) error {
	ctx := t.Context()
	op := rnd.IntN(12)
	switch {
	case op < 4:
		m.intake(in)
		_, err := f.Intake(ctx, in)
		return err
	case op == 4 && rnd.IntN(4) == 0:
		f.reopen()
		return nil
	case op == 5 && len(q.dead) > 0:
		i := rnd.IntN(len(q.dead))
		d := q.dead[i]
		d.attempts = 0
		q.dead = slices.Delete(q.dead, i, i+1)
		q.add(d)
		_, err := f.Requeue(ctx, f.deadLetters(channel, destination)[i].Seq)
		return err
	case op < 6 || len(q.queued) == 0:
		return nil
	}
	list, err := f.Pending(ctx, channel, destination, 0, 1)
	if err != nil || len(list) != 1 {
		return fmt.Errorf("head: %d, %w", len(list), err)
	}
	d, maybeSent := &list[0], rnd.IntN(2) == 0
	f.Attempting(d)
	head := &q.queued[0]
	switch op {
	case 6:
		head.attempts++
		head.maybeSent = head.maybeSent || maybeSent
		q.skip()
		return f.Skip(ctx, d, time.Now(), maybeSent, "refused")
	case 7:
		head.attempts++
		head.maybeSent = head.maybeSent || maybeSent
		return f.Failed(ctx, d, time.Now(), maybeSent, "refused")
	case 8:
		head.attempts++
		head.maybeSent = head.maybeSent || maybeSent
		// A dead letter that was requeued lies behind later ones: by seq, as listed, and
		// one that was skipped behind all others.
		dead := &modelQueue{queued: q.dead}
		if skipped := head.skipped; skipped {
			dead.queued = append(dead.queued, *head)
		} else {
			dead.add(*head)
		}
		q.dead, q.queued = dead.queued, q.queued[1:]
		return f.DeadLetter(ctx, d, maybeSent, "AR")
	case 9:
		q.sent++
		q.queued = q.queued[1:]
		m.intake(in)
		_, err := f.Forward(ctx, d, in)
		return err
	default:
		q.sent++
		q.queued = q.queued[1:]
		return f.Delivered(ctx, d)
	}
}

// compare holds every queue and counter against the model.
func (f *fixture) compare(m *modelStore) {
	f.t.Helper()
	modelled := func(list []store.Delivery) []modelDelivery {
		all := []modelDelivery(nil)
		for _, d := range list {
			all = append(all, modelDelivery{d.Message.ControlID, d.Attempts, d.MaybeSent, d.Skipped})
		}
		return all
	}
	for key, q := range m.queues {
		require.Equal(f.t, slices.Clip(append([]modelDelivery(nil), q.queued...)), modelled(f.pending(key[0], key[1])), "%v", key)
		require.Equal(f.t, append([]modelDelivery(nil), q.dead...), modelled(f.deadLetters(key[0], key[1])), "%v", key)
	}
	for channel, received := range m.received {
		f.agree(channel)
		stats := f.stats(channel)
		require.Equal(f.t, received, stats.Received)
		require.Equal(f.t, m.filtered[channel], stats.Filtered)
		var sent, queued, dead int64
		for _, d := range stats.Destinations {
			q := m.queues[[2]string{channel, d.Name}]
			require.Equal(f.t, []int64{q.received, q.sent, int64(len(q.queued)), int64(len(q.dead))},
				[]int64{d.Received, d.Sent, d.Queued, d.Error}, "%s %s", channel, d.Name)
			require.Equal(f.t, d.Received, d.Sent+d.Queued+d.Error)
			require.Equal(f.t, d.Queued == 0, d.OldestQueued.IsZero())
			sent, queued, dead = sent+d.Sent, queued+d.Queued, dead+d.Error
		}
		require.Equal(f.t, []int64{sent, queued, dead}, []int64{stats.Sent, stats.Queued, stats.Error})
	}
}

// agree holds what is shown of messages against what the counters say.
func (f *fixture) agree(channel string) {
	f.t.Helper()
	shown := make(map[store.State]int64)
	for _, m := range f.find(channel, store.Filter{}) {
		if len(m.Deliveries) == 0 {
			shown[store.Filtered]++
		}
		for _, o := range m.Deliveries {
			shown[o.State]++
		}
	}
	stats := f.stats(channel)
	require.Equal(f.t, []int64{stats.Filtered, stats.Sent, stats.Queued, stats.Error},
		[]int64{shown[store.Filtered], shown[store.Sent], shown[store.Queued], shown[store.Dead]})
}
