package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
)

// Row 29: HTTPS serves everything, PORT only health.
func TestHTTPSServesEverythingAndPortOnlyHealth(t *testing.T) {
	ca, dir := testpki.NewCA(t, "Test CA"), t.TempDir()
	pair := ca.Server().Write(dir, "server")
	path := writeConfig(t, "certificateCheckInterval: 100ms\n"+oneChannel, freePort(t))
	p := launch(t, []string{"TLS_CERT=" + pair.Cert, "TLS_KEY=" + pair.Key, "HTTPS_PORT=0"}, "-config", path)
	p.says("engine ready")
	addr := func(what string) string {
		return regexp.MustCompile(`msg="` + what + `" addr=(\S+)`).FindStringSubmatch(p.stderr.String())[1]
	}
	plain, secure := "http://"+addr("health listens"), "https://"+addr("API listens")

	pool := x509.NewCertPool()
	root, err := os.ReadFile(ca.Write(dir, "ca"))
	require.NoError(t, err)
	pool.AppendCertsFromPEM(root)
	type answer struct {
		code   int
		header http.Header
		proto  int
		tls    *tls.ConnectionState
		text   string
	}
	get := func(conf *tls.Config, url string) (answer, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("username=test&password="+secret))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return answer{}, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return answer{resp.StatusCode, resp.Header, resp.ProtoMajor, resp.TLS, string(text)}, err
	}
	resp, err := get(&tls.Config{RootCAs: pool}, secure+"/api/users/_login")
	require.NoError(t, err)
	assert.Equal(t, 200, resp.code)
	assert.Contains(t, resp.header.Get("Set-Cookie"), "; Secure", "by our own TLS")
	assert.NotEmpty(t, resp.header.Get("Strict-Transport-Security"))
	assert.Equal(t, 2, resp.proto)
	_, err = get(&tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, secure+"/api/users/_login")
	require.Error(t, err, "TLS 1.2 at least")
	_, err = get(new(tls.Config), secure+"/api/users/_login")
	require.Error(t, err, "a CA that is not trusted")

	code, _ := call(t, http.MethodGet, plain+"/api/health")
	assert.Equal(t, 200, code)
	resp, err = get(nil, plain+"/api/users/_login")
	require.NoError(t, err)
	assert.Equal(t, 404, resp.code)
	assert.NotContains(t, resp.text, "SUCCESS")
	code, _ = call(t, http.MethodGet, plain+"/api/channels")
	assert.Equal(t, 404, code)

	// Another certificate is in use without a restart, a broken one is not.
	serial := func() string {
		resp, err := get(&tls.Config{RootCAs: pool}, secure+"/health")
		require.NoError(t, err)
		return resp.tls.PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	ca.Server().Write(dir, "server")
	eventually(t, "the new certificate is in use", func() bool { return serial() != before })
	require.NoError(t, os.WriteFile(pair.Key, []byte("broken"), 0o600))
	eventually(t, "the broken one is noticed", func() bool {
		log, err := os.ReadFile(filepath.Join(filepath.Dir(path), "data", "audit", "audit-000001.jsonl"))
		require.NoError(t, err)
		return strings.Contains(string(log), `"action":"certificate.reload","outcome":"FAILURE"`) &&
			strings.Contains(string(log), `"action":"certificate.reload","outcome":"SUCCESS"`)
	})
	assert.NotEqual(t, before, serial())
}

// Row 29: what cannot be honoured stops the start, naming variable and file.
func TestHTTPSThatCannotBeHadStopsTheStart(t *testing.T) {
	ca, dir := testpki.NewCA(t, "Test CA"), t.TempDir()
	pair, other := ca.Server().Write(dir, "server"), ca.Server().Write(dir, "other")
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	good := writeConfig(t, oneChannel, freePort(t))
	for name, tt := range map[string]struct {
		cert, key string
		want      []string
	}{
		"no file":    {pair.Cert, filepath.Join(dir, "nowhere"), []string{"TLS_KEY: ", "nowhere"}},
		"mismatched": {pair.Cert, other.Key, []string{"TLS_", "do not belong together"}},
		"no key":     {pair.Cert, empty, []string{"TLS_KEY: ", empty}},
		"no cert":    {empty, pair.Key, []string{"TLS_CERT: ", empty}},
	} {
		p := launch(t, []string{"TLS_CERT=" + tt.cert, "TLS_KEY=" + tt.key, "HTTPS_PORT=0"}, "-config", good)
		assert.Equal(t, 1, p.code(), name)
		for _, want := range tt.want {
			assert.Contains(t, p.stderr.String(), want, name)
		}
		assert.NotContains(t, p.stderr.String(), "listens", name)
		assert.NotContains(t, p.stderr.String(), "channel started", name)
	}
	p := launch(t, []string{fmt.Sprintf("TLS_CERT=%s", pair.Cert)}, "-config", good)
	assert.Equal(t, 1, p.code())
	assert.Contains(t, p.stderr.String(), "TLS_KEY: is not set")
}
