package cluster

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Nonces remembers which signed requests have been let in. An implementation
// shared by several processes, say in Redis (SET key 1 NX PXAT until), keeps a
// request from being repeated after a restart, or to a process of the same Node.
// It must be safe for concurrent use.
type Nonces interface {
	// Use records a nonce, 22 characters of base64 for URLs, and reports whether it
	// was not recorded yet. Of several callers with one nonce exactly one must see
	// true. It must be kept until the given time at least, which leaves a Window for
	// the clock of the store to differ from ours. An error refuses the request. ctx
	// ends with the request, or after 5 s.
	Use(ctx context.Context, nonce string, until time.Time) (fresh bool, err error)
}

// nonceTimeout bounds what a request waits for Nonces.
const nonceTimeout = 5 * time.Second

var (
	errNoncesFull = errors.New("cluster: no more nonces can be remembered")
	errTooEarly   = errors.New("cluster: signed before this process remembered nonces")
)

// memory remembers nonces within a process. It forgets in portions, of which each holds
// the nonces of a span of time, so that neither the time nor the room of one
// nonce is kept, and forgetting costs nothing. A repeated request has the time of
// the first, or it would not be signed, so it comes to the same portion.
type memory struct {
	limit  int
	window time.Duration
	span   int64     // of a portion, in milliseconds
	start  time.Time // with the monotonic clock

	mu sync.Mutex
	// Guarded by mu.
	portions map[int64]*portion // by time divided by span
	count    int
	floor    int64 // the latest portion forgotten: nothing is fresh up to it that is not in a portion still there
}

type portion struct {
	nonces map[[nonceBytes]byte]struct{}
	last   time.Duration // when a nonce was put in last, since start
}

// portionsInWindow trades how long nonces are kept beyond their time, which
// takes room, against the number of portions.
const portionsInWindow = 10

func newMemory(limit int, window time.Duration) *memory {
	return &memory{
		limit:    limit,
		window:   window,
		span:     max(window.Milliseconds()/portionsInWindow, 1),
		start:    time.Now(),
		portions: make(map[int64]*portion),
	}
}

// use records the nonce of a request whose signature is good and in the window.
func (m *memory) use(s *signature) (fresh bool, err error) {
	now := time.Now()
	return m.useAt(s, now.UnixMilli(), now.Sub(m.start))
}

// useAt is use at a time of the clock, in milliseconds, and so long after start.
func (m *memory) useAt(s *signature, clock int64, elapsed time.Duration) (fresh bool, err error) {
	var id [nonceBytes]byte
	decode(id[:], s.nonce) // parseSignature has checked it
	// The process before this one may have let it in. After two windows nothing
	// from before the start can be in the window, even if our clock was wrong then.
	if elapsed <= 2*m.window && s.millis < m.start.UnixMilli() {
		return false, errTooEarly
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(clock, elapsed)
	at := s.millis / m.span
	p := m.portions[at]
	if p == nil {
		if at <= m.floor {
			return false, nil
		}
		p = &portion{nonces: make(map[[nonceBytes]byte]struct{})}
		m.portions[at] = p
	}
	if _, seen := p.nonces[id]; seen {
		return false, nil
	}
	if m.count >= m.limit {
		return false, errNoncesFull
	}
	p.nonces[id] = struct{}{}
	p.last = elapsed
	m.count++
	return true, nil
}

// forget drops the portions that are out of the window, both by the clock that
// requests are judged by and by the time that has really passed: after a jump of
// the clock they could be in the window again. Called with mu held.
func (m *memory) forget(clock int64, elapsed time.Duration) {
	oldest := (clock - m.window.Milliseconds()) / m.span
	for at, p := range m.portions {
		if at < oldest && elapsed-p.last > m.window {
			m.count -= len(p.nonces)
			m.floor = max(m.floor, at)
			delete(m.portions, at)
		}
	}
}
