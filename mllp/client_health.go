package mllp

import (
	"context"
	"time"
)

// State says in one word how it stands between a Client and its receiver.
type State string

// The states of a Client.
const (
	// StateOK means that nothing is known to be wrong: messages are acknowledged,
	// or none has been sent yet.
	StateOK State = "ok"
	// StateFailing means that no connection could be made, or none that brought an
	// acknowledgement, and that the Client goes on trying.
	StateFailing State = "failing"
	// StateFaulty means that the reason is one that no waiting will cure, such as
	// a certificate that either side refuses: a person must see to it.
	StateFaulty State = "faulty"
	// StateClosed means after Close, or after Shutdown has been called.
	StateClosed State = "closed"
)

// Health is how a Client is.
type Health struct {
	State    State
	Conns    int       // that are open
	Messages int       // with Send, under way or waiting
	Failures int       // to connect, since the last acknowledgement
	Err      error     // the last of these, a *SendError; nil if there is none
	NextDial time.Time // not before then; zero if there is nothing to wait for
	LastAck  time.Time // when the last answer, of any code, came; zero: none yet
}

// Health returns how the Client is. It connects to nothing.
func (c *Client) Health() Health {
	c.setUp()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := Health{State: c.stateLocked(), Messages: c.sending, Failures: c.gate.failures}
	for _, l := range c.lanes {
		if l.link != nil {
			h.Conns++
		}
	}
	if c.gate.last != nil {
		h.Err = c.gate.last
	}
	if time.Until(c.gate.notBefore) > 0 {
		h.NextDial = c.gate.notBefore
	}
	if at := c.lastAck.Load(); at != 0 {
		h.LastAck = time.Unix(0, at)
	}
	return h
}

func (c *Client) stateLocked() State {
	switch {
	case c.stopped:
		return StateClosed
	case c.gate.fault != nil:
		return StateFaulty
	case c.gate.failures > 0:
		return StateFailing
	}
	return StateOK
}

// noteLocked returns the state if it is another than the one that was told last,
// for tellHealth, which must not be called with the lock.
func (c *Client) noteLocked() State {
	state := c.stateLocked()
	if state == c.told {
		return ""
	}
	c.told = state
	return state
}

func (c *Client) tellHealth(state State) {
	if state != "" && c.events.watched() {
		c.events.tell(context.Background(), Event{Kind: EventHealth, Detail: string(state)})
	}
}
