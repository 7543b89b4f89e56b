package engine_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// diary is an Observer that remembers.
type diary struct {
	mu     sync.Mutex
	events []engine.Event
}

func (d *diary) observe(e engine.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

// has tells whether something has happened at least n times; its duration is not
// looked at.
func (d *diary) has(n int, want engine.Event) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		e.Duration = 0
		if e == want {
			n--
		}
	}
	return n <= 0
}

func (d *diary) durations(kind engine.EventKind) []time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []time.Duration
	for _, e := range d.events {
		if e.Kind == kind {
			list = append(list, e.Duration)
		}
	}
	return list
}

// observed runs an engine whose events are written down.
func observed(t *testing.T, st store.Store, channels ...config.Channel) (*running, *diary) {
	t.Helper()
	d := new(diary)
	return startWith(t, st, engine.Options{Observe: d.observe}, channels...), d
}

func TestEventsSayWhatWasAnsweredRefusedAndDelivered(t *testing.T) {
	lab := newReceiver(t)
	var answers sync.Map
	lab.answers(func(id string) error {
		if answer, ok := answers.LoadAndDelete(id); ok {
			return answer.(error)
		}
		return nil
	})
	answers.Store("M2", error(&mllp.Nak{Code: mllp.AE, Text: "later"}))
	p := newPKI(t)
	ch := channel("adt", toTCP("lab", lab.addr))
	ch.Source.TCP.TLS = p.server()
	e, d := observed(t, openStore(t, t.TempDir()), ch)
	conn := dial(t, e.addr("adt"), p.client())
	send(t, conn, "M1", "M2")
	eventually(t, "both delivered", func() bool { return e.stats("adt").Sent == 2 })
	assert.True(t, d.has(2, engine.Event{Kind: engine.Answered, Channel: "adt"}))
	assert.True(t, d.has(2, engine.Event{Kind: engine.Delivered, Channel: "adt", Destination: "lab"}))
	assert.True(t, d.has(1, engine.Event{Kind: engine.Failed, Channel: "adt", Destination: "lab", Reason: engine.ReasonRetryable}))
	assert.NotContains(t, d.durations(engine.Answered), time.Duration(0))
	assert.NotContains(t, d.durations(engine.Delivered), time.Duration(0))

	stranger := newPKI(t).client()
	stranger.TrustStorePath = p.client().TrustStorePath
	conn, err := (&mllp.Dialer{TLS: stranger}).DialContext(t.Context(), "tcp", e.addr("adt"))
	if err == nil { // with TLS 1.3 the refusal comes after the handshake
		_, err = conn.Send(t.Context(), message("M3"))
		_ = conn.Close()
	}
	require.Error(t, err)
	eventually(t, "the stranger is counted", func() bool {
		return d.has(1, engine.Event{Kind: engine.Refused, Channel: "adt", Reason: engine.Reason(mllp.ReasonTLSUnknownAuthority)})
	})
	assert.True(t, engine.Reason(mllp.ReasonTLSUnknownAuthority).Unauthenticated())
	assert.False(t, engine.Reason(mllp.ReasonTruncated).Unauthenticated())
}

func TestEventsSayWhyAMessageWasNotTakenIn(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		onError string
		reason  engine.Reason
	}{
		"not now":           {store.ErrFull, "AE", engine.ReasonUnavailable},
		"not now, silently": {store.ErrFull, "close", engine.ReasonUnavailable},
		"never":             {store.ErrInvalid, "AE", engine.ReasonUnstorable},
	} {
		t.Run(name, func(t *testing.T) {
			st := &spy{openStore(t, t.TempDir()), func(store.Intake) error { return tt.err }}
			ch := channel("adt", toFile("archive", t.TempDir()))
			ch.Source.TCP.OnStoreError = tt.onError
			e, d := observed(t, st, ch)
			_, err := dial(t, e.addr("adt"), nil).Send(t.Context(), message("M1"))
			require.Error(t, err)
			eventually(t, "it is counted", func() bool { return d.has(1, engine.Event{Kind: engine.Refused, Channel: "adt", Reason: tt.reason}) })
			assert.Empty(t, d.durations(engine.Answered))
		})
	}
}

func TestEventsSayWhatAnHTTPSourceAnswered(t *testing.T) {
	refuse := make(map[string]error)
	st := &spy{openStore(t, t.TempDir()), func(in store.Intake) error { return refuse[string(in.Raw)] }}
	refuse["full"] = store.ErrFull
	ch := channel("in", toFile("archive", t.TempDir()))
	ch.Source = config.Source{Type: "http", HTTP: &config.HTTPSource{
		Host: "127.0.0.1", ContextPath: "/", Methods: []string{"POST"}, MaxMessageSize: 100, MaxConnections: 10, Timeout: patience,
		ResponseStatusCode: 202, ResponseContentType: "text/plain", UseAuthentication: true, Username: "ward", Password: "secret",
	}}
	e, d := observed(t, st, ch)
	for _, tt := range []struct {
		body, password string
		status         int
		want           engine.Event
	}{
		{"M1", "secret", 202, engine.Event{Kind: engine.Answered, Channel: "in"}},
		{"M1", "wrong", 401, engine.Event{Kind: engine.Refused, Channel: "in", Reason: engine.ReasonUnauthenticated}},
		{"", "secret", 400, engine.Event{Kind: engine.Refused, Channel: "in", Reason: engine.ReasonBadRequest}},
		{strings.Repeat("x", 101), "secret", 413, engine.Event{Kind: engine.Refused, Channel: "in", Reason: engine.ReasonTooLarge}},
		{"full", "secret", 503, engine.Event{Kind: engine.Refused, Channel: "in", Reason: engine.ReasonUnavailable}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.addr("in")+"/", strings.NewReader(tt.body))
		require.NoError(t, err)
		req.SetBasicAuth("ward", tt.password)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, tt.status, resp.StatusCode)
		eventually(t, "it is counted", func() bool { return d.has(1, tt.want) })
	}
	http.DefaultClient.CloseIdleConnections()
}

// A destination is failing from the first attempt that it did not take until one
// that it did, and says so once each.
func TestStatusSaysSinceWhenADestinationFails(t *testing.T) {
	lab := newReceiver(t)
	lab.down()
	e := start(t, openStore(t, t.TempDir()), channel("adt", toTCP("lab", lab.addr), toFile("archive", t.TempDir())))
	failing := func() []time.Time {
		status, err := e.Status(t.Context(), "adt")
		require.NoError(t, err)
		return status.Failing
	}
	assert.Equal(t, []time.Time{{}, {}}, failing())
	before := time.Now()
	send(t, dial(t, e.addr("adt"), nil), "M1")
	eventually(t, "it fails", func() bool { return !failing()[0].IsZero() })
	since := failing()
	assert.False(t, since[0].Before(before.Truncate(0)))
	assert.True(t, since[1].IsZero())
	eventually(t, "several attempts", func() bool { return e.log.count("delivery failed") >= 3 })
	assert.Equal(t, since[0], failing()[0], "since the first")
	lab.up()
	eventually(t, "well again", func() bool { return failing()[0].IsZero() })
	lab.down()
	send(t, dial(t, e.addr("adt"), nil), "M2")
	eventually(t, "it fails", func() bool { return !failing()[0].IsZero() })
	require.NoError(t, e.StopConnector(t.Context(), "adt", 1))
	assert.True(t, failing()[0].IsZero(), "who tries nothing does not fail")
}

// Events hold no text that a sender or a receiver has chosen.
func TestEventsHoldNothingOfAMessage(t *testing.T) {
	const canary = "KANARI7"
	lab := newReceiver(t)
	lab.answers(func(string) error { return &mllp.Nak{Code: mllp.AR, Text: canary} })
	dest := toTCP("lab", lab.addr)
	dest.Queue.OnPoison = "deadletter"
	e, d := observed(t, openStore(t, t.TempDir()), channel("adt", dest))
	raw := append(message(canary), "NTE|1||"+canary+"\r"...)
	_, err := dial(t, e.addr("adt"), nil).Send(t.Context(), raw)
	require.NoError(t, err)
	sendRaw(t, e.addr("adt"), append([]byte{0x0b}, canary...))
	eventually(t, "set aside, and the rest refused", func() bool {
		return e.stats("adt").Error == 1 && d.has(1, engine.Event{Kind: engine.Refused, Channel: "adt", Reason: engine.Reason(mllp.ReasonTruncated)})
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	assert.False(t, slices.ContainsFunc(d.events, func(e engine.Event) bool {
		return strings.Contains(e.Channel+e.Destination+string(e.Reason), canary)
	}))
}
