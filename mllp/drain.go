package mllp

import (
	"fmt"
	"net"
	"slices"
	"sync"
)

// A DrainError says that a Server stopped before all it had in hand was done.
// The senders of those messages have no acknowledgement, and will send again.
type DrainError struct {
	Abandoned int // connections that were cut in a message
	Finished  int // messages that were answered after the end had begun
	// Messages are those that were cut, the first 100 of them.
	Messages []AbandonedMessage
	Err      error // ErrServerClosed from Serve, the context's error from Shutdown
}

// An AbandonedMessage had arrived, or was arriving, when its connection was cut.
type AbandonedMessage struct {
	RemoteAddr net.Addr
	// ControlID is its MSH-10 if the handler had been given it, and so may have
	// taken it; else "".
	ControlID string
}

func (e *DrainError) Error() string {
	return fmt.Sprintf("mllp: %d connections were cut in a message, %d messages were finished: %v", e.Abandoned, e.Finished, e.Err)
}

func (e *DrainError) Unwrap() error { return e.Err }

// maxAbandoned limits DrainError.Messages.
const maxAbandoned = 100

// drainReport is what a Server has to tell of its end.
type drainReport struct {
	mu       sync.Mutex
	finished int                // guarded by mu
	messages []AbandonedMessage // guarded by mu
}

// finish counts a message that was answered.
func (d *drainReport) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finished++
}

// abandon notes what a connection has in hand at the moment that it is cut.
func (d *drainReport) abandon(c *conn) {
	ids := c.hand.ids()
	if len(ids) == 0 {
		ids = []string{""}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids[:min(len(ids), maxAbandoned-len(d.messages))] {
		d.messages = append(d.messages, AbandonedMessage{RemoteAddr: c.req.RemoteAddr, ControlID: id})
	}
}

func (d *drainReport) read() (finished int, messages []AbandonedMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.finished, slices.Clone(d.messages)
}

// hand holds the messages of a connection that have arrived and are not answered.
// A Request must not change while it is in it.
type hand struct {
	mu       sync.Mutex
	requests []*Request // guarded by mu
}

func (h *hand) take(r *Request) {
	h.mu.Lock()
	h.requests = append(h.requests, r)
	h.mu.Unlock()
}

func (h *hand) drop(r *Request) {
	h.mu.Lock()
	if i := slices.Index(h.requests, r); i >= 0 {
		h.requests = slices.Delete(h.requests, i, i+1)
	}
	h.mu.Unlock()
}

func (h *hand) ids() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, r := range h.requests {
		all = append(all, string(r.Header.ControlID))
	}
	return all
}
