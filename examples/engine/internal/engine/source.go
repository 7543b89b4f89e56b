package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// source is where a channel's messages come from. What it takes in it hands to
// [channel.intake], and acknowledges after that has returned nil.
type source interface {
	// open begins to take messages in. When it returns nil, what it listens on is
	// open. One that ends by itself later calls channel.sourceFailed.
	open(ctx context.Context) error
	// close ends that and waits for the messages being taken in, until ctx ends;
	// then it cuts them off, unacknowledged. open may follow. On a source that is
	// not open it does nothing.
	close(ctx context.Context) error
	// listener tells where it listens, or would. It may be called at any time.
	listener() Listener
}

// intake makes a message durable with a queued delivery for each destination.
// Only after its nil may the message be acknowledged. [store.ErrInvalid] means that
// it is never going to be stored, ErrQueueFull that it may be later.
func (ch *channel) intake(ctx context.Context, in store.Intake) error {
	ch.exchange.RLock()
	defer ch.exchange.RUnlock()
	if ch.gone {
		return fmt.Errorf("%w: %s", ErrUnknownChannel, ch.cfg.ID)
	}
	_, err := ch.take(ctx, in)
	return err
}

// take is intake for who holds exchange. Channel is set by it, and so are
// Destinations, unless some are chosen.
func (ch *channel) take(ctx context.Context, in store.Intake) (int64, error) {
	in.Channel = ch.cfg.ID
	if in.Destinations == nil {
		in.Destinations = ch.destinations
	}
	id, err := ch.put(ctx, in)
	// Also after an error, which can hide a commit: who looks in vain loses nothing.
	ch.wake()
	switch {
	case err == nil:
		if ch.refusing.CompareAndSwap(true, false) {
			ch.log.InfoContext(ctx, "messages are stored and accepted again")
		}
	case errors.Is(err, ErrQueueFull): // which has been said
	case errors.Is(err, store.ErrInvalid):
		ch.log.ErrorContext(ctx, "message cannot be stored, refused", "bytes", len(in.Raw), "err", err)
	case ch.refusing.CompareAndSwap(false, true):
		ch.log.ErrorContext(ctx, "messages cannot be stored and are refused", "err", err)
	}
	return id, err
}

// put stores a message, if the queues have room for it.
func (ch *channel) put(ctx context.Context, in store.Intake) (int64, error) {
	done, err := ch.room.reserve(ctx, in.Destinations)
	if err != nil {
		return 0, err
	}
	defer done()
	return ch.engine.store.Intake(ctx, in)
}

// errUnpassable is a message that would wait at the head of a queue for ever.
var errUnpassable = errors.New("the message holds framing characters and cannot be passed on")

// carries tells whether the frames of the destinations can carry a message that
// comes from a source without frames.
func (ch *channel) carries(raw []byte) bool {
	for _, way := range ch.routes() {
		if _, err := way.AppendFrame(nil, raw); err != nil {
			return false
		}
	}
	return true
}

// idOf returns what a message is known by: MSH-10, or otherwise if it is no HL7.
func idOf(raw []byte, otherwise string) string {
	var h mllp.Header
	if h.Parse(raw) == nil && len(h.ControlID) > 0 {
		return string(h.ControlID)
	}
	return otherwise
}

// channelSource is the source of a channel that gets its messages from other
// channels of the engine. Their destinations put them into its queues, also while
// the channel is stopped: what has been acknowledged has no way back.
type channelSource struct{ isOpen atomic.Bool }

func (s *channelSource) open(context.Context) error  { s.isOpen.Store(true); return nil }
func (s *channelSource) close(context.Context) error { s.isOpen.Store(false); return nil }
func (s *channelSource) listener() Listener          { return Listener{Listening: s.isOpen.Load()} }
