package engine

import (
	"context"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// channelDestination hands messages to another channel of the engine. There is
// nothing to send: leaving one queue and entering the others is one transaction.
type channelDestination struct {
	// static after construction
	engine  *Engine
	channel string // which hands over
	name    string // of this destination
	target  string // the id of the channel that gets the messages

	release func() // gives back what send has reserved; nil: nothing is; owned by the worker
}

func newChannelDestination(e *Engine, cfg *config.ChannelDestination, w *worker) *channelDestination {
	return &channelDestination{engine: e, channel: w.channel, name: w.name, target: cfg.ChannelID}
}

// send finds out whether there is room for the message. If not, it waits in its own
// queue, which says nothing about the message.
func (c *channelDestination) send(ctx context.Context, _ *store.Delivery) error {
	c.close() // what was reserved for one whose end was not recorded
	err := c.engine.holding(c.target, func(target *channel) (err error) {
		c.release, err = target.room.reserve(ctx, target.destinations)
		return err
	})
	if err != nil {
		return &unavailable{err}
	}
	return nil
}

func (c *channelDestination) complete(ctx context.Context, d *store.Delivery) error {
	err := c.engine.holding(c.target, func(target *channel) error {
		_, err := c.engine.store.Forward(ctx, d, store.Intake{
			Channel: c.target, ControlID: d.Message.ControlID, Raw: d.Message.Raw,
			Source: d.Message.Source.With("sourceChannelId", c.channel), Destinations: target.destinations,
		})
		target.wake()
		return err
	})
	if err == nil {
		c.close()
	}
	return err
}

func (c *channelDestination) close() {
	if c.release != nil {
		c.release()
		c.release = nil
	}
}
