package sqlite

import "context"

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

// NewestVersion is the version of the schema.
func NewestVersion() int { return len(migrations) }
