package sqlite

import (
	"context"
	"slices"
	"testing"
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

// AddMigration makes the program one version newer until the test has ended. The
// tests of a package that use it cannot be parallel.
func AddMigration(tb testing.TB, script string) {
	tb.Helper()
	before := migrations
	migrations = append(slices.Clip(before), script)
	tb.Cleanup(func() { migrations = before })
}

// Queries are what readers run, by name.
func Queries() map[string]string {
	return map[string]string{"pending": pendingQuery, "dead letters": deadLettersQuery, "stats": statsQuery}
}
