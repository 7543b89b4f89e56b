package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// batchBytes is how much payload Pending and DeadLetters return at most, unless
// the first message alone is larger.
const batchBytes = 4 << 20

// Pending implements [store.Store].
func (s *Store) Pending(ctx context.Context, channel, destination string, after int64, limit int) ([]store.Delivery, error) {
	return read(s, func(db *database) ([]store.Delivery, error) {
		return list(ctx, db.pending, channel, destination, after, limit)
	})
}

// DeadLetters implements [store.Store].
func (s *Store) DeadLetters(ctx context.Context, channel, destination string, after int64, limit int) ([]store.Delivery, error) {
	return read(s, func(db *database) ([]store.Delivery, error) {
		return list(ctx, db.deadLetters, channel, destination, after, limit)
	})
}

// Stats implements [store.Store].
func (s *Store) Stats(ctx context.Context, channel string) (store.Stats, error) {
	return read(s, func(db *database) (store.Stats, error) {
		all, err := stats(ctx, db.stats, channel)
		return all[channel], err
	})
}

// AllStats implements [store.Browser].
func (s *Store) AllStats(ctx context.Context) (map[string]store.Stats, error) {
	return read(s, func(db *database) (map[string]store.Stats, error) {
		return stats(ctx, db.allStats)
	})
}

// Recall implements [store.Store].
func (s *Store) Recall(ctx context.Context, channel string, key []byte) ([]byte, error) {
	return read(s, func(db *database) (value []byte, err error) {
		err = db.recall.QueryRowContext(ctx, channel, key, time.Now().UnixNano()).Scan(&value)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, nil
		}
		return value, err
	})
}

// read runs a query while the database stays open.
func read[T any](s *Store, query func(*database) (T, error)) (result T, err error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.db == nil {
		return result, s.Healthy()
	}
	if result, err = query(s.db); err != nil {
		return result, fmt.Errorf("store: %w", err)
	}
	return result, nil
}

// list runs the query for a queue's deliveries or dead letters.
func list(ctx context.Context, query *sql.Stmt, channel, destination string, after int64, limit int) ([]store.Delivery, error) {
	rows, err := query.QueryContext(ctx, channel, destination, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []store.Delivery
	for size := 0; size < batchBytes && rows.Next(); {
		d := store.Delivery{Destination: destination, Message: store.Message{Channel: channel}}
		var nextAt, received int64
		var controlID []byte
		var source sql.NullString
		err := rows.Scan(&d.Seq, &d.Attempts, &nextAt, &d.MaybeSent, &d.LastError,
			&d.Message.ID, &received, &controlID, &source, &d.Message.Raw)
		if err != nil {
			return nil, err
		}
		if size += len(d.Message.Raw); size > batchBytes && len(list) > 0 {
			break
		}
		d.Message.Source = store.KeptSource(source.String)
		d.Skipped = d.Seq >= skippedSeq
		d.NextAt, d.Message.Received, d.Message.ControlID = fromUnix(nextAt), fromUnix(received), string(controlID)
		list = append(list, d)
	}
	return list, rows.Err()
}

// stats runs a query for the counters of channels: one statement, one snapshot.
func stats(ctx context.Context, query *sql.Stmt, args ...any) (map[string]store.Stats, error) {
	rows, err := query.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string]store.Stats)
	for rows.Next() {
		var channel string
		var d store.DestinationStats
		var filtered, at int64
		if err := rows.Scan(&channel, &d.Name, &d.Received, &filtered, &d.Sent, &d.Error, &at); err != nil {
			return nil, err
		}
		stats := all[channel]
		if d.Name == "" {
			stats.Received, stats.Filtered, stats.LastReceived = d.Received, filtered, fromUnix(at)
		} else {
			d.Queued, d.OldestQueued = d.Received-d.Sent-d.Error, fromUnix(at)
			stats.Sent += d.Sent
			stats.Queued += d.Queued
			stats.Error += d.Error
			stats.OldestQueued = earlier(stats.OldestQueued, d.OldestQueued)
			stats.Destinations = append(stats.Destinations, d)
		}
		all[channel] = stats
	}
	for _, stats := range all {
		slices.SortFunc(stats.Destinations, func(a, b store.DestinationStats) int { return strings.Compare(a.Name, b.Name) })
	}
	return all, rows.Err()
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
