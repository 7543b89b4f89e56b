package dicomtls_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

func TestASilentConnectionIsClosedWithoutAPDUAndDelaysNobody(t *testing.T) {
	in(t, &dicomtls.Server{}, func(t *testing.T, s *site) {
		silent := s.call()
		began := time.Now()
		other := s.associatedFor(t, "AC 1=0 3=3")
		assert.Equal(t, []string{"P 8030 0000 to 1"}, other.talk(pdata(pdv(1, 3, echoRQ(1)))))
		assert.Zero(t, time.Since(began), "the other one was not delayed")
		assert.Equal(t, "end", silent.hear())
		assert.Equal(t, 30*time.Second, time.Since(began))
		synctest.Wait()
		assert.Equal(t, []string{"operation C-ECHO 0000", "rejected associate_timeout"}, s.told())
	})
}

func TestTheTimeForARequestIsForAllOfIt(t *testing.T) {
	in(t, &dicomtls.Server{AssociateTimeout: 5 * time.Second}, func(t *testing.T, s *site) {
		slow := s.call()
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, b := range []byte(associateRQ{}.String()) {
				if _, err := slow.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		assert.Contains(t, []string{"end", "reset"}, slow.hear())
		assert.Equal(t, 5*time.Second, time.Since(began))
		wg.Wait()
	})
}

func TestAnIdleAssociationIsAborted(t *testing.T) {
	in(t, &dicomtls.Server{IdleTimeout: time.Minute}, func(t *testing.T, s *site) {
		p := s.associatedFor(t, "AC 1=0 3=3")
		time.Sleep(50 * time.Second)
		p.talk(pdata(pdv(1, 3, echoRQ(1))))
		began := time.Now()
		assert.Equal(t, []string{"ABORT 0,0", "end"}, p.until())
		assert.Equal(t, time.Minute, time.Since(began).Truncate(time.Minute))
		assert.Equal(t, 1, s.count("closed idle_timeout"))
	})
}

func TestAMessageHasToMakeProgress(t *testing.T) {
	start := pdata(pdv(3, 3, storeRQ(1, ctImage, "1.2.3")))
	for name, c := range map[string]struct {
		next  string
		pause time.Duration
		abort bool
	}{
		"a byte a second":                 {pdata(pdv(3, 0, "x")), time.Second, true},
		"empty fragments without a pause": {strings.Repeat(pdata(pdv(3, 0, "")), 1000), 0, true},
		"4 KiB a second":                  {pdata(pdv(3, 0, strings.Repeat("x", 4<<10))), time.Second, false},
		"64 KiB every half minute":        {strings.Repeat(pdata(pdv(3, 0, strings.Repeat("x", 32<<10))), 4), 30 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper()
			in(t, &dicomtls.Server{Store: k}, func(t *testing.T, s *site) {
				p := s.associated()
				p.say(start)
				for range 300 {
					if _, err := io.WriteString(p.Conn, c.next); err != nil {
						break
					}
					time.Sleep(c.pause)
				}
				if c.abort {
					assert.Equal(t, "ABORT 2,0", p.hear())
					synctest.Wait()
					assert.Equal(t, 1, s.count("incomplete"))
					assert.Empty(t, k.kept())
					return
				}
				p.say(pdata(pdv(3, 2, "xx")))
				assert.Equal(t, "P 8001 0000 to 1", p.hear())
			})
		})
	}
}

func TestAClientThatDoesNotReadItsResponsesIsClosed(t *testing.T) {
	in(t, &dicomtls.Server{WriteTimeout: 10 * time.Second}, func(t *testing.T, s *site) {
		p := s.associatedFor(t, "AC 1=0 3=3")
		began := time.Now()
		for range 100_000 {
			if _, err := io.WriteString(p.Conn, pdata(pdv(1, 3, echoRQ(1)))); err != nil {
				break
			}
		}
		synctest.Wait()
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Equal(t, 1, s.count("closed write_failed"))
		assert.Equal(t, 1, s.count("undeliverable C-ECHO 0000"))
	})
}

func TestTheServerWaitsForTheClientToClose(t *testing.T) {
	in(t, &dicomtls.Server{LingerTimeout: 3 * time.Second}, func(t *testing.T, s *site) {
		p := s.associatedFor(t, "AC 1=0 3=3")
		p.say(releaseRQ)
		began := time.Now()
		assert.Equal(t, []string{"release!", "end"}, p.until())
		assert.Equal(t, 3*time.Second, time.Since(began))

		p = s.associatedFor(t, "AC 1=0 3=3")
		p.say(releaseRQ)
		require.Equal(t, "release!", p.hear())
		p.say(associateRQ{}.String())
		assert.Equal(t, "ABORT 2,2", p.hear(), "there is one association in a connection")

		p = s.call()
		p.say(associateRQ{version: 2}.String(), strings.Repeat("x", 1000))
		assert.Equal(t, []string{"RJ 1,2,2"}, p.until()[:1], "what is in the way does not destroy the answer")
	})
}

func TestARequestForReleaseBeforeAHalfCloseIsConfirmed(t *testing.T) {
	in(t, &dicomtls.Server{}, func(t *testing.T, s *site) {
		p := s.associatedFor(t, "AC 1=0 3=3")
		p.say(releaseRQ)
		p.Conn.(interface{ CloseWrite() error }).CloseWrite()
		assert.Equal(t, []string{"release!", "end"}, p.until())
		synctest.Wait()
		assert.Empty(t, s.strange())
	})
}

func TestShutdown(t *testing.T) {
	var release chan struct{} // of the bubble
	srv := &dicomtls.Server{Store: dicomtls.StoreHandlerFunc(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
		io.Copy(io.Discard, r.Body)
		<-release
		return dicomtls.StatusSuccess
	})}
	in(t, srv, func(t *testing.T, s *site) {
		release = make(chan struct{})
		idle, working, half, fresh, begun := s.associated(), s.associated(), s.associated(), s.call(), s.call()
		working.say(store(1, "1.2.3", someData))
		half.say(pdata(pdv(3, 3, storeRQ(2, ctImage, "1.2.4")), pdv(3, 0, someData)))
		begun.say(associateRQ{}.String()[:50])
		synctest.Wait()
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- srv.Shutdown(t.Context()) }()

		assert.Equal(t, []string{"ABORT 0,0", "end"}, idle.until())
		assert.Equal(t, []string{"end"}, fresh.until())
		assert.Less(t, time.Since(began), time.Second, "what is idle is closed at once")
		begun.say(associateRQ{}.String()[50:])
		assert.Equal(t, "RJ 2,3,1", begun.hear(), "no new associations")
		_, err := s.mem.Dial()
		assert.Error(t, err)
		time.Sleep(5 * time.Second)
		close(release)
		half.say(pdata(pdv(3, 2, someData)))
		assert.Equal(t, []string{"P 8001 0000 to 1", "ABORT 0,0"}, working.until()[:2], "what is in hand is finished")
		assert.Equal(t, []string{"P 8001 0000 to 2", "ABORT 0,0"}, half.until()[:2])
		assert.NoError(t, <-done)
		<-s.ended
		assert.Equal(t, dicomtls.ErrServerClosed, s.err)
	})
}

func TestDrainingMayTakeForEver(t *testing.T) {
	in(t, &dicomtls.Server{DrainTimeout: -1, Store: dicomtls.StoreHandlerFunc(func(context.Context, *dicomtls.StoreRequest) dicomtls.Status {
		time.Sleep(24 * time.Hour)
		return dicomtls.StatusSuccess
	})}, func(t *testing.T, s *site) {
		p := s.associated()
		p.say(store(1, "1.2.3", someData))
		synctest.Wait()
		began := time.Now()
		s.stop()
		<-s.ended
		assert.Equal(t, dicomtls.ErrServerClosed, s.err)
		assert.GreaterOrEqual(t, time.Since(began), 24*time.Hour)
		assert.Equal(t, "P 8001 0000 to 1", p.hear())
	})
}

func TestShutdownTellsHowManyItAbandoned(t *testing.T) {
	waiting := dicomtls.StoreHandlerFunc(func(ctx context.Context, _ *dicomtls.StoreRequest) dicomtls.Status {
		<-ctx.Done()
		return dicomtls.StatusProcessingFailure
	})
	in(t, &dicomtls.Server{Store: waiting}, func(t *testing.T, s *site) {
		p := s.associated()
		p.say(store(1, "1.2.3", someData))
		synctest.Wait()
		began := time.Now()
		s.stop()
		assert.Equal(t, []string{"ABORT 0,0"}, p.until()[:1])
		<-s.ended
		assert.Equal(t, 30*time.Second, time.Since(began))
		var de *dicomtls.DrainError
		require.ErrorAs(t, s.err, &de)
		assert.Equal(t, 1, de.Abandoned)
		assert.ErrorIs(t, s.err, dicomtls.ErrServerClosed)
	})
	in(t, &dicomtls.Server{Store: waiting}, func(t *testing.T, s *site) {
		p := s.associated()
		p.say(store(1, "1.2.3", someData))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		var de *dicomtls.DrainError
		require.ErrorAs(t, s.srv.Shutdown(ctx), &de)
		assert.ErrorIs(t, de, context.DeadlineExceeded)
		assert.Equal(t, "ABORT 0,0", p.hear())
		assert.Equal(t, time.Second, time.Since(began))
		<-s.ended
	})
}
