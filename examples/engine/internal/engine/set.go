package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/carewire/carewire/mllp"
)

// ErrTargets is returned for a change after which a destination would lead to a
// channel that is not there, or a message go round for ever.
var ErrTargets = errors.New("channels do not lead to each other any more")

// set is the channels that there are at one time. It is immutable: a change makes
// another.
type set struct {
	channels []*channel
	byID     map[string]*channel
	routes   map[string][]mllp.Framing // by channel: see routesFrom
}

// newSet puts channels together. After an ErrTargets the set is not to be used.
func newSet(channels []*channel) (*set, error) {
	s := &set{channels: channels, byID: make(map[string]*channel), routes: make(map[string][]mllp.Framing)}
	for _, ch := range channels {
		s.byID[ch.cfg.ID] = ch
	}
	for _, ch := range channels {
		if _, err := s.routesFrom(ch, nil); err != nil {
			return s, err
		}
	}
	return s, nil
}

// routesFrom returns the ways of framing in which a message that comes into ch
// leaves somewhere, also through other channels. passed are those it came through.
func (s *set) routesFrom(ch *channel, passed []string) ([]mllp.Framing, error) {
	id := ch.cfg.ID
	if slices.Contains(passed, id) {
		return nil, fmt.Errorf("%w: a message would go round for ever through %s", ErrTargets, id)
	}
	if found, known := s.routes[id]; known {
		return found, nil
	}
	var found []mllp.Framing
	for _, d := range ch.cfg.Destinations {
		switch {
		case d.TCP != nil:
			found = append(found, d.TCP.MLLP())
		case d.Channel != nil:
			target, ok := s.byID[d.Channel.ChannelID]
			if !ok {
				return nil, fmt.Errorf("%w: destination %s of channel %s leads to %s", ErrTargets, d.Name, id, d.Channel.ChannelID)
			}
			further, err := s.routesFrom(target, append(passed, id))
			if err != nil {
				return nil, err
			}
			found = append(found, further...)
		}
	}
	s.routes[id] = found
	return found, nil
}

// routes are those of the channel's destinations, as they are now.
func (ch *channel) routes() []mllp.Framing { return ch.engine.set.Load().routes[ch.cfg.ID] }

// with returns the channels with fresh in the place of old; nil for neither.
func (s *set) with(old, fresh *channel) []*channel {
	channels := slices.Clone(s.channels)
	switch {
	case old == nil:
		return append(channels, fresh)
	case fresh == nil:
		return slices.DeleteFunc(channels, func(ch *channel) bool { return ch == old })
	}
	channels[slices.Index(channels, old)] = fresh
	return channels
}

// holding calls f with the channel of that id. Until f has returned, the channel is
// neither replaced nor removed.
func (e *Engine) holding(id string, f func(*channel) error) error {
	for {
		ch, err := e.channel(id)
		if err != nil {
			return err
		}
		ch.exchange.RLock()
		if ch.gone { // since it was looked up
			ch.exchange.RUnlock()
			continue
		}
		defer ch.exchange.RUnlock()
		return f(ch)
	}
}
