package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/tlsprops"
)

// fake is an engine with one channel, "adt".
type fake struct {
	idle

	state     engine.State
	sick      error
	statusErr error
	calls     []string
}

var configured = &config.Channel{
	ID: "adt", Name: "MLLPS Receiver",
	Source: config.Source{Type: "tcp", TCP: &config.TCPSource{
		Host: "127.0.0.1", Port: 6661, MaxConnections: 10,
		TLS: &tlsprops.TlsProperties{Enabled: true, KeyStorePath: "/secret/server.key", Passphrase: "hunter2", Pins: []string{"sha256/pin"}},
	}},
	Destinations: []config.Destination{
		{Name: "lab", Type: "tcp", TCP: &config.TCPDestination{Host: "lab.example.org", Port: 6662}},
		{Name: "archive", Type: "file", File: &config.FileDestination{Directory: "/secret/dir"}},
		{Name: "copy", Type: "channel", Channel: &config.ChannelDestination{ChannelID: "out"}},
	},
}

func (f *fake) Channels() []*config.Channel { return []*config.Channel{configured} }

func (f *fake) known(id string) error {
	if id != "adt" {
		return fmt.Errorf("%w: %s", engine.ErrUnknownChannel, id)
	}
	return nil
}

func (f *fake) State(id string) (engine.State, error) { return f.state, f.known(id) }

func (f *fake) Status(_ context.Context, id string) (engine.Status, error) {
	if err := f.known(id); err != nil {
		return engine.Status{}, err
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	return engine.Status{
		Config: configured, State: f.state, Deployed: at,
		Listener: engine.Listener{Host: "127.0.0.1", Port: 6661, Transport: "MLLPS", Connections: 2, MaxConnections: 10, Listening: true},
		Statistics: store.Stats{Received: 9, Filtered: 1, Sent: 14, Queued: 3, Error: 2, Destinations: []store.DestinationStats{
			{Name: "lab", Received: 8, Sent: 4, Queued: 3, Error: 1, OldestQueued: at},
		}},
	}, f.statusErr
}

func (f *fake) Statuses(ctx context.Context) ([]engine.Status, error) {
	status, err := f.Status(ctx, "adt")
	return []engine.Status{status}, err
}

func (f *fake) command(name, id string) error {
	f.calls = append(f.calls, name+" "+id)
	if err := f.known(id); err != nil {
		return err
	}
	if f.state == engine.Started == (name == "start") {
		return &engine.StateError{Command: name, State: f.state}
	}
	return nil
}

func (f *fake) StartChannel(_ context.Context, id string) error { return f.command("start", id) }
func (f *fake) StopChannel(_ context.Context, id string) error  { return f.command("stop", id) }
func (f *fake) Healthy() error                                  { return f.sick }

func TestHealthFollowsTheLifeOfTheProcess(t *testing.T) {
	f := &fake{state: engine.Started}
	s := serve(t, f, api.Options{ServerID: "node-1"})
	type expectation struct {
		code   int
		status string
	}
	check := func(when string, want map[string]expectation) {
		t.Helper()
		for path, w := range want {
			got := request(s, "GET", path)
			assert.Equal(t, w.code, got.Code, "%s, %s", when, path)
			assert.Equal(t, w.status, body(t, got)["status"], "%s, %s", when, path)
			assert.Equal(t, "application/json; charset=utf-8", got.Header().Get("Content-Type"))
		}
	}
	check("starting", map[string]expectation{
		"/health": {200, "ok"}, "/api/health": {503, "starting"}, "/api/health/live": {200, "alive"}, "/api/health/startup": {503, "starting"},
	})
	s.SetPhase(api.Ready)
	check("ready", map[string]expectation{
		"/health": {200, "ok"}, "/api/health": {200, "ok"}, "/api/health/live": {200, "alive"}, "/api/health/startup": {200, "ready"},
		"/api/health/channels/adt": {200, "started"}, "/api/health/channels/nope": {503, "not_deployed"},
	})
	f.sick, f.state = errors.New("/secret/path: input/output error"), engine.Stopped
	check("store broken", map[string]expectation{
		"/health": {200, "ok"}, "/api/health": {503, "store_unavailable"}, "/api/health/live": {200, "alive"}, "/api/health/startup": {200, "ready"},
		"/api/health/channels/adt": {503, "stopped"},
	})
	assert.NotContains(t, request(s, "GET", "/api/health").Body.String(), "secret")
	f.sick = nil
	s.SetPhase(api.ShuttingDown)
	check("shutting down", map[string]expectation{
		"/api/health": {503, "shutting_down"}, "/api/health/live": {200, "alive"}, "/api/health/startup": {200, "ready"},
	})

	ready := body(t, request(s, "GET", "/api/health"))
	assert.Equal(t, "node-1", ready["serverId"])
	assert.Contains(t, ready, "uptime")
	assert.Equal(t, "standalone", ready["mode"])
	_, err := time.Parse("2006-01-02T15:04:05.000Z", body(t, request(s, "GET", "/health"))["timestamp"].(string))
	require.NoError(t, err)
	about := body(t, request(s, "GET", "/api"))
	for _, key := range []string{"name", "version", "runtime"} {
		assert.NotEmpty(t, about[key], key)
	}
	channelHealth := body(t, request(s, "GET", "/api/health/channels/adt"))
	assert.Equal(t, "adt", channelHealth["channelId"])
	assert.Equal(t, "node-1", channelHealth["serverId"])
}

func TestStatusHasTheShapeThatClientsKnow(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{})
	viewer := as(t, s, "viewer")
	w := request(s, "GET", "/api/channels/adt/status", viewer)
	require.Equal(t, 200, w.Code)
	assert.JSONEq(t, `{
		"channelId": "adt", "name": "MLLPS Receiver", "state": "STARTED",
		"deployedDate": "2026-01-02T03:04:05.678Z", "deployedRevisionDelta": 0,
		"statistics": {"received": 9, "sent": 14, "error": 2, "filtered": 1, "queued": 3},
		"listenerInfo": {"port": 6661, "host": "127.0.0.1", "connectionCount": 2, "maxConnections": 10, "transportType": "MLLPS", "listening": true},
		"childStatuses": [
			{"channelId": "adt", "name": "Source", "state": "STARTED", "metaDataId": 0, "transportName": "TCP Listener", "queueEnabled": false, "enabled": true, "queued": 0,
			 "statistics": {"received": 9, "sent": 0, "error": 0, "filtered": 1, "queued": 0}},
			{"channelId": "adt", "name": "lab", "state": "STARTED", "metaDataId": 1, "transportName": "TCP Sender", "queueEnabled": true, "enabled": true, "queued": 3,
			 "oldestQueued": "2026-01-02T03:04:05.678Z", "statistics": {"received": 8, "sent": 4, "error": 1, "filtered": 0, "queued": 3}},
			{"channelId": "adt", "name": "archive", "state": "STARTED", "metaDataId": 2, "transportName": "File Writer", "queueEnabled": true, "enabled": true, "queued": 0,
			 "statistics": {"received": 0, "sent": 0, "error": 0, "filtered": 0, "queued": 0}},
			{"channelId": "adt", "name": "copy", "state": "STARTED", "metaDataId": 3, "transportName": "Channel Writer", "queueEnabled": true, "enabled": true, "queued": 0,
			 "statistics": {"received": 0, "sent": 0, "error": 0, "filtered": 0, "queued": 0}}
		]}`, w.Body.String())

	w = request(s, "GET", "/api/channels/nope/status", viewer)
	assert.Equal(t, 404, w.Code)
	assert.JSONEq(t, `{"error": "Channel not found"}`, w.Body.String())

	s = serve(t, &fake{statusErr: errors.New("/secret: broken")}, api.Options{})
	w = request(s, "GET", "/api/channels/adt/status", as(t, s, "viewer"))
	assert.Equal(t, 503, w.Code)
	assert.NotContains(t, w.Body.String(), "secret")
}

func TestChannelsAreListedWithoutSecrets(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	w := request(s, "GET", "/api/channels", as(t, s, "viewer"))
	require.Equal(t, 200, w.Code)
	var list []map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &list))
	require.Len(t, list, 1)
	assert.Equal(t, "adt", list[0]["id"])
	source := list[0]["sourceConnector"].(map[string]any)
	assert.Equal(t, "TCP Listener", source["transportName"])
	assert.Equal(t, map[string]any{"host": "127.0.0.1", "port": "6661"}, source["properties"].(map[string]any)["listenerConnectorProperties"])
	destinations := list[0]["destinationConnectors"].([]any)
	require.Len(t, destinations, 3)
	lab := destinations[0].(map[string]any)
	assert.InEpsilon(t, 1, lab["metaDataId"], 0)
	assert.Equal(t, "lab.example.org", lab["properties"].(map[string]any)["remoteAddress"])
	assert.Equal(t, true, lab["queueEnabled"])
	for _, secret := range []string{"hunter2", "/secret", "sha256/"} {
		assert.NotContains(t, w.Body.String(), secret)
	}
}

func TestCommandsAnswer204UnlessAskedForErrors(t *testing.T) {
	for _, tt := range []struct {
		target string
		state  engine.State
		code   int
		body   string
	}{
		{"/api/channels/adt/_start", engine.Stopped, 204, ""},
		{"/api/channels/adt/_start", engine.Started, 204, ""},
		{"/api/channels/nope/_start", engine.Stopped, 204, ""},
		{"/api/channels/adt/_start?returnErrors=true", engine.Stopped, 204, ""},
		{"/api/channels/adt/_start?returnErrors=true", engine.Started, 500, `{"error": "Cannot start channel in state: STARTED"}`},
		{"/api/channels/adt/_stop?returnErrors=true", engine.Stopped, 500, `{"error": "Cannot stop channel in state: STOPPED"}`},
		{"/api/channels/nope/_stop?returnErrors=true", engine.Started, 404, `{"error": "Channel not found: nope"}`},
		{"/api/channels/adt/_stop", engine.Started, 204, ""},
	} {
		f := &fake{state: tt.state}
		s := serve(t, f, api.Options{})
		w := request(s, "POST", tt.target, as(t, s, "operator"))
		assert.Equal(t, tt.code, w.Code, tt.target)
		if tt.body == "" {
			assert.Empty(t, w.Body.String(), tt.target)
		} else {
			assert.JSONEq(t, tt.body, w.Body.String(), tt.target)
		}
		assert.Len(t, f.calls, 1, tt.target)
	}
}

func TestWhatIsNotThereIsA404InJSON(t *testing.T) {
	f := &fake{state: engine.Started}
	s := serve(t, f, api.Options{})
	for _, r := range []string{"GET /api/nope", "GET /api/channels/adt/_stop", "POST /health", "DELETE /api/channels/adt/_stop", "POST /api/channels/adt/_nope"} {
		method, target, _ := strings.Cut(r, " ")
		w := request(s, method, target)
		assert.Equal(t, 404, w.Code, r)
		assert.JSONEq(t, `{"error": "Not Found", "message": "The requested resource was not found"}`, w.Body.String(), r)
	}
	assert.Empty(t, f.calls)
}

// broken is an engine that panics.
type broken struct{ fake }

func (*broken) Channels() []*config.Channel { panic("PID|secret") }

func TestPanicIsA500AndNotTheEnd(t *testing.T) {
	var log bytes.Buffer
	s := serve(t, &broken{}, api.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w := request(s, "GET", "/api/channels", as(t, s, "viewer"))
	assert.Equal(t, 500, w.Code)
	assert.JSONEq(t, `{"error": "Internal Server Error"}`, w.Body.String())
	assert.Contains(t, log.String(), "panic in the API")
	assert.NotContains(t, log.String(), "secret")
	assert.Equal(t, 200, request(s, "GET", "/health").Code)
}
