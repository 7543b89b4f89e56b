package engine_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
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

// reader makes a channel without a port.
func reader(id string, destinations ...config.Destination) config.Channel {
	return config.Channel{ID: id, Name: id, Source: config.Source{Type: "channel"}, Destinations: destinations}
}

func (r *running) state(id string) engine.State {
	r.t.Helper()
	state, err := r.State(id)
	require.NoError(r.t, err)
	return state
}

// inject puts messages into a channel that must take them.
func (r *running) inject(id string, controlIDs ...string) {
	r.t.Helper()
	for _, c := range controlIDs {
		_, err := r.Inject(context.Background(), id, engine.Injected{Raw: message(c)})
		require.NoError(r.t, err)
	}
}

func refuses(t *testing.T, addr string) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err == nil {
		conn.Close()
	}
	assert.Error(t, err, "nothing listens on %s", addr)
}

func TestAddedChannelDoesNothingUntilItIsDeployed(t *testing.T) {
	dir := t.TempDir()
	e := start(t, openStore(t, t.TempDir()), reader("first", toFile("archive", t.TempDir())))
	adt := channel("adt", toFile("archive", dir))
	require.NoError(t, e.Add(&adt))
	require.ErrorIs(t, e.Add(&adt), engine.ErrChannelExists)
	assert.Equal(t, engine.Undeployed, e.state("adt"))
	for name, command := range map[string]func(context.Context, string) error{
		"start": e.StartChannel, "stop": e.StopChannel, "pause": e.PauseChannel, "resume": e.ResumeChannel, "halt": e.HaltChannel,
	} {
		var refused *engine.StateError
		require.ErrorAs(t, command(t.Context(), "adt"), &refused, name)
		assert.Equal(t, engine.Undeployed, refused.State, name)
	}
	require.NoError(t, e.UndeployChannel(t.Context(), "adt"), "it is")

	require.NoError(t, e.DeployChannel(t.Context(), "adt"))
	addr := e.addr("adt")
	send(t, dial(t, addr, nil), "M1")
	eventually(t, "delivered", func() bool { return len(filed(t, dir)) == 1 })
	require.NoError(t, e.DeployChannel(t.Context(), "adt"), "again, which is a restart")
	send(t, dial(t, addr, nil), "M2")

	require.NoError(t, e.UndeployChannel(t.Context(), "adt"))
	refuses(t, addr)
	assert.Equal(t, engine.Undeployed, e.state("adt"))
	assert.Len(t, e.Channels(), 2)
}

func TestReplacedChannelGoesOnWithWhatIsQueued(t *testing.T) {
	old, lab := newReceiver(t), newReceiver(t)
	old.down()
	adt := channel("adt", toTCP("lab", old.addr))
	e := start(t, openStore(t, t.TempDir()), adt)
	addr := e.addr("adt")
	want := ids("M", 20)
	send(t, dial(t, addr, nil), want[:15]...)

	moved := channel("adt", toTCP("lab", lab.addr), toFile("archive", t.TempDir()))
	moved.Source.TCP.Port = portOf(t, addr)
	require.NoError(t, e.Replace(t.Context(), &moved, false))
	assert.Equal(t, engine.Started, e.state("adt"))
	send(t, dial(t, addr, nil), want[15:]...)
	eventually(t, "all delivered", func() bool { return len(lab.received()) == 20 })
	assert.Equal(t, want, lab.received())
	eventually(t, "the new destination has what came after", func() bool { return e.stats("adt").Sent == 25 })

	require.NoError(t, e.PauseChannel(t.Context(), "adt"))
	require.NoError(t, e.Replace(t.Context(), &moved, false))
	assert.Equal(t, engine.Paused, e.state("adt"), "the state stays")
	require.NoError(t, e.StopChannel(t.Context(), "adt"))
	require.NoError(t, e.Replace(t.Context(), &moved, false))
	assert.Equal(t, engine.Stopped, e.state("adt"))
	require.ErrorIs(t, e.Replace(t.Context(), &config.Channel{ID: "nope"}, false), engine.ErrUnknownChannel)
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	require.NoError(t, err)
	return a.Port
}

func TestDestinationWithMessagesQueuedIsNotTakenAway(t *testing.T) {
	lab, dir := newReceiver(t), t.TempDir()
	lab.down()
	st := openStore(t, t.TempDir())
	adt := channel("adt", toTCP("lab", lab.addr), toFile("archive", dir))
	e := start(t, st, adt)
	addr := e.addr("adt")
	send(t, dial(t, addr, nil), "M1", "M2")
	eventually(t, "filed", func() bool { return len(filed(t, dir)) == 2 })

	less := channel("adt", toFile("archive", dir))
	less.Source.TCP.Port = portOf(t, addr)
	var left *engine.QueuedError
	require.ErrorAs(t, e.Replace(t.Context(), &less, false), &left)
	assert.Equal(t, engine.QueuedError{Channel: "adt", Destination: "lab", Queued: 2}, *left)
	send(t, dial(t, addr, nil), "M3") // as before

	require.NoError(t, e.Replace(t.Context(), &less, true))
	send(t, dial(t, addr, nil), "M4")
	stats := e.stats("adt")
	assert.Equal(t, "lab", stats.Destinations[1].Name)
	assert.EqualValues(t, 3, stats.Destinations[1].Queued, "kept, and shown")
	require.NoError(t, e.Replace(t.Context(), &less, false), "this change leaves nothing behind")
	e.stop()
	e = start(t, st, less)
	assert.Equal(t, 1, e.log.count("destination that is not configured any more"))

	lab.up()
	require.NoError(t, e.Replace(t.Context(), &adt, false))
	eventually(t, "delivered after all", func() bool { return len(lab.received()) == 3 })
	assert.Equal(t, []string{"M1", "M2", "M3"}, lab.received())
}

func TestReplacementThatCannotStartChangesNothing(t *testing.T) {
	dir := t.TempDir()
	e := start(t, openStore(t, t.TempDir()), channel("adt", toFile("archive", dir)), channel("other", toFile("archive", t.TempDir())))
	addr := e.addr("adt")
	bad := channel("adt", toFile("archive", t.TempDir()))
	bad.Source.TCP.Port = portOf(t, e.addr("other"))
	require.ErrorContains(t, e.Replace(t.Context(), &bad, false), "address already in use")
	assert.Equal(t, engine.Started, e.state("adt"))
	require.Equal(t, addr, e.addr("adt"))
	send(t, dial(t, addr, nil), "M1")
	eventually(t, "delivered as before", func() bool { return len(filed(t, dir)) == 1 })
}

func TestRemovedChannelLeavesNothingBehindUnlessToldTo(t *testing.T) {
	lab := newReceiver(t)
	lab.down()
	st := openStore(t, t.TempDir())
	out := reader("out", toTCP("lab", lab.addr))
	e := start(t, st, channel("in", toChannel("next", "out")), out)
	addr := e.addr("in")
	send(t, dial(t, addr, nil), "M1", "M2")
	eventually(t, "handed over", func() bool { return e.stats("out").Queued == 2 })

	require.ErrorIs(t, e.Remove(t.Context(), "out", true), engine.ErrTargets, "another leads to it, whoever insists")
	require.NoError(t, e.Remove(t.Context(), "in", false))
	refuses(t, addr)
	var left *engine.QueuedError
	require.ErrorAs(t, e.Remove(t.Context(), "out", false), &left)
	assert.EqualValues(t, 2, left.Queued)
	assert.Equal(t, engine.Started, e.state("out"))
	require.NoError(t, e.Remove(t.Context(), "out", true))
	_, err := e.State("out")
	require.ErrorIs(t, err, engine.ErrUnknownChannel)
	require.ErrorIs(t, e.StartChannel(t.Context(), "out"), engine.ErrUnknownChannel)
	assert.Empty(t, e.Channels())

	lab.up()
	require.NoError(t, e.Add(&out))
	require.NoError(t, e.DeployChannel(t.Context(), "out"))
	eventually(t, "what was left is delivered", func() bool { return len(lab.received()) == 2 })
}

func TestChannelsNeverLeadInARingOrNowhere(t *testing.T) {
	dir := t.TempDir()
	b := reader("b", toFile("archive", dir))
	e := start(t, openStore(t, t.TempDir()), reader("a", toChannel("next", "b")), b)
	nowhere, ring, self := reader("c", toChannel("next", "nope")), reader("b", toChannel("next", "a")), reader("c", toChannel("next", "c"))
	require.ErrorIs(t, e.Add(&nowhere), engine.ErrTargets)
	require.ErrorIs(t, e.Add(&self), engine.ErrTargets)
	require.ErrorIs(t, e.Replace(t.Context(), &ring, false), engine.ErrTargets)
	e.inject("a", "M1")
	eventually(t, "delivered", func() bool { return len(filed(t, dir)) == 1 })
}

// A channel's source looks at what its destinations can carry now, not when it was
// opened.
func TestSourceKnowsTheDestinationsOfAReplacedTarget(t *testing.T) {
	lab := newReceiver(t)
	e := start(t, openStore(t, t.TempDir()), reader("a", toChannel("next", "b")), reader("b", toFile("archive", t.TempDir())))
	odd := engine.Injected{Raw: append(message("M1"), "\x1c\r"...)}
	_, err := e.Inject(t.Context(), "a", odd)
	require.NoError(t, err)
	eventually(t, "filed", func() bool { return e.stats("b").Sent == 1 })
	tcp := reader("b", toTCP("lab", lab.addr))
	require.NoError(t, e.Replace(t.Context(), &tcp, false))
	_, err = e.Inject(t.Context(), "a", odd)
	require.ErrorIs(t, err, engine.ErrUnpassable)
}

func TestPausedChannelDeliversAndTakesNothingIn(t *testing.T) {
	lab := newReceiver(t)
	lab.down()
	e := start(t, openStore(t, t.TempDir()), channel("adt", toTCP("lab", lab.addr)))
	addr := e.addr("adt")
	conn := dial(t, addr, nil)
	send(t, conn, "M1", "M2")
	require.NoError(t, e.PauseChannel(t.Context(), "adt"))
	assert.Equal(t, engine.Paused, e.state("adt"))
	refuses(t, addr)
	_, err := conn.Send(t.Context(), message("M3"))
	require.Error(t, err)
	lab.up()
	eventually(t, "the queue drains", func() bool { return len(lab.received()) == 2 })
	for _, command := range []func(context.Context, string) error{e.PauseChannel, e.StartChannel} {
		var refused *engine.StateError
		require.ErrorAs(t, command(t.Context(), "adt"), &refused)
	}
	require.NoError(t, e.ResumeChannel(t.Context(), "adt"))
	send(t, dial(t, addr, nil), "M3")
	eventually(t, "delivered", func() bool { return len(lab.received()) == 3 })
	require.NoError(t, e.PauseChannel(t.Context(), "adt"))
	require.NoError(t, e.StopChannel(t.Context(), "adt"))
	var refused *engine.StateError
	require.ErrorAs(t, e.ResumeChannel(t.Context(), "adt"), &refused)
	require.EqualError(t, refused, "Cannot resume channel in state: STOPPED")
}

func TestChannelsBeginInTheirInitialState(t *testing.T) {
	dir := t.TempDir()
	paused, stopped := channel("paused", toFile("archive", dir)), channel("stopped", toFile("archive", t.TempDir()))
	paused.InitialState, stopped.InitialState = "PAUSED", "STOPPED"
	st := openStore(t, t.TempDir())
	for _, id := range []string{"paused", "stopped"} {
		_, err := st.Intake(t.Context(), store.Intake{Channel: id, Raw: message("M1"), Destinations: []string{"archive"}})
		require.NoError(t, err)
	}
	e := start(t, st, paused, stopped)
	assert.Equal(t, engine.Paused, e.state("paused"))
	assert.Equal(t, engine.Stopped, e.state("stopped"))
	eventually(t, "the paused one delivers", func() bool { return len(filed(t, dir)) == 1 })
	assert.EqualValues(t, 1, e.stats("stopped").Queued)
	require.NoError(t, e.StartChannel(t.Context(), "stopped"))
	eventually(t, "delivered", func() bool { return e.stats("stopped").Sent == 1 })
	require.NoError(t, e.DeployChannel(t.Context(), "stopped"))
	assert.Equal(t, engine.Stopped, e.state("stopped"), "deploying is beginning again")
}

// A halt does not wait, and ends the wait of a stop.
func TestHaltCutsOffWhatAStopWaitsFor(t *testing.T) {
	lab := newReceiver(t)
	arrived, release := lab.hold()
	e := start(t, openStore(t, t.TempDir()), channel("adt", toTCP("lab", lab.addr)))
	send(t, dial(t, e.addr("adt"), nil), "M1")
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- e.StopChannel(context.Background(), "adt") }()
	eventually(t, "the source is closed, and the stop waits for the destination", func() bool { return e.state("adt") == engine.Stopped })
	require.NoError(t, e.HaltChannel(t.Context(), "adt"))
	require.NoError(t, <-stopped)
	assert.Equal(t, engine.Stopped, e.state("adt"))
	assert.EqualValues(t, 1, e.stats("adt").Queued)
	release()
	require.NoError(t, e.StartChannel(t.Context(), "adt"))
	eventually(t, "sent again", func() bool { return e.stats("adt").Sent == 1 })
	assert.Equal(t, 1, e.log.count("sending again what may have arrived"))
}

func TestOneConnectorIsStoppedAndStarted(t *testing.T) {
	a, b := newReceiver(t), newReceiver(t)
	e := start(t, openStore(t, t.TempDir()), channel("adt", toTCP("a", a.addr), toTCP("b", b.addr)))
	addr := e.addr("adt")
	require.NoError(t, e.StopConnector(t.Context(), "adt", 2))
	status, err := e.Status(t.Context(), "adt")
	require.NoError(t, err)
	assert.Equal(t, []engine.State{engine.Started, engine.Stopped}, status.Destinations)
	send(t, dial(t, addr, nil), "M1")
	eventually(t, "the other goes on", func() bool { return len(a.received()) == 1 })
	assert.Empty(t, b.received())
	require.NoError(t, e.StopConnector(t.Context(), "adt", 0))
	assert.Equal(t, engine.Paused, e.state("adt"))
	refuses(t, addr)
	require.NoError(t, e.StartConnector(t.Context(), "adt", 2))
	eventually(t, "delivered", func() bool { return len(b.received()) == 1 })
	require.NoError(t, e.StartConnector(t.Context(), "adt", 0))
	send(t, dial(t, addr, nil), "M2")
	for _, number := range []int{-1, 3} {
		require.ErrorIs(t, e.StopConnector(t.Context(), "adt", number), engine.ErrUnknownConnector)
	}
	require.NoError(t, e.StopChannel(t.Context(), "adt"))
	var refused *engine.StateError
	require.ErrorAs(t, e.StartConnector(t.Context(), "adt", 1), &refused)
}

// What earlier runs left is being delivered before any port is open, and a port is
// closed before the deliveries end.
func TestDestinationsStartBeforeSourcesAndStopAfterThem(t *testing.T) {
	lab, dir := newReceiver(t), t.TempDir()
	st := openStore(t, dir)
	for _, id := range ids("M", 3) {
		_, err := st.Intake(t.Context(), store.Intake{Channel: "adt", ControlID: id, Raw: message(id), Destinations: []string{"lab"}})
		require.NoError(t, err)
	}
	l := new(log)
	adt := channel("adt", toTCP("lab", lab.addr))
	adt.Source.TCP.Port = unusedPort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", adt.Source.TCP.Port)
	e := engine.New(&config.Config{Channels: []config.Channel{adt}}, st, engine.Options{Logger: l.logger(0)})
	e.StartDestinations()
	eventually(t, "what was left is delivered", func() bool { return len(lab.received()) == 3 })
	refuses(t, addr)
	require.NoError(t, e.StartSources(t.Context()))
	conn := dial(t, addr, nil)
	arrived, release := lab.hold()
	send(t, conn, "M9")
	<-arrived
	require.NoError(t, e.StopSources(t.Context()))
	refuses(t, addr)
	require.Error(t, e.StartChannel(t.Context(), "adt"), "nothing starts any more")
	require.Error(t, e.DeployChannel(t.Context(), "adt"))
	release()
	eventually(t, "deliveries go on", func() bool { return len(lab.received()) == 4 })
	e.StopDestinations(t.Context())
	assert.Equal(t, []string{"M0000", "M0001", "M0002", "M9"}, lab.received())
}

func unusedPort(t *testing.T) int {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// Channels are changed by several people at once, while messages come in and pass
// from one to the next: each is delivered once, and none is left where nobody looks.
func TestChangesUnderLoadLoseNothing(t *testing.T) {
	dir := t.TempDir()
	variants := []config.Channel{
		reader("out", toFile("archive", dir)),
		reader("out", toFile("archive", dir), toFile("second", t.TempDir())),
	}
	e := start(t, openStore(t, t.TempDir()), channel("in", toChannel("next", "out")), variants[0])
	addr := e.addr("in")
	const senders, each = 4, 40
	stop := make(chan struct{})
	var people, sending sync.WaitGroup
	for _, turn := range []func(i int){
		func(i int) { _ = e.Replace(context.Background(), &variants[i%2], false) },
		func(i int) {
			ch := channel("in", toChannel("next", "out"))
			ch.Source.TCP.Port = portOf(t, addr)
			_ = e.Replace(context.Background(), &ch, false)
		},
		func(int) {
			_ = e.PauseChannel(context.Background(), "in")
			_ = e.ResumeChannel(context.Background(), "in")
			_, _ = e.Status(context.Background(), "in")
		},
		func(int) {
			_ = e.StopChannel(context.Background(), "out")
			_ = e.StartChannel(context.Background(), "out")
		},
		func(int) { _ = e.DeployChannel(context.Background(), "out") },
	} {
		people.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					turn(i)
				}
			}
		})
	}
	var mu sync.Mutex
	var acked []string
	for s := range senders {
		sending.Go(func() {
			for _, id := range ids(fmt.Sprintf("S%d-", s), each) {
				for try := 0; ; try++ {
					if _, err := e.Inject(context.Background(), "in", engine.Injected{Raw: message(id)}); err == nil {
						break
					}
					time.Sleep(time.Millisecond) // paused, or being replaced
				}
				mu.Lock()
				acked = append(acked, id)
				mu.Unlock()
			}
		})
	}
	sending.Wait()
	close(stop)
	people.Wait()
	_ = e.DeployChannel(t.Context(), "in")
	require.NoError(t, e.DeployChannel(t.Context(), "out"))
	eventually(t, "everything is delivered", func() bool { return e.stats("in").Queued == 0 && e.stats("out").Queued == 0 })
	got := filedIDs(t, dir)
	slices.Sort(acked)
	sorted := slices.Sorted(slices.Values(got))
	assert.Equal(t, acked, sorted, "each is filed once")
	for s := range senders { // in the order of each sender
		prefix := fmt.Sprintf("S%d-", s)
		own := slices.DeleteFunc(slices.Clone(got), func(id string) bool { return !strings.HasPrefix(id, prefix) })
		assert.True(t, slices.IsSorted(own))
	}
	require.Equal(t, engine.Started, e.state("in"))
	assert.Equal(t, mllp.AA, ackOf(t, dial(t, e.addr("in"), nil), "END"))
}

func ackOf(t *testing.T, conn *mllp.Conn, id string) mllp.AckCode {
	t.Helper()
	reply, err := conn.Send(t.Context(), message(id))
	require.NoError(t, err)
	return reply.Ack.Code
}
