package demo

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
)

// theatre is a stage with its senders at work, for a fault to happen on.
type theatre struct {
	*stage

	lab    collector
	enough atomic.Bool // the senders stop after their message
	group  sync.WaitGroup
}

// open starts an engine under the command given, and lets senders send.
func open(t *testing.T, sabotage string, under ...string) *theatre {
	t.Helper()
	th := &theatre{stage: &stage{dir: t.TempDir(), out: t.Output(), began: time.Now()}}
	th.keep = th.lab.keep
	return th.begin(t, sabotage, under...)
}

func (th *theatre) begin(t *testing.T, sabotage string, under ...string) *theatre {
	t.Helper()
	binary, err := engineBinary()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, th.prepare(ctx, Options{Executable: binary, Sabotage: sabotage, Senders: 10, Under: under}))
	t.Cleanup(func() {
		th.enough.Store(true)
		cancel()
		waitFor(t, "the senders to give up", th.group.Wait)
		th.senders.close()
		assert.NoError(t, th.engine.stop())
		assert.NoError(t, th.laboratory.close())
	})
	for i := range th.senders.lines {
		th.group.Go(func() {
			for !th.enough.Load() {
				if err := th.senders.one(ctx, i); err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	return th
}

// judge lets the senders finish and the engine deliver what it has, and compares.
func (th *theatre) judge(t *testing.T) verdict {
	t.Helper()
	th.enough.Store(true)
	waitFor(t, "the senders to be done", th.group.Wait)
	drain, stop := context.WithTimeout(t.Context(), drainLimit(0))
	defer stop()
	require.NoError(t, th.drain(drain))
	require.NoError(t, th.laboratory.close())
	v := judge(th.senders.lines, th.lab.all)
	t.Logf("%+v, refused %d times", v, th.senders.naks.Load())
	return v
}

// underFailingDisk is a command under which the engine's disk fails to sync,
// from some moment on.
func underFailingDisk(t *testing.T) []string {
	return []string{
		interop.Need(t, "strace"), "-f", "-o", os.DevNull, "-e", "trace=fdatasync,fsync",
		"-e", "inject=fdatasync,fsync:error=EIO:when=60+", // of each thread
	}
}

// killTraced kills an engine under a tracer, which ends with it, and starts
// another on a disk that works.
func (th *theatre) killTraced(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(th.path("data", "lock"))
	require.NoError(t, err)
	digits := strings.TrimFunc(string(text), func(r rune) bool { return r < '0' || r > '9' })
	pid, err := strconv.Atoi(digits)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	waitFor(t, "the tracer to end with the engine", func() { <-th.engine.exited })
	binary, err := engineBinary()
	require.NoError(t, err)
	th.engine.command = []string{binary, "-config", th.path("engine.yaml")}
	require.NoError(t, th.engine.start(t.Context()))
}

func TestADiskThatFailsToSyncGivesRefusalsAndNoFalseAcknowledgement(t *testing.T) {
	th := open(t, "", underFailingDisk(t)...)
	until(t, "refusals", func() bool { return th.senders.naks.Load() >= 50 })
	th.killTraced(t)
	acks := th.senders.acks.Load()
	until(t, "acknowledgements on the disk that works", func() bool { return th.senders.acks.Load() >= acks+100 })
	v := th.judge(t)
	assert.Zero(t, v.lost)
	assert.Zero(t, v.misordered)
	assert.Zero(t, v.altered)
}

func TestAnEngineThatAcknowledgesBeforeItCommitsIsFoundOnADiskThatFails(t *testing.T) {
	th := open(t, AckBeforeCommit, underFailingDisk(t)...)
	until(t, "acknowledgements", func() bool { return th.senders.acks.Load() >= 3000 })
	th.killTraced(t)
	assert.NotZero(t, th.judge(t).lost)
}

// openOnSmallDisk gives the engine a disk of 96 MiB, of which ballast takes 40.
func openOnSmallDisk(t *testing.T, sabotage string) (th *theatre, ballast string) {
	t.Helper()
	th = &theatre{stage: &stage{dir: t.TempDir(), out: t.Output(), began: time.Now()}}
	th.keep = th.lab.keep
	disk := th.path("data")
	require.NoError(t, os.Mkdir(disk, 0o700))
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=96m"); err != nil {
		interop.Missing(t, "a file system cannot be mounted here: "+err.Error())
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
	ballast = filepath.Join(disk, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 40<<20), 0o600))
	return th.begin(t, sabotage), ballast
}

func TestAFullDiskGivesRefusalsAndHealsByItself(t *testing.T) {
	th, ballast := openOnSmallDisk(t, "")
	until(t, "refusals", func() bool { return th.senders.naks.Load() >= 50 })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+th.engine.port+"/api/health", nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	res.Body.Close()
	assert.Equal(t, http.StatusServiceUnavailable, res.StatusCode)

	require.NoError(t, os.Remove(ballast))
	acks := th.senders.acks.Load()
	until(t, "acknowledgements when there is space again", func() bool { return th.senders.acks.Load() >= acks+100 })
	v := th.judge(t)
	assert.Zero(t, v.lost)
	assert.Zero(t, v.misordered)
	assert.Zero(t, v.altered)
}

func TestAnEngineThatAcknowledgesBeforeItCommitsIsFoundOnAFullDisk(t *testing.T) {
	th, ballast := openOnSmallDisk(t, AckBeforeCommit)
	logged := func() bool {
		text, err := os.ReadFile(th.path("engine.log"))
		return err == nil && strings.Contains(string(text), "disk full")
	}
	until(t, "a full disk", logged)
	acks := th.senders.acks.Load()
	until(t, "acknowledgements all the same", func() bool { return th.senders.acks.Load() >= acks+100 })
	require.NoError(t, os.Remove(ballast))
	assert.NotZero(t, th.judge(t).lost)
}
