package api_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
	"github.com/carewire/carewire/examples/engine/internal/users"
)

// BenchmarkIntakeWhileWatched takes messages in, spread over 10,000 channels, so that
// each of them changes every second, and alternates between nobody who looks and one
// who has subscribed to the statuses of all. slower/% is by how much that slows intake
// down, and statuses/s what the client was told. Where other programs have most of the
// machine, that compares nothing but luck: cpu-ms/10k is what 10,000 statuses took of a
// processor, the client's part included, beyond what the messages take by themselves.
//
//	go test ./examples/engine/internal/api -run '^$' -bench Watched -benchtime 1x
func BenchmarkIntakeWhileWatched(b *testing.B) {
	const channels, senders, segment, pairs = 10_000, 16, 4 * time.Second, 4
	cfg := &config.Config{DataDir: b.TempDir(), Channels: make([]config.Channel, channels)}
	for i := range cfg.Channels {
		cfg.Channels[i] = config.Channel{ID: fmt.Sprintf("c%05d", i), Name: fmt.Sprint("Channel ", i)}
	}
	st, err := sqlite.Open(b.Context(), cfg.DataDir, nil)
	require.NoError(b, err)
	defer st.Close()
	eng := engine.New(cfg, st, engine.Options{})
	eng.StartDestinations()
	defer eng.StopDestinations(context.Background())
	require.NoError(b, eng.StartSources(b.Context()))
	defer func() { _ = eng.StopSources(context.Background()) }()
	people, err := users.Open(filepath.Join(b.TempDir(), "users.json"), cheap)
	require.NoError(b, err)
	_, err = people.Create(b.Context(), "viewer", password, users.Viewer)
	require.NoError(b, err)
	s, err := api.New(eng, api.Options{Users: people, Audit: new(notebook)})
	require.NoError(b, err)
	defer s.Close()
	server := httptest.NewServer(s)
	defer server.Close()
	session := login(s, "viewer", password).Header().Get("X-Session-ID")

	var told atomic.Int64
	watch := func() (stop func()) {
		ctx, cancel := context.WithCancel(b.Context())
		conn, _, err := websocket.Dial(ctx, server.URL+"/ws/dashboardstatus", &websocket.DialOptions{HTTPHeader: http.Header{"X-Session-ID": {session}}}) //nolint:bodyclose // a WebSocket's has none
		require.NoError(b, err)
		conn.SetReadLimit(1 << 20)
		require.NoError(b, conn.Write(ctx, websocket.MessageText, []byte(`{"type":"subscribe","statuses":true}`)))
		read := func() bool {
			_, text, err := conn.Read(ctx)
			told.Add(int64(bytes.Count(text, []byte(`"childStatuses"`))))
			return err == nil
		}
		for told.Store(0); told.Load() < channels && read(); { // the first picture
		}
		told.Store(0)
		var gone sync.WaitGroup
		gone.Go(func() {
			defer conn.CloseNow()
			for read() {
			}
		})
		return func() { cancel(); gone.Wait() }
	}
	raw := []byte("MSH|^~\\&|HIS|WARD|ENGINE|LAB|20260101120000||ADT^A01^ADT_A01|M1|T|2.5\rPID|1||X\r")
	var next atomic.Int64
	take := func() (taken, cpu float64) {
		begun, used := time.Now(), cpuTime(b)
		var n atomic.Int64
		var sending sync.WaitGroup
		for range senders {
			sending.Go(func() {
				for time.Since(begun) < segment {
					id := cfg.Channels[next.Add(1)%channels].ID
					if _, err := eng.Inject(b.Context(), id, engine.Injected{Raw: raw}); err != nil {
						b.Error(err)
						return
					}
					n.Add(1)
				}
			})
		}
		sending.Wait()
		return float64(n.Load()), (cpuTime(b) - used).Seconds()
	}
	b.ReportAllocs()
	for b.Loop() {
		take() // the first message of each channel makes its queue
		var alone, watched, cpuAlone, cpuWatched, statuses float64
		for range pairs {
			n, cpu := take()
			alone, cpuAlone = alone+n, cpuAlone+cpu
			stop := watch()
			n, cpu = take()
			watched, cpuWatched = watched+n, cpuWatched+cpu
			stop()
			statuses += float64(told.Load())
		}
		const seconds = pairs * float64(segment) / float64(time.Second)
		b.ReportMetric(alone/seconds, "alone/s")
		b.ReportMetric(watched/seconds, "watched/s")
		b.ReportMetric(100*(1-watched/alone), "slower/%")
		b.ReportMetric(statuses/seconds, "statuses/s")
		b.ReportMetric(1000*(cpuWatched-watched*cpuAlone/alone)/(statuses/10_000), "cpu-ms/10k")
	}
}

// cpuTime is what this process has had of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
