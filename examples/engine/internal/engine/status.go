package engine

import (
	"context"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// Status is what a channel is and does.
type Status struct {
	Config     *config.Channel // not to be changed
	State      State
	Deployed   time.Time // when it was started last; zero: never
	Listener   Listener
	Statistics store.Stats
	// Destinations are the states of the destinations, in the order of Config:
	// Started or Stopped.
	Destinations []State
	// Failing are since when each of them has taken no message that was tried; zero:
	// it has, or none was tried since the start.
	Failing []time.Time
}

// Listener is a channel's port or, where the engine makes the connection, that of
// the sender. A source of type channel has neither.
type Listener struct {
	Host           string
	Port           int
	Transport      string // "MLLP" or "MLLPS", "TCP" or "TCP+TLS", "HTTP" or "HTTPS", "MESH"; empty: none
	Connections    int
	MaxConnections int
	Listening      bool
}

// Channels returns the configuration of all channels, in the order in which they
// came. It is not to be changed.
func (e *Engine) Channels() []*config.Channel {
	channels := e.set.Load().channels
	list := make([]*config.Channel, len(channels))
	for i, ch := range channels {
		list[i] = ch.cfg
	}
	return list
}

// State returns what a channel does, without asking the store.
func (e *Engine) State(id string) (State, error) {
	ch, err := e.channel(id)
	if err != nil {
		return "", err
	}
	return ch.currentState(), nil
}

// Status returns what a channel does and has done.
func (e *Engine) Status(ctx context.Context, id string) (Status, error) {
	ch, err := e.channel(id)
	if err != nil {
		return Status{}, err
	}
	stats, err := e.store.Stats(ctx, id)
	if err != nil {
		return Status{}, err
	}
	return ch.status(stats), nil
}

// Statuses returns what all channels do and have done, in the order of Channels, for
// the price of one look at the store.
func (e *Engine) Statuses(ctx context.Context) ([]Status, error) {
	channels := e.set.Load().channels
	stats, err := e.store.AllStats(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Status, len(channels))
	for i, ch := range channels {
		list[i] = ch.status(stats[ch.cfg.ID])
	}
	return list, nil
}

func (ch *channel) status(stats store.Stats) Status {
	status := Status{Config: ch.cfg, Statistics: stats, Listener: ch.source.listener()}
	for _, w := range ch.workers {
		state := Stopped
		if w.works.Load() {
			state = Started
		}
		var failing time.Time
		if since := w.failing.Load(); since != 0 {
			failing = time.Unix(0, since)
		}
		status.Destinations = append(status.Destinations, state)
		status.Failing = append(status.Failing, failing)
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	status.State, status.Deployed = ch.state, ch.deployed
	return status
}
