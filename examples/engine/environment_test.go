package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
)

// observed is an engine in a process, as somebody sees it who talks to its port.
type observed struct {
	*process

	base   string
	client *http.Client
}

// reply is what came back.
type reply struct {
	StatusCode int
	Header     http.Header
}

// ask makes a request, with NAME: VALUE headers, and returns the answer and its body.
func (o *observed) ask(method, path, body string, headers ...string) (reply, string) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.base+path, strings.NewReader(body))
	require.NoError(o.t, err)
	req.Close = true
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := o.client.Do(req)
	require.NoError(o.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(o.t, err)
	return reply{resp.StatusCode, resp.Header}, string(data)
}

func (o *observed) signIn(headers ...string) reply {
	form := url.Values{"username": {"test"}, "password": {secret}}
	resp, text := o.ask("POST", "/api/users/_login", form.Encode(), append(headers, "Content-Type: application/x-www-form-urlencoded")...)
	require.Equal(o.t, 200, resp.StatusCode, text)
	return resp
}

// Each variable and what somebody sees of it, at the port or in the log: those of the
// guide's Quick Reference first. NODE_EXTRA_CA_CERTS and certificates that are exchanged
// have tests of their own.
func TestVariablesOfTheEnvironmentDoWhatIsSaidOfThem(t *testing.T) {
	const clusterSecret = "kX9vQ2mZ7rT4wB8nL3pD6sF1gH5jC0aY"
	ca := testpki.NewCA(t, "Test CA")
	pair := ca.Server().Write(t.TempDir(), "server")

	secure := func(want bool, headers ...string) func(*testing.T, *observed) {
		return func(t *testing.T, o *observed) {
			cookie := o.signIn(headers...).Header.Get("Set-Cookie")
			assert.Regexp(t, `^JSESSIONID=[A-Za-z0-9_-]+; Path=/; HttpOnly;( Secure;)? SameSite=Strict$`, cookie)
			assert.Equal(t, want, strings.Contains(cookie, "Secure"))
		}
	}
	dispatch := func(want int) func(*testing.T, *observed) {
		return func(t *testing.T, o *observed) {
			resp, text := o.ask("POST", "/api/internal/dispatch", `{"channelId": "adt", "rawData": "MSH|"}`, "Content-Type: application/json", "X-Cluster-Secret: "+clusterSecret)
			assert.Equal(t, want, resp.StatusCode, text)
		}
	}
	says := func(pattern string) func(*testing.T, *observed) {
		return func(t *testing.T, o *observed) { assert.Regexp(t, pattern, o.stderr.String()) }
	}
	for _, tt := range []struct {
		env string // NAME=VALUE, with blanks between them
		see func(*testing.T, *observed)
	}{
		{"", secure(false)},
		{"TLS_ENABLED=true", secure(true)},
		{"TLS_ENABLED=false", secure(false)},
		{"NODE_ENV=production", secure(true)},
		{"HTTP_TRUSTED_PROXIES=127.0.0.1", secure(true, "X-Forwarded-Proto: https")},
		{"HTTP_TRUSTED_PROXIES=127.0.0.2", secure(false, "X-Forwarded-Proto: https")},
		{"TLS_CERT=" + pair.Cert + " TLS_KEY=" + pair.Key + " HTTPS_PORT=0", func(t *testing.T, o *observed) {
			resp, _ := o.ask("GET", "/api/server/version", "")
			assert.Equal(t, 400, resp.StatusCode, "it speaks HTTPS")
			assert.NotContains(t, o.base, ":8443")
			o.base = "https://" + strings.TrimPrefix(o.base, "http://")
			o.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, DisableKeepAlives: true}}
			secure(true)(t, o)
			plain := regexp.MustCompile(`msg="health listens" addr=(\S+)`).FindStringSubmatch(o.stderr.String())
			require.NotNil(t, plain)
			o.base = "http://" + plain[1]
			resp, _ = o.ask("GET", "/health", "")
			assert.Equal(t, 200, resp.StatusCode)
			resp, _ = o.ask("GET", "/api/server/version", "")
			assert.Equal(t, 404, resp.StatusCode, "PORT has health alone")
		}},
		{"", dispatch(404)},
		{"MIRTH_CLUSTER_SECRET=" + clusterSecret, dispatch(200)},
		{"MIRTH_CLUSTER_ENABLED=true MIRTH_CLUSTER_SECRET=" + clusterSecret, dispatch(200)},
		{"MIRTH_CLUSTER_SECRET=" + strings.ToLower(clusterSecret) + " MIRTH_CLUSTER_SECRET_PREVIOUS=" + clusterSecret, dispatch(200)},
		{"MIRTH_CLUSTER_SECRET=" + strings.ToLower(clusterSecret), dispatch(403)},
		{"MIRTH_CLUSTER_SIGNED_ONLY=true MIRTH_CLUSTER_SECRET=" + clusterSecret, dispatch(403)},
		{"HTTP_HOST=127.0.0.2", func(t *testing.T, o *observed) { assert.Contains(t, o.base, "127.0.0.2:") }},
		{"CORS_ORIGINS=https://dashboard.example.org", func(t *testing.T, o *observed) {
			resp, _ := o.ask("GET", "/health", "", "Origin: https://dashboard.example.org")
			assert.Equal(t, "https://dashboard.example.org", resp.Header.Get("Access-Control-Allow-Origin"))
			resp, _ = o.ask("GET", "/health", "", "Origin: https://other.example.org")
			assert.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"))
		}},
		{"MIRTH_API_RATE_LIMIT=2", func(t *testing.T, o *observed) {
			var codes []int
			for range 3 {
				resp, _ := o.ask("GET", "/api", "")
				codes = append(codes, resp.StatusCode)
			}
			assert.Equal(t, []int{200, 200, 429}, codes)
		}},
		{"MIRTH_WS_MAX_CLIENTS=1", func(t *testing.T, o *observed) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			opts := &websocket.DialOptions{HTTPHeader: http.Header{"X-Session-ID": {o.signIn().Header.Get("X-Session-ID")}}}
			first, _, err := websocket.Dial(ctx, o.base+"/ws/dashboardstatus", opts) //nolint:bodyclose // the connection is closed
			require.NoError(t, err)
			defer func() { _ = first.CloseNow() }()
			_, _, err = first.Read(ctx) // it is counted
			require.NoError(t, err)
			second, _, err := websocket.Dial(ctx, o.base+"/ws/dashboardstatus", opts) //nolint:bodyclose // likewise
			require.NoError(t, err)
			defer func() { _ = second.CloseNow() }()
			_, _, err = second.Read(ctx)
			assert.Equal(t, websocket.StatusTryAgainLater, websocket.CloseStatus(err))
		}},
		{"MIRTH_SERVER_ID=node-7", func(t *testing.T, o *observed) {
			_, text := o.ask("GET", "/api/server/id", "", "X-Session-ID: "+o.signIn().Header.Get("X-Session-ID"))
			assert.Equal(t, "node-7", text)
		}},
		{"LOG_LEVEL=debug MIRTH_CLUSTER_SECRET=" + clusterSecret, func(t *testing.T, o *observed) {
			dispatch(200)(t, o)
			o.says("level=DEBUG msg=cluster")
		}},
		{"LOG_FORMAT=json", func(t *testing.T, o *observed) {
			for line := range strings.Lines(o.stderr.String()) {
				assert.True(t, json.Valid([]byte(line)) || !strings.HasSuffix(line, "\n"), line)
			}
		}},
		{"DB_HOST=db MIRTH_CLUSTER_LEASE_TTL=30000", says(`not supported have no effect.*MIRTH_CLUSTER_LEASE_TTL DB_HOST`)},
		{"TLS_CRET=x MIRTH_SOMETHING=y", says(`nothing here asks for have no effect.*MIRTH_SOMETHING TLS_CRET \(did you mean TLS_CERT\?\)`)},
	} {
		t.Run(regexp.MustCompile(`=\S{20,}`).ReplaceAllString(tt.env, "=…"), func(t *testing.T) {
			t.Parallel()
			p := launch(t, strings.Fields(tt.env), "-config", writeConfig(t, `users: [{name: test, role: admin, password: `+secret+`}]
channels:
  - {id: adt, source: {type: channel}, destinations: [{name: archive, type: file, directory: ./archive}]}
`))
			p.says("engine ready")
			addr := regexp.MustCompile(`API listens"(?:,"addr":"| addr=)([^\s"]+)`).FindStringSubmatch(p.stderr.String())
			require.NotNil(t, addr)
			tt.see(t, &observed{process: p, base: "http://" + addr[1], client: http.DefaultClient})
		})
	}
}
