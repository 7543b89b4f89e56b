package meshclient_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
	"github.com/carewire/carewire/tlsprops"
)

// from makes a getenv of a map.
func from(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func TestTheEnvironmentAndFilesOfTheNoteConfigureAClient(t *testing.T) {
	s := serve(t, meshtest.Options{})
	cert, key, err := s.Client(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	require.NoError(t, err)
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"mesh-client-cert.pem": cert, "mesh-client-key.pem": key, "nhs-ptl-rootca.pem": s.CA(),
		"mesh-hash-secret": []byte("TestKey\n"), "mesh-mailbox-id": []byte("mailbox1\r\n"), "mesh-mailbox-password": []byte("password"),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	oneLine := func(b []byte) string { return strings.ReplaceAll(string(b), "\n", `\n`) }
	for name, env := range map[string]map[string]string{
		"files":                        {"MESH_URI_INTEGRATION": s.URL},
		"the base comes before":        {"MESH_URI_INTEGRATION": "https://wrong.example", "MESH_BASE_URL": s.URL + "/messageexchange/"},
		"PEM in the environment":       {"MESH_BASE_URL": s.URL, "MESH_CLIENT_CERT": string(cert), "MESH_CLIENT_KEY": string(key)},
		"PEM in one line":              {"MESH_BASE_URL": s.URL, "MESH_CLIENT_CERT": oneLine(cert), "MESH_CLIENT_KEY": oneLine(key), "MESH_CA_CERT": oneLine(s.CA())},
		"CR LF, and text before":       {"MESH_BASE_URL": s.URL, "MESH_CA_CERT": "subject=x\r\n" + strings.ReplaceAll(string(s.CA()), "\n", "\r\n")},
		"no end of the last line":      {"MESH_BASE_URL": s.URL, "MESH_CA_CERT": strings.TrimSpace(string(s.CA()))},
		"all of it in the environment": {"MESH_BASE_URL": s.URL, "MESH_HASH_SECRET": "TestKey", "MESH_MAILBOX_ID": bob, "MESH_MAILBOX_PASSWORD": "password"},
	} {
		t.Run(name, func(t *testing.T) {
			conf, err := meshclient.FromEnvironment(dir, from(env))
			require.NoError(t, err)
			conf.ProxyURL = "none"
			c, err := meshclient.New(conf)
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.Handshake(bounded(t)))
			if env["MESH_MAILBOX_ID"] != "" {
				assert.Equal(t, bob, c.Mailbox(), "the environment comes before the file")
			}
		})
	}
	t.Run("nothing is there", func(t *testing.T) {
		conf, err := meshclient.FromEnvironment(t.TempDir(), from(nil))
		require.NoError(t, err)
		_, err = meshclient.New(conf)
		require.Error(t, err)
	})
	t.Run("a file that is no file", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "mesh-hash-secret"), 0o700))
		_, err := meshclient.FromEnvironment(dir, from(nil))
		require.ErrorContains(t, err, "mesh-hash-secret")
	})
}

func TestEveryFormOfTheBaseURLLeadsToTheSamePlace(t *testing.T) {
	s := serve(t, meshtest.Options{})
	bare := strings.TrimPrefix(s.URL, "https://")
	for _, form := range []string{
		s.URL, s.URL + "/", s.URL + "//", s.URL + "/messageexchange", s.URL + "/messageexchange/", s.URL + "/messageexchange//",
		bare, bare + "/", bare + "/messageexchange", "HTTPS://" + bare,
	} {
		before := len(s.Requests())
		require.NoError(t, connect(t, s, alice, func(c *meshclient.Config) { c.BaseURL = form }).Handshake(bounded(t)), form)
		seen := s.Requests()[before:]
		require.Len(t, seen, 1, form)
		assert.Equal(t, "handshake", seen[0].Op, form)
		assert.Equal(t, alice, seen[0].Mailbox, form)
	}

	// Below a gateway's path, and http:// to this machine alone.
	var paths []string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { paths = append(paths, r.URL.Path) }))
	t.Cleanup(srv.Close)
	for _, form := range []string{"/gateway", "/gateway/", "/gateway/messageexchange", "/gateway/messageexchange/", ""} {
		require.NoError(t, connect(t, s, alice, func(c *meshclient.Config) { c.BaseURL = srv.URL + form }).Ping(bounded(t)), form)
	}
	below := "/gateway/messageexchange/_ping"
	assert.Equal(t, []string{below, below, below, below, "/messageexchange/_ping"}, paths)
	for form, good := range map[string]bool{
		"http://localhost:1": true, "http://127.0.0.2": true, "http://[::1]:1": true,
		"http://10.0.0.1": false, "http://mesh.example": false, "http://localhost.example": false, "http://127.0.0.1.example": false,
		"http://0.0.0.0": false, "https://u@mesh.example": false, "https://mesh.example/?x": false, "https://mesh.example/#x": false, "https://": false,
	} {
		conf, err := s.Config(alice)
		require.NoError(t, err)
		conf.BaseURL = form
		c, err := meshclient.New(conf)
		if good {
			require.NoError(t, err, form)
			require.NoError(t, c.Close())
			continue
		}
		wrong, ok := asType[*meshclient.ConfigError](err)
		require.True(t, ok, "%s: %v", form, err)
		assert.Equal(t, "baseUrl", wrong.Field, form)
	}
}

func TestSettingsThatCannotBeHonouredAreRefusedByName(t *testing.T) {
	s := serve(t, meshtest.Options{})
	good, err := s.Config(alice)
	require.NoError(t, err)
	ca := testpki.NewCA(t, "other")
	expired := ca.Issue(testpki.Options{CommonName: "x", NotAfter: time.Now().Add(-time.Hour)})
	early := ca.Issue(testpki.Options{CommonName: "x", NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)})
	server := ca.Server()
	pem := func(p *testpki.Pair) func(*meshclient.Config) {
		files := p.Write(t.TempDir(), "x")
		cert, err := os.ReadFile(files.Cert)
		require.NoError(t, err)
		key, err := os.ReadFile(files.Key)
		require.NoError(t, err)
		return func(c *meshclient.Config) { c.ClientCert, c.ClientKey = string(cert), string(key) }
	}
	files := func(p *testpki.Pair) func(*meshclient.Config) {
		at := p.Write(t.TempDir(), "x")
		return func(c *meshclient.Config) { c.ClientCert, c.ClientKey, c.CACert = at.Cert, at.Key, "" }
	}
	props := func(p tlsprops.TlsProperties) func(*meshclient.Config) {
		return func(c *meshclient.Config) { c.ClientCert, c.ClientKey, c.CACert, c.TLS = "", "", "", &p }
	}
	for name, row := range map[string]struct {
		says   string
		change func(*meshclient.Config)
	}{
		"unverified":               {"rejectUnauthorized", func(c *meshclient.Config) { c.RejectUnauthorized = new(false) }},
		"unverified in tls":        {"tls.rejectUnauthorized", props(tlsprops.TlsProperties{Enabled: true, RejectUnauthorized: new(false)})},
		"the name is not verified": {"tls.verify", props(tlsprops.TlsProperties{Enabled: true, Verify: tlsprops.VerifyChainOnly})},
		"tls is off":               {"tls.enabled", props(tlsprops.TlsProperties{})},
		"tls and its short form":   {"tls", func(c *meshclient.Config) { c.TLS = &tlsprops.TlsProperties{Enabled: true} }},
		"plaintext":                {"baseUrl", func(c *meshclient.Config) { c.BaseURL = "http://mesh.example" }},
		"another scheme":           {"baseUrl", func(c *meshclient.Config) { c.BaseURL = "ftp://mesh.example" }},
		"a password in the URL":    {"baseUrl", func(c *meshclient.Config) { c.BaseURL = "https://u:hunter2@mesh.example" }},
		"no URL":                   {"baseUrl", func(c *meshclient.Config) { c.BaseURL = "" }},
		"no mailbox":               {"mailbox", func(c *meshclient.Config) { c.Mailbox = "" }},
		"a colon in the mailbox":   {"mailbox", func(c *meshclient.Config) { c.Mailbox = "A:B" }},
		"a space in the mailbox":   {"mailbox", func(c *meshclient.Config) { c.Mailbox = "A B" }},
		"a colon in the password":  {"password", func(c *meshclient.Config) { c.Password = "hunter2:" }},
		"no password":              {"password", func(c *meshclient.Config) { c.Password = "" }},
		"no secret":                {"hashSecret", func(c *meshclient.Config) { c.HashSecret = "" }},
		"a line end in the secret": {"hashSecret", func(c *meshclient.Config) { c.HashSecret = "hunter2\n" }},
		"no certificate":           {"clientCert", func(c *meshclient.Config) { c.BaseURL, c.ClientCert, c.ClientKey = "https://mesh.example", "", "" }},
		"a key alone":              {"clientCert", func(c *meshclient.Config) { c.ClientCert = "" }},
		"a certificate alone":      {"clientKey", func(c *meshclient.Config) { c.ClientKey = "" }},
		"they do not match": {"clientCert", func(c *meshclient.Config) {
			other, err := s.Config(alice)
			require.NoError(t, err)
			c.ClientKey = other.ClientKey
		}},
		"an encrypted key":   {"clientKey", func(c *meshclient.Config) { c.ClientKey = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n" }},
		"expired":            {"expired", pem(expired)},
		"expired, in a file": {"expired", files(expired)},
		"not valid yet":      {"not valid before", pem(early)},
		"for servers": {"clientAuth", func(c *meshclient.Config) {
			pem(ca.Issue(testpki.Options{CommonName: "x", EKU: server.Cert.ExtKeyUsage}))(c)
		}},
		"roots that are no PEM":  {"caCert", func(c *meshclient.Config) { c.CACert = "-----BEGIN CERTIFICATE-----\nAA" }},
		"roots that are missing": {"caCert", func(c *meshclient.Config) { c.CACert = "/nonexistent/ca.pem" }},
		"files that are missing": {"nonexistent", func(c *meshclient.Config) {
			c.ClientCert, c.ClientKey, c.CACert = "/nonexistent/c", "/nonexistent/k", ""
		}},
		"a negative limit": {"maxMessageBytes", func(c *meshclient.Config) { c.MaxMessageBytes = -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			conf := good
			row.change(&conf)
			_, err := meshclient.New(conf)
			require.ErrorContains(t, err, row.says)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestNoFormOfPrintingShowsASecretOfTheSettings(t *testing.T) {
	s := serve(t, meshtest.Options{})
	conf, err := s.Config(alice)
	require.NoError(t, err)
	conf.Password, conf.HashSecret, conf.ProxyURL = "hunter2", "hunter3", "http://u:hunter4@proxy"
	conf.TLS = &tlsprops.TlsProperties{Passphrase: "hunter5"}
	var log strings.Builder
	everything(&log).Info("settings", "conf", conf)
	for _, text := range []string{conf.String(), fmt.Sprintf("%v %+v %#v %s", conf, conf, conf, conf), log.String()} {
		assert.NotContains(t, text, "hunter")
		assert.NotContains(t, text, "PRIVATE KEY")
		assert.Contains(t, text, alice)
	}
}

func TestAMisspeltSettingInJSONIsRefused(t *testing.T) {
	var conf meshclient.Config
	require.NoError(t, json.Unmarshal([]byte(`{"baseUrl":"https://a","mailbox":"X","rejectUnauthorized":true}`), &conf))
	require.Error(t, json.Unmarshal([]byte(`{"rejectUnauthorised":false}`), &conf))
	err := json.Unmarshal([]byte(`{"password":{"hunter2":1}}`), &conf)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "hunter2")
}

func TestAMailboxInLowerCaseIsTheSameMailbox(t *testing.T) {
	s := serve(t, meshtest.Options{})
	c := connect(t, s, alice, func(conf *meshclient.Config) { conf.Mailbox = "mailbox1" })
	require.NoError(t, c.Handshake(bounded(t)))
	assert.Equal(t, alice, s.Requests()[0].Mailbox)
}
