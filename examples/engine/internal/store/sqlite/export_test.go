package sqlite

import (
	"context"
	"slices"
)

// The levels of PRAGMA synchronous, for the positive controls of the fault tests.
const (
	SynchronousOff    = 0
	SynchronousNormal = 1
	SynchronousFull   = synchronousFull
)

// OpenWithSynchronous is Open with another level of PRAGMA synchronous: the
// product has no such setting.
func OpenWithSynchronous(ctx context.Context, dir string, opts *Options, level int64) (*Store, error) {
	return open(ctx, dir, opts, level)
}

// AddMigration makes the program one version newer until undo is called. The
// tests of a package that use it cannot be parallel.
func AddMigration(script string) (undo func()) {
	before := migrations
	migrations = append(slices.Clip(before), script)
	return func() { migrations = before }
}

// Queries are what readers run, by name.
func Queries() map[string]string {
	return map[string]string{"pending": pendingQuery, "dead letters": deadLettersQuery, "stats": statsQuery}
}
