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
	// static
	cancel context.CancelCauseFunc
	start  time.Time // of the attempt: the origin of the times below

	mu sync.Mutex
	// guarded by mu
	timer *time.Timer
	next  time.Duration // when timer fires; 0: it does not
	due   time.Duration // when the present wait has lasted too long; 0: nothing is awaited
	phase string
	limit time.Duration
	got   bool // the answer has begun: what is still being sent is not waited for
	over  bool
}

// expect begins a wait, in place of the one before. A negative limit means none.
func (w *watchdog) expect(phase string, limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || w.got && phase != receiving {
		return
	}
	if limit < 0 {
		w.due = 0
		return
	}
	w.phase, w.limit, w.due = phase, limit, time.Since(w.start)+max(1, limit)
	switch {
	case w.timer == nil:
		w.next, w.timer = w.due, time.AfterFunc(limit, w.look)
	case w.next == 0 || w.due < w.next:
		w.next = w.due
		w.timer.Reset(limit)
	}
}

// relax ends a wait of a phase.
func (w *watchdog) relax(phase string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.got || phase == receiving {
		w.due = 0
	}
}

// answered ends all waits but those of receiving.
func (w *watchdog) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got, w.due = true, 0
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
	left := w.due - time.Since(w.start)
	switch {
	case w.over:
	case w.due == 0:
		w.next = 0
	case left > 0:
		w.next = w.due
		w.timer.Reset(left)
	default:
		w.over = true
		w.cancel(&StallError{Phase: w.phase, After: w.limit})
	}
}
