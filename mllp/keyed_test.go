package mllp_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// keyed returns a message of a patient.
func keyed(id, patient string) string {
	return "MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102||ADT^A01|" + id + "|P|2.5\rPID|1||" + patient + "\r"
}

// patientOf is a Server.Key: PID-3 of the messages of keyed, nil for none.
func patientOf(r *mllp.Request) []byte {
	_, pid, _ := strings.Cut(string(r.Message), "PID|1||")
	patient, _, _ := strings.Cut(pid, "\r")
	return []byte(patient)
}

func TestMessagesWithDifferentKeysAreHandledBesideEachOtherAndAnsweredInOrder(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Key: patientOf, Parallel: 8, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			if string(r.Header.ControlID) == "m0" {
				time.Sleep(time.Minute) // the others are done before
			}
			time.Sleep(time.Second)
			return nil, nil
		})})
		c := s.call()
		began := time.Now()
		for i := range 8 {
			c.say(frame(keyed(fmt.Sprint("m", i), fmt.Sprint("p", i))))
		}
		for i := range 8 {
			assert.Equal(t, fmt.Sprint("AA m", i), c.hear())
			assert.Equal(t, 61*time.Second, time.Since(began))
		}
		assert.Len(t, s.delivered(), 8)
		began = time.Now()
		for i := range 16 {
			c.say(frame(keyed(fmt.Sprint("n", i), fmt.Sprint("p", i%8))))
		}
		for i := range 16 {
			assert.Equal(t, fmt.Sprint("AA n", i), c.hear())
		}
		assert.Equal(t, 2*time.Second, time.Since(began), "two of each key")
	})
}

func TestMessagesWithTheSameKeyStayInOrderAndThoseWithoutAreAlone(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, seed))
			var mu sync.Mutex
			running := map[string]int{}
			var handled []string
			s := serve(t, &mllp.Server{Key: patientOf, Parallel: 2 + rng.IntN(9), Enhanced: true, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				patient := string(patientOf(r))
				mu.Lock()
				assert.Zero(t, running[patient], "of one patient at a time")
				assert.Zero(t, running[""], "beside one without a key")
				if patient == "" {
					for _, n := range running {
						assert.Zero(t, n, "one without a key beside others")
					}
				}
				running[patient]++
				handled = append(handled, patient+"/"+string(r.Header.ControlID))
				pause := time.Duration(rng.IntN(5)) * time.Second
				fails := rng.IntN(5) == 0
				mu.Unlock()
				time.Sleep(pause)
				mu.Lock()
				running[patient]--
				mu.Unlock()
				if fails {
					return nil, &mllp.Nak{Code: mllp.AR}
				}
				return nil, nil
			})})
			c := s.call()
			var sent, frames []string
			for i := range 60 {
				patient := []string{"", "p1", "p2", "p3", "p4", "p5"}[rng.IntN(6)]
				id := fmt.Sprint("m", i)
				sent = append(sent, patient+"/"+id)
				msg := keyed(id, patient)
				if rng.IntN(10) == 0 {
					msg = strings.Replace(msg, "\r", "|||AL|NE\r", 1)
				}
				frames = append(frames, frame(msg))
			}
			c.say(strings.Join(frames, ""))
			for i := range 60 {
				_, id, _ := strings.Cut(c.hear(), " ")
				require.Equal(t, fmt.Sprint("m", i), id)
			}
			of := func(all []string, patient string) (some []string) {
				for _, s := range all {
					if strings.HasPrefix(s, patient+"/") {
						some = append(some, s)
					}
				}
				return some
			}
			for _, patient := range []string{"", "p1", "p2", "p3", "p4", "p5"} {
				assert.Equal(t, of(sent, patient), of(handled, patient))
			}
		})
	}
}

func TestCommitsLeaveInOrderAndApplicationsAcknowledgementsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{
			Enhanced: true, Key: patientOf, Parallel: 4,
			Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
			Application: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				if string(r.Header.ControlID) == "m0" {
					time.Sleep(time.Minute)
				}
				return nil, nil
			}),
		})
		c := s.call()
		for i := range 3 {
			c.say(frame(strings.Replace(keyed(fmt.Sprint("m", i), fmt.Sprint("p", i)), "|2.5\r", "|2.5|||AL|AL\r", 1)))
		}
		began := time.Now()
		for i := range 3 {
			assert.Equal(t, fmt.Sprint("CA m", i), c.hear(), "a slow application holds up no commit")
		}
		assert.Zero(t, time.Since(began))
		for i := range 3 {
			assert.Equal(t, fmt.Sprint("AA m", i), c.hear())
		}
		assert.Equal(t, time.Minute, time.Since(began))
	})
}

func TestWhatIsHandledBesideEachOtherIsAnsweredBeforeTheEnd(t *testing.T) {
	slow := mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
		time.Sleep(5 * time.Second)
		switch string(r.Header.ControlID) {
		case "silent":
			return nil, mllp.ErrNoReply
		case "panic":
			panic(canary)
		}
		return nil, nil
	})
	for name, tc := range map[string]struct {
		then func(s *site, c *caller)
		in   string
		want []string
		told []string
	}{
		"the client's end":       {func(_ *site, c *caller) { c.raw.CloseWrite() }, "", []string{"AA m0", "AA m1", "end"}, nil},
		"a drain":                {func(s *site, _ *caller) { go s.srv.Shutdown(s.t.Context()) }, "", []string{"AA m0", "AA m1", "end"}, []string{"closed shutdown"}},
		"idle for too long":      {func(*site, *caller) {}, "", []string{"AA m0", "AA m1", "end"}, []string{"closed idle_timeout"}},
		"a bad frame":            {func(*site, *caller) {}, "GET / HTTP/1.1\r\n\r\n" + strings.Repeat("x", 5000), []string{"AA m0", "AA m1", "end"}, []string{"bad_frame preamble_too_long", "closed preamble_too_long"}},
		"one without an answer":  {func(*site, *caller) {}, frame(keyed("silent", "p3")), []string{"AA m0", "AA m1", "end"}, []string{"closed no_reply"}},
		"a handler that panics":  {func(*site, *caller) {}, frame(keyed("panic", "p3")), []string{"AA m0", "AA m1", "AE panic", "end"}, []string{"handler_failed panic", "closed idle_timeout"}},
		"a refused one":          {func(*site, *caller) {}, frame(msgA + msgB), []string{"AA m0", "AA m1", "AR id1", "end"}, []string{"rejected multiple_msh", "closed idle_timeout"}},
		"another before its end": {func(*site, *caller) {}, "\x0b" + msgA[:48] + frame(keyed("m2", "p2")), []string{"AA m0", "AA m1", "AE id1", "AA m2", "end"}, []string{"bad_frame truncated", "closed idle_timeout"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{Key: patientOf, Parallel: 4, Handler: slow, IdleTimeout: 3 * time.Second})
				c := s.call()
				c.say(frame(keyed("m0", "p0")) + frame(keyed("m1", "p1")) + tc.in)
				synctest.Wait()
				tc.then(s, c)
				var got []string
				for range tc.want {
					got = append(got, c.hear())
				}
				assert.Equal(t, tc.want, got)
				time.Sleep(time.Minute)
				assert.Equal(t, tc.told, s.told())
			})
		})
	}
}

func TestWhatWasHandledBesideASilentOneIsReportedAsUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Key: patientOf, Parallel: 4, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			if string(r.Header.ControlID) == "m0" {
				time.Sleep(time.Second)
				return nil, mllp.ErrNoReply
			}
			return nil, nil
		})})
		c := s.call()
		c.say(frame(keyed("m0", "p0")) + frame(keyed("m1", "p1")))
		assert.Equal(t, "end", c.hear())
		synctest.Wait()
		assert.Equal(t, "m1", s.event(mllp.EventAckUndeliverable).ControlID)
	})
}

func TestALateHandlerHoldsUpOnlyItsOwnKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Key: patientOf, Parallel: 4, HandlerTimeout: time.Second, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			if string(r.Header.ControlID) == "m0" {
				time.Sleep(time.Minute)
				assert.Equal(t, keyed("m0", "p0"), string(r.Message), "its request stays as it is")
			}
			return nil, nil
		})})
		c := s.call()
		began := time.Now()
		for i, patient := range []string{"p0", "p1", "p0", "p2"} {
			c.say(frame(keyed(fmt.Sprint("m", i), patient)))
		}
		assert.Equal(t, "AE m0", c.hear())
		assert.Equal(t, "AA m1", c.hear())
		assert.Equal(t, time.Second, time.Since(began))
		assert.Equal(t, "AA m2", c.hear())
		assert.Equal(t, time.Minute, time.Since(began))
		assert.Equal(t, "AA m3", c.hear())
	})
}

func TestAKeyThatPanicsEndsItsConnectionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Parallel: 4, Key: func(r *mllp.Request) []byte {
			if string(r.Header.ControlID) == "id2" {
				panic(canary)
			}
			return r.Header.ControlID
		}})
		c, other := s.call(), s.call()
		c.say(frame(msgA) + frame(msgB))
		assert.Equal(t, "AA id1", c.hear())
		assert.Equal(t, "end", c.hear())
		other.say(frame(msgA))
		assert.Equal(t, "AA id1", other.hear())
		synctest.Wait()
		assert.Equal(t, []string{"handler_failed panic", "closed panic"}, s.told())
		assert.NotContains(t, s.log.String(), "Canary")
	})
}

func TestWithoutMemoryForCopiesMessagesAreHandledOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100 << 10
		var most, now atomic.Int32
		s := serve(t, &mllp.Server{
			// After the reserve for one message there is room for two copies.
			MaxMessageBytes: 1 << 20, MaxBufferedBytes: (1<<20+16)/2*5 + 5*size/2,
			Key: patientOf, Parallel: 8,
			Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				most.Store(max(most.Load(), now.Add(1)))
				time.Sleep(time.Second)
				now.Add(-1)
				return nil, nil
			}),
		})
		c := s.call()
		go func() {
			for i := range 12 {
				c.say(frame(keyed(fmt.Sprint("m", i), fmt.Sprint("p", i)) + "OBX|" + strings.Repeat("x", size) + "\r"))
			}
		}()
		for i := range 12 {
			assert.Equal(t, fmt.Sprint("AA m", i), c.hear())
		}
		assert.LessOrEqual(t, most.Load(), int32(2))
		assert.Positive(t, most.Load())
	})
}

func TestParallelWithoutAKeyIsRefused(t *testing.T) {
	h := mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })
	for want, srv := range map[string]*mllp.Server{
		"Server.Key and a Server.Parallel above 1": {Handler: h, Parallel: 2},
		"need each other":                          {Handler: h, Key: patientOf},
		"Server.Parallel is negative":              {Handler: h, Parallel: -1},
		"Responder.Addr is not set":                {Handler: h, Responder: &mllp.Responder{}},
		"Responder.Timeout or Pause is negative":   {Handler: h, Responder: &mllp.Responder{Addr: "a:1", Pause: -1}},
		`Responder.When is "2"`:                    {Handler: h, Responder: &mllp.Responder{Addr: "a:1", When: "2"}},
		`Server.DuplicateID is "close"`:            {Handler: h, DuplicateID: mllp.PolicyClose},
		`Server.Batches is "close"`:                {Handler: h, Batches: mllp.PolicyClose},
	} {
		assert.ErrorContains(t, srv.Validate(), want)
	}
}

// BenchmarkKeyed compares a connection whose messages have eight keys with one
// whose messages are handled one by one; the handler takes 1 ms. ratio is the
// former's messages per second by the latter's.
func BenchmarkKeyed(b *testing.B) {
	const messages = 400
	listen := func(srv *mllp.Server) net.Conn {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		srv.Handler = mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
			time.Sleep(time.Millisecond)
			return nil, nil
		})
		served := make(chan struct{})
		go func() {
			srv.Serve(b.Context(), ln)
			close(served)
		}()
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		b.Cleanup(func() {
			c.Close()
			srv.Close()
			<-served
		})
		return c
	}
	var frames strings.Builder
	for i := range messages {
		frames.WriteString(frame(keyed(fmt.Sprint("m", i), fmt.Sprint("p", i%8))))
	}
	run := func(c net.Conn) time.Duration {
		began := time.Now()
		go c.Write([]byte(frames.String()))
		r := mllp.NewReader(c, 0)
		for range messages {
			if _, err := r.Next(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began)
	}
	sequential := listen(&mllp.Server{})
	parallel := listen(&mllp.Server{Key: patientOf, Parallel: 16})
	var took [2]time.Duration
	b.ReportAllocs()
	for b.Loop() {
		took[0] += run(sequential)
		took[1] += run(parallel)
	}
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "ratio")
}
