package mllp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// answersTo returns what a Server answers to in, as "CODE id", and the control IDs
// of the messages that its handler took.
func answersTo(t *testing.T, srv *mllp.Server, in []byte) (answers, taken []string) {
	var mu sync.Mutex
	srv.MaxMessageBytes = 4096
	srv.Handler = mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
		if strings.Contains(string(r.Message), "fail") {
			return nil, errors.New("x")
		}
		mu.Lock()
		defer mu.Unlock()
		taken = append(taken, string(r.Header.ControlID))
		return nil, nil
	})
	ln := memnet.Listen()
	served := make(chan struct{})
	go func() {
		srv.Serve(context.Background(), ln)
		close(served)
	}()
	c, err := ln.DialFrom(net.IPv4(10, 0, 0, 1))
	require.NoError(t, err)
	go func() {
		c.Write(in)
		c.CloseWrite()
	}()
	for replies := mllp.NewReader(c, 0); ; {
		text, err := replies.Next()
		if err != nil {
			break // the end, or a reset after too much
		}
		for part := range mllp.SplitBatch(text) {
			if part.Segment != "MSH" {
				continue
			}
			a, err := mllp.ParseAck(part.Text)
			require.NoError(t, err)
			answers = append(answers, string(a.Code)+" "+a.ControlID)
		}
	}
	c.Close()
	require.NoError(t, srv.Close())
	<-served
	return answers, taken
}

// hasEmptyBatch tells whether a frame of in, wherever it may begin and end, is a
// batch of that control ID with no message in it: the one thing that is accepted
// without a handler.
func hasEmptyBatch(in []byte, id string) bool {
	for begin, b := range in {
		if b != 0x0b {
			continue
		}
		for end := begin + 1; end < len(in); end++ {
			if in[end] != 0x1c {
				continue
			}
			text := in[begin+1 : end]
			var h mllp.Header
			messages := 0
			for part := range mllp.SplitBatch(text) {
				if part.Segment == "MSH" {
					messages++
				}
			}
			if messages == 0 && h.Parse(text) == nil && string(h.ControlID) == id {
				return true
			}
		}
	}
	return false
}

// FuzzAcknowledgements: whatever arrives and however acknowledgements are set, a
// message is accepted only if the handler took it or the batch has none, and
// messages that are handled beside each other are answered as if they were not.
func FuzzAcknowledgements(f *testing.F) {
	for _, s := range []string{
		frame(msgA) + frame(msgB), frame(batchOf3) + frame(msgA), frame(asking("id1", "AL", "AL")) + frame(asking("id2", "ER", "SU")+"fail\r"),
		frame(strings.Replace(batchOf3, "BTS|3", "BTS|4", 1)), "\x0b" + asking("id1", "AL", "NE") + frame(msgB), frame("BHS|^~\\&|||||||||b1\r"),
		frame(msgA) + frame(msgA) + frame(strings.Replace(msgA, "A01", "A02", 1)), frame("MSH|^~\\&|A|B|C|D|1||ACK|id9|P|2.5|||AL|AL\rMSA|AA|x\r") + frame(keyed("m1", "p1")) + frame(keyed("m2", "p2")) + "junk",
		frame(keyed("m1", "p1")) + frame(keyed("m1", "p2")) + frame(keyed("m1", "p3")), // one ID, several keys
		frame(asking("id1", "XX", "") + "fail\r"), frame("FHS|^~\\&\r" + asking("id1", "AL", "AL") + "MSH|\r" + msgC),
		frame("FHS|^~\\&|LAB\r") + "\x0bMSH||HOSP|||||||f1\rBHS|^~\\&|LAB||||||n||b1\rMSH|^~\\&|", // an empty batch without an ID
	} {
		for bits := range uint8(16) {
			f.Add([]byte(s), bits)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, bits uint8) {
		server := func() *mllp.Server {
			srv := &mllp.Server{
				Enhanced: bits&1 == 1,
				Batches:  []mllp.Policy{mllp.PolicyReject, mllp.PolicyPerMessage, mllp.PolicyBatch, mllp.PolicyLast}[bits>>1&3],
			}
			if bits>>3&1 == 1 {
				srv.Replay = new(mllp.MemoryReplay)
			}
			return srv
		}
		one, taken := answersTo(t, server(), in)
		for _, answer := range one {
			if code, id, _ := strings.Cut(answer, " "); mllp.AckCode(code).Accepted() && !slices.Contains(taken, id) {
				require.True(t, hasEmptyBatch(in, id), "%q was accepted, and not taken", id)
			}
		}
		beside := server()
		beside.Key, beside.Parallel = patientOf, 4
		all, takenBeside := answersTo(t, beside, in)
		// Each acknowledgement stays behind those of the messages before; only the
		// second ones of enhanced mode may come later.
		if bits&1 == 0 {
			require.Equal(t, one, all)
		} else {
			require.ElementsMatch(t, one, all)
		}
		require.ElementsMatch(t, taken, takenBeside)
	})
}

func TestADrainThatIsCutCountsWhatIsHandledBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Key: patientOf, Parallel: 4, DrainTimeout: time.Second, Handler: mllp.HandlerFunc(func(ctx context.Context, _ *mllp.Request) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})})
		c := s.call()
		c.say(frame(keyed("m0", "p0")) + frame(keyed("m1", "p1")))
		synctest.Wait()
		began := time.Now()
		s.stop()
		<-s.ended
		assert.Equal(t, time.Second, time.Since(began))
		var de *mllp.DrainError
		require.ErrorAs(t, s.err, &de)
		assert.Equal(t, 1, de.Abandoned)
	})
}

func TestNothingOfAMessageIsToldInAnyModeOfAcknowledgement(t *testing.T) {
	const name = "Doe^Canary"
	inputs := []string{
		asking("id1", name, name), asking(name, "AL", "AL"), strings.Replace(asking("id1", "AL", "AL"), "|AL\r", "|AL||"+name+"\r", 1),
		"FHS|^~\\&|" + name + "\r" + msgA + "BTS|" + name + "\r", "BHS|^~\\&|||||||||" + name + "\r" + asking(name, "AL", "AL") + "MSH|" + name + "\r" + "BTS|2\r",
	}
	synctest.Test(t, func(t *testing.T) {
		for _, in := range inputs {
			for i, result := range []error{nil, errors.New(name), &mllp.Nak{Code: mllp.AE, Text: name}} {
				for _, policy := range []mllp.Policy{"", mllp.PolicyPerMessage, mllp.PolicyBatch} {
					h := mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, result })
					s := serve(t, &mllp.Server{
						Enhanced: true, Batches: policy, Replay: new(mllp.MemoryReplay), Handler: h, Application: h, Key: patientOf, Parallel: 2,
						Responder: &mllp.Responder{Addr: "a:1", Timeout: 2 * time.Second, Dialer: &mllp.Dialer{NetDialer: &flaky{nil, -1}}},
					})
					c := s.call()
					c.say(frame(in) + frame(in) + frame(strings.Replace(in, "2025", "2026", 1)))
					time.Sleep(time.Minute)
					c.raw.Abort()
					synctest.Wait()
					s.mu.Lock()
					assert.NotContains(t, s.log.String(), "Canary", "log for %q", in)
					for _, e := range s.events {
						e.ControlID = "" // meant for the caller
						assert.NotContains(t, fmt.Sprintf("%v %+v", e, e.Err), "Canary", "event for %q, %d", in, i)
					}
					s.mu.Unlock()
				}
			}
		}
	})
}
