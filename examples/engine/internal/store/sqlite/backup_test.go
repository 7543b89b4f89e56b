package sqlite_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

const backedUp = "backed-up" // by the child that makes backups: a number, when one begins and when it is there

// backups is load with backups, of which the child says what was acknowledged and sent
// before each began.
func backups() {
	st := openAsChild()
	go loadOn(st, false)
	for i := 0; ; i++ {
		say("begins", i)
		if err := st.Backup(context.Background(), filepath.Join(os.Getenv(childDir), fmt.Sprintf("backup-%d", i))); err != nil {
			say(refused, err)
		} else {
			say(backedUp, i)
		}
	}
}

func TestABackupUnderLoadIsAWholeStoreAfterAKill(t *testing.T) {
	dir := t.TempDir()
	c := start(t, "backups", dir, sqlite.SynchronousFull)
	c.waitFor(t, acknowledged, 100)
	c.waitFor(t, backedUp, 3)
	c.kill(t)
	assert.Empty(t, c.said(refused))
	i := len(c.said(backedUp)) - 1
	c.mu.Lock()
	begins := slices.Index(c.lines, fmt.Sprintf("begins %d", i))
	before := slices.Clone(c.lines[:begins])
	c.mu.Unlock()

	file := filepath.Join(dir, fmt.Sprintf("backup-%d", i))
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	sum := sha256.Sum256(content)

	fresh := filepath.Join(t.TempDir(), "data")
	done, err := sqlite.Restore(t.Context(), file, hex.EncodeToString(sum[:]), fresh)
	require.NoError(t, err)
	assert.Equal(t, hex.EncodeToString(sum[:]), done.SHA256)
	left, err := filepath.Glob(filepath.Join(fresh, "*"))
	require.NoError(t, err)
	hidden, err := filepath.Glob(filepath.Join(fresh, ".*"))
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Join(fresh, "engine.db"), filepath.Join(fresh, "lock")}, append(left, hidden...))

	st := reopened(t, fresh)
	defer st.Close()
	restored := everyone(t, st, quiet)
	assert.Empty(t, missing(saidIn(before, acknowledged), restored), "what was acknowledged before the backup began")
	assert.Empty(t, missing(saidIn(before, acknowledged), append(saidIn(c.lines, sent), everyone(t, st, drained)...)))
	assertStatsAddUp(t, st)
	queued := int64(0)
	for _, destination := range []string{drained, quiet} {
		for _, d := range queue(t, st, destination) {
			assert.True(t, d.MaybeSent, "it may have been sent after the backup")
			queued++
		}
	}
	assert.Equal(t, done.Queued, queued)

	// What came after the backup had numbers that nobody gets again.
	original := reopened(t, dir)
	defer original.Close()
	assert.Empty(t, missing(restored, everyone(t, original, quiet)), "nothing is in the backup that was not there")
	last, err := original.Find(t.Context(), "c", store.Filter{}, 0, 1)
	require.NoError(t, err)
	require.NoError(t, intake(st, "after"))
	list, err := st.Find(t.Context(), "c", store.Filter{ControlID: "after"}, 0, 1)
	require.NoError(t, err)
	assert.Greater(t, list[0].ID, last[0].ID)
	assert.Greater(t, list[0].Deliveries[0].Seq, last[0].Deliveries[1].Seq)
	assert.False(t, list[0].Deliveries[0].MaybeSent)
}

// An intake that begins and ends while a backup is being made was not held up by it.
func TestABackupDoesNotHoldUpIntake(t *testing.T) {
	dir := t.TempDir()
	st := reopened(t, dir)
	defer st.Close()
	for range 20 {
		_, err := st.Intake(t.Context(), store.Intake{Channel: "c", Raw: make([]byte, 1<<20), Destinations: []string{drained, quiet}})
		require.NoError(t, err)
	}
	var running, within atomic.Int64 // the backup that is being made, or 0; intakes within one
	ended := make(chan struct{})
	var sender sync.WaitGroup
	var longest time.Duration
	sender.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
			}
			which, begun := running.Load(), time.Now()
			if !assert.NoError(t, intake(st, "1")) {
				return
			}
			if which != 0 && running.Load() == which {
				within.Add(1)
				longest = max(longest, time.Since(begun))
			}
		}
	})
	n := int64(0)
	for end := time.Now().Add(20 * time.Second); within.Load() < 5 && time.Now().Before(end); {
		n++
		running.Store(n)
		path := filepath.Join(dir, fmt.Sprint("backup-", n))
		err := st.Backup(t.Context(), path)
		running.Store(0)
		if !assert.NoError(t, err) || !assert.NoError(t, os.Remove(path)) {
			break
		}
	}
	close(ended)
	sender.Wait()
	assert.GreaterOrEqual(t, within.Load(), int64(5))
	t.Logf("%d intakes began and ended within one of %d backups; the longest of them took %v", within.Load(), n, longest)
}

func TestABackupThatFailsLeavesNothing(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	st := reopened(t, dir)
	require.NoError(t, intake(st, "1"))
	path := filepath.Join(to, "backup")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, st.Backup(ctx, path), context.Canceled)
	require.Error(t, st.Backup(t.Context(), filepath.Join(to, "no", "backup")))
	require.NoError(t, os.WriteFile(path, []byte("something else"), 0o600))
	require.ErrorIs(t, st.Backup(t.Context(), path), os.ErrExist)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "something else", string(content))
	require.NoError(t, os.Remove(path))
	require.NoError(t, st.Healthy())
	require.NoError(t, st.Close())
	require.ErrorIs(t, st.Backup(t.Context(), path), store.ErrClosed)
	left, err := os.ReadDir(to)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// Closing the store does not wait for a backup, and leaves no connection open.
func TestClosingCutsABackupOff(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	for round := range 4 {
		st := reopened(t, dir)
		_, err := st.Intake(t.Context(), store.Intake{Channel: "c", Raw: make([]byte, 1<<20), Destinations: []string{quiet}})
		require.NoError(t, err)
		result := make(chan error, 1)
		go func() { result <- st.Backup(context.Background(), filepath.Join(to, fmt.Sprint(round))) }()
		require.NoError(t, st.Close())
		if err := <-result; err != nil {
			require.ErrorIs(t, err, store.ErrClosed)
			_, err = os.Stat(filepath.Join(to, fmt.Sprint(round)))
			require.ErrorIs(t, err, os.ErrNotExist)
		}
		_, err = os.Stat(filepath.Join(dir, "engine.db-wal"))
		require.ErrorIs(t, err, os.ErrNotExist, "the last connection has put the log away")
	}
}

func TestRestoreRefusesWhatIsNoGoodBackup(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	st := reopened(t, dir)
	for i := range 50 {
		require.NoError(t, intake(st, fmt.Sprint(i)))
	}
	good := filepath.Join(files, "good")
	require.NoError(t, st.Backup(t.Context(), good))
	require.NoError(t, st.Close())
	content, err := os.ReadFile(good)
	require.NoError(t, err)
	write := func(change func([]byte) []byte) string {
		path := filepath.Join(files, "bad")
		require.NoError(t, os.WriteFile(path, change(slices.Clone(content)), 0o600))
		return path
	}
	for name, tt := range map[string]struct {
		change func([]byte) []byte
		sum    string
		want   string
	}{
		"cut off":        {func(b []byte) []byte { return b[:len(b)-8192] }, "", "damaged"},
		"a damaged page": {func(b []byte) []byte { copy(b[len(b)-4096:], make([]byte, 4096)); return b }, "", "damaged"},
		"another's":      {func(b []byte) []byte { copy(b[68:], "theirs"); return b }, "", "not a backup"},
		"a text":         {func([]byte) []byte { return []byte("hello") }, "", "not a backup"},
		"empty":          {func([]byte) []byte { return nil }, "", "not a backup"},
		"newer":          {func(b []byte) []byte { copy(b[60:], []byte{0, 0, 1, 0}); return b }, "", "written by a newer version"},
		"another sum":    {func(b []byte) []byte { return b }, "00", "SHA-256"},
	} {
		target := filepath.Join(t.TempDir(), "data")
		_, err := sqlite.Restore(t.Context(), write(tt.change), tt.sum, target)
		require.ErrorContains(t, err, tt.want, name)
		left, err := os.ReadDir(target)
		require.NoError(t, err)
		require.Len(t, left, 1, "%s: the lock and nothing else: %v", name, left)
	}
	_, err = sqlite.Restore(t.Context(), good, "", dir)
	require.ErrorContains(t, err, "engine.db")
	assert.Len(t, everyone(t, reopenedFor(t, dir), quiet), 50, "what is there stays")

	c := holder(t, filepath.Join(files, "held"))
	_, err = sqlite.Restore(t.Context(), good, "", filepath.Join(files, "held"))
	require.ErrorIs(t, err, store.ErrLocked)
	c.kill(t)
	_, err = sqlite.Restore(t.Context(), filepath.Join(files, "none"), "", t.TempDir())
	require.True(t, errors.Is(err, os.ErrNotExist))
}

// reopenedFor is reopened for the rest of the test.
func reopenedFor(t *testing.T, dir string) *sqlite.Store {
	t.Helper()
	st := reopened(t, dir)
	t.Cleanup(func() { assert.NoError(t, st.Close()) })
	return st
}
