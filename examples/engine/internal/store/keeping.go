package store

import (
	"context"
	"time"
)

// A Pruner removes messages that are old enough, with all that is known of them,
// while the store is in use.
type Pruner interface {
	// Channels returns every channel that has ever taken something in, also those
	// that no configuration names any more.
	Channels(ctx context.Context) ([]string, error)

	// Prune removes messages of one channel, some at a time: so few that nobody's
	// intake waits long for it. Call it again with [Pruned.Next] until that is 0, and
	// leave the store time between the calls.
	//
	// A message with a queued delivery is never removed. What Stats counted stays
	// counted, dead letters that were removed included; a message's number is not
	// given to another; what [Once] remembers is remembered, with the number of a
	// message that is not there any more.
	Prune(ctx context.Context, channel string, p Pruning) (Pruned, error)
}

// Pruning says what is old enough. The zero value removes nothing.
type Pruning struct {
	// Before: messages that were received before this time are removed, once all
	// their deliveries are done.
	Before time.Time
	// DeadBefore: those of them with dead letters only if all of these were set
	// aside before this time. Zero: never.
	DeadBefore time.Time
	// After: look at messages with a larger number than this.
	After int64
}

// Pruned is what one call of Prune did.
type Pruned struct {
	Messages int   // that were removed
	Next     int64 // to go on from; 0: all have been looked at
}

// Sealing is what a store keeps for whoever seals the content of messages before it
// comes to the store (package sealed): with which keys that may be.
type Sealing interface {
	// UseSealingKey notes, durably, that what is taken in from now on is sealed with
	// key, or, if that is the zero value, with none. It must not run beside Intake or
	// Forward.
	UseSealingKey(ctx context.Context, key SealingKey) error

	// SealingKeys returns the keys with which messages that are there may be sealed:
	// of those that were noted, the ones in whose time messages were taken in that
	// have not been pruned.
	SealingKeys(ctx context.Context) ([]SealingKey, error)
}

// A SealingKey tells of a key, and does not hold it.
type SealingKey struct {
	ID    string
	Check []byte // something by which the holder of the key knows it again
}
