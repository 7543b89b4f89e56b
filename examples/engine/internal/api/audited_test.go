package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// Row 55: who, when, from where, and what; and nothing without a record.
func TestActionsAreRecordedBeforeAndAfter(t *testing.T) {
	book := new(notebook)
	f := &fake{state: engine.Started}
	s := serve(t, f, api.Options{Audit: book})
	operator, viewer := as(t, s, "operator"), as(t, s, "viewer")
	login(s, "ADMIN", "wrong", from("192.0.2.9"))
	login(s, "hunter2-typed-here", "wrong", from("192.0.2.9"))
	id := header("X-Request-ID", "R-1")
	request(s, "POST", "/api/channels/adt/_stop", operator, id)
	request(s, "POST", "/api/channels/nope/_stop", operator, id)
	request(s, "POST", "/api/channels/adt/_stop", viewer, id)
	request(s, "GET", "/api/channels", viewer)
	request(s, "POST", "/api/users/_logout", viewer, id)

	type short struct {
		action  string
		outcome audit.Outcome
		user    string
		client  string
		notes   map[string]string
	}
	var got []short
	for _, e := range book.events {
		got = append(got, short{e.Action, e.Outcome, e.User, e.Client, e.Attributes})
		if e.Action != "user.login" {
			assert.Equal(t, "R-1", e.Request)
			assert.NotZero(t, e.UserID)
		}
	}
	assert.Equal(t, []short{
		{"user.login", audit.Success, "operator", "127.0.0.1", nil},
		{"user.login", audit.Success, "viewer", "127.0.0.1", nil},
		{"user.login", audit.Failure, "admin", "192.0.2.9", nil},
		{"user.login", audit.Failure, "", "192.0.2.9", nil},
		{"channel.stop", audit.Begun, "operator", "127.0.0.1", map[string]string{"channelId": "adt"}},
		{"channel.stop", audit.Success, "operator", "127.0.0.1", map[string]string{"channelId": "adt", "status": "204"}},
		{"channel.stop", audit.Begun, "operator", "127.0.0.1", map[string]string{"channelId": "nope"}},
		{"channel.stop", audit.Failure, "operator", "127.0.0.1", map[string]string{"channelId": "nope", "status": "204"}},
		{"channel.stop", audit.Failure, "viewer", "127.0.0.1", map[string]string{"reason": "role"}},
		{"user.logout", audit.Begun, "viewer", "127.0.0.1", map[string]string{}},
		{"user.logout", audit.Success, "viewer", "127.0.0.1", map[string]string{"status": "204"}},
	}, got)
}

func TestWithoutTheAuditLogNothingIsDoneThatBelongsInIt(t *testing.T) {
	book := new(notebook)
	f := &fake{state: engine.Started}
	s := serve(t, f, api.Options{Audit: book})
	admin := as(t, s, "admin")
	book.err = errors.New("/secret/audit: no space left on device")
	for _, line := range s.Table() {
		if line.Audit == "" || line.Cluster {
			continue
		}
		w := request(s, line.Method, wildcard.ReplaceAllString(line.Pattern, "1"), admin, sendsJSON(`{}`))
		assert.Equal(t, 503, w.Code, line.Pattern)
		assert.NotContains(t, w.Body.String(), "secret", line.Pattern)
	}
	assert.Empty(t, f.calls)
	w := login(s, "admin", password)
	assert.Equal(t, 503, w.Code)
	assert.Empty(t, w.Header().Get("X-Session-ID"))
	assert.Equal(t, 503, request(s, "GET", "/api/events", admin).Code)
	assert.Equal(t, 200, request(s, "GET", "/api/channels", admin).Code, "what need not be in it goes on")
	book.err = nil
	assert.Equal(t, 204, request(s, "POST", "/api/channels/adt/_stop", admin).Code)
}

func TestEventsAreListedInMirthsShape(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{ServerID: "node-1"})
	admin := as(t, s, "admin")
	request(s, "POST", "/api/channels/nope/_stop", admin)
	w := request(s, "GET", "/api/events?limit=1", admin)
	require.Equal(t, 200, w.Code)
	var list []map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &list))
	require.Len(t, list, 1)
	for name, want := range map[string]any{
		"id": 3.0, "level": "WARNING", "name": "channel.stop", "outcome": "FAILURE", "userId": 1.0, "username": "admin",
		"ipAddress": "127.0.0.1", "serverId": "node-1", "attributes": map[string]any{"channelId": "nope", "status": "204"},
	} {
		assert.Equal(t, want, list[0][name], name)
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "maxEventId=0", "maxEventId=-1", "maxEventId=x"} {
		assert.Equal(t, http.StatusBadRequest, request(s, "GET", "/api/events?"+query, admin).Code, query)
	}
}
