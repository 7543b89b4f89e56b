package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/examples/engine/internal/api"
)

// varying are parts of recorded answers that differ from time to time.
var varying = map[string]*regexp.Regexp{
	"ISO":    regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`),
	"ID":     regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`),
	"NUMBER": regexp.MustCompile(`^\d+(\.\d+)?(e\+\d+)?$`),
	"TEXT":   regexp.MustCompile(`^.+$`),
}

// like compares what was recorded with what came. What has been added since does not
// disturb clients that know nothing of it.
func like(t *testing.T, want, got any, at string) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		require.True(t, ok, "%s is no object: %v", at, got)
		for name := range w {
			require.Contains(t, g, name, at)
			like(t, w[name], g[name], at+"."+name)
		}
	case []any:
		g, ok := got.([]any)
		require.True(t, ok && len(g) == len(w), "%s is no list of %d: %v", at, len(w), got)
		for i := range w {
			like(t, w[i], g[i], fmt.Sprintf("%s[%d]", at, i))
		}
	case string:
		if pattern, ok := varying[w]; ok {
			assert.Regexp(t, pattern, fmt.Sprint(got), at)
			return
		}
		assert.Equal(t, want, got, at)
	default:
		assert.Equal(t, want, got, at)
	}
}

// Row 42: what was recorded of the original, asked of the engine in the same order. The
// session is an operator's or an admin's, in X-Session-ID, as its scripts send it.
// Departures are answers that were faults: they are marked.
func TestRequestsRecordedOfTheOriginalAreAnsweredInItsShapes(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{Cluster: &cluster.Auth{Node: "node-1", Secret: clusterSecret}})
	s.SetPhase(api.Ready)
	const (
		form   = "application/x-www-form-urlencoded"
		asJSON = "application/json"
	)
	nobody := header("X-Session-ID", "")
	for i, tt := range []struct {
		request string // METHOD path
		edits   []edit
		code    int
		want    string // JSON; "": no body; otherwise text behind =
	}{
		// 1.2 health
		{"GET /health", []edit{nobody}, 200, `{"status":"ok","timestamp":"ISO"}`},
		{"GET /api", []edit{nobody}, 200, `{"name":"TEXT","version":"3.9.0","runtime":"TEXT"}`},
		{"GET /api/health", []edit{nobody}, 200, `{"status":"ok","serverId":"node-1","uptime":"NUMBER","mode":"standalone"}`},
		{"GET /api/health/live", []edit{nobody}, 200, `{"status":"alive"}`},
		{"GET /api/health/startup", []edit{nobody}, 200, `{"status":"ready","serverId":"node-1"}`},
		{"GET /api/health/channels/fixed", []edit{nobody}, 200, `{"status":"started","channelId":"fixed","serverId":"node-1"}`},
		{"GET /api/health/channels/nope", []edit{nobody}, 503, `{"status":"not_deployed","channelId":"nope","serverId":"node-1"}`},
		// 1.3 signing in, sessions, errors
		{"POST /api/users/_login", []edit{nobody, sends(asJSON, `{"username":"admin","password":"wrong"}`)}, 401, `{"status":"FAIL","message":"Invalid username or password"}`},
		{"POST /api/users/_login", []edit{nobody, sends(form, "username=&password=")}, 401, `{"status":"FAIL","message":"Username and password required"}`},
		{"POST /api/users/_login", []edit{nobody, sends(form, "username=viewer&password=correct+horse+battery")}, 200, `{"status":"SUCCESS","message":"Login successful","updatedUsername":"viewer"}`},
		{"GET /api/users/current", nil, 200, `{"id":1,"username":"admin"}`},
		{"GET /api/users/1/loggedIn", nil, 200, `true`},
		{"GET /api/channels", []edit{nobody}, 401, `{"error":"Unauthorized","message":"Authentication required"}`},
		{"GET /api/nope", nil, 404, `{"error":"Not Found","message":"The requested resource was not found"}`},
		// a departure: malformed JSON and long bodies were 500
		{"POST /api/users/_login", []edit{nobody, sends(asJSON, `{"username":`)}, 400, `{"error":"Bad Request"}`},
		{"POST /api/users/_login", []edit{nobody, sends(asJSON, strings.Repeat(" ", 11<<20))}, 413, `{"error":"Payload Too Large"}`},
		// 1.4 channels; a departure: what a channel is made of has the keys of engine.yaml
		{"POST /api/channels", []edit{sends(asJSON, `{"id":"made","name":"Made","source":{"type":"channel"},"destinations":[{"name":"copy","type":"channel","channelId":"fixed"}]}`)}, 201, `true`},
		{"POST /api/channels", []edit{sends(asJSON, `{"id":"made","name":"Made","source":{"type":"channel"},"destinations":[{"name":"copy","type":"channel","channelId":"fixed"}]}`)}, 409, `{"error":"Channel already exists"}`},
		{"GET /api/channels/idsAndNames", nil, 200, `{"fixed":"From engine.yaml","made":"Made"}`},
		{"GET /api/channels/made", nil, 200, `{"id":"made","name":"Made","revision":1,"enabled":true,"description":"","sourceConnector":{"metaDataId":0,"name":"sourceConnector","enabled":true,"transportName":"Channel Reader","properties":{}},
			"destinationConnectors":[{"metaDataId":1,"name":"copy","enabled":true,"transportName":"Channel Writer","properties":{"channelId":"fixed"},"waitForPrevious":false,"queueEnabled":true}]}`},
		{"POST /api/channels/made/_start?returnErrors=true", nil, 500, `{"error":"Cannot start channel in state: UNDEPLOYED"}`},
		{"POST /api/channels/made/_deploy", nil, 204, ""},
		{"POST /api/channels/made/_start", nil, 204, ""}, // whatever happens
		{"POST /api/channels/made/_start?returnErrors=true", nil, 500, `{"error":"Cannot start channel in state: STARTED"}`},
		{"POST /api/channels/nope/_start", nil, 204, ""},
		// a departure: it was 500
		{"POST /api/channels/nope/_start?returnErrors=true", nil, 404, `{"error":"Channel not found: nope"}`},
		{"POST /api/channels/_stop", []edit{sends(asJSON, `{"channelId":["made"]}`)}, 204, ""},
		{"GET /api/channels/made/status", nil, 200, `{"channelId":"made","name":"Made","state":"STOPPED","deployedRevisionDelta":0,"statistics":{"received":0,"sent":0,"error":0,"filtered":0,"queued":0},
			"childStatuses":[{"channelId":"made","name":"Source","state":"STOPPED","metaDataId":0},{"channelId":"made","name":"copy","metaDataId":1,"queueEnabled":true,"enabled":true,"queued":0}]}`},
		{"POST /api/channels/_start", []edit{sends(form, "channelId=made")}, 204, ""},
		{"POST /api/channels/made/connector/1/_stop", nil, 204, ""},
		{"POST /api/channels/_startConnectors", []edit{sends(asJSON, `[{"channelId":"made","metaDataId":1}]`)}, 204, ""},
		{"GET /api/channels/made/status", nil, 200, `{"state":"STARTED","deployedDate":"ISO","childStatuses":[{"state":"STARTED"},{"state":"STARTED"}]}`},
		{"GET /api/channels/nope/status", nil, 404, `{"error":"Channel not found"}`},
		{"GET /api/channels/statuses?channelId=made&includeUndeployed=true", nil, 200, `[{"channelId":"made","state":"STARTED"}]`},
		{"POST /api/channels/fixed/messages?sourceMapEntry=k=v&destinationMetaDataId=1", []edit{sends("text/plain", "MSH|^~\\&|A\r")}, 200, `{"messageId":1,"processed":false}`},
		{"POST /api/channels/nope/messages", []edit{sends("text/plain", "MSH|")}, 400, `{"error":"Channel not deployed"}`},
		{"GET /api/channels/fixed/messages", nil, 200, `[{"messageId":1,"channelId":"fixed","serverId":"node-1","receivedDate":"ISO","connectorMessages":{"0":{"status":"T"},"1":{"metaDataId":1,"connectorName":"archive"}}}]`},
		{"GET /api/channels/fixed/messages/count", nil, 200, `1`},
		{"GET /api/channels/fixed/messages/maxMessageId", nil, 200, `1`},
		{"GET /api/channels/made/messages/maxMessageId", nil, 200, `0`},
		{"GET /api/channels/fixed/messages/1/content", nil, 200, "=MSH|^~\\&|A\r"},
		{"POST /api/channels/fixed/messages/1/_reprocess", nil, 200, `{"messageId":2,"originalId":1}`},
		{"GET /api/server/version", nil, 200, "=3.9.0"},
		{"GET /api/server/id", nil, 200, "=node-1"},
		{"GET /api/events?limit=1", nil, 200, `[{"id":"NUMBER","dateTime":"ISO","name":"TEXT","outcome":"SUCCESS","username":"admin","ipAddress":"127.0.0.1"}]`},
		{"POST /api/channels/_redeployAll", nil, 204, ""},
		{"POST /api/channels/made/_undeploy", nil, 204, ""},
		{"DELETE /api/channels/made", nil, 204, ""},
		// 1.6 dispatch
		{"POST /api/internal/dispatch", []edit{sends(asJSON, `{"channelId":"fixed","rawData":"MSH|","sourceMap":{"a":"b"}}`), header("X-Cluster-Secret", clusterSecret)}, 200, `{"messageId":3,"status":"QUEUED"}`},
		{"POST /api/internal/dispatch", []edit{sends(asJSON, `{"channelId":"fixed"}`), header("X-Cluster-Secret", clusterSecret)}, 400, `{"error":"Missing channelId or rawData"}`},
		{"POST /api/internal/dispatch", []edit{sends(asJSON, `{"channelId":"nope","rawData":"x"}`), header("X-Cluster-Secret", clusterSecret)}, 500, `{"error":"Channel not deployed: nope"}`},
		{"POST /api/internal/dispatch", []edit{sends(asJSON, `{"channelId":"fixed","rawData":"x"}`), header("X-Cluster-Secret", "wrong")}, 403, `{"error":"Invalid cluster secret"}`},
		// signing out
		{"POST /api/users/_logout", nil, 204, ""},
		{"GET /api/users/current", nil, 401, `{"error":"Unauthorized","message":"Authentication required"}`},
	} {
		method, target, _ := strings.Cut(tt.request, " ")
		w := s.do(method, target, tt.edits...)
		at := fmt.Sprintf("%d %s", i, tt.request)
		require.Equal(t, tt.code, w.Code, "%s: %s", at, w.Body)
		assert.Regexp(t, varying["ID"], w.Header().Get("X-Request-ID"), at)
		switch text, is := strings.CutPrefix(tt.want, "="); {
		case tt.want == "":
			assert.Empty(t, w.Body.String(), at)
		case is:
			assert.Equal(t, text, w.Body.String(), at)
		default:
			var want, got any
			require.NoError(t, json.Unmarshal([]byte(tt.want), &want), at)
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got), "%s: %s", at, w.Body)
			like(t, want, got, at)
		}
	}
}

// Row 42: how far a client gets that keeps configuration in a repository, as mirthsync
// does: it signs in by a form, has a cookie, names itself in X-Requested-With, deploys by
// XML, and is told that nothing can be pulled as XML.
func TestAClientOfXMLSignsInDeploysAndIsToldThatItCannotPull(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{})
	signedIn := request(s, "POST", "/api/users/_login", sends("application/x-www-form-urlencoded", "username=admin&password=correct+horse+battery"),
		header("X-Requested-With", "XMLHttpRequest"))
	require.Equal(t, 200, signedIn.Code)
	cookies := signedIn.Result().Cookies()
	require.Len(t, cookies, 1)
	client := []edit{header("X-Requested-With", "XMLHttpRequest"), header("Accept", "application/xml"), func(r *http.Request) { r.AddCookie(cookies[0]) }}
	deploy := request(s, "POST", "/api/channels/_deploy?returnErrors=true", append(client, sends("application/xml", "<set><string>fixed</string></set>"))...)
	assert.Equal(t, 204, deploy.Code, "%s", deploy.Body)
	pull := request(s, "GET", "/api/channels", client...)
	assert.Equal(t, 406, pull.Code)
	assert.Contains(t, body(t, pull)["message"], "application/json")
	push := request(s, "POST", "/api/channels", append(client, sends("application/xml", "<channel/>"))...)
	assert.Equal(t, 406, push.Code)
	for _, path := range []string{"server/configurationMap", "server/globalScripts", "server/resources", "codeTemplateLibraries", "codeTemplates", "channelgroups", "alerts", "server/configuration"} {
		assert.Equal(t, 404, request(s, "GET", "/api/"+path, client...).Code, path)
	}
}
