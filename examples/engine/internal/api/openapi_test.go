package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/engine"
)

func TestDescriptionHasEveryRouteAndItsRule(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	c, n := contractOf(t, s), 0
	paths := c.Paths
	assert.Equal(t, "3.1.0", c.OpenAPI)
	for _, line := range s.Table() {
		if line.Cluster || line.Page {
			assert.NotContains(t, paths, line.Pattern, "there is no secret, and a file of the page is no part of the API")
			continue
		}
		n++
		op, ok := paths[line.Pattern][strings.ToLower(line.Method)]
		require.True(t, ok, line.Pattern)
		assert.Equal(t, line.Summary, op.Summary)
		assert.Equal(t, string(line.Least), op.Least)
		assert.Equal(t, line.Public, len(op.Security) == 0)
		for _, m := range wildcard.FindAllString(line.Pattern, -1) {
			assert.True(t, op.Parameters[0].Required && op.Parameters[0].In == "path", m)
		}
	}
	total := 0
	for _, of := range paths {
		total += len(of)
	}
	assert.Equal(t, n, total, "and no other")
}

func TestServerSaysWhatItIs(t *testing.T) {
	f := &fake{}
	s := serve(t, f, api.Options{ServerID: "node-1"})
	viewer := as(t, s, "viewer")
	get := func(path string) *bytes.Buffer {
		w := request(s, "GET", path, viewer)
		require.Equal(t, 200, w.Code, path)
		return w.Body
	}
	assert.Equal(t, "node-1", get("/api/server/id").String())
	assert.Equal(t, "3.9.0", get("/api/server/version").String())
	assert.Equal(t, "1\n", get("/api/server/status").String(), "it does not take messages in yet")
	s.SetPhase(api.Ready)
	assert.Equal(t, "0\n", get("/api/server/status").String())
	for path, names := range map[string][]string{
		"/api/server/time": {"time", "timeInMillis"}, "/api/system/info": {"jvmVersion", "osName", "osArchitecture", "dbName"},
		"/api/system/stats": {"timestamp", "allocatedMemoryBytes", "freeMemoryBytes", "maxMemoryBytes"},
	} {
		var m map[string]any
		require.NoError(t, json.Unmarshal(get(path).Bytes(), &m))
		for _, name := range names {
			assert.NotEmpty(t, m[name], name)
		}
	}
}

func TestBodiesOfOtherKindsAreRefusedAndNotRead(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{})
	admin := as(t, s, "admin")
	for pattern, of := range contractOf(t, s).Paths {
		for method, op := range of {
			if op.RequestBody == nil {
				continue
			}
			if _, any := op.RequestBody.Content["*/*"]; any {
				continue
			}
			for _, kind := range []string{"image/png", "text/plain", "application/jsonx", "multipart/form-data; boundary=x", "", "/", "*/*"} {
				w := request(s, strings.ToUpper(method), wildcard.ReplaceAllString(pattern, "adt"), admin, header("Content-Type", kind),
					func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(unread{t}), 10 })
				assert.Equal(t, 415, w.Code, "%s %s with %q", method, pattern, kind)
			}
		}
	}
}

// Row 42: there is no XML, and who understands nothing else is told so.
func TestClientsThatUnderstandNoJSONAreToldThatThereIsNothingElse(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{})
	s.SetPhase(api.Ready)
	viewer := as(t, s, "viewer")
	for accept, code := range map[string]int{
		"": 200, "*/*": 200, "application/json": 200, "application/*;q=0.1": 200, "APPLICATION/JSON; charset=utf-8": 200,
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": 200, // a browser
		"application/xml, application/json":                               200,
		"application/xml":                                                 406, "text/plain": 406, "application/json;q=0": 406, "application/json;q=0, */*": 406, "*/*;q=0.0": 406, ";;": 406,
	} {
		w := request(s, "GET", "/api/channels/statuses", viewer, header("Accept", accept))
		assert.Equal(t, code, w.Code, accept)
		if code == 406 {
			assert.Contains(t, body(t, w)["message"], "application/json")
		}
	}
	assert.Equal(t, 200, request(s, "GET", "/api/server/version", viewer, header("Accept", "text/plain")).Code)
	assert.Equal(t, 200, request(s, "GET", "/api/server/version", viewer, header("Accept", "application/json")).Code, "text is text")
	operator := as(t, s, "operator")
	assert.Equal(t, 204, request(s, "POST", "/api/channels/adt/_stop", operator, header("Accept", "application/xml")).Code, "there is nothing to understand")
	for _, probe := range []string{"/health", "/api", "/api/health", "/api/health/live", "/api/health/startup"} {
		assert.Equal(t, 200, request(s, "GET", probe, header("Accept", "text/*")).Code, "%s: whoever asks after health is told", probe)
	}
}
