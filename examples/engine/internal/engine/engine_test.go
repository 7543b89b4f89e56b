package engine_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

func TestMessageOverMutualTLSIsStoredAcknowledgedAndDeliveredByteForByte(t *testing.T) {
	p, dir := newPKI(t), t.TempDir()
	st := openStore(t, t.TempDir())
	ch := channel("adt", toFile("archive", dir))
	ch.Source.TCP.TLS = p.server()
	e := start(t, st, ch)

	conn := dial(t, e.addr("adt"), p.client())
	odd := append(message("ODD-1"), "OBX|1|TX|||M\xfcller \x00 \xf0\x9f\x8f\xa5\n\r"...)
	_, err := conn.Send(t.Context(), odd)
	require.NoError(t, err)
	assert.Equal(t, int64(1), e.stats("adt").Received, "stored when acknowledged")

	eventually(t, "the message is filed", func() bool { return len(filed(t, dir)) == 1 })
	assert.Equal(t, string(odd), filed(t, dir)[0])
	eventually(t, "the delivery is recorded", func() bool { return e.stats("adt").Sent == 1 })

	status, err := e.Status(t.Context(), "adt")
	require.NoError(t, err)
	assert.Equal(t, "MLLPS", status.Listener.Transport)
	assert.True(t, status.Listener.Listening)
	assert.Equal(t, 1, status.Listener.Connections)
	assert.Equal(t, engine.Started, status.State)
}

// spy lets a test see what is taken in.
type spy struct {
	store.Store
	intake func(store.Intake) error
}

func (s *spy) Intake(ctx context.Context, in store.Intake) (int64, error) {
	if err := s.intake(in); err != nil {
		return 0, err
	}
	return s.Store.Intake(ctx, in)
}

func TestSourceMapNamesTheSender(t *testing.T) {
	p := newPKI(t)
	ch := channel("adt", toFile("archive", t.TempDir()))
	ch.Source.TCP.TLS = p.server()
	taken := make(chan store.Intake, 1)
	e := start(t, &spy{openStore(t, t.TempDir()), func(in store.Intake) error { taken <- in; return nil }}, ch)

	conn := dial(t, e.addr("adt"), p.client())
	send(t, conn, "A1")
	in := <-taken
	assert.Equal(t, "A1", in.ControlID)
	notes, err := in.Source.Notes()
	require.NoError(t, err)
	assert.Equal(t, "CN=Ward 7", notes["tlsClientSubject"])
	assert.Equal(t, conn.LocalAddr().String(), notes["remoteAddress"])
}

func TestDestinationThatComesBackGetsEverythingInOrder(t *testing.T) {
	lab := newReceiver(t)
	e := start(t, openStore(t, t.TempDir()), channel("adt", toTCP("lab", lab.addr)))
	conn := dial(t, e.addr("adt"), nil)
	want := ids("M", 60)

	send(t, conn, want[:20]...)
	eventually(t, "20 delivered", func() bool { return len(lab.received()) == 20 })
	lab.down()
	send(t, conn, want[20:40]...)
	eventually(t, "a failed attempt", func() bool { return e.log.count("messages queue") > 0 })
	assert.Equal(t, int64(20), e.stats("adt").Queued)
	lab.up()
	send(t, conn, want[40:]...)
	eventually(t, "all delivered", func() bool { return e.stats("adt").Sent == 60 })

	assert.Equal(t, want, slices.Compact(lab.received()), "in order; the one in hand may have come twice")
	assert.Equal(t, 1, e.log.count("level=WARN msg=\"delivery failed, messages queue\""), "one line when queueing begins")
	assert.Equal(t, 1, e.log.count("delivery works again"), "one line when it is over")
}

func TestRestartInTheMiddleKeepsOrderAndLosesNothing(t *testing.T) {
	lab, dir := newReceiver(t), t.TempDir()
	want := ids("R", 90)
	for round := range 3 {
		st := openStore(t, dir)
		e := start(t, st, channel("adt", toTCP("lab", lab.addr)))
		send(t, dial(t, e.addr("adt"), nil), want[round*30:round*30+30]...)
		// Not waiting for deliveries: the stop comes in the middle of them.
		e.stop()
		require.NoError(t, st.Close())
	}
	e := start(t, openStore(t, dir), channel("adt", toTCP("lab", lab.addr)))
	eventually(t, "all delivered", func() bool { return e.stats("adt").Sent == 90 })
	assert.Equal(t, want, lab.received(), "an orderly stop makes no duplicates either")
}

func TestOneDestinationDownHoldsUpNoOther(t *testing.T) {
	down, up, dir := newReceiver(t), newReceiver(t), t.TempDir()
	down.down()
	e := start(t, openStore(t, t.TempDir()),
		channel("adt", toTCP("down", down.addr), toTCP("up", up.addr), toFile("archive", dir)))
	want := ids("F", 25)
	send(t, dial(t, e.addr("adt"), nil), want...)
	eventually(t, "the others have all", func() bool { return len(up.received()) == 25 && len(filed(t, dir)) == 25 })
	assert.Empty(t, down.received())

	down.up()
	eventually(t, "all delivered", func() bool { return e.stats("adt").Sent == 75 })
	assert.Equal(t, want, down.received())
	assert.Equal(t, want, up.received(), "delivered once")
	assert.Equal(t, want, filedIDs(t, dir), "delivered once, names in the order of delivery")
}

func TestSlowDestinationDoesNotSlowOthers(t *testing.T) {
	slow, fast := newReceiver(t), newReceiver(t)
	_, release := slow.hold()
	e := start(t, openStore(t, t.TempDir()), channel("a", toTCP("slow", slow.addr), toTCP("fast", fast.addr)), channel("b", toTCP("fast", fast.addr)))
	send(t, dial(t, e.addr("a"), nil), ids("A", 10)...)
	send(t, dial(t, e.addr("b"), nil), ids("B", 10)...)
	eventually(t, "everything delivered but what the slow one holds", func() bool { return len(fast.received()) == 20 })
	assert.Empty(t, slow.received())
	release()
	eventually(t, "the slow one has them too", func() bool { return len(slow.received()) == 10 })
}

func TestChannelDestinationHandsOverInOrder(t *testing.T) {
	dir := t.TempDir()
	st := openStore(t, t.TempDir())
	e := start(t, st, channel("in", toChannel("next", "out")), channel("out", toFile("archive", dir)))
	want := ids("C", 30)
	send(t, dial(t, e.addr("in"), nil), want...)
	eventually(t, "all delivered", func() bool { return e.stats("out").Sent == 30 })
	assert.Equal(t, want, filedIDs(t, dir))
	in, out := e.stats("in"), e.stats("out")
	assert.Equal(t, int64(30), in.Sent)
	assert.Equal(t, int64(30), out.Received, "each handed over once")
	assert.Zero(t, in.Queued+out.Queued)
}

// A channel reader has no port of its own, and no messages but those that are
// handed to it. While it is stopped it takes them in and keeps them.
func TestAChannelReaderIsFedByOtherChannels(t *testing.T) {
	dir := t.TempDir()
	reader := channel("out", toFile("archive", dir))
	reader.Source = config.Source{Type: "channel"}
	e := start(t, openStore(t, t.TempDir()), channel("in", toChannel("next", "out")), reader)
	conn := dial(t, e.addr("in"), nil)
	send(t, conn, "C1")
	eventually(t, "delivered", func() bool { return e.stats("out").Sent == 1 })

	require.NoError(t, e.StopChannel(t.Context(), "out"))
	st, err := e.Status(t.Context(), "out")
	require.NoError(t, err)
	assert.Equal(t, engine.Stopped, st.State)
	assert.Equal(t, engine.Listener{}, st.Listener)
	send(t, conn, "C2")
	eventually(t, "handed over", func() bool { return e.stats("out").Received == 2 })
	assert.Equal(t, []string{"C1"}, filedIDs(t, dir))

	require.NoError(t, e.StartChannel(t.Context(), "out"))
	eventually(t, "delivered", func() bool { return e.stats("out").Sent == 2 })
	assert.Equal(t, []string{"C1", "C2"}, filedIDs(t, dir))
}

func TestRefusedMessages(t *testing.T) {
	reject := func(id string) error {
		if id == "M0001" {
			return &mllp.Nak{Code: mllp.AR, Text: "no"}
		}
		return nil
	}
	fail := func(id string) error {
		if id == "M0001" {
			return &mllp.Nak{Code: mllp.AE, Text: "later"}
		}
		return nil
	}
	all, without := ids("M", 4), []string{"M0000", "M0002", "M0003"}
	for _, tt := range []struct {
		name     string
		queue    config.Queue
		answer   func(string) error
		want     []string
		attempts int // 0: the message is not dead
	}{
		{"for good are set aside at once", config.Queue{OnPoison: "deadletter"}, reject, without, 1},
		{"too often are set aside after the last attempt", config.Queue{OnPoison: "deadletter", MaxAttempts: 3}, fail, without, 3},
		{"for good block the queue if it is told to", config.Queue{OnPoison: "block"}, reject, all[:1], 0},
		{"too often block the queue if it is told to", config.Queue{OnPoison: "block", MaxAttempts: 3}, fail, all[:1], 0},
		{"for now are tried until taken", config.Queue{OnPoison: "deadletter"}, fail, all[:1], 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newReceiver(t)
			lab.answers(tt.answer)
			dest := toTCP("lab", lab.addr)
			dest.Queue = tt.queue
			dest.Queue.RetryInterval = 5 * time.Millisecond
			st := openStore(t, t.TempDir())
			e := start(t, st, channel("adt", dest))
			send(t, dial(t, e.addr("adt"), nil), all...)
			if tt.attempts > 0 {
				eventually(t, "the others are delivered", func() bool { return len(lab.received()) == len(tt.want) })
				dead, err := st.DeadLetters(t.Context(), "adt", "lab", 0, 10)
				require.NoError(t, err)
				require.Len(t, dead, 1)
				assert.Equal(t, "M0001", dead[0].Message.ControlID)
				assert.Equal(t, tt.attempts, dead[0].Attempts)
				assert.Equal(t, 1, e.log.count("set aside as dead letter"))
			} else {
				eventually(t, "several attempts", func() bool { return e.log.count("delivery failed") > 4 })
				assert.Equal(t, int64(3), e.stats("adt").Queued)
				assert.Zero(t, e.stats("adt").Error)
			}
			assert.Equal(t, tt.want, lab.received())
			if tt.attempts == 0 {
				lab.answers(nil)
				eventually(t, "the rest is delivered", func() bool { return len(lab.received()) == 4 })
				assert.Equal(t, all, lab.received())
			}
		})
	}
}

// What is skipped lets the others go first, and is delivered when it is taken.
func TestSkippedMessagesHoldUpNoOtherAndAreDeliveredLater(t *testing.T) {
	lab := newReceiver(t)
	lab.answers(func(id string) error {
		switch id {
		case "M0000":
			return &mllp.Nak{Code: mllp.AR, Text: "no"}
		case "M0002":
			panic("no")
		}
		return nil
	})
	dest := toTCP("lab", lab.addr)
	dest.Queue.OnPoison, dest.Queue.MaxAttempts = "skip", 2
	st := openStore(t, t.TempDir())
	e := start(t, st, channel("adt", dest))
	conn := dial(t, e.addr("adt"), nil)
	send(t, conn, ids("M", 4)...)
	eventually(t, "the others are delivered", func() bool { return len(lab.received()) == 2 })
	send(t, conn, "LATER")
	eventually(t, "what came later, too", func() bool { return len(lab.received()) == 3 })
	e.stop()
	e = start(t, st, channel("adt", dest))
	eventually(t, "they are tried again", func() bool { return e.log.count("message skipped") >= 2 })
	assert.EqualValues(t, 2, e.stats("adt").Queued, "they are not dead")
	lab.answers(nil)
	eventually(t, "they are delivered", func() bool { return e.stats("adt").Queued == 0 })
	got := lab.received()
	assert.Equal(t, []string{"M0001", "M0003", "LATER"}, got[:3])
	assert.ElementsMatch(t, []string{"M0000", "M0002"}, got[3:])
}

// An outage says nothing about a message: however long it is, none is set aside.
func TestOutageMakesNoMessagePoison(t *testing.T) {
	lab := newReceiver(t)
	lab.down()
	dest := toTCP("lab", lab.addr)
	dest.Queue.OnPoison, dest.Queue.MaxAttempts = "deadletter", 1
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	send(t, dial(t, e.addr("adt"), nil), ids("M", 3)...)
	eventually(t, "several attempts", func() bool { return e.log.count("delivery failed") > 4 })
	assert.Zero(t, e.stats("adt").Error)
	lab.up()
	eventually(t, "all delivered", func() bool { return len(lab.received()) == 3 })
}

// Neither does a certificate that the receiver refuses, although no further try
// can help before somebody has exchanged it.
func TestRefusedCertificateMakesNoMessagePoison(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	in := channel("in", toFile("archive", t.TempDir()))
	in.Source.TCP.TLS = p.server()
	st := openStore(t, t.TempDir())
	lab := start(t, openStore(t, t.TempDir()), in)

	dest := toTCP("lab", lab.addr("in"))
	dest.Queue.OnPoison = "deadletter"
	dest.TCP.TLS = other.client()
	dest.TCP.TLS.TrustStorePath = p.client().TrustStorePath
	e := start(t, st, channel("adt", dest))
	send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
	eventually(t, "several attempts", func() bool { return e.log.count("delivery failed") > 3 })
	assert.Zero(t, e.stats("adt").Error)
	assert.Zero(t, lab.stats("in").Received)

	// The certificate is exchanged while the engine runs.
	p.ca.Client("Engine").Write(other.dir, "client")
	eventually(t, "both delivered", func() bool { return lab.stats("in").Received == 2 })
}

func TestReceiverThatNeverAnswersIsTriedAgainAndMarkedAsResent(t *testing.T) {
	lab := newReceiver(t)
	var mu sync.Mutex
	silent := 3
	lab.answers(func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if silent--; silent >= 0 {
			return mllp.ErrNoReply
		}
		return nil
	})
	dest := toTCP("lab", lab.addr)
	dest.TCP.ResponseTimeout = 100 * time.Millisecond
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
	eventually(t, "both delivered", func() bool { return len(lab.received()) == 2 })
	assert.Equal(t, 1, e.log.count("sending again what may have arrived"))
}

func TestStoppedChannelTakesNothingInAndSendsNothing(t *testing.T) {
	lab := newReceiver(t)
	lab.down()
	e := start(t, openStore(t, t.TempDir()), channel("adt", toTCP("lab", lab.addr)), channel("other", toFile("archive", t.TempDir())))
	addr := e.addr("adt")
	send(t, dial(t, addr, nil), "M1")
	require.NoError(t, e.StopChannel(t.Context(), "adt"))

	_, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", addr)
	require.Error(t, err, "the port is closed")
	lab.up()
	send(t, dial(t, e.addr("other"), nil), "X1") // the others go on
	assert.Empty(t, lab.received())
	state, err := e.State("adt")
	require.NoError(t, err)
	assert.Equal(t, engine.Stopped, state)

	err = e.StopChannel(t.Context(), "adt")
	assert.EqualError(t, err, "Cannot stop channel in state: STOPPED")
	require.NoError(t, e.StartChannel(t.Context(), "adt"))
	err = e.StartChannel(t.Context(), "adt")
	assert.EqualError(t, err, "Cannot start channel in state: STARTED")
	assert.Equal(t, addr, e.addr("adt"), "the same port")
	send(t, dial(t, addr, nil), "M2")
	eventually(t, "both delivered", func() bool { return len(lab.received()) == 2 })
	assert.Equal(t, []string{"M1", "M2"}, lab.received())

	for _, command := range []func(context.Context, string) error{e.StartChannel, e.StopChannel} {
		require.ErrorIs(t, command(t.Context(), "nope"), engine.ErrUnknownChannel)
	}
	e.stop()
	require.EqualError(t, e.StartChannel(t.Context(), "adt"), "Cannot start channel in state: STOPPING", "a shutdown is not undone")
}

func TestPortThatIsTakenFailsTheStartAndLeavesNothingOpen(t *testing.T) {
	taken := newReceiver(t)
	first := channel("first", toFile("archive", t.TempDir()))
	second := channel("second", toFile("archive", t.TempDir()))
	second.Source.TCP.Port = toTCP("", taken.addr).TCP.Port
	e := engine.New(&config.Config{Channels: []config.Channel{first, second}}, openStore(t, t.TempDir()), engine.Options{})
	err := e.StartSources(t.Context())
	require.ErrorContains(t, err, "channel second: ")
	e.StopDestinations(t.Context())
	for _, id := range []string{"first", "second"} {
		state, err := e.State(id)
		require.NoError(t, err)
		assert.Equal(t, engine.Stopped, state)
	}
}

// What nobody would answer must not come to stand at the head of a queue.
func TestAcknowledgementThatArrivesAsMessageIsDropped(t *testing.T) {
	st := openStore(t, t.TempDir())
	e := start(t, st, channel("adt", toFile("archive", t.TempDir())))
	conn := dial(t, e.addr("adt"), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := conn.Send(ctx, []byte("MSH|^~\\&|A|B|C|D|20260101||ACK|ACK-1|P|2.5\rMSA|AA|X\r"))
	var sendErr *mllp.SendError
	require.True(t, errors.As(err, &sendErr))
	assert.Equal(t, mllp.Unknown, sendErr.Outcome, "nothing is answered")
	assert.Zero(t, e.stats("adt").Received)
}

func TestFileDestinationMakesItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	st := openStore(t, t.TempDir())
	e := start(t, st, channel("adt", toFile("archive", dir)))
	send(t, dial(t, e.addr("adt"), nil), "M1")
	eventually(t, "filed", func() bool { return e.stats("adt").Sent == 1 })
	assert.Equal(t, []string{"M1"}, filedIDs(t, dir))
}
