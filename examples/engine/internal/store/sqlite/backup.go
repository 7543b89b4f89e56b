package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/carewire/carewire/examples/engine/internal/disk"
	"github.com/carewire/carewire/examples/engine/internal/durable"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// ErrBackupRuns is returned by Backup while another one is being made.
var ErrBackupRuns = errors.New("store: another backup is being made")

// copies are the backups that are being made: one at most.
type copies struct {
	mu   sync.Mutex
	stop context.CancelFunc // guarded by mu; nil: none is being made
	done chan struct{}      // guarded by mu; closed by the one that is being made
}

// Backup writes the store as it is at one moment into a new file, readable by its
// owner alone, and returns when file and name are on stable storage. It is one
// database without a log; free pages are left out. An error leaves no file.
//
// It reads on a connection of its own, so that nobody waits for it. The log cannot
// start anew until it has ended, and grows by what is taken in meanwhile. It is
// refused where the file would not leave room on its disk for what it is to hold and
// the reserve besides: a backup must not be what stops the intake. Backups end when
// the store is closed or fails.
func (s *Store) Backup(ctx context.Context, path string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end, err := s.beginBackup(cancel)
	if err != nil {
		return err
	}
	defer end()
	// SQLite would make it with wider permissions; it takes an empty file.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if err := s.copyTo(ctx, path); err != nil {
		if sick := s.Healthy(); sick != nil && ctx.Err() != nil {
			err = sick // that is why it was cut off
		}
		return fmt.Errorf("store: backup: %w", err)
	}
	return errors.Join(f.Sync(), durable.SyncDir(filepath.Dir(path)))
}

// beginBackup registers the one backup that there may be.
func (s *Store) beginBackup(cancel context.CancelFunc) (end func(), err error) {
	c := &s.copies
	c.mu.Lock()
	defer c.mu.Unlock()
	// stopBackups comes after setSick.
	if err := s.Healthy(); err != nil && !errors.Is(err, store.ErrFull) {
		return nil, err
	}
	if c.stop != nil {
		return nil, ErrBackupRuns
	}
	done := make(chan struct{})
	c.stop, c.done = cancel, done
	return func() {
		c.mu.Lock()
		c.stop = nil
		c.mu.Unlock()
		close(done)
	}, nil
}

// stopBackups cuts off a backup and waits for it: while its connection is open,
// neither closing the store nor opening it anew would do what they are for. The store
// must have been found sick before.
func (s *Store) stopBackups() {
	c := &s.copies
	c.mu.Lock()
	stop, done := c.stop, c.done
	c.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
}

// copyTo writes a copy of the database into the empty file path.
func (s *Store) copyTo(ctx context.Context, path string) error {
	abs, err := filepath.Abs(filepath.Join(s.dir, databaseName))
	if err != nil {
		return err
	}
	source, err := sql.Open("sqlite", dsn(abs, []string{fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "trusted_schema(0)", "mmap_size(0)"}))
	if err != nil {
		return err
	}
	defer source.Close()
	source.SetMaxOpenConns(1)
	var pages, unused, size int64
	for pragma, into := range map[string]*int64{"page_count": &pages, "freelist_count": &unused, "page_size": &size} {
		if err := source.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(into); err != nil {
			return err
		}
	}
	space, err := disk.Of(filepath.Dir(path))
	if err != nil {
		return err
	}
	if need := (pages-unused)*size + s.reserve.size; space.Free < need {
		return fmt.Errorf("%d bytes are free in %s, and %d are needed", space.Free, filepath.Dir(path), need)
	}
	_, err = source.ExecContext(ctx, "VACUUM INTO ?", path)
	return err
}
