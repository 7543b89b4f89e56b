package mllp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// raw returns the next answer to the byte.
func (c *caller) rawAnswer() string {
	c.t.Helper()
	text, err := c.frames.Next()
	require.NoError(c.t, err)
	return string(text)
}

func TestARepeatedMessageIsAnsweredAsBeforeWithoutTheHandler(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Replay: new(mllp.MemoryReplay)})
		first := s.call()
		first.say(frame(msgA))
		answer := first.rawAnswer()
		time.Sleep(time.Hour)
		first.say(frame(msgA))
		assert.Equal(t, answer, first.rawAnswer())
		first.raw.Close()
		again := s.call() // the connection broke, and the answer with it
		again.say(frame(msgA) + frame(msgB))
		assert.Equal(t, answer, again.rawAnswer())
		assert.Equal(t, "AA id2", again.hear())
		synctest.Wait()
		assert.Equal(t, []string{msgA, msgB}, s.delivered())
		assert.Equal(t, []string{"replayed", "replayed"}, s.told())
		time.Sleep(25 * time.Hour)
		again.say(frame(msgA))
		assert.NotEqual(t, answer, again.rawAnswer(), "forgotten after a day")
		assert.Len(t, s.delivered(), 3)
	})
}

func TestAnotherMessageWithTheSameIDFollowsThePolicy(t *testing.T) {
	other := strings.Replace(msgA, "ADT^A01", "ADT^A03", 1)
	for policy, tc := range map[mllp.Policy]struct {
		want  string
		taken bool
	}{"": {"AR id1", false}, mllp.PolicyReject: {"AR id1", false}, mllp.PolicyError: {"AE id1", false}, mllp.PolicyDeliver: {"AA id1", true}} {
		t.Run(string(policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var flags []mllp.Flags
				s := serve(t, &mllp.Server{Replay: new(mllp.MemoryReplay), DuplicateID: policy, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
					flags = append(flags, r.Flags)
					return nil, nil
				})})
				c := s.call()
				c.say(frame(msgA) + frame(other))
				assert.Equal(t, "AA id1", c.hear())
				assert.Equal(t, tc.want, c.hear())
				synctest.Wait()
				if tc.taken {
					assert.Equal(t, []mllp.Flags{0, mllp.DuplicateID}, flags)
				} else {
					assert.Len(t, flags, 1)
					assert.Equal(t, []string{"rejected duplicate_id"}, s.told())
				}
			})
		})
	}
}

func TestOnlyAcceptancesAreRemembered(t *testing.T) {
	for name, first := range map[string]error{"error": errors.New("x"), "reject": &mllp.Nak{Code: mllp.AR}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				s := serve(t, &mllp.Server{Replay: new(mllp.MemoryReplay), Enhanced: true, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
					if n++; n == 1 {
						return nil, first
					}
					return nil, nil
				})})
				c := s.call()
				c.say(frame(asking("id1", "ER", "NE")))
				assert.Contains(t, []string{"CE id1", "CR id1"}, c.hear())
				c.say(frame(asking("id1", "ER", "NE")))
				c.quiet(time.Second) // accepted, and no acknowledgement asked for
				c.say(frame(asking("id1", "ER", "NE")))
				c.quiet(time.Second)
				assert.Equal(t, 2, n, "the acceptance without an acknowledgement is remembered too")
			})
		})
	}
}

func TestBothAcknowledgementsOfEnhancedModeAreReplayed(t *testing.T) {
	for _, result := range []error{nil, &mllp.Nak{Code: mllp.AE}} {
		synctest.Test(t, func(t *testing.T) {
			applied := 0
			s := serve(t, &mllp.Server{
				Replay: new(mllp.MemoryReplay), Enhanced: true,
				Application: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
					applied++
					return nil, result
				}),
			})
			c := s.call()
			c.say(frame(asking("id1", "AL", "AL")))
			commit, word := c.rawAnswer(), c.rawAnswer()
			c.say(frame(asking("id1", "AL", "AL")))
			assert.Equal(t, commit, c.rawAnswer())
			assert.Equal(t, word, c.rawAnswer())
			assert.Equal(t, 1, applied)
		})
	}
}

func TestARepetitionWaitsForTheMessageThatIsBeingHandled(t *testing.T) {
	for name, srv := range map[string]*mllp.Server{"one by one": {}, "in parallel": {Key: patientOf, Parallel: 4}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				s := serve(t, &mllp.Server{
					Key: srv.Key, Parallel: srv.Parallel, Replay: new(mllp.MemoryReplay),
					Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
						calls.Add(1)
						time.Sleep(time.Minute)
						return nil, nil
					}),
				})
				first, second := s.call(), s.call()
				first.say(frame(keyed("m1", "p1")))
				synctest.Wait()
				second.say(frame(keyed("m1", "p1"))) // its sender has lost patience
				assert.Equal(t, first.rawAnswer(), second.rawAnswer())
				assert.Equal(t, int32(1), calls.Load())
			})
		})
	}
}

func TestOfMessagesWithOneIDTheFirstIsTakenWhateverTheirKeys(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, &mllp.Server{Key: patientOf, Parallel: 8, Replay: new(mllp.MemoryReplay)})
			c := s.call()
			c.say(frame(keyed("m1", "p1")) + frame(keyed("m1", "p2")) + frame(keyed("m1", "p3")))
			for _, want := range []string{"AA m1", "AR m1", "AR m1"} {
				assert.Equal(t, want, c.hear())
			}
			assert.Equal(t, []string{keyed("m1", "p1")}, s.delivered())
		})
	}
}

// Two connections send the same messages in opposite orders, many at a time:
// none may wait for the other's turn for ever.
func TestRepetitionsOnSeveralConnectionsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{
			Key: patientOf, Parallel: 8, Replay: new(mllp.MemoryReplay), Enhanced: true,
			Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
				time.Sleep(time.Second)
				return nil, nil
			}),
		})
		var wg sync.WaitGroup
		for turn := range 4 {
			c := s.call()
			wg.Go(func() {
				for i := range 50 {
					if turn%2 == 1 {
						i = 49 - i
					}
					c.say(frame(keyed(fmt.Sprint("m", i), fmt.Sprint("p", i))))
				}
				for range 50 {
					assert.True(t, strings.HasPrefix(c.hear(), "AA "))
				}
			})
		}
		wg.Wait()
		assert.Len(t, s.delivered(), 50)
	})
}

func TestSendersWithTheSameIDsDoNotMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Replay: new(mllp.MemoryReplay)})
		raw, err := s.ln.DialFrom(net.IPv4(10, 0, 0, 9))
		require.NoError(t, err)
		one, other := s.call(), s.callOn(raw)
		for _, c := range []*caller{one, other} {
			c.say(frame(msgA))
			assert.Equal(t, "AA id1", c.hear())
		}
		one.say(frame(strings.Replace(msgA, "|A|B|", "|A2|B|", 1)))
		assert.Equal(t, "AA id1", one.hear())
		assert.Len(t, s.delivered(), 3)
	})
	t.Run("nor do certificates", func(t *testing.T) {
		p := pki()
		another := p.ca.Client("ward 8")
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, &mllp.Server{
				Replay:    new(mllp.MemoryReplay),
				TLSConfig: &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, ClientCAs: p.ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12},
			})
			for i, pair := range []*testpki.Pair{p.client, another, p.client} {
				s.clients = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{pair.TLS()}, MinVersion: tls.VersionTLS12}
				raw, err := s.ln.DialFrom(net.IPv4(10, 0, 0, byte(i))) // where from makes no difference
				require.NoError(t, err)
				c := s.callOn(raw)
				c.say(frame(msgA))
				assert.Equal(t, "AA id1", c.hear())
			}
			assert.Len(t, s.delivered(), 2)
		})
	})
}

// brokenStore fails.
type brokenStore struct{ recall, record error }

func (b brokenStore) Recall(context.Context, mllp.ReplayID) (*mllp.Replay, error) {
	return nil, b.recall
}
func (b brokenStore) Record(context.Context, mllp.ReplayID, *mllp.Replay) error { return b.record }

func TestAReplayStoreThatFails(t *testing.T) {
	for name, tc := range map[string]struct {
		store     brokenStore
		want      string
		delivered int
	}{
		"recalling": {brokenStore{recall: errors.New(canary)}, "AE id1", 0},
		"recording": {brokenStore{record: errors.New(canary)}, "AA id1", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{Replay: tc.store})
				c := s.call()
				c.say(frame(msgA))
				assert.Equal(t, tc.want, c.hear())
				synctest.Wait()
				assert.Len(t, s.delivered(), tc.delivered)
				assert.Equal(t, []string{"handler_failed"}, s.told())
				assert.NotContains(t, s.log.String(), "Canary")
			})
		})
	}
}

func TestMemoryReplayForgetsTheOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		remembers := func(m *mllp.MemoryReplay) (ids string) {
			for i := range byte(6) {
				if r, err := m.Recall(ctx, mllp.ReplayID{i}); err == nil && r != nil {
					ids += fmt.Sprint(i)
				}
			}
			return ids
		}
		for name, tc := range map[string]struct {
			m    *mllp.MemoryReplay
			want string
		}{
			"defaults":   {&mllp.MemoryReplay{}, "012345"},
			"entries":    {&mllp.MemoryReplay{MaxEntries: 2}, "45"},
			"bytes":      {&mllp.MemoryReplay{MaxBytes: 3 * (256 + 1000)}, "345"},
			"age":        {&mllp.MemoryReplay{MaxAge: 90 * time.Second}, "45"},
			"no limits":  {&mllp.MemoryReplay{MaxEntries: -1, MaxBytes: -1, MaxAge: -1}, "012345"},
			"no room":    {&mllp.MemoryReplay{MaxBytes: 100}, ""},
			"all of one": {&mllp.MemoryReplay{MaxEntries: 1}, "5"},
		} {
			for i := range byte(6) {
				require.NoError(t, tc.m.Record(ctx, mllp.ReplayID{i}, &mllp.Replay{Acks: [][]byte{make([]byte, 1000)}}))
				if i < 5 {
					time.Sleep(time.Minute)
				}
			}
			assert.Equal(t, tc.want, remembers(tc.m), name)
		}
		m := &mllp.MemoryReplay{MaxEntries: 2}
		for _, id := range []byte{0, 1, 0, 2} {
			require.NoError(t, m.Record(ctx, mllp.ReplayID{id}, &mllp.Replay{Digest: [32]byte{id + 7}}))
		}
		assert.Equal(t, "02", remembers(m), "recorded again is young again")
		r, err := m.Recall(ctx, mllp.ReplayID{2})
		require.NoError(t, err)
		assert.Equal(t, [32]byte{9}, r.Digest)
	})
}
