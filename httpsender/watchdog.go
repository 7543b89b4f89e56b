package httpsender

import (
	"context"
	"sync"
	"time"
)

// The phases of an attempt in which the network can stall.
const (
	sending   = "sending"
	waiting   = "waiting for the answer"
	receiving = "receiving"
)

// A watchdog cancels an attempt in which nothing moves. It has one timer, which
// is left to run while bytes flow and looks at the time again when it fires, so
// that progress costs no more than reading the clock.
type watchdog struct {
	cancel context.CancelCauseFunc // static

	mu sync.Mutex
	// guarded by mu
	timer *time.Timer
	next  time.Time // when timer fires; zero: it does not
	due   time.Time // when the present wait has lasted too long; zero: nothing is awaited
	phase string
	limit time.Duration
	over  bool
}

// expect begins a wait, in place of the one before. A negative limit means none.
func (w *watchdog) expect(phase string, limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	if limit < 0 {
		w.due = time.Time{}
		return
	}
	w.phase, w.limit, w.due = phase, limit, time.Now().Add(limit)
	switch {
	case w.timer == nil:
		w.next, w.timer = w.due, time.AfterFunc(limit, w.look)
	case w.next.IsZero() || w.due.Before(w.next):
		w.next = w.due
		w.timer.Reset(limit)
	}
}

// relax ends a wait.
func (w *watchdog) relax() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = time.Time{}
}

// stop ends all waits for good.
func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *watchdog) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := time.Until(w.due)
	switch {
	case w.over:
	case w.due.IsZero():
		w.next = time.Time{}
	case left > 0:
		w.next = w.due
		w.timer.Reset(left)
	default:
		w.over = true
		w.cancel(&StallError{Phase: w.phase, After: w.limit})
	}
}
