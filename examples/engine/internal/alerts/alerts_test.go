package alerts_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/alerts"
	"github.com/carewire/carewire/examples/engine/internal/calendar"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/disk"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// world is an engine, its disk and its certificates, as a test has them.
type world struct {
	t   *testing.T
	dir string
	log bytes.Buffer

	mu       sync.Mutex
	channels []*config.Channel
	queues   map[string][]store.DestinationStats // by channel
	last     map[string]time.Time
	free     int64
	certs    []alerts.Certificate
	sick     error            // of the store
	mute     error            // of the channel that takes alerts
	told     []map[string]any // in their order
	keys     map[string]bool  // of those
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, dir: t.TempDir(), queues: make(map[string][]store.DestinationStats), last: make(map[string]time.Time), free: 50,
		keys: make(map[string]bool), channels: []*config.Channel{{ID: "adt", Name: "ADT from the wards"}},
	}
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) Channels() []*config.Channel {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.channels
}

func (w *world) Status(_ context.Context, id string) (engine.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sick != nil {
		return engine.Status{}, w.sick
	}
	for _, ch := range w.channels {
		if ch.ID == id {
			return engine.Status{Config: ch, Statistics: store.Stats{LastReceived: w.last[id], Destinations: w.queues[id]}}, nil
		}
	}
	return engine.Status{}, engine.ErrUnknownChannel
}

func (w *world) Healthy() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sick
}

func (w *world) Inject(_ context.Context, id string, in engine.Injected) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mute != nil || w.sick != nil {
		return 0, errors.Join(w.mute, w.sick)
	}
	assert.Equal(w.t, "ops", id)
	if w.keys[string(in.Once.Key)] {
		return 1, nil // as the store does
	}
	w.keys[string(in.Once.Key)] = true
	var alert map[string]any
	assert.NoError(w.t, json.Unmarshal(in.Raw, &alert))
	w.told = append(w.told, alert)
	return 1, nil
}

// watch runs a Watch until end is called or the test ends.
func (w *world) watch() (end func()) {
	w.t.Helper()
	watch, err := alerts.New(w, alerts.Options{
		Config:    config.Alerts{Channel: "ops", CheckInterval: 15 * time.Second, QueueingAfter: 5 * time.Minute, CertificateDays: 30, DiskFreePercent: 10},
		Directory: w.dir, ServerID: "node-1", Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
		Certificates: func(context.Context) []alerts.Certificate { w.mu.Lock(); defer w.mu.Unlock(); return w.certs },
		Disk: func() (disk.Space, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return disk.Space{Size: 100, Free: w.free}, nil
		},
	})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { watch.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

// texts returns what was told since it was asked last: "raised: …" or "cleared: …".
func (w *world) texts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, a := range w.told {
		list = append(list, a["state"].(string)+": "+a["text"].(string))
	}
	w.told = nil
	return list
}

func pass(d time.Duration) {
	time.Sleep(d) // in a bubble: it takes no time
	synctest.Wait()
}

// Row 9 and 58: one alert when messages begin to wait, one when they no longer do,
// however long that takes and however often it is tried.
func TestAQueueIsToldOnceAndItsEndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.watch()()
		pass(time.Minute)
		w.change(func() {
			w.queues["adt"] = []store.DestinationStats{{Name: "lab", Queued: 3, OldestQueued: time.Now()}, {Name: "archive"}}
		})
		pass(4 * time.Minute)
		assert.Empty(t, w.texts(), "a short one is nobody's business")
		pass(4 * time.Hour)
		assert.Equal(t, []string{"raised: ADT from the wards (adt) → lab: messages have waited since 2000-01-01 00:01 UTC. In the queue: 3."}, w.texts())
		// It drains, and the oldest is now a younger one: still too old to call it well.
		w.change(func() { w.queues["adt"][0].OldestQueued = time.Now().Add(-3 * time.Minute) })
		pass(15 * time.Second)
		assert.Empty(t, w.texts(), "what goes to and fro around the limit is told once")
		w.change(func() { w.queues["adt"][0] = store.DestinationStats{Name: "lab"} })
		pass(time.Hour)
		assert.Equal(t, []string{"cleared: ADT from the wards (adt) → lab: messages do not wait any more."}, w.texts())
	})
}

// Row 58: no message in the hours in which some are expected.
func TestASilentSourceIsToldInItsHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time begins on Saturday, 2000-01-01 00:00 UTC
		hours, err := calendar.Parse("mon-fri", "07:00-19:00", "UTC")
		require.NoError(t, err)
		w := newWorld(t)
		w.channels[0].Expected = &config.Expected{Within: 30 * time.Minute, Calendar: hours}
		defer w.watch()()
		w.change(func() { w.last["adt"] = time.Now() })
		pass(2*24*time.Hour + 7*time.Hour + 29*time.Minute) // Monday 07:29
		assert.Empty(t, w.texts(), "nobody expects any at the weekend, nor at once in the morning")
		pass(2 * time.Minute)
		assert.Equal(t, []string{"raised: ADT from the wards (adt): no message has come since 2000-01-01 00:00 UTC. One is expected every 30m0s."}, w.texts())
		pass(24 * time.Hour)
		assert.Empty(t, w.texts(), "once, over the night too")
		w.change(func() { w.last["adt"] = time.Now() })
		pass(20 * time.Second)
		assert.Equal(t, []string{"cleared: ADT from the wards (adt): messages come again, or are not expected any more."}, w.texts())
		pass(20 * time.Minute)
		assert.Empty(t, w.texts())
	})
}

// Row 30: at 30, 7 and 1 days, and when it is renewed.
func TestACertificateIsToldAtEachLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.certs = []alerts.Certificate{
			{Use: "channel adt, source, tls", Path: "certs/server.crt", Subject: "CN=hl7", NotAfter: time.Now().Add(31 * 24 * time.Hour)},
			{Use: "channel adt, source, tls", Path: "certs/server.crt", Subject: "CN=CA", NotAfter: time.Now().Add(3650 * 24 * time.Hour)},
		}
		defer w.watch()()
		pass(time.Hour)
		assert.Empty(t, w.texts())
		const day = 24 * time.Hour
		for _, step := range []struct {
			left time.Duration
			want string
		}{{30 * day, "ends in 29 days"}, {7*day + time.Hour, ""}, {7 * day, "ends in 6 days"}, {2 * day, ""}, {day, "ends in 0 days"}, {time.Hour, ""}, {0, "has ended at 2000-01-01 0"}} {
			w.change(func() { w.certs[0].NotAfter = time.Now().Add(step.left) })
			pass(time.Minute)
			told := w.texts()
			if step.want == "" {
				assert.Empty(t, told)
				continue
			}
			require.Len(t, told, 1, step.want)
			assert.Contains(t, told[0], "raised: The certificate CN=hl7 in certs/server.crt (channel adt, source, tls) "+step.want)
		}
		w.change(func() {
			w.certs[0].NotAfter = time.Now().Add(90 * 24 * time.Hour)
			w.certs[1] = alerts.Certificate{Use: "channel adt, source, tls", Failure: "certStorePath: no certificate in it"}
		})
		pass(time.Minute)
		assert.ElementsMatch(t, []string{
			"cleared: The certificate CN=hl7 in certs/server.crt (channel adt, source, tls) was renewed.",
			"raised: channel adt, source, tls: the TLS files as they are now cannot be used, so what was read before is: certStorePath: no certificate in it.",
		}, w.texts())
		w.change(func() { w.certs = w.certs[:1] })
		pass(time.Minute)
		assert.Equal(t, []string{"cleared: channel adt, source, tls: the TLS files as they are now are in use."}, w.texts())
	})
}

// Row 7: before the disk is full.
func TestLittleSpaceIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.watch()()
		for _, step := range []struct {
			free int64
			want []string
		}{
			{10, nil},
			{9, []string{"raised: 9.0 % of the data directory's disk is free. When it is full, senders are refused."}},
			{11, nil},
			{9, nil},
			{4, []string{"raised: 4.0 % of the data directory's disk is free. When it is full, senders are refused."}},
			{6, nil},
			{4, nil},
			{12, []string{"cleared: There is enough space on the data directory's disk again."}},
		} {
			w.change(func() { w.free = step.free })
			pass(time.Minute)
			assert.Equal(t, step.want, w.texts(), "%d %%", step.free)
		}
	})
}

// What cannot be told now is told later, in its order, and what the store does not
// say is not taken for well.
func TestAlertsWaitForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.queues["adt"] = []store.DestinationStats{{Name: "lab", Queued: 1, OldestQueued: time.Now()}}
		defer w.watch()()
		pass(10 * time.Minute)
		require.Len(t, w.texts(), 1)
		w.change(func() { w.sick = store.ErrFailed })
		pass(10 * time.Minute)
		assert.Empty(t, w.texts())
		w.change(func() { w.sick, w.mute = nil, &engine.StateError{Command: "send to", State: engine.Paused} })
		pass(10 * time.Minute)
		assert.Empty(t, w.texts())
		w.change(func() { w.mute = nil })
		pass(time.Minute)
		assert.Equal(t, []string{
			"raised: The store accepts no messages: senders are refused. The log says why.",
			"cleared: The store accepts messages again.",
		}, w.texts())
		assert.Equal(t, 1, bytes.Count(w.log.Bytes(), []byte("alerts cannot be told yet")), w.log.String())
	})
}

// A restart tells nobody again what they know, wherever it cuts off the telling.
func TestARestartTellsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.free = 3
		end := w.watch()
		pass(time.Minute)
		end()
		require.Len(t, w.texts(), 1)
		defer w.watch()()
		pass(time.Hour)
		assert.Empty(t, w.texts())
		w.change(func() { w.free = 50 })
		pass(time.Minute)
		assert.Len(t, w.texts(), 1)
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.free, w.mute = 3, engine.ErrUnknownChannel
		end := w.watch()
		pass(time.Minute)
		before, err := os.ReadFile(filepath.Join(w.dir, "alerts.json")) // it is to be told
		require.NoError(t, err)
		w.change(func() { w.mute = nil })
		pass(time.Minute)
		end()
		require.Len(t, w.texts(), 1)
		require.NoError(t, os.WriteFile(filepath.Join(w.dir, "alerts.json"), before, 0o600), "killed before that it was told was written down")
		defer w.watch()()
		pass(time.Hour)
		assert.Empty(t, w.texts(), "the channel knows it")
	})
}

func TestADamagedFileIsRefusedByName(t *testing.T) {
	for _, text := range []string{"", "{", "null", `{"raised":null}`, "[]"} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "alerts.json"), []byte(text), 0o600))
		_, err := alerts.New(newWorld(t), alerts.Options{Directory: dir})
		require.ErrorContains(t, err, filepath.Join(dir, "alerts.json"), text)
	}
}

// The text comes first, which chats show, and nothing in it is escaped for HTML.
func TestAnAlertIsAMessageThatPeopleAndProgramsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.channels[0].Name = "Lab <stat>"
		w.queues["adt"] = []store.DestinationStats{{Name: "lab", Queued: 1, OldestQueued: time.Now()}}
		defer w.watch()()
		pass(6 * time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		require.Len(t, w.told, 1)
		a := w.told[0]
		delete(a, "at")
		delete(a, "since")
		assert.Equal(t, map[string]any{
			"text":  "Lab <stat> (adt) → lab: messages have waited since 2000-01-01 00:00 UTC. In the queue: 1.",
			"alert": "queueing", "state": "raised", "channel": "adt", "destination": "lab", "server": "node-1", "id": "queueing/adt/lab",
		}, a)
	})
}
