package sqlite_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

// powerFailures replays the recording of a child and fails the power before every
// sync and at the end. It returns how many failures were tried, and what was lost:
// one line for each failure after which the store was damaged or an acknowledged
// message missing. Of what was not synced as much survives as survivals say, by turns.
func powerFailures(t *testing.T, synchronous, every int, survivals ...survival) (tried int, losses []string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	calls := recordingOf(t, "rounds", dir, synchronous)
	d := newDisk(dir)
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable on purpose
	fail := func() {
		for _, how := range survivals {
			image := t.TempDir()
			if differs := d.image(t, image, how, rnd); !differs && how != nothing {
				continue
			}
			tried++
			if err := lossIn(t, image, d.acknowledged); err != nil {
				losses = append(losses, fmt.Sprintf("after %d syncs and %d messages (survival %d): %v", d.syncs, len(d.acknowledged), how, err))
			}
		}
	}
	for _, call := range calls {
		if d.syncing(call) {
			if d.syncs++; d.syncs%every == 0 {
				fail()
			}
		}
		d.do(t, call)
	}
	fail()
	require.Len(t, d.acknowledged, 45, "the recording is whole")
	require.Greater(t, d.writes, 100, "the recording is whole")
	return tried, losses
}

// lossIn opens what a power failure left, and says what is wrong with it.
func lossIn(t *testing.T, dir string, acks []string) error {
	t.Helper()
	st, err := sqlite.Open(t.Context(), dir, noReserve)
	if err != nil {
		return err
	}
	lost := missing(acks, everyone(t, st, quiet))
	if err := st.Close(); err != nil {
		return err
	}
	if len(lost) > 0 {
		return fmt.Errorf("%d messages are missing, first %s", len(lost), lost[0])
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "engine.db"))
	require.NoError(t, err)
	defer db.Close()
	var verdict string
	require.NoError(t, db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict))
	if verdict != "ok" {
		return fmt.Errorf("integrity check: %s", verdict)
	}
	return nil
}

func TestWhatWasAcknowledgedIsThereAfterAPowerFailureAtAnySync(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 9
	}
	tried, losses := powerFailures(t, sqlite.SynchronousFull, every, nothing, prefix, subset)
	assert.Empty(t, losses)
	t.Logf("%d power failures", tried)
	assert.GreaterOrEqual(t, tried, 75/every)
}

// The controls: with less syncing the same replay finds acknowledged messages lost.
func TestTooLittleSyncingIsFoundLosingMessagesAtAPowerFailure(t *testing.T) {
	for level, name := range map[int]string{sqlite.SynchronousOff: "off", sqlite.SynchronousNormal: "normal"} {
		t.Run(name, func(t *testing.T) {
			_, losses := powerFailures(t, level, 1, nothing)
			assert.Contains(t, strings.Join(losses, "\n"), "messages are missing")
		})
	}
}
