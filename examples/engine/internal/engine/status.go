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

// Channels returns the configuration of all channels, in its order. It is not
// to be changed.
func (e *Engine) Channels() []*config.Channel {
	list := make([]*config.Channel, len(e.channels))
	for i, ch := range e.channels {
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
	listener := ch.source.listener()
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return Status{
		Config: ch.cfg, State: ch.state, Deployed: ch.deployed, Statistics: stats,
		Listener: listener,
	}, nil
}
