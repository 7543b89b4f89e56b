// Package sqlite is the engine's embedded store: one SQLite database in a data
// directory, in WAL mode with synchronous=FULL.
//
// # Writing
//
// One goroutine writes. While a commit syncs, the requests of other callers
// gather, and the next commit takes them all: the number of messages that are
// made durable in a second grows with the number of callers, not with the speed
// of the disk alone. Each caller is told after the COMMIT that holds its change
// has returned, and a request that fails takes none of its group with it.
//
// # The data directory
//
//	engine.db       messages, deliveries, counters
//	engine.db-wal   what was committed last; belongs to engine.db, copy both or neither
//	engine.db-shm   rebuilt at each start
//	lock            held (flock) by the process that has the store open, with its pid
//	reserve         space given up when the disk is full, so that queues can drain
//
// Payloads lie in their rows. Everything is readable by the owner alone, as the
// database holds patients' data.
//
// # When the disk is full
//
// Intake is refused with [store.ErrFull], the reserve is given up, and
// completions go on in the space that it held. When there is room for the reserve
// again it is taken back and intake resumes, without a restart.
//
// # When the disk fails
//
// After an error of reading, writing or syncing, nothing can be said about what
// the operating system still holds in its cache, and a sync that is repeated
// succeeds without having written anything. The store therefore refuses
// everything with [store.ErrFailed], closes its files, and tries (after 1 s, then
// ever less often, at last every 30 s) to open them again, which has SQLite write
// what its log holds anew, and to verify them: the check of Open, and that no
// message is missing whose intake was confirmed.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/durable"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// defaultReserve holds what a checkpoint moves (logLength), with room for
	// a large message.
	defaultReserve = 32 << 20

	databaseName = "engine.db"
	lockName     = "lock"
	reserveName  = "reserve"
)

// Options are the settings of a store. The zero value is for production.
type Options struct {
	// Reserve is the space in bytes that is set aside for completions on a full
	// disk. If zero, 32 MiB; if negative, none.
	Reserve int64

	// Logger is told when the store fails, fills up and recovers. If nil,
	// nothing is logged.
	Logger *slog.Logger
}

// A Store is a [store.Store] in a data directory. Open makes one.
type Store struct {
	// static after construction
	dir         string
	synchronous int64
	reserve     *reserve
	log         *slog.Logger
	lock        *os.File
	closing     chan struct{} // closed by Close
	stopped     chan struct{} // closed by run when it returns
	closeOnce   sync.Once

	copies copies // that are being made
	inbox  inbox  // of the writer
	writer writer // owned by run

	// reading is held for reading while a query runs, and for writing to
	// exchange db.
	reading sync.RWMutex
	db      *database // guarded by reading; nil while failed and after Close

	mu         sync.Mutex
	sick       error               // guarded by mu; what Healthy returns
	attempting map[int64]queueName // guarded by mu; by sequence number: announced by Attempting, without an end yet
	closeErr   error               // set by run, read after stopped is closed
}

var _ store.Store = (*Store)(nil)

// Open opens the store in dir, or makes both, and recovers what a crash left:
// when it returns, everything that was ever confirmed is there, and heads of
// queues that may have been sent are marked. opts may be nil.
//
// The error is [store.ErrLocked] (with the holder's process id) when another
// process has the directory, [store.ErrNewer] when a newer version has written
// it. A database in which the check of up to 10 s (all of it, unless it is some
// GiB large) finds damage is refused. A full disk is [store.ErrFull] only when
// the reserve, too, was spent; otherwise see Healthy.
func Open(ctx context.Context, dir string, opts *Options) (*Store, error) {
	return open(ctx, dir, opts, synchronousFull)
}

func open(ctx context.Context, dir string, opts *Options, synchronous int64) (_ *Store, err error) {
	if opts == nil {
		opts = new(Options)
	}
	s := &Store{
		dir:         dir,
		synchronous: synchronous,
		reserve:     newReserve(filepath.Join(dir, reserveName), opts.Reserve),
		log:         opts.Logger,
		inbox:       inbox{arrived: make(chan struct{}, 1)},
		closing:     make(chan struct{}),
		stopped:     make(chan struct{}),
		attempting:  make(map[int64]queueName),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := durable.MakeDir(dir); err != nil {
		return nil, fmt.Errorf("store: data directory: %w", err)
	}
	s.lock, err = acquireLock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	path := filepath.Join(dir, databaseName)
	if err := createFile(path); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := s.begin(ctx, path); err != nil {
		return nil, err
	}
	return s, nil
}

// begin opens the database, recovers what a crash left, and starts the writer.
func (s *Store) begin(ctx context.Context, path string) error {
	db, err := s.recover(ctx, path)
	if errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrFailed) {
		// Opening takes some space, and a disk that is full can look like one
		// that fails: that, too, is what the reserve is for.
		if err = s.reserve.release(); err == nil {
			db, err = s.recover(ctx, path)
		}
	}
	if err != nil {
		return err
	}
	names, err := db.loadNames(ctx)
	if err != nil {
		return errors.Join(err, db.close())
	}
	s.db = db
	s.writer = writer{store: s, db: db, names: names}
	if err := s.reserve.take(); err != nil {
		s.writer.becomeFull(err)
	}
	go s.writer.run() // it lives until Close, not until ctx ends
	return nil
}

func (s *Store) recover(ctx context.Context, path string) (*database, error) {
	db, err := openDatabase(ctx, path, s.synchronous, s.log)
	if err != nil {
		return nil, err
	}
	if err := db.recoverHeads(ctx); err != nil {
		return nil, errors.Join(err, db.close())
	}
	return db, nil
}

// Healthy implements [store.Store].
func (s *Store) Healthy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sick
}

// setSick says what Healthy returns; ErrClosed is the last word.
func (s *Store) setSick(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(s.sick, store.ErrClosed) {
		s.sick = err
	}
}

// Attempting implements [store.Store].
func (s *Store) Attempting(d *store.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempting[d.Seq] = queueName{d.Message.Channel, d.Destination}
}

// attemptEnded is called when the end of an attempt is durable.
func (s *Store) attemptEnded(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.attempting, seq)
}

// Close implements [store.Store]. Its error means that the orderly end could not
// be noted, and that the next Open will treat it as a crash; nothing is lost.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.setSick(store.ErrClosed)
		s.inbox.close()
		s.stopBackups()
		close(s.closing)
	})
	<-s.stopped
	return s.closeErr
}

// swap exchanges the database that readers use, after they are done with the old one.
func (s *Store) swap(db *database) {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.db = db
}

// createFile makes an empty file that only the owner can read, and its name
// durable: SQLite would make it with wider permissions, and the log and the
// index inherit those of the database.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), durable.SyncDir(filepath.Dir(path)))
}

// unix is how times are kept: nanoseconds, 0 for the zero time.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnix(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
