package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/tlsprops"
)

// other is an engine with a channel of its own.
type other struct {
	fake
	cfg config.Channel
}

func (o *other) Channels() []*config.Channel { return []*config.Channel{&o.cfg} }

func (o *other) Status(context.Context, string) (engine.Status, error) {
	return engine.Status{Config: &o.cfg, State: engine.Started}, nil
}

func (o *other) Statuses(ctx context.Context) ([]engine.Status, error) {
	status, err := o.Status(ctx, o.cfg.ID)
	return []engine.Status{status}, err
}

func TestPropertiesOfTCPConnectorsAreShownByMirthsNames(t *testing.T) {
	t.Parallel()
	secret := &tlsprops.TlsProperties{Enabled: true, KeyStorePath: "/secret/client.key", Passphrase: "hunter2"}
	o := &other{cfg: config.Channel{
		ID: "adt", Name: "adt",
		Source: config.Source{Type: "tcp", TCP: &config.TCPSource{
			ServerMode: "CLIENT", RemoteAddress: "modality.example.org", RemotePort: 7001, TLS: secret, ReceiveTimeout: time.Minute,
			Framing:      config.Framing{TransmissionMode: "FRAME", StartOfMessageBytes: []byte{2}, EndOfMessageBytes: []byte{3, 13}},
			ResponseMode: "AUTO", RespondOnNewConnection: 1, ResponseAddress: "ward.example.org", ResponsePort: 7002, ResponseTLS: secret,
			CharsetEncoding: "8859/1", Quarantine: &config.Quarantine{Directory: "/secret/quarantine"},
		}},
		Destinations: []config.Destination{{Name: "lab", Type: "tcp", TCP: &config.TCPDestination{
			Host: "lab.example.org", Port: 6662, Framing: config.Framing{TransmissionMode: "RAW", Delimiter: "eof"}, IgnoreResponse: true,
			SendTimeout: 5 * time.Second, LocalAddress: "192.0.2.1",
		}}, {Name: "second", Type: "tcp", TCP: &config.TCPDestination{QueueOnResponseTimeout: new(false)}}},
	}}
	s := serve(t, o, api.Options{})
	viewer := as(t, s, "viewer")
	w := request(s, http.MethodGet, "/api/channels", viewer)
	require.Equal(t, http.StatusOK, w.Code)
	assert.NotContains(t, w.Body.String(), "secret")
	assert.NotContains(t, w.Body.String(), "hunter2")
	status := body(t, request(s, http.MethodGet, "/api/channels/adt/status", viewer))
	children, ok := status["childStatuses"].([]any)
	require.True(t, ok)
	require.Len(t, children, 3)
	assert.Equal(t, false, children[1].(map[string]any)["confirmed"], "whose responses are ignored")
	assert.NotContains(t, children[2], "confirmed")

	var channels []map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &channels))
	shown := channels[0]
	source := shown["sourceConnector"].(map[string]any)["properties"].(map[string]any)
	for name, want := range map[string]any{
		"serverMode": false, "remoteAddress": "modality.example.org", "remotePort": "7001", "receiveTimeout": "60000",
		"keepConnectionOpen": true, "charsetEncoding": "8859/1", "responseMode": "AUTO", "respondOnNewConnection": "1",
		"responseAddress": "ward.example.org", "responsePort": "7002", "tls": map[string]any{"enabled": true},
		"transmissionModeProperties": map[string]any{"pluginPointName": "FRAME", "startOfMessageBytes": "02", "endOfMessageBytes": "030D"},
	} {
		assert.Equal(t, want, source[name], name)
	}
	assert.NotContains(t, source, "maxConnections")
	lab := shown["destinationConnectors"].([]any)[0].(map[string]any)["properties"].(map[string]any)
	for name, want := range map[string]any{
		"remoteAddress": "lab.example.org", "sendTimeout": "5000", "ignoreResponse": true, "keepConnectionOpen": false,
		"queueOnResponseTimeout": true, "checkRemoteHost": true, "localAddress": "192.0.2.1", "charsetEncoding": "auto",
		"transmissionModeProperties": map[string]any{"pluginPointName": "RAW", "delimiter": "eof"},
	} {
		assert.Equal(t, want, lab[name], name)
	}
}

func TestPropertiesOfHTTPAndMailDestinationsAreShownWithoutSecrets(t *testing.T) {
	t.Parallel()
	o := &other{cfg: config.Channel{ID: "adt", Name: "adt", Destinations: []config.Destination{
		{Name: "web", Type: "http", HTTP: &config.HTTPDestination{
			Host: "https://lab.example.org/in?token=secret", Method: "POST", UseAuthentication: true, AuthenticationType: "Digest",
			Username: "secret", Password: "hunter2", ResponseTimeout: time.Second,
		}},
		{Name: "ward", Type: "smtp", SMTP: &config.SMTPDestination{
			SMTPHost: "smtp.example.org", Encryption: "ssl", Authentication: true, Username: "secret", Password: "hunter2",
		}},
	}}}
	s := serve(t, o, api.Options{})
	w := request(s, http.MethodGet, "/api/channels", as(t, s, "viewer"))
	require.Equal(t, http.StatusOK, w.Code)
	assert.NotContains(t, w.Body.String(), "secret")
	assert.NotContains(t, w.Body.String(), "hunter2")
	var channels []struct {
		DestinationConnectors []struct {
			TransportName string
			Properties    map[string]any
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &channels))
	web, ward := channels[0].DestinationConnectors[0], channels[0].DestinationConnectors[1]
	assert.Equal(t, "HTTP Sender", web.TransportName)
	assert.Equal(t, "https://lab.example.org/in", web.Properties["host"])
	assert.Equal(t, "1000", web.Properties["responseTimeout"])
	assert.Equal(t, "SMTP Sender", ward.TransportName)
	assert.Equal(t, "465", ward.Properties["smtpPort"], "that of the encryption")
}

func TestPropertiesOfDICOMConnectorsAreShownByMirthsNamesWithoutSecrets(t *testing.T) {
	t.Parallel()
	secure := dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: "/secret/ae.p12", KeyStorePW: "hunter2", KeyPW: "hunter2", TrustStore: "/secret/ca.p12", TrustStorePW: "hunter2"}
	o := &other{cfg: config.Channel{
		ID: "ct", Name: "ct",
		Source: config.Source{Type: "dicom", DICOM: &config.DICOMSource{
			Host: "0.0.0.0", Port: 104, ApplicationEntity: "ENGINE", Dest: "/secret/objects", TLS: secure, MaxAssociations: 7,
		}},
		Destinations: []config.Destination{{Name: "pacs", Type: "dicom", DICOM: &config.DICOMDestination{
			Host: "pacs.example.org", Port: 2762, ApplicationEntity: "PACS", LocalApplicationEntity: "ENGINE", Priority: "high",
			Username: "secret", Passcode: "hunter2", TLS: secure, LocalHost: "192.0.2.1",
		}}, {Name: "plain", Type: "dicom", DICOM: &config.DICOMDestination{Host: "old.example.org", Port: 104}}},
	}}
	s := serve(t, o, api.Options{})
	w := request(s, http.MethodGet, "/api/channels", as(t, s, "viewer"))
	require.Equal(t, http.StatusOK, w.Code)
	assert.NotContains(t, w.Body.String(), "secret")
	assert.NotContains(t, w.Body.String(), "hunter2")
	var channels []struct {
		SourceConnector struct {
			TransportName string
			Properties    map[string]any
		}
		DestinationConnectors []struct {
			TransportName string
			Properties    map[string]any
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &channels))
	source, pacs, plain := channels[0].SourceConnector, channels[0].DestinationConnectors[0], channels[0].DestinationConnectors[1]
	assert.Equal(t, "DICOM Listener", source.TransportName)
	assert.Equal(t, map[string]any{"host": "0.0.0.0", "port": "104"}, source.Properties["listenerConnectorProperties"])
	assert.Equal(t, "ENGINE", source.Properties["applicationEntity"])
	assert.Equal(t, "DICOM Sender", pacs.TransportName)
	for name, want := range map[string]any{
		"host": "pacs.example.org", "port": "2762", "applicationEntity": "PACS", "localApplicationEntity": "ENGINE",
		"priority": "high", "tls": "aes", "noClientAuth": false, "localHost": "192.0.2.1",
	} {
		assert.Equal(t, want, pacs.Properties[name], name)
	}
	assert.Equal(t, "notls", plain.Properties["tls"])
	assert.NotContains(t, plain.Properties, "noClientAuth", "nobody is asked anything")
}
