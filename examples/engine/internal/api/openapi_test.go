package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// operation is what the tests read of an operation.
type operation struct {
	Summary    string
	Responses  map[string]any
	Security   []map[string]any
	Least      string `json:"x-least-role"`
	Parameters []struct {
		Name, In string
		Required bool
	}
	RequestBody struct{ Content map[string]any }
}

func described(t *testing.T, s http.Handler) map[string]map[string]operation {
	t.Helper()
	w := request(s, "GET", "/api/openapi.json")
	require.Equal(t, 200, w.Code)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]operation
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &doc))
	assert.Equal(t, "3.1.0", doc.OpenAPI)
	return doc.Paths
}

func TestDescriptionHasEveryRouteAndItsRule(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	paths, n := described(t, s), 0
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

// What the handlers answer, to whatever is sent to them, is what the description
// says that they may.
func TestAnswersAreAmongThoseDescribed(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{})
	s.SetPhase(api.Ready)
	bodies := []string{"", "null", "[]", "{}", `{"role":7}`, `{"username":"x","password":"y","role":"z"}`, "\x00", strings.Repeat("[", 20_000), strings.Repeat(" ", 2<<20)}
	who, round := as(t, s, "admin"), 0
	for pattern, of := range described(t, s) {
		if strings.Contains(pattern, "/ws/") {
			continue
		}
		for method, op := range of {
			for _, value := range []string{"adt", "0", "-1", "%00", "..%2f..", strings.Repeat("9", 30), "1"} {
				for _, text := range bodies {
					round++
					if method == "get" && text != "" {
						continue
					}
					target := wildcard.ReplaceAllString(pattern, value)
					for _, p := range op.Parameters {
						if p.In == "query" {
							target += "?" + p.Name + "=" + value
							break
						}
					}
					address := from(fmt.Sprintf("10.%d.%d.%d", round>>16, round>>8&255, round&255))
					w := request(s, strings.ToUpper(method), target, who, sendsJSON(text), address)
					if w.Code == 401 || pattern == "/api/users/_logout" { // the session was one of those that it ended
						who = as(t, s, "admin", address)
					}
					_, exact := op.Responses[fmt.Sprint(w.Code)]
					_, class := op.Responses[fmt.Sprintf("%dXX", w.Code/100)]
					assert.True(t, exact || class, "%s %s %.40q: %d %s", method, target, text, w.Code, w.Body)
					if !strings.HasPrefix(target, "/api/health") && !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") && w.Body.Len() > 0 {
						assert.True(t, json.Valid(w.Body.Bytes()), "%s %s: %s", method, target, w.Body)
					}
					assert.NotContains(t, w.Body.String(), "goroutine 1", "no stack")
				}
			}
		}
	}
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
