package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// readers is how many queries can run beside the writer: reading heads is
	// quick, and more connections only hold more page cache.
	readers = 4

	// browsers is how many queries of people can run beside those: however long
	// they take, no queue waits for them.
	browsers = 2

	// busyTimeout bounds how long a statement waits for a program outside the
	// engine (the sqlite3 shell, a backup) that has locked the database.
	busyTimeout = 5 * time.Second

	// checkTime bounds the check at opening.
	checkTime = 10 * time.Second

	// logLimit is what the log is cut back to after a burst, in bytes.
	logLimit = 64 << 20

	synchronousFull = 2
)

// A database is the open file: the writer's connection with its statements, and
// the readers'. Its methods may be used by one goroutine, but for readers and
// browsers, which are safe for concurrent use.
type database struct {
	owner    *sql.DB   // the pool of the writer's one connection
	conn     *sql.Conn // the writer's
	readers  *sql.DB
	browsers *sql.DB

	statements
}

// openDatabase opens the file at path, asserts its settings, migrates and checks it.
func openDatabase(ctx context.Context, path string, synchronous int64, log *slog.Logger) (_ *database, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db := new(database)
	defer func() {
		if err != nil {
			db.close()
		}
	}()
	common := []string{fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "mmap_size(0)", "trusted_schema(0)"}
	if db.owner, err = sql.Open("sqlite", dsn(abs, append(common, "journal_mode(wal)",
		fmt.Sprintf("synchronous(%d)", synchronous), "wal_autocheckpoint(0)", fmt.Sprintf("journal_size_limit(%d)", logLimit)))); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db.owner.SetMaxOpenConns(1)
	if db.conn, err = db.owner.Conn(ctx); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", path, classify(err))
	}
	if err := db.assertSettings(ctx, synchronous); err != nil {
		return nil, err
	}
	if err := db.migrate(ctx); err != nil {
		return nil, err
	}
	if err := db.check(ctx, log); err != nil {
		return nil, err
	}
	for pool, size := range map[**sql.DB]int{&db.readers: readers, &db.browsers: browsers} {
		if *pool, err = sql.Open("sqlite", dsn(abs, append(common, "query_only(1)"))); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		(*pool).SetMaxOpenConns(size)
		(*pool).SetMaxIdleConns(size)
	}
	if err := db.prepare(ctx); err != nil {
		return nil, fmt.Errorf("store: prepare: %w", classify(err))
	}
	return db, nil
}

func dsn(path string, pragmas []string) string {
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas}.Encode()}
	return u.String()
}

// assertSettings reads back what durability rests on: a PRAGMA that SQLite does
// not honour is no error to it.
func (db *database) assertSettings(ctx context.Context, synchronous int64) error {
	var mode string
	if err := db.conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return fmt.Errorf("store: journal_mode: %w", classify(err))
	}
	var level int64
	if err := db.conn.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&level); err != nil {
		return fmt.Errorf("store: synchronous: %w", classify(err))
	}
	if mode != "wal" || level != synchronous {
		return fmt.Errorf("store: the database runs with journal_mode=%s synchronous=%d instead of wal and %d: "+
			"does the file system of the data directory support shared memory and locks?", mode, level, synchronous)
	}
	return nil
}

// check runs SQLite's quick check, for at most checkTime.
func (db *database) check(ctx context.Context, log *slog.Logger) error {
	bounded, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var verdict string
	err := db.conn.QueryRowContext(bounded, "PRAGMA quick_check(1)").Scan(&verdict)
	switch {
	case err != nil && bounded.Err() != nil && ctx.Err() == nil:
		log.InfoContext(ctx, "store: the database is too large to be checked whole at opening", "checked for", checkTime)
		return nil
	case err != nil:
		return fmt.Errorf("store: check: %w", classify(err))
	case verdict != "ok":
		return fmt.Errorf("store: the database is damaged (%s): restore it from a backup, "+
			"or salvage it with the command .recover of the sqlite3 shell", verdict)
	}
	return nil
}

// names are the rows that stand for channels and queues, and what was numbered last.
type names struct {
	queues      map[queueName]int64
	lastMessage int64
	lastSeq     int64
}

// A queueName names a queue, or, without a destination, a channel.
type queueName struct{ channel, destination string }

func (db *database) loadNames(ctx context.Context) (names, error) {
	n := names{queues: make(map[queueName]int64)}
	rows, err := db.conn.QueryContext(ctx, "SELECT id, channel, destination FROM queue")
	if err != nil {
		return n, fmt.Errorf("store: %w", classify(err))
	}
	defer rows.Close()
	for rows.Next() {
		var q queueName
		var id int64
		if err := rows.Scan(&id, &q.channel, &q.destination); err != nil {
			return n, fmt.Errorf("store: %w", classify(err))
		}
		n.queues[q] = id
	}
	if err := rows.Err(); err != nil {
		return n, fmt.Errorf("store: %w", classify(err))
	}
	err = db.conn.QueryRowContext(ctx, "SELECT max(n.message, coalesce((SELECT max(id) FROM message), 0)), n.seq FROM numbered n").Scan(&n.lastMessage, &n.lastSeq)
	if err != nil {
		return n, fmt.Errorf("store: %w", classify(err))
	}
	for _, from := range []int64{0, skippedSeq} {
		var done, queued int64
		err := db.conn.QueryRowContext(ctx, `
			SELECT coalesce((SELECT max(seq) FROM done WHERE seq >= ?1 AND seq < ?2), ?1), coalesce((SELECT max((
				SELECT max(d.seq) FROM queued d WHERE d.queue = q.id AND d.seq >= ?1 AND d.seq < ?2)) FROM queue q), ?1)`,
			from, from+skippedSeq).Scan(&done, &queued)
		if err != nil {
			return n, fmt.Errorf("store: %w", classify(err))
		}
		n.lastSeq = max(n.lastSeq, done-from, queued-from)
	}
	return n, nil
}

// recoverHeads marks, unless the last shutdown was orderly, the head of every
// queue and the first of those that were skipped (which was the head until something
// was taken in), and notes that from now on an orderly shutdown is due.
func (db *database) recoverHeads(ctx context.Context) error {
	_, err := db.conn.ExecContext(ctx, fmt.Sprintf(`
		BEGIN IMMEDIATE;
		UPDATE queued SET maybe_sent = 1 WHERE (SELECT orderly FROM shutdown) = 0 AND (queue, seq) IN (
			SELECT q.id, (SELECT min(d.seq) FROM queued d WHERE d.queue = q.id) FROM queue q
			UNION ALL
			SELECT q.id, (SELECT min(d.seq) FROM queued d WHERE d.queue = q.id AND d.seq >= %d) FROM queue q);
		UPDATE shutdown SET orderly = 0;
		COMMIT`, skippedSeq))
	if err != nil {
		_, undo := db.conn.ExecContext(ctx, "ROLLBACK")
		return fmt.Errorf("store: recovery: %w", errors.Join(classify(err), undo))
	}
	return nil
}

// noteOrderly marks the deliveries (by sequence number, with their queues) whose
// attempt has no known end, and notes an
// orderly shutdown.
func (db *database) noteOrderly(ctx context.Context, attempting map[int64]int64) error {
	if _, err := db.begin.ExecContext(ctx); err != nil {
		return classify(err)
	}
	err := func() error {
		for seq, queue := range attempting {
			if _, err := db.conn.ExecContext(ctx, "UPDATE queued SET maybe_sent = 1 WHERE queue = ? AND seq = ?", queue, seq); err != nil {
				return err
			}
		}
		if _, err := db.conn.ExecContext(ctx, "UPDATE shutdown SET orderly = 1"); err != nil {
			return err
		}
		_, err := db.commit.ExecContext(ctx)
		return err
	}()
	if err != nil {
		db.rollback.ExecContext(ctx) //nolint:errcheck // SQLite may have done so itself
	}
	return classify(err)
}

// checkpoint moves what the log holds into the database as far as readers allow,
// so that the log can be used from its start again.
func (db *database) checkpoint(ctx context.Context) error {
	var busy, logged, moved int64
	err := db.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &logged, &moved)
	return classify(err)
}

// close closes whatever is open. SQLite moves the log into the database with the
// last connection; when that fails, the log stays and the next opening does it.
func (db *database) close() error {
	var errs []error
	for _, statement := range db.all { // an open one keeps its connection's files open
		errs = append(errs, statement.Close())
	}
	for _, pool := range []*sql.DB{db.readers, db.browsers} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	if db.conn != nil {
		errs = append(errs, db.conn.Close())
	}
	if db.owner != nil {
		errs = append(errs, db.owner.Close())
	}
	return classify(errors.Join(errs...))
}

// doneIn returns the queue of a delivery that is done.
func (db *database) doneIn(ctx context.Context, seq int64) (queue int64, err error) {
	err = db.doneQueue.QueryRowContext(ctx, seq).Scan(&queue)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("%w: %d", store.ErrNotFound, seq)
	}
	return queue, err
}
