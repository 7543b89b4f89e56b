package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
)

const enginePassword = "correct horse battery"

// anEngine builds the engine, runs it, and returns its address.
func anEngine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "engine")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../engine").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte(enginePassword+"\n"), 0o600))
	config := fmt.Sprintf(`users: [{name: admin, role: admin, passwordFile: password}]
channels:
  - id: mllps
    name: MLLPS Receiver
    source: {type: tcp, host: 127.0.0.1, port: %d}
    destinations: [{name: archive, type: file, directory: archive}]
`, freeTCPPort(t))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "engine.yaml"), []byte(config), 0o600))
	engine := exec.CommandContext(t.Context(), binary, "-config", filepath.Join(dir, "engine.yaml"))
	engine.Env = append(os.Environ(), "PORT=0", "MIRTH_API_RATE_LIMIT=0")
	var said lines
	engine.Stderr = &said
	require.NoError(t, engine.Start())
	t.Cleanup(func() {
		_ = engine.Process.Signal(syscall.SIGTERM)
		_ = engine.Wait()
	})
	addr := regexp.MustCompile(`msg="API listens" addr=(\S+)`)
	require.Eventually(t, func() bool { return strings.Contains(said.String(), "engine ready") }, time.Minute, 5*time.Millisecond)
	return "http://" + addr.FindStringSubmatch(said.String())[1]
}

// lines are what a process writes; safe to read while it does.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func freeTCPPort(t *testing.T) int {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func TestEngineIsCommandedByTheVerbsOfTheGuide(t *testing.T) {
	url, session := anEngine(t), filepath.Join(t.TempDir(), "sub", "session.json")
	on := func(status int, args ...string) string {
		t.Helper()
		r := carewire(t, append(append([]string{"engine"}, args...), "--session", session)...)
		require.Equal(t, status, r.status, "%v: %s%s", args, r.out, r.err)
		return r.out + r.err
	}
	assert.Contains(t, on(exitNacked, "channels", "list", "--url", url), "not signed in")
	r := carewireReading(t, strings.NewReader("wrong password\n"), "engine", "login", "--url", url, "--session", session)
	assert.Equal(t, exitNacked, r.status)
	assert.NoFileExists(t, session)
	r = carewireReading(t, strings.NewReader(enginePassword+"\n"), "engine", "login", "--url", url, "--session", session)
	require.Equal(t, exitOK, r.status, r.err)
	info, err := os.Stat(session)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	assert.Regexp(t, `mllps +MLLPS Receiver +STARTED`, on(exitOK, "channels", "list"))
	assert.Equal(t, "MLLPS Receiver stopped\n", on(exitOK, "channels", "stop", "MLLPS Receiver"))
	assert.Contains(t, on(exitNacked, "channels", "stop", "mllps"), "Cannot stop channel in state: STOPPED")
	on(exitOK, "channels", "start", "MLLPS Receiver")
	on(exitOK, "channels", "pause", "mllps")
	assert.Contains(t, on(exitOK, "channels", "status", "MLLPS Receiver"), "MLLPS Receiver (mllps): PAUSED\n")
	on(exitOK, "channels", "resume", "mllps")
	on(exitOK, "channels", "halt", "mllps")
	on(exitOK, "channels", "deploy", "mllps")
	assert.Contains(t, on(exitOK, "channels", "status", "mllps"), "MLLP on 127.0.0.1:")
	assert.Contains(t, on(exitNacked, "channels", "start", "Nobody"), `no channel of the name or id "Nobody"`)
	var status map[string]any
	require.NoError(t, json.Unmarshal([]byte(on(exitOK, "channels", "status", "mllps", "--json")), &status))
	assert.Equal(t, "STARTED", status["state"])

	// Messages, byte for byte.
	text := "MSH|^~\\&|A|B|C|D|20260101||ADT^A01|CTL-1|T|2.5\rPID|1||\xe4hunter2\n"
	message := file(t, "message.hl7", text)
	assert.Equal(t, "stored as message 1\n", on(exitOK, "messages", "send", "mllps", message))
	require.Eventually(t, func() bool {
		return strings.Contains(on(exitOK, "messages", "list", "mllps", "--control-id", "CTL-1"), "Source:T archive:S")
	}, time.Minute, 10*time.Millisecond)
	assert.NotContains(t, on(exitOK, "messages", "list", "mllps", "--json"), "hunter2")
	assert.NotContains(t, on(exitOK, "messages", "list", "mllps", "--before", "1", "--status", "error"), "CTL-1")
	got := filepath.Join(t.TempDir(), "got.hl7")
	on(exitOK, "messages", "get", "mllps", "1", "--out", got)
	data, err := os.ReadFile(got)
	require.NoError(t, err)
	assert.Equal(t, text, string(data))
	assert.Equal(t, "taken in again as message 2\n", on(exitOK, "messages", "reprocess", "mllps", "1"))
	on(exitNacked, "messages", "get", "mllps", "99", "--out", got)
	on(exitOK, "messages", "dead", "mllps")
	assert.Equal(t, "requeued: 0\n", on(exitOK, "messages", "requeue", "mllps", "--all"))
	on(exitNacked, "messages", "requeue", "mllps", "77")
	on(exitUsage, "messages", "requeue", "mllps")

	// Channels of the API.
	channel := "id: made\nname: Made here\nsource: {type: channel}\ndestinations: [{name: d, type: file, directory: made}]\n"
	on(exitOK, "channels", "put", file(t, "made.yaml", channel))
	assert.Regexp(t, `made +Made here +UNDEPLOYED`, on(exitOK, "channels", "list"))
	assert.Equal(t, channel, on(exitOK, "channels", "get", "Made here"))
	assert.Contains(t, on(exitNacked, "channels", "put", file(t, "bad.yaml", "id: bad\nnope: 1\n")), "line 2: nope: not a key here")
	assert.Contains(t, on(exitNacked, "channels", "remove", "mllps"), "belongs to engine.yaml")
	on(exitOK, "channels", "deploy", "made")
	on(exitOK, "channels", "undeploy", "made")
	on(exitOK, "channels", "remove", "Made here")

	on(exitOK, "logout")
	assert.Contains(t, on(exitNacked, "channels", "list"), "not signed in")
	on(exitNacked, "logout")
}

func TestSessionsAndPasswordsDoNotTravelInTheClearNorToOthers(t *testing.T) {
	session := filepath.Join(t.TempDir(), "session.json")
	for _, url := range []string{"http://engine.example.org:8080", "ftp://127.0.0.1", "https://", "https://u:p@127.0.0.1", "https://127.0.0.1/path"} {
		r := carewireReading(t, strings.NewReader("secret\n"), "engine", "login", "--url", url, "--session", session)
		assert.Equal(t, exitUsage, r.status, "%s: %s", url, r.err)
		assert.NotContains(t, r.err, "secret")
	}
	var got []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("X-Session-ID"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	require.NoError(t, os.WriteFile(session, []byte(`{"url": "http://127.0.0.1:1", "session": "secret"}`), 0o600))
	r := carewire(t, "engine", "channels", "list", "--session", session, "--url", other.URL)
	assert.Equal(t, exitNacked, r.status)
	assert.Equal(t, []string{""}, got, "a session is for the engine that gave it")
	r = carewire(t, "engine", "channels", "list", "--session", session)
	assert.Equal(t, exitNotSent, r.status, "%s", r.err)
	assert.NotContains(t, r.err, "secret")
	r = carewire(t, "engine", "channels", "list", "--session", file(t, "odd.json", "not JSON"))
	assert.Equal(t, exitUsage, r.status)
}

func TestSessionOverTLSKeepsWhomItTrusts(t *testing.T) {
	dir := t.TempDir()
	ca := testpki.NewCA(t, "Test CA")
	ca.Write(dir, "ca.crt")
	ca.Server().Write(dir, "server")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/api/users/_login":
			w.Header().Set("X-Session-ID", "s-1")
			_, _ = io.WriteString(w, `{"status": "SUCCESS_GRACE_PERIOD"}`)
		case r.Header.Get("X-Session-ID") != "s-1":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, `[{"channelId": "adt", "name": "evil\u001b[31m", "state": "STARTED", "statistics": {"queued": 3}}]`)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	session := filepath.Join(dir, "session.json")
	login := func(args ...string) result {
		return carewireReading(t, strings.NewReader("password\n"), append([]string{"engine", "login", "--url", server.URL, "--session", session}, args...)...)
	}
	r := login()
	assert.Equal(t, exitNotSent, r.status, "%s", r.err)
	r = login("--ca", filepath.Join(dir, "nothing.crt"))
	assert.Equal(t, exitUsage, r.status, "%s", r.err)
	r = login("--ca", filepath.Join(dir, "ca.crt"))
	require.Equal(t, exitOK, r.status, "%s", r.err)
	assert.Contains(t, r.err, "carewire engine passwd")
	r = carewire(t, "engine", "channels", "list", "--session", session)
	require.Equal(t, exitOK, r.status, "%s", r.err)
	assert.Contains(t, r.out, "adt")
	assert.NotContains(t, r.out, "\x1b", "a terminal is not to obey a name")
}

func TestCommandWhoseAnswerIsLostMayHaveHappened(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"adt": "ADT"}`)
			return
		}
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	r := carewire(t, "engine", "channels", "stop", "ADT", "--url", server.URL, "--session", filepath.Join(t.TempDir(), "s.json"))
	assert.Equal(t, exitUnknown, r.status, "%s", r.err)
}
