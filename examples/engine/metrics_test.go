package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Row 57: what an operator needs to know at night, as Prometheus collects it. And
// nothing of a message is in it.
func TestPrometheusCollectsMetricsWithAToken(t *testing.T) {
	const token, canary = "0123456789abcdef0123456789abcdef", "KANARI7"
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	port := freePort(t)
	p := launch(t, []string{"METRICS_TOKEN_FILE=" + file}, "-config", writeConfig(t, oneChannel, port))
	p.says("engine ready")
	base := p.api()

	conn := dial(t, port, nil)
	_, err := conn.Send(t.Context(), []byte("MSH|^~\\&|"+canary+"|||||||"+"ADT^A01|"+canary+"|T|2.5\rPID|1||"+canary+"\r"))
	require.NoError(t, err)
	stranger, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	defer stranger.Close()
	_, err = stranger.Write([]byte("\x0b" + canary + "\x1c\r"))
	require.NoError(t, err)

	scrape := func(token string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/metrics", http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	code, _ := scrape("wrong")
	assert.Equal(t, 401, code)
	var text string
	eventually(t, "delivered, and the other one refused", func() bool {
		code, text = scrape(token)
		return code == 200 && strings.Contains(text, `carewire_queue_sent_total{channel="adt",destination="archive"} 1`) &&
			strings.Contains(text, `carewire_refused_total{channel="adt",reason="not_hl7"} 1`)
	})
	for _, series := range []string{
		`carewire_received_total{channel="adt"} 1`,
		`carewire_queue_depth{channel="adt",destination="archive"} 0`,
		`carewire_queue_oldest_age_seconds{channel="adt",destination="archive"} 0`,
		`carewire_last_received_timestamp_seconds{channel="adt"} `,
		`carewire_commit_seconds_count{channel="adt"} 1`,
		`carewire_acknowledgement_seconds_count{channel="adt"} 1`,
		`carewire_authentication_failures_total{interface="api"} 1`,
		`carewire_store_healthy 1`,
		`carewire_disk_free_bytes `,
		`go_goroutines `, `process_open_fds `,
	} {
		assert.Contains(t, text, "\n"+series)
	}
	assert.NotContains(t, text, canary)
	for _, name := range ofDashboard(t) {
		assert.Contains(t, text, "\n"+name, "the dashboard shows what is not there")
	}
	assert.NotContains(t, p.stderr.String(), token)
	http.DefaultClient.CloseIdleConnections()
}

// ofDashboard returns the metrics that the dashboard shows, but for those that a single
// channel without TLS does not have.
func ofDashboard(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("deploy", "grafana-dashboard.json"))
	require.NoError(t, err)
	require.True(t, json.Valid(text))
	names := slices.Compact(slices.Sorted(slices.Values(regexp.MustCompile(`carewire_[a-z_]+|process_[a-z_]+|go_[a-z_]+`).FindAllString(string(text), -1))))
	require.Greater(t, len(names), 15)
	return slices.DeleteFunc(names, func(name string) bool {
		return name == "carewire_delivery_failures_total" || name == "carewire_certificate_not_after_timestamp_seconds"
	})
}
