package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

// beside opens the database of a data directory as another program would.
func beside(t *testing.T, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "engine.db"))
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func number(t *testing.T, db *sql.DB, query string) (n int64) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&n))
	return n
}

func TestOneProcessAtATimeHoldsADataDirectory(t *testing.T) {
	dir := t.TempDir()
	c := holder(t, dir)
	_, err := sqlite.Open(t.Context(), dir, noReserve)
	require.ErrorIs(t, err, store.ErrLocked)
	assert.Contains(t, err.Error(), fmt.Sprintf("process %d", c.Process.Pid))
	c.kill(t)

	st := reopened(t, dir)
	_, err = sqlite.Open(t.Context(), dir, noReserve)
	require.ErrorIs(t, err, store.ErrLocked, "nor can one process open it twice")
	require.NoError(t, st.Close())
	require.NoError(t, reopened(t, dir).Close())
}

// holder starts a child that holds the data directory.
func holder(t *testing.T, dir string) *child {
	t.Helper()
	c := start(t, "hold", dir, sqlite.SynchronousFull)
	c.waitFor(t, "open", 1)
	return c
}

func TestTheDatabaseIsMarkedAsOursAndSynced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet %20?#")
	st := reopened(t, dir)
	require.NoError(t, intake(st, "1"))
	for _, name := range []string{"engine.db", "engine.db-wal", "engine.db-shm", "lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	require.NoError(t, st.Close())
	left, err := filepath.Glob(filepath.Join(dir, "engine.db-*"))
	require.NoError(t, err)
	assert.Empty(t, left, "an orderly end leaves one file to copy")

	file, err := os.ReadFile(filepath.Join(dir, "engine.db"))
	require.NoError(t, err)
	assert.Equal(t, "crwr", string(file[68:72]), "application_id")
}

func TestAMigrationHappensWhollyOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	st := reopened(t, dir)
	require.NoError(t, intake(st, "1"))
	require.NoError(t, st.Close())
	version := number(t, beside(t, dir), "PRAGMA user_version")

	t.Run("a failing one leaves the old version", func(t *testing.T) {
		defer sqlite.AddMigration("ALTER TABLE message ADD COLUMN extra TEXT; INSERT INTO nothing VALUES (1)")()
		_, err := sqlite.Open(t.Context(), dir, noReserve)
		require.ErrorContains(t, err, fmt.Sprintf("migration to version %d", version+1))
		assert.Equal(t, version, number(t, beside(t, dir), "PRAGMA user_version"))
		assert.Zero(t, number(t, beside(t, dir), "SELECT count(*) FROM pragma_table_info('message') WHERE name = 'extra'"))
	})
	t.Run("so does one that is killed halfway", func(t *testing.T) {
		c := start(t, "migrate", dir, sqlite.SynchronousFull)
		require.Eventually(t, func() bool {
			info, err := os.Stat(filepath.Join(dir, "engine.db-wal"))
			return err == nil && info.Size() > 1<<20
		}, time.Minute, time.Millisecond, "it has begun to write")
		c.kill(t)
		require.Empty(t, c.said("open"))
		assert.Equal(t, version, number(t, beside(t, dir), "PRAGMA user_version"))
		assert.Zero(t, number(t, beside(t, dir), "SELECT count(*) FROM sqlite_schema WHERE name = 'grown'"))
	})
	t.Run("a good one keeps what is there", func(t *testing.T) {
		defer sqlite.AddMigration("ALTER TABLE message ADD COLUMN extra TEXT")()
		st := reopened(t, dir)
		assert.Equal(t, []string{"1"}, everyone(t, st, quiet))
		require.NoError(t, intake(st, "2"))
		require.NoError(t, st.Close())
		assert.Equal(t, version+1, number(t, beside(t, dir), "PRAGMA user_version"))
	})
	before, err := os.ReadFile(filepath.Join(dir, "engine.db"))
	require.NoError(t, err)
	_, err = sqlite.Open(t.Context(), dir, noReserve)
	require.ErrorIs(t, err, store.ErrNewer, "the older program refuses")
	after, err := os.ReadFile(filepath.Join(dir, "engine.db"))
	require.NoError(t, err)
	assert.True(t, string(before) == string(after), "and changes nothing")
}

func TestADatabaseOfVersion1IsTakenOver(t *testing.T) {
	dir := t.TempDir()
	st := reopened(t, dir)
	for _, id := range []string{"1", "2", "3"} {
		require.NoError(t, intake(st, id))
	}
	list := queue(t, st, drained)
	require.NoError(t, st.Delivered(t.Context(), &list[0]))
	require.NoError(t, st.DeadLetter(t.Context(), &list[1], false, "AR"))
	_, err := st.Requeue(t.Context(), list[1].Seq)
	require.NoError(t, err)
	_, err = st.Intake(t.Context(), store.Intake{Channel: "c", ControlID: "filtered"})
	require.NoError(t, err)
	before, err := st.Find(t.Context(), "c", store.Filter{}, 0, 10)
	require.NoError(t, err)
	require.Len(t, before, 4)
	stats, err := st.Stats(t.Context(), "c")
	require.NoError(t, err)
	require.NoError(t, st.Close())
	_, err = beside(t, dir).ExecContext(t.Context(), sqlite.DowngradeTo1)
	require.NoError(t, err)

	st = reopened(t, dir)
	after, err := st.Find(t.Context(), "c", store.Filter{}, 0, 10)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	now, err := st.Stats(t.Context(), "c")
	require.NoError(t, err)
	assert.Equal(t, stats, now)
	filtered, err := st.Find(t.Context(), "c", store.Filter{State: store.Filtered}, 0, 10)
	require.NoError(t, err)
	assert.Len(t, filtered, 1)
	require.NoError(t, intake(st, "4"))
	require.NoError(t, st.Close())
}

func TestADatabaseThatIsNotOursIsRefused(t *testing.T) {
	dir := t.TempDir()
	_, err := beside(t, dir).ExecContext(t.Context(), "CREATE TABLE theirs (x)")
	require.NoError(t, err)
	_, err = sqlite.Open(t.Context(), dir, noReserve)
	require.ErrorContains(t, err, "some other program's database")

	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "engine.db"), []byte(strings.Repeat("not a database", 1000)), 0o600))
	_, err = sqlite.Open(t.Context(), dir, noReserve)
	require.ErrorContains(t, err, "not a database")
}

func TestADamagedDatabaseIsRefused(t *testing.T) {
	dir := t.TempDir()
	st := reopened(t, dir)
	for i := range 50 {
		require.NoError(t, intake(st, fmt.Sprint(i)))
	}
	require.NoError(t, st.Close())
	file, err := os.OpenFile(filepath.Join(dir, "engine.db"), os.O_RDWR, 0)
	require.NoError(t, err)
	info, err := file.Stat()
	require.NoError(t, err)
	_, err = file.WriteAt([]byte(strings.Repeat("\xff", 4096)), info.Size()-2*4096)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	_, err = sqlite.Open(t.Context(), dir, noReserve)
	require.ErrorContains(t, err, "damaged")
	_, err = sqlite.Open(t.Context(), dir, noReserve)
	require.NotErrorIs(t, err, store.ErrLocked, "a refused directory is let go")
}

func TestAFailingRequestTakesNoneOfItsGroupWithIt(t *testing.T) {
	for _, how := range []string{"ABORT", "ROLLBACK", "FAIL"} {
		dir := t.TempDir()
		st := reopened(t, dir)
		require.NoError(t, intake(st, "first"))
		db := beside(t, dir)
		_, err := db.ExecContext(t.Context(), fmt.Sprintf(`CREATE TRIGGER refuse BEFORE INSERT ON message
			WHEN NEW.control_id = CAST('bad' AS BLOB) BEGIN SELECT RAISE(%s, 'refused'); END`, how))
		require.NoError(t, err)
		const callers, each = 30, 5
		var errs [callers][each]error
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for i := range each {
					id := fmt.Sprintf("%d-%d", c, i)
					if i == c%each {
						id = "bad"
					}
					errs[c][i] = intake(st, id)
				}
			})
		}
		wg.Wait()
		want := []string{"first"}
		for c := range callers {
			for i, err := range errs[c] {
				if i == c%each {
					require.ErrorContains(t, err, "refused")
					continue
				}
				require.NoError(t, err)
				want = append(want, fmt.Sprintf("%d-%d", c, i))
			}
		}
		require.NoError(t, st.Healthy())
		assert.ElementsMatch(t, want, everyone(t, st, quiet))
		assertStatsAddUp(t, st)
		require.NoError(t, st.Close())
	}
}

func TestNoQueryReadsAWholeTable(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, reopened(t, dir).Close())
	db := beside(t, dir)
	for name, query := range sqlite.Queries() {
		args := make([]any, parameters(query))
		rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
		require.NoError(t, err)
		for rows.Next() {
			var id, parent, unused int
			var step string
			require.NoError(t, rows.Scan(&id, &parent, &unused, &step))
			assert.NotContains(t, step, "SCAN", name)
			assert.NotContains(t, step, "TEMP B-TREE", name)
			if step == "SEARCH d USING PRIMARY KEY (queue=?)" {
				assert.Contains(t, query, "ORDER BY d.seq", "%s reads a whole queue", name)
			}
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	}
}

// parameters counts those of a query, which are all numbered or all not.
func parameters(query string) int {
	if strings.Contains(query, "?4") {
		return 4
	}
	return strings.Count(query, "?")
}

func TestOpeningCanBeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := sqlite.Open(ctx, dir, noReserve)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, reopened(t, dir).Close())
}
