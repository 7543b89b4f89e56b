package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// Errors of messages that are put into a channel other than by its source.
var (
	// ErrUnpassable is returned for a message that a destination could never send.
	ErrUnpassable = errors.New("a destination of the channel cannot carry this message")
	// ErrNoDestination is returned for a name that no destination of a channel has.
	ErrNoDestination = errors.New("destination not found")
)

// requeueBatch is how many dead letters go back in one transaction.
const requeueBatch = 500

// Injected is a message that comes into a channel beside its source.
type Injected struct {
	Raw []byte
	// Notes are for the source map. Those that mean something to the engine itself,
	// such as which DICOM object a message stands for, are left out: they would let
	// whoever can send a message choose a file.
	Notes        map[string]string
	Destinations []string // names; nil: all of the channel
	Once         store.Once
}

// Inject makes a message durable in a channel, as its source does, and returns its
// number. The channel must be started. The errors are ErrUnknownChannel, *StateError,
// ErrUnpassable, ErrNoDestination, ErrQueueFull, and those of [store.Store.Intake].
func (e *Engine) Inject(ctx context.Context, id string, in Injected) (int64, error) {
	notes := maps.Clone(in.Notes)
	for _, name := range []string{objectNote, charsetNote, "sourceChannelId", "tlsClientSubject", ReprocessedNote} {
		delete(notes, name)
	}
	return e.inject(ctx, id, in, store.NewSource(notes), Started)
}

func (e *Engine) inject(ctx context.Context, id string, in Injected, source store.Source, states ...State) (message int64, err error) {
	err = e.holding(id, func(ch *channel) error {
		if state := ch.currentState(); !slices.Contains(states, state) {
			return &StateError{Command: "send to", State: state}
		}
		for _, name := range in.Destinations {
			if !slices.Contains(ch.destinations, name) {
				return fmt.Errorf("%w: %s", ErrNoDestination, name)
			}
		}
		var h mllp.Header
		_ = h.Parse(in.Raw)                    // what is not HL7 has no control ID, and is no acknowledgement
		if len(ch.routes()) > 0 && h.IsAck() { // nobody answers one: it would stay the head of a queue
			return fmt.Errorf("%w: it is an acknowledgement", ErrUnpassable)
		}
		if !ch.carries(in.Raw) {
			return fmt.Errorf("%w: it holds framing characters", ErrUnpassable)
		}
		message, err = ch.take(ctx, store.Intake{
			ControlID: string(h.ControlID), Raw: in.Raw, Source: source, Destinations: in.Destinations, Once: in.Once,
		})
		return err
	})
	return message, err
}

// Reprocess takes a message of a channel in again, as a new one with a number of its
// own, for the named destinations (nil: all). The channel must be started or paused.
// The errors are those of Inject, and [store.ErrNotFound].
func (e *Engine) Reprocess(ctx context.Context, id string, message int64, destinations []string) (int64, error) {
	if _, err := e.channel(id); err != nil {
		return 0, err
	}
	m, err := e.store.Message(ctx, id, message)
	if err != nil {
		return 0, err
	}
	source := m.Source.With(ReprocessedNote, strconv.FormatInt(message, 10))
	return e.inject(ctx, id, Injected{Raw: m.Raw, Destinations: destinations}, source, Started, Paused)
}

// ReprocessedNote is under which a message's source map has the number of the one
// that it repeats.
const ReprocessedNote = "reprocessedFrom"

// Messages returns messages of a channel, youngest first; see [store.Browser].
func (e *Engine) Messages(ctx context.Context, id string, f store.Filter, offset, limit int) ([]store.Summary, error) {
	if _, err := e.channel(id); err != nil {
		return nil, err
	}
	return e.store.Find(ctx, id, f, offset, limit)
}

// CountMessages counts what Messages would return.
func (e *Engine) CountMessages(ctx context.Context, id string, f store.Filter) (int64, error) {
	if _, err := e.channel(id); err != nil {
		return 0, err
	}
	return e.store.Count(ctx, id, f)
}

// Message returns one message with its payload.
func (e *Engine) Message(ctx context.Context, id string, message int64) (store.Message, error) {
	if _, err := e.channel(id); err != nil {
		return store.Message{}, err
	}
	return e.store.Message(ctx, id, message)
}

// DeadLetters returns dead letters of one destination, the oldest first, those after
// the sequence number after. The destination need not be configured any more.
func (e *Engine) DeadLetters(ctx context.Context, id, destination string, after int64, limit int) ([]store.Delivery, error) {
	if _, err := e.channel(id); err != nil {
		return nil, err
	}
	return e.store.DeadLetters(ctx, id, destination, after, limit)
}

// Requeue puts one dead letter of a destination at the end of its queue, and returns
// its new sequence number. The errors are ErrUnknownChannel, ErrNoDestination where
// nobody would empty the queue, and [store.ErrNotFound].
func (e *Engine) Requeue(ctx context.Context, id, destination string, seq int64) (fresh int64, err error) {
	err = e.holding(id, func(ch *channel) error {
		if !slices.Contains(ch.destinations, destination) {
			return fmt.Errorf("%w: %s", ErrNoDestination, destination)
		}
		// The store knows a dead letter by its number alone.
		dead, err := e.store.DeadLetters(ctx, id, destination, seq-1, 1)
		if err == nil && (len(dead) == 0 || dead[0].Seq != seq) {
			err = fmt.Errorf("%w: dead letter %d", store.ErrNotFound, seq)
		}
		if err == nil {
			fresh, err = e.store.Requeue(ctx, seq)
		}
		ch.room.recount()
		ch.wake()
		return err
	})
	return fresh, err
}

// RequeueAll puts all dead letters of a destination that there are now at the end of
// its queue, in their order, and returns how many they were, also beside an error.
func (e *Engine) RequeueAll(ctx context.Context, id, destination string) (total int, err error) {
	err = e.holding(id, func(ch *channel) error {
		if !slices.Contains(ch.destinations, destination) {
			return fmt.Errorf("%w: %s", ErrNoDestination, destination)
		}
		defer ch.wake()
		defer ch.room.recount()
		stats, err := e.store.Stats(ctx, id)
		if err != nil {
			return err
		}
		left := 0 // those that become dead letters again meanwhile are not sent round and round
		for _, d := range stats.Destinations {
			if d.Name == destination {
				left = int(d.Error)
			}
		}
		for left > 0 {
			n, err := e.store.RequeueAll(ctx, id, destination, min(left, requeueBatch))
			if err != nil {
				return err
			}
			if n == 0 {
				return nil
			}
			total, left = total+n, left-n
		}
		return nil
	})
	return total, err
}
