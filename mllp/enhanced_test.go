package mllp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// asking returns a message that asks for these acknowledgements.
func asking(id, accept, application string) string {
	return "MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ADT^A01^ADT_A01|" + id + "|P|2.5|||" + accept + "|" + application + "\rPID|1||4711||" + canary + "\r"
}

// table0155 says, in HL7's own words, whether a condition wants an acknowledgement.
var table0155 = map[string]map[string]bool{
	"AL": {"success": true, "error": true, "reject": true},
	"NE": {"success": false, "error": false, "reject": false},
	"ER": {"success": false, "error": true, "reject": true},
	"SU": {"success": true, "error": false, "reject": false},
}

var results = map[string]error{"success": nil, "error": errors.New(canary), "reject": &mllp.Nak{Code: mllp.AR}}

// acks waits for n acknowledgements, and for a second that no other one comes.
func (c *caller) acks(n int) (all []string) {
	c.t.Helper()
	for range n {
		all = append(all, c.hear())
	}
	c.quiet(time.Second)
	return all
}

func TestEveryConditionOfTable0155IsHeeded(t *testing.T) {
	commit := map[string]string{"success": "CA id1", "error": "CE id1", "reject": "CR id1"}
	application := map[string]string{"success": "AA id1", "error": "AE id1", "reject": "AR id1"}
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		for accept := range table0155 {
			for apply := range table0155 {
				for result, err := range results {
					var want []string
					if table0155[accept][result] {
						want = append(want, commit[result])
					}
					// What was not accepted has no application that could say something of it,
					// unless the sender would hear nothing.
					if table0155[apply][result] && (result == "success" || len(want) == 0) {
						want = append(want, application[result])
					}
					name := fmt.Sprintf("%s %s %s", accept, apply, result)
					s := start(&mllp.Server{Enhanced: true, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
						if string(r.Header.ControlID) == "id1" {
							return nil, err
						}
						return nil, nil
					})})
					c := s.call()
					c.say(frame(asking("id1", accept, apply)))
					assert.Equal(t, want, c.acks(len(want)), name)
					c.say(frame(msgB))
					assert.Equal(t, "AA id2", c.hear(), "%s: a message that asks for nothing is in original mode", name)
					c.raw.Close()
				}
			}
		}
	})
}

func TestTheApplicationAnswersAfterTheCommit(t *testing.T) {
	for accept := range table0155 {
		for apply := range table0155 {
			for result, err := range results {
				synctest.Test(t, func(t *testing.T) {
					var committed time.Time
					s := serve(t, &mllp.Server{
						Enhanced: true,
						Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
							committed = time.Now()
							return nil, nil
						}),
						Application: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
							assert.Equal(t, "id1", string(r.Header.ControlID))
							time.Sleep(time.Minute)
							return nil, err
						}),
					})
					c := s.call()
					c.say(frame(asking("id1", accept, apply)))
					if table0155[accept]["success"] {
						assert.Equal(t, "CA id1", c.hear())
						assert.Zero(t, time.Since(committed), "at commit")
					}
					if table0155[apply][result] {
						code := map[string]string{"success": "AA", "error": "AE", "reject": "AR"}[result]
						assert.Equal(t, code+" id1", c.hear())
						assert.Equal(t, time.Minute, time.Since(committed))
					}
					c.quiet(2 * time.Minute)
				})
			}
		}
	}
}

func TestOriginalModeHasOneAcknowledgementForCommitAndApplication(t *testing.T) {
	for name, tc := range map[string]struct {
		commit, apply error
		want          string
		applied       bool
	}{
		"both well":          {want: "AA id1", applied: true},
		"the commit fails":   {commit: errors.New("x"), want: "AE id1"},
		"application fails":  {apply: &mllp.Nak{Code: mllp.AR}, want: "AR id1", applied: true},
		"application silent": {apply: mllp.ErrNoReply, want: "end", applied: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, enhanced := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					applied := false
					s := serve(t, &mllp.Server{
						Enhanced: enhanced,
						Handler:  mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, tc.commit }),
						Application: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
							applied = true
							return nil, tc.apply
						}),
					})
					c := s.call()
					msg := msgA
					if !enhanced {
						msg = asking("id1", "AL", "NE") // of no effect
					}
					c.say(frame(msg))
					assert.Equal(t, tc.want, c.hear())
					synctest.Wait()
					assert.Equal(t, tc.applied, applied)
				})
			}
		})
	}
}

func TestAMissingConditionCountsAsTheServerIsTold(t *testing.T) {
	for _, tc := range []struct {
		missing       mllp.AckCondition
		accept, apply string
		fails         bool
		want          []string
	}{
		{"AL", "AL", "", false, []string{"CA id1", "AA id1"}},
		{"AL", "", "AL", false, []string{"CA id1", "AA id1"}},
		{"AL", "", "NE", false, []string{"CA id1"}},
		{"SU", "AL", "", false, []string{"CA id1", "AA id1"}},
		{"SU", "", "AL", true, []string{"AE id1"}},
		{"ER", "", "AL", true, []string{"CE id1"}},
		{"ER", "", "AL", false, []string{"AA id1"}},
		{"NE", "AL", "", false, []string{"CA id1"}},
		{"AL", "", "", false, []string{"AA id1"}}, // original mode
		{"AL", "NE", "NE", false, nil},
	} {
		t.Run(fmt.Sprintf("%s/%s/%s/%v", tc.missing, tc.accept, tc.apply, tc.fails), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{Enhanced: true, MissingCondition: tc.missing, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
					if tc.fails {
						return nil, errors.New("no")
					}
					return nil, nil
				})})
				c := s.call()
				c.say(frame(asking("id1", tc.accept, tc.apply)))
				assert.Equal(t, tc.want, c.acks(len(tc.want)))
				if (tc.accept == "") != (tc.apply == "") {
					assert.Contains(t, s.told(), "tolerated ack_condition_missing")
				}
			})
		})
	}
}

func TestAConditionIsAWordOfTable0155(t *testing.T) {
	var c mllp.AckCondition
	require.NoError(t, c.UnmarshalText([]byte("SU")))
	assert.Equal(t, mllp.AckSuccess, c)
	require.NoError(t, c.UnmarshalText(nil))
	assert.Empty(t, c)
	require.ErrorContains(t, c.UnmarshalText([]byte("always")), "unknown condition")

	for want, srv := range map[string]*mllp.Server{
		`MissingCondition is "XX"`:                  {Enhanced: true, MissingCondition: "XX"},
		"MissingCondition is set, but not Enhanced": {MissingCondition: mllp.AckAlways},
	} {
		srv.Handler = accepting
		require.ErrorContains(t, srv.Validate(), "mllp: Server."+want)
		d := &mllp.Dialer{Enhanced: srv.Enhanced, MissingCondition: srv.MissingCondition}
		_, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
		require.ErrorContains(t, err, "Dialer."+want)
	}
}

func TestOddConditionsCountAsAlwaysAndAMissingOneAsNever(t *testing.T) {
	for _, tc := range []struct {
		accept, apply string
		want          []string
		told          []string
	}{
		{"AL", "", []string{"CA id1"}, []string{"tolerated ack_condition_missing"}},
		{"", "AL", []string{"AA id1"}, []string{"tolerated ack_condition_missing"}},
		{"al", "ne", []string{"CA id1", "AA id1"}, []string{"tolerated ack_condition_unknown", "tolerated ack_condition_unknown"}},
		{"XX", "NE", []string{"CA id1"}, []string{"tolerated ack_condition_unknown"}},
		{"NE", "NE", nil, nil},
		{"", "", []string{"AA id1"}, nil},
	} {
		t.Run(tc.accept+"/"+tc.apply, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{Enhanced: true})
				c := s.call()
				c.say(frame(asking("id1", tc.accept, tc.apply)))
				assert.Equal(t, tc.want, c.acks(len(tc.want)))
				assert.Equal(t, tc.told, s.told())
			})
		})
	}
}

func TestAMessageThatNeverReachesTheHandlerIsAnsweredAsItAsks(t *testing.T) {
	cut := asking("id1", "AL", "NE")
	for name, tc := range map[string]struct {
		in   string
		want []string
	}{
		"two messages":             {frame(asking("id1", "AL", "AL") + asking("id2", "AL", "AL")), []string{"CR id1"}},
		"two messages, never":      {frame(asking("id1", "NE", "NE") + asking("id2", "AL", "AL")), nil},
		"two messages, on success": {frame(asking("id1", "SU", "AL") + asking("id2", "AL", "AL")), []string{"AR id1"}},
		"cut off":                  {"\x0b" + cut[:len(cut)-5] + frame(msgB), []string{"CE id1", "AA id2"}},
		"cut off, never":           {"\x0b" + asking("id1", "NE", "NE") + frame(msgB), []string{"AA id2"}},
		"HL7 2.1":                  {frame(strings.Replace(asking("id1", "AL", "NE"), "2.5", "2.1", 1)), []string{"AA id1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := serve(t, &mllp.Server{Enhanced: true}).call()
				c.say(tc.in)
				assert.Equal(t, tc.want, c.acks(len(tc.want)))
			})
		})
	}
	t.Run("too large", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := serve(t, &mllp.Server{Enhanced: true, MaxMessageBytes: 200}).call()
			c.say(frame(asking("id1", "AL", "NE") + strings.Repeat("x", 200)))
			assert.Equal(t, "CR id1", c.hear())
			assert.Equal(t, "end", c.hear())
		})
	})
}

func TestAnApplicationsAcknowledgementGetsTheCommitThatItAsksFor(t *testing.T) {
	ack := func(code, accept, application string) string {
		return frame("MSH|^~\\&|EHR|CLINIC|LAB|HOSP|2025||ACK^A01^ACK|id9|P|2.5|||" + accept + "|" + application + "\rMSA|" + code + "|id0\r")
	}
	for name, tc := range map[string]struct {
		in   string
		err  error
		want []string
	}{
		"it asks":                    {in: ack("AA", "AL", "NE"), want: []string{"CA id9"}},
		"it asks, and is not taken":  {in: ack("AE", "AL", "NE"), err: errors.New("x"), want: []string{"CE id9"}},
		"it does not ask":            {in: ack("AA", "", "")},
		"it asks for one of its own": {in: ack("AA", "", "AL")},
		"it asks for both":           {in: ack("AA", "AL", "AL"), want: []string{"CA id9"}},
		"it is a commit":             {in: ack("CA", "AL", "AL")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{Enhanced: true, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
					assert.NotZero(t, r.Flags&mllp.IsAck)
					return nil, tc.err
				})})
				c := s.call()
				c.say(tc.in)
				assert.Equal(t, tc.want, c.acks(len(tc.want)))
				assert.Len(t, s.delivered(), 1)
			})
		})
	}
}

func TestAHandlersOwnReplyTakesThePlaceThatItsCodeSays(t *testing.T) {
	own := func(code string) []byte {
		return []byte("MSH|^~\\&|C|D|A|B|20260101||RSP|x1|P|2.5\rMSA|" + code + "|id1|own\r")
	}
	for code, want := range map[string][]string{
		"CA": {"CA id1 own", "AA id1 "}, "AA": {"CA id1 ", "AA id1 own"}, "AE": {"CE id1 "}, "CR": {"CR id1 own"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := serve(t, &mllp.Server{Enhanced: true, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
				return own(code), nil
			})}).call()
			c.say(frame(asking("id1", "AL", "AL")))
			var got []string
			for range want {
				text, err := c.frames.Next()
				require.NoError(t, err)
				a, err := mllp.ParseAck(text)
				require.NoError(t, err)
				text3 := a.Text
				if text3 == "internal error" {
					text3 = ""
				}
				got = append(got, string(a.Code)+" "+a.ControlID+" "+text3)
			}
			assert.Equal(t, want, got, code)
			c.quiet(time.Second)
		})
	}
}

func TestTheApplicationGetsACommittedMessageEvenIfTheSenderHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var applied atomic.Bool
		gone := make(chan struct{})
		s := serve(t, &mllp.Server{
			Enhanced: true,
			Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
				<-gone
				return nil, nil
			}),
			Application: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
				applied.Store(true)
				return nil, nil
			}),
		})
		c := s.call()
		c.say(frame(asking("id1", "AL", "AL")))
		synctest.Wait()
		c.raw.Abort()
		close(gone)
		synctest.Wait()
		assert.True(t, applied.Load())
		assert.True(t, slices.Contains(s.told(), "ack_undeliverable"))
	})
}

func TestALateResultIsAnswerToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			if string(r.Header.ControlID) == "id1" {
				time.Sleep(time.Minute)
			}
			return nil, nil
		})
		for _, srv := range []*mllp.Server{
			{Enhanced: true, HandlerTimeout: time.Second, Handler: slow},
			{Enhanced: true, HandlerTimeout: time.Second, Application: slow},
		} {
			applies := srv.Application != nil
			c := serve(t, srv).call()
			c.say(frame(asking("id1", "AL", "AL")) + frame(asking("id2", "AL", "AL")))
			if applies {
				assert.Equal(t, "CA id1", c.hear())
				assert.Equal(t, "AE id1", c.hear())
			} else {
				assert.Equal(t, "CE id1", c.hear())
			}
			assert.Equal(t, "CA id2", c.hear())
			assert.Equal(t, "AA id2", c.hear())
			c.quiet(time.Minute)
		}
	})
}

func TestALateMessageIsNotAnsweredWhereThePolicyIsClose(t *testing.T) {
	for name, srv := range map[string]*mllp.Server{"one by one": {}, "in parallel": {Key: patientOf, Parallel: 4}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{
					Key: srv.Key, Parallel: srv.Parallel, HandlerTimeout: time.Second, Late: mllp.PolicyClose,
					Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
						time.Sleep(time.Minute)
						return nil, nil
					}),
				})
				c := s.call()
				c.say(frame(keyed("m1", "p1")))
				assert.Equal(t, "end", c.hear())
				synctest.Wait()
				assert.Equal(t, []string{"handler_failed timeout", "closed no_reply"}, s.told())
			})
		})
	}
}

func TestEnhancedModeAllocatesNoMoreThanOriginalMode(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accept := mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })
	srv := &mllp.Server{Enhanced: true, Handler: accept, Application: accept}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	r := mllp.NewReader(c, 0)
	framed := []byte(frame(asking("id1", "AL", "AL")))
	assert.LessOrEqual(t, testing.AllocsPerRun(200, func() {
		if _, err := c.Write(framed); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}), 1.0)
	c.Close()
	require.NoError(t, srv.Close())
	<-served
}
