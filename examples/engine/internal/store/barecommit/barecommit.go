// Package barecommit is the least group commit that SQLite can do: one table,
// one INSERT of a blob for each message, write-ahead log and synchronous=FULL.
// Benchmarks run it beside the store and the engine, in the same run, as the
// limit to compare with.
package barecommit

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver
)

// maxGroup is how many messages share a commit at most.
const maxGroup = 256

// Loop commits messages in groups. Make it with Open.
type Loop struct {
	raw      []byte
	requests chan chan error
	stopped  chan struct{}
}

// Open begins a loop on a new database in dir, with messages of size bytes.
func Open(ctx context.Context, dir string, size int) (*Loop, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "bare.db")+
		"?_pragma=journal_mode(wal)&_pragma=synchronous(2)&_pragma=mmap_size(0)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "CREATE TABLE t (id INTEGER PRIMARY KEY, raw BLOB)"); err != nil {
		return nil, fmt.Errorf("barecommit: %w", err)
	}
	var stmts [3]*sql.Stmt
	for i, query := range []string{"BEGIN IMMEDIATE", "INSERT INTO t (raw) VALUES (?)", "COMMIT"} {
		if stmts[i], err = db.PrepareContext(ctx, query); err != nil {
			return nil, fmt.Errorf("barecommit: %w", err)
		}
	}
	l := &Loop{raw: make([]byte, size), requests: make(chan chan error), stopped: make(chan struct{})}
	go l.run(context.WithoutCancel(ctx), db, stmts[0], stmts[1], stmts[2])
	return l, nil
}

func (l *Loop) run(ctx context.Context, db *sql.DB, begin, insert, commit *sql.Stmt) {
	defer close(l.stopped)
	defer db.Close()
	for first := range l.requests {
		group := []chan error{first}
		for more := true; more && len(group) < maxGroup; {
			select {
			case r := <-l.requests:
				group = append(group, r)
			default:
				more = false
			}
		}
		_, err := begin.ExecContext(ctx)
		for range group {
			if err == nil {
				_, err = insert.ExecContext(ctx, l.raw)
			}
		}
		if err == nil {
			_, err = commit.ExecContext(ctx)
		}
		for _, r := range group {
			r <- err
		}
	}
}

// Put makes one message durable.
func (l *Loop) Put() error {
	done := make(chan error, 1)
	l.requests <- done
	return <-done
}

// Close ends the loop; no Put may run or follow.
func (l *Loop) Close() {
	close(l.requests)
	<-l.stopped
}
