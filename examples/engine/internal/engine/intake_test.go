package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// faulty fails intakes while broken; with lying set it says they worked, which
// is the fault that these tests are to find.
type faulty struct {
	store.Store
	broken atomic.Bool
	lying  bool
}

func (f *faulty) Intake(ctx context.Context, in store.Intake) (int64, error) {
	if f.broken.Load() {
		if f.lying {
			return 1, nil
		}
		return 0, store.ErrFailed
	}
	return f.Store.Intake(ctx, in)
}

func (f *faulty) Healthy() error {
	if f.broken.Load() {
		return store.ErrFailed
	}
	return f.Store.Healthy()
}

// acknowledgedAndLost sends messages while the store breaks and recovers, and
// returns those that were answered with AA and are not in the store.
func acknowledgedAndLost(t *testing.T, st *faulty, onStoreError string) (lost, answers []string) {
	t.Helper()
	dir := t.TempDir()
	ch := channel("adt", toFile("archive", dir))
	ch.Source.TCP.OnStoreError = onStoreError
	e := start(t, st, ch)
	var acked []string
	for i, id := range ids("M", 9) {
		st.broken.Store(i >= 3 && i < 6)
		conn := dial(t, e.addr("adt"), nil)
		reply, err := conn.Send(t.Context(), message(id))
		var sendErr *mllp.SendError
		switch {
		case err == nil:
			acked = append(acked, id)
			answers = append(answers, string(reply.Ack.Code))
		case errors.As(err, &sendErr) && sendErr.Outcome == mllp.Nacked:
			answers = append(answers, string(sendErr.AckCode))
		default:
			answers = append(answers, sendErr.Outcome.String())
		}
		if !st.lying {
			assert.Equal(t, i >= 3 && i < 6, e.Healthy() != nil, "what readiness is made of")
		}
	}
	assert.LessOrEqual(t, e.log.count("messages cannot be stored"), 1, "one line, not one for each message")
	eventually(t, "what was stored is delivered", func() bool { return e.stats("adt").Queued == 0 })
	there := make(map[string]bool)
	for _, id := range filedIDs(t, dir) {
		there[id] = true
	}
	for _, id := range acked {
		if !there[id] {
			lost = append(lost, id)
		}
	}
	return lost, answers
}

func TestMessageThatIsNotStoredIsNeverAcknowledged(t *testing.T) {
	t.Run("AE", func(t *testing.T) {
		lost, answers := acknowledgedAndLost(t, &faulty{Store: openStore(t, t.TempDir())}, "AE")
		assert.Empty(t, lost)
		assert.Equal(t, []string{"AA", "AA", "AA", "AE", "AE", "AE", "AA", "AA", "AA"}, answers)
	})
	t.Run("close", func(t *testing.T) {
		lost, answers := acknowledgedAndLost(t, &faulty{Store: openStore(t, t.TempDir())}, "close")
		assert.Empty(t, lost)
		assert.Equal(t, []string{"AA", "AA", "AA", "unknown", "unknown", "unknown", "AA", "AA", "AA"}, answers)
	})
	t.Run("positive control: an early acknowledgement would be found", func(t *testing.T) {
		lost, _ := acknowledgedAndLost(t, &faulty{Store: openStore(t, t.TempDir()), lying: true}, "AE")
		assert.Equal(t, []string{"M0003", "M0004", "M0005"}, lost)
	})
}

func TestMessageThatNoStoreTakesIsRejectedForGood(t *testing.T) {
	st := &spy{openStore(t, t.TempDir()), func(store.Intake) error { return fmt.Errorf("%w: too long", store.ErrInvalid) }}
	e := start(t, st, channel("adt", toFile("archive", t.TempDir())))
	_, err := dial(t, e.addr("adt"), nil).Send(t.Context(), message("M1"))
	var sendErr *mllp.SendError
	require.ErrorAs(t, err, &sendErr)
	assert.Equal(t, mllp.AR, sendErr.AckCode)
}

func TestPanicOfTheStoreIsAnAEAndNotTheEnd(t *testing.T) {
	panics := true
	st := &spy{openStore(t, t.TempDir()), func(store.Intake) error {
		if panics {
			panics = false
			panic("PID|secret")
		}
		return nil
	}}
	dir := t.TempDir()
	e := start(t, st, channel("adt", toFile("archive", dir)))
	_, err := dial(t, e.addr("adt"), nil).Send(t.Context(), message("M1"))
	var sendErr *mllp.SendError
	require.ErrorAs(t, err, &sendErr)
	assert.Equal(t, mllp.AE, sendErr.AckCode)
	send(t, dial(t, e.addr("adt"), nil), "M2")
	eventually(t, "delivered", func() bool { return len(filed(t, dir)) == 1 })
	assert.NotContains(t, e.log.String(), "secret")
}

// The acknowledgement waits for the commit: while that takes its time, nothing
// is answered.
func TestAcknowledgementWaitsForTheCommit(t *testing.T) {
	begun, commit := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(commit) })
	st := &spy{openStore(t, t.TempDir()), func(store.Intake) error { close(begun); <-commit; return nil }}
	e := start(t, st, channel("adt", toFile("archive", t.TempDir())))
	t.Cleanup(release) // so that a failed test does not hang
	conn := dial(t, e.addr("adt"), nil)
	answered := make(chan error, 1)
	go func() { _, err := conn.Send(context.Background(), message("M1")); answered <- err }()
	<-begun
	select {
	case <-answered:
		t.Error("answered before the commit")
	default:
	}
	release()
	require.NoError(t, <-answered)
}

// A shutdown lets what has arrived be stored and acknowledged.
func TestShutdownAnswersWhatIsInHand(t *testing.T) {
	begun, commit := make(chan struct{}), make(chan struct{})
	once, release := sync.OnceFunc(func() { close(begun) }), sync.OnceFunc(func() { close(commit) })
	st := &spy{openStore(t, t.TempDir()), func(store.Intake) error { once(); <-commit; return nil }}
	e := start(t, st, channel("adt", toFile("archive", t.TempDir())))
	t.Cleanup(release) // so that a failed test does not hang
	conn := dial(t, e.addr("adt"), nil)
	answered := make(chan error, 1)
	go func() { _, err := conn.Send(context.Background(), message("M1")); answered <- err }()
	<-begun
	stopped := make(chan struct{})
	go func() { e.stop(); close(stopped) }()
	eventually(t, "the port closes", func() bool {
		_, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", conn.RemoteAddr().String())
		return err != nil
	})
	release()
	require.NoError(t, <-answered)
	<-stopped
}
