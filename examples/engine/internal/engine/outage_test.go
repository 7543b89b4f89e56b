package engine_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// attempts counts what a worker does to its store.
type attempts struct {
	store.Store
	made    atomic.Int64
	pending atomic.Int64
}

func (a *attempts) Attempting(d *store.Delivery) {
	a.made.Add(1)
	a.Store.Attempting(d)
}

func (a *attempts) Pending(ctx context.Context, channel, destination string, after int64, limit int) ([]store.Delivery, error) {
	a.pending.Add(1)
	return a.Store.Pending(ctx, channel, destination, after, limit)
}

// A destination that is down for four hours costs an attempt every five minutes
// and two lines of log; then it gets everything, in order.
func TestOutageOfHoursIsQuietAndEndsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "archive")
		require.NoError(t, os.WriteFile(dir, nil, 0o600), "a file where the directory should be")
		st := &attempts{Store: openStore(t, t.TempDir())}
		want := ids("M", 50)
		for _, id := range want {
			_, err := st.Intake(t.Context(), store.Intake{Channel: "adt", ControlID: id, Raw: message(id), Destinations: []string{"archive"}})
			require.NoError(t, err)
		}
		ch := channel("adt", toFile("archive", dir))
		ch.Destinations[0].Queue.RetryInterval = 10 * time.Second
		l := new(log)
		e := engine.New(&config.Config{Channels: []config.Channel{ch}}, st, engine.Options{Logger: l.logger(slog.LevelDebug)})
		e.StartDestinations()

		time.Sleep(4 * time.Hour)
		synctest.Wait()
		// 10 s doubled up to 5 min makes 6 attempts in the first 10 min, then one
		// every 5 min, and a fifth more or less.
		assert.InDelta(t, 6+46, st.made.Load(), 10)
		assert.Equal(t, int64(1), st.pending.Load(), "nothing polls")
		require.NoError(t, os.Remove(dir))
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		assert.Equal(t, want, filedIDs(t, dir))
		assert.Equal(t, 1, l.count("level=WARN"))
		assert.Equal(t, 1, l.count("delivery works again"))

		before := st.pending.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.InDelta(t, 720, st.pending.Load()-before, 1, "an idle worker looks every 5 s, in case a wakeup was lost")
		e.StopDestinations(t.Context())
		require.NoError(t, st.Close())
	})
}

// What a restart finds waiting is tried at once: who repairs a receiver and
// restarts the engine does not wait out an old pause.
func TestRestartTriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "archive")
		require.NoError(t, os.WriteFile(dir, nil, 0o600))
		st := openStore(t, t.TempDir())
		_, err := st.Intake(t.Context(), store.Intake{Channel: "adt", Raw: message("M1"), Destinations: []string{"archive"}})
		require.NoError(t, err)
		ch := channel("adt", toFile("archive", dir))
		ch.Destinations[0].Queue.RetryInterval = time.Hour
		for range 2 {
			e := engine.New(&config.Config{Channels: []config.Channel{ch}}, st, engine.Options{})
			e.StartDestinations()
			synctest.Wait()
			time.Sleep(time.Second)
			e.StopDestinations(t.Context())
			_ = os.Remove(dir)
		}
		assert.Equal(t, []string{"M1"}, filedIDs(t, dir))
		require.NoError(t, st.Close())
	})
}
