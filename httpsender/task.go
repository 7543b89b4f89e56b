package httpsender

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A task is one call of Do. It belongs to the goroutine of that call.
type task struct {
	s      *Sender
	r      *http.Request // the caller's
	method string
	origin string
	host   *host
	first  time.Time
	open   func() (io.ReadCloser, error) // opens the body; nil: there is none, or it is read once
	begun  bool                          // a body that is read once has been

	url        *url.URL // r.URL, until a redirect
	number     int      // attempts so far
	tries      int      // of them, those that count for Retry.MaxAttempts
	challenges int      // answered
	redirects  int      // followed
	fresh      bool     // the last attempt answered a challenge that came to this task
	stale      bool     // a dead connection from the pool has been forgiven
}

// begin takes a request, and checks what can be checked before anything is sent.
func (t *task) begin(s *Sender, r *http.Request) *SendError {
	t.s, t.r, t.url, t.method = s, r, r.URL, method(r)
	if err := s.prepare(); err != nil {
		return t.refuse(err)
	}
	if s.life.Err() != nil {
		return t.refuse(ErrClosed)
	}
	if u := r.URL; u == nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return t.refuse(errNotHTTP)
	}
	t.origin = originOf(r.URL)
	if t.url.Scheme == "http" && (s.TLSConfig != nil || s.TLS != nil && s.TLS.Enabled) {
		return t.refuse(ErrPlaintext)
	}
	if r.Body != nil && r.Body != http.NoBody {
		t.open = r.GetBody
	}
	return nil
}

// refuse returns the error for a request that cannot be sent as things are set.
func (t *task) refuse(err error) *SendError {
	return &SendError{Outcome: Rejected, Method: t.method, Origin: t.origin, Err: err, Attempts: t.number}
}

// run makes attempts until there is an answer to return, or an error.
func (t *task) run() (*http.Response, *SendError) {
	for {
		resp, a, fail := t.try()
		if fail == nil && (t.challenged(resp) && t.bodyAgain() || t.redirected(resp)) {
			discard(resp)
			continue
		}
		t.tries++
		pause, again := t.again(resp, a, fail)
		if !again {
			if fail != nil {
				fail.Attempts = t.number
			}
			return resp, fail
		}
		why := fail
		if resp != nil {
			why = &SendError{Outcome: Retryable, Method: t.method, Origin: t.origin, Status: resp.StatusCode, RetryAfter: retryAfter(resp)}
			discard(resp)
		}
		if t.s.watched() {
			t.s.tell(t.r.Context(), Event{
				Kind: EventRetry, Method: t.method, Origin: t.origin, Attempt: t.number, Status: why.Status, Wait: pause, Err: why,
			})
		}
		if err := sleep(t.r.Context(), pause); err != nil {
			why.Err, why.Attempts = errors.Join(err, why.Err), t.number
			return nil, why
		}
	}
}

// again tells whether there is to be another attempt, and after which pause.
func (t *task) again(resp *http.Response, a *attempt, fail *SendError) (time.Duration, bool) {
	p := &t.s.Retry
	var after time.Duration
	switch {
	case !t.bodyAgain() || t.r.Context().Err() != nil || a == nil:
		return 0, false // without an attempt there is nothing that another could do better
	case fail != nil:
		if fail.Outcome != Retryable || errors.Is(fail.Err, ErrClosed) {
			return 0, false
		}
		if (a.reused.Load() || a.replay.Load()) && a.firstByte.Load() == 0 && !t.stale {
			t.stale = true // the server closed the connection while it was idle
			t.tries--
			return 0, p.inTime(t.r.Context(), t.first, 0)
		}
	default:
		if o, _ := statusOutcome(resp.StatusCode, idempotent(t.r)); o != Retryable {
			return 0, false
		}
		after = retryAfter(resp)
	}
	if t.tries >= p.attempts() {
		return 0, false
	}
	pause := p.pause(t.tries, after)
	return pause, p.inTime(t.r.Context(), t.first, pause)
}

// bodyAgain tells whether the body can be sent once more.
func (t *task) bodyAgain() bool {
	return t.open != nil || t.r.Body == nil || t.r.Body == http.NoBody || !t.begun
}

// try makes one attempt. The attempt is nil if it did not come to one.
func (t *task) try() (*http.Response, *attempt, *SendError) {
	s := t.s
	t.host = s.hostOf(t.origin)
	queued, err := t.host.acquire(t.r.Context(), orDefault(s.QueueTimeout, defaultQueue))
	if err != nil {
		t.host.leave()
		return nil, nil, &SendError{Outcome: Retryable, Method: t.method, Origin: t.origin, Err: err}
	}
	allowed, changed := t.host.allow(&s.Breaker)
	s.tellCircuit(t.r.Context(), t.origin, changed)
	if !allowed {
		t.host.release()
		t.host.leave()
		return nil, nil, &SendError{Outcome: Retryable, Method: t.method, Origin: t.origin, Err: ErrCircuitOpen}
	}
	t.number++
	a := t.newAttempt(queued)
	if t.number == 1 {
		t.first = a.start
	}
	out, err := t.request(a)
	if err != nil {
		if out.Body != nil && a.out.rc == nil {
			_ = out.Body.Close() // which nobody has read
		}
		a.end()
		return nil, nil, t.unsendable(err)
	}
	unzip := out.Header.Get("Accept-Encoding") == "" && out.Header.Get("Range") == "" && t.method != http.MethodHead
	if unzip {
		out.Header["Accept-Encoding"] = acceptGzip
	}
	resp, err := a.pool.transportFor(out.URL).RoundTrip(out)
	a.dog.answered()
	if a.out.rc != nil && a.out.oneShot {
		t.begun = a.out.begun()
	}
	if err != nil {
		return nil, a, t.failed(a, err)
	}
	a.tellAttempt(resp, nil)
	if resp.StatusCode >= 500 {
		a.report(failure)
	} else {
		a.report(success)
	}
	a.receive(resp, t.r, unzip)
	return resp, a, nil
}

// acceptGzip is shared by all requests: nobody changes the values of a header in
// place that he did not set.
var acceptGzip = []string{"gzip"}

func (t *task) newAttempt(queued time.Duration) *attempt {
	a := &attempt{
		s: t.s, parent: t.r.Context(), host: t.host, pool: t.s.enter(t.r.Context()), start: time.Now(),
		method: t.method, origin: t.origin, number: t.number, repeatable: idempotent(t.r), queued: queued,
	}
	a.Context, a.cancel = context.WithCancelCause(a.parent)
	a.dog.cancel, a.dog.start = a.cancel, a.start
	return a
}

// request returns the request of an attempt, as far as it got if there is an error.
func (t *task) request(a *attempt) (*http.Request, error) {
	out := t.r.WithContext(a.traced())
	out.URL, out.GetBody = t.url, nil
	if out.Header = t.r.Header.Clone(); out.Header == nil {
		out.Header = make(http.Header)
	}
	out.Body = nil
	if err := t.attach(a, out); err != nil {
		return out, err
	}
	session, err := t.authorize(out)
	if err != nil {
		return out, err
	}
	t.fresh = t.fresh && session != nil
	if t.s.BeforeAttempt != nil {
		u := *out.URL
		out.URL = &u
		if err := t.s.BeforeAttempt(out); err != nil {
			return out, &hookError{err}
		}
		if originOf(out.URL) != t.origin {
			return out, errors.New("httpsender: BeforeAttempt changed the scheme or the host of the URL")
		}
	}
	bare := out.Header.Get("Authorization") == "" && out.URL.User == nil
	if !bare && out.URL.Scheme != "https" && !t.s.AllowPlaintextAuth && !isLoopback(out.URL.Hostname()) {
		return out, ErrPlaintextAuth
	}
	return out, nil
}

// attach gives an attempt its body.
func (t *task) attach(a *attempt, out *http.Request) error {
	if t.r.Body == nil || t.r.Body == http.NoBody {
		return nil
	}
	out.GetBody = a.refuseBody
	a.out.a = a
	if t.open == nil {
		a.out.rc, a.out.oneShot = t.r.Body, true
		out.Body = &a.out
		return nil
	}
	rc, err := t.open()
	if err != nil {
		return &sourceError{err}
	}
	if out.ContentLength > 0 && out.ContentLength <= smallBody {
		out.Body = rc // net/http writes it and the header at once
		return nil
	}
	a.out.rc, out.Body = rc, &a.out
	return nil
}

// A hookError is an error of BeforeAttempt.
type hookError struct{ err error }

func (e *hookError) Error() string { return "httpsender: BeforeAttempt: " + e.err.Error() }
func (e *hookError) Unwrap() error { return e.err }

// unsendable returns the error for an attempt that did not get to the transport.
func (t *task) unsendable(err error) *SendError {
	e := t.refuse(err)
	var hopeful interface{ Retryable() bool }
	if errors.As(err, &hopeful) && hopeful.Retryable() {
		e.Outcome = Retryable
	}
	return e
}

// failed ends an attempt without an answer.
func (t *task) failed(a *attempt, err error) *SendError {
	fail := a.fail(t.r, err)
	a.tellAttempt(nil, fail)
	_, ours := errors.AsType[*sourceError](err)
	if fail.Outcome == Rejected || a.replay.Load() || ours || a.parent.Err() != nil || errors.Is(fail.Err, ErrClosed) {
		a.report(noVerdict)
	} else {
		a.report(failure)
	}
	a.end()
	return fail
}

// discard closes an answer that is not returned.
func discard(resp *http.Response) {
	_ = resp.Body.Close() // it has no error
}

// Redirects says which redirects are followed.
type Redirects string

// The policies of redirects.
const (
	// RedirectsNone, or the empty string, follows none: they are answers.
	RedirectsNone Redirects = "none"
	// RedirectsSameOrigin follows up to 5 to the same scheme, host and port: those
	// of GET and HEAD requests, and with 307 and 308 of any request whose body can
	// be had again. All others are answers.
	RedirectsSameOrigin Redirects = "same-origin"
)

const maxRedirects = 5

func (p Redirects) validate() error {
	switch p {
	case "", RedirectsNone, RedirectsSameOrigin:
		return nil
	}
	return errors.New("httpsender: Sender.Redirects must be none or same-origin")
}

// redirected tells whether an answer leads on, and goes there.
func (t *task) redirected(resp *http.Response) bool {
	if t.s.Redirects != RedirectsSameOrigin || t.redirects == maxRedirects {
		return false
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if t.method != http.MethodGet && t.method != http.MethodHead {
			return false
		}
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if !t.bodyAgain() {
			return false
		}
	default:
		return false
	}
	location := resp.Header.Get("Location")
	to, err := t.url.Parse(location)
	if err != nil || location == "" || !strings.EqualFold(originOf(to), t.origin) {
		return false
	}
	to.User, to.Host, to.Fragment = t.url.User, t.url.Host, ""
	t.redirects++
	t.url = to
	return true
}
