package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// ErrQueueFull is returned for a message that is not taken in because as many as may
// already wait for one of its destinations. It may be sent again later.
var ErrQueueFull = errors.New("queue full")

// room says whether the queues of a channel have room for a message more. How many
// wait the store knows; it is asked only when what it said last is used up, so that
// a queue far from its bound costs nothing.
type room struct {
	// static after construction
	channel string
	store   store.Store
	log     *slog.Logger

	mu    sync.Mutex
	known []bound // those of destinations that have one; their fields are guarded by mu
}

// A bound is that of one queue.
type bound struct {
	destination string // static after construction
	limit       int64  // static after construction

	free    int64 // how many may be taken in before the store is asked again
	pending int64 // how many are being taken in
	full    bool  // and that has been said
}

// newRoom returns the room of a channel, or nil where no queue has a bound.
func (e *Engine) newRoom(cfg *config.Channel, log *slog.Logger) *room {
	r := &room{channel: cfg.ID, store: e.store, log: log}
	for _, d := range cfg.Destinations {
		if d.Queue.MaxMessages > 0 {
			r.known = append(r.known, bound{destination: d.Name, limit: int64(d.Queue.MaxMessages)})
		}
	}
	if r.known == nil {
		return nil
	}
	return r
}

// reserve makes room for one message in the queues of all destinations, and returns
// what is to be called when it is in the store, or is not going to be. The error is
// ErrQueueFull, or what the store said.
func (r *room) reserve(ctx context.Context, destinations []string) (done func(), err error) {
	if r == nil {
		return func() {}, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var mine []*bound
	for i := range r.known {
		if slices.Contains(destinations, r.known[i].destination) {
			mine = append(mine, &r.known[i])
		}
	}
	for _, b := range mine {
		if b.free > 0 {
			continue
		}
		if err := r.ask(ctx, b); err != nil {
			return nil, err
		}
	}
	for _, b := range mine {
		b.free--
		b.pending++
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, b := range mine {
			b.pending--
		}
	}, nil
}

// ask has the store say how many wait. What is being taken in counts with them, twice
// for a moment: rather one is refused than one too many taken. The caller holds mu.
func (r *room) ask(ctx context.Context, b *bound) error {
	stats, err := r.store.Stats(ctx, r.channel)
	if err != nil {
		return err
	}
	var queued int64
	for _, d := range stats.Destinations {
		if d.Name == b.destination {
			queued = d.Queued
		}
	}
	b.free = max(0, b.limit-queued-b.pending)
	switch {
	case b.free == 0:
		if !b.full {
			b.full = true
			r.log.WarnContext(ctx, "queue full, nothing is taken in", "destination", b.destination, "queued", queued)
		}
		return fmt.Errorf("%w: %d messages wait for %s", ErrQueueFull, queued, b.destination)
	case b.full && queued <= b.limit-b.limit/4: // or there would be a line for each message
		b.full = false
		r.log.InfoContext(ctx, "the queue has room again", "destination", b.destination, "queued", queued)
	}
	return nil
}

// recount has the store asked before the next message.
func (r *room) recount() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.known {
		r.known[i].free = 0
	}
}
