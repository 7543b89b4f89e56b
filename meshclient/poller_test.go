package meshclient_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// desk is a server, a Poller of bob's mailbox and what its Handle has had.
type desk struct {
	*meshclient.Poller
	server *meshtest.Server

	mu      sync.Mutex
	handled []string         // ids, in order; guarded by mu
	fails   map[string]error // what Handle says of an id; guarded by mu
	events  []meshclient.PollEvent
}

// newDesk is to be called in a bubble.
func newDesk(t *testing.T, changes ...func(*meshclient.Poller)) *desk {
	t.Helper()
	s, ln := inMemory(t, meshtest.Options{})
	d := &desk{server: s, fails: make(map[string]error)}
	d.Poller = d.another(t, connect(t, s, bob, func(c *meshclient.Config) { c.NetDialer = ln }), changes...)
	return d
}

// another is a Poller that reports to the same desk.
func (d *desk) another(t *testing.T, c *meshclient.Client, changes ...func(*meshclient.Poller)) *meshclient.Poller {
	t.Helper()
	p := &meshclient.Poller{
		Client: c, Handle: d.handle,
		Observe: func(e meshclient.PollEvent) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.events = append(d.events, e)
		},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func (d *desk) handle(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handled = append(d.handled, id)
	return d.fails[id]
}

func (d *desk) fail(id string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails[id] = err
}

// times is how often Handle had an id, or any if there is none.
func (d *desk) times(id string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.handled {
		if id == "" || h == id {
			n++
		}
	}
	return n
}

func (d *desk) kinds(id string) (kinds []meshclient.PollKind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		if e.MessageID == id {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func (d *desk) deliver(n int) (ids []string) {
	for range n {
		ids = append(ids, d.server.Deliver(&meshtest.Message{From: alice, To: bob, WorkflowID: "W", Chunks: [][]byte{{1}}}))
	}
	return ids
}

// run runs the Poller until the function it returns is called.
func (d *desk) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			assert.NoError(t, <-done)
		})
	}
	t.Cleanup(stop)
	return stop
}

// after lets time pass, and waits until nothing moves.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestAnInboxIsListedEveryFiveMinutesAndHandsShakenOnceADay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		d.run(t)
		after(time.Second)
		assert.Len(t, ops(d.server, "inbox"), 1)
		assert.Len(t, ops(d.server, "handshake"), 1)
		id := d.deliver(1)[0]
		after(5*time.Minute - 2*time.Second)
		assert.Len(t, ops(d.server, "inbox"), 1, "not before five minutes are over")
		after(2 * time.Second)
		assert.Len(t, ops(d.server, "inbox"), 2)
		assert.Equal(t, "acknowledged", d.server.Status(id))
		after(3 * 24 * time.Hour)
		inbox, handshakes := len(ops(d.server, "inbox")), len(ops(d.server, "handshake"))
		assert.InDelta(t, 3*24*12, inbox, 10)
		assert.GreaterOrEqual(t, handshakes, 4)
		assert.LessOrEqual(t, handshakes, 5)
		assert.WithinDuration(t, time.Now(), d.Status().LastHandshake, 24*time.Hour)
		assert.WithinDuration(t, time.Now(), d.Status().LastPoll, 5*time.Minute)
	})
}

func TestAFullInboxIsEmptiedWithoutAPause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		ids := d.deliver(600)
		polled, err := d.Poll(t.Context())
		require.NoError(t, err)
		assert.Equal(t, meshclient.Polled{Listed: 600, Handled: 600, Acknowledged: 600}, polled)
		assert.Equal(t, ids, d.handled)
		assert.Empty(t, d.server.Waiting(bob))
		// This is test 601 of NHS's catalogue: list, 500 times get and acknowledge,
		// list, 100 times get and acknowledge.
		var order []string
		for _, r := range d.server.Requests() {
			if n := len(order); n == 0 || order[n-1] != r.Op {
				order = append(order, r.Op)
			}
		}
		assert.Equal(t, []string{"handshake", "inbox", "acknowledge", "inbox", "acknowledge"}, order)

		_, err = d.Poll(t.Context())
		soon, ok := asType[*meshclient.TooSoonError](err)
		require.True(t, ok, "%v", err)
		assert.InDelta(t, 5*time.Minute, soon.Wait, float64(time.Minute))
	})
}

func TestAListAsFullAsVersion1MakesThemIsFollowedByAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		ids := d.deliver(501)
		d.server.Script(meshtest.Fault{Op: "inbox", Status: 200, Body: `{"messages":["` + strings.Join(ids[:500], `","`) + `"]}`})
		polled, err := d.Poll(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 501, polled.Acknowledged)
	})
}

func TestAfterSomethingWasSentTheInboxIsListedOnceBeforeItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		d.run(t)
		after(time.Second)
		for range 3 {
			d.Sent()
			after(time.Second)
		}
		assert.Len(t, ops(d.server, "inbox"), 2)
		after(20 * time.Minute)
		n := len(ops(d.server, "inbox"))
		d.Sent()
		after(time.Second)
		assert.Len(t, ops(d.server, "inbox"), n+1)
	})
}

func TestARestartNeitherShakesHandsNorListsAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := meshclient.PollFile(filepath.Join(t.TempDir(), "mesh.json"))
		d := newDesk(t, func(p *meshclient.Poller) { p.Store = file })
		for range 20 {
			d.Poller = d.another(t, d.Client, func(p *meshclient.Poller) { p.Store = file })
			stop := d.run(t)
			after(time.Second)
			stop()
		}
		assert.Len(t, ops(d.server, "handshake"), 1)
		assert.Len(t, ops(d.server, "inbox"), 1)
		d.Poller = d.another(t, d.Client, func(p *meshclient.Poller) { p.Store = file })
		d.run(t)
		after(5 * time.Minute)
		assert.Len(t, ops(d.server, "handshake"), 1)
		assert.Len(t, ops(d.server, "inbox"), 2)

		require.NoError(t, os.WriteFile(string(file), []byte("{"), 0o600))
		d.Poller = d.another(t, d.Client, func(p *meshclient.Poller) { p.Store = file })
		_, err := d.Poll(t.Context())
		assert.ErrorContains(t, err, "not the state", "who cannot know when it was listed does not list it")
	})
}

func TestNothingIsAcknowledgedThatWasNotHandled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		ids := d.deliver(3)
		d.fail(ids[0], errors.New("disk full"))
		stored := d.handle
		d.Handle = func(ctx context.Context, id string) error {
			if err := stored(ctx, id); id == ids[1] {
				panic(err)
			} else if err != nil {
				return err
			}
			return nil
		}
		polled, err := d.Poll(t.Context())
		require.NoError(t, err)
		assert.Equal(t, meshclient.Polled{Listed: 3, Handled: 1, Acknowledged: 1, Failed: 2}, polled)
		assert.Equal(t, ids[:2], d.server.Waiting(bob))
		assert.Equal(t, 2, d.Status().Failing)
		d.fail(ids[0], nil)
		d.Handle = stored
		after(5 * time.Minute)
		_, err = d.Poll(t.Context())
		require.NoError(t, err)
		assert.Empty(t, d.server.Waiting(bob))
		assert.Zero(t, d.Status().Failing)
		assert.Equal(t, []meshclient.PollKind{meshclient.PollFailed, meshclient.PollAcknowledged}, d.kinds(ids[0]))
	})
}

func TestAMessageInHandIsStillAcknowledgedAtTheEndIfItWasStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		ids := d.deliver(3)
		var stop func()
		ready, ended := make(chan struct{}), make(chan struct{})
		d.Handle = func(ctx context.Context, id string) error {
			if id == ids[1] {
				go func() { <-ready; stop(); close(ended) }()
				<-ctx.Done()
			}
			return nil // stored nevertheless
		}
		stop = d.run(t)
		close(ready)
		<-ended
		assert.Equal(t, ids[2:], d.server.Waiting(bob))

		d = newDesk(t)
		ids = d.deliver(1)
		ready, ended = make(chan struct{}), make(chan struct{})
		d.Handle = func(ctx context.Context, _ string) error {
			go func() { <-ready; stop(); close(ended) }()
			<-ctx.Done()
			return ctx.Err()
		}
		stop = d.run(t)
		close(ready)
		<-ended
		assert.Equal(t, ids, d.server.Waiting(bob))
		assert.Zero(t, d.Status().Failing, "which says nothing of the message")
	})
}

func TestAMessageThatIsStoredIsNotReceivedAgainWhenItsAcknowledgementFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := meshclient.PollFile(filepath.Join(t.TempDir(), "mesh.json"))
		d := newDesk(t, func(p *meshclient.Poller) { p.Store = file })
		id := d.deliver(1)[0]
		d.server.Script(meshtest.Fault{Op: "acknowledge", Status: 503, Times: 4})
		polled, err := d.Poll(t.Context())
		require.NoError(t, err)
		assert.Equal(t, meshclient.Polled{Listed: 1, Handled: 1}, polled)
		assert.Equal(t, 1, d.Status().Unacknowledged)
		tokens := map[string]bool{}
		for _, r := range ops(d.server, "acknowledge") {
			tokens[r.Authorization] = true
		}
		assert.Len(t, tokens, 4, "four attempts, and four tokens")
		after(5 * time.Minute)
		d.Poller = d.another(t, d.Client, func(p *meshclient.Poller) { p.Store = file }) // after a restart, too
		polled, err = d.Poll(t.Context())
		require.NoError(t, err)
		assert.Equal(t, meshclient.Polled{Listed: 1, Acknowledged: 1}, polled)
		assert.Equal(t, 1, d.times(id))
		assert.Empty(t, d.server.Waiting(bob))
	})
}

func TestPoisonIsLeftAloneAndHoldsUpNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t, func(p *meshclient.Poller) { p.PoisonAfter, p.MaxResults = 3, 10 })
		bad := d.deliver(12)
		for _, id := range bad {
			d.fail(id, errors.New("no"))
		}
		d.deliver(1)
		for range 10 { // five fail in each cycle, which then ends
			_, _ = d.Poll(t.Context())
			after(5 * time.Minute)
		}
		good := d.deliver(5)
		d.run(t)
		after(time.Second)
		for _, id := range good {
			assert.Equal(t, 1, d.times(id), "though twelve others wait before it")
		}
		after(10 * time.Hour)
		for _, id := range bad {
			assert.Contains(t, d.kinds(id), meshclient.PollPoison)
			assert.Less(t, d.times(id), 16, "its pauses grow")
		}
		assert.Equal(t, 12, d.Status().Poison)
		after(4 * 24 * time.Hour)
		for _, id := range bad {
			assert.Contains(t, d.kinds(id), meshclient.PollExpiring)
		}
		for _, id := range bad {
			d.fail(id, nil)
		}
		after(13 * time.Hour)
		assert.Empty(t, d.server.Waiting(bob))
	})
}

func TestWhenEverythingFailsACycleEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		full := errors.New("disk full")
		for _, id := range d.deliver(100) {
			d.fail(id, full)
		}
		polled, err := d.Poll(t.Context())
		require.ErrorIs(t, err, full)
		assert.Equal(t, 5, polled.Failed)
		assert.ErrorIs(t, d.Status().Err, full)
	})
}

func TestWhatIsNotTheMessagesFaultMakesItNoPoison(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t, func(p *meshclient.Poller) { p.PoisonAfter = 1 })
		ids := d.deliver(2)
		d.fail(ids[0], fmt.Errorf("the store is full: %w", meshclient.ErrNotNow))
		polled, err := d.Poll(t.Context())
		require.ErrorIs(t, err, meshclient.ErrNotNow)
		assert.Equal(t, meshclient.Polled{Listed: 1}, polled, "the next one is not tried")
		assert.Zero(t, d.Status().Failing)
		d.fail(ids[0], nil)
		d.Handle = func(ctx context.Context, id string) error {
			if id == ids[0] {
				return d.handle(ctx, id)
			}
			_, err := receive(t, d.Client, id, nil)
			return err
		}
		d.server.Script(meshtest.Fault{Op: "download", Status: 503, Times: 3 * 4})
		for range 3 {
			after(5 * time.Minute)
			polled, err = d.Poll(t.Context())
			require.NoError(t, err)
			assert.Equal(t, 1, polled.Failed)
		}
		assert.Equal(t, 1, d.Status().Failing)
		assert.Zero(t, d.Status().Poison, "it is the server's")
		after(5 * time.Minute)
		_, err = d.Poll(t.Context())
		require.NoError(t, err)
		assert.Empty(t, d.server.Waiting(bob))
	})
}

func TestAMessageThatIsGoneIsNotTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		id := d.deliver(1)[0]
		d.Handle = func(ctx context.Context, id string) error {
			_, err := receive(t, d.Client, id, nil)
			return err
		}
		d.server.Script(meshtest.Fault{Op: "download", Status: 410, Body: "{}"})
		polled, err := d.Poll(t.Context())
		require.NoError(t, err)
		assert.Equal(t, meshclient.Polled{Listed: 1, Gone: 1}, polled)
		assert.Len(t, ops(d.server, "download"), 1)
		assert.Empty(t, ops(d.server, "acknowledge"))
		assert.Equal(t, []meshclient.PollKind{meshclient.PollGone}, d.kinds(id))
	})
}

func TestAServerThatRefusesIsAskedLessAndLess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		d.server.Disable(bob)
		d.run(t)
		after(24 * time.Hour)
		assert.ErrorIs(t, d.Status().Err, meshclient.ErrAuth)
		assert.Less(t, len(d.server.Requests()), 32, "not every five minutes, and once each time")
		assert.Greater(t, len(d.server.Requests()), 20, "at least every hour")
	})
}

func TestCallsOfPollAtOnceAreOneCycle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDesk(t)
		d.deliver(3)
		begin := make(chan struct{})
		var together sync.Mutex
		d.Handle = func(context.Context, string) error {
			<-begin
			assert.True(t, together.TryLock(), "one in flight for a mailbox")
			time.Sleep(time.Second)
			together.Unlock()
			return nil
		}
		var waiting sync.WaitGroup
		for range 5 {
			waiting.Go(func() {
				polled, err := d.Poll(t.Context())
				assert.NoError(t, err)
				assert.Equal(t, 3, polled.Acknowledged)
			})
		}
		synctest.Wait()
		close(begin)
		waiting.Wait()
		assert.Len(t, ops(d.server, "inbox"), 1)
	})
}

// cupboard is a lock and a store that several machines share.
type cupboard struct {
	mu    sync.Mutex
	text  []byte             // guarded by mu
	taken bool               // guarded by mu
	lose  context.CancelFunc // of who has it; guarded by mu
}

func (c *cupboard) Load(context.Context) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text, nil
}

func (c *cupboard) Save(_ context.Context, text []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = text
	return nil
}

func (c *cupboard) lock(ctx context.Context) (context.Context, func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken {
		return nil, nil, meshclient.ErrLocked
	}
	c.taken = true
	ctx, cancel := context.WithCancel(ctx)
	c.lose = cancel
	mine := true
	return ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		cancel()
		if mine && c.taken {
			c.taken = false
		}
	}, nil
}

// takeAway ends the lock of whoever has it.
func (c *cupboard) takeAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose()
	c.taken = false
}

func TestOfTwoMachinesOneAtATimePollsAndTheOtherTakesOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := new(cupboard)
		share := func(p *meshclient.Poller) { p.Store, p.Lock = shared, shared.lock }
		d := newDesk(t, share)
		other := d.another(t, d.Client, share)
		ids := d.deliver(4)
		reached, goOn := make(chan struct{}), make(chan struct{})
		d.Handle = func(ctx context.Context, id string) error {
			if id == ids[1] {
				close(reached)
				<-goOn
			}
			return d.handle(ctx, id)
		}
		ended := make(chan error, 1)
		go func() { _, err := d.Poll(t.Context()); ended <- err }()
		<-reached
		_, err := other.Poll(t.Context())
		require.ErrorIs(t, err, meshclient.ErrLocked)

		shared.takeAway()
		after(5 * time.Minute)
		polled, err := other.Poll(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 3, polled.Acknowledged)
		close(goOn) // and the first finds that it has lost the lock
		require.ErrorIs(t, <-ended, context.Canceled)
		assert.Empty(t, d.server.Waiting(bob))
		assert.Len(t, ops(d.server, "acknowledge"), 4)
		assert.Len(t, ops(d.server, "handshake"), 1)
		assert.Equal(t, 2, d.times(ids[1]), "that one was in hand on both")
		for _, id := range []string{ids[0], ids[2], ids[3]} {
			assert.Equal(t, 1, d.times(id))
		}
	})
}

func TestAPollerThatMESHDoesNotAllowIsRefused(t *testing.T) {
	c := connect(t, serve(t, meshtest.Options{}), bob)
	handle := func(context.Context, string) error { return nil }
	for name, p := range map[string]*meshclient.Poller{
		"Client":         {Handle: handle},
		"Handle":         {Client: c},
		"5 minutes":      {Client: c, Handle: handle, Interval: time.Minute},
		"24 hours":       {Client: c, Handle: handle, Interval: 25 * time.Hour},
		"PoisonAfter":    {Client: c, Handle: handle, PoisonAfter: -1},
		"MaxResults":     {Client: c, Handle: handle, MaxResults: 1},
		"WorkflowFilter": {Client: c, Handle: handle, WorkflowFilter: "x"},
	} {
		assert.ErrorContains(t, p.Run(t.Context()), name)
		_, err := p.Poll(t.Context())
		assert.ErrorContains(t, err, name)
	}
	assert.NoError(t, (&meshclient.Poller{Client: c, Handle: handle, Interval: time.Second, ShortInterval: true}).Validate())
}

func TestAPollerSaysWhatHappensAndNothingOfTheMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var said strings.Builder
		d := newDesk(t, func(p *meshclient.Poller) { p.Logger = everything(&said) })
		id := d.server.Deliver(&meshtest.Message{
			From: alice, To: bob, WorkflowID: "W", Chunks: [][]byte{[]byte("ContentCanary")},
			Header: map[string][]string{"Mex-Subject": {"SubjectCanary"}, "Mex-Filename": {"NameCanary"}},
		})
		d.Handle = func(context.Context, string) error { panic("PanicCanary") }
		_, err := d.Poll(t.Context())
		require.NoError(t, err)
		for _, want := range []string{"handshake", "failed", "ended", id, "panic in Handle"} {
			assert.Contains(t, said.String(), want)
		}
		assert.NotContains(t, said.String(), "Canary")
	})
}

func TestAFileIsThereWhenAllOfItIs(t *testing.T) {
	s := serve(t, meshtest.Options{SmallChunks: true})
	b := connect(t, s, bob)
	content := noise(3500, 1)
	id := deliver(s, nil, "", content[:1000], content[1000:2000], content[2000:3000], content[3000:])
	name := filepath.Join(t.TempDir(), id+".dat")
	left := func() (names []string) {
		entries, err := os.ReadDir(filepath.Dir(name))
		require.NoError(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}

	// Nothing of a message in one piece is left behind, of one in chunks what can
	// be used.
	s.Script(meshtest.Fault{Op: "download", Status: 503, Times: 4})
	_, err := b.ReceiveFile(bounded(t), id, name, nil)
	assert.True(t, failed(t, err).Retryable())
	assert.Empty(t, left())
	s.Script(meshtest.Fault{Op: "download", Chunk: 3, Status: 503, Times: 4})
	_, err = b.ReceiveFile(bounded(t), id, name, nil)
	require.Error(t, err)
	assert.Equal(t, []string{id + ".dat.part", id + ".dat.state"}, left())
	f, err := os.OpenFile(name+".part", os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = fmt.Fprint(f, "what was written after the state")
	require.NoError(t, err)
	require.NoError(t, f.Close())

	before := len(ops(s, "download"))
	info, err := connect(t, s, bob).ReceiveFile(bounded(t), id, name, nil) // as another process
	require.NoError(t, err)
	assert.EqualValues(t, len(content), info.Size)
	assert.Len(t, ops(s, "download"), before+2, "from where it was")
	assert.Equal(t, []string{id + ".dat"}, left())
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, content, got)
	stat, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), stat.Mode().Perm())

	// A message that cannot be had leaves nothing, and a report makes no file.
	s.Script(meshtest.Fault{Op: "download", Chunk: 2, Status: 404, Body: "{}"})
	_, err = b.ReceiveFile(bounded(t), id, name+"2", nil)
	assert.ErrorIs(t, err, meshclient.ErrNotFound)
	s.Undeliverable(s.Deliver(&meshtest.Message{From: bob, To: alice, WorkflowID: "W", Chunks: [][]byte{{1}}}), "14", "late")
	info, err = b.ReceiveFile(bounded(t), s.Waiting(bob)[1], name+"3", nil)
	require.NoError(t, err)
	assert.NotNil(t, info.Report)
	assert.Equal(t, []string{id + ".dat"}, left())
	_, err = b.ReceiveFile(bounded(t), id, filepath.Join(name, "x"), nil)
	assert.True(t, failed(t, err).Retryable())
}

func TestAStopInTheMiddleOfAMessageLeavesNoFileAndNoAcknowledgement(t *testing.T) {
	s := serve(t, meshtest.Options{})
	id := deliver(s, nil, "", noise(1<<20, 1))
	b := connect(t, s, bob)
	name := filepath.Join(t.TempDir(), "x")
	ctx, cancel := context.WithCancel(t.Context())
	p := &meshclient.Poller{Client: b, Handle: func(ctx context.Context, id string) error {
		s.Script(meshtest.Fault{Op: "download", Truncate: 1000, Times: 9})
		cancel()
		_, err := b.ReceiveFile(ctx, id, name, nil)
		return err
	}}
	require.NoError(t, p.Run(ctx))
	assert.Equal(t, []string{id}, s.Waiting(bob))
	left, err := filepath.Glob(name + "*")
	require.NoError(t, err)
	assert.Empty(t, left)
}
