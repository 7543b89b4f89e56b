package demo

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	kills    = flag.Int("kills", 5, "rounds of kill -9 in TestNoAcknowledgedMessageIsLostByKills")
	killsFor = flag.Duration("kills-for", 0, "instead of -kills: as many rounds as fit in this time")
)

// killers is how many senders are at work when the engine is killed.
const killers = 50

// engineBinary builds the engine, once for all tests of the package.
var engineBinary = sync.OnceValues(func() (string, error) {
	out := filepath.Join(binaries, "engine")
	return out, exec.Command("go", "build", "-o", out, "github.com/carewire/carewire/examples/engine").Run()
})

// binaries is a directory that lives as long as the tests.
var binaries string

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "carewire-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(binaries)
	os.Exit(code)
}

// drainLimit is how long an engine may take to deliver what it took in during
// so many rounds of kills. Taking in shares its commits, delivering does not.
func drainLimit(rounds time.Duration) time.Duration { return 2*time.Minute + 10*rounds }

// until waits for what a test needs to happen.
func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !happened(); time.Sleep(time.Millisecond) {
		require.False(t, t.Failed() || time.Now().After(deadline), "waiting in vain: %s", what)
	}
}

// waitFor calls f, which must return within a minute.
func waitFor(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		require.Fail(t, "waiting in vain: "+what)
	}
}

// collector keeps what a laboratory received, in order.
type collector struct {
	mu  sync.Mutex
	all []delivered // guarded by mu
}

func (c *collector) keep(payload []byte) error {
	d, err := toDelivered(payload)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, d)
	return nil
}

// killRounds runs the engine under load and kills it again and again. It
// returns what the senders and the laboratory say afterwards.
func killRounds(t *testing.T, sabotage string, rounds int, limit time.Duration) (verdict, int) {
	t.Helper()
	if testing.Short() {
		t.Skip("kills the engine for a while; not in short mode")
	}
	binary, err := engineBinary()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var lab collector
	t.Setenv("LOG_LEVEL", "DEBUG")
	s := &stage{dir: t.TempDir(), out: t.Output(), began: time.Now(), keep: lab.keep}
	require.NoError(t, s.prepare(ctx, Options{Executable: binary, Sabotage: sabotage, Senders: killers}))
	defer func() {
		assert.NoError(t, s.engine.stop())
		assert.NoError(t, s.laboratory.close())
	}()

	var enough atomic.Bool
	var group sync.WaitGroup
	for i := range killers {
		group.Go(func() {
			for !enough.Load() {
				if err := s.senders.one(ctx, i); err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	done, began := 0, time.Now()
	for ; (limit > 0 && time.Since(began) < limit) || (limit == 0 && done < rounds); done++ {
		before := s.senders.acks.Load()
		until(t, "every round to do some work", func() bool { return s.senders.acks.Load() >= before+killers })
		time.Sleep(rand.N(300 * time.Millisecond)) // a moment that nobody chose
		require.NoError(t, s.engine.kill())
		require.NoError(t, s.engine.start(ctx))
	}
	enough.Store(true)
	waitFor(t, "the senders to be done", group.Wait)
	s.senders.close()
	drain, stop := context.WithTimeout(ctx, drainLimit(time.Since(began)))
	defer stop()
	require.NoError(t, s.drain(drain))
	if sabotage == "" {
		require.NoError(t, s.engine.start(ctx)) // draining has ended it
		countsAgree(t, s.engine)
	}
	require.NoError(t, s.laboratory.close())
	log, err := os.ReadFile(s.engine.logFile)
	require.NoError(t, err)
	for _, family := range families { // of the patients in the messages
		assert.NotContains(t, string(log), family)
	}
	return judge(s.senders.lines, lab.all), done
}

// countsAgree holds the counters against each other. That they agree with the messages
// themselves package sqlite's tests show after kills.
func countsAgree(t *testing.T, e *engine) {
	t.Helper()
	type counts struct{ Received, Filtered, Sent, Queued, Error int }
	var status struct {
		Statistics    counts
		ChildStatuses []struct {
			Name       string
			Statistics counts
		}
	}
	require.NoError(t, e.get(t.Context(), "/api/channels/"+channelID+"/status", &status))
	total, children := status.Statistics, 0
	for _, child := range status.ChildStatuses[1:] { // the first is the source
		c := child.Statistics
		assert.Equal(t, total.Received-total.Filtered, c.Received, child.Name)
		assert.Equal(t, c.Received, c.Sent+c.Queued+c.Error, child.Name)
		children += c.Received
	}
	assert.Equal(t, children, total.Sent+total.Queued+total.Error)
}

// To play more rounds: go test ./examples/engine/internal/demo -run Kills -kills 100
func TestNoAcknowledgedMessageIsLostByKills(t *testing.T) {
	v, rounds := killRounds(t, "", *kills, *killsFor)
	t.Logf("%d kills, %d senders: %+v", rounds, killers, v)
	assert.Equal(t, v.sent, v.acked)
	assert.Zero(t, v.lost)
	assert.Zero(t, v.misordered)
	assert.Zero(t, v.altered)
}

func TestTheKillsFindAnEngineThatAcknowledgesBeforeItCommits(t *testing.T) {
	v, rounds := killRounds(t, AckBeforeCommit, 1, 0)
	t.Logf("%d kill, %d senders: %+v", rounds, killers, v)
	assert.NotZero(t, v.lost)
}

func TestTheDemoHoldsAndNoticesSabotage(t *testing.T) {
	if testing.Short() {
		t.Skip("plays the whole demo twice; not in short mode")
	}
	binary, err := engineBinary()
	require.NoError(t, err)
	t.Setenv("TMPDIR", t.TempDir()) // what a failed demo keeps goes with the test
	require.NoError(t, Run(t.Context(), Options{Executable: binary, Out: t.Output()}))
	require.ErrorIs(t, Run(t.Context(), Options{Executable: binary, Sabotage: AckBeforeCommit, Out: t.Output()}), ErrNotHeld)
}
