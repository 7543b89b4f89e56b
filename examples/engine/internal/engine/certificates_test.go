package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// Every TLS setting is told, also of what is stopped or has not connected yet, and a
// replacement is seen.
func TestCertificatesOfAllConnectorsAreTold(t *testing.T) {
	t.Parallel()
	ca, dir := testpki.NewCA(t, "Test CA"), t.TempDir()
	server, client, root := ca.Server().Write(dir, "server"), ca.Client("engine").Write(dir, "client"), ca.Write(dir, "ca")
	listener := &tlsprops.TlsProperties{Enabled: true, KeyStorePath: server.Key, CertStorePath: server.Cert}
	dialer := &tlsprops.TlsProperties{Enabled: true, KeyStorePath: client.Key, CertStorePath: client.Cert, TrustStorePath: root}
	scp := dicomtls.Properties{TLS: dicomtls.ModeBCP195, KeyStore: server.Key, CertStore: server.Cert, TrustStore: root}
	scu := dicomtls.Properties{TLS: dicomtls.ModeBCP195, KeyStore: client.Key, CertStore: client.Cert, TrustStore: root}
	cfg := &config.Config{DataDir: dir, Channels: []config.Channel{
		{ID: "adt", Source: config.Source{TCP: &config.TCPSource{TLS: listener, ResponseTLS: dialer}}, Destinations: []config.Destination{
			{Name: "lab", TCP: &config.TCPDestination{TLS: dialer}},
			{Name: "plain", TCP: &config.TCPDestination{TLS: &tlsprops.TlsProperties{}}},
			{Name: "web", HTTP: &config.HTTPDestination{TLS: dialer}},
			{Name: "mail", SMTP: &config.SMTPDestination{TLS: dialer}},
			{Name: "pacs", DICOM: &config.DICOMDestination{TLS: scu}},
			{Name: "broken", TCP: &config.TCPDestination{TLS: &tlsprops.TlsProperties{Enabled: true, TrustStorePath: filepath.Join(dir, "nowhere")}}},
		}},
		{ID: "images", Source: config.Source{DICOM: &config.DICOMSource{TLS: scp}}},
		{ID: "web", Source: config.Source{HTTP: &config.HTTPSource{TLS: listener}}},
		{ID: "modality", Source: config.Source{TCP: &config.TCPSource{ServerMode: "CLIENT", TLS: dialer}}},
		{ID: "none", Source: config.Source{}},
	}}
	eng := engine.New(cfg, nil, engine.Options{TLSReloadInterval: time.Nanosecond})
	told := func() map[string]engine.CertificateUse {
		all := make(map[string]engine.CertificateUse)
		for _, use := range eng.Certificates(t.Context()) {
			all[use.Channel.ID+"/"+string(rune('0'+use.Connector))+"/"+use.Setting] = use
		}
		return all
	}
	uses := told()
	for name, role := range map[string]tlsprops.Role{
		"adt/0/tls": tlsprops.Listener, "adt/0/responseTls": tlsprops.Client, "adt/1/tls": tlsprops.Client, "adt/3/tls": tlsprops.Client,
		"adt/4/tls": tlsprops.Client, "adt/5/tls": tlsprops.Client, "images/0/tls": tlsprops.Listener, "web/0/tls": tlsprops.Listener, "modality/0/tls": tlsprops.Client,
	} {
		use, ok := uses[name]
		require.True(t, ok, name)
		require.NoError(t, use.Err, name)
		assert.Equal(t, role, use.Role, name)
		require.NotEmpty(t, use.Status.Certificates, name)
		assert.Equal(t, tlsprops.UseLeaf, use.Status.Certificates[0].Use, name)
	}
	assert.Len(t, uses, 10, "and no other")
	field, ok := errors.AsType[*tlsprops.FieldError](uses["adt/6/tls"].Err)
	require.True(t, ok)
	assert.Equal(t, "trustStorePath", field.Field)
	assert.Empty(t, uses["adt/6/tls"].Status.Certificates)

	before := uses["adt/1/tls"].Status
	ca.Issue(testpki.Options{CommonName: "renewed"}).Write(dir, "client")
	require.Eventually(t, func() bool {
		now := told()["adt/1/tls"].Status
		return now.Generation > before.Generation && now.Certificates[0].Subject == "CN=renewed"
	}, 20*time.Second, time.Millisecond, "the new one")
	require.NoError(t, os.WriteFile(client.Key, []byte("broken"), 0o600))
	require.Eventually(t, func() bool {
		use := told()["adt/1/tls"]
		return use.Err != nil && use.Status.Certificates[0].Subject == "CN=renewed"
	}, 20*time.Second, time.Millisecond, "that the next one cannot be used, and the one before is kept")
}
