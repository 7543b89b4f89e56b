// Package store says what the engine asks of the place that keeps its messages.
//
// A channel takes a message in with [Store.Intake], which returns only when the
// message and one queued [Delivery] for each destination are on stable storage,
// all of them or none. Only then may the acknowledgement AA leave. Each pair of
// channel and destination is a queue of its own, strictly ordered by
// [Delivery.Seq]. One worker empties a queue, from the head:
//
//	batch, err := st.Pending(ctx, channel, destination, after, 16)
//	for _, d := range batch {
//		st.Attempting(&d)
//		switch err := send(ctx, &d); {
//		case err == nil:
//			err = st.Delivered(ctx, &d)      // done
//		case hopeless(err):
//			err = st.DeadLetter(ctx, &d, maybeSent(err), reason(err)) // out of the queue's way, kept
//		default:
//			err = st.Failed(ctx, &d, next, maybeSent(err), reason(err)) // remains the head
//		}
//	}
//
// # What survives what
//
// All methods that change something return after it is durable; none of them
// returns early. That the worker waits for Delivered costs it no sync of its
// own under load (completions share the commit of the messages coming in) and
// buys the engine this: at most one delivery of each queue can have been sent
// without the store knowing, namely the head.
//
// Therefore, when the process has died instead of calling Close, the store marks
// the head of every queue (and the first of those that were skipped, which may have
// been the head) as [Delivery.MaybeSent] at its next opening, before it
// hands out anything; the engine says "resend" in its audit when it sends such a
// delivery. After an orderly Close only those deliveries are marked whose attempt
// was announced by Attempting and has no recorded end.
//
// # When the store cannot store
//
// Healthy tells whether the last commit worked. [ErrFull] means that intake (and
// Forward, which is one) is refused for want of space while the other completions
// go on as long as they can, and that the store recovers by itself when there is
// space. [ErrFailed] means that the
// disk reported an error: nothing is accepted until the store has reopened and
// verified its files, which it keeps trying to do by itself. A completion
// (Delivered, Failed, Skip, DeadLetter, Forward) that returns either of them has not
// been recorded: repeat the call, not the sending. Completing twice is harmless.
//
// Package storetest holds what every implementation must pass, package sqlite
// the embedded one.
package store

import (
	"context"
	"errors"
	"time"
)

// A Message is what came in, byte for byte, and how.
type Message struct {
	ID        int64  // unique in the store, ascending in the order of intake; never 0
	Channel   string // the channel that took it in
	Received  time.Time
	ControlID string // as the channel's source read it; may be empty, not unique
	Raw       []byte
	Source    Source // the source's annotations
}

// An Intake is a message to be taken in.
type Intake struct {
	Channel      string // must not be empty
	ControlID    string // any bytes; may be empty
	Raw          []byte // the store does not keep or change it after Intake has returned
	Source       Source
	Destinations []string // a queued delivery for each, in this order; none means the message was filtered; no duplicates
	Once         Once     // what is known to come again, or zero
}

// Once makes an intake idempotent: while one with the same Key is remembered for the
// channel, another stores nothing, and returns the ID of the first. What is
// remembered is part of the transaction that stores the message, so it holds
// across crashes.
type Once struct {
	Key []byte        // 1 to 64 bytes; empty: the message is stored whatever came before
	For time.Duration // how long the key is remembered; must be positive with a Key
}

// A Delivery is one message's place in the queue of one destination.
type Delivery struct {
	Seq         int64 // unique in the store, ascending within a queue; never 0
	Message     Message
	Destination string
	Attempts    int       // attempts recorded with Failed (and DeadLetter)
	NextAt      time.Time // not before this time; zero means at once
	LastError   string    // the reason given with the last failure
	MaybeSent   bool      // an earlier attempt may have arrived: sending it is a resend
	Skipped     bool      // it comes after all that are not, also those to come; see Store.Skip
}

// Stats counts what became of a channel's messages, those that were pruned since
// included. For every destination, at any time, Received = Sent + Queued + Error.
type Stats struct {
	Received     int64              // messages taken in
	Filtered     int64              // of these, with no destination
	Sent         int64              // deliveries completed, over all destinations
	Queued       int64              // deliveries waiting, over all destinations
	Error        int64              // dead letters, over all destinations
	OldestQueued time.Time          // the earliest of the destinations'; zero when nothing waits
	LastReceived time.Time          // when the youngest message that is kept came in; zero: none is
	Destinations []DestinationStats // by name; every destination that ever received
}

// DestinationStats counts what became of one queue's deliveries.
type DestinationStats struct {
	Name         string
	Received     int64
	Sent         int64
	Queued       int64
	Error        int64
	OldestQueued time.Time // when the message at the head was received; zero when nothing waits
}

// A Store keeps messages and the queues of their deliveries. All methods may be
// called concurrently; of one queue, however, only one delivery may be between
// Attempting and its end, and that is the head.
//
// ctx bounds the wait for the store to begin: once a change is being committed,
// the method waits for the outcome, so that its result is the truth. An error
// that is ctx's means that nothing was changed.
type Store interface {
	Browser
	Pruner
	Sealing

	// Intake makes the message and one queued delivery for each destination
	// durable in one transaction, and returns after that. After any error the
	// caller must answer AE (or nothing), never AA: the message is not there.
	// One exception lies in the nature of disks: when the sync itself failed
	// ([ErrFailed]) and the process then dies, the next opening may find the
	// message complete and deliver it, although its sender was told AE. That is
	// a duplicate at worst, as the sender repeats it.
	Intake(ctx context.Context, in Intake) (id int64, err error)

	// Pending returns queued deliveries of one queue in order, those after the
	// sequence number after (0 means from the head): at least one if there is
	// one, at most limit, and fewer than limit when their payloads together
	// would exceed a few MiB. A queue that never existed is empty.
	Pending(ctx context.Context, channel, destination string, after int64, limit int) ([]Delivery, error)

	// Attempting announces that d, the head of its queue, is about to be sent:
	// call it before the first byte leaves. It does no input or output and
	// cannot fail. The completions below take it back.
	Attempting(d *Delivery)

	// Delivered completes d. Completing what is complete already (delivered or
	// dead) changes nothing and is no error; a delivery that does not exist is
	// [ErrNotFound].
	Delivered(ctx context.Context, d *Delivery) error

	// Failed records a failed attempt: d remains the head of its queue, to be
	// tried again at next. maybeSent tells that the attempt may have arrived; once
	// true it stays so. reason must hold nothing of the payload. On success d's
	// own fields are brought up to date.
	Failed(ctx context.Context, d *Delivery, next time.Time, maybeSent bool, reason string) error

	// Skip records a failed attempt as Failed does, and lets all others of the queue
	// that are not skipped go first, also those that are yet to be taken in: d gets
	// another sequence number. It is the last of those that are skipped.
	Skip(ctx context.Context, d *Delivery, next time.Time, maybeSent bool, reason string) error

	// DeadLetter takes d out of the queue after a last failed attempt, which
	// counts as in Failed, and keeps it for DeadLetters and Requeue.
	DeadLetter(ctx context.Context, d *Delivery, maybeSent bool, reason string) error

	// Forward completes d and takes in a message of another channel in one
	// transaction: never both and never neither. Forwarding a delivery that is
	// complete already changes nothing and returns 0 and nil.
	Forward(ctx context.Context, d *Delivery, in Intake) (id int64, err error)

	// DeadLetters returns the dead letters of one queue, with the arguments and
	// limits of Pending.
	DeadLetters(ctx context.Context, channel, destination string, after int64, limit int) ([]Delivery, error)

	// Requeue puts a dead letter at the end of its queue, with a new sequence
	// number, which it returns, no attempts, and MaybeSent as it was. (The end,
	// not its old place: what was sent since may depend on the order it was sent
	// in.) What is not a dead letter is [ErrNotFound].
	Requeue(ctx context.Context, seq int64) (newSeq int64, err error)

	// RequeueAll does what Requeue does with the oldest limit dead letters of one
	// queue, in their order and in one transaction, and returns how many they were.
	RequeueAll(ctx context.Context, channel, destination string, limit int) (n int, err error)

	// Remember keeps a value under a key of one channel for as long as once says, in
	// place of the one before, and returns when it is durable. It is [ErrInvalid]
	// without a key, or with more than 64 KiB of value.
	Remember(ctx context.Context, channel string, once Once, value []byte) error

	// Recall returns what Remember was given last for a key, and nil where there is
	// nothing, or nothing any more.
	Recall(ctx context.Context, channel string, key []byte) ([]byte, error)

	// Stats counts one channel's messages. A channel that never took anything in
	// has zero Stats.
	Stats(ctx context.Context, channel string) (Stats, error)

	// Healthy returns nil while the store accepts messages, and otherwise the
	// error that Intake would return: readiness is 503. It does no input or output.
	Healthy() error

	// Close waits for the commit in progress, refuses all that comes after, and
	// notes that the shutdown was orderly. Calls after the first do nothing.
	Close() error
}

// Errors that stores return, wrapped; find them with errors.Is.
var (
	// ErrFull is returned by the methods that change something when the disk is
	// full. Intake and Forward are refused at once until there is space again.
	ErrFull = errors.New("store: disk full")

	// ErrFailed is returned after an error of the disk until the store has
	// reopened and verified its files.
	ErrFailed = errors.New("store: failed, until reopened and verified")

	// ErrClosed is returned after Close.
	ErrClosed = errors.New("store: closed")

	// ErrInvalid is returned for what no store can keep: no channel, a
	// destination named twice or not at all, a payload or a key over the store's
	// limit.
	ErrInvalid = errors.New("store: invalid")

	// ErrNotFound is returned for a delivery or a message that does not exist.
	ErrNotFound = errors.New("store: not found")

	// ErrLocked is returned at opening when another process has the store open.
	ErrLocked = errors.New("store: in use by another process")

	// ErrTampered is returned for content that was changed in the store, or moved
	// there from another message.
	ErrTampered = errors.New("store: the content of the message was tampered with")

	// ErrNewer is returned at opening when a newer version of the engine has
	// written the store: it is left untouched.
	ErrNewer = errors.New("store: written by a newer version")
)
