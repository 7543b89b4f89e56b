package engine

import (
	"context"
	"errors"
	"fmt"
)

// ErrUnknownConnector is returned for a number that no connector of a channel has.
var ErrUnknownConnector = errors.New("connector not found")

// StartChannel starts a stopped channel: its destinations, then its source.
func (e *Engine) StartChannel(ctx context.Context, id string) error {
	return e.command(id, func(ch *channel) error { return ch.start(ctx, Started) })
}

// StopChannel stops a channel: its source is closed, then its destinations stop.
// What is queued stays so. The channel runs again after StartChannel or after a
// restart of the engine. ctx bounds the wait for what is in hand.
func (e *Engine) StopChannel(ctx context.Context, id string) error {
	return e.command(id, func(ch *channel) error { return ch.stop(ctx) })
}

// PauseChannel closes the source of a channel. Its destinations go on.
func (e *Engine) PauseChannel(ctx context.Context, id string) error {
	return e.command(id, func(ch *channel) error { return ch.pause(ctx) })
}

// ResumeChannel opens the source of a paused channel again.
func (e *Engine) ResumeChannel(ctx context.Context, id string) error {
	return e.command(id, func(ch *channel) error { return ch.resume(ctx) })
}

// HaltChannel is StopChannel without the wait: what is in hand is cut off. Its
// senders get no acknowledgement; what was being sent is sent again, marked so.
func (e *Engine) HaltChannel(ctx context.Context, id string) error {
	return e.command(id, func(ch *channel) error { return ch.halt(ctx) })
}

// StartConnector starts one connector of a channel that runs: 0 is the source,
// which resumes the channel, 1 the first destination.
func (e *Engine) StartConnector(ctx context.Context, id string, number int) error {
	return e.connector(ctx, id, number, true)
}

// StopConnector stops one connector of a channel that runs: 0 is the source, which
// pauses the channel, 1 the first destination, whose queue then grows.
func (e *Engine) StopConnector(ctx context.Context, id string, number int) error {
	return e.connector(ctx, id, number, false)
}

func (e *Engine) connector(ctx context.Context, id string, number int, run bool) error {
	return e.command(id, func(ch *channel) error {
		switch {
		case number < 0 || number > len(ch.workers):
			return fmt.Errorf("%w: %d", ErrUnknownConnector, number)
		case number > 0:
			return ch.connector(ctx, number-1, run)
		case run:
			return ch.resume(ctx)
		default:
			return ch.pause(ctx)
		}
	})
}

// DeployChannel brings a channel into its initial state, from whatever state it is
// in: one that runs is stopped first. ctx bounds the wait for what is in hand.
func (e *Engine) DeployChannel(ctx context.Context, id string) error {
	return e.command(id, func(ch *channel) error {
		ch.lifecycle.Lock()
		defer ch.lifecycle.Unlock()
		return ch.redeployLocked(ctx)
	})
}

func (ch *channel) redeployLocked(ctx context.Context) error {
	if ch.currentState() == removed {
		return &StateError{Command: "deploy", State: removed}
	}
	if ch.engine.closing.Load() {
		return &StateError{Command: "deploy", State: Stopping}
	}
	// What was cut off is sent again, and keeps nothing from being deployed.
	_ = ch.stopLocked(ctx)
	return ch.startLocked(ctx, ch.initial())
}

// UndeployChannel stops a channel. It stays there, with what is queued, and takes
// nothing in and delivers nothing until it is deployed or the engine restarted.
// Undeploying what is undeployed does nothing.
func (e *Engine) UndeployChannel(ctx context.Context, id string) error {
	return e.command(id, func(ch *channel) error {
		ch.lifecycle.Lock()
		defer ch.lifecycle.Unlock()
		if ch.currentState() == removed {
			return &StateError{Command: "undeploy", State: removed}
		}
		err := ch.stopLocked(ctx)
		ch.setState(Undeployed)
		return err
	})
}

// command runs f on the channel of that id. Commands for different channels run side
// by side.
func (e *Engine) command(id string, f func(*channel) error) error {
	for {
		ch, err := e.channel(id)
		if err != nil {
			return err
		}
		err = f(ch)
		if refused, ok := errors.AsType[*StateError](err); !ok || refused.State != removed {
			return err
		}
	}
}
