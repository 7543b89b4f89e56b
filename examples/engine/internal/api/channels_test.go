package api_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/catalog"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
	"github.com/carewire/carewire/mllp"
)

// site is an engine with its API, and an admin's session.
type site struct {
	*api.Server

	t      *testing.T
	dir    string
	log    *bytes.Buffer
	engine *engine.Engine
	admin  edit
	close  func()
}

func environment(name string) (string, bool) { return "hunter2-from-the-environment", name == "SECRET" }

// open runs an engine on dir with one configured channel, "fixed", which files what it
// gets, and those that are stored.
func open(t *testing.T, dir string, opts api.Options) *site {
	t.Helper()
	st, err := sqlite.Open(t.Context(), dir, &sqlite.Options{Reserve: -1})
	require.NoError(t, err)
	cfg := &config.Config{Channels: []config.Channel{{
		ID: "fixed", Name: "From engine.yaml", Source: config.Source{Type: "channel"},
		Destinations: []config.Destination{{
			Name: "archive", Type: "file", File: &config.FileDestination{Directory: filepath.Join(dir, "fixed")},
			Queue: config.Queue{RetryInterval: 5 * time.Millisecond, OnPoison: "block"},
		}},
	}}}
	stored := catalog.Directory(dir)
	require.NoError(t, config.LoadStored(stored, cfg, environment))
	s := &site{t: t, dir: dir, log: new(bytes.Buffer)}
	s.engine = engine.New(cfg, st, engine.Options{})
	s.engine.StartDestinations()
	require.NoError(t, s.engine.StartSources(t.Context()))
	opts.Catalog, opts.ServerID = catalog.New(stored, s.engine, environment), "node-1"
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(s.log, nil))
	}
	s.Server = serve(t, s.engine, opts)
	s.admin = as(t, s, "admin")
	closed := false
	s.close = func() {
		if closed {
			return
		}
		closed = true
		ctx := context.Background()
		_ = s.engine.StopSources(ctx)
		s.engine.StopDestinations(ctx)
		_ = st.Close()
	}
	t.Cleanup(s.close)
	return s
}

// do makes a request as admin.
func (s *site) do(method, target string, edits ...edit) *httptest.ResponseRecorder {
	return request(s, method, target, append([]edit{s.admin}, edits...)...)
}

// must makes a request as admin that must be answered with code, and returns the JSON.
func (s *site) must(code int, method, target string, edits ...edit) any {
	s.t.Helper()
	w := s.do(method, target, edits...)
	require.Equal(s.t, code, w.Code, "%s %s: %s", method, target, w.Body)
	var v any
	if w.Body.Len() > 0 {
		require.NoError(s.t, json.Unmarshal(w.Body.Bytes(), &v))
	}
	return v
}

func (s *site) eventually(what string, holds func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not in time: %s", what)
		}
	}
}

func sendsYAML(text string) edit { return sends("application/yaml", text) }

// listening is a channel in YAML.
func listening(id string, port int, more string) string {
	return fmt.Sprintf("id: %s\nname: Ward %s\n%ssource: {type: tcp, host: 127.0.0.1, port: %d}\ndestinations:\n"+
		"  - {name: archive, type: file, directory: ../%s}\n", id, id, more, port, id)
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func sendTo(t *testing.T, port int, id string) error {
	t.Helper()
	conn, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Send(t.Context(), []byte("MSH|^~\\&|A|B|C|D|20260101||ADT^A01|"+id+"|T|2.5\rPID|1\r"))
	return err
}

func TestChannelIsMadeChangedAndRemovedOverHTTP(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	s := open(t, dir, api.Options{})
	text := listening("ward", port, "# by hand\n")
	assert.Equal(t, true, s.must(201, "POST", "/api/channels", sendsYAML(text)))
	assert.Equal(t, map[string]any{"error": "Channel already exists"}, s.must(409, "POST", "/api/channels", sendsYAML(text)))
	assert.Equal(t, map[string]any{"fixed": "From engine.yaml", "ward": "Ward ward"}, s.must(200, "GET", "/api/channels/idsAndNames"))
	require.Error(t, sendTo(t, port, "M0"), "not deployed")
	assert.Len(t, s.must(200, "GET", "/api/channels/statuses"), 1)
	assert.Len(t, s.must(200, "GET", "/api/channels/statuses?includeUndeployed=true"), 2)

	s.must(204, "POST", "/api/channels/ward/_deploy?returnErrors=true")
	require.NoError(t, sendTo(t, port, "M1"))
	list := s.must(200, "GET", "/api/channels/statuses?filter=WARD").([]any)
	require.Len(t, list, 1)
	assert.Equal(t, "STARTED", list[0].(map[string]any)["state"])

	w := s.do("GET", "/api/channels/ward/definition")
	assert.Equal(t, text, w.Body.String())
	assert.Equal(t, "application/yaml; charset=utf-8", w.Header().Get("Content-Type"))
	kept, err := os.ReadFile(filepath.Join(dir, "channels", "ward.yaml"))
	require.NoError(t, err)
	assert.Equal(t, text, string(kept))

	// Another port, as JSON, while it runs.
	other := freePort(t)
	asJSON := fmt.Sprintf(`{"id": "ward", "source": {"type": "tcp", "host": "127.0.0.1", "port": %d},
		"destinations": [{"name": "archive", "type": "file", "directory": "../ward"}]}`, other)
	assert.Equal(t, true, s.must(200, "PUT", "/api/channels/ward", sendsJSON(asJSON)))
	require.NoError(t, sendTo(t, other, "M2"))
	require.Error(t, sendTo(t, port, "M3"))
	assert.Equal(t, true, s.must(201, "POST", "/api/channels?override=true", sendsYAML(text)))
	require.NoError(t, sendTo(t, port, "M3"))
	s.must(404, "PUT", "/api/channels/nope", sendsYAML(text))
	s.must(400, "PUT", "/api/channels/ward", sendsYAML(strings.Replace(text, "id: ward", "id: other", 1)))

	// It is there after a restart, started.
	s.close()
	s = open(t, dir, api.Options{})
	require.NoError(t, sendTo(t, port, "M4"))
	s.eventually("all is delivered", func() bool {
		stats := s.must(200, "GET", "/api/channels/ward/statistics").(map[string]any)
		return stats["sent"] == 4.0
	})
	s.must(204, "DELETE", "/api/channels/ward")
	s.must(404, "DELETE", "/api/channels/ward")
	s.must(404, "GET", "/api/channels/ward")
	require.Error(t, sendTo(t, port, "M5"))
	assert.NoFileExists(t, filepath.Join(dir, "channels", "ward.yaml"))
	left, err := os.ReadDir(filepath.Join(dir, "channels"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestChannelsOfTheConfigurationBelongToIt(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{})
	text := strings.Replace(listening("fixed", 1, ""), "../fixed", "../elsewhere", 1)
	for _, w := range []*httptest.ResponseRecorder{
		s.do("PUT", "/api/channels/fixed", sendsYAML(text)), s.do("DELETE", "/api/channels/fixed?force=true"),
		s.do("POST", "/api/channels?override=true", sendsYAML(text)),
	} {
		assert.Equal(t, 409, w.Code)
		assert.Contains(t, w.Body.String(), "belongs to engine.yaml")
	}
	assert.Contains(t, s.must(404, "GET", "/api/channels/fixed/definition").(map[string]any)["message"], "engine.yaml")
	bare := serve(t, s.engine, api.Options{})
	assert.Equal(t, 409, request(bare, "POST", "/api/channels", as(t, bare, "admin"), sendsYAML(text)).Code, "nor where there is no place for others")
}

func TestMistakesInAChannelAreToldWithTheirLines(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{})
	got := s.must(400, "POST", "/api/channels", sendsJSON("{\"id\": \"x\",\n\"suorce\": {}}")).(map[string]any)
	assert.Equal(t, "Invalid channel", got["error"])
	first := got["mistakes"].([]any)[2].(map[string]any)
	assert.Equal(t, map[string]any{"line": 2.0, "key": "suorce", "text": "not a key here; did you mean source?"}, first)
	s.must(400, "POST", "/api/channels", sendsYAML(""))
	s.must(400, "POST", "/api/channels", sendsYAML("id: ../../x\n"))
	s.must(415, "POST", "/api/channels", sends("text/html", "id: x"))
	s.must(413, "POST", "/api/channels", sendsYAML(strings.Repeat("# long\n", 200_000)))

	secret := listening("x", 1, "") + "  - {name: mail, type: smtp, smtpHost: smtp.example.org, smtpPort: 25, encryption: tls, " +
		"authentication: true, username: u, password: hunter2, from: a@example.org, to: b@example.org, subject: s}\n"
	w := s.do("POST", "/api/channels", sendsYAML(secret))
	assert.Equal(t, 400, w.Code)
	assert.Contains(t, w.Body.String(), "must not stand here itself")
	assert.NotContains(t, w.Body.String(), "hunter2")
	s.must(201, "POST", "/api/channels", sendsYAML(strings.Replace(secret, "hunter2", "'${SECRET}'", 1)))
	for _, target := range []string{"/api/channels", "/api/channels/x", "/api/channels/x/definition", "/api/channels/statuses?includeUndeployed=true"} {
		assert.NotContains(t, s.do("GET", target).Body.String(), "hunter2")
	}
	assert.NotContains(t, s.log.String(), "hunter2")
}

func TestChangesThatWouldLeaveMessagesBehindAreRefusedUnlessForced(t *testing.T) {
	port := freePort(t)
	s := open(t, t.TempDir(), api.Options{})
	down := fmt.Sprintf("id: ward\nsource: {type: channel}\ndestinations: [{name: lab, type: tcp, host: 127.0.0.1, port: %d}]\n", port)
	s.must(201, "POST", "/api/channels", sendsYAML(down))
	s.must(204, "POST", "/api/channels/ward/_deploy")
	s.must(200, "POST", "/api/channels/ward/messages", sends("text/plain", "MSH|^~\\&|||||||ADT|1|P|2.5\r"))
	moved := strings.Replace(down, "name: lab", "name: other", 1)
	for _, w := range []*httptest.ResponseRecorder{
		s.do("PUT", "/api/channels/ward", sendsYAML(moved)), s.do("DELETE", "/api/channels/ward"),
	} {
		assert.Equal(t, 409, w.Code)
		assert.Contains(t, w.Body.String(), "still has messages for lab: 1 queued")
	}
	s.must(200, "PUT", "/api/channels/ward?force=true", sendsYAML(moved))
	children := s.must(200, "GET", "/api/channels/ward/status").(map[string]any)["childStatuses"].([]any)
	require.Len(t, children, 3)
	left := children[2].(map[string]any)
	assert.Equal(t, []any{"lab", 1.0, false, "STOPPED"}, []any{left["name"], left["queued"], left["enabled"], left["state"]})
	s.must(204, "DELETE", "/api/channels/ward?force=true")
}

func TestCommandsInAllFormsThatMirthHas(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, api.Options{})
	for _, id := range []string{"a", "b"} {
		s.must(201, "POST", "/api/channels", sendsYAML("id: "+id+"\nsource: {type: channel}\ndestinations: [{name: d, type: file, directory: "+id+"}]\n"))
	}
	states := func() string {
		a, err := s.engine.State("a")
		require.NoError(t, err)
		b, err := s.engine.State("b")
		require.NoError(t, err)
		return string(a + " " + b)
	}
	for _, tt := range []struct {
		target string
		body   edit
		want   string
	}{
		{"/api/channels/_deploy", sendsJSON(""), "STARTED STARTED"},
		{"/api/channels/_pause", sendsJSON(`{"channelId": ["a", "b"]}`), "PAUSED PAUSED"},
		{"/api/channels/_resume", sends("application/x-www-form-urlencoded", "channelId=a"), "STARTED PAUSED"},
		{"/api/channels/_stop", sendsJSON(`["a", "b"]`), "STOPPED STOPPED"},
		{"/api/channels/_deploy", sends("application/xml", "<set><string>a</string><string>b</string></set>"), "STARTED STARTED"},
		{"/api/channels/a/_halt", sendsJSON(""), "STOPPED STARTED"},
		{"/api/channels/a/_start", sendsJSON(""), "STARTED STARTED"},
		{"/api/channels/b/connector/0/_stop", sendsJSON(""), "STARTED PAUSED"},
		{"/api/channels/b/connector/0/_start", sendsJSON(""), "STARTED STARTED"},
		{"/api/channels/b/connector/1/_stop", sendsJSON(""), "STARTED STARTED"},
		{"/api/channels/b/_undeploy", sendsJSON(""), "STARTED UNDEPLOYED"},
		{"/api/channels/_redeployAll", sendsJSON(""), "STARTED STARTED"},
		{"/api/channels/_undeploy", sendsJSON(`{"channelId": ["a"]}`), "UNDEPLOYED STARTED"},
	} {
		s.must(204, "POST", tt.target+"?returnErrors=true", tt.body)
		require.Equal(t, tt.want, states(), tt.target)
	}
	strict := header("X-Strict", "true")
	for _, tt := range []struct {
		target string
		body   string
		code   int
		want   string
	}{
		{"/api/channels/a/_start", "", 500, "Cannot start channel in state: UNDEPLOYED"},
		{"/api/channels/b/_resume", "", 500, "Cannot resume channel in state: STARTED"},
		{"/api/channels/nope/_pause", "", 404, "Channel not found: nope"},
		{"/api/channels/_stop", `{"channelId": ["nope"]}`, 404, "Channel not found: nope"},
		{"/api/channels/_stop", ``, 400, "name channels"},
		{"/api/channels/b/connector/7/_stop", ``, 404, "connector not found: 7"},
		{"/api/channels/b/connector/x/_stop", ``, 404, "connector not found"},
	} {
		s.must(204, "POST", tt.target, sendsJSON(tt.body))
		got := s.must(tt.code, "POST", tt.target, sendsJSON(tt.body), strict)
		assert.Contains(t, got.(map[string]any)["error"], tt.want, tt.target)
	}
	s.must(400, "POST", "/api/channels/_stop", sendsJSON(`{"channelId": 7}`))
	s.must(400, "POST", "/api/channels/_stop", sends("application/xml", `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><set><string>&e;</string></set>`))
}

func TestMessagesAreKeptByteForByteAndShownWithoutContent(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{})
	hl7 := "MSH|^~\\&|A|B|C|D|20260101||ADT^A01|CTL-1|T|2.5\rPID|1||\xe4secret\r"
	for _, tt := range []struct{ kind, text string }{
		{"text/plain", hl7},
		{"application/xml", "<a>\r\n <b/></a>"},
		{"application/json", "{\"a\" : 1.0,\n\"a\":2}"},
		{"application/x-www-form-urlencoded", "a=b&c"},
		{"application/octet-stream", "\x00\xff"},
		{"", ""},
	} {
		got := s.must(200, "POST", "/api/channels/fixed/messages?sourceMapEntry=k=v%3Dw&sourceMapEntry=user=forged", sends(tt.kind, tt.text)).(map[string]any)
		target := fmt.Sprintf("/api/channels/fixed/messages/%.0f", got["messageId"])
		w := s.do("GET", target+"/content")
		require.Equal(t, 200, w.Code)
		assert.Equal(t, tt.text, w.Body.String(), tt.kind)
		assert.Equal(t, "application/octet-stream", w.Header().Get("Content-Type"))
		m := s.must(200, "GET", target).(map[string]any)
		source := m["connectorMessages"].(map[string]any)["0"].(map[string]any)
		assert.Equal(t, map[string]any{"k": "v=w", "user": "admin", "remoteAddress": "127.0.0.1"}, source["sourceMap"])
		assert.Equal(t, "T", source["status"])
	}
	s.eventually("all are delivered", func() bool { return s.must(200, "GET", "/api/channels/fixed/messages/count?status=SENT") == 6.0 })
	list := s.must(200, "GET", "/api/channels/fixed/messages?controlId=CTL-1").([]any)
	require.Len(t, list, 1)
	m := list[0].(map[string]any)
	assert.Equal(t, []any{"fixed", "node-1", true, "CTL-1", float64(len(hl7))},
		[]any{m["channelId"], m["serverId"], m["processed"], m["controlId"], m["bytes"]})
	sent := m["connectorMessages"].(map[string]any)["1"].(map[string]any)
	assert.Equal(t, []any{"S", "archive", 1.0}, []any{sent["status"], sent["connectorName"], sent["metaDataId"]})
	w := s.do("GET", "/api/channels/fixed/messages")
	assert.NotContains(t, w.Body.String(), "secret", "content is asked for on its own")

	for query, want := range map[string]int{
		"limit=2": 2, "limit=2&offset=5": 1, "minMessageId=5": 2, "maxMessageId=1": 1, "status=E": 0, "status=Q": 0, "status=F": 0,
		"status=S&metaDataId=1": 6, "startDate=2026-01-01T00:00:00Z": 6, "endDate=1000": 0, "startDate=2000-01-01": 6,
	} {
		assert.Len(t, s.must(200, "GET", "/api/channels/fixed/messages?"+query), want, query)
	}
	for _, query := range []string{"limit=501", "limit=-1", "offset=x", "minMessageId=0", "status=X", "startDate=today", "metaDataId=9&status=S", "metaDataId=1"} {
		s.must(400, "GET", "/api/channels/fixed/messages?"+query)
	}
	for _, target := range []string{"/api/channels/nope/messages", "/api/channels/nope/messages/1/content", "/api/channels/fixed/messages/99", "/api/channels/fixed/messages/99/content", "/api/channels/fixed/messages/x/content"} {
		s.must(404, "GET", target)
	}

	again := s.must(200, "POST", "/api/channels/fixed/messages/1/_reprocess?metaDataId=1").(map[string]any)
	assert.Equal(t, map[string]any{"messageId": 7.0, "originalId": 1.0}, again)
	assert.Equal(t, 1.0, s.must(200, "GET", "/api/channels/fixed/messages/7").(map[string]any)["originalId"])
	s.must(404, "POST", "/api/channels/fixed/messages/99/_reprocess")
	s.must(400, "POST", "/api/channels/fixed/messages/1/_reprocess?replace=true")
	assert.NotContains(t, s.log.String(), "secret")
}

func TestMessagesThatCannotBeTakenAreRefused(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{})
	send := func(code int, target string, edits ...edit) string {
		t.Helper()
		return fmt.Sprint(s.must(code, "POST", target, edits...))
	}
	text := sends("text/plain", "MSH|^~\\&|\r")
	assert.Contains(t, send(400, "/api/channels/nope/messages", text), "Channel not deployed")
	send(400, "/api/channels/fixed/messages?destinationMetaDataId=2", text)
	send(400, "/api/channels/fixed/messages?sourceMapEntry=x", text)
	send(415, "/api/channels/fixed/messages", text, header("Content-Encoding", "gzip"))
	send(413, "/api/channels/fixed/messages", sends("text/plain", strings.Repeat("x", 16<<20+1)))
	s.must(204, "POST", "/api/channels/fixed/_stop")
	assert.Contains(t, send(409, "/api/channels/fixed/messages", text), "STOPPED")
	s.must(204, "POST", "/api/channels/fixed/_undeploy")
	assert.Contains(t, send(400, "/api/channels/fixed/messages", text), "Channel not deployed")
	assert.Equal(t, 0.0, s.must(200, "GET", "/api/channels/fixed/messages/count"))
}

func TestDeadLettersAreListedAndRequeuedOverHTTP(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refuse := make(chan bool, 1)
	refuse <- true
	lab := &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
		no := <-refuse
		refuse <- no
		if no {
			return nil, &mllp.Nak{Code: mllp.AR, Text: "no"}
		}
		return nil, nil
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = lab.Serve(context.Background(), ln) }()
	t.Cleanup(func() { lab.Close(); <-done })
	s := open(t, t.TempDir(), api.Options{})
	s.must(201, "POST", "/api/channels", sendsYAML(fmt.Sprintf("id: ward\nsource: {type: channel}\ndestinations:\n"+
		"  - {name: lab, type: tcp, host: 127.0.0.1, port: %d, queue: {onPoison: deadletter}}\n", ln.Addr().(*net.TCPAddr).Port)))
	s.must(204, "POST", "/api/channels/ward/_deploy")
	for i := range 4 {
		s.must(200, "POST", "/api/channels/ward/messages", sends("text/plain", fmt.Sprintf("MSH|^~\\&|||||||ADT|SECRET%d|P|2.5\rPID|hunter2\r", i)))
	}
	s.eventually("all are dead", func() bool { return s.must(200, "GET", "/api/channels/ward/messages/count?status=ERROR") == 4.0 })
	dead := s.must(200, "GET", "/api/channels/ward/deadLetters?limit=3").([]any)
	require.Len(t, dead, 3)
	last := dead[2].(map[string]any)
	assert.Equal(t, []any{"lab", 1.0, false}, []any{last["destination"], last["attempts"], last["maybeSent"]})
	assert.NotContains(t, fmt.Sprint(dead...), "hunter2")
	rest := s.must(200, "GET", fmt.Sprintf("/api/channels/ward/deadLetters?destination=lab&after=%.0f", last["sequence"])).([]any)
	require.Len(t, rest, 1)
	s.must(409, "DELETE", "/api/channels/ward") // they could not be seen any more

	<-refuse
	refuse <- false
	target := fmt.Sprintf("/api/channels/ward/deadLetters/%.0f/_requeue", last["sequence"])
	assert.Equal(t, 1.0, s.must(200, "POST", target).(map[string]any)["requeued"])
	s.must(404, "POST", target)
	s.must(404, "POST", "/api/channels/ward/deadLetters/x/_requeue")
	got := s.must(200, "POST", "/api/channels/ward/deadLetters/_requeue?metaDataId=1",
		sendsJSON(fmt.Sprintf(`{"sequences": [%.0f, 99]}`, dead[0].(map[string]any)["sequence"])))
	assert.Equal(t, map[string]any{"requeued": 1.0, "notFound": []any{99.0}}, got)
	for _, bad := range []string{`{}`, `{"all": true, "sequences": [1]}`, `[]`} {
		s.must(400, "POST", "/api/channels/ward/deadLetters/_requeue", sendsJSON(bad))
	}
	s.must(409, "POST", "/api/channels/ward/deadLetters/_requeue?destination=nobody", sendsJSON(`{"all": true}`))
	assert.Equal(t, map[string]any{"requeued": 2.0}, s.must(200, "POST", "/api/channels/ward/deadLetters/_requeue", sendsJSON(`{"all": true}`)))
	s.eventually("all are delivered", func() bool { return s.must(200, "GET", "/api/channels/ward/messages/count?status=SENT") == 4.0 })
	s.must(404, "GET", "/api/channels/nope/deadLetters")
}

const clusterSecret = "kX9vQ2mZ7rT4wB8nL3pD6sF1gH5jC0aY"

// unread is a body that nobody is to read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read before the credential was checked")
	return 0, http.ErrBodyReadAfterClose
}

func TestDispatchIsForNodesAlone(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{})
	good := sendsJSON(`{"channelId": "fixed", "rawData": "MSH|"}`)
	assert.Equal(t, 404, s.do("POST", "/api/internal/dispatch", good, header("X-Cluster-Secret", clusterSecret)).Code, "not there without a secret")

	s = open(t, t.TempDir(), api.Options{Cluster: &cluster.Auth{Node: "node-1", Secret: clusterSecret}, RequestLimit: 1})
	for name, edits := range map[string][]edit{
		"an admin":           {s.admin},
		"nobody":             {},
		"an empty secret":    {header("X-Cluster-Secret", "")},
		"another secret":     {header("X-Cluster-Secret", strings.Repeat("x", 32))},
		"part of the secret": {header("X-Cluster-Secret", clusterSecret[:31])},
	} {
		w := request(s, "POST", "/api/internal/dispatch", append(edits, func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(unread{t}), 10
		})...)
		assert.Equal(t, 403, w.Code, name)
		assert.JSONEq(t, `{"error": "Invalid cluster secret"}`, w.Body.String(), name)
	}
}

func TestDispatchedMessagesAreStoredOnceAndExactly(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{Cluster: &cluster.Auth{Node: "node-1", Secret: clusterSecret}})
	dispatch := func(code int, text string) map[string]any {
		t.Helper()
		w := request(s, "POST", "/api/internal/dispatch", sendsJSON(text), header("X-Cluster-Secret", clusterSecret))
		require.Equal(t, code, w.Code, "%s", w.Body)
		return body(t, w)
	}
	first := dispatch(200, `{"channelId": "fixed", "rawData": "MSH|\u00e4\r", "sourceMap": {"a": "b", "n": 1, "clusterNode": "forged"}, "dispatchId": "d-1"}`)
	assert.Equal(t, "QUEUED", first["status"])
	assert.Equal(t, first, dispatch(200, `{"channelId": "fixed", "rawData": "MSH|ä\r", "dispatchId": "d-1"}`), "the answer was lost")
	assert.NotEqual(t, first, dispatch(200, `{"channelId": "fixed", "rawData": "MSH|other", "dispatchId": "d-1"}`), "another message is never dropped")
	assert.NotEqual(t, dispatch(200, `{"channelId": "fixed", "rawData": ""}`), dispatch(200, `{"channelId": "fixed", "rawData": ""}`), "without an id")
	assert.Equal(t, "MSH|\u00e4\r", s.do("GET", fmt.Sprintf("/api/channels/fixed/messages/%.0f/content", first["messageId"])).Body.String())
	m := s.must(200, "GET", fmt.Sprintf("/api/channels/fixed/messages/%.0f", first["messageId"])).(map[string]any)
	notes := m["connectorMessages"].(map[string]any)["0"].(map[string]any)["sourceMap"].(map[string]any)
	assert.Equal(t, map[string]any{"a": "b", "n": "1", "remoteAddress": "127.0.0.1"}, notes)

	binary := dispatch(200, `{"channelId": "fixed", "rawDataBase64": "`+base64.StdEncoding.EncodeToString([]byte{0, 0xff})+`"}`)
	assert.Equal(t, "\x00\xff", s.do("GET", fmt.Sprintf("/api/channels/fixed/messages/%.0f/content", binary["messageId"])).Body.String())
	dispatch(200, `{"channelId": "fixed", "rawData": "\ufffd"}`)

	for _, bad := range []string{`{}`, `{"channelId": "fixed"}`, `{"rawData": "x"}`, `{"channelId": "fixed", "rawData": "x", "rawDataBase64": "eA=="}`} {
		assert.Equal(t, "Missing channelId or rawData", dispatch(400, bad)["error"])
	}
	for _, bad := range []string{`not JSON`, `{"channelId": "fixed", "rawData": "\ud800"}`, "{\"channelId\": \"fixed\", \"rawData\": \"\xff\"}", `{"channelId": 1}`} {
		dispatch(400, bad)
	}
	assert.Equal(t, "Channel not deployed: nope", dispatch(500, `{"channelId": "nope", "rawData": "x"}`)["error"])
	s.must(204, "POST", "/api/channels/fixed/_stop")
	assert.Contains(t, dispatch(500, `{"channelId": "fixed", "rawData": "x"}`)["error"], "STOPPED")
}

// A node of ours signs what it sends, and believes a signed answer alone.
func TestDispatchFromANodeOfOurs(t *testing.T) {
	s := open(t, t.TempDir(), api.Options{Cluster: &cluster.Auth{Node: "node-1", Secret: clusterSecret, SignedOnly: true}})
	server := httptest.NewServer(s)
	defer server.Close()
	sender := &cluster.Auth{Node: "node-2", Secret: clusterSecret}
	var answers []string
	for range 2 {
		r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/api/internal/dispatch",
			strings.NewReader(`{"channelId": "fixed", "rawData": "MSH|", "dispatchId": "x"}`))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		resp, err := sender.Do(server.Client(), r, "node-1")
		require.NoError(t, err)
		text := new(bytes.Buffer)
		_, err = text.ReadFrom(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode, "%s", text)
		answers = append(answers, text.String())
	}
	assert.Equal(t, answers[0], answers[1])
	m := s.must(200, "GET", "/api/channels/fixed/messages").([]any)
	require.Len(t, m, 1)
	assert.Contains(t, fmt.Sprint(m...), "clusterNode:node-2")
	plain := request(s, "POST", "/api/internal/dispatch", sendsJSON(`{"channelId": "fixed", "rawData": "x"}`), header("X-Cluster-Secret", clusterSecret))
	assert.Equal(t, 403, plain.Code)
}
