package sqlite

import (
	"context"
	"fmt"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// applicationID marks the file as ours ("crwr"), for file(1) and for Open.
const applicationID = 0x63727772

// skippedSeq begins the sequence numbers of the deliveries that were skipped: they
// come after all others. It is exact in the numbers of JavaScript.
const skippedSeq = 1 << 52

// How a delivery was done. The numbers are spelled out in a partial index and in queries.
const (
	doneSent = 1
	doneDead = 2
)

// migrations brings a database of version i to version i+1. Each runs in one
// transaction with the version's change: it happens wholly or not at all. Never
// change one that was released; add one.
var migrations = []string{
	`
-- A channel is the row with destination '': what it received are messages. The
-- other rows are the channel's queues: what they received are deliveries, and what
-- is neither sent nor dead is queued. One table, as a commit then changes one page.
CREATE TABLE queue (
	id          INTEGER PRIMARY KEY,
	channel     TEXT NOT NULL,
	destination TEXT NOT NULL,
	received    INTEGER NOT NULL DEFAULT 0,
	filtered    INTEGER NOT NULL DEFAULT 0, -- of a channel: messages without a destination
	sent        INTEGER NOT NULL DEFAULT 0,
	dead        INTEGER NOT NULL DEFAULT 0,
	UNIQUE (channel, destination)
) STRICT;

CREATE TABLE message (
	id         INTEGER PRIMARY KEY,
	channel    INTEGER NOT NULL REFERENCES queue,
	received   INTEGER NOT NULL, -- Unix nanoseconds
	control_id BLOB NOT NULL,    -- any bytes
	source     TEXT,             -- JSON object of texts, or NULL
	raw        BLOB NOT NULL
) STRICT;

-- A delivery is in one of two tables. Here, while it waits: in order, and small
-- however long the history grows.
CREATE TABLE queued (
	queue      INTEGER NOT NULL REFERENCES queue,
	seq        INTEGER NOT NULL,
	message    INTEGER NOT NULL REFERENCES message,
	attempts   INTEGER NOT NULL DEFAULT 0,
	next_at    INTEGER NOT NULL DEFAULT 0, -- Unix nanoseconds
	maybe_sent INTEGER NOT NULL DEFAULT 0,
	last_error TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;

-- And here, when it is done.
CREATE TABLE done (
	seq        INTEGER PRIMARY KEY,
	queue      INTEGER NOT NULL REFERENCES queue,
	message    INTEGER NOT NULL REFERENCES message,
	state      INTEGER NOT NULL, -- 1 sent, 2 dead letter
	attempts   INTEGER NOT NULL,
	maybe_sent INTEGER NOT NULL,
	last_error TEXT NOT NULL,
	done_at    INTEGER NOT NULL -- Unix nanoseconds
) STRICT;
CREATE INDEX done_dead ON done (queue) WHERE state = 2;

-- Whether the last process closed the store.
CREATE TABLE shutdown (orderly INTEGER NOT NULL) STRICT;
INSERT INTO shutdown VALUES (1);
`,
	`
-- Of a message, the numbers of its deliveries: they are consecutive, so that no
-- index by message is needed in the tables that every delivery passes through.
-- NULL in what version 1 has stored.
ALTER TABLE message ADD COLUMN first_seq INTEGER;
ALTER TABLE message ADD COLUMN deliveries INTEGER;

-- Deliveries with other numbers than those: requeued, or of version 1.
CREATE TABLE moved (
	message INTEGER NOT NULL,
	seq     INTEGER NOT NULL,
	PRIMARY KEY (message, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO moved SELECT message, seq FROM done UNION ALL SELECT message, seq FROM queued;

-- What people look for. Ascending within a channel, so that it grows at its ends,
-- and with all that is searched, so that a search reads no payloads.
CREATE INDEX message_listed ON message (channel, id, received, control_id, first_seq, deliveries);

-- What is not to be taken in a second time.
CREATE TABLE once (
	id      INTEGER PRIMARY KEY,
	channel INTEGER NOT NULL REFERENCES queue,
	key     BLOB NOT NULL,
	message INTEGER NOT NULL,
	until   INTEGER NOT NULL, -- Unix nanoseconds
	UNIQUE (channel, key)
) STRICT;
CREATE INDEX once_until ON once (until);
`,
	`
-- What was remembered under a key, without a message (0): an answer.
ALTER TABLE once ADD COLUMN value BLOB;
`,
	`
-- The numbers that had been given out when messages were pruned last: what is left
-- does not tell.
CREATE TABLE numbered (message INTEGER NOT NULL, seq INTEGER NOT NULL) STRICT;
INSERT INTO numbered VALUES (0, 0);

-- Keys that content was sealed with before it came here; not the keys themselves.
CREATE TABLE sealing (
	key_id    TEXT PRIMARY KEY,
	key_check BLOB NOT NULL,
	last      INTEGER -- the last message in its time, or NULL: that is now
) STRICT;
`,
}

// migrate brings the database to this program's version.
func (db *database) migrate(ctx context.Context) error {
	var version, application, tables int64
	for pragma, dest := range map[string]*int64{
		"PRAGMA user_version":                &version,
		"PRAGMA application_id":              &application,
		"SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := db.conn.QueryRowContext(ctx, pragma).Scan(dest); err != nil {
			return fmt.Errorf("store: open: %w", classify(err))
		}
	}
	newest := int64(len(migrations))
	switch {
	case application != applicationID && (application != 0 || version != 0 || tables != 0):
		return fmt.Errorf("store: %s is some other program's database (application id %#x)", databaseName, application)
	case version > newest:
		return fmt.Errorf("%w: %s has version %d, this program knows %d: use the newer program, or the backup from before the upgrade",
			store.ErrNewer, databaseName, version, newest)
	}
	for ; version < newest; version++ {
		script := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
			migrations[version], applicationID, version+1)
		if _, err := db.conn.ExecContext(ctx, script); err != nil {
			// The connection is closed after this error, which rolls back.
			return fmt.Errorf("store: migration to version %d: %w", version+1, classify(err))
		}
	}
	return nil
}
