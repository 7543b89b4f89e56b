// Package engine runs channels: each takes messages in from its source, makes
// them durable, and hands each to its destinations, strictly in order and for as
// long as it takes.
//
// Three rules make the promise "never acknowledged and lost":
//
//   - A source acknowledges after [store.Store.Intake] has returned, never before.
//   - A destination's queue is the store's, not this package's: a worker reads
//     the head, sends it, and records the end. Nothing waits in memory alone.
//   - What may have arrived and is sent again is marked so in the store.
//
// The order of a start is: store, destinations, API, and sources last, so that a
// port accepts nothing that cannot be kept and watched. Shutdown goes the other
// way.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/tlsprops"
)

// ErrUnknownChannel is returned for an id that no channel has.
var ErrUnknownChannel = errors.New("channel not found")

// Options are what an Engine needs besides its configuration and its store. The
// zero value is ready to use.
type Options struct {
	Logger *slog.Logger // nil: nothing is logged
	// TLSReloadInterval is how often TLS files are looked at; zero: 10 s.
	TLSReloadInterval time.Duration
	// Observe is called for every Event, from several goroutines at a time, and must
	// not block. nil: nobody wants to know.
	Observe func(Event)
	// Certificates is called for what happens to the TLS files of connectors, by
	// several goroutines at a time. nil: nobody wants to know.
	Certificates func(CertificateEvent)

	certificates func(tlsprops.Event) // of one connector; nil: nobody wants to know
}

// A CertificateEvent is what happened to the TLS files of one connector.
type CertificateEvent struct {
	tlsprops.Event

	Channel     string
	Destination string // empty: the source
}

// of returns the options of one connector.
func (o Options) of(channel, destination string) Options {
	if tell := o.Certificates; tell != nil {
		o.certificates = func(e tlsprops.Event) { tell(CertificateEvent{e, channel, destination}) }
	}
	return o
}

// Engine runs channels: those of a configuration, and those that Add brings. Make
// it with New. Its methods may be called concurrently.
type Engine struct {
	// static after construction
	store       store.Store
	log         *slog.Logger
	opts        Options
	dataDir     string
	commitments *dicomtls.Commitments // of all sources and destinations of type dicom
	mailboxes   map[string]*mailbox   // of all sources and destinations of type mesh; after New guarded by changing

	set      atomic.Pointer[set] // the channels that there are now
	changing sync.Mutex          // held while set is exchanged: one change at a time
	closing  atomic.Bool         // set by StopSources: no channel starts any more
}

// New returns an engine in which nothing runs yet. The configuration must come
// from package config and not be changed afterwards.
func New(cfg *config.Config, st store.Store, opts Options) *Engine {
	e := &Engine{store: st, log: opts.Logger, opts: opts, dataDir: cfg.DataDir}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.commitments = newCommitments(e.log)
	channels := make([]*channel, len(cfg.Channels))
	for i := range cfg.Channels {
		channels[i] = e.newChannel(&cfg.Channels[i])
		channels[i].state = Stopped // and not Undeployed: StartSources starts it
	}
	first, _ := newSet(channels) // package config has checked it
	e.set.Store(first)
	return e
}

// StartDestinations begins to deliver what the store holds, which after a crash
// is what the crash left. Channels that are to begin stopped begin nothing.
func (e *Engine) StartDestinations() {
	for _, ch := range e.set.Load().channels {
		if ch.initial() != Stopped {
			ch.startWorkers()
		}
	}
}

// StartSources brings all channels into their initial state, which opens the
// ports of most. On an error, which names the channel, those that it had opened are
// closed again.
func (e *Engine) StartSources(ctx context.Context) error {
	e.warnOfStranded(ctx)
	for _, ch := range e.set.Load().channels {
		if err := ch.start(ctx, ch.initial()); err != nil {
			return errors.Join(fmt.Errorf("channel %s: %w", ch.cfg.ID, err), e.StopSources(ctx))
		}
	}
	return nil
}

// StopSources closes the ports of all channels and waits for the messages that
// are being taken in, until ctx ends; what is left then is cut off, without an
// acknowledgement. No channel can be started after it.
func (e *Engine) StopSources(ctx context.Context) error {
	e.closing.Store(true)
	return e.onAll(func(ch *channel) error { return ch.stopSource(ctx) })
}

// StopDestinations waits for the deliveries in hand, until ctx ends; what is
// left then is cut off, and sent again by the next start.
func (e *Engine) StopDestinations(ctx context.Context) {
	_ = e.onAll(func(ch *channel) error { ch.stopWorkers(ctx); return nil })
}

// onAll calls f for all channels at once, so that they share a deadline rather
// than use it up one after the other.
func (e *Engine) onAll(f func(*channel) error) error {
	channels := e.set.Load().channels
	results := make(chan error, len(channels))
	for _, ch := range channels {
		go func() { results <- f(ch) }()
	}
	var err error
	for range channels {
		err = errors.Join(err, <-results)
	}
	return err
}

// Healthy returns nil while the engine can take messages in.
func (e *Engine) Healthy() error { return e.store.Healthy() }

func (e *Engine) channel(id string) (*channel, error) {
	if ch, ok := e.set.Load().byID[id]; ok {
		return ch, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownChannel, id)
}
