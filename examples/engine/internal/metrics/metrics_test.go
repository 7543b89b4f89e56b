package metrics_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/metrics"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/tlsprops"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// standing is an engine that stands still.
type standing struct {
	channels []*config.Channel
	status   map[string]engine.Status
	sick     error
	certs    []engine.CertificateUse
}

func (s *standing) Certificates(context.Context) []engine.CertificateUse { return s.certs }

func (s *standing) Channels() []*config.Channel { return s.channels }
func (s *standing) Healthy() error              { return s.sick }

func (s *standing) Status(_ context.Context, id string) (engine.Status, error) {
	status, ok := s.status[id]
	if !ok {
		return engine.Status{}, errors.New("the store does not answer")
	}
	return status, nil
}

func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", http.NoBody))
	require.Equal(t, http.StatusOK, w.Code)
	return w.Body.String()
}

// value returns what stands behind a series, or nothing.
func value(text, series string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func adt() *standing {
	cfg := &config.Channel{ID: "adt", Destinations: []config.Destination{{Name: "lab"}, {Name: "new"}}}
	return &standing{
		channels: []*config.Channel{cfg, {ID: "silent"}},
		status: map[string]engine.Status{"adt": {
			Config: cfg, State: engine.Started, Listener: engine.Listener{Connections: 3},
			Failing: []time.Time{time.Now().Add(-time.Minute), {}},
			Statistics: store.Stats{
				Received: 10, Filtered: 1,
				Destinations: []store.DestinationStats{
					{Name: "gone", Received: 2, Queued: 2, OldestQueued: time.Now().Add(-time.Hour)},
					{Name: "lab", Received: 9, Sent: 6, Queued: 2, Error: 1, OldestQueued: time.Now().Add(-time.Minute)},
				},
			},
		}},
	}
}

func TestWhatQueuesHoldIsReadFromTheEngine(t *testing.T) {
	m := metrics.New()
	m.Watch(adt(), t.TempDir(), nil)
	text := scrape(t, m)
	for series, want := range map[string]string{
		`carewire_store_healthy`:                                             "1",
		`carewire_channel_started{channel="adt"}`:                            "1",
		`carewire_channel_connections{channel="adt"}`:                        "3",
		`carewire_received_total{channel="adt"}`:                             "10",
		`carewire_filtered_total{channel="adt"}`:                             "1",
		`carewire_queue_received_total{channel="adt",destination="lab"}`:     "9",
		`carewire_queue_sent_total{channel="adt",destination="lab"}`:         "6",
		`carewire_queue_depth{channel="adt",destination="lab"}`:              "2",
		`carewire_dead_letters{channel="adt",destination="lab"}`:             "1",
		`carewire_queue_depth{channel="adt",destination="new"}`:              "0", // nothing has come for it yet
		`carewire_queue_oldest_age_seconds{channel="adt",destination="new"}`: "0",
		`carewire_queue_failing_seconds{channel="adt",destination="new"}`:    "0",
		`carewire_queue_depth{channel="adt",destination="gone"}`:             "2", // no configuration has it, and it holds messages
		`carewire_channel_started{channel="silent"}`:                         "",  // the store did not answer for it
		`carewire_authentication_failures_total{interface="api"}`:            "0",
		`carewire_authentication_failures_total{interface="channels"}`:       "0",
		`carewire_acknowledgement_seconds_count{channel="adt"}`:              "",
	} {
		assert.Equal(t, want, value(text, series), series)
	}
	assert.Regexp(t, `carewire_queue_oldest_age_seconds\{channel="adt",destination="lab"\} [67]\d`, text)
	assert.Regexp(t, `carewire_queue_failing_seconds\{channel="adt",destination="lab"\} [67]\d`, text)
	assert.Regexp(t, `carewire_disk_free_bytes [1-9]`, text)
}

func TestASickStoreIsSeen(t *testing.T) {
	m, e := metrics.New(), adt()
	e.sick = store.ErrFull
	m.Watch(e, t.TempDir(), nil)
	assert.Equal(t, "0", value(scrape(t, m), "carewire_store_healthy"))
}

func TestWhatHappensInChannelsIsCounted(t *testing.T) {
	m := metrics.New()
	for _, e := range []engine.Event{
		{Kind: engine.Answered, Channel: "adt", Duration: 3 * time.Millisecond},
		{Kind: engine.Refused, Channel: "adt", Reason: "truncated"},
		{Kind: engine.Refused, Channel: "adt", Reason: "tls_bad_certificate"},
		{Kind: engine.Refused, Channel: "adt", Reason: engine.ReasonUnauthenticated},
		{Kind: engine.Delivered, Channel: "adt", Destination: "lab", Duration: 2 * time.Second},
		{Kind: engine.Failed, Channel: "adt", Destination: "lab", Reason: engine.ReasonUnknown},
	} {
		m.Observe(e)
	}
	m.Unauthenticated(metrics.API)
	text := scrape(t, m)
	for series, want := range map[string]string{
		`carewire_acknowledgement_seconds_bucket{channel="adt",le="0.0025"}`:                  "0",
		`carewire_acknowledgement_seconds_bucket{channel="adt",le="0.005"}`:                   "1",
		`carewire_refused_total{channel="adt",reason="truncated"}`:                            "1",
		`carewire_refused_total{channel="adt",reason="tls_bad_certificate"}`:                  "1",
		`carewire_authentication_failures_total{interface="channels"}`:                        "2",
		`carewire_authentication_failures_total{interface="api"}`:                             "1",
		`carewire_delivery_seconds_sum{channel="adt",destination="lab"}`:                      "2",
		`carewire_delivery_failures_total{channel="adt",destination="lab",reason="unknown"}`:  "1",
		`carewire_delivery_failures_total{channel="adt",destination="lab",reason="rejected"}`: "",
	} {
		assert.Equal(t, want, value(text, series), series)
	}
}

// Row 57: when the first certificate of each setting ends, and what was not taken up.
func TestCertificatesAreTold(t *testing.T) {
	ends := func(days int) time.Time { return time.Unix(int64(1_900_000_000+days*86400), 0) }
	e := adt()
	e.channels[0].Destinations[0].Name = "lab"
	e.certs = []engine.CertificateUse{
		{Channel: e.channels[0], Setting: "tls", Status: tlsprops.Status{Certificates: []tlsprops.Certificate{
			{Use: tlsprops.UseLeaf, NotAfter: ends(1)}, {Use: tlsprops.UseCA, NotAfter: ends(3)}, {Use: tlsprops.UseCA, NotAfter: ends(2)},
		}}},
		{Channel: e.channels[0], Connector: 1, Setting: "tls", Err: errors.New("half a file")},
	}
	m := metrics.New()
	m.Watch(e, t.TempDir(), nil)
	text := scrape(t, m)
	for series, want := range map[string]string{
		`carewire_certificate_not_after_timestamp_seconds{channel="adt",connector="source",setting="tls",use="leaf"}`: "1.9000864e+09",
		`carewire_certificate_not_after_timestamp_seconds{channel="adt",connector="source",setting="tls",use="ca"}`:   "1.9001728e+09",
		`carewire_certificate_replacement_failed{channel="adt",connector="source",setting="tls"}`:                     "0",
		`carewire_certificate_replacement_failed{channel="adt",connector="lab",setting="tls"}`:                        "1",
	} {
		assert.Equal(t, want, value(text, series), series)
	}
}

// answering is a store whose intake ends as it is told.
type answering struct {
	store.Store
	err error
}

func (a *answering) Intake(context.Context, store.Intake) (int64, error) { return 1, a.err }
func (a *answering) Forward(context.Context, *store.Delivery, store.Intake) (int64, error) {
	return 1, a.err
}

func TestCommitsAreMeasuredAndFailuresAreNot(t *testing.T) {
	m, inner := metrics.New(), new(answering)
	st := m.Store(inner)
	_, err := st.Intake(t.Context(), store.Intake{Channel: "adt"})
	require.NoError(t, err)
	_, err = st.Forward(t.Context(), nil, store.Intake{Channel: "next"})
	require.NoError(t, err)
	inner.err = store.ErrFull
	_, err = st.Intake(t.Context(), store.Intake{Channel: "adt"})
	require.ErrorIs(t, err, store.ErrFull)
	_, err = st.Forward(t.Context(), nil, store.Intake{Channel: "full"})
	require.ErrorIs(t, err, store.ErrFull)
	text := scrape(t, m)
	assert.Equal(t, "1", value(text, `carewire_commit_seconds_count{channel="adt"}`))
	assert.Equal(t, "1", value(text, `carewire_commit_seconds_count{channel="next"}`))
	assert.Equal(t, "2", value(text, `carewire_commit_failures_total`))
	assert.Regexp(t, `carewire_last_received_timestamp_seconds\{channel="adt"\} 1\.\d+e\+09`, text)
	assert.NotContains(t, text, `channel="full"`)
}

// The names are as Prometheus's own rules want them.
func TestNamesFollowTheRules(t *testing.T) {
	m := metrics.New()
	m.Watch(adt(), t.TempDir(), nil)
	m.Observe(engine.Event{Kind: engine.Answered, Channel: "adt"})
	m.Observe(engine.Event{Kind: engine.Refused, Channel: "adt", Reason: "truncated"})
	m.Observe(engine.Event{Kind: engine.Delivered, Channel: "adt", Destination: "lab"})
	m.Observe(engine.Event{Kind: engine.Failed, Channel: "adt", Destination: "lab", Reason: engine.ReasonRejected})
	text := scrape(t, m)
	problems, err := promlint.New(bytes.NewBufferString(text)).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
}
