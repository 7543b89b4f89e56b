package httpsender

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultMaxResponse = 10 << 20
	defaultRatio       = 100

	// ratioSlack is how much may come out of a compressed answer whatever its
	// ratio: short and empty answers can have any.
	ratioSlack = 1 << 20
	// drainBytes and drainTime bound what Close reads of an answer that was not
	// read to its end, so that its connection can be used again.
	drainBytes = 64 << 10
	drainTime  = 250 * time.Millisecond
)

// A responseBody is the body of an answer, within the limits of the Sender. One
// goroutine reads it; another may close it in the meantime.
type responseBody struct {
	closed atomic.Bool // before mu is taken, so that a Read that waits gives it up
	mu     sync.Mutex

	// guarded by mu
	a      *attempt
	raw    rawBody
	gz     *gzip.Reader // nil until the first Read, and if not compressed
	gzip   bool
	limit  int64 // bytes that the caller may get; negative: all
	ratio  int64 // negative: any
	n      int64
	status int
	since  time.Time
	err    error // after which there is nothing more
}

// A rawBody is what comes from the connection.
type rawBody struct {
	a    *attempt
	rc   io.ReadCloser
	size int64 // -1: unknown
	n    int64
	eof  bool
}

func (b *rawBody) Read(p []byte) (int, error) {
	if limit := b.a.in.limit; limit >= 0 && b.n > limit+ratioSlack {
		return 0, &TooLargeError{Limit: limit} // of empty pieces of gzip, say
	}
	b.a.dog.expect(receiving, b.a.s.stall())
	n, err := b.rc.Read(p)
	b.a.dog.relax(receiving)
	b.n += int64(n)
	b.eof = err == io.EOF
	return n, err
}

// receive gives resp a body within the limits; r is the caller's request.
func (a *attempt) receive(resp *http.Response, r *http.Request, unzip bool) {
	resp.Request = r // which holds none of the credentials that were added
	s := a.s
	b := &a.in
	b.a, b.status, b.since = a, resp.StatusCode, s.now()
	b.limit, b.ratio = orDefault(s.MaxResponseBytes, defaultMaxResponse), orDefault(int64(s.MaxCompressionRatio), defaultRatio)
	b.raw = rawBody{a: a, rc: resp.Body, size: resp.ContentLength}
	if r.Method == http.MethodHead {
		b.raw.size = -1
	}
	if unzip && strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") && resp.Body != http.NoBody {
		b.gzip = true
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
		resp.ContentLength, resp.Uncompressed = -1, true
	}
	if resp.Body == http.NoBody {
		_ = b.finish(io.EOF) // as it is
		return
	}
	resp.Body = b
}

// Read reads from the body. Its error is io.EOF, or a *SendError.
func (b *responseBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.err != nil {
		return 0, b.err
	}
	if b.limit >= 0 && !b.gzip && b.raw.size > b.limit {
		return 0, b.finish(&TooLargeError{Limit: b.limit})
	}
	if b.limit >= 0 {
		p = p[:min(int64(len(p)), b.limit+1-b.n)] // one more than is allowed, to see that there is one
	}
	n, err := b.read(p)
	b.n += int64(n)
	switch {
	case b.limit >= 0 && b.n > b.limit:
		n, b.n = n-1, b.limit
		err = &TooLargeError{Limit: b.limit}
	case b.gzip && b.ratio >= 0 && b.n > ratioSlack && b.n/b.ratio > b.raw.n:
		err = &TooLargeError{Limit: b.ratio, Ratio: true}
	}
	if err != nil {
		err = b.finish(err)
	}
	return n, err
}

func (b *responseBody) read(p []byte) (int, error) {
	if !b.gzip {
		return b.raw.Read(p)
	}
	if b.gz == nil {
		gz, err := gzip.NewReader(&b.raw)
		if err != nil {
			return 0, err // io.EOF: an answer without a body
		}
		b.gz = gz
	}
	return b.gz.Read(p)
}

// finish ends the body with err, and returns it as the caller sees it.
func (b *responseBody) finish(err error) error {
	if err != io.EOF { //nolint:errorlint // a reader's io.EOF comes as it is
		err = b.broken(err)
	}
	b.err = err
	b.settle()
	return err
}

// broken returns why the body ended too early.
func (b *responseBody) broken(err error) *SendError {
	e := b.a.sendError(Unknown, public(b.a.why(err)))
	e.Status, e.Attempts = b.status, b.a.number
	outcome, permanent := statusOutcome(b.status, b.a.repeatable)
	_, large := errors.AsType[*TooLargeError](err)
	e.permanent = permanent || large
	switch {
	case outcome != Sent:
		e.Outcome = outcome // which the answer's header did say
	case b.a.repeatable && large:
		e.Outcome = Rejected
	case b.a.repeatable:
		e.Outcome = Retryable
	}
	return e
}

// settle gives back the connection and tells how it went.
func (b *responseBody) settle() {
	if b.a.ended {
		return
	}
	var told error
	if e, bad := errors.AsType[*SendError](b.err); bad {
		told = e
		if !e.permanent && b.a.parent.Err() == nil {
			b.a.report(failure)
		}
	}
	_ = b.raw.rc.Close() // all that was of use has been read
	if b.a.s.watched() {
		e := b.a.event(EventReceived)
		e.Status, e.Bytes, e.Duration, e.Err = b.status, b.n, time.Since(b.since), told
		b.a.s.tell(b.a, e)
	}
	b.a.end()
}

// Close ends the body. What little is left of it is read, so that the connection
// can be used again.
func (b *responseBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if !b.mu.TryLock() {
		b.a.cancel(errBodyStopped) // ends the Read that is going on
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	if b.err == nil {
		b.drain()
		b.settle()
	}
	return nil
}

// drain reads the rest of a body, if it is short and quick to come.
func (b *responseBody) drain() {
	if left := b.raw.size - b.raw.n; b.raw.eof || b.raw.size >= 0 && left > drainBytes {
		return
	}
	deadline := time.AfterFunc(drainTime, func() { b.a.cancel(errBodyStopped) })
	defer deadline.Stop()
	_, _ = io.CopyN(io.Discard, b.raw.rc, drainBytes) // if it fails, the connection is closed
}
