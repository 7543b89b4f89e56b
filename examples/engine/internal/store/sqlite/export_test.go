package sqlite

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
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

// Queries are what is read while the engine works, by name.
func Queries() map[string]string {
	queries := map[string]string{
		"pending": pendingQuery, "dead letters": deadLettersQuery, "stats": statsQuery, "message": messageQuery,
		"requeue all": deadQuery, "once": onceKnownQuery, "prune from": pruneFromQuery, "prune": pruneQuery,
		"outcomes": strings.TrimSuffix(outcomesQuery, "ORDER BY 1"), // of which there are a few
	}
	for name, f := range map[string]store.Filter{
		"all": {}, "time": {From: time.Unix(1, 0), To: time.Unix(2, 0)}, "control id": {ControlID: "x"},
		"sent": {State: store.Sent}, "sent to": {State: store.Sent, Destination: "d"},
	} {
		queries["find "+name], _ = findQuery("c", f)
	}
	return queries
}

// DowngradeTo1 makes a closed database one of version 1.
const DowngradeTo1 = `DROP TABLE sealing; DROP TABLE numbered; DROP INDEX message_listed; DROP TABLE moved; DROP TABLE once;
	ALTER TABLE message DROP COLUMN first_seq; ALTER TABLE message DROP COLUMN deliveries; PRAGMA user_version = 1`
