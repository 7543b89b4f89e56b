package sqlite

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// SQLite answers a PRAGMA that it does not honour with success: what durability
// rests on is read back, and anything else is refused.
func TestSettingsThatSQLiteDoesNotHonourAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		pragmas []string
		refused string // empty: not
	}{
		"as it should be":     {[]string{"journal_mode(wal)", "synchronous(2)"}, ""},
		"a rollback journal":  {[]string{"journal_mode(delete)", "synchronous(2)"}, "journal_mode=delete synchronous=2"},
		"no sync of the log":  {[]string{"journal_mode(wal)", "synchronous(1)"}, "journal_mode=wal synchronous=1"},
		"no sync at all":      {[]string{"journal_mode(wal)", "synchronous(0)"}, "journal_mode=wal synchronous=0"},
		"a word it ignores":   {[]string{"journal_mode(wal)", "synchronous(8)"}, "journal_mode=wal synchronous=0"},
		"more than was asked": {[]string{"journal_mode(wal)", "synchronous(3)"}, "journal_mode=wal synchronous=3"},
	} {
		t.Run(name, func(t *testing.T) {
			owner, err := sql.Open("sqlite", dsn(filepath.Join(t.TempDir(), "engine.db"), test.pragmas))
			require.NoError(t, err)
			defer owner.Close()
			owner.SetMaxOpenConns(1)
			conn, err := owner.Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			err = (&database{conn: conn}).assertSettings(t.Context(), synchronousFull)
			if test.refused == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.refused+" instead of wal and 2")
		})
	}
}

// And nothing opens without it: a level that SQLite takes for another one is found
// at the opening, before anything is made or read.
func TestAStoreThatWouldNotSyncDoesNotOpen(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenWithSynchronous(t.Context(), dir, &Options{Reserve: -1}, 8)
	require.ErrorContains(t, err, "synchronous=0 instead of wal and 8")
	assert.NotContains(t, err.Error(), "\n")

	st, err := Open(t.Context(), dir, &Options{Reserve: -1})
	require.NoError(t, err, "the refusal has left the directory as it was")
	require.NoError(t, st.Close())
}
