package config_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

// withSource is a configuration of one source with these keys, one a line, of
// which the first is in line 4.
func withSource(keys string) string {
	return "channels:\n  - id: a\n    source:\n      " + strings.ReplaceAll(strings.TrimSpace(keys), "\n", "\n      ") +
		"\n    destinations: [{name: out, type: file, directory: out}]\n"
}

const (
	aWeb     = "type: http\nhost: 127.0.0.1\nport: 8090\n"
	aMailbox = "type: mesh\nbaseUrl: http://127.0.0.1:8700\nmailbox: m1\npassword: p\nhashSecret: k\n"
	toMESH   = aMailbox + "to: M2\nworkflowId: W\n"
)

func TestEveryMistakeInAnHTTPOrMESHConnectorGivesOneLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		line       int
		key, says  string
	}{
		{"source without a port", withSource("type: http\nhost: 127.0.0.1"), 3, "source.port", "is missing"},
		{"path without a slash", withSource(aWeb + "contextPath: hl7"), 7, "source.contextPath", "is not a path"},
		{"method without a body", withSource(aWeb + "methods: [POST, GET]"), 7, "source.methods[1]", "write POST, PUT or PATCH"},
		{"user without authentication", withSource(aWeb + "username: u"), 7, "source.username", "only with useAuthentication: true"},
		{"authentication without a user", withSource(aWeb + "useAuthentication: true\npassword: " + marker), 3, "source.username", "is missing"},
		{"password in the clear", withSource(strings.Replace(aWeb, "127.0.0.1", "0.0.0.0", 1) + "useAuthentication: true\nusername: u\npassword: " + marker), 7, "source.useAuthentication", "in the clear"},
		{"user with a colon", withSource(aWeb + "useAuthentication: true\nusername: 'u:v'\npassword: p"), 8, "source.username", "colon"},
		{"unknown character set", withSource(aWeb + "charset: " + marker), 7, "source.charset", "is not a character set"},
		{"message that is too large for a store", withSource(aWeb + "maxMessageSize: 999999999999"), 7, "source.maxMessageSize", "at most"},
		{"connections below nothing", withSource(aWeb + "maxConnections: -1"), 7, "source.maxConnections", "negative"},
		{"time in other units", withSource(aWeb + "timeout: 2h"), 7, "source.timeout", "between nothing and 1h"},
		{"answer that is no success", withSource(aWeb + "responseStatusCode: 302"), 7, "source.responseStatusCode", "from 200 to 299"},
		{"answer of no type", withSource(aWeb + "responseContentType: ';'"), 7, "source.responseContentType", "is not a content type"},
		{"header of the engine's", withSource(aWeb + "responseHeaders: [{name: content-length, value: '1'}]"), 7, "source.responseHeaders[0].name", "made by the engine"},
		{"header that is none", withSource(aWeb + "responseHeaders: [{name: 'a b', value: '1'}]"), 7, "source.responseHeaders[0].name", "is not a name"},
		{"TLS without a key", withSource(aWeb + "tls: {enabled: true}"), 7, "source.tls.keyStorePath", ""},
		{"a port that is taken", withSource(aWeb) + "  - id: b\n    source: {type: tcp, host: 127.0.0.1, port: 8090}\n    destinations: [{name: out, type: file, directory: b}]\n", 9, "", "is taken by"},

		{"MESH without a server", withSource(strings.Replace(aMailbox, "baseUrl: http://127.0.0.1:8700\n", "", 1)), 3, "source.baseUrl", "is missing"},
		{"MESH in the clear", withSource(strings.Replace(aMailbox, "127.0.0.1", "mesh.example.org", 1)), 3, "source", "must be https://"},
		{"MESH without a certificate", withSource(strings.Replace(aMailbox, "http://127.0.0.1:8700", "https://mesh.example.org", 1)), 3, "source", "asks every client for a certificate"},
		{"MESH that is not verified", withSource(strings.Replace(aMailbox, "http:", "https:", 1) + "tls: {enabled: true, rejectUnauthorized: false}"), 3, "source", "always verified"},
		{"a secret with a colon", withSource(strings.Replace(aMailbox, "password: p", "password: 'a:b'", 1)), 3, "source", "colon"},
		{"polling too often", withSource(aMailbox + "pollingFrequency: 1m"), 9, "source.pollingFrequency", "between 5m and 24h"},
		{"filter that is too short", withSource(aMailbox + "workflowFilter: x"), 9, "source.workflowFilter", "2 to 255"},
		{"proxy that is none", withSource(aMailbox + "proxyUrl: " + marker), 9, "source.proxyUrl", "neither http://"},
		{"one inbox for two", withSource(aMailbox) + "  - id: b\n    source: {type: mesh, baseUrl: 'http://127.0.0.1:8700', mailbox: M1, password: p, hashSecret: k}\n    destinations: [{name: out, type: file, directory: b}]\n", 11, "", "is the same as channels[0].source.mailbox"},
		{"MESH to nobody", withDestination(strings.Replace(toMESH, "to: M2\n", "", 1)), 5, "destinations[0].to", "is missing"},
		{"MESH of no workflow", withDestination(strings.Replace(toMESH, "workflowId: W\n", "", 1)), 5, "destinations[0].workflowId", "is missing"},
		{"recipient of the message's making", withDestination(strings.Replace(toMESH, "to: M2", "to: '${message.id}'", 1)), 13, "destinations[0].to", "fixed when the engine starts"},
		{"message in the subject", withDestination(toMESH + "subject: '${message.raw}'"), 15, "destinations[0].subject", "more than one line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, path, err := load(t, tt.text, nil)
			require.Error(t, err)
			lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
			require.Len(t, lines, 1, "%v", err)
			assert.Regexp(t, "^"+path+":"+strconv.Itoa(tt.line)+": ", lines[0])
			if tt.key != "" {
				assert.Contains(t, lines[0], ": channels[0]."+tt.key+": ")
			}
			assert.Contains(t, lines[0], tt.says)
			assert.NotContains(t, err.Error(), marker, "no value is printed")
		})
	}
}

func TestSourcesOfHTTPAndMESHHaveDefaultsAndMirthsUnits(t *testing.T) {
	t.Parallel()
	cfg, path, err := load(t, withSource(aWeb), nil)
	require.NoError(t, err)
	h := cfg.Channels[0].Source.HTTP
	assert.Equal(t, config.HTTPSource{
		Host: "127.0.0.1", Port: 8090, ContextPath: "/", Methods: []string{"POST", "PUT"}, MaxMessageSize: 16 << 20, MaxConnections: 256,
		Timeout: 30 * time.Second, ResponseStatusCode: 200, ResponseContentType: "text/plain",
	}, *h)
	assert.NotEmpty(t, path)
	cfg, _, err = load(t, withSource(aWeb+"timeout: '30000'\ncontextPath: /hl7\ncharset: UTF-8"), nil)
	require.NoError(t, err)
	assert.Equal(t, 30*time.Second, cfg.Channels[0].Source.HTTP.Timeout)

	secret := filepath.Join(t.TempDir(), "hash")
	require.NoError(t, os.WriteFile(secret, []byte("TestKey\n"), 0o600))
	cfg, path, err = load(t, withSource(strings.Replace(aMailbox, "hashSecret: k", "hashSecret: file:"+secret, 1)), nil)
	require.NoError(t, err)
	m := cfg.Channels[0].Source.MESH
	assert.Equal(t, "TestKey", m.HashSecret)
	assert.Equal(t, 5*time.Minute, m.PollingFrequency)
	assert.Equal(t, filepath.Join(filepath.Dir(path), "data", "mesh", "a"), m.Directory)
	cfg, _, err = load(t, withDestination(toMESH), nil)
	require.NoError(t, err)
	assert.Equal(t, "application/octet-stream", cfg.Channels[0].Destinations[0].MESH.ContentType)
	assert.False(t, cfg.Channels[0].Destinations[0].MESH.Content.Empty())
}
