package api_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/tlsprops"
)

func TestConnectorsOfHTTPAndMESHAreShownWithoutSecrets(t *testing.T) {
	t.Parallel()
	box := config.Mailbox{
		BaseURL: "https://mesh.example.org", Mailbox: "M1", Password: "secret", HashSecret: "secret",
		TLS: &tlsprops.TlsProperties{Enabled: true, KeyStorePath: "/secret/key"}, ProxyURL: "http://u:secret@proxy",
	}
	for name, source := range map[string]config.Source{
		"HTTP Listener": {Type: "http", HTTP: &config.HTTPSource{
			Host: "127.0.0.1", Port: 8090, ContextPath: "/hl7", UseAuthentication: true, Username: "secret", Password: "secret",
			ResponseHeaders: []config.ResponseField{{Name: "X", Value: "secret"}}, TLS: box.TLS,
		}},
		"MESH Reader": {Type: "mesh", MESH: &config.MESHSource{Mailbox: box, Directory: "/secret"}},
	} {
		o := &other{cfg: config.Channel{ID: "in", Name: "in", Source: source, Destinations: []config.Destination{
			{Name: "out", Type: "mesh", MESH: &config.MESHDestination{Mailbox: box, To: "GPPROVIDER_secret", WorkflowID: "W"}},
		}}}
		s := serve(t, o, api.Options{})
		w := request(s, http.MethodGet, "/api/channels", as(t, s, "viewer"))
		require.Equal(t, http.StatusOK, w.Code)
		assert.NotContains(t, w.Body.String(), "secret")
		for _, want := range []string{name, "MESH Sender", `"workflowId":"W"`, `"tls":{"enabled":true}`} {
			assert.Contains(t, w.Body.String(), want)
		}
	}
}
