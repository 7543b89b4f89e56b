// Package retention removes messages that have been kept long enough, by the clock.
package retention

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// interval is between the ends and beginnings of two passes through all channels. What
	// is kept for days need not go by the minute, and a pass looks at every message
	// there is, if only in an index.
	interval = 6 * time.Hour
	// firstPause lets a start, and what it has to catch up with, be first.
	firstPause = time.Minute
	// share is how much of the time the store works for pruning: one part in so many.
	// The rest is the intake's alone.
	share = 4
	// leastPause and longestPause are around that.
	leastPause   = 2 * time.Millisecond
	longestPause = time.Second
)

// Limits are how long something is kept. Zero: for ever.
type Limits struct {
	Messages    time.Duration // since a message was received
	DeadLetters time.Duration // since a dead letter was set aside; without Messages of no effect
}

// Keeper removes what is older than its limits. Its fields are not changed once Run
// has been called.
type Keeper struct {
	Store store.Pruner
	// Limits returns those of a channel, which may be one that no configuration names
	// any more. It is asked anew in every pass.
	Limits func(channel string) Limits
	Logger *slog.Logger
}

// Run makes passes until ctx ends. What cannot be removed now, because the store is
// not well, is looked at again by the next.
func (k *Keeper) Run(ctx context.Context) {
	for pause := firstPause; wait(ctx, pause); pause = interval {
		k.pass(ctx)
	}
}

func (k *Keeper) pass(ctx context.Context) {
	channels, err := k.Store.Channels(ctx)
	if err != nil && ctx.Err() == nil {
		k.Logger.ErrorContext(ctx, "old messages cannot be looked for", "err", err)
	}
	for _, channel := range channels {
		limits := k.Limits(channel)
		if limits.Messages <= 0 {
			continue
		}
		begun := time.Now()
		removed, err := k.prune(ctx, channel, limits)
		if err != nil && !errors.Is(err, context.Canceled) {
			k.Logger.ErrorContext(ctx, "old messages cannot be removed", "channel", channel, "err", err)
		}
		if removed > 0 {
			k.Logger.InfoContext(ctx, "old messages removed", "channel", channel, "messages", removed, "in", time.Since(begun).Round(time.Millisecond))
		}
	}
}

// prune goes once through a channel.
func (k *Keeper) prune(ctx context.Context, channel string, limits Limits) (removed int, err error) {
	now := time.Now()
	p := store.Pruning{Before: now.Add(-limits.Messages)}
	if limits.DeadLetters > 0 {
		p.DeadBefore = now.Add(-limits.DeadLetters)
	}
	for {
		begun := time.Now()
		done, err := k.Store.Prune(ctx, channel, p)
		removed += done.Messages
		if err != nil || done.Next == 0 {
			return removed, err
		}
		p.After = done.Next
		if !wait(ctx, min(max((share-1)*time.Since(begun), leastPause), longestPause)) {
			return removed, ctx.Err()
		}
	}
}

// wait returns true after pause and false when ctx ends.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
