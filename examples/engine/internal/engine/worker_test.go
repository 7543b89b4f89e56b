package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// script is a destination and the part of a store that a worker uses: what each
// attempt and each record of one returns stands in lists.
type script struct {
	store.Store
	queue   []store.Delivery
	results []any // of send, in turn: an error, nil, or what to panic with
	refuse  int   // how many records fail at first
	events  []string
}

func (s *script) note(format string, args ...any) {
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

func (s *script) Pending(context.Context, string, string, int64, int) ([]store.Delivery, error) {
	return append([]store.Delivery(nil), s.queue[:min(len(s.queue), 2)]...), nil
}

func (s *script) Attempting(d *store.Delivery) {}

func (s *script) recordErr() error {
	if s.refuse > 0 {
		s.refuse--
		return store.ErrFailed
	}
	return nil
}

func (s *script) complete(_ context.Context, d *store.Delivery) error {
	if err := s.recordErr(); err != nil {
		return err
	}
	s.note("delivered %d", d.Seq)
	s.queue = s.queue[1:]
	return nil
}

func (s *script) Failed(_ context.Context, d *store.Delivery, next time.Time, maybeSent bool, _ string) error {
	if err := s.recordErr(); err != nil {
		return err
	}
	d.Attempts++
	d.MaybeSent = d.MaybeSent || maybeSent
	s.note("failed %d maybe=%t", d.Seq, maybeSent)
	return nil
}

func (s *script) DeadLetter(_ context.Context, d *store.Delivery, maybeSent bool, _ string) error {
	s.note("dead %d maybe=%t", d.Seq, maybeSent)
	s.queue = s.queue[1:]
	return nil
}

func (s *script) Skip(_ context.Context, d *store.Delivery, next time.Time, maybeSent bool, _ string) error {
	if err := s.recordErr(); err != nil {
		return err
	}
	s.note("skip %d maybe=%t", d.Seq, maybeSent)
	moved := s.queue[0]
	moved.Skipped, moved.NextAt = true, next
	moved.Attempts++
	s.queue = append(s.queue[1:], moved)
	return nil
}

func (s *script) send(ctx context.Context, d *store.Delivery) error {
	if len(s.results) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	result := s.results[0]
	s.results = s.results[1:]
	s.note("send %d", d.Seq)
	switch r := result.(type) {
	case nil:
		return nil
	case error:
		return r
	default:
		panic(r)
	}
}

func (s *script) close() {}

// said is an error of a connector.
type said struct {
	maybe, retry bool
}

func (said) Error() string          { return "said" }
func (s said) MaybeDelivered() bool { return s.maybe }
func (s said) Retryable() bool      { return s.retry }
func (said) Code() string           { return "X" }

// play runs a worker on the script for a simulated hour.
func play(t *testing.T, s *script, queue config.Queue) string {
	t.Helper()
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		w := &worker{
			channel: "c", name: "d", queue: queue, store: s, dest: s,
			log: slog.New(slog.NewTextHandler(&log, nil)), wakeup: make(chan struct{}, 1),
			tell: func(Event) {},
		}
		w.start()
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w.stop(ctx)
	})
	return log.String()
}

func deliveries(n int) []store.Delivery {
	list := make([]store.Delivery, n)
	for i := range list {
		list[i].Seq = int64(i + 1)
	}
	return list
}

func TestPanicOfADestinationIsAFailedAttempt(t *testing.T) {
	s := &script{queue: deliveries(2), results: []any{"PID|secret", nil, nil}}
	log := play(t, s, config.Queue{RetryInterval: time.Second})
	assert.Equal(t, []string{"send 1", "failed 1 maybe=true", "send 1", "delivered 1", "send 2", "delivered 2"}, s.events)
	assert.Contains(t, log, "msg=panic in=destination")
	assert.NotContains(t, log, "secret")
}

func TestErrorsAreJudgedByWhatTheySay(t *testing.T) {
	dead := config.Queue{RetryInterval: time.Second, OnPoison: "deadletter", MaxAttempts: 2}
	for _, tt := range []struct {
		name string
		err  error
		want []string
	}{
		{"may not have arrived, try again", said{retry: true}, []string{"send 1", "failed 1 maybe=false", "send 1", "dead 1 maybe=false"}},
		{"may have arrived, try again", said{maybe: true, retry: true}, []string{"send 1", "failed 1 maybe=true", "send 1", "dead 1 maybe=true"}},
		{"no use in trying again", said{}, []string{"send 1", "dead 1 maybe=false"}},
		{"wrapped", fmt.Errorf("x: %w", said{maybe: true}), []string{"send 1", "dead 1 maybe=true"}},
		{"says nothing, so the worst", errors.New("x"), []string{"send 1", "failed 1 maybe=true", "send 1", "dead 1 maybe=true"}},
		{"not the message's fault", &unavailable{said{maybe: true}}, []string{"send 1", "failed 1 maybe=false", "send 1", "failed 1 maybe=false", "send 1", "delivered 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{queue: deliveries(1), results: []any{tt.err, tt.err, nil}}
			play(t, s, dead)
			assert.Equal(t, tt.want, s.events)
		})
	}
}

// A message that is skipped lets the others go first, and is tried again when there
// is nothing else and its pause is over.
func TestSkippedMessageComesAfterTheOthersAndIsTriedAgain(t *testing.T) {
	queue := config.Queue{RetryInterval: 10 * time.Minute, OnPoison: "skip", MaxAttempts: 2}
	t.Run("refused for good", func(t *testing.T) {
		s := &script{queue: deliveries(3), results: []any{said{}, said{}, nil, said{}, nil, nil}}
		log := play(t, s, queue)
		assert.Equal(t, []string{
			"send 1", "skip 1 maybe=false", "send 2", "skip 2 maybe=false", "send 3", "delivered 3",
			"send 1", "skip 1 maybe=false", "send 2", "delivered 2", "send 1", "delivered 1",
		}, s.events)
		assert.Equal(t, 2, strings.Count(log, "message skipped"), "once for each")
	})
	t.Run("refused too often, and later once a turn", func(t *testing.T) {
		s := &script{queue: deliveries(2), results: []any{said{retry: true}, said{maybe: true, retry: true}, nil, said{retry: true}, nil}}
		play(t, s, queue)
		assert.Equal(t, []string{
			"send 1", "failed 1 maybe=false", "send 1", "skip 1 maybe=true", "send 2", "delivered 2",
			"send 1", "skip 1 maybe=false", "send 1", "delivered 1",
		}, s.events)
	})
	t.Run("an outage skips nothing", func(t *testing.T) {
		down := &unavailable{said{}}
		s := &script{queue: deliveries(2), results: []any{down, down, down, nil, nil}}
		play(t, s, config.Queue{RetryInterval: time.Second, OnPoison: "skip", MaxAttempts: 1})
		assert.Equal(t, []string{
			"send 1", "failed 1 maybe=false", "send 1", "failed 1 maybe=false", "send 1", "failed 1 maybe=false", "send 1", "delivered 1", "send 2", "delivered 2",
		}, s.events)
	})
}

// An end that the store does not take is told again, and the message not sent
// again.
func TestStoreThatFailsToRecordDoesNotMakeADuplicate(t *testing.T) {
	s := &script{queue: deliveries(1), results: []any{nil}, refuse: 100}
	log := play(t, s, config.Queue{RetryInterval: time.Second})
	assert.Equal(t, []string{"send 1", "delivered 1"}, s.events)
	assert.Equal(t, 1, strings.Count(log, "cannot be recorded yet"), "one line, not a hundred")
}

func TestDeliveryThatIsCutOffByAStopIsRecordedAsMaybeSent(t *testing.T) {
	s := &script{queue: deliveries(1)} // send waits for its context
	play(t, s, config.Queue{RetryInterval: time.Second})
	assert.Equal(t, []string{"failed 1 maybe=true"}, s.events)
}

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	for range 200 {
		for attempts, want := range []time.Duration{
			1: 10 * time.Second, 2: 20 * time.Second, 3: 40 * time.Second, 5: 160 * time.Second, 6: 5 * time.Minute, 7: 5 * time.Minute, 1000: 5 * time.Minute,
		} {
			if want > 0 {
				require.InDelta(t, want, backoff(10*time.Second, attempts), float64(want)/5+1, "attempt %d", attempts)
			}
		}
		require.InDelta(t, time.Hour, backoff(time.Hour, 9), float64(time.Hour)/5, "an interval above the limit is kept")
		require.Positive(t, backoff(1, 1))
	}
}
