package httpsender_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/memnet"
)

// asked are requests of each kind that matters to a retry.
var asked = []struct {
	name, method string
	declare      bool // with an Idempotency-Key
	harmless     bool // to repeat
}{
	{"GET", "GET", false, true},
	{"PUT", "PUT", false, true},
	{"DELETE", "DELETE", false, true},
	{"POST", "POST", false, false},
	{"PATCH", "PATCH", false, false},
	{"POST with a key", "POST", true, true},
}

func TestWhatMayHaveHappenedIsNotTriedAgain(t *testing.T) {
	answer := func(status string) reply {
		return say("HTTP/1.1 " + status + "\r\nContent-Length: 4\r\n\r\nnope")
	}
	const (
		never    = iota // tried again
		harmless        // if it is idempotent
		always
	)
	for name, c := range map[string]struct {
		before  func(c *memnet.Conn, n int) bool
		answer  reply
		again   int
		outcome httpsender.Outcome // if it is not idempotent, and in the end
		status  int
	}{
		"the answer never begins":       {answer: hangUp, again: harmless, outcome: httpsender.Unknown},
		"the connection is reset":       {answer: func(c *memnet.Conn, _ *seen) bool { c.Abort(); return false }, again: harmless, outcome: httpsender.Unknown},
		"the answer's header breaks":    {answer: func(c *memnet.Conn, _ *seen) bool { io.WriteString(c, "HTTP/1.1 200 O"); return false }, again: harmless, outcome: httpsender.Unknown},
		"the answer is garbage":         {answer: say("\x15\x03\x01 name=Meier"), again: harmless, outcome: httpsender.Unknown},
		"the answer's header is a bomb": {answer: say("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 300<<10)), again: harmless, outcome: httpsender.Unknown},
		"nobody reads the request": {
			before: func(c *memnet.Conn, _ int) bool { c.Read(make([]byte, 1)); c.Abort(); return false },
			again:  harmless, outcome: httpsender.Unknown,
		},
		"408": {answer: answer("408 Slow"), again: always, outcome: httpsender.Retryable, status: 408},
		"425": {answer: answer("425 Too Early"), again: always, outcome: httpsender.Retryable, status: 425},
		"429": {answer: answer("429 Busy"), again: always, outcome: httpsender.Retryable, status: 429},
		"503": {answer: answer("503 Later"), again: always, outcome: httpsender.Retryable, status: 503},
		"500": {answer: answer("500 Oops"), again: harmless, outcome: httpsender.Unknown, status: 500},
		"502": {answer: answer("502 Gateway"), again: harmless, outcome: httpsender.Unknown, status: 502},
		"504": {answer: answer("504 Gateway"), again: harmless, outcome: httpsender.Unknown, status: 504},
		"507": {answer: answer("507 Full"), again: harmless, outcome: httpsender.Unknown, status: 507},
		"501": {answer: answer("501 No"), again: never, outcome: httpsender.Rejected, status: 501},
		"505": {answer: answer("505 No"), again: never, outcome: httpsender.Rejected, status: 505},
		"400": {answer: answer("400 Bad"), again: never, outcome: httpsender.Rejected, status: 400},
		"401": {answer: answer("401 Who"), again: never, outcome: httpsender.Rejected, status: 401},
		"404": {answer: answer("404 Where"), again: never, outcome: httpsender.Rejected, status: 404},
		"409": {answer: answer("409 Conflict"), again: never, outcome: httpsender.Rejected, status: 409},
		"422": {answer: answer("422 What"), again: never, outcome: httpsender.Rejected, status: 422},
		"302": {answer: answer("302 There\r\nLocation: /other"), again: never, outcome: httpsender.Rejected, status: 302},
	} {
		t.Run(name, func(t *testing.T) {
			for _, q := range asked {
				bubble(t, func(t *testing.T) {
					s := &httpsender.Sender{Retry: quick(), Breaker: httpsender.Breaker{Failures: -1}}
					server := rawly(t, s, c.before, c.answer)
					r := request(t, q.method, origin+"/secret?nhs=9434765919", text("payload"))
					if q.declare {
						r.Header.Set("Idempotency-Key", "k1")
					}
					e := outcome(t, s, r)
					tries, outcome := 1, c.outcome
					if c.again == always || c.again == harmless && q.harmless {
						tries = 3
					}
					if c.again == harmless && q.harmless {
						outcome = httpsender.Retryable
					}
					server.mu.Lock()
					attempts := len(server.requests)
					if c.before != nil {
						attempts = server.conns
					}
					server.mu.Unlock()
					assert.Equal(t, tries, attempts, q.name)
					assert.Equal(t, outcome, e.Outcome, "%s: %v", q.name, e)
					assert.Equal(t, c.status, e.Status)
					assert.Equal(t, outcome == httpsender.Unknown, e.MaybeDelivered())
					assert.Equal(t, outcome != httpsender.Rejected, e.Retryable())
					for _, secret := range []string{"Meier", "9434765919", "secret", "payload"} {
						assert.NotContains(t, e.Error(), secret)
					}
				})
			}
		})
	}
}

func TestASeeOtherSaysThatAPostWasDoneAndIsNotRepeated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{Redirects: httpsender.RedirectsSameOrigin}
		server := rawly(t, s, nil, say("HTTP/1.1 303 See\r\nLocation: /done\r\nContent-Length: 0\r\n\r\n"))
		e := outcome(t, s, request(t, "POST", origin, text("x")))
		assert.True(t, e.MaybeDelivered())
		assert.False(t, e.Retryable())
		assert.Equal(t, "303", e.Code())
		assert.Len(t, server.got(), 1)
	})
}

func TestARequestThatSucceedsLaterIsDeliveredWholeAndOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{}
		server := rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool {
			if r.conn < 3 {
				return say("HTTP/1.1 503 Later\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")(c, r) && false
			}
			return say(fine)(c, r)
		})
		long := strings.Repeat("0123456789", 100_000)
		for _, body := range []string{"short", long} {
			status, _, err := exchange(s, request(t, "POST", origin, text(body)))
			require.NoError(t, err)
			assert.Equal(t, 200, status)
			got := server.got()
			assert.Equal(t, body, got[len(got)-1].body)
		}
		assert.Len(t, server.got(), 4)
	})
}

func TestAHostThatCannotBeReachedIsTriedAgainByAnyMethod(t *testing.T) {
	for _, q := range asked {
		bubble(t, func(t *testing.T) {
			dials := 0
			s := &httpsender.Sender{
				Retry: quick(), ProxyURL: httpsender.DirectOnly,
				NetDialer: dialFunc(func(context.Context, string, string) (net.Conn, error) {
					dials++
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
				}),
			}
			t.Cleanup(func() { s.Close() })
			e := outcome(t, s, request(t, q.method, origin, text("x")))
			assert.Equal(t, 3, dials)
			assert.Equal(t, 3, e.Attempts)
			assert.Equal(t, httpsender.Retryable, e.Outcome)
			assert.False(t, e.MaybeDelivered())
			assert.ErrorIs(t, e, syscall.ECONNREFUSED)
		})
	}
}

func TestEachAttemptHasATokenOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := 0
		s := &httpsender.Sender{
			Retry: quick(),
			BeforeAttempt: func(r *http.Request) error {
				tokens++
				r.Header.Set("X-Token", strings.Repeat("t", tokens))
				return nil
			},
		}
		// A server that closes every connection at its second request is what makes
		// net/http repeat a request by itself.
		server := rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool { return r.nth == 1 && say(fine)(c, r) })
		for range 4 {
			r := request(t, "GET", origin, nil)
			r.Header.Set("X-Own", "1")
			_, _, err := exchange(s, r)
			require.NoError(t, err)
			assert.Empty(t, r.Header.Get("X-Token"), "the caller's request is not touched")
		}
		used := make(map[string]bool)
		for _, r := range server.got() {
			token := r.Header.Get("X-Token")
			assert.False(t, used[token], "a token was used twice")
			used[token] = true
		}
		assert.Len(t, server.got(), 7, "4 requests, 3 of which met a connection that died first")
		assert.Equal(t, 7, tokens)
	})
}

func TestNoTokenIsUsedTwiceThoughManyConnectionsAreDead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var tokens atomic.Int64
		s := &httpsender.Sender{
			Retry: httpsender.Retry{MaxAttempts: 10, MinBackoff: -1}, Breaker: httpsender.Breaker{Failures: -1},
			BeforeAttempt: func(r *http.Request) error {
				r.Header.Set("X-Token", fmt.Sprint(tokens.Add(1)))
				return nil
			},
		}
		server := rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool {
			time.Sleep(time.Second) // so that each of the first has a connection of its own
			return r.nth == 1 && say(fine)(c, r)
		})
		for range 5 {
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					_, _, err := exchange(s, request(t, "GET", origin, nil))
					assert.NoError(t, err)
				})
			}
			all.Wait()
		}
		used := make(map[string]bool)
		for _, r := range server.got() {
			token := r.Header.Get("X-Token")
			assert.False(t, used[token], "token %s was used twice", token)
			used[token] = true
		}
		assert.Greater(t, len(used), 40)
	})
}

func TestADeadKeepAliveConnectionIsForgivenAtOnceWhereItCanBe(t *testing.T) {
	for _, q := range asked {
		bubble(t, func(t *testing.T) {
			s := &httpsender.Sender{Retry: httpsender.Retry{MaxAttempts: -1}}
			server := rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool { return r.nth == 1 && say(fine)(c, r) })
			_, _, err := exchange(s, request(t, "GET", origin, nil))
			require.NoError(t, err)
			r := request(t, q.method, origin, text("x"))
			if q.declare {
				r.Header["Idempotency-Key"] = nil // declared, and not sent
			}
			start := time.Now()
			_, _, err = exchange(s, r)
			assert.Zero(t, time.Since(start))
			if !q.harmless {
				assert.Equal(t, httpsender.Unknown, failed(t, err).Outcome, q.name)
				assert.Len(t, server.got(), 2)
				return
			}
			require.NoError(t, err, q.name)
			assert.Len(t, server.got(), 3)
		})
	}
}

func TestAConnectionThatDiedBeforeAByteWasWrittenCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{Retry: httpsender.Retry{MinBackoff: time.Hour, MaxBackoff: time.Hour, MaxElapsed: -1}}
		server := rawly(t, s, nil, say(fine))
		var client *breakable
		s.NetDialer = dialFunc(func(context.Context, string, string) (net.Conn, error) {
			c, err := server.ln.Dial()
			client = &breakable{Conn: c}
			return client, err
		})
		_, _, err := exchange(s, request(t, "GET", origin, nil))
		require.NoError(t, err)
		client.broken = true // writing fails, reading notices nothing
		_, _, err = exchange(s, request(t, "POST", origin, text("x")))
		require.NoError(t, err)
		assert.Len(t, server.got(), 2)
	})
}

// breakable is a connection that can be made to refuse bytes.
type breakable struct {
	net.Conn
	broken bool
}

func (c *breakable) Write(p []byte) (int, error) {
	if c.broken {
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
	}
	return c.Conn.Write(p)
}

func TestABodyThatCanBeReadOnceIsSentOnce(t *testing.T) {
	oneShot := func(t *testing.T, r io.Reader) *http.Request {
		q, err := http.NewRequestWithContext(t.Context(), "PUT", origin, r)
		require.NoError(t, err)
		require.Nil(t, q.GetBody)
		return q
	}
	t.Run("after its first byte it is not tried again", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s := &httpsender.Sender{Retry: quick()}
			server := rawly(t, s, nil, say("HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n"))
			body := &closable{Reader: strings.NewReader("once")}
			e := outcome(t, s, oneShot(t, body))
			assert.Equal(t, 503, e.Status)
			assert.Len(t, server.got(), 1)
			assert.True(t, body.closed)
		})
	})
	t.Run("before that it is", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s := &httpsender.Sender{Retry: quick()}
			server := rawly(t, s, nil, say(fine))
			dials := 0
			s.NetDialer = dialFunc(func(context.Context, string, string) (net.Conn, error) {
				if dials++; dials < 3 {
					return nil, syscall.ECONNREFUSED
				}
				return server.ln.Dial()
			})
			body := &closable{Reader: strings.NewReader("once")}
			_, _, err := exchange(s, oneShot(t, body))
			require.NoError(t, err)
			assert.Equal(t, "once", server.got()[0].body)
			assert.True(t, body.closed)
		})
	})
	t.Run("it is closed if it is never begun", func(t *testing.T) {
		body := &closable{Reader: strings.NewReader("once")}
		r := oneShot(t, body)
		r.URL.Scheme = "ftp"
		var s httpsender.Sender
		e := outcome(t, &s, r)
		assert.Equal(t, httpsender.Rejected, e.Outcome)
		assert.True(t, body.closed)
	})
}

// closable is a body that knows whether it was closed.
type closable struct {
	io.Reader
	closed bool
}

func (c *closable) Close() error {
	c.closed = true
	return nil
}

func TestRetryAfter(t *testing.T) {
	const second = time.Second
	date := func(d time.Duration) string {
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Format(http.TimeFormat)
	}
	for name, c := range map[string]struct {
		header string
		wait   time.Duration
	}{
		"seconds":                     {"Retry-After: 7\r\n", 7 * second},
		"a date":                      {"Retry-After: " + date(9*second) + "\r\n", 9 * second},
		"a date by the server's time": {"Date: " + date(time.Hour) + "\r\nRetry-After: " + date(time.Hour+5*second) + "\r\n", 5 * second},
		"a date that is past":         {"Retry-After: " + date(-time.Hour) + "\r\n", 0},
		"more than the cap":           {"Retry-After: 86400\r\n", 20 * second},
		"more than fits":              {"Retry-After: 99999999999999999999\r\n", 20 * second},
		"negative":                    {"Retry-After: -5\r\n", 0},
		"nonsense":                    {"Retry-After: soon\r\n", 0},
		"nothing":                     {"", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &httpsender.Sender{Retry: httpsender.Retry{MinBackoff: -1, MaxRetryAfter: 20 * second}}
				rawly(t, s, nil, func(conn *memnet.Conn, r *seen) bool {
					if r.nth > 1 {
						return say(fine)(conn, r)
					}
					return say("HTTP/1.1 503 Later\r\n"+c.header+"Content-Length: 0\r\n\r\n")(conn, r)
				})
				start := time.Now()
				_, _, err := exchange(s, request(t, "POST", origin, text("x")))
				require.NoError(t, err)
				assert.Equal(t, c.wait, time.Since(start))
			})
		})
	}
}

func TestAPauseThatWouldBeTooLongIsNotBegun(t *testing.T) {
	for name, c := range map[string]struct {
		retry    httpsender.Retry
		deadline time.Duration
	}{
		"than the context's deadline": {httpsender.Retry{}, 30 * time.Second},
		"than the budget":             {httpsender.Retry{MaxElapsed: 59 * time.Second}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &httpsender.Sender{Retry: c.retry}
				rawly(t, s, nil, say("HTTP/1.1 429 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"))
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				defer cancel()
				start := time.Now()
				e := outcome(t, s, request(t, "GET", origin, nil).WithContext(ctx))
				assert.Zero(t, time.Since(start))
				assert.Equal(t, time.Minute, e.RetryAfter)
				assert.Equal(t, "429", e.Code())
			})
		})
	}
}

func TestTheEndOfTheContextEndsAPause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{Retry: httpsender.Retry{MaxElapsed: -1}}
		rawly(t, s, nil, say("HTTP/1.1 429 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		start := time.Now()
		e := outcome(t, s, request(t, "POST", origin, text("x")).WithContext(ctx))
		assert.Equal(t, 10*time.Second, time.Since(start))
		assert.ErrorIs(t, e, context.Canceled)
		assert.Equal(t, httpsender.Retryable, e.Outcome)
		assert.Equal(t, 429, e.Status)
	})
}

func TestPausesAreRandomBelowADoublingCeiling(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var j journal
		s := &httpsender.Sender{
			Retry:   httpsender.Retry{MaxAttempts: 6, MinBackoff: time.Second, MaxBackoff: 5 * time.Second, MaxElapsed: -1},
			Breaker: httpsender.Breaker{Failures: -1}, Observe: j.observe,
		}
		rawly(t, s, nil, say("HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n"))
		const rounds = 200
		for range rounds {
			outcome(t, s, request(t, "GET", origin, nil))
		}
		waits := make(map[int][]time.Duration)
		for _, e := range j.of(httpsender.EventRetry) {
			waits[e.Attempt] = append(waits[e.Attempt], e.Wait)
		}
		const s1 = time.Second
		for attempt, ceiling := range map[int]time.Duration{1: s1, 2: 2 * s1, 3: 4 * s1, 4: 5 * s1, 5: 5 * s1} {
			require.Len(t, waits[attempt], rounds)
			low, high := ceiling, time.Duration(0)
			for _, w := range waits[attempt] {
				low, high = min(low, w), max(high, w)
			}
			assert.Less(t, low, ceiling/10)
			assert.Greater(t, high, ceiling*9/10)
			assert.Less(t, high, ceiling)
		}
	})
}

func TestAnErrorOfTheHookEndsTheRequest(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want httpsender.Outcome
	}{
		"for good":         {errors.New("no key"), httpsender.Rejected},
		"if not hopefully": {hopeful{}, httpsender.Retryable},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				calls := 0
				s := &httpsender.Sender{BeforeAttempt: func(*http.Request) error { calls++; return c.err }}
				server := rawly(t, s, nil, say(fine))
				e := outcome(t, s, request(t, "GET", origin, nil))
				assert.ErrorIs(t, e, c.err)
				assert.Equal(t, c.want, e.Outcome)
				assert.Equal(t, 1, calls)
				assert.Empty(t, server.got())
			})
		})
	}
	t.Run("which must not lead elsewhere", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s := &httpsender.Sender{BeforeAttempt: func(r *http.Request) error { r.URL.Host = "evil.example"; return nil }}
			server := rawly(t, s, nil, say(fine))
			r := request(t, "GET", origin, nil)
			assert.Equal(t, httpsender.Rejected, outcome(t, s, r).Outcome)
			assert.Empty(t, server.got())
			assert.Equal(t, "mem.example", r.URL.Host)
		})
	})
}

// hopeful is an error that passes.
type hopeful struct{}

func (hopeful) Error() string   { return "the key store is being restarted" }
func (hopeful) Retryable() bool { return true }
