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
	Stopping State = "STOPPING"
)

// StateError is returned for a command that a channel's state does not allow.
type StateError struct {
	Command string // "start" or "stop"
	State   State
}

// Error is in the words that clients of the API know.
func (e *StateError) Error() string {
	return fmt.Sprintf("Cannot %s channel in state: %s", e.Command, e.State)
}

// channel is one source, its workers, and their common state.
type channel struct {
	// static after construction
	cfg          *config.Channel
	engine       *Engine
	log          *slog.Logger
	source       source
	workers      []*worker
	destinations []string // their names, in order

	refusing atomic.Bool // whether the last message could not be stored

	lifecycle sync.Mutex // held while the channel starts or stops: one at a time

	mu       sync.Mutex
	state    State     // guarded by mu
	deployed time.Time // when it was started last; guarded by mu
}

func (e *Engine) newChannel(cfg *config.Channel, opts Options) *channel {
	ch := &channel{cfg: cfg, engine: e, log: e.log.With("channel", cfg.ID), state: Stopped}
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
		ch.workers = append(ch.workers, e.newWorker(ch, &cfg.Destinations[i], opts))
		ch.destinations = append(ch.destinations, cfg.Destinations[i].Name)
	}
	return ch
}

func (ch *channel) startWorkers() {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
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

// start opens the port after the workers run.
func (ch *channel) start(ctx context.Context) error {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if state := ch.currentState(); state != Stopped {
		return &StateError{Command: "start", State: state}
	}
	if ch.engine.closing.Load() {
		return &StateError{Command: "start", State: Stopping}
	}
	ch.setState(Starting)
	for _, w := range ch.workers {
		w.start() // it outlives the request that starts it
	}
	if err := ch.source.open(ctx); err != nil {
		ch.setState(Stopped)
		ch.stopWorkersLocked(ctx)
		return err
	}
	ch.setState(Started)
	listener := ch.source.listener()
	if !listener.Listening {
		ch.setState(Stopped) // over what sourceFailed may have set before
		return errors.New("the source ended at once: the log says why")
	}
	ch.log.InfoContext(ctx, "channel started", "host", listener.Host, "port", listener.Port, "transport", listener.Transport)
	return nil
}

func (ch *channel) stop(ctx context.Context) error {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if state := ch.currentState(); state != Started {
		return &StateError{Command: "stop", State: state}
	}
	err := ch.stopSourceLocked(ctx)
	ch.stopWorkersLocked(ctx)
	return err
}

// stopSource closes the port and leaves the workers running.
func (ch *channel) stopSource(ctx context.Context) error {
	ch.lifecycle.Lock()
	defer ch.lifecycle.Unlock()
	if ch.currentState() != Started {
		return nil
	}
	return ch.stopSourceLocked(ctx)
}

func (ch *channel) stopSourceLocked(ctx context.Context) error {
	ch.setState(Stopping)
	err := ch.source.close(ctx)
	ch.setState(Stopped)
	ch.log.InfoContext(ctx, "channel stopped")
	return err
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
	if state == Started {
		ch.deployed = time.Now()
	}
}
