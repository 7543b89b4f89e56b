package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/examples/engine/internal/durable"
)

// restoredGap is left free in the numbers of messages and deliveries: those that came
// after the backup had some of them, which are in the audit log, in file names, and
// perhaps at receivers. It is more than any engine takes in between two backups.
const restoredGap = 1_000_000_000

// Restored is what Restore has put in place.
type Restored struct {
	Queued int64  // deliveries that wait, all of them marked as maybe sent
	SHA256 string // of the backup, in hexadecimal
}

// Restore makes the store in dir out of a file that Backup has written. There must be
// no store in dir. The copy is verified whole (whose database it is, its version,
// SQLite's integrity check, and, if sum is not empty, its SHA-256 in hexadecimal)
// before it gets its name: an error leaves no store.
//
// Every delivery that waits is marked as one that may have been sent, because it may
// have been after the backup was made. The numbers of new messages go on far behind
// those of the backup: none is given a second time. The errors are those of Open.
func Restore(ctx context.Context, file, sum, dir string) (_ Restored, err error) {
	if err := durable.MakeDir(dir); err != nil {
		return Restored{}, fmt.Errorf("store: data directory: %w", err)
	}
	lock, err := acquireLock(filepath.Join(dir, lockName))
	if err != nil {
		return Restored{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	for _, name := range []string{databaseName, databaseName + "-wal", databaseName + "-shm", reserveName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return Restored{}, errors.Join(fmt.Errorf("store: there is %s in %s already: restore into a directory without a store", name, dir), err)
		}
	}
	temp := filepath.Join(dir, "."+databaseName+".restoring")
	remove := func() error {
		var errs []error
		for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
			if err := os.Remove(temp + suffix); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	if err := remove(); err != nil { // of a restore that was cut off
		return Restored{}, fmt.Errorf("store: restore: %w", err)
	}
	defer func() { err = errors.Join(err, remove()) }() // after the renaming there is nothing
	var done Restored
	if done.SHA256, err = copyFile(file, temp); err != nil {
		return Restored{}, fmt.Errorf("store: restore: %w", err)
	}
	if sum != "" && sum != done.SHA256 {
		return Restored{}, fmt.Errorf("store: the backup is not what was written: its SHA-256 is %s instead of %s", done.SHA256, sum)
	}
	if done.Queued, err = makeRestored(ctx, temp); err != nil {
		return Restored{}, err
	}
	if err := os.Rename(temp, filepath.Join(dir, databaseName)); err != nil {
		return Restored{}, fmt.Errorf("store: restore: %w", err)
	}
	return done, durable.SyncDir(dir)
}

// copyFile copies from to a new file that only its owner can read, and syncs it.
func copyFile(from, to string) (sum string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, hash), in)
	return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, out.Sync(), out.Close())
}

// makeRestored verifies the copy of a backup and makes it a store that goes on.
func makeRestored(ctx context.Context, path string) (queued int64, err error) {
	if err := verifyIntegrity(ctx, path); err != nil {
		return 0, err
	}
	// It also brings an older version to this program's.
	db, err := openDatabase(ctx, path, synchronousFull, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, fmt.Errorf("store: the backup: %w", err)
	}
	defer func() { err = errors.Join(err, db.close()) }() // which leaves one file without a log
	names, err := db.loadNames(ctx)
	if err != nil {
		return 0, err
	}
	_, err = db.conn.ExecContext(ctx, fmt.Sprintf(`
		BEGIN IMMEDIATE;
		UPDATE queued SET maybe_sent = 1;
		UPDATE shutdown SET orderly = 0;
		UPDATE numbered SET message = %d, seq = %d;
		COMMIT`, names.lastMessage+restoredGap, names.lastSeq+restoredGap))
	if err == nil {
		err = db.conn.QueryRowContext(ctx, "SELECT count(*) FROM queued").Scan(&queued)
	}
	if err == nil {
		var mode string // the last of the log is in the database then, and synced
		err = db.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&mode, new(int64), new(int64))
	}
	if err != nil {
		return 0, fmt.Errorf("store: restore: %w", classify(err))
	}
	return queued, nil
}

// verifyIntegrity looks at the whole of a database, and changes nothing. What is not
// ours is refused before SQLite makes anything of it.
func verifyIntegrity(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	var header [100]byte // section 1.3 of SQLite's file format
	_, err = io.ReadFull(f, header[:])
	if err = errors.Join(err, f.Close()); err != nil || string(header[:16]) != "SQLite format 3\x00" || string(header[68:72]) != "crwr" {
		return errors.Join(errors.New("store: the file is not a backup of the engine's store"), err)
	}
	db, err := sql.Open("sqlite", dsn(path, []string{"query_only(1)", "trusted_schema(0)", "mmap_size(0)"}))
	if err != nil {
		return err
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict); err != nil {
		return fmt.Errorf("store: the backup is damaged: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("store: the backup is damaged (%s): take an older one", verdict)
	}
	return nil
}
