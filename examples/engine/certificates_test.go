package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// Row 55: what happens to the TLS files of connectors is in the audit log, with whose
// they are and why, and without a byte of them.
func TestCertificatesOfConnectorsAreInTheAuditLog(t *testing.T) {
	const marker = "KEYMATERIAL7"
	ca, dir := testpki.NewCA(t, "Test CA"), t.TempDir()
	server := func(days int) *testpki.Pair {
		return ca.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost"}, NotAfter: time.Now().Add(time.Duration(days)*24*time.Hour + time.Hour)})
	}
	server(5).Write(dir, "server")
	ca.Write(dir, "ca.crt")
	ca.Client("Engine").Write(dir, "client")
	in, out := freePort(t), freePort(t)
	path := writeConfig(t, `certificateCheckInterval: 100ms
channels:
  - id: adt
    source:
      type: tcp
      host: 127.0.0.1
      port: %d
      tls: {enabled: true, keyStorePath: %[2]s/server.key, certStorePath: %[2]s/server.crt}
    destinations:
      - name: lab
        type: tcp
        host: localhost
        port: %d
        tls: {enabled: true, keyStorePath: %[2]s/client.key, certStorePath: %[2]s/client.crt, trustStorePath: %[2]s/ca.crt}
        queue: {retryInterval: 10ms}
`, in, dir, out)
	p := launch(t, nil, "-config", path)
	p.says("engine ready")
	type event struct {
		Action, Outcome string
		Attributes      map[string]string
	}
	events := func() (list []event) {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "data", "audit", "audit-000001.jsonl"))
		require.NoError(t, err)
		assert.NotContains(t, string(text), marker)
		for line := range strings.Lines(string(text)) {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && strings.HasPrefix(e.Action, "certificate.") {
				list = append(list, e)
			}
		}
		return list
	}
	find := func(what string, holds func(event) bool) (found event) {
		t.Helper()
		eventually(t, what, func() bool {
			for _, e := range events() {
				if holds(e) {
					found = e
					return true
				}
			}
			return false
		})
		return found
	}
	expiring := find("the certificate expires", func(e event) bool { return e.Action == "certificate.expiring" })
	assert.Equal(t, "adt", expiring.Attributes["channelId"])
	assert.Equal(t, filepath.Join(dir, "server.crt"), expiring.Attributes["path"])
	assert.Regexp(t, `^12[01]h`, expiring.Attributes["left"], "it ends in five days")
	assert.Len(t, events(), 1, "what is served first is no event")

	server(300).Write(dir, "server")
	find("a renewal", func(e event) bool {
		return e.Action == "certificate.reload" && e.Outcome == "SUCCESS" && e.Attributes["channelId"] == "adt" && e.Attributes["destination"] == ""
	})
	broken := fmt.Sprintf("-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n", marker)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "server.key"), []byte(broken), 0o600))
	kept := find("a renewal that failed", func(e event) bool { return e.Action == "certificate.reload" && e.Outcome == "FAILURE" })
	assert.Contains(t, kept.Attributes["reason"], "server.key")

	// A destination looks when it dials.
	conn := dial(t, in, &tlsprops.TlsProperties{Enabled: true, TrustStorePath: filepath.Join(dir, "ca.crt"), SniServerName: "localhost"})
	_, err := conn.Send(t.Context(), message("M1"))
	require.NoError(t, err)
	p.says("delivery failed") // nobody listens, but the files were read
	require.NoError(t, os.WriteFile(filepath.Join(dir, "client.key"), []byte(broken), 0o600))
	find("the destination's", func(e event) bool {
		return e.Outcome == "FAILURE" && e.Attributes["destination"] == "lab" && strings.Contains(e.Attributes["reason"], "client.key")
	})
	assert.NotContains(t, p.stderr.String(), marker)
}
