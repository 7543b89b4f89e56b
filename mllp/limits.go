package mllp

import (
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/internal/netserver"
)

// freeBuffer is the size up to which a connection's buffer is not taken from the
// budget of all connections: what these come to is bounded by their number.
const freeBuffer = 64 << 10

// budgeted is how much of a buffer with n bytes the budget has to bear.
func budgeted(n int) int64 {
	if n <= freeBuffer {
		return 0
	}
	return int64(n)
}

// leastBudget is what one message of n bytes can take: the buffer that holds it
// and, while that is filled from it, the one before.
func leastBudget(n int64) int64 {
	return (n + lookahead + 2*maxFrameBytes) / 2 * 5 // each up to a quarter more than asked for
}

// A budget of bytes that all connections share, and of which those from one
// address have a share of their own.
//
// If all of them had part of a long frame, and waited for the rest of their
// memory, none would get it. So enough for one whole frame is held back, and when
// the rest is used up, one connection at a time, the one that has waited longest,
// may draw on that until it needs no memory any more. The same goes for each
// share; but who holds the budget need not heed its share, or the two could wait
// for each other.
type budget struct {
	waiting atomic.Int32 // how many wait
	perHost int64        // what a share has beside what it holds back; less than zero: no limit. Static

	mu sync.Mutex
	// guarded by mu
	left   int64                 // of what is not held back; less than zero while there is a holder
	holder *conn                 // who may overdraw; nil: nobody
	shares map[netip.Addr]*share // of the addresses that have taken something
	queue  []*waiter             // in order of arrival
}

// share is what the connections from one address have of a budget.
type share struct {
	taken  int64
	holder *conn // as in budget
}

// host is whose share it draws on.
func (c *conn) host() netip.Addr { return netserver.Peer{Addr: c.req.RemoteAddr}.Host() }

type waiter struct {
	who   *conn
	n     int64
	ready chan struct{} // closed when the n bytes are the waiter's
}

// newBudget returns a budget of n bytes, of which one address may take up to
// perHost (negative: no limit), and one message up to most.
func newBudget(n, perHost, most int64) *budget {
	if perHost >= 0 {
		perHost = max(0, min(perHost, n)-most)
	}
	return &budget{left: n - most, perHost: perHost, shares: make(map[netip.Addr]*share)}
}

// take takes n bytes, if necessary after waiting for others to give some back
// until deadline or the end of done. It reports whether it got them.
func (b *budget) take(who *conn, n int64, deadline time.Time, done <-chan struct{}) bool {
	b.mu.Lock()
	full := false
	if (who == b.holder || len(b.queue) == 0) && b.serveOneLocked(who, n, &full) {
		b.mu.Unlock()
		return true
	}
	w := &waiter{who: who, n: n, ready: make(chan struct{})}
	b.queue = append(b.queue, w)
	b.waiting.Add(1)
	b.serveLocked()
	b.mu.Unlock()
	defer b.waiting.Add(-1)

	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-w.ready:
		return true
	case <-timer.C:
	case <-done:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, w)
	if i < 0 {
		return true // it came at the same moment
	}
	b.queue = slices.Delete(b.queue, i, i+1)
	b.serveLocked() // one behind it may want less
	return false
}

// takeNow takes n bytes for who if they are there for everybody, without waiting.
func (b *budget) takeNow(who *conn, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	host := who.host()
	s := b.shares[host]
	if s == nil {
		s = new(share)
	}
	if len(b.queue) > 0 || n > b.left || b.perHost >= 0 && s.taken+n > b.perHost {
		return false
	}
	b.left -= n
	s.taken += n
	b.shares[host] = s
	return true
}

// give gives n bytes back; last says that who has no more of them.
func (b *budget) give(who *conn, n int64, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	if last && who == b.holder {
		b.holder = nil
	}
	host := who.host()
	if s := b.shares[host]; s != nil {
		if s.taken -= n; last && who == s.holder {
			s.holder = nil
		}
		if s.taken == 0 && s.holder == nil {
			delete(b.shares, host)
		}
	}
	b.serveLocked()
}

// serveLocked serves the queue in its order, past those that wait for their
// share alone.
func (b *budget) serveLocked() {
	full := false // for all but the holders
	b.queue = slices.DeleteFunc(b.queue, func(w *waiter) bool {
		served := b.serveOneLocked(w.who, w.n, &full)
		if served {
			close(w.ready)
		}
		return served
	})
}

// serveOneLocked takes n bytes for who, if they are there for it.
func (b *budget) serveOneLocked(who *conn, n int64, full *bool) bool {
	holds := who == b.holder
	if *full && !holds {
		return false
	}
	host := who.host()
	s := b.shares[host]
	if s == nil {
		s = new(share)
	}
	within := holds || b.perHost < 0 || who == s.holder || s.taken+n <= b.perHost
	if !within && s.holder != nil {
		return false
	}
	if !holds && n > b.left {
		if b.holder != nil {
			*full = true
			return false
		}
		b.holder = who
	}
	if !within && who != b.holder {
		s.holder = who
	}
	b.left -= n
	s.taken += n
	b.shares[host] = s
	return true
}

// Buffers have sizes of four steps to a doubling, so that at most a fifth of one
// is more than was asked for; those of each size are kept for the next user.
const (
	smallestClass = 10 // 1 KiB
	largestClass  = 26 // 64 MiB; larger ones are left to the garbage collector
)

var pools [(largestClass - smallestClass + 1) * 4]sync.Pool

// class returns the index of the pool for n bytes and the size of its buffers;
// without such a pool the index is negative.
func class(n int) (index, size int) {
	n = max(n, 1<<smallestClass)
	exp := bits.Len(uint(n - 1)) // 1<<(exp-1) < n <= 1<<exp
	if exp > largestClass {
		return -1, n
	}
	if n == 1<<smallestClass {
		return 0, n
	}
	step := 1 << (exp - 3)
	quarters := (n - 1<<(exp-1) + step - 1) / step // 1 to 4
	return (exp-1-smallestClass)*4 + quarters, 1<<(exp-1) + quarters*step
}

// buffer is what the pools hold: a pointer to it fits an interface without
// allocation.
type buffer struct{ bytes []byte }

// getBuffer returns a buffer of at least n bytes.
func getBuffer(n int) *buffer {
	index, size := class(n)
	if index >= 0 {
		if b, ok := pools[index].Get().(*buffer); ok {
			return b
		}
	}
	return &buffer{bytes: make([]byte, size)}
}

func putBuffer(b *buffer) {
	if index, size := class(len(b.bytes)); index >= 0 && size == len(b.bytes) {
		pools[index].Put(b)
	}
}
