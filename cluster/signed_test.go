package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
)

func TestASignedRequestIsLetInAndItsBodyWhole(t *testing.T) {
	for name, body := range map[string]string{
		"empty": "", "short": "{}", "long": strings.Repeat("x", 300<<10), "binary": "\x00\xff\x1c\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			a, b, seen := pair(t)
			next := &echo{}
			w := give(b.Handler(next), signed(t, a, body))
			assert.Equal(t, http.StatusOK, w.Code)
			assert.Equal(t, body, w.Body.String())
			assert.EqualValues(t, len(body), next.last.ContentLength)
			e := seen.last(t)
			assert.Equal(t, cluster.Accepted, e.Kind)
			assert.True(t, e.Signed)
			assert.Equal(t, "node-a", e.Node)
		})
	}
}

func TestASignedRequestDoesNotHoldTheSecret(t *testing.T) {
	a, _, _ := pair(t)
	r := post(t, "{}")
	r.Header.Set(cluster.Header, string(secretA)) // by somebody before
	require.NoError(t, a.Authorize(r, "node-b"))
	var wire bytes.Buffer
	require.NoError(t, r.Write(&wire))
	assert.NotContains(t, wire.String(), string(secretA))
	assert.NotContains(t, wire.String(), "Secret")
	assert.Contains(t, wire.String(), "\r\nX-Cluster-Signature: v1;kid="+a.Status().KeyID+";ts=")
}

// Positive control: the same request unaltered is let in by
// TestASignedRequestIsLetInAndItsBodyWhole.
func TestAnAlteredRequestIsRefused(t *testing.T) {
	signature := func(old, with string) func(*http.Request) {
		return func(r *http.Request) {
			before := r.Header.Get(cluster.SignatureHeader)
			after := strings.Replace(before, old, with, 1)
			if after == before {
				panic("the test changed nothing")
			}
			r.Header.Set(cluster.SignatureHeader, after)
		}
	}
	for name, test := range map[string]struct {
		alter  func(*http.Request)
		reason cluster.Reason
	}{
		"method":              {func(r *http.Request) { r.Method = http.MethodPut }, cluster.ReasonBadSignature},
		"path":                {func(r *http.Request) { r.URL.Path = "/api/internal/other" }, cluster.ReasonBadSignature},
		"query":               {func(r *http.Request) { r.URL.RawQuery = "try=2" }, cluster.ReasonBadSignature},
		"query gone":          {func(r *http.Request) { r.URL.RawQuery = "" }, cluster.ReasonBadSignature},
		"content type":        {func(r *http.Request) { r.Header.Set("Content-Type", "text/xml") }, cluster.ReasonBadSignature},
		"content type gone":   {func(r *http.Request) { r.Header.Del("Content-Type") }, cluster.ReasonBadSignature},
		"content type twice":  {func(r *http.Request) { r.Header.Add("Content-Type", "text/xml") }, cluster.ReasonBadSignature},
		"content encoding":    {func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, cluster.ReasonBadSignature},
		"sender":              {signature(";from=node-a;", ";from=node-c;"), cluster.ReasonBadSignature},
		"target":              {signature(";to=node-b;", ";to=node-c;"), cluster.ReasonBadSignature},
		"sender and target":   {signature(";from=node-a;to=node-b;", ";from=node-b;to=node-a;"), cluster.ReasonBadSignature},
		"boundary of fields":  {signature(";from=node-a;to=node-b;", ";from=node-a;to=node-;"), cluster.ReasonBadSignature},
		"time":                {signature(";ts=", ";ts=1"), cluster.ReasonBadSignature},
		"version":             {signature("v1;", "v2;"), cluster.ReasonMalformed},
		"body":                {func(r *http.Request) { body(r, `{"channelId":"y"}`) }, cluster.ReasonBadDigest},
		"body longer":         {func(r *http.Request) { body(r, `{"channelId":"x"} `) }, cluster.ReasonBadDigest},
		"body gone":           {func(r *http.Request) { body(r, "") }, cluster.ReasonBadDigest},
		"body of no length":   {func(r *http.Request) { body(r, `{"channelId":"y"}`); r.ContentLength = -1 }, cluster.ReasonBadDigest},
		"unrelated header":    {func(r *http.Request) { r.Header.Set("Via", "1.1 proxy") }, ""},
		"length not said":     {func(r *http.Request) { r.ContentLength = -1 }, ""},
		"name of the machine": {func(r *http.Request) { r.Host = "10.0.0.7:8443" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, seen := pair(t)
			next := &echo{}
			r := signed(t, a, `{"channelId":"x"}`)
			test.alter(r)
			w := give(b.Handler(next), r)
			if test.reason == "" {
				assert.Equal(t, http.StatusOK, w.Code)
				return
			}
			requireRefused(t, w)
			assert.Equal(t, test.reason, seen.last(t).Reason)
			assert.Zero(t, next.count(), "the handler acted on an altered request")
		})
	}
}

// body replaces the body of a request.
func body(r *http.Request, text string) {
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(text))
}

func TestEveryByteOfASignatureCounts(t *testing.T) {
	a, b, _ := pair(t)
	next := &echo{}
	h := b.Handler(next)
	r := signed(t, a, "{}")
	good := r.Header.Get(cluster.SignatureHeader)
	for i := range len(good) {
		for _, c := range []byte{good[i] ^ 1, good[i] ^ 0x20, '0', 'A', ';', ' ', 0} {
			if c != good[i] {
				r.Header.Set(cluster.SignatureHeader, good[:i]+string(c)+good[i+1:])
				requireRefused(t, give(h, r))
			}
		}
		r.Header.Set(cluster.SignatureHeader, good[:i])
		requireRefused(t, give(h, r))
		r.Header.Set(cluster.SignatureHeader, good[:i]+"\n"+good[i:])
		requireRefused(t, give(h, r))
	}
	assert.Zero(t, next.count())
	r.Header.Set(cluster.SignatureHeader, good) // positive control
	assert.Equal(t, http.StatusOK, give(h, r).Code)
}

func TestAHandlerBehindStripPrefixSeesTheRequestThatWasSigned(t *testing.T) {
	a, b, _ := pair(t)
	next := &echo{}
	h := http.StripPrefix("/api/internal", b.Handler(next))
	assert.Equal(t, http.StatusOK, give(h, signed(t, a, "{}")).Code)
	assert.Equal(t, "/dispatch", next.last.URL.Path)
}

func TestARequestPassesOnce(t *testing.T) {
	a, b, seen := pair(t)
	next := &echo{}
	h := b.Handler(next)
	r := signed(t, a, "{}")
	assert.Equal(t, http.StatusOK, give(h, r).Code)
	for range 3 {
		requireRefused(t, give(h, r))
		assert.Equal(t, cluster.ReasonReplay, seen.last(t).Reason)
	}
	assert.Equal(t, 1, next.count())
	assert.Equal(t, http.StatusOK, give(h, signed(t, a, "{}")).Code, "the same again, signed anew")
}

func TestOfARequestGivenManyTimesAtOnceOnePasses(t *testing.T) {
	a, b, _ := pair(t)
	next := &echo{}
	h := b.Handler(next)
	r := signed(t, a, "{}")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { give(h, r) })
	}
	wg.Wait()
	assert.Equal(t, 1, next.count())
}

func TestARequestForOneNodeIsRefusedByAnother(t *testing.T) {
	a, b, seen := pair(t, func(_, b *cluster.Auth) { b.Node = "node-c" })
	next := &echo{}
	requireRefused(t, give(b.Handler(next), signed(t, a, "{}")))
	e := seen.last(t)
	assert.Equal(t, cluster.ReasonWrongNode, e.Reason)
	assert.Equal(t, "node-a", e.Node)
	assert.Zero(t, next.count())
}

func TestARequestIsGoodForTheWindowInEitherDirection(t *testing.T) {
	for name, test := range map[string]struct {
		window time.Duration // of the setting
		late   time.Duration // of the request
		passes bool
	}{
		"at once":                 {0, 0, true},
		"5 minutes":               {0, 5 * time.Minute, true},
		"a millisecond more":      {0, 5*time.Minute + time.Millisecond, false},
		"10 minutes":              {0, 10 * time.Minute, false},
		"a set window":            {time.Minute, time.Minute, true},
		"more than a set window":  {time.Minute, time.Minute + time.Millisecond, false},
		"long after, long window": {time.Hour, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b, seen := pair(t, func(_, b *cluster.Auth) { b.Window = test.window })
				next := &echo{}
				h := b.Handler(next)
				r := signed(t, a, "{}")
				time.Sleep(test.late)
				w := give(h, r)
				if test.passes {
					assert.Equal(t, http.StatusOK, w.Code)
					return
				}
				requireRefused(t, w)
				e := seen.last(t)
				assert.Equal(t, cluster.ReasonSkew, e.Reason)
				assert.Equal(t, -test.late, e.Skew)
				assert.Contains(t, e.String(), "skew=-"+test.late.String())
				assert.Zero(t, next.count())
			})
		})
	}
}

func TestARequestFromAClockAheadIsJudgedAsOneFromBehind(t *testing.T) {
	for ahead, passes := range map[time.Duration]bool{
		5 * time.Minute: true, 5*time.Minute + time.Millisecond: false, time.Hour: false,
	} {
		var header string
		bubble(t, func(t *testing.T) {
			a, _, _ := pair(t)
			time.Sleep(ahead)
			header = signed(t, a, "{}").Header.Get(cluster.SignatureHeader)
		})
		bubble(t, func(t *testing.T) { // begins at the same time as the other
			_, b, seen := pair(t)
			r := post(t, "{}")
			r.Header.Set(cluster.SignatureHeader, header)
			w := give(b.Handler(&echo{}), r)
			e := seen.last(t)
			if passes {
				assert.Equal(t, http.StatusOK, w.Code)
				return
			}
			requireRefused(t, w)
			assert.Equal(t, cluster.ReasonSkew, e.Reason)
			assert.Equal(t, ahead, e.Skew)
		})
	}
}

func TestANonceIsRememberedForAsLongAsItCouldComeAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, seen := pair(t)
		next := &echo{}
		h := b.Handler(next)
		r := signed(t, a, "{}")
		require.Equal(t, http.StatusOK, give(h, r).Code)
		reasons := make(map[cluster.Reason]int)
		for range 2 * 600 {
			time.Sleep(time.Second)
			requireRefused(t, give(h, r))
			reasons[seen.last(t).Reason]++
			if _, err := io.Copy(io.Discard, give(h, signed(t, a, "{}")).Body); err != nil { // keeps forgetting going
				t.Fatal(err)
			}
		}
		assert.Equal(t, map[cluster.Reason]int{cluster.ReasonReplay: 300, cluster.ReasonSkew: 900}, reasons)
	})
}

func TestWhenNoMoreNoncesCanBeRememberedRequestsAreRefusedUntilOldOnesExpire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, seen := pair(t, func(_, b *cluster.Auth) { b.MaxNonces = 100 })
		next := &echo{}
		h := b.Handler(next)
		first := signed(t, a, "{}")
		require.Equal(t, http.StatusOK, give(h, first).Code)
		for range 99 {
			require.Equal(t, http.StatusOK, give(h, signed(t, a, "{}")).Code)
		}
		requireRefused(t, give(h, signed(t, a, "{}")))
		assert.Equal(t, cluster.ReasonNoncesFull, seen.last(t).Reason)
		requireRefused(t, give(h, first))
		assert.Equal(t, cluster.ReasonReplay, seen.last(t).Reason, "a nonce was forgotten to make room")

		time.Sleep(6 * time.Minute)
		assert.Equal(t, http.StatusOK, give(h, signed(t, a, "{}")).Code)
		assert.Equal(t, 101, next.count())
	})
}

func TestAfterARestartWhatWasSignedBeforeIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, _ := pair(t)
		next := &echo{}
		h := b.Handler(next)
		r := signed(t, a, "{}")
		require.Equal(t, http.StatusOK, give(h, r).Code)

		time.Sleep(2 * time.Second)
		_, b, seen := pair(t) // the new process
		h = b.Handler(next)
		requireRefused(t, give(h, r))
		e := seen.last(t)
		assert.Equal(t, cluster.ReasonTooEarly, e.Reason)
		assert.Equal(t, -2*time.Second, e.Skew)
		assert.Equal(t, http.StatusOK, give(h, signed(t, a, "{}")).Code)
	})
}

// nonces is a shared store.
type nonces struct {
	mu   sync.Mutex
	seen map[string]time.Time // guarded by mu
	err  error
	wait bool // until ctx ends
}

func (n *nonces) Use(ctx context.Context, nonce string, until time.Time) (bool, error) {
	if n.wait {
		<-ctx.Done()
		return true, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, seen := n.seen[nonce]; seen {
		return false, n.err
	}
	n.seen[nonce] = until
	return true, n.err
}

func TestASharedStoreOfNoncesSeesWhatOtherProcessesTook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := &nonces{seen: make(map[string]time.Time)}
		setting := func(_, b *cluster.Auth) { b.Nonces = shared }
		a, b, _ := pair(t, setting)
		next := &echo{}
		r := signed(t, a, "{}")
		signedAt := time.Now()
		require.Equal(t, http.StatusOK, give(b.Handler(next), r).Code)
		require.Len(t, shared.seen, 1)
		for nonce, until := range shared.seen {
			assert.Len(t, nonce, 22)
			assert.True(t, until.Equal(signedAt.Add(10*time.Minute)), until)
		}

		time.Sleep(time.Second)
		_, b, seen := pair(t, setting) // after a restart, or another process of this name
		requireRefused(t, give(b.Handler(next), r))
		assert.Equal(t, cluster.ReasonReplay, seen.last(t).Reason)
		assert.Equal(t, 1, next.count())
	})
}

func TestWhenTheStoreOfNoncesFailsRequestsAreRefused(t *testing.T) {
	broken := errors.New("connection refused")
	for name, store := range map[string]*nonces{
		"error":       {seen: make(map[string]time.Time), err: broken},
		"never ready": {wait: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b, seen := pair(t, func(_, b *cluster.Auth) { b.Nonces = store })
				next := &echo{}
				begun := time.Now()
				requireRefused(t, give(b.Handler(next), signed(t, a, "{}")))
				e := seen.last(t)
				assert.Equal(t, cluster.ReasonNoncesFailed, e.Reason)
				if store.wait {
					assert.ErrorIs(t, e.Err, context.DeadlineExceeded)
					assert.Equal(t, 5*time.Second, time.Since(begun))
				} else {
					assert.ErrorIs(t, e.Err, broken)
				}
				assert.Zero(t, next.count())
			})
		})
	}
}

func TestTheBodyOfASignedRequestIsLimited(t *testing.T) {
	a, b, seen := pair(t, func(_, b *cluster.Auth) { b.MaxBodyBytes = 100 << 10 })
	next := &echo{}
	h := b.Handler(next)
	assert.Equal(t, http.StatusOK, give(h, signed(t, a, strings.Repeat("x", 100<<10))).Code)

	announced := arrive(signed(t, a, strings.Repeat("x", 100<<10+1)))
	announced.Body = unread{t}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, announced)
	requireRefused(t, w)
	assert.Equal(t, cluster.ReasonTooLarge, seen.last(t).Reason)

	endless := arrive(signed(t, a, "x"))
	counter := &endlessBody{}
	endless.Body, endless.ContentLength = counter, -1
	w = httptest.NewRecorder()
	h.ServeHTTP(w, endless)
	requireRefused(t, w)
	assert.Equal(t, cluster.ReasonTooLarge, seen.last(t).Reason)
	assert.LessOrEqual(t, counter.read, 100<<10+1)
	assert.Equal(t, 1, next.count())
}

type endlessBody struct{ read int }

func (b *endlessBody) Read(p []byte) (int, error) {
	b.read += len(p)
	return len(p), nil
}

func (*endlessBody) Close() error { return nil }

// gate is a body that comes when it is opened.
type gate struct {
	begun chan struct{}
	open  chan struct{}
	once  sync.Once
}

func (g *gate) Read([]byte) (int, error) {
	g.once.Do(func() { close(g.begun) })
	<-g.open
	return 0, io.EOF
}

func (*gate) Close() error { return nil }

func TestTheBodiesInHandAreLimitedTogether(t *testing.T) {
	a, b, seen := pair(t, func(_, b *cluster.Auth) { b.MaxBodyBytes, b.MaxBufferedBytes = 1000, 2000 })
	h := b.Handler(&echo{})
	var wg sync.WaitGroup
	slow := make([]*gate, 2)
	for i := range slow {
		slow[i] = &gate{begun: make(chan struct{}), open: make(chan struct{})}
		r := arrive(signed(t, a, ""))
		r.Body, r.ContentLength = slow[i], -1
		wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), r) })
		<-slow[i].begun
	}
	requireRefused(t, give(h, signed(t, a, "x")))
	assert.Equal(t, cluster.ReasonBusy, seen.last(t).Reason)
	assert.Equal(t, http.StatusOK, give(h, signed(t, a, "")).Code, "no body needs no room")

	close(slow[0].open)
	close(slow[1].open)
	wg.Wait()
	for range 10 {
		assert.Equal(t, http.StatusOK, give(h, signed(t, a, strings.Repeat("x", 1000))).Code)
	}
}

func TestABodyThatDoesNotComeInTimeIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, seen := pair(t)
		next := &echo{}
		client := serve(t, b.Handler(next))
		r := atLoopback(signed(t, a, "{}"))
		stop := make(chan struct{})
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), blocked{stop}))
		begun := time.Now()
		resp, err := client.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		assert.Equal(t, http.StatusForbidden, resp.StatusCode)
		assert.Equal(t, 30*time.Second, time.Since(begun))
		close(stop)
		assert.Equal(t, cluster.ReasonBody, seen.last(t).Reason)
		assert.Zero(t, next.count())
	})
}

type blocked struct{ stop chan struct{} }

func (b blocked) Read([]byte) (int, error) {
	<-b.stop
	return 0, io.EOF
}

func TestAHandlerMayTakeLongerThanTheBody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, _ := pair(t)
		client := serve(t, b.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(10 * time.Minute):
				w.WriteHeader(http.StatusAccepted)
			case <-r.Context().Done():
			}
		})))
		resp, err := a.Do(client, atLoopback(post(t, "{}")), "node-b")
		require.NoError(t, err)
		defer resp.Body.Close()
		assert.Equal(t, http.StatusAccepted, resp.StatusCode)
	})
}

// atLoopback makes a request's URL one of this machine, without TLS.
func atLoopback(r *http.Request) *http.Request {
	r.URL.Scheme, r.URL.Host = "http", "localhost"
	return r
}
