package store

import (
	"context"
	"time"
)

// A Browser shows what a store keeps, to people. Its methods change nothing, and
// do not hold up intake or delivery.
type Browser interface {
	// Find returns messages of one channel, the youngest first: at most limit,
	// after the first offset of them. Without payloads.
	Find(ctx context.Context, channel string, f Filter, offset, limit int) ([]Summary, error)

	// Count counts what Find would find.
	Count(ctx context.Context, channel string, f Filter) (int64, error)

	// Message returns one message with its payload. One that the channel does not
	// have is [ErrNotFound].
	Message(ctx context.Context, channel string, id int64) (Message, error)

	// AllStats returns what Stats does of every channel that ever took something in,
	// by channel, at one moment.
	AllStats(ctx context.Context) (map[string]Stats, error)

	// Waiting returns every queue that is not empty, of whatever channel, also of
	// those that no configuration names any more.
	Waiting(ctx context.Context) ([]QueueLength, error)
}

// A Filter says which messages are meant; all that is set must hold. The zero value
// means all.
type Filter struct {
	MinID, MaxID int64     // inclusive; 0: no bound
	From, To     time.Time // received not before From, and before To; zero: no bound
	ControlID    string    // exactly this; empty: any
	// State picks messages with a delivery in this state, or, as Filtered, without
	// any delivery. 0: all.
	State State
	// Destination narrows State to the queue of this name; empty: any.
	Destination string
}

// State is where a delivery stands. Filtered is a message's that has none.
type State int

// The states.
const (
	Queued State = iota + 1
	Sent
	Dead
	Filtered
)

// A Summary is a message without its payload, and what became of it.
type Summary struct {
	Message // Raw is nil

	Bytes      int64     // of the payload
	Deliveries []Outcome // in the order of their sequence numbers
}

// An Outcome is where one delivery of a message stands.
type Outcome struct {
	Seq         int64
	Destination string
	State       State
	Attempts    int // recorded failed ones
	MaybeSent   bool
	LastError   string
	NextAt      time.Time // of Queued: not before; zero: at once
	DoneAt      time.Time // of Sent and Dead
}

// A QueueLength is how many deliveries wait in a queue.
type QueueLength struct {
	Channel, Destination string
	Queued               int64
}
