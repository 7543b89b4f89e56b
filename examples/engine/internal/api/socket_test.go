package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/serverlog"
)

// client is one end of a WebSocket.
type client struct {
	t    *testing.T
	conn *websocket.Conn
}

// listen serves s on a port until the test ends.
func listen(t *testing.T, s *api.Server) (url string) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

// dial returns a client or, where the server refuses, the status of its answer.
func dial(t *testing.T, url string, edits ...edit) (c *client, status int, err error) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, url, nil)
	for _, f := range edits {
		f(r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: r.Header})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if resp != nil {
		status = resp.StatusCode
	}
	if err != nil {
		return nil, status, err
	}
	conn.SetReadLimit(1 << 20) // statuses come by the hundred
	t.Cleanup(func() { conn.CloseNow() })
	return &client{t, conn}, status, nil
}

func (c *client) send(text string) {
	c.t.Helper()
	require.NoError(c.t, c.conn.Write(c.t.Context(), websocket.MessageText, []byte(text)))
}

func (c *client) receive() map[string]any {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	kind, text, err := c.conn.Read(ctx)
	require.NoError(c.t, err)
	assert.Equal(c.t, websocket.MessageText, kind)
	var m map[string]any
	require.NoError(c.t, json.Unmarshal(text, &m), "%s", text)
	return m
}

// ends returns the code with which the server closes.
func (c *client) ends() websocket.StatusCode {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for {
		if _, _, err := c.conn.Read(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

func connect(t *testing.T, url string, edits ...edit) *client {
	t.Helper()
	c, _, err := dial(t, url, edits...)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"type": "connected", "serverId": "node-1"}, c.receive())
	return c
}

// Row 36: session, role and origin.
func TestWebSocketsAreForWhoMayAndFromWhereTheyMay(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{ServerID: "node-1", Origins: []string{"https://dashboard.example.org"}})
	url := listen(t, s)
	id := login(s, "viewer", password).Header().Get("X-Session-ID")
	own := header("Origin", url)
	for name, tt := range map[string]struct {
		path  string
		edits []edit
		code  int
	}{
		"no session":     {"/ws/dashboardstatus", nil, 401},
		"a stale one":    {"/ws/dashboardstatus", []edit{cookie("stale")}, 401},
		"foreign origin": {"/ws/dashboardstatus", []edit{cookie(id), header("Origin", "https://evil.example.org")}, 403},
		"a viewer's log": {"/ws/serverlog", []edit{cookie(id), own}, 403},
		"an operator's":  {"/ws/serverlog", []edit{as(t, s, "operator"), own}, 403},
		"no such path":   {"/ws/nope", []edit{cookie(id), own}, 404},
	} {
		_, status, err := dial(t, url+tt.path, tt.edits...)
		require.Error(t, err, name)
		assert.Equal(t, tt.code, status, name)
	}
	connect(t, url+"/ws/dashboardstatus", cookie(id), own)
	connect(t, url+"/ws/dashboardstatus", session(id))
	connect(t, url+"/ws/dashboardstatus", cookie(id), header("Origin", "https://dashboard.example.org"))
	connect(t, url+"/ws/serverlog", as(t, s, "admin"))
}

// Row 36: 1008 as soon as the session has ended, in whatever way.
func TestWebSocketsCloseWithTheirSession(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{ServerID: "node-1"})
	url := listen(t, s)
	admin := as(t, s, "admin")
	for name, end := range map[string]func(edit){
		"logout":       func(own edit) { request(s, "POST", "/api/users/_logout", own) },
		"another role": func(edit) { request(s, "PUT", "/api/users/3", admin, sendsJSON(`{"role":"viewer"}`)) },
		"another password": func(edit) {
			request(s, "PUT", "/api/users/3/password", admin, sendsJSON(`{"password":"`+password+`"}`))
		},
	} {
		own := as(t, s, "viewer")
		c := connect(t, url+"/ws/dashboardstatus", own)
		end(own)
		assert.Equal(t, websocket.StatusPolicyViolation, c.ends(), name)
	}
	c := connect(t, url+"/ws/serverlog", admin)
	go s.Close()
	assert.Equal(t, websocket.StatusPolicyViolation, c.ends(), "the end of the server")
}

// Row 36: their number and what they send are bounded.
func TestWebSocketsAreBounded(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{ServerID: "node-1", MaxWebSockets: 1})
	url := listen(t, s)
	admin := as(t, s, "admin")
	first := connect(t, url+"/ws/dashboardstatus", admin)
	second, _, err := dial(t, url+"/ws/dashboardstatus", admin)
	require.NoError(t, err)
	assert.Equal(t, websocket.StatusTryAgainLater, second.ends())
	connect(t, url+"/ws/serverlog", admin) // is counted by itself
	first.send(`{"type":"` + strings.Repeat("x", 5000) + `"}`)
	assert.Equal(t, websocket.StatusMessageTooBig, first.ends())
	require.Eventually(t, func() bool {
		c, _, err := dial(t, url+"/ws/dashboardstatus", admin)
		require.NoError(t, err)
		defer c.conn.CloseNow()
		_, _, err = c.conn.Read(t.Context())
		return err == nil
	}, time.Minute, 10*time.Millisecond, "there is room again")
}

func TestDashboardTellsStatesAndChanges(t *testing.T) {
	f := &changing{fake: fake{state: engine.Started}}
	s := serve(t, f, api.Options{ServerID: "node-1"})
	c := connect(t, listen(t, s)+"/ws/dashboardstatus", as(t, s, "viewer"))
	c.send(`{"type":"ping"}`)
	assert.Equal(t, map[string]any{"type": "pong"}, c.receive())
	for _, bad := range []string{`no JSON`, `{}`, `[]`, `{"type":"getHistory","fetchSize":0}`} {
		c.send(bad)
		assert.Equal(t, map[string]any{"type": "error", "message": "Invalid message format"}, c.receive(), bad)
	}
	c.send(`{"type":"nope"}`)
	assert.Equal(t, map[string]any{"type": "error", "message": "Unknown message type: nope"}, c.receive())

	state := map[string]any{"serverId": "node-1", "channelId": "adt", "metadataId": "0", "status": "CONNECTED", "connectionCount": 2.0, "maxConnectionCount": 10.0}
	c.send(`{"type":"getStates"}`)
	assert.Equal(t, map[string]any{"type": "states", "data": map[string]any{"adt": []any{state}}}, c.receive())
	c.send(`{"type":"subscribe","channelId":"adt"}`)
	assert.Equal(t, map[string]any{"type": "subscribed", "channelId": "adt"}, c.receive())
	f.stopped.Store(true)
	log := c.receive()
	assert.Equal(t, "connectionLog", log["type"])
	data := log["data"].(map[string]any)
	for name, want := range map[string]any{"logId": 1.0, "channelId": "adt", "metadataId": 0.0, "channelName": "MLLPS Receiver", "connectorType": "TCP Listener", "eventState": "DISCONNECTED", "information": "2 of 10 connections"} {
		assert.Equal(t, want, data[name], name)
	}
	change := c.receive()
	assert.Equal(t, "stateChange", change["type"])
	assert.Equal(t, "adt_0", change["connectorId"])
	assert.Equal(t, "DISCONNECTED", change["data"].(map[string]any)["status"])
	c.send(`{"type":"getHistory","channelId":"adt"}`)
	history := c.receive()
	assert.Equal(t, "history", history["type"])
	assert.Len(t, history["data"], 1)
	c.send(`{"type":"unsubscribe"}`)
	assert.Equal(t, map[string]any{"type": "unsubscribed"}, c.receive())
}

func TestServerLogIsFilteredAndFollowed(t *testing.T) {
	recent := serverlog.New(slog.LevelInfo)
	log := slog.New(recent.Handler())
	s := serve(t, &fake{}, api.Options{ServerID: "node-1", ServerLog: recent})
	c := connect(t, listen(t, s)+"/ws/serverlog", as(t, s, "admin"))
	log.Info("before", "n", 1)
	c.send(`{"type":"getHistory","fetchSize":10}`)
	history := c.receive()["data"].([]any)
	require.Len(t, history, 1)
	entry := history[0].(map[string]any)
	for name, want := range map[string]any{"id": 1.0, "serverId": "node-1", "level": "INFO", "message": "before n=1", "category": "api_test"} {
		assert.Equal(t, want, entry[name], name)
	}
	c.send(`{"type":"subscribe","filter":{"level":"WARN"}}`)
	assert.Equal(t, map[string]any{"type": "subscribed", "filter": map[string]any{"level": "WARN"}}, c.receive())
	for i := range 3 {
		log.Info("passed over")
		log.Warn(fmt.Sprint("seen ", i)) //nolint:sloglint // a message of its own
		got := c.receive()
		assert.Equal(t, "log", got["type"])
		assert.Equal(t, fmt.Sprint("seen ", i), got["data"].(map[string]any)["message"])
	}
	c.send(`{"type":"subscribe","filter":{"level":"LOUD"}}`)
	assert.Equal(t, "error", c.receive()["type"])
}
