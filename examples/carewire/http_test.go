package main

import (
	"compress/gzip"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// httpSend runs the command with a body on standard input.
func httpSend(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	status = run(t.Context(), append([]string{"http", "send", "--proxy", "none"}, args...), strings.NewReader("BodyCanary"), &out, &errs)
	return status, out.String(), errs.String()
}

func TestHTTPSendSaysWhatBecameOfTheRequest(t *testing.T) {
	var tries atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		switch r.URL.Path {
		case "/no":
			w.WriteHeader(http.StatusNotFound)
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/gone":
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		default:
			_, _ = io.WriteString(w, "answer")
		}
	}))
	defer server.Close()
	for name, tt := range map[string]struct {
		args   []string
		status int
		out    string
		tries  int32
	}{
		"taken":                     {[]string{server.URL + "/", "-"}, exitOK, "sent, status 200, 6 bytes\n", 1},
		"refused":                   {[]string{server.URL + "/no", "-"}, exitNacked, "rejected, status 404, 0 bytes\n", 1},
		"refused for now":           {[]string{server.URL + "/busy", "--attempts", "1"}, exitNacked, "retryable, status 503, 0 bytes\n", 1},
		"lost":                      {[]string{server.URL + "/gone", "-"}, exitUnknown, "unknown, status 0, 0 bytes\n", 1},
		"lost, with no harm":        {[]string{server.URL + "/gone", "-", "--method", "PUT", "--attempts", "2"}, exitNotSent, "retryable, status 0, 0 bytes\n", 2},
		"as JSON":                   {[]string{server.URL + "/no", "--json"}, exitNacked, `{"outcome":"rejected","status":404,"bytes":0,"retry":false}` + "\n", 1},
		"answer on standard output": {[]string{server.URL + "/", "--out", "-"}, exitOK, "answer", 1},
	} {
		t.Run(name, func(t *testing.T) {
			tries.Store(0)
			status, out, errs := httpSend(t, tt.args...)
			assert.Equal(t, tt.status, status, errs)
			assert.Equal(t, tt.out, out)
			assert.Equal(t, tt.tries, tries.Load())
			assert.NotContains(t, errs, "BodyCanary")
		})
	}
}

func TestHTTPSendSendsWhatItIsGiven(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body, _ := io.ReadAll(unzipped)
		user, password, _ := r.BasicAuth()
		_, _ = io.WriteString(w, strings.Join([]string{
			r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("X-Ward"), user, password, string(body),
		}, "|"))
	}))
	defer server.Close()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	require.NoError(t, os.WriteFile(at("ca.crt"), ca, 0o600))
	require.NoError(t, os.WriteFile(at("password"), []byte("PassCanary\n"), 0o600))
	require.NoError(t, os.WriteFile(at("order"), []byte("from a file"), 0o600))
	status, out, errs := httpSend(t, server.URL+"/orders", at("order"), "--ca", at("ca.crt"), "--name", "example.com", "--gzip",
		"--content-type", "text/plain", "--header", "X-Ward: 3", "--auth", "basic", "--user", "u", "--password-file", at("password"), "--out", at("answer"))
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "sent, status 200")
	answer, err := os.ReadFile(at("answer"))
	require.NoError(t, err)
	assert.Equal(t, "POST|/orders|text/plain|3|u|PassCanary|from a file", string(answer))
	assert.NotContains(t, out+errs, "PassCanary")

	// Without the authority there is no request, and no file.
	status, _, errs = httpSend(t, server.URL+"/orders", at("order"), "--out", at("none"))
	assert.Equal(t, exitNotSent, status)
	assert.Contains(t, errs, "certificate")
	assert.NoFileExists(t, at("none"))
}

func TestHTTPSendRefusesWhatItCannotUse(t *testing.T) {
	for want, args := range map[string][]string{
		"must be https://":          {"ftp://example.org/"},
		"credentials":               {"https://u:PassCanary@example.org/"},
		"need an https:// URL":      {"http://127.0.0.1/", "--ca", "x"},
		"--ca":                      {"https://127.0.0.1/", "--ca", "/does/not/exist"},
		"need --auth":               {"https://example.org/", "--user", "u"},
		"needs --password-file":     {"https://example.org/", "--auth", "bearer"},
		"not with bearer":           {"https://example.org/", "--auth", "bearer", "--user", "u", "--password-file", "x"},
		"--header takes NAME:VALUE": {"https://example.org/", "--header", "PassCanary"},
		"--gzip needs a body":       {"https://example.org/", "--gzip"},
		"body":                      {"https://example.org/", "/does/not/exist"},
		"--attempts":                {"https://example.org/", "--attempts", "0"},
		"standard output":           {"https://example.org/", "--json", "--out", "-"},
	} {
		status, out, errs := httpSend(t, args...)
		assert.Equal(t, exitUsage, status, want)
		assert.Empty(t, out)
		assert.Contains(t, errs, want)
		assert.NotContains(t, errs, "PassCanary")
	}
}
