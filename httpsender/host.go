package httpsender

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// The defaults of Breaker.
const (
	defaultFailures = 5
	defaultOpenFor  = 10 * time.Second
)

// maxHosts is how many hosts a Sender remembers before it forgets those that it
// has nothing to remember about.
const maxHosts = 1024

// Breaker says when a Sender stops trying a host for a while, so that what is
// down is not also overrun, and senders learn at once that it is. Failures are
// attempts that got no answer by the network's or the server's fault, answers of
// 500 and above, and answers whose body broke off; everything else is a success.
type Breaker struct {
	// Failures in a row open the circuit; 0: 5; negative: there is no breaker.
	Failures int
	// OpenFor is how long no request is tried then, after which one is let
	// through: its success closes the circuit, its failure opens it again. 0: 10 s.
	// Negative is taken as 0.
	OpenFor time.Duration
}

// CircuitState is the state of the breaker of a host.
type CircuitState string

// The states of a breaker.
const (
	CircuitClosed   CircuitState = "closed"    // requests are tried
	CircuitOpen     CircuitState = "open"      // requests fail with ErrCircuitOpen
	CircuitHalfOpen CircuitState = "half-open" // one request is being tried
)

// A host is what a Sender knows of the server of an origin.
type host struct {
	slots *semaphore.Weighted // static; nil: there is no limit

	mu sync.Mutex
	// guarded by mu
	users    int // requests that hold this host
	failures int // in a row
	state    CircuitState
	until    time.Time // when an open circuit lets one through
	digest   *digestSession
}

// hostOf returns the host of an origin for a request; leave gives it back.
func (s *Sender) hostOf(origin string) *host {
	s.hostsMu.Lock()
	defer s.hostsMu.Unlock()
	h := s.hosts[origin]
	if h == nil {
		if len(s.hosts) >= maxHosts {
			s.forgetHostsLocked()
		}
		h = &host{state: CircuitClosed}
		if n := orDefault(s.MaxRequestsPerHost, defaultRequestsPerHost); n > 0 {
			h.slots = semaphore.NewWeighted(int64(n))
		}
		if s.hosts == nil {
			s.hosts = make(map[string]*host)
		}
		s.hosts[origin] = h
	}
	h.mu.Lock()
	h.users++
	h.mu.Unlock()
	return h
}

func (h *host) leave() {
	h.mu.Lock()
	h.users--
	h.mu.Unlock()
}

func (s *Sender) forgetHostsLocked() {
	for origin, h := range s.hosts {
		h.mu.Lock()
		idle := h.users == 0 && h.state == CircuitClosed
		h.mu.Unlock()
		if idle {
			delete(s.hosts, origin)
		}
	}
}

// acquire waits for a slot, first come, first served, and returns for how long.
func (h *host) acquire(ctx context.Context, limit time.Duration) (time.Duration, error) {
	if h.slots == nil || h.slots.TryAcquire(1) {
		return 0, nil
	}
	start := time.Now()
	waitCtx, cancel := ctx, context.CancelFunc(func() {})
	if limit >= 0 {
		waitCtx, cancel = context.WithTimeout(ctx, limit)
	}
	defer cancel()
	if h.slots.Acquire(waitCtx, 1) == nil {
		return time.Since(start), nil
	}
	if err := ctx.Err(); err != nil {
		return time.Since(start), err
	}
	return time.Since(start), ErrQueueTimeout
}

func (h *host) release() {
	if h.slots != nil {
		h.slots.Release(1)
	}
}

// A verdict is what an attempt means for the breaker.
type verdict int

const (
	noVerdict verdict = iota // it says nothing of the host
	success
	failure
)

// allow tells whether an attempt may be made. Each that may reports back, once.
func (h *host) allow(b *Breaker) (ok bool, changed CircuitState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case b.Failures < 0 || h.state == CircuitClosed:
		return true, ""
	case h.state == CircuitOpen && !time.Now().Before(h.until):
		h.state = CircuitHalfOpen
		return true, CircuitHalfOpen
	}
	return false, ""
}

// report takes the verdict on an attempt, and returns the state if it changed.
func (h *host) report(b *Breaker, v verdict) (changed CircuitState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.state
	switch {
	case b.Failures < 0:
	case v == success && h.state != CircuitOpen:
		h.failures, h.state = 0, CircuitClosed
	case v == failure && h.state != CircuitOpen:
		h.failures++
		if h.state == CircuitHalfOpen || h.failures >= orDefault(b.Failures, defaultFailures) {
			h.failures, h.state = 0, CircuitOpen
			h.until = time.Now().Add(max(0, orDefault(b.OpenFor, defaultOpenFor)))
		}
	case v == noVerdict && h.state == CircuitHalfOpen:
		h.state, h.until = CircuitOpen, time.Now() // the next may try
	}
	if h.state == before {
		return ""
	}
	return h.state
}
