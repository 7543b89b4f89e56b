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
// the readers'. Its methods may be used by one goroutine, but for readers, which
// is safe for concurrent use.
type database struct {
	owner   *sql.DB   // the pool of the writer's one connection
	conn    *sql.Conn // the writer's
	readers *sql.DB

	begin, commit, rollback *sql.Stmt

	insertChannel, insertQueue, insertMessage, insertDelivery *sql.Stmt
	countChannel, countQueue                                  *sql.Stmt
	complete, failed, requeue, queueOf                        *sql.Stmt

	pending, deadLetters, channelStats, queueStats *sql.Stmt // on readers
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
	if db.readers, err = sql.Open("sqlite", dsn(abs, append(common, "query_only(1)"))); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db.readers.SetMaxOpenConns(readers)
	db.readers.SetMaxIdleConns(readers)
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
		log.Info("store: the database is too large to be checked whole at opening", "checked for", checkTime)
		return nil
	case err != nil:
		return fmt.Errorf("store: check: %w", classify(err))
	case verdict != "ok":
		return fmt.Errorf("store: the database is damaged (%s): restore it from a backup, "+
			"or salvage it with the command .recover of the sqlite3 shell", verdict)
	}
	return nil
}

// prepare readies every statement that is used more than once.
func (db *database) prepare(ctx context.Context) error {
	for _, p := range []struct {
		stmt **sql.Stmt
		on   interface {
			PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
		}
		query string
	}{
		{&db.begin, db.conn, "BEGIN IMMEDIATE"},
		{&db.commit, db.conn, "COMMIT"},
		{&db.rollback, db.conn, "ROLLBACK"},
		{&db.insertChannel, db.conn, "INSERT INTO channel (id, name) VALUES (?, ?)"},
		{&db.insertQueue, db.conn, "INSERT INTO queue (id, channel, destination) VALUES (?, ?, ?)"},
		{&db.insertMessage, db.conn, "INSERT INTO message (id, channel, received, control_id, source, raw) VALUES (?, ?, ?, ?, ?, ?)"},
		{&db.insertDelivery, db.conn, "INSERT INTO delivery (seq, queue, message) VALUES (?, ?, ?)"},
		{&db.countChannel, db.conn, "UPDATE channel SET received = received + ?, filtered = filtered + ? WHERE id = ?"},
		{&db.countQueue, db.conn, "UPDATE queue SET received = received + ?, sent = sent + ?, dead = dead + ? WHERE id = ?"},
		{&db.complete, db.conn, "UPDATE delivery SET state = ?, attempts = attempts + ?, maybe_sent = maybe_sent OR ?, last_error = ?, done_at = ? WHERE seq = ? AND queue = ? AND state = 0"},
		{&db.failed, db.conn, "UPDATE delivery SET attempts = attempts + 1, next_at = ?, maybe_sent = maybe_sent OR ?, last_error = ? WHERE seq = ? AND queue = ? AND state = 0"},
		{&db.requeue, db.conn, "UPDATE delivery SET seq = ?, state = 0, attempts = 0, next_at = 0, done_at = 0 WHERE seq = ? AND state = 2"},
		{&db.queueOf, db.conn, "SELECT queue FROM delivery WHERE seq = ?"},
		{&db.pending, db.readers, deliveries(stateQueued)},
		{&db.deadLetters, db.readers, deliveries(stateDead)},
		{&db.channelStats, db.readers, "SELECT id, received, filtered FROM channel WHERE name = ?"},
		{&db.queueStats, db.readers, `
			SELECT destination, received, sent, dead, coalesce((
				SELECT m.received FROM message m WHERE m.id = (
					SELECT d.message FROM delivery d WHERE d.queue = q.id AND d.state = 0 ORDER BY d.seq LIMIT 1)), 0)
			FROM queue q WHERE channel = ? ORDER BY destination`},
	} {
		var err error
		if *p.stmt, err = p.on.PrepareContext(ctx, p.query); err != nil {
			return err
		}
	}
	return nil
}

// deliveries is the query for one queue's deliveries in a state; the state is
// spelled out so that its partial index serves.
func deliveries(state int) string {
	return fmt.Sprintf(`
		SELECT d.seq, d.attempts, d.next_at, d.maybe_sent, d.last_error, m.id, m.received, m.control_id, m.source, m.raw
		FROM delivery d JOIN message m ON m.id = d.message
		WHERE d.queue = (SELECT q.id FROM queue q JOIN channel c ON c.id = q.channel WHERE c.name = ? AND q.destination = ?)
		AND d.state = %d AND d.seq > ? ORDER BY d.seq LIMIT ?`, state)
}

// names are the rows that stand for channels and queues, and what was numbered last.
type names struct {
	channels    map[string]int64
	queues      map[queueName]int64
	lastMessage int64
	lastSeq     int64
}

type queueName struct{ channel, destination string }

func (db *database) loadNames(ctx context.Context) (names, error) {
	n := names{channels: make(map[string]int64), queues: make(map[queueName]int64)}
	rows, err := db.conn.QueryContext(ctx, `
		SELECT c.name, c.id, coalesce(q.destination, ''), coalesce(q.id, 0) FROM channel c LEFT JOIN queue q ON q.channel = c.id`)
	if err != nil {
		return n, fmt.Errorf("store: %w", classify(err))
	}
	defer rows.Close()
	for rows.Next() {
		var q queueName
		var channelID, queueID int64
		if err := rows.Scan(&q.channel, &channelID, &q.destination, &queueID); err != nil {
			return n, fmt.Errorf("store: %w", classify(err))
		}
		n.channels[q.channel] = channelID
		if queueID != 0 {
			n.queues[q] = queueID
		}
	}
	if err := rows.Err(); err != nil {
		return n, fmt.Errorf("store: %w", classify(err))
	}
	err = db.conn.QueryRowContext(ctx, "SELECT coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT max(seq) FROM delivery), 0)").
		Scan(&n.lastMessage, &n.lastSeq)
	if err != nil {
		return n, fmt.Errorf("store: %w", classify(err))
	}
	return n, nil
}

// recoverHeads marks, unless the last shutdown was orderly, the head of every
// queue, and notes that from now on an orderly shutdown is due.
func (db *database) recoverHeads(ctx context.Context) error {
	_, err := db.conn.ExecContext(ctx, `
		BEGIN IMMEDIATE;
		UPDATE delivery SET maybe_sent = 1 WHERE (SELECT orderly FROM shutdown) = 0 AND seq IN (
			SELECT (SELECT min(d.seq) FROM delivery d WHERE d.queue = q.id AND d.state = 0) FROM queue q);
		UPDATE shutdown SET orderly = 0;
		COMMIT`)
	if err != nil {
		_, undo := db.conn.ExecContext(ctx, "ROLLBACK")
		return fmt.Errorf("store: recovery: %w", errors.Join(classify(err), undo))
	}
	return nil
}

// noteOrderly marks the deliveries whose attempt has no known end, and notes an
// orderly shutdown.
func (db *database) noteOrderly(ctx context.Context, attempting map[int64]struct{}) error {
	if _, err := db.begin.ExecContext(ctx); err != nil {
		return classify(err)
	}
	err := func() error {
		for seq := range attempting {
			if _, err := db.conn.ExecContext(ctx, "UPDATE delivery SET maybe_sent = 1 WHERE seq = ? AND state = 0", seq); err != nil {
				return err
			}
		}
		if _, err := db.conn.ExecContext(ctx, "UPDATE shutdown SET orderly = 1"); err != nil {
			return err
		}
		_, err := db.commit.ExecContext(ctx)
		return err
	}()
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
	if db.readers != nil {
		errs = append(errs, db.readers.Close())
	}
	if db.conn != nil {
		errs = append(errs, db.conn.Close())
	}
	if db.owner != nil {
		errs = append(errs, db.owner.Close())
	}
	return classify(errors.Join(errs...))
}

// delivery returns the queue of a delivery in any state.
func (db *database) delivery(ctx context.Context, seq int64) (queue int64, err error) {
	err = db.queueOf.QueryRowContext(ctx, seq).Scan(&queue)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("%w: %d", store.ErrNotFound, seq)
	}
	return queue, err
}
