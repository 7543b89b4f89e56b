package main

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// post sends a body with headers, NAME: VALUE each, and returns status and answer.
func post(t *testing.T, method, target, text string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(text))
	require.NoError(t, err)
	req.Close = true
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(data)
}

// What the API has answered is there after a kill: a channel, its state after a
// restart, and a message.
func TestChannelsAndMessagesOfTheAPISurviveAKill(t *testing.T) {
	port, other := freePort(t), freePort(t)
	path := writeConfig(t, oneChannel, port)
	p := launch(t, nil, "-config", path)
	p.says("engine ready")
	base := p.api()
	session := "X-Session-ID: " + signIn(t, base, "test", secret)
	channel := fmt.Sprintf(`{"id": "made", "name": "Made here", "source": {"type": "tcp", "host": "127.0.0.1", "port": %d},
		"destinations": [{"name": "lab", "type": "tcp", "host": "127.0.0.1", "port": %d, "queue": {"retryInterval": "10ms"}}]}`, freePort(t), other)
	code, text := post(t, "POST", base+"/api/channels", channel, session, "Content-Type: application/json")
	require.Equal(t, 201, code, text)
	code, text = post(t, "POST", base+"/api/channels/made/_deploy?returnErrors=true", "", session)
	require.Equal(t, 204, code, text)
	hl7 := string(message("API-1"))
	code, text = post(t, "POST", base+"/api/channels/made/messages", hl7, session, "Content-Type: text/plain")
	require.Equal(t, 200, code, text)
	p.signal(syscall.SIGKILL)
	assert.Equal(t, -1, p.code())

	lab := new(recorder)
	lab.listen(t, other)
	p = launch(t, nil, "-config", path)
	p.says("engine ready")
	base = p.api()
	session = "X-Session-ID: " + signIn(t, base, "test", secret)
	eventually(t, "the message is delivered", func() bool { return len(lab.received()) > 0 })
	assert.Equal(t, "API-1", lab.received()[0])
	code, text = post(t, "GET", base+"/api/channels/made/messages/1/content", "", session)
	require.Equal(t, 200, code)
	assert.Equal(t, hl7, text)
	_, status := call(t, "GET", base+"/api/channels/made/status", strings.TrimPrefix(session, "X-Session-ID: "))
	assert.Equal(t, "STARTED", status["state"])

	code, text = post(t, "DELETE", base+"/api/channels/adt", "", session)
	assert.Equal(t, 409, code)
	assert.Contains(t, text, "engine.yaml")
	eventually(t, "nothing waits", func() bool {
		code, text = post(t, "DELETE", base+"/api/channels/made", "", session)
		return code == 204
	})
	code, _ = post(t, "GET", base+"/api/channels/made", "", session)
	assert.Equal(t, 404, code)
}

func TestStoredChannelWithAMistakeStopsTheStart(t *testing.T) {
	path := writeConfig(t, oneChannel, freePort(t))
	dir := filepath.Join(filepath.Dir(path), "data", "channels")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x.yaml"), []byte("id: x\nnope: 1\n"), 0o600))
	p := launch(t, nil, "-config", path)
	assert.Equal(t, 1, p.code())
	assert.Contains(t, p.stderr.String(), "x.yaml:2: nope: not a key here")
	assert.NotContains(t, p.stderr.String(), "API listens")
}

// A node that has had no answer sends again, also to an engine that was killed
// meanwhile: the message is stored once, and the answer is the same.
func TestDispatchIsIdempotentAcrossAKill(t *testing.T) {
	const cluster = "kX9vQ2mZ7rT4wB8nL3pD6sF1gH5jC0aY"
	path := writeConfig(t, oneChannel, freePort(t))
	dispatch := func(p *process, id string) (int, string) {
		p.says("engine ready")
		return post(t, "POST", p.api()+"/api/internal/dispatch",
			`{"channelId": "adt", "rawData": "MSH|^~\\&|A\r", "dispatchId": "`+id+`"}`,
			"Content-Type: application/json", "X-Cluster-Secret: "+cluster)
	}
	p := launch(t, nil, "-config", path)
	code, _ := dispatch(p, "d-1")
	assert.Equal(t, 404, code, "not there without a secret")
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 0, p.code())

	env := []string{"MIRTH_CLUSTER_SECRET=" + cluster}
	p = launch(t, env, "-config", path)
	code, first := dispatch(p, "d-1")
	require.Equal(t, 200, code, first)
	assert.JSONEq(t, `{"messageId": 1, "status": "QUEUED"}`, first)
	p.signal(syscall.SIGKILL)
	assert.Equal(t, -1, p.code())
	p = launch(t, env, "-config", path)
	code, again := dispatch(p, "d-1")
	assert.Equal(t, 200, code)
	assert.Equal(t, first, again)
	_, second := dispatch(p, "d-2")
	assert.NotEqual(t, first, second)
	code, body := post(t, "POST", p.api()+"/api/internal/dispatch", "{}", "X-Cluster-Secret: "+strings.Repeat("x", 32))
	assert.Equal(t, 403, code)
	assert.JSONEq(t, `{"error": "Invalid cluster secret"}`, body)
	assert.NotContains(t, p.stderr.String(), cluster)
	session := "X-Session-ID: " + signIn(t, p.api(), "test", secret)
	eventually(t, "it is in the audit log", func() bool {
		_, events := post(t, "GET", p.api()+"/api/events", "", session)
		return strings.Contains(events, "cluster.request")
	})

	var status struct{ Statistics struct{ Received int } }
	_, text := post(t, "GET", p.api()+"/api/channels/adt/status", "", session)
	require.NoError(t, json.Unmarshal([]byte(text), &status))
	assert.Equal(t, 2, status.Statistics.Received)
}

// signature is the header of a dispatch, made as package cluster documents it, by a node
// whose clock is so far from ours.
func signature(t *testing.T, secret, to, body string, ahead time.Duration) string {
	t.Helper()
	key := func(info string, length int) []byte {
		k, err := hkdf.Key(sha256.New, []byte(secret), nil, "carewire cluster v1 "+info, length)
		require.NoError(t, err)
		return k
	}
	field := func(text string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(text)))) + text //nolint:gosec // a short text
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // it never fails
	digest, b64 := sha256.Sum256([]byte(body)), base64.RawURLEncoding
	header := fmt.Sprintf("v1;kid=%x;ts=%d;nonce=%s;from=node-b;to=%s;digest=%s",
		key("key id", 8), time.Now().Add(ahead).UnixMilli(), b64.EncodeToString(nonce), to, b64.EncodeToString(digest[:]))
	mac := hmac.New(sha256.New, key("hmac", 32))
	mac.Write([]byte("carewire cluster v1 request\n" + field("POST") + field("/api/internal/dispatch") +
		"\x00\x00\x00\x01" + field("application/json") + "\x00\x00\x00\x00" + header))
	return header + ";sig=" + b64.EncodeToString(mac.Sum(nil))
}

// Row 47: who records a signed request has nothing of it, not even where the engine is
// killed and the sender's clock is ahead, so that the time of the request does not show
// that it is from before.
func TestARecordedDispatchIsTakenInOnceAcrossAKill(t *testing.T) {
	const cluster, body = "kX9vQ2mZ7rT4wB8nL3pD6sF1gH5jC0aY", `{"channelId": "adt", "rawData": "MSH|^~\\&|A\r"}`
	path := writeConfig(t, oneChannel, freePort(t))
	env := []string{"MIRTH_CLUSTER_SECRET=" + cluster, "MIRTH_SERVER_ID=node-a", "MIRTH_CLUSTER_SIGNED_ONLY=true"}
	send := func(p *process, header string) (int, string) {
		return post(t, "POST", p.api()+"/api/internal/dispatch", body, "Content-Type: application/json", "X-Cluster-Signature: "+header)
	}
	p := launch(t, env, "-config", path)
	p.says("engine ready")
	recorded, ahead := signature(t, cluster, "node-a", body, 0), signature(t, cluster, "node-a", body, 4*time.Minute)
	code, first := send(p, recorded)
	require.Equal(t, 200, code, first)
	code, second := send(p, ahead)
	require.Equal(t, 200, code, second)
	assert.NotEqual(t, first, second)
	for _, header := range []string{recorded, ahead, signature(t, cluster, "node-a", body, 6*time.Minute), signature(t, cluster, "node-c", body, 0)} {
		code, _ = send(p, header)
		assert.Equal(t, 403, code)
	}
	p.signal(syscall.SIGKILL)
	assert.Equal(t, -1, p.code())

	p = launch(t, env, "-config", path)
	p.says("engine ready")
	code, _ = send(p, recorded)
	assert.Equal(t, 403, code, "it is from before the start")
	code, again := send(p, ahead)
	assert.Equal(t, 200, code)
	assert.Equal(t, second, again, "it is the message that is there already")
	var status struct{ Statistics struct{ Received int } }
	_, text := post(t, "GET", p.api()+"/api/channels/adt/status", "", "X-Session-ID: "+signIn(t, p.api(), "test", secret))
	require.NoError(t, json.Unmarshal([]byte(text), &status))
	assert.Equal(t, 2, status.Statistics.Received)
}

func TestWeakClusterSecretsStopTheStart(t *testing.T) {
	path := writeConfig(t, oneChannel, freePort(t))
	for _, env := range [][]string{
		{"MIRTH_CLUSTER_SECRET=too-short"},
		{"MIRTH_CLUSTER_SECRET=your-strong-random-secret-here"},
		{"MIRTH_CLUSTER_ENABLED=true"},
		{"MIRTH_CLUSTER_SECRET_PREVIOUS=kX9vQ2mZ7rT4wB8nL3pD6sF1gH5jC0aY"},
		{"MIRTH_CLUSTER_SECRET=kX9vQ2mZ7rT4wB8nL3pD6sF1gH5jC0aY", "MIRTH_CLUSTER_SIGNED_ONLY=perhaps"},
	} {
		p := launch(t, env, "-config", path)
		assert.Equal(t, 1, p.code(), "%v", env)
		assert.Contains(t, p.stderr.String(), "MIRTH_CLUSTER_")
		assert.NotContains(t, p.stderr.String(), "too-short")
	}
}
