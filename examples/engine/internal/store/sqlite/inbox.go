package sqlite

import (
	"context"
	"runtime"
	"sync"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// A request is one change that a caller waits for.
type request struct {
	// static after construction
	intake bool // brings data in: refused on a full disk
	size   int  // of the payload, bytes
	// apply makes the change within a group. It may run more than once, as a
	// group that failed is tried again without its culprit.
	apply func(ctx context.Context, g *group) error

	err  error         // the outcome; set before done is closed
	done chan struct{} // closed by the writer
}

func (r *request) answer(err error) {
	r.err = err
	close(r.done)
}

// An inbox holds the requests that wait for the writer, in the order in which they
// came. A caller that leaves its request here sleeps once, until its answer: with a
// channel to the writer it would also be woken when the writer takes the request.
type inbox struct {
	arrived chan struct{} // of capacity 1: full if wanted requests wait that the writer may not know of; never closed

	mu      sync.Mutex
	waiting []*request // guarded by mu
	wanted  int        // how many have to wait before the writer is woken; 0 is 1; guarded by mu
	closed  bool       // no request may follow; guarded by mu
}

// put leaves a request, unless the inbox is closed.
func (b *inbox) put(r *request) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.waiting = append(b.waiting, r)
	enough := len(b.waiting) == max(1, b.wanted)
	b.mu.Unlock()
	if enough {
		b.tell()
	}
	return true
}

// tell wakes the writer if it waits.
func (b *inbox) tell() {
	select {
	case b.arrived <- struct{}{}:
	default:
	}
}

// withdraw takes a request back, if the writer has not taken it.
func (b *inbox) withdraw(r *request) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.waiting {
		if other == r {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// settle lets callers who are ready to run leave their requests first, for as long
// as more come: on a disk that syncs at once, a commit would else begin with the
// first of fifty. It waits for nobody who is not there: with a single caller it
// returns at once.
func (b *inbox) settle() {
	for before, n := 0, b.len(); before < n && n < groupRequests; before, n = n, b.len() {
		runtime.Gosched()
	}
}

// want has the writer woken only when n requests wait, and tells whether they do.
// Whoever wants more than one must want one again, and look, before it sleeps.
func (b *inbox) want(n int) (enough bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wanted = n
	return len(b.waiting) >= n
}

func (b *inbox) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

// take moves requests to group, which it returns, until that has groupRequests of
// them or groupBytes of payload, and tells whether an intake is among it.
func (b *inbox) take(group []*request) (_ []*request, intake bool) {
	size := 0
	for _, r := range group {
		size += r.size
		intake = intake || r.intake
	}
	b.mu.Lock()
	n := 0
	for n < len(b.waiting) && len(group) < groupRequests && size < groupBytes {
		r := b.waiting[n]
		group = append(group, r)
		size += r.size
		intake = intake || r.intake
		n++
	}
	left := copy(b.waiting, b.waiting[n:])
	clear(b.waiting[left:])
	b.waiting = b.waiting[:left]
	b.mu.Unlock()
	if left > 0 {
		b.tell()
	}
	return group, intake
}

// close lets no further request in.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// submit has the writer make a change, and waits until it is durable or refused.
func (s *Store) submit(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.done = make(chan struct{})
	if !s.inbox.put(r) {
		return store.ErrClosed
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
	}
	if s.inbox.withdraw(r) {
		return ctx.Err()
	}
	<-r.done
	return r.err
}
