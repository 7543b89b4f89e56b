package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// batchSize is how many deliveries are read at once. The store returns fewer
	// when they are large, so memory does not grow with a queue.
	batchSize = 64
	// storePause is between two tries of a store that does not answer well.
	storePause = time.Second
	// lookInterval is how often an idle worker looks at its queue without having
	// been woken: a wakeup is a hint, and a queue must not stand still for want of
	// one.
	lookInterval = 5 * time.Second
	// recordTime is how long the store may take to begin to record the end of a
	// delivery before it is asked anew; it is what a stop waits at worst.
	recordTime = 3 * time.Second
)

// destination is one place to which a worker sends.
type destination interface {
	// send delivers the message; nil means that the receiver has it. The error is
	// an *unavailable where it says nothing about the message itself.
	send(ctx context.Context, d *store.Delivery) error
	// complete records that d was sent.
	complete(ctx context.Context, d *store.Delivery) error
	// close gives up what send kept open. It is called when no send runs, and
	// send may be called again after it.
	close()
}

// worker empties the queue of one destination, in order, one message at a time.
type worker struct {
	// static after construction
	channel string
	name    string
	queue   config.Queue
	dest    destination
	store   store.Store
	log     *slog.Logger
	tell    func(Event)
	wakeup  chan struct{} // of capacity 1; never closed

	running run          // guarded by the channel's lifecycle lock
	works   atomic.Bool  // whether it runs, for those who only look
	failing atomic.Int64 // since when messages queue, in Unix nanoseconds; 0: they do not; set by loop

	// owned by the goroutine of loop
	resent   int64 // the last Seq whose resending was logged
	head     int64 // the Seq that refusals counts
	refusals int   // how often the destination has had and not taken the head
}

func (e *Engine) newWorker(ch *channel, cfg *config.Destination) *worker {
	opts := e.opts.of(ch.cfg.ID, cfg.Name)
	w := &worker{
		channel: ch.cfg.ID, name: cfg.Name, queue: cfg.Queue, store: e.store,
		log: ch.log.With("destination", cfg.Name), wakeup: make(chan struct{}, 1),
		tell: func(event Event) { event.Destination = cfg.Name; ch.tell(event) },
	}
	switch {
	case cfg.TCP != nil:
		w.dest = newTCPDestination(cfg.TCP, w, opts)
	case cfg.DICOM != nil:
		w.dest = newDICOMDestination(e, cfg.DICOM, w, opts)
	case cfg.HTTP != nil:
		w.dest = newHTTPDestination(cfg.HTTP, w, opts)
	case cfg.SMTP != nil:
		w.dest = newSMTPDestination(cfg.SMTP, w, opts)
	case cfg.MESH != nil:
		w.dest = newMESHDestination(ch, cfg.MESH, w, opts)
	case cfg.File != nil:
		w.dest = newFileDestination(e, cfg.File, w)
	default:
		w.dest = newChannelDestination(e, cfg.Channel, w)
	}
	return w
}

// run is what stops a worker that runs.
type run struct {
	finish chan struct{}      // closed by stop: take no further message; nil: not running
	abort  context.CancelFunc // cuts off the message in hand
	done   chan struct{}      // closed by the worker's goroutine when it ends
}

// start lets the worker begin; nothing happens when it runs. The caller holds
// the channel's lifecycle lock.
func (w *worker) start() {
	if w.running.finish != nil {
		return
	}
	ctx, abort := context.WithCancel(context.Background())
	w.running = run{finish: make(chan struct{}), abort: abort, done: make(chan struct{})}
	w.works.Store(true)
	go w.loop(ctx, w.running.finish, w.running.done)
}

// stop lets the message in hand be finished, until ctx ends, and returns when
// the worker has ended. The caller holds the channel's lifecycle lock.
func (w *worker) stop(ctx context.Context) {
	if w.running.finish == nil {
		return
	}
	close(w.running.finish)
	select {
	case <-w.running.done:
	case <-ctx.Done():
	}
	w.running.abort()
	<-w.running.done
	w.running = run{}
	w.works.Store(false)
}

// signal wakes the worker if it waits for messages.
func (w *worker) signal() {
	select {
	case w.wakeup <- struct{}{}:
	default: // it has not looked since the last signal, so it will see this too
	}
}

// loop works until it is told to end. After a panic, of the store for instance,
// it begins again from what the store holds.
func (w *worker) loop(ctx context.Context, finish, done chan struct{}) {
	defer close(done)
	defer w.dest.close()
	defer w.failing.Store(0) // nothing is tried any more
	for !w.work(ctx, finish) && wait(finish, storePause) {
	}
}

// work empties the queue until it is told to end, and then returns true.
func (w *worker) work(ctx context.Context, finish chan struct{}) (ended bool) {
	defer w.recovering("worker", func() { ended = false })
	for {
		batch, err := w.store.Pending(ctx, w.channel, w.name, 0, batchSize)
		switch {
		case ctx.Err() != nil:
			return true
		case err != nil:
			w.log.ErrorContext(ctx, "queue cannot be read", "err", err)
			if !wait(finish, storePause) {
				return true
			}
			continue
		case len(batch) == 0:
			if !w.idle(finish, lookInterval) {
				return true
			}
			continue
		}
		for i := range batch {
			d := &batch[i]
			if d.Skipped {
				if i > 0 {
					break // what has come in since the queue was read goes first
				}
				if pause := time.Until(d.NextAt); pause > 0 {
					if !w.idle(finish, pause) {
						return true
					}
					break
				}
			}
			if !w.deliver(ctx, d, finish) {
				return true
			}
		}
	}
}

// idle waits until there may be something in the queue, for so long at most. False
// means that the worker is to end.
func (w *worker) idle(finish <-chan struct{}, limit time.Duration) bool {
	look := time.NewTimer(min(limit, lookInterval))
	defer look.Stop()
	select {
	case <-w.wakeup:
	case <-look.C:
	case <-finish:
		return false
	}
	return true
}

// deliver tries d until it is out of the queue. False means that the worker is
// to end, with d still the head unless its end was recorded.
func (w *worker) deliver(ctx context.Context, d *store.Delivery, finish <-chan struct{}) bool {
	if w.head != d.Seq {
		w.head, w.refusals = d.Seq, 0
	}
	for {
		select {
		case <-finish:
			return false
		default:
		}
		if d.MaybeSent && w.resent != d.Seq {
			w.resent = d.Seq
			w.log.WarnContext(ctx, "sending again what may have arrived", "message", d.Message.ID)
		}
		w.store.Attempting(d)
		began := time.Now()
		err := w.attempt(ctx, d)
		if err == nil {
			w.tell(Event{Kind: Delivered, Duration: time.Since(began)})
			w.recovered()
			return w.record(ctx, finish, func(ctx context.Context) error { return w.dest.complete(ctx, d) })
		}
		failure := classify(err)
		w.tell(Event{Kind: Failed, Reason: failure.reason(), Duration: time.Since(began)})
		if failure.poison {
			w.refusals++
		}
		poison := failure.permanent || w.queue.MaxAttempts > 0 && w.refusals >= w.queue.MaxAttempts
		if failure.setAside || poison && w.queue.OnPoison == "deadletter" {
			w.log.ErrorContext(ctx, "message set aside as dead letter", "message", d.Message.ID, "code", failure.code, "err", err)
			return w.record(ctx, finish, func(ctx context.Context) error {
				return w.store.DeadLetter(ctx, d, failure.maybeSent, err.Error())
			})
		}
		pause := backoff(w.queue.RetryInterval, d.Attempts+1)
		if w.queue.OnPoison == "skip" && (poison || failure.poison && d.Skipped) {
			w.skipped(ctx, d, failure, err)
			return w.record(ctx, finish, func(ctx context.Context) error {
				return w.store.Skip(ctx, d, time.Now().Add(pause), failure.maybeSent, err.Error())
			})
		}
		w.failed(ctx, d, failure, poison, err)
		if !w.record(ctx, finish, func(ctx context.Context) error {
			return w.store.Failed(ctx, d, time.Now().Add(pause), failure.maybeSent, err.Error())
		}) || !wait(finish, pause) {
			return false
		}
	}
}

// attempt sends d once; a panic in the destination is an error like others.
func (w *worker) attempt(ctx context.Context, d *store.Delivery) (err error) {
	defer w.recovering("destination", func() { err = errPanic })
	return w.dest.send(ctx, d)
}

// recovering is deferred around what may panic.
func (w *worker) recovering(what string, then func()) {
	if r := recover(); r != nil {
		// What was panicked with may hold a part of the message; the stack holds
		// names and numbers only.
		w.log.Error("panic", "in", what, "type", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
		then()
	}
}

// record repeats what notes the end of an attempt until the store has taken it,
// because to send again instead would make a duplicate. False means that the
// worker is to end and the store did not take it: the store then remembers that
// an attempt had begun.
func (w *worker) record(ctx context.Context, finish <-chan struct{}, note func(context.Context) error) bool {
	said := false
	for {
		// Not cut off with the sending: what was sent is to be known.
		noteCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
		err := note(noteCtx)
		cancel()
		switch {
		case err == nil:
			return true
		case errors.Is(err, store.ErrNotFound):
			w.log.ErrorContext(ctx, "the delivery is not in the store any more", "err", err)
			return true
		case !said:
			said = true
			w.log.ErrorContext(ctx, "the end of a delivery cannot be recorded yet", "err", err)
		}
		select {
		case <-finish:
			return false
		default:
			wait(finish, storePause) // and one last try if finish was closed meanwhile
		}
	}
}

// failed says once that messages begin to queue.
func (w *worker) failed(ctx context.Context, d *store.Delivery, f failure, blocked bool, err error) {
	level := slog.LevelDebug
	if w.failing.CompareAndSwap(0, time.Now().UnixNano()) {
		level = slog.LevelWarn
	}
	w.log.Log(ctx, level, "delivery failed, messages queue",
		"message", d.Message.ID, "attempt", d.Attempts+1, "code", f.code, "blocked", blocked, "err", err)
}

// skipped says once of each message that others go before it.
func (w *worker) skipped(ctx context.Context, d *store.Delivery, f failure, err error) {
	level := slog.LevelDebug
	if !d.Skipped {
		level = slog.LevelWarn
	}
	w.log.Log(ctx, level, "message skipped, others go before it",
		"message", d.Message.ID, "attempt", d.Attempts+1, "code", f.code, "err", err)
}

// recovered says once that they no longer do.
func (w *worker) recovered() {
	if since := w.failing.Swap(0); since != 0 {
		w.log.Info("delivery works again", "after", time.Since(time.Unix(0, since)).Round(time.Millisecond))
	}
}

// wait returns true after pause and false at once when finish is closed.
func wait(finish <-chan struct{}, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-finish:
		return false
	}
}

var errPanic = errors.New("internal error in the destination")
