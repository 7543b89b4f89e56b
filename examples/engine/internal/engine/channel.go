package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

// State is what a channel does, in the words of the API.
type State string

// The states of a channel.
const (
	Stopped  State = "STOPPED"
	Starting State = "STARTING"
	Started  State = "STARTED"
	Pausing  State = "PAUSING"
	Paused   State = "PAUSED" // takes nothing in, and delivers what is queued
	Stopping State = "STOPPING"
	// Undeployed is there and does nothing, like Stopped, until it is deployed.
	Undeployed State = "UNDEPLOYED"

	// removed is that of a channel whose place another has, or none. Nobody sees it:
	// who holds such a channel looks again.
	removed State = "REMOVED"
)

// StateError is returned for a command that a channel's state does not allow.
type StateError struct {
	Command string // "start", "stop", "pause", "resume" or "send to"
	State   State
}

// Error is in the words that clients of the API know.
func (e *StateError) Error() string {
	return fmt.Sprintf("Cannot %s channel in state: %s", e.Command, e.State)
}

// errEnded is returned where a source did not last until it was reported open.
var errEnded = errors.New("the source ended at once: the log says why")

// channel is one source, its workers, and their common state.
type channel struct {
	// static after construction
	cfg          *config.Channel
	engine       *Engine
	log          *slog.Logger
	source       source
	workers      []*worker
	destinations []string // their names, in order
	files        []*watchedFiles
	room         *room // nil: no queue has a bound

	refusing atomic.Bool // whether the last message could not be stored

	lifecycle sync.Mutex // held while the channel starts or stops: one at a time

	// exchange is held for reading while a message is put into the queues, and for
	// writing while the channel is replaced or removed.
	exchange sync.RWMutex
	gone     bool // another has its place, or none; guarded by exchange

	mu       sync.Mutex
	state    State              // guarded by mu
	deployed time.Time          // when it was started last; guarded by mu
	cut      context.CancelFunc // ends the wait of a stop for what is in hand; nil: none waits; guarded by mu
}

// newChannel makes a channel that is not deployed.
func (e *Engine) newChannel(cfg *config.Channel) *channel {
	ch := &channel{cfg: cfg, engine: e, log: e.log.With("channel", cfg.ID), state: Undeployed, files: filesOf(cfg, e.opts)}
	opts := e.opts.of(cfg.ID, "")
	switch {
	case cfg.Source.TCP != nil:
		ch.source = newTCPSource(ch, opts)
	case cfg.Source.DICOM != nil:
		ch.source = newDICOMSource(ch, opts)
	case cfg.Source.HTTP != nil:
		ch.source = newHTTPSource(ch, opts)
	case cfg.Source.MESH != nil:
		ch.source = newMESHSource(ch, opts)
	default:
		ch.source = new(channelSource)
	}
	for i := range cfg.Destinations {
		ch.workers = append(ch.workers, e.newWorker(ch, &cfg.Destinations[i]))
		ch.destinations = append(ch.destinations, cfg.Destinations[i].Name)
	}
	ch.room = e.newRoom(cfg, ch.log)
	return ch
}

// initial is the state in which the channel is to begin: Started, Paused or Stopped.
func (ch *channel) initial() State {
	if ch.cfg.InitialState == "" {
		return Started
	}
	return State(ch.cfg.InitialState)
}

func (ch *channel) startWorkers() {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	ch.startWorkersLocked()
}

// startWorkersLocked starts those that do not run. They outlive the request that
// starts them.
func (ch *channel) startWorkersLocked() {
	for _, w := range ch.workers {
		w.start()
	}
}

func (ch *channel) stopWorkers(ctx context.Context) {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	ch.stopWorkersLocked(ctx)
}

func (ch *channel) stopWorkersLocked(ctx context.Context) {
	var wg sync.WaitGroup
	for _, w := range ch.workers {
		wg.Go(func() { w.stop(ctx) })
	}
	wg.Wait()
}

// start brings a stopped channel to the state to: Started, Paused, or Stopped, which
// it is.
func (ch *channel) start(ctx context.Context, to State) error {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if state := ch.currentState(); state != Stopped {
		return &StateError{Command: "start", State: state}
	}
	return ch.startLocked(ctx, to)
}

// startLocked opens the source after the workers run.
func (ch *channel) startLocked(ctx context.Context, to State) error {
	if ch.engine.closing.Load() {
		return &StateError{Command: "start", State: Stopping}
	}
	if to == Stopped {
		ch.setState(Stopped)
		return nil
	}
	ch.setState(Starting)
	ch.startWorkersLocked()
	if to == Paused {
		ch.setState(Paused)
		ch.log.InfoContext(ctx, "channel paused")
		return nil
	}
	err := ch.openLocked(ctx, Stopped)
	if err != nil && !errors.Is(err, errEnded) {
		ch.stopWorkersLocked(ctx)
	}
	return err
}

// openLocked opens the source. After an error the channel is in the state
// otherwise.
func (ch *channel) openLocked(ctx context.Context, otherwise State) error {
	ch.setState(Starting)
	if err := ch.source.open(ctx); err != nil {
		ch.setState(otherwise)
		return err
	}
	ch.setState(Started)
	listener := ch.source.listener()
	if !listener.Listening {
		ch.setState(otherwise) // over what sourceFailed may have set before
		return errEnded
	}
	ch.log.InfoContext(ctx, "channel started", "host", listener.Host, "port", listener.Port, "transport", listener.Transport)
	return nil
}

func (ch *channel) stop(ctx context.Context) error {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if state := ch.currentState(); state != Started && state != Paused {
		return &StateError{Command: "stop", State: state}
	}
	return ch.stopLocked(ctx)
}

// stopLocked closes the source and then stops the workers; ctx bounds the wait for
// what is in hand.
func (ch *channel) stopLocked(ctx context.Context) error {
	ctx, done := ch.cuttable(ctx)
	defer done()
	err := ch.closeLocked(ctx, Stopping, Stopped)
	ch.stopWorkersLocked(ctx)
	return err
}

// halt stops the channel and waits for nothing: what is in hand is cut off, without
// an acknowledgement, and sent again later. It cuts off a stop that waits, too.
func (ch *channel) halt(ctx context.Context) error {
	ch.mu.Lock()
	if ch.cut != nil {
		ch.cut()
	}
	ch.mu.Unlock()
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if state := ch.currentState(); state == Undeployed || state == removed {
		return &StateError{Command: "halt", State: state}
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	// That something was cut off is what was asked for.
	_ = ch.stopLocked(ctx)
	return nil
}

// cuttable returns a context that halt can end, and what to call afterwards.
func (ch *channel) cuttable(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	set := func(cut context.CancelFunc) {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		ch.cut = cut
	}
	set(cancel)
	return ctx, func() {
		set(nil)
		cancel()
	}
}

// pause closes the source; the workers go on.
func (ch *channel) pause(ctx context.Context) error {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if state := ch.currentState(); state != Started {
		return &StateError{Command: "pause", State: state}
	}
	ctx, done := ch.cuttable(ctx)
	defer done()
	return ch.closeLocked(ctx, Pausing, Paused)
}

// resume opens the source of a paused channel.
func (ch *channel) resume(ctx context.Context) error {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if state := ch.currentState(); state != Paused {
		return &StateError{Command: "resume", State: state}
	}
	if ch.engine.closing.Load() {
		return &StateError{Command: "resume", State: Stopping}
	}
	return ch.openLocked(ctx, Paused)
}

// stopSource closes the port and leaves the workers running.
func (ch *channel) stopSource(ctx context.Context) error {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if ch.currentState() != Started {
		return nil
	}
	return ch.closeLocked(ctx, Stopping, Stopped)
}

func (ch *channel) closeLocked(ctx context.Context, meanwhile, then State) error {
	ch.setState(meanwhile)
	err := ch.source.close(ctx)
	ch.setState(then)
	if then == Paused {
		ch.log.InfoContext(ctx, "channel paused")
	} else {
		ch.log.InfoContext(ctx, "channel stopped")
	}
	return err
}

// connector starts or stops one destination of a channel that runs.
func (ch *channel) connector(ctx context.Context, i int, run bool) error {
	command := "stop a connector of"
	if run {
		command = "start a connector of"
	}
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	state := ch.currentState()
	switch {
	case state != Started && state != Paused:
		return &StateError{Command: command, State: state}
	case run && ch.engine.closing.Load():
		return &StateError{Command: command, State: Stopping}
	case run:
		ch.workers[i].start()
	default:
		ctx, done := ch.cuttable(ctx)
		defer done()
		ch.workers[i].stop(ctx)
	}
	return nil
}

// sourceFailed notes that the port has closed by itself.
func (ch *channel) sourceFailed(err error) {
	ch.setState(Stopped)
	ch.log.Error("source failed, channel takes nothing in", "err", err)
}

// wake tells the workers that something is queued.
func (ch *channel) wake() {
	for _, w := range ch.workers {
		w.signal()
	}
}

func (ch *channel) currentState() State {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.state
}

func (ch *channel) setState(state State) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.state = state
	if state == Started || state == Paused && ch.deployed.IsZero() {
		ch.deployed = time.Now()
	}
}
