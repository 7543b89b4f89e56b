package httpsender

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The defaults of Retry.
const (
	defaultAttempts   = 4
	defaultMinBackoff = 500 * time.Millisecond
	defaultMaxBackoff = 30 * time.Second
	defaultRetryAfter = 5 * time.Minute
	defaultElapsed    = 2 * time.Minute
)

// Retry says how often, and after what pause, a request is tried again. The zero
// value has the defaults that are given with the fields.
//
// Whether a request is tried again at all is not a setting: it is if that can do
// no harm. Nothing of it was written; or it is idempotent; or the server answered
// 408, 425, 429 or 503. And its body can be had again, or was not begun.
type Retry struct {
	// MaxAttempts is how many times a request is tried, the first included; 0:
	// 4; negative: once. Answers to a Digest challenge and redirects do not count,
	// nor does one connection of the pool that turns out to be dead.
	MaxAttempts int
	// MinBackoff and MaxBackoff bound the pause. The pause before attempt n+1 is
	// random between 0 and MinBackoff doubled n-1 times, but no more than
	// MaxBackoff ("full jitter"). 0: 500 ms and 30 s. Negative: no pause.
	MinBackoff, MaxBackoff time.Duration
	// MaxRetryAfter is the longest pause that a server's Retry-After can ask for;
	// a longer one is cut to it. 0: 5 min. Negative: Retry-After is not heeded.
	MaxRetryAfter time.Duration
	// MaxElapsed is how long after the first attempt the last may begin; 0: 2
	// min; negative: no limit. If the pause would end later than that, or than
	// the deadline of the request's context, what is known is returned at once.
	MaxElapsed time.Duration
}

func (p *Retry) attempts() int {
	if p.MaxAttempts < 0 {
		return 1
	}
	return orDefault(p.MaxAttempts, defaultAttempts)
}

// pause returns how long to wait after attempt n, for which the server asked to
// wait for after.
func (p *Retry) pause(n int, after time.Duration) time.Duration {
	var d time.Duration
	if ceiling := p.ceiling(n); ceiling > 0 {
		d = rand.N(ceiling)
	}
	longest := orDefault(p.MaxRetryAfter, defaultRetryAfter)
	if longest < 0 {
		return d
	}
	// Never less than what was asked for, and not in step with all the others
	// that were asked the same.
	return d + min(after, longest)
}

func (p *Retry) ceiling(n int) time.Duration {
	low, high := orDefault(p.MinBackoff, defaultMinBackoff), orDefault(p.MaxBackoff, defaultMaxBackoff)
	if low < 0 || high < 0 {
		return 0
	}
	for range n - 1 {
		if low >= high {
			break
		}
		low *= 2
	}
	return min(low, high)
}

// inTime tells whether a pause of d ends while there is time for an attempt that
// begins after it.
func (p *Retry) inTime(ctx context.Context, first time.Time, d time.Duration) bool {
	at := time.Now().Add(d)
	if deadline, ok := ctx.Deadline(); ok && !at.Before(deadline) {
		return false
	}
	elapsed := orDefault(p.MaxElapsed, defaultElapsed)
	return elapsed < 0 || at.Sub(first) <= elapsed
}

// sleep waits for d, or until ctx ends and says so.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retryAfter returns for how long a server asks to be left alone (RFC 9110,
// section 10.2.3): 0 if it does not, or not in a form that is understood. A date
// is taken relative to the server's own clock, where its answer tells that.
func retryAfter(resp *http.Response) time.Duration {
	value := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if value == "" || len(value) > 64 {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return time.Duration(1<<31-1) * time.Second // more digits than fit: very long
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now := time.Now()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		now = date
	}
	return max(0, at.Sub(now))
}

// orDefault returns v, or byDefault if v is 0.
func orDefault[T int | int64 | time.Duration](v, byDefault T) T {
	if v == 0 {
		return byDefault
	}
	return v
}
