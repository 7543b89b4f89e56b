package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/mllp"
)

// bounded is a destination in whose queue n messages may wait.
func bounded(d config.Destination, n int) config.Destination {
	d.Queue.MaxMessages = n
	return d
}

// A queue that is full makes its channel refuse, and no other; when there is room the
// channel takes messages in again, and what it took in is delivered in order.
func TestAFullQueueMakesItsSourceRefuseAndLosesNothing(t *testing.T) {
	t.Parallel()
	lab := newReceiver(t)
	arrived, release := lab.hold()
	dir := t.TempDir()
	st := openStore(t, t.TempDir())
	channels := []config.Channel{
		channel("adt", bounded(toTCP("lab", lab.addr), 10), toFile("archive", dir)),
		channel("other", toFile("archive", t.TempDir())),
	}
	e := start(t, st, channels...)
	conn, other := dial(t, e.addr("adt"), nil), dial(t, e.addr("other"), nil)
	accepted := ids("M", 10)
	send(t, conn, accepted...)
	<-arrived // the head is in hand, and waits like the others
	for range 3 {
		assert.Equal(t, mllp.AE, nacked(t, conn, message("REFUSED")))
		send(t, other, "O")
	}
	_, err := e.Inject(t.Context(), "adt", engine.Injected{Raw: message("INJECTED")})
	require.ErrorIs(t, err, engine.ErrQueueFull)
	id, err := e.Inject(t.Context(), "adt", engine.Injected{Raw: message("ASIDE"), Destinations: []string{"archive"}})
	require.NoError(t, err, "the queue that is full is not concerned")
	assert.NotZero(t, id)
	assert.Equal(t, 1, e.log.count("queue full"), "one line, not one for each message")
	eventually(t, "the others are filed", func() bool { return len(filed(t, dir)) == 11 })
	assert.NoError(t, e.Healthy(), "the engine is well")

	// The bound is that of what waits, also after a restart.
	release()
	eventually(t, "all is delivered", func() bool { return e.stats("adt").Queued == 0 })
	lab.down()
	send(t, conn, ids("N", 10)...)
	e.stop()
	e = start(t, st, channels...)
	conn = dial(t, e.addr("adt"), nil)
	assert.Equal(t, mllp.AE, nacked(t, conn, message("REFUSED")))
	lab.answers(nil)
	lab.up()
	eventually(t, "all is delivered", func() bool { return e.stats("adt").Queued == 0 })
	send(t, conn, "LAST")
	eventually(t, "all is delivered", func() bool { return e.stats("adt").Queued == 0 })
	assert.Equal(t, append(append(accepted, ids("N", 10)...), "LAST"), lab.received())
	assert.Equal(t, 1, e.log.count("has room again"))
}

// However many send at once, no more wait than may.
func TestNoMoreWaitThanMay(t *testing.T) {
	t.Parallel()
	lab := newReceiver(t)
	lab.down()
	const bound, senders = 25, 20
	e := start(t, openStore(t, t.TempDir()), channel("adt", bounded(toTCP("lab", lab.addr), bound)))
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for i := range senders {
		conn := dial(t, e.addr("adt"), nil)
		wg.Go(func() {
			for n := range 10 {
				_, err := conn.Send(context.Background(), message(fmt.Sprintf("S%d-%d", i, n)))
				var refused *mllp.SendError
				switch {
				case err == nil:
					accepted.Add(1)
				case !errors.As(err, &refused) || refused.AckCode != mllp.AE:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	stats := e.stats("adt")
	assert.EqualValues(t, bound, stats.Queued)
	assert.Equal(t, accepted.Load(), stats.Queued, "what was refused is not there, and what was accepted is")
}

// Dead letters that go back count like others.
func TestRequeuedDeadLettersTakeUpRoom(t *testing.T) {
	t.Parallel()
	lab := newReceiver(t)
	lab.answers(func(string) error { return &mllp.Nak{Code: mllp.AR} })
	dest := bounded(toTCP("lab", lab.addr), 3)
	dest.Queue.OnPoison = "deadletter"
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	conn := dial(t, e.addr("adt"), nil)
	for _, id := range ids("D", 3) {
		send(t, conn, id)
		eventually(t, "set aside", func() bool { return e.stats("adt").Queued == 0 })
	}
	lab.down()
	n, err := e.RequeueAll(t.Context(), "adt", "lab")
	require.NoError(t, err)
	require.Equal(t, 3, n)
	assert.Equal(t, mllp.AE, nacked(t, conn, message("REFUSED")))
}

// Behind a channel whose queue is full, messages wait in the channel before, and so
// on up to the source.
func TestAFullQueueHoldsUpTheChannelsThatLeadToIt(t *testing.T) {
	t.Parallel()
	lab := newReceiver(t)
	arrived, release := lab.hold()
	e := start(t, openStore(t, t.TempDir()),
		channel("in", bounded(toChannel("next", "out"), 2)), channel("out", bounded(toTCP("lab", lab.addr), 3)))
	conn := dial(t, e.addr("in"), nil)
	for i, id := range ids("M", 3) {
		send(t, conn, id)
		eventually(t, "it is handed over", func() bool { return e.stats("in").Sent == int64(i+1) })
	}
	<-arrived
	send(t, conn, "M0003", "M0004")
	assert.Equal(t, mllp.AE, nacked(t, conn, message("REFUSED")))
	eventually(t, "the fourth is tried", func() bool { return e.log.count("delivery failed") >= 1 })
	assert.EqualValues(t, 3, e.stats("out").Received)
	release()
	eventually(t, "all is delivered", func() bool { return len(lab.received()) == 5 })
	assert.Equal(t, ids("M", 5), lab.received())
	assert.EqualValues(t, 5, e.stats("in").Sent, "each once")
}

func TestAFullQueueIsA503OverHTTP(t *testing.T) {
	t.Parallel()
	lab := newReceiver(t)
	lab.down()
	ch := taking(t, t.TempDir(), onLoopback)
	ch.Destinations = []config.Destination{bounded(toTCP("lab", lab.addr), 1)}
	e := start(t, openStore(t, t.TempDir()), ch)
	b := browse(t, e, nil)
	assert.Equal(t, http.StatusOK, b.do(http.MethodPost, "/", strings.NewReader("body")).StatusCode)
	full := b.do(http.MethodPost, "/", strings.NewReader("body"))
	assert.Equal(t, http.StatusServiceUnavailable, full.StatusCode)
	assert.NotEmpty(t, full.Header.Get("Retry-After"))
	assert.EqualValues(t, 1, e.stats("in").Received)
}
