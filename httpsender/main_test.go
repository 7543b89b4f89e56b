package httpsender_test

import (
	"bufio"
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/internal/memnet"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// patience bounds everything that ought to take no time.
const patience = 30 * time.Second

// bubble is synctest.Test. In FIPS 140-3 mode crypto/rand makes its entropy from
// how long things take, and in a bubble nothing takes any time.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		t.Skip("skipped: crypto/rand has no entropy in a bubble in FIPS mode")
	}
	synctest.Test(t, f)
}

// origin is where every server of memnet is.
const origin = "http://mem.example"

// handled makes s talk to a server in this process with a handler. Both end with
// the test.
func handled(t *testing.T, s *httpsender.Sender, handler http.HandlerFunc) *memnet.Listener {
	t.Helper()
	ln := memnet.Listen()
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Hour}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(ln) })
	t.Cleanup(func() {
		s.Close()
		srv.Close()
		serving.Wait()
	})
	s.NetDialer = ln
	direct(s)
	return ln
}

// direct keeps the environment of whoever runs the tests out of them.
func direct(s *httpsender.Sender) {
	if s.ProxyURL == "" {
		s.ProxyURL = httpsender.DirectOnly
	}
}

// A raw server hands every connection to a function, and counts requests.
type raw struct {
	ln *memnet.Listener

	mu       sync.Mutex
	requests []*seen // guarded by mu
	conns    int     // guarded by mu
}

// seen is a request as the server saw it.
type seen struct {
	*http.Request
	body string
	conn int // number of the connection, from 1
	nth  int // of the requests on that connection, from 1
}

// reply is what a raw server does with a request; false ends the connection.
type reply func(c *memnet.Conn, r *seen) bool

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// say returns a reply with that text.
func say(text string) reply {
	return func(c *memnet.Conn, _ *seen) bool {
		_, err := io.WriteString(c, text)
		return err == nil
	}
}

func hangUp(*memnet.Conn, *seen) bool { return false }

// rawly makes s talk to a raw server. answer may be nil for those that never
// read a request; before, if not nil, decides whether the connection is read.
func rawly(t *testing.T, s *httpsender.Sender, before func(c *memnet.Conn, n int) bool, answer reply) *raw {
	t.Helper()
	w := &raw{ln: memnet.Listen()}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := w.ln.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			w.conns++
			n := w.conns
			w.mu.Unlock()
			serving.Go(func() {
				defer c.Close()
				conn := c.(*memnet.Conn)
				if before == nil || before(conn, n) {
					w.serve(conn, n, answer)
				}
			})
		}
	})
	t.Cleanup(func() {
		s.Close()
		w.ln.Close()
		serving.Wait()
	})
	s.NetDialer = w.ln
	direct(s)
	return w
}

func (w *raw) serve(c *memnet.Conn, n int, answer reply) {
	in := bufio.NewReader(c)
	for nth := 1; ; nth++ {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		got := &seen{Request: r, body: string(body), conn: n, nth: nth}
		w.mu.Lock()
		w.requests = append(w.requests, got)
		w.mu.Unlock()
		if !answer(c, got) {
			return
		}
	}
}

// got returns the requests so far.
func (w *raw) got() []*seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*seen(nil), w.requests...)
}

// request makes a request that ends with the test.
func request(t testing.TB, method, url string, b *httpsender.Body) *http.Request {
	t.Helper()
	r, err := httpsender.NewRequest(t.Context(), method, url, b)
	require.NoError(t, err)
	return r
}

// text is a body.
func text(s string) *httpsender.Body { return httpsender.Bytes("text/plain", []byte(s)) }

// read reads an answer to its end.
func read(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// exchange sends r, and returns status and body.
func exchange(s *httpsender.Sender, r *http.Request) (int, string, error) {
	resp, err := s.Do(r)
	if err != nil {
		return 0, "", err
	}
	body, err := read(resp)
	return resp.StatusCode, body, err
}

// failed requires that err is a SendError and returns it.
func failed(t testing.TB, err error) *httpsender.SendError {
	t.Helper()
	require.Error(t, err)
	e, ok := errors.AsType[*httpsender.SendError](err)
	require.True(t, ok, "%T: %v", err, err)
	return e
}

// outcome requires that r ends in an outcome, by an error of Do or of Check.
func outcome(t testing.TB, s *httpsender.Sender, r *http.Request) *httpsender.SendError {
	t.Helper()
	resp, err := s.Do(r)
	if err == nil {
		defer resp.Body.Close()
		err = httpsender.Check(resp)
	}
	return failed(t, err)
}

// journal collects events. The zero value is ready.
type journal struct {
	mu     sync.Mutex
	events []httpsender.Event // guarded by mu
}

func (j *journal) observe(e httpsender.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
}

// of returns the events of a kind.
func (j *journal) of(kind httpsender.EventKind) []httpsender.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []httpsender.Event
	for _, e := range j.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// quick are settings with which retries take no time.
func quick() httpsender.Retry { return httpsender.Retry{MaxAttempts: 3, MinBackoff: -1} }

// dialFunc is a NetDialer.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

func TestTheZeroSenderSendsAndReturnsAnyAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var s httpsender.Sender
		handled(t, &s, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("Content-Type"), body)
		})
		r := request(t, "POST", origin+"/x", text("hello"))
		for range 2 { // a request can be used again
			status, body, err := exchange(&s, r)
			require.NoError(t, err)
			assert.Equal(t, http.StatusTeapot, status)
			assert.Equal(t, "POST text/plain hello", body)
		}
		client := http.Client{Transport: &s}
		resp, err := client.Get(origin + "/y")
		require.NoError(t, err)
		body, err := read(resp)
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(body, "GET"))
	})
}

// sending is what a queue asks of every error of sending.
type sending interface {
	error
	MaybeDelivered() bool
	Retryable() bool
	Code() string
}

func TestErrorsAreWhatAQueueAsksFor(t *testing.T) {
	resp := &http.Response{StatusCode: 504, Header: http.Header{}}
	err := fmt.Errorf("channel 7: %w", httpsender.Check(resp))
	var e sending
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "504", e.Code())
	assert.True(t, e.MaybeDelivered(), "nothing is known of the request, so the least is promised")
	assert.True(t, e.Retryable())
	assert.EqualError(t, &httpsender.SendError{Outcome: httpsender.Retryable, Method: "PUT", Origin: "https://a", Attempts: 3, Err: httpsender.ErrConnectionLost},
		"httpsender: PUT https://a: retryable: the connection ended before the answer did (after 3 attempts)")
	assert.EqualError(t, &httpsender.TooLargeError{Limit: 5}, "httpsender: the answer has more than 5 bytes")
	assert.EqualError(t, &httpsender.TooLargeError{Limit: 5, Ratio: true}, "httpsender: the answer is compressed more than 5 to 1")
	for o, name := range []string{"unknown", "sent", "rejected", "retryable", "Outcome(4)"} {
		assert.Equal(t, name, httpsender.Outcome(o).String())
	}
	assert.NoError(t, httpsender.Check(&http.Response{StatusCode: 202}))
}

func TestCloseGivesUpWhatIsBeingDialed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{ProxyURL: httpsender.DirectOnly, NetDialer: dialFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})}
		start := time.Now()
		time.AfterFunc(time.Second, func() { s.Close() })
		e := outcome(t, s, request(t, "POST", origin, text("x")))
		assert.Equal(t, time.Second, time.Since(start))
		assert.ErrorIs(t, e, httpsender.ErrClosed)
		assert.False(t, e.MaybeDelivered())
	})
}

func TestAClosedSenderRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{}
		handled(t, s, func(http.ResponseWriter, *http.Request) {})
		_, _, err := exchange(s, request(t, "GET", origin, nil))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		e := outcome(t, s, request(t, "GET", origin, nil))
		assert.ErrorIs(t, e, httpsender.ErrClosed)
		assert.Equal(t, httpsender.Rejected, e.Outcome)
		var never httpsender.Sender
		assert.NoError(t, never.Close())
	})
}
