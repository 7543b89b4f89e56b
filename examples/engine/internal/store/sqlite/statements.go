package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"
)

const (
	// A statement's price is mostly its own, not its rows': there are statements
	// for 1, 2, 4, ... new rows, so many of them, and a group takes the largest that
	// it fills.
	rowSizes = 6

	messageColumns, queuedColumns = 8, 3

	// The queries that readers run, however long queues and history are: each
	// goes straight to its rows.
	pendingQuery = `
		SELECT d.seq, d.attempts, d.next_at, d.maybe_sent, d.last_error, m.id, m.received, m.control_id, m.source, m.raw
		FROM queued d JOIN message m ON m.id = d.message
		WHERE d.queue = (SELECT id FROM queue WHERE channel = ? AND destination = ?) AND d.seq > ? ORDER BY d.seq LIMIT ?`
	deadLettersQuery = `
		SELECT d.seq, d.attempts, 0, d.maybe_sent, d.last_error, m.id, m.received, m.control_id, m.source, m.raw
		FROM done d JOIN message m ON m.id = d.message
		WHERE d.queue = (SELECT id FROM queue WHERE channel = ? AND destination = ?) AND d.state = 2 AND d.seq > ? ORDER BY d.seq LIMIT ?`
	statsQuery    = allStatsQuery + " WHERE channel = ?"
	allStatsQuery = `
		SELECT channel, destination, received, filtered, sent, dead, coalesce(CASE
			WHEN destination = '' THEN (SELECT m.received FROM message m WHERE m.channel = q.id ORDER BY m.id DESC LIMIT 1)
			WHEN received > sent + dead THEN (SELECT m.received FROM message m WHERE m.id = (
				SELECT d.message FROM queued d WHERE d.queue = q.id ORDER BY d.seq LIMIT 1)) END, 0)
		FROM queue q`
	recallQuery = `
		SELECT value FROM once
		WHERE channel = (SELECT id FROM queue WHERE channel = ? AND destination = '') AND key = ? AND until > ?`

	// Queries of the writer, no slower.
	deadQuery      = "SELECT seq FROM done WHERE queue = ? AND state = 2 ORDER BY seq LIMIT ?"
	onceKnownQuery = "SELECT message FROM once WHERE channel = ? AND key = ? AND until > ?"
)

// statements are all that is run more than once, ready to run.
type statements struct {
	// On the writer's connection.
	begin, commit, rollback                 *sql.Stmt
	insertQueue                             *sql.Stmt
	insertMessages, insertQueued            inserts
	count, failed, insertDone, deleteQueued *sql.Stmt
	insertRequeued, deleteDone, doneQueue   *sql.Stmt
	insertMoved, dead                       *sql.Stmt
	onceKnown, remember, forget             *sql.Stmt
	skip, deleteMoved                       *sql.Stmt
	prune                                   pruneStatements

	// On the readers'.
	pending, deadLetters, stats, allStats, recall *sql.Stmt

	// On the browsers'.
	outcomes *sql.Stmt

	all []*sql.Stmt
}

// inserts are the statements that insert rows into a table: the one at i inserts
// 1<<i rows.
type inserts [rowSizes]*sql.Stmt

// rows returns the parameters of so many rows.
func rows(n, columns int) string {
	row := "(?" + strings.Repeat(", ?", columns-1) + ")"
	return row + strings.Repeat(", "+row, n-1)
}

// prepare readies the statements.
func (db *database) prepare(ctx context.Context) error {
	const (
		insertMessage = "INSERT INTO message (id, channel, received, control_id, source, raw, first_seq, deliveries) VALUES "
		insertQueued  = "INSERT INTO queued (queue, seq, message) VALUES "
	)
	writing := []prepared{
		{&db.begin, "BEGIN IMMEDIATE"},
		{&db.commit, "COMMIT"},
		{&db.rollback, "ROLLBACK"},
		{&db.insertQueue, "INSERT INTO queue (id, channel, destination) VALUES (?, ?, ?)"},
		{&db.count, `
			UPDATE queue SET received = received + ?, filtered = filtered + ?, sent = sent + ?, dead = dead + ? WHERE id = ?`},
		{&db.failed, `
			UPDATE queued SET attempts = attempts + 1, next_at = ?, maybe_sent = maybe_sent OR ?, last_error = ?
			WHERE queue = ? AND seq = ?`},
		{&db.skip, `
			UPDATE queued SET seq = ?, attempts = attempts + 1, next_at = ?, maybe_sent = maybe_sent OR ?, last_error = ?
			WHERE queue = ? AND seq = ?`},
		{&db.deleteMoved, "DELETE FROM moved WHERE message = ? AND seq = ?"},
		{&db.insertDone, `
			INSERT INTO done (seq, queue, message, state, attempts, maybe_sent, last_error, done_at)
			SELECT seq, queue, message, ?, attempts + ?, maybe_sent OR ?, ?, ? FROM queued WHERE queue = ? AND seq = ?`},
		{&db.deleteQueued, "DELETE FROM queued WHERE queue = ? AND seq = ?"},
		{&db.insertRequeued, `
			INSERT INTO queued (queue, seq, message, maybe_sent, last_error)
			SELECT queue, ?, message, maybe_sent, last_error FROM done WHERE seq = ? AND state = 2`},
		{&db.deleteDone, "DELETE FROM done WHERE seq = ?"},
		{&db.doneQueue, "SELECT queue FROM done WHERE seq = ?"},
		{&db.insertMoved, "INSERT INTO moved (message, seq) SELECT message, seq FROM queued WHERE queue = ? AND seq = ?"},
		{&db.dead, deadQuery},
		{&db.onceKnown, onceKnownQuery},
		{&db.remember, "INSERT OR REPLACE INTO once (channel, key, message, until, value) VALUES (?, ?, ?, ?, ?)"},
		{&db.forget, "DELETE FROM once WHERE id IN (SELECT id FROM once WHERE until <= ? ORDER BY until LIMIT 2)"},
	}
	writing = append(writing, db.prune.list()...)
	for i := range rowSizes {
		writing = append(writing,
			prepared{&db.insertMessages[i], insertMessage + rows(1<<i, messageColumns)},
			prepared{&db.insertQueued[i], insertQueued + rows(1<<i, queuedColumns)})
	}
	reading := []prepared{
		{&db.pending, pendingQuery},
		{&db.deadLetters, deadLettersQuery},
		{&db.stats, statsQuery},
		{&db.recall, recallQuery},
		{&db.allStats, allStatsQuery},
	}
	browsing := []prepared{{&db.outcomes, outcomesQuery}}
	return errors.Join(db.prepareAll(ctx, db.conn, writing), db.prepareAll(ctx, db.readers, reading),
		db.prepareAll(ctx, db.browsers, browsing))
}

// A prepared is where the statement of a query belongs.
type prepared struct {
	statement **sql.Stmt
	query     string
}

func (s *statements) prepareAll(ctx context.Context, on interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}, list []prepared,
) error {
	for _, p := range list {
		statement, err := on.PrepareContext(ctx, p.query)
		if err != nil {
			return err
		}
		*p.statement = statement
		s.all = append(s.all, statement) // close must close it
	}
	return nil
}
