package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// A call of Prune looks at messages of so many numbers, so that its query soon
	// ends: while one runs, the log cannot start anew.
	pruneWindow = 10_000

	// And it removes at most so many, and once over no more payload, in bytes: long
	// payloads lie in many pages, each of which is read to find the next. This takes
	// some milliseconds, within a commit that others may wait for.
	pruneMessages = 64
	pruneBytes    = 2 << 20
)

const (
	// prunable holds for a message m of which nothing is queued and no dead letter is
	// younger than a time. The channel's queues are few.
	// CROSS JOIN keeps the order of the tables: SQLite would go through a whole queue.
	prunable = `
		NOT EXISTS (SELECT 1 FROM queue q CROSS JOIN queued d WHERE q.channel = ? AND d.queue = q.id
			AND d.seq >= m.first_seq AND d.seq < m.first_seq + m.deliveries AND d.message = m.id)
		AND NOT EXISTS (SELECT 1 FROM moved v CROSS JOIN queue q CROSS JOIN queued d
			WHERE v.message = m.id AND q.channel = ? AND d.queue = q.id AND d.seq = v.seq)
		AND NOT EXISTS (SELECT 1 FROM done d WHERE d.seq >= m.first_seq AND d.seq < m.first_seq + m.deliveries
			AND d.message = m.id AND +d.state = 2 AND d.done_at >= ?)
		AND NOT EXISTS (SELECT 1 FROM moved v CROSS JOIN done d WHERE v.message = m.id AND d.seq = v.seq AND +d.state = 2 AND d.done_at >= ?)`

	pruneFromQuery = "SELECT m.id FROM message m WHERE m.channel = " + queueByName + " AND m.id > ? ORDER BY m.id LIMIT 1"
	pruneQuery     = "SELECT m.id, coalesce(m.first_seq, 0), coalesce(m.deliveries, 0), length(m.raw) FROM message m WHERE m.channel = " + queueByName +
		" AND m.id >= ? AND m.id < ? AND m.received < ? AND " + prunable + " ORDER BY m.id LIMIT ?"
)

// pruneStatements remove one message, on the writer's connection.
type pruneStatements struct {
	message, done, movedDone, moved, numbered *sql.Stmt
}

func (p *pruneStatements) list() []prepared {
	return []prepared{
		// What was found to be done may have been requeued since.
		{&p.message, "DELETE FROM message AS m WHERE m.id = ? AND " + prunable},
		{&p.done, "DELETE FROM done WHERE seq >= ? AND seq < ? AND message = ?"},
		{&p.movedDone, "DELETE FROM done WHERE seq IN (SELECT seq FROM moved WHERE message = ?)"},
		{&p.moved, "DELETE FROM moved WHERE message = ?"},
		{&p.numbered, "UPDATE numbered SET message = ?, seq = ?"},
	}
}

// Channels implements [store.Pruner].
func (s *Store) Channels(ctx context.Context) ([]string, error) {
	return read(s, func(db *database) ([]string, error) {
		rows, err := db.browsers.QueryContext(ctx, "SELECT channel FROM queue WHERE destination = '' ORDER BY channel")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []string
		for rows.Next() {
			var channel string
			if err := rows.Scan(&channel); err != nil {
				return nil, err
			}
			list = append(list, channel)
		}
		return list, rows.Err()
	})
}

// Prune implements [store.Pruner]. What is to be removed is searched for beside the
// writer, who only removes it, and at most 64 messages or 2 MiB in one commit; a
// single longer message takes less time than its intake took. The pages that were
// theirs are used again: the file does not shrink, and does not grow while there are
// some.
func (s *Store) Prune(ctx context.Context, channel string, p store.Pruning) (store.Pruned, error) {
	found, err := read(s, func(db *database) (pruning, error) { return db.findPrunable(ctx, channel, p) })
	if err != nil || len(found.messages) == 0 {
		return store.Pruned{Next: found.next}, err
	}
	removed := 0
	err = s.submit(ctx, &request{size: len(found.messages) * logPerRequest, apply: func(ctx context.Context, g *group) (err error) {
		removed, err = g.prune(ctx, channel, p, found.messages)
		return err
	}})
	if err != nil {
		return store.Pruned{}, err
	}
	return store.Pruned{Messages: removed, Next: found.next}, nil
}

// A pruning is the messages that one call of Prune removes, and where to go on.
type pruning struct {
	messages []prunableMessage
	next     int64
}

type prunableMessage struct {
	id int64

	span
}

// findPrunable looks at one window of messages.
func (db *database) findPrunable(ctx context.Context, channel string, p store.Pruning) (pruning, error) {
	var first int64
	err := db.browsers.QueryRowContext(ctx, pruneFromQuery, channel, "", p.After).Scan(&first)
	if errors.Is(err, sql.ErrNoRows) {
		return pruning{}, nil
	} else if err != nil {
		return pruning{}, err
	}
	found := pruning{next: first + pruneWindow - 1}
	rows, err := db.browsers.QueryContext(ctx, pruneQuery, channel, "", first, first+pruneWindow, unix(p.Before),
		channel, channel, unix(p.DeadBefore), unix(p.DeadBefore), pruneMessages)
	if err != nil {
		return pruning{}, err
	}
	defer rows.Close()
	for size := int64(0); rows.Next(); {
		var m prunableMessage
		var bytes int64
		if err := rows.Scan(&m.id, &m.first, &m.count, &bytes); err != nil {
			return pruning{}, err
		}
		if size += bytes; size > pruneBytes && len(found.messages) > 0 {
			found.next = found.messages[len(found.messages)-1].id
			return found, nil
		}
		found.messages = append(found.messages, m)
	}
	if len(found.messages) == pruneMessages {
		found.next = found.messages[pruneMessages-1].id
	}
	return found, rows.Err()
}

// prune removes those of the messages that can still be.
func (g *group) prune(ctx context.Context, channel string, p store.Pruning, messages []prunableMessage) (removed int, err error) {
	statements := &g.db.prune
	for _, m := range messages {
		result, err := statements.message.ExecContext(ctx, m.id, channel, channel, unix(p.DeadBefore), unix(p.DeadBefore))
		if err != nil {
			return 0, err
		}
		if n, err := result.RowsAffected(); err != nil {
			return 0, err
		} else if n == 0 {
			continue
		}
		removed++
		if _, err := statements.done.ExecContext(ctx, m.first, m.first+m.count, m.id); err != nil {
			return 0, err
		}
		if _, err := statements.movedDone.ExecContext(ctx, m.id); err != nil {
			return 0, err
		}
		if _, err := statements.moved.ExecContext(ctx, m.id); err != nil {
			return 0, err
		}
	}
	_, err = statements.numbered.ExecContext(ctx, g.lastMessage, g.lastSeq)
	return removed, err
}
