package engine

import (
	"context"
	"strings"
	"sync"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/meshclient"
)

// A mailbox is what the sources and destinations of one MESH mailbox share: MESH
// allows one thread for each.
type mailbox struct {
	turn chan struct{} // of capacity 1: full while somebody is at work

	mu     sync.Mutex
	poller *meshclient.Poller // of the source; nil: there is none, or it is closed; guarded by mu
}

// mailbox returns the one that m names. It is called while the engine is made.
func (e *Engine) mailbox(m *config.Mailbox) *mailbox {
	key := strings.ToUpper(m.Mailbox) + " " + strings.ToLower(m.BaseURL)
	if e.mailboxes == nil {
		e.mailboxes = make(map[string]*mailbox)
	}
	if e.mailboxes[key] == nil {
		e.mailboxes[key] = &mailbox{turn: make(chan struct{}, 1)}
	}
	return e.mailboxes[key]
}

// lock waits for the mailbox. It is what a Poller wants as its Lock.
func (m *mailbox) lock(ctx context.Context) (held context.Context, release func(), err error) {
	select {
	case m.turn <- struct{}{}:
		return ctx, func() { <-m.turn }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

func (m *mailbox) polledBy(p *meshclient.Poller) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.poller = p
}

// sent has the inbox listed, which NHS wants to be done after something was sent.
func (m *mailbox) sent() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.poller != nil {
		m.poller.Sent()
	}
}
