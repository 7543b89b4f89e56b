package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/serverlog"
	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// asEngine makes this test binary be the engine.
const asEngine = "CAREWIRE_TEST_IS_THE_ENGINE"

func TestMain(m *testing.M) {
	if os.Getenv(asEngine) != "" {
		main()
	}
	leakcheck.Main(m)
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// output is what a process writes; safe to read while it does.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// process is an engine in a process of its own.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *output
	exited         chan struct{}
}

func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(self, args...), stdout: new(output), stderr: new(output), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.Dir = t.TempDir()
	p.cmd.Env = append([]string{asEngine + "=1", "PORT=0", "MIRTH_API_RATE_LIMIT=0", "LOG_LEVEL=DEBUG", "PATH=" + os.Getenv("PATH")}, env...)
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the tests look at ProcessState
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("the engine wrote:\n%s%s", p.stdout, p.stderr)
		}
		p.tellsNothing()
	})
	return p
}

// planted is in all messages of the tests.
const planted = "Test^Patient"

// tellsNothing looks for what was planted in all that the engine has written but its
// messages: its log, at every level, and the audit log.
func (p *process) tellsNothing() {
	p.t.Helper()
	assert.NotContains(p.t, p.stdout.String(), planted)
	assert.NotContains(p.t, p.stderr.String(), planted)
	for i, arg := range p.cmd.Args {
		if arg != "-config" {
			continue
		}
		files, err := filepath.Glob(filepath.Join(filepath.Dir(p.cmd.Args[i+1]), "data", "audit", "*"))
		require.NoError(p.t, err)
		for _, name := range files {
			text, err := os.ReadFile(name)
			require.NoError(p.t, err)
			assert.NotContains(p.t, string(text), planted, name)
		}
	}
}

// says waits until the process has written text.
func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, "the engine says "+text, func() bool {
		select {
		case <-p.exited:
			return strings.Contains(p.stderr.String(), text) || assert.Fail(p.t, "the engine has exited before it said "+text)
		default:
			return strings.Contains(p.stderr.String(), text)
		}
	})
}

// code waits for the process to end and returns its exit status, or -1 for one
// that a signal ended.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("the engine has not exited in %v", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(sig))
}

func (p *process) api() string {
	p.t.Helper()
	p.says("API listens")
	return "http://" + regexp.MustCompile(`msg="API listens" addr=(\S+)`).FindStringSubmatch(p.stderr.String())[1]
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// call makes a request and returns its status and its JSON.
func call(t *testing.T, method, url string, session ...string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	req.Close = true
	for _, id := range session {
		req.Header.Set("X-Session-ID", id)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var body map[string]any
	if len(data) > 0 {
		require.NoError(t, json.Unmarshal(data, &body), "%s", data)
	}
	return resp.StatusCode, body
}

// secret is the password of the user test in the tests' configurations.
const secret = "correct horse battery"

// signIn returns a session of the user test.
func signIn(t *testing.T, base, name, password string) string {
	t.Helper()
	form := url.Values{"username": {name}, "password": {password}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/users/_login", strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	return resp.Header.Get("X-Session-ID")
}

// freePort returns a port that nothing listens on.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func writeConfig(t *testing.T, text string, args ...any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, text, args...), 0o600))
	return path
}

const oneChannel = `users: [{name: test, role: admin, password: ` + secret + `}]
channels:
  - id: adt
    source: {type: tcp, host: 127.0.0.1, port: %d}
    destinations: [{name: archive, type: file, directory: ./archive}]
`

func message(id string) []byte {
	return []byte("MSH|^~\\&|HIS|WARD|ENGINE|LAB|20260101120000||ADT^A01^ADT_A01|" + id + "|T|2.5\rPID|1||X||" + planted + "\r")
}

func dial(t *testing.T, port int, tls *tlsprops.TlsProperties) *mllp.Conn {
	t.Helper()
	conn, err := (&mllp.Dialer{TLS: tls}).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestCheckExitsWithWhatItFound(t *testing.T) {
	good := writeConfig(t, oneChannel, 6661)
	p := launch(t, nil, "-config", good, "-check")
	assert.Equal(t, 0, p.code())
	assert.Equal(t, good+": no mistakes (channels: 1)\n", p.stdout.String())
	assert.Empty(t, p.stderr.String())
	assert.NoDirExists(t, filepath.Join(filepath.Dir(good), "data"), "a check changes nothing")

	bad := writeConfig(t, "stroe: sqlite\n"+oneChannel, 66610)
	p = launch(t, nil, "-config", bad, "-check")
	assert.Equal(t, 1, p.code())
	assert.Equal(t, bad+":1: stroe: not a key here; did you mean store?\n"+
		bad+":5: channels[0].source.port: is not a port: 1 to 65535\n", p.stderr.String())

	// TLS files are loaded, too.
	pair := testpki.NewCA(t, "Test CA").Server().Write(t.TempDir(), "server")
	withTLS := fmt.Sprintf(strings.Replace(oneChannel, "%d}", "%d, tls: {enabled: true, keyStorePath: %s, certStorePath: %s}}", 1), 6661, pair.Key, pair.Cert)
	p = launch(t, nil, "-config", writeConfig(t, "%s", withTLS), "-check")
	assert.Equal(t, 0, p.code())
	require.NoError(t, os.Remove(pair.Key))
	p = launch(t, nil, "-config", writeConfig(t, "%s", withTLS), "-check")
	assert.Equal(t, 1, p.code())
	assert.Contains(t, p.stderr.String(), "engine.yaml:4: channels[0].source.tls.keyStorePath: ")
}

func TestMistakesOnTheCommandLineAndInTheEnvironmentAreRefused(t *testing.T) {
	good := writeConfig(t, oneChannel, 6661)
	for _, args := range [][]string{{"-nope"}, {"engine.yaml"}, {"-check"}} {
		assert.Equal(t, 2, launch(t, nil, args...).code(), "%q", args)
	}
	p := launch(t, []string{"TLS_CERT=server.crt", "HTTPS_PORT=x", "HTTP_ALLOW_UNAUTHENTICATED=true"}, "-config", good)
	assert.Equal(t, 1, p.code())
	for _, name := range []string{"TLS_KEY: ", "HTTPS_PORT: ", "HTTP_ALLOW_UNAUTHENTICATED: "} {
		assert.Contains(t, p.stderr.String(), name)
	}
	assert.Equal(t, 0, launch(t, nil, "-h").code())
}

func TestSignalsDrainAndExitZero(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		port := freePort(t)
		p := launch(t, nil, "-config", writeConfig(t, oneChannel, port))
		p.says("engine ready")
		conn := dial(t, port, nil)
		_, err := conn.Send(t.Context(), message("M1"))
		require.NoError(t, err)
		p.signal(sig)
		assert.Equal(t, 0, p.code(), "%v", sig)
	}
}

func TestSecondSignalEndsTheProcessAtOnce(t *testing.T) {
	port := freePort(t)
	p := launch(t, nil, "-config", writeConfig(t, oneChannel, port))
	p.says("engine ready")
	// A message of which only a part has come holds the drain up.
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(append([]byte{0x0b}, message("HALF")[:30]...))
	require.NoError(t, err)
	base := p.api()
	session := signIn(t, base, "test", secret)
	eventually(t, "the part has arrived", func() bool {
		_, status := call(t, "GET", base+"/api/channels/adt/status", session)
		return status["listenerInfo"].(map[string]any)["connectionCount"] == 1.0
	})
	time.Sleep(50 * time.Millisecond) // for the bytes to be read: nothing shows when they are
	p.signal(syscall.SIGTERM)
	p.says("shutting down")
	code, body := call(t, "GET", base+"/api/health")
	assert.Equal(t, 503, code)
	assert.Equal(t, "shutting_down", body["status"])
	select {
	case <-p.exited:
		t.Fatal("the drain did not wait for the message that is arriving")
	default:
	}
	p.signal(syscall.SIGTERM)
	begun := time.Now()
	assert.NotEqual(t, 0, p.code())
	assert.Less(t, time.Since(begun), 5*time.Second)
}

// acknowledges tells whether anything on port answers a message with AA, before
// the process has exited. Until then it tries without end.
func (p *process) acknowledges(port int) bool {
	p.t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for ended, end := false, time.Now().Add(patience); ; {
		if time.Now().After(end) {
			p.t.Fatalf("in %v the engine has neither exited nor acknowledged", patience)
		}
		conn, err := new(mllp.Dialer).DialContext(p.t.Context(), "tcp", address)
		if err == nil {
			_, err = conn.Send(p.t.Context(), message("M1"))
			conn.Close()
			if err == nil {
				return true
			}
		}
		if ended { // and was so before the last try began
			return false
		}
		select {
		case <-p.exited:
			ended = true
		case <-time.After(time.Millisecond):
		}
	}
}

// However the store fails to open, the engine ends and says why in its last line,
// and who sends meanwhile finds no port: nothing that could answer AA.
func TestStoreThatCannotBeOpenedOpensNoPort(t *testing.T) {
	const none = "" // no mistake
	for name, test := range map[string]struct {
		spoil func(data string) error
		says  string
	}{
		"a file where the directory should be": {func(data string) error { return os.WriteFile(data, []byte("a file"), 0o600) }, "data"},
		"a directory where the file should be": {func(data string) error { return os.MkdirAll(filepath.Join(data, "engine.db"), 0o700) }, "engine.db"},
		"a file that is no database":           {spoiled(bytes.Repeat([]byte("no database "), 1000)), "not a database"},
		"a database that was cut off":          {spoiled(append([]byte("SQLite format 3\x00\x10\x00"), make([]byte, 2000)...)), "database"},
		"a device":                             {func(data string) error { return os.Symlink("/dev/full", data) }, "data"},
		// The control: where it opens, the same sender is answered with AA, and sees it.
		"none of these": {func(string) error { return nil }, none},
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			path := writeConfig(t, oneChannel, port)
			require.NoError(t, test.spoil(filepath.Join(filepath.Dir(path), "data")))
			p := launch(t, nil, "-config", path)
			if test.says == none {
				assert.True(t, p.acknowledges(port))
				return
			}
			assert.False(t, p.acknowledges(port))
			assert.Equal(t, 1, p.code())
			lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
			assert.Contains(t, lines[len(lines)-1], test.says)
			assert.NotContains(t, p.stderr.String(), "channel started")
			assert.NotContains(t, p.stderr.String(), "API listens")
		})
	}
}

// spoiled writes content where the database should be.
func spoiled(content []byte) func(data string) error {
	return func(data string) error {
		return errors.Join(os.MkdirAll(data, 0o700), os.WriteFile(filepath.Join(data, "engine.db"), content, 0o600))
	}
}

func TestSecondEngineOnOneDataDirectoryIsRefused(t *testing.T) {
	first := launch(t, nil, "-config", writeConfig(t, oneChannel, freePort(t)))
	first.says("engine ready")
	data := filepath.Join(filepath.Dir(first.cmd.Args[2]), "data")
	second := launch(t, nil, "-config", writeConfig(t, oneChannel, freePort(t)), "-data", data)
	assert.Equal(t, 1, second.code())
	assert.Contains(t, second.stderr.String(), "in use by another process")
	assert.NotContains(t, second.stderr.String(), "channel started")
}

// recorder is a receiver in this process.
type recorder struct {
	mu  sync.Mutex
	ids []string
}

func (r *recorder) ServeMLLP(_ context.Context, q *mllp.Request) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, string(q.Header.ControlID))
	return nil, nil
}

func (r *recorder) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

// listen serves the recorder on port until the test ends.
func (r *recorder) listen(t *testing.T, port int) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	server, done := &mllp.Server{Handler: r}, make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(context.Background(), ln)
	}()
	t.Cleanup(func() { server.Close(); <-done })
}

func TestKilledEngineDeliversWhatItAcknowledgedInOrderAfterItsRestart(t *testing.T) {
	in, out := freePort(t), freePort(t)
	path := writeConfig(t, `channels:
  - id: adt
    source: {type: tcp, host: 127.0.0.1, port: %d}
    destinations: [{name: lab, type: tcp, host: 127.0.0.1, port: %d, queue: {retryInterval: 10ms}}]
`, in, out)
	p := launch(t, nil, "-config", path)
	p.says("engine ready")
	conn := dial(t, in, nil)
	var acked []string
	for i := range 50 {
		id := fmt.Sprintf("M%04d", i)
		_, err := conn.Send(t.Context(), message(id))
		require.NoError(t, err)
		acked = append(acked, id)
	}
	p.signal(syscall.SIGKILL)
	assert.Equal(t, -1, p.code())

	lab := new(recorder)
	lab.listen(t, out)
	p = launch(t, nil, "-config", path)
	p.says("engine ready")
	eventually(t, "all is delivered", func() bool { return len(lab.received()) >= 50 })
	assert.Equal(t, acked, lab.received(), "nothing was sent before, so nothing comes twice")
	assert.Less(t, strings.Index(p.stderr.String(), "API listens"), strings.Index(p.stderr.String(), "channel started"), "sources open last")
}

func TestChannelIsStoppedAndStartedOverHTTP(t *testing.T) {
	port := freePort(t)
	p := launch(t, []string{"LOG_FORMAT=text", "MIRTH_SERVER_ID=node-1"}, "-config", writeConfig(t, oneChannel, port))
	p.says("engine ready")
	base := p.api()
	_, body := call(t, "GET", base+"/api/health")
	assert.Equal(t, "node-1", body["serverId"])

	code, _ := call(t, "POST", base+"/api/channels/adt/_stop")
	require.Equal(t, 401, code)
	session := signIn(t, base, "test", secret)
	code, _ = call(t, "POST", base+"/api/channels/adt/_stop", session)
	require.Equal(t, 204, code)
	_, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.Error(t, err, "the port is closed")
	code, body = call(t, "GET", base+"/api/health/channels/adt")
	assert.Equal(t, 503, code)
	assert.Equal(t, "stopped", body["status"])

	code, body = call(t, "POST", base+"/api/channels/adt/_stop?returnErrors=true", session)
	assert.Equal(t, 500, code)
	assert.Equal(t, "Cannot stop channel in state: STOPPED", body["error"])

	code, _ = call(t, "POST", base+"/api/channels/adt/_start", session)
	require.Equal(t, 204, code)
	_, err = dial(t, port, nil).Send(t.Context(), message("M1"))
	require.NoError(t, err)
	eventually(t, "delivered", func() bool {
		_, status := call(t, "GET", base+"/api/channels/adt/status", session)
		return status["statistics"].(map[string]any)["sent"] == 1.0
	})
}

// Without a configuration the engine makes all that a first message needs, and
// says how to send it.
func TestDevelopmentModeSaysHowToSendAFirstMessage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "my data")
	var said bytes.Buffer
	cfg, err := development(dir, &said)
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^  go run \./examples/carewire mllp send --tls --ca '(.+)' --cert '(.+)' --key '(.+)' --addr (\S+) '(.+)'$`).FindStringSubmatch(said.String())
	require.NotNil(t, line, said.String())
	assert.Equal(t, "127.0.0.1:6661", line[4])
	assert.Contains(t, said.String(), "Made development certificates in "+filepath.Join(dir, "certs"))

	source := cfg.Channels[0].Source.TCP
	assert.True(t, source.TLS.RequireClientCert)
	source.Port = freePort(t) // 6661 may be in use here
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	env := environment(t)
	logged, recent := new(output), serverlog.New(env.LogLevel)
	go func() {
		served <- serve(ctx, cfg, env, config.NewVariables(os.LookupEnv), asIs, &said, newLogger(env, logged, recent.Handler()), recent)
	}()
	eventually(t, "ready", func() bool { return strings.Contains(logged.String(), "engine ready") })
	first, err := os.ReadFile(line[5])
	require.NoError(t, err)
	conn := dial(t, source.Port, &tlsprops.TlsProperties{Enabled: true, TrustStorePath: line[1], CertStorePath: line[2], KeyStorePath: line[3]})
	reply, err := conn.Send(t.Context(), first)
	require.NoError(t, err)
	assert.Equal(t, mllp.AA, reply.Ack.Code)
	archive := filepath.Join(dir, "archive")
	eventually(t, "filed", func() bool { files, _ := filepath.Glob(filepath.Join(archive, "*.hl7")); return len(files) == 1 })
	cancel()
	require.NoError(t, <-served)

	said.Reset()
	_, err = development(dir, &said)
	require.NoError(t, err)
	assert.Contains(t, said.String(), "There were development certificates", "they are kept")
	id, err := serverID("", dir)
	require.NoError(t, err)
	again, err := serverID("", dir)
	require.NoError(t, err)
	assert.Equal(t, id, again)
}

func environment(t *testing.T) config.Environment {
	t.Helper()
	env, err := config.ReadEnvironment(func(name string) (string, bool) {
		return map[string]string{"PORT": "0"}[name], name == "PORT"
	})
	require.NoError(t, err)
	return env
}

func TestExampleConfigurationIsValid(t *testing.T) {
	cfg, err := config.Load("example.yaml", os.LookupEnv)
	require.NoError(t, err)
	assert.Len(t, cfg.Channels, 4)
	for _, d := range cfg.Channels[0].Destinations {
		assert.NotEmpty(t, d.Type)
	}
}
