package backup_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/backup"
	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// source is a store of a few bytes.
type source struct {
	fail  error
	made  []time.Time
	begun chan struct{} // if not nil: told of each that begins, which then waits for go on
	goOn  chan struct{}
}

func (s *source) Backup(ctx context.Context, path string) error {
	if s.begun != nil {
		s.begun <- struct{}{}
		select {
		case <-s.goOn:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.fail != nil {
		return s.fail
	}
	s.made = append(s.made, time.Now())
	return os.WriteFile(path, []byte("a store"), 0o600)
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestTheYoungestCopiesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "to", "be made")
		var log bytes.Buffer
		k := backup.New(&source{}, dir, 0, 2, slog.New(slog.NewTextHandler(&log, nil)))
		first, err := k.Make(t.Context())
		require.NoError(t, err)
		assert.Equal(t, backup.Copy{Name: "engine-20000101T000000.000Z.db", Bytes: 7, SHA256: first.SHA256, Made: time.Now().UTC()}, first)
		for _, other := range []string{"engine-mine.db", "notes", "engine-20000101T000000.000Z.db.bak"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, other), nil, 0o600))
		}
		// Of a process that was killed.
		require.NoError(t, os.WriteFile(filepath.Join(dir, ".engine-19991231T000000.000Z.db.partial"), nil, 0o600))
		for range 2 {
			time.Sleep(time.Hour)
			_, err = k.Make(t.Context())
			require.NoError(t, err)
		}
		assert.Equal(t, []string{
			"engine-20000101T000000.000Z.db.bak",
			"engine-20000101T010000.000Z.db", "engine-20000101T010000.000Z.db.sha256",
			"engine-20000101T020000.000Z.db", "engine-20000101T020000.000Z.db.sha256",
			"engine-mine.db", "notes",
		}, names(t, dir))
		sum, err := backup.Sum(filepath.Join(dir, "engine-20000101T020000.000Z.db"))
		require.NoError(t, err)
		assert.Equal(t, first.SHA256, sum)
		assert.Len(t, sum, 64)
		assert.Contains(t, log.String(), "sha256="+sum)
	})
}

func TestCopiesAreMadeByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, dir, s := time.Now(), t.TempDir(), &source{}
		run := func(long time.Duration) string {
			var log bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				backup.New(s, dir, 6*time.Hour, 100, slog.New(slog.NewTextHandler(&log, nil))).Run(ctx)
			}()
			time.Sleep(long)
			synctest.Wait()
			cancel()
			<-done
			return log.String()
		}
		run(13 * time.Hour)
		run(4 * time.Hour) // a restart makes none that is not due
		run(2 * time.Hour) // one that is
		var at []time.Duration
		for _, made := range s.made {
			at = append(at, made.Sub(begun))
		}
		assert.Equal(t, []time.Duration{time.Minute, 6*time.Hour + time.Minute, 12*time.Hour + time.Minute, 18*time.Hour + time.Minute}, at)
		s.fail = errors.New("disk full")
		log := run(12 * time.Hour)
		assert.Contains(t, log, "no backup could be made")
		s.fail = nil
		run(2 * time.Minute)
		assert.Len(t, s.made, 5)
	})
}

func TestOneCopyAtATimeAndNothingOfOneThatFails(t *testing.T) {
	dir, s := t.TempDir(), &source{begun: make(chan struct{}), goOn: make(chan struct{})}
	k := backup.New(s, dir, 0, 2, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := k.Make(ctx)
		result <- err
	}()
	<-s.begun
	_, err := k.Make(t.Context())
	require.ErrorIs(t, err, backup.ErrRuns)
	cancel()
	require.ErrorIs(t, <-result, context.Canceled)
	assert.Empty(t, names(t, dir))
}

func TestSumBesideACopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	sum, err := backup.Sum(path)
	require.NoError(t, err)
	assert.Empty(t, sum)
	require.NoError(t, os.WriteFile(path+".sha256", []byte("nonsense"), 0o600))
	_, err = backup.Sum(path)
	require.ErrorContains(t, err, "has no SHA-256")
}
