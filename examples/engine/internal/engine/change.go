package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

// ErrChannelExists is returned by Add for an id that a channel has.
var ErrChannelExists = errors.New("channel already exists")

// A QueuedError is returned for a change that would leave messages behind.
type QueuedError struct {
	Channel     string
	Destination string // whose queue it is
	Queued      int64
	Dead        int64 // dead letters, where they stand in the way too
}

// Error says what waits.
func (e *QueuedError) Error() string {
	return fmt.Sprintf("channel %s still has messages for %s: %d queued, %d dead letters", e.Channel, e.Destination, e.Queued, e.Dead)
}

// Add brings in a channel, undeployed: it does nothing until DeployChannel. The
// configuration must come from package config and not be changed afterwards.
func (e *Engine) Add(cfg *config.Channel) error {
	e.changing.Lock()
	defer e.changing.Unlock()
	now := e.set.Load()
	if _, exists := now.byID[cfg.ID]; exists {
		return fmt.Errorf("%w: %s", ErrChannelExists, cfg.ID)
	}
	next, err := newSet(now.with(nil, e.newChannel(cfg)))
	if err != nil {
		return err
	}
	e.set.Store(next)
	return nil
}

// Replace gives a channel other settings, and leaves it in the state it was in: one
// that runs is stopped, exchanged and started. What is queued stays queued, and is
// delivered by the new settings. ctx bounds the wait for what is in hand.
//
// It is refused with a *QueuedError while messages wait for a destination that the
// new settings do not have, unless force is set: then they stay in the store, are
// shown in the status, and go on when there is a destination of that name again.
// After an error the channel is as it was before, also where the new settings could
// not be started.
func (e *Engine) Replace(ctx context.Context, cfg *config.Channel, force bool) error {
	return e.exchange(ctx, cfg.ID, cfg, force)
}

// Remove takes a channel away. It is refused with ErrTargets while a destination of
// another leads to it, and with a *QueuedError while messages wait or are dead
// letters, unless force is set: then they stay in the store, where a channel of the
// same id finds them. ctx bounds the wait for what is in hand.
func (e *Engine) Remove(ctx context.Context, id string, force bool) error {
	return e.exchange(ctx, id, nil, force)
}

// exchange puts a channel with the settings cfg, or none, in the place of one.
func (e *Engine) exchange(ctx context.Context, id string, cfg *config.Channel, force bool) error {
	e.changing.Lock()
	defer e.changing.Unlock()
	old, err := e.channel(id)
	if err != nil {
		return err
	}
	var fresh *channel
	if cfg != nil {
		fresh = e.newChannel(cfg)
	}
	now := e.set.Load()
	next, err := newSet(now.with(old, fresh))
	if err != nil {
		return err
	}
	leaves := func() error {
		if force {
			return nil
		}
		return e.leavesBehind(ctx, old, fresh)
	}
	if err := leaves(); err != nil { // before anything is disturbed
		return err
	}

	old.lifecycle.Lock()
	defer old.lifecycle.Unlock()
	before := old.currentState()
	_ = old.stopLocked(ctx) // what was cut off is sent again
	running := context.WithoutCancel(ctx)
	old.exchange.Lock() // from here to the end of the exchange nothing is put into its queues
	err = leaves()
	if err == nil {
		e.set.Store(next)
		old.gone = true
	}
	old.exchange.Unlock()
	switch {
	case err != nil:
		return errors.Join(err, old.restoreLocked(running, before))
	case fresh == nil:
		old.setState(removed)
		old.log.InfoContext(ctx, "channel removed")
		return nil
	}

	fresh.lifecycle.Lock()
	defer fresh.lifecycle.Unlock()
	if err = fresh.restoreLocked(running, before); err == nil {
		old.setState(removed)
		return nil
	}
	fresh.exchange.Lock()
	old.exchange.Lock()
	e.set.Store(now)
	fresh.gone, old.gone = true, false
	old.exchange.Unlock()
	fresh.exchange.Unlock()
	fresh.setState(removed)
	return errors.Join(err, old.restoreLocked(running, before))
}

// restoreLocked brings a channel of which nothing runs into a state.
func (ch *channel) restoreLocked(ctx context.Context, state State) error {
	if state == Undeployed {
		ch.setState(Undeployed)
		return nil
	}
	return ch.startLocked(ctx, state)
}

// leavesBehind returns a *QueuedError if messages would be without a destination
// when fresh, or nothing, has the place of old.
func (e *Engine) leavesBehind(ctx context.Context, old, fresh *channel) error {
	stats, err := e.store.Stats(ctx, old.cfg.ID)
	if err != nil {
		return err
	}
	for _, d := range stats.Destinations {
		left := &QueuedError{Channel: old.cfg.ID, Destination: d.Name, Queued: d.Queued}
		if fresh == nil && d.Error > 0 { // they could not be seen any more
			kept, err := e.store.DeadLetters(ctx, old.cfg.ID, d.Name, 0, 1)
			if err != nil {
				return err
			}
			if len(kept) > 0 { // and have not all been pruned, which does not uncount them
				left.Dead = d.Error
			}
		}
		if fresh != nil && slices.Contains(fresh.destinations, d.Name) {
			continue
		}
		// What has had no destination before is not left behind by this change.
		if left.Queued+left.Dead > 0 && (fresh == nil || slices.Contains(old.destinations, d.Name)) {
			return left
		}
	}
	return nil
}

// warnOfStranded says in the log which queues nobody empties.
func (e *Engine) warnOfStranded(ctx context.Context) {
	waiting, err := e.store.Waiting(ctx)
	if err != nil {
		e.log.ErrorContext(ctx, "queues cannot be listed", "err", err)
		return
	}
	now := e.set.Load()
	for _, q := range waiting {
		if ch, ok := now.byID[q.Channel]; !ok || !slices.Contains(ch.destinations, q.Destination) {
			e.log.WarnContext(ctx, "messages wait for a destination that is not configured any more",
				"channel", q.Channel, "destination", q.Destination, "queued", q.Queued)
		}
	}
}
