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
}

func newChannelDestination(e *Engine, cfg *config.ChannelDestination, w *worker) *channelDestination {
	return &channelDestination{engine: e, channel: w.channel, name: w.name, target: cfg.ChannelID}
}

func (*channelDestination) send(context.Context, *store.Delivery) error { return nil }

func (c *channelDestination) complete(ctx context.Context, d *store.Delivery) error {
	return c.engine.holding(c.target, func(target *channel) error {
		_, err := c.engine.store.Forward(ctx, d, store.Intake{
			Channel: c.target, ControlID: d.Message.ControlID, Raw: d.Message.Raw,
			Source: d.Message.Source.With("sourceChannelId", c.channel), Destinations: target.destinations,
		})
		target.wake()
		return err
	})
}

func (*channelDestination) close() {}
