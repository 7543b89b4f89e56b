package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// outcomesQuery finds the deliveries of one message. One statement is one snapshot:
// a delivery that is being completed is in it once. The first two parts find those
// with the numbers that the message gave them, the last two those that were moved.
// (CROSS JOIN keeps the order of the tables: SQLite would go through the whole queue.)
const outcomesQuery = `
	SELECT d.seq, q.destination, d.state, d.attempts, d.maybe_sent, d.last_error, 0, d.done_at
	FROM done d JOIN queue q ON q.id = d.queue WHERE d.seq >= ?1 AND d.seq < ?1 + ?2 AND d.message = ?3
	UNION ALL
	SELECT d.seq, q.destination, 0, d.attempts, d.maybe_sent, d.last_error, d.next_at, 0
	FROM queue q JOIN queued d ON d.queue = q.id WHERE q.channel = ?4 AND d.seq >= ?1 AND d.seq < ?1 + ?2 AND d.message = ?3
	UNION ALL
	SELECT d.seq, q.destination, d.state, d.attempts, d.maybe_sent, d.last_error, 0, d.done_at
	FROM moved v JOIN done d ON d.seq = v.seq JOIN queue q ON q.id = d.queue WHERE v.message = ?3
	UNION ALL
	SELECT d.seq, q.destination, 0, d.attempts, d.maybe_sent, d.last_error, d.next_at, 0
	FROM moved v CROSS JOIN queue q CROSS JOIN queued d WHERE v.message = ?3 AND q.channel = ?4 AND d.queue = q.id AND d.seq = v.seq
	ORDER BY 1`

const (
	summaryColumns = "m.id, m.received, m.control_id, m.source, length(m.raw), coalesce(m.first_seq, 0), coalesce(m.deliveries, 0)"

	// A row of the table queue, by names.
	queueByName = "(SELECT id FROM queue WHERE channel = ? AND destination = ?)"
)

// where returns the condition for a filter, on a message m, and its parameters.
func where(channel string, f store.Filter) (string, []any) {
	conditions, args := []string{"m.channel = " + queueByName}, []any{channel, ""}
	add := func(condition string, values ...any) {
		conditions, args = append(conditions, condition), append(args, values...)
	}
	if f.MinID != 0 {
		add("m.id >= ?", f.MinID)
	}
	if f.MaxID != 0 {
		add("m.id <= ?", f.MaxID)
	}
	if !f.From.IsZero() {
		add("m.received >= ?", unix(f.From))
	}
	if !f.To.IsZero() {
		add("m.received < ?", unix(f.To))
	}
	if f.ControlID != "" {
		add("m.control_id = ?", []byte(f.ControlID))
	}
	// Which queues count; there are few.
	queues, names := "IN (SELECT id FROM queue WHERE channel = ?)", []any{channel}
	if f.Destination != "" {
		queues, names = "= "+queueByName, []any{channel, f.Destination}
	}
	switch f.State {
	case store.Queued: // they are few, or the system is ill
		add("m.id IN (SELECT d.message FROM queued d WHERE d.queue "+queues+")", names...)
	case store.Dead:
		add("m.id IN (SELECT d.message FROM done d WHERE d.state = 2 AND d.queue "+queues+")", names...)
	case store.Sent: // they are most: a page is soon full
		add(`(EXISTS (SELECT 1 FROM done d WHERE d.seq >= m.first_seq AND d.seq < m.first_seq + m.deliveries
				AND d.message = m.id AND d.state = 1 AND d.queue `+queues+`)
			OR EXISTS (SELECT 1 FROM moved v JOIN done d ON d.seq = v.seq WHERE v.message = m.id AND d.state = 1 AND d.queue `+queues+"))",
			append(names, names...)...)
	case store.Filtered:
		add("(m.deliveries = 0 OR m.deliveries IS NULL AND NOT EXISTS (SELECT 1 FROM moved v WHERE v.message = m.id))")
	default:
	}
	return strings.Join(conditions, " AND "), args
}

// findQuery is the query of Find.
func findQuery(channel string, f store.Filter) (string, []any) {
	condition, args := where(channel, f)
	return "SELECT " + summaryColumns + " FROM message m WHERE " + condition + " ORDER BY m.id DESC LIMIT ? OFFSET ?", args
}

// Find implements [store.Browser].
func (s *Store) Find(ctx context.Context, channel string, f store.Filter, offset, limit int) ([]store.Summary, error) {
	return read(s, func(db *database) ([]store.Summary, error) {
		query, args := findQuery(channel, f)
		rows, err := db.browsers.QueryContext(ctx, query, append(args, limit, offset)...)
		if err != nil {
			return nil, err
		}
		found, numbered, err := summaries(rows, channel)
		if err != nil {
			return nil, err
		}
		for i := range found {
			m := &found[i]
			if m.Deliveries, err = outcomes(ctx, db, m.ID, channel, numbered[i]); err != nil {
				return nil, err
			}
		}
		return found, nil
	})
}

// A span is the numbers that a message gave its deliveries.
type span struct{ first, count int64 }

// summaries reads and closes the rows of findQuery.
func summaries(rows *sql.Rows, channel string) ([]store.Summary, []span, error) {
	defer rows.Close()
	var found []store.Summary
	var numbered []span
	for rows.Next() {
		m := store.Summary{Message: store.Message{Channel: channel}}
		var n span
		var received int64
		var controlID []byte
		var source sql.NullString
		if err := rows.Scan(&m.ID, &received, &controlID, &source, &m.Bytes, &n.first, &n.count); err != nil {
			return nil, nil, err
		}
		m.Received, m.ControlID, m.Source = fromUnix(received), string(controlID), store.KeptSource(source.String)
		found, numbered = append(found, m), append(numbered, n)
	}
	return found, numbered, rows.Err()
}

// outcomes returns what became of a message.
func outcomes(ctx context.Context, db *database, message int64, channel string, numbered span) ([]store.Outcome, error) {
	rows, err := db.outcomes.QueryContext(ctx, numbered.first, numbered.count, message, channel)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []store.Outcome
	for rows.Next() {
		var o store.Outcome
		var state int
		var nextAt, doneAt int64
		if err := rows.Scan(&o.Seq, &o.Destination, &state, &o.Attempts, &o.MaybeSent, &o.LastError, &nextAt, &doneAt); err != nil {
			return nil, err
		}
		switch state {
		case doneSent:
			o.State = store.Sent
		case doneDead:
			o.State = store.Dead
		default:
			o.State = store.Queued
		}
		o.NextAt, o.DoneAt = fromUnix(nextAt), fromUnix(doneAt)
		list = append(list, o)
	}
	return list, rows.Err()
}

// Count implements [store.Browser].
func (s *Store) Count(ctx context.Context, channel string, f store.Filter) (int64, error) {
	return read(s, func(db *database) (n int64, err error) {
		condition, args := where(channel, f)
		err = db.browsers.QueryRowContext(ctx, "SELECT count(*) FROM message m WHERE "+condition, args...).Scan(&n)
		return n, err
	})
}

// messageQuery finds one message of a channel, and its payload.
const messageQuery = "SELECT m.received, m.control_id, m.source, m.raw FROM message m WHERE m.channel = " + queueByName + " AND m.id = ?"

// Message implements [store.Browser].
func (s *Store) Message(ctx context.Context, channel string, id int64) (store.Message, error) {
	return read(s, func(db *database) (store.Message, error) {
		m := store.Message{ID: id, Channel: channel}
		var received int64
		var controlID []byte
		var source sql.NullString
		err := db.browsers.QueryRowContext(ctx, messageQuery, channel, "", id).Scan(&received, &controlID, &source, &m.Raw)
		if errors.Is(err, sql.ErrNoRows) {
			return store.Message{}, fmt.Errorf("%w: message %d", store.ErrNotFound, id)
		}
		m.Received, m.ControlID, m.Source = fromUnix(received), string(controlID), store.KeptSource(source.String)
		return m, err
	})
}

// Waiting implements [store.Browser].
func (s *Store) Waiting(ctx context.Context) ([]store.QueueLength, error) {
	return read(s, func(db *database) ([]store.QueueLength, error) {
		rows, err := db.browsers.QueryContext(ctx, `
			SELECT channel, destination, received - sent - dead FROM queue
			WHERE destination <> '' AND received > sent + dead ORDER BY channel, destination`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []store.QueueLength
		for rows.Next() {
			var q store.QueueLength
			if err := rows.Scan(&q.Channel, &q.Destination, &q.Queued); err != nil {
				return nil, err
			}
			list = append(list, q)
		}
		return list, rows.Err()
	})
}
