package api_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// certified is an engine with TLS settings of one channel, and of one that has gone.
type certified struct{ fake }

func (*certified) Certificates(context.Context) []engine.CertificateUse {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []engine.CertificateUse{
		{Channel: configured, Setting: "tls", Role: tlsprops.Listener, Status: tlsprops.Status{Generation: 2, Loaded: at, Certificates: []tlsprops.Certificate{
			{Use: tlsprops.UseLeaf, Field: "certStorePath", Path: "/secret/server.crt", Subject: "CN=server", Issuer: "CN=ca", NotBefore: at, NotAfter: at.AddDate(1, 0, 0)},
		}}},
		{Channel: configured, Connector: 1, Setting: "tls", Role: tlsprops.Client, Err: &tlsprops.FieldError{Field: "trustStorePath", Path: "/secret/ca.crt", Err: errors.New("hunter2")}},
		{Channel: configured, Connector: 3, Setting: "tls", Role: tlsprops.Client, Err: &dicomtls.FieldError{Field: "keyStore", Path: "/secret/key", Err: errors.New("hunter2")}},
		{Channel: &config.Channel{ID: "gone"}, Setting: "tls"},
	}
}

func TestCertificatesAreShownWithWhatTheyAreForAndWithoutPaths(t *testing.T) {
	t.Parallel()
	ca, dir := testpki.NewCA(t, "Test CA"), t.TempDir()
	pair := ca.Server().Write(dir, "server")
	own, err := tlsprops.Load(tlsprops.TlsProperties{Enabled: true, KeyStorePath: pair.Key, CertStorePath: pair.Cert})
	require.NoError(t, err)
	s := serve(t, new(certified), api.Options{Certificate: own})
	viewer := as(t, s, "viewer")
	w := request(s, "GET", "/api/certificates?channelId=adt", viewer)
	require.Equal(t, 200, w.Code)
	assert.JSONEq(t, `[
		{"channelId": "adt", "channelName": "MLLPS Receiver", "metaDataId": 0, "connectorName": "Source", "setting": "tls", "role": "listener", "generation": 2,
		 "loadedDate": "2026-01-02T03:04:05.000Z", "certificates": [
			{"use": "leaf", "subject": "CN=server", "issuer": "CN=ca", "notBefore": "2026-01-02T03:04:05.000Z", "notAfter": "2027-01-02T03:04:05.000Z"}]},
		{"channelId": "adt", "channelName": "MLLPS Receiver", "metaDataId": 1, "connectorName": "lab", "setting": "tls", "role": "client", "generation": 0,
		 "error": "trustStorePath cannot be used: the engine's log says why", "certificates": []},
		{"channelId": "adt", "channelName": "MLLPS Receiver", "metaDataId": 3, "connectorName": "copy", "setting": "tls", "role": "client", "generation": 0,
		 "error": "keyStore cannot be used: the engine's log says why", "certificates": []}
	]`, w.Body.String())
	w = request(s, "GET", "/api/certificates", viewer)
	assert.Contains(t, w.Body.String(), `"connectorName":"API","setting":"TLS_CERT","role":"listener"`)
	assert.NotContains(t, w.Body.String(), dir)
}
