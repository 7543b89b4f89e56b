package engine_test

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

// configured is a destination called out as the configuration file would make
// it of these keys, one a line.
func configured(t *testing.T, keys string) config.Destination {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.yaml")
	text := "channels:\n  - id: a\n    source: {type: tcp, host: 127.0.0.1, port: 1}\n    destinations:\n      - name: out\n        " +
		strings.ReplaceAll(strings.TrimSpace(keys), "\n", "\n        ") + "\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	cfg, err := config.Load(path, func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	dest := cfg.Channels[0].Destinations[0]
	dest.Queue.RetryInterval = quick.RetryInterval
	return dest
}

// web is a server that keeps what it is asked, and answers as it is told.
type web struct {
	*httptest.Server
	mu      sync.Mutex
	answers []int    // statuses of the next answers, then 200; -1: none, and the connection ends. Guarded by mu
	bodies  []string // guarded by mu
	headers []http.Header
}

func newWeb(t *testing.T, answers ...int) *web {
	w := &web{answers: answers}
	w.Server = httptest.NewUnstartedServer(w)
	t.Cleanup(w.Close)
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	status := http.StatusOK
	if len(w.answers) > 0 {
		status, w.answers = w.answers[0], w.answers[1:]
	}
	w.bodies, w.headers = append(w.bodies, string(body)), append(w.headers, r.Header)
	w.mu.Unlock()
	if status < 0 {
		panic(http.ErrAbortHandler)
	}
	rw.Header().Set("X-Echo", planted)
	rw.WriteHeader(status)
	_, _ = rw.Write([]byte(planted + string(body)))
}

func (w *web) seen() ([]string, []http.Header) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bodies, w.headers
}

func TestMessagesArriveOverHTTPSInOrderAsTheyAre(t *testing.T) {
	t.Parallel()
	server := newWeb(t)
	server.StartTLS()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	e := start(t, openStore(t, t.TempDir()), channel("adt", configured(t, `
type: http
host: `+server.URL+`/in
headers: [{name: X-Message, value: '${message.channelId}/${message.controlId}'}]
useAuthentication: true
username: engine
password: PassCanary
proxyUrl: none
tls: {enabled: true, trustStorePath: `+ca+`}`)))
	send(t, dial(t, e.addr("adt"), nil), ids("M", 20)...)
	eventually(t, "all messages are delivered", func() bool { return e.stats("adt").Sent == 20 })
	bodies, headers := server.seen()
	require.Len(t, bodies, 20)
	for i, id := range ids("M", 20) {
		assert.Equal(t, string(message(id)), bodies[i])
		assert.Equal(t, "adt/"+id, headers[i].Get("X-Message"))
		assert.Equal(t, "application/hl7-v2", headers[i].Get("Content-Type"))
		user, password, _ := (&http.Request{Header: headers[i]}).BasicAuth()
		assert.Equal(t, "engine PassCanary", user+" "+password)
	}
	e.stop()
	assert.NotContains(t, e.log.String(), "PassCanary")
	assert.NotContains(t, e.log.String(), planted)
}

func TestWhatAnHTTPServerAnswersDecidesWhatBecomesOfAMessage(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answers   []int
		keys      string
		dead      int  // letters
		maybeSent bool // the dead letter may have arrived
		requests  int
	}{
		"refused":                           {[]int{400}, "", 1, false, 2},
		"an error of the server":            {[]int{500}, "", 1, true, 2},
		"no answer":                         {[]int{-1}, "", 1, true, 2},
		"no answer, with a key":             {[]int{-1}, "headers: [{name: Idempotency-Key, value: '${message.id}'}]", 0, false, 3},
		"no answer to what can be repeated": {[]int{-1}, "method: PUT", 0, false, 3},
		"busy":                              {[]int{503, 429, 502}, "method: PUT", 0, false, 5},
		"our credentials":                   {[]int{401, 407}, "", 0, false, 4},
	} {
		t.Run(name, func(t *testing.T) {
			server := newWeb(t, tt.answers...)
			server.Start()
			dest := configured(t, "type: http\nhost: "+server.URL+"/\nproxyUrl: none\nqueue: {maxAttempts: 1, onPoison: deadletter}\n"+tt.keys)
			st := openStore(t, t.TempDir())
			e := start(t, st, channel("adt", dest))
			send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
			eventually(t, "the queue is empty", func() bool { s := e.stats("adt"); return s.Queued == 0 && s.Sent+s.Error == 2 })
			assert.EqualValues(t, tt.dead, e.stats("adt").Error)
			dead, err := st.DeadLetters(t.Context(), "adt", "out", 0, 10)
			require.NoError(t, err)
			for _, d := range dead {
				assert.Equal(t, "M1", d.Message.ControlID)
				assert.Equal(t, tt.maybeSent, d.MaybeSent)
			}
			bodies, _ := server.seen()
			assert.Len(t, bodies, tt.requests)
		})
	}
}

func TestAHeaderThatAMessageWouldBreakIsAMistakeOfTheMessage(t *testing.T) {
	t.Parallel()
	server := newWeb(t)
	server.Start()
	dest := configured(t, "type: http\nhost: "+server.URL+"/\nproxyUrl: none\nqueue: {onPoison: deadletter}\nheaders: [{name: X-Id, value: '${message.controlId}'}]")
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	send(t, dial(t, e.addr("adt"), nil), "A\x07B", "M2")
	eventually(t, "the other one is delivered", func() bool { s := e.stats("adt"); return s.Sent == 1 && s.Error == 1 })
	bodies, _ := server.seen()
	assert.Equal(t, []string{string(message("M2"))}, bodies)
}
