package api

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// limitWindow is the time in which requests are counted.
const limitWindow = time.Minute

// maxCounted bounds the addresses that are counted apart in one window. Further
// ones share one count: somebody with that many addresses gets no more memory.
const maxCounted = 50_000

// limiter counts requests of each address in windows of a minute. It is safe for
// concurrent use.
type limiter struct {
	limit int // requests in a window; 0: no limit

	mu     sync.Mutex
	begun  time.Time          // guarded by mu; of the window
	counts map[netip.Addr]int // guarded by mu; in the window
}

// admit counts a request, says in w's headers how many are left, and reports
// whether it may go on.
func (l *limiter) admit(w http.ResponseWriter, addr netip.Addr) bool {
	if l.limit == 0 {
		return true
	}
	if addr.Is6() {
		// Who has one IPv6 address has all of its network's.
		if prefix, err := addr.Prefix(64); err == nil {
			addr = prefix.Addr()
		}
	}
	used, reset := l.count(addr)
	h, limit := w.Header(), strconv.Itoa(l.limit)
	h.Set("RateLimit-Policy", limit+";w=60")
	h.Set("RateLimit-Limit", limit)
	h.Set("RateLimit-Remaining", strconv.Itoa(max(0, l.limit-used)))
	h.Set("RateLimit-Reset", strconv.Itoa(reset))
	if used > l.limit {
		h.Set("Retry-After", strconv.Itoa(reset))
		return false
	}
	return true
}

// count returns how many requests there were with this one, and the seconds until
// the count begins anew.
func (l *limiter) count(addr netip.Addr) (used, reset int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.counts == nil || now.Sub(l.begun) >= limitWindow {
		l.begun, l.counts = now, make(map[netip.Addr]int)
	}
	if _, known := l.counts[addr]; !known && len(l.counts) >= maxCounted {
		addr = netip.Addr{}
	}
	l.counts[addr]++
	left := limitWindow - now.Sub(l.begun)
	return l.counts[addr], int((left + time.Second - 1) / time.Second)
}

// rateLimited bounds the requests of one address to the API.
func (s *Server) rateLimited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.requests.admit(w, exchangeOf(r.Context()).client) {
			answer(w, http.StatusTooManyRequests, failure{Error: "Too Many Requests", Message: "Too many requests. Please try again later."})
			return
		}
		next.ServeHTTP(w, r)
	})
}
