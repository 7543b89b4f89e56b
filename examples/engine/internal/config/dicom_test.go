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

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/internal/testpki"
)

// withDICOM is a configuration of a source and a destination of type dicom with
// these keys, one a line. The source begins in line 3 and has its own keys from line
// 6 on; the destination begins three lines after the last of those, and has its own
// from its fourth line on.
func withDICOM(source, destination string) string {
	return "channels:\n  - id: ct\n    source:\n      type: dicom\n      host: 127.0.0.1\n" + indented("      ", source) +
		"    destinations:\n      - name: pacs\n        type: dicom\n        host: pacs.example.org\n" + indented("        ", destination)
}

func indented(with, lines string) string {
	if lines == "" {
		return ""
	}
	return with + strings.ReplaceAll(lines, "\n", "\n"+with) + "\n"
}

func TestEveryMistakeInADICOMConnectorGivesOneLine(t *testing.T) {
	t.Parallel()
	const secure = "tls: aes\nkeyStore: /none/ae.p12\ntrustStore: /none/ca.p12\n"
	const s, d = "source", "destinations[0]"
	for _, tt := range []struct {
		name                string
		source, destination string
		line                int
		key, text           string
	}{
		{"unknown mode", "tls: " + marker, "", 6, s + ".tls", "use notls, 3des, aes or bcp195"},
		{"mode that encrypts nothing", "tls: without", "", 6, s + ".tls", "encrypts nothing"},
		{"empty mode", "tls: ''", "", 6, s + ".tls", "is empty: use notls"},
		{"block of TLS as of other connectors", "tls: {enabled: true}", "", 6, s + ".tls", "must be a single value"},
		{"stores without TLS", "keyStore: ae.p12", "", 6, s + ".keyStore", "although tls is notls"},
		{"noClientAuth without TLS", "", "noClientAuth: true", 10, d + ".noClientAuth", "although tls is notls"},
		{"TLS without a key", "tls: aes", "", 3, s + ".keyStore", "none is built in"},
		{"TLS without authorities", "tls: bcp195\nkeyStore: ae.p12", "", 3, s + ".trustStore", "the host's are not used"},
		{"key store that is not there", secure + "noClientAuth: false", "", 7, s + ".keyStore", "no such file"},
		{"key store of a client that is not there", "", secure + "noClientAuth: false", 11, d + ".keyStore", "no such file"},
		{"password for no store", "", "tls: aes\nnoClientAuth: true\ntrustStore: /none/ca.p12\nkeyStorePW: " + marker, 13, d + ".keyStorePW", "without keyStore"},
		{"secret in a file that is not there", "keyStorePW: file:none.txt", "", 6, s + ".keyStorePW", "no such file"},
		{"unknown verification", "", "tls: aes\nnoClientAuth: true\ntrustStore: /none/ca.p12\nverification: " + marker, 13, d + ".verification", ""},

		{"port out of range", "port: 70000", "", 6, s + ".port", "1 to 65535"},
		{"port of a destination out of range", "", "port: 0", 10, d + ".port", "1 to 65535"},
		{"title that is too long", "applicationEntity: SEVENTEENLETTERS_", "", 6, s + ".applicationEntity", ""},
		{"title with a backslash", "", `applicationEntity: A\B`, 10, d + ".applicationEntity", "is no AE title"},
		{"empty title", "", "localApplicationEntity: ''", 10, d + ".localApplicationEntity", "is no AE title"},
		{"title of a sender that is none", "callingApplicationEntities: [CT1, ' CT2']", "", 6, s + ".callingApplicationEntities[1]", "is no AE title"},
		{"certificates without TLS", "senders: [{certificate: 'cn:ct', applicationEntities: [CT1]}]", "", 6, s + ".senders", "needs client certificates"},
		{"address that is none", "allow: [ward]", "", 6, s + ".allow[0]", "neither an address nor a range"},
		{"negative number of associations", "maxAssociations: -1", "", 6, s + ".maxAssociations", "must not be negative"},
		{"Mirth's length of PDUs", "rcvpdulen: 16", "", 6, s + ".rcvpdulen", "Mirth's 16, which means 16384"},
		{"Mirth's time that is none", "idleTo: 60", "", 6, s + ".idleTo", "fewer might be meant as seconds"},
		{"negative time", "", "rspTo: -1s", 10, d + ".rspTo", "between nothing and"},
		{"empty directory", "dest: ''", "", 6, s + ".dest", "is empty"},
		{"directory of each message", "dest: objects/${message.id}", "", 6, s + ".dest", "fixed when the engine starts"},
		{"unknown key", "destination: x", "", 6, s + ".destination", "not a key here"},

		{"address of ours that is a name", "", "localHost: ward", 10, d + ".localHost", "is not an IP address"},
		{"unknown priority", "", "priority: medium", 10, d + ".priority", "one of low, med, high"},
		{"passcode in the clear", "", "username: u\npasscode: " + marker, 11, d + ".passcode", "in the clear"},
		{"passcode of nobody", "", "passcode: " + marker, 10, d + ".passcode", "only with username"},
		{"time for no commitment", "", "stgcmtTimeout: 5s", 10, d + ".stgcmtTimeout", "only with stgcmt: true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, path, err := load(t, withDICOM(tt.source, tt.destination), nil)
			require.Error(t, err)
			lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
			require.Len(t, lines, 1, "%v", err)
			assert.Regexp(t, "^"+path+":"+strconv.Itoa(tt.line)+": channels\\[0\\]\\."+strings.NewReplacer("[", "\\[", "]", "\\]", ".", "\\.").Replace(tt.key)+": ", lines[0])
			assert.Contains(t, lines[0], tt.text)
			assert.NotContains(t, err.Error(), marker, "no value is printed")
		})
	}
}

func TestADICOMConnectorIsOnlyWhereItCanWork(t *testing.T) {
	t.Parallel()
	const head = "channels:\n  - id: a\n    source: "
	for name, tt := range map[string]struct{ text, want string }{
		"objects from HL7": {
			head + "{type: tcp, host: 127.0.0.1, port: 1}\n    destinations: [{name: d, type: dicom, host: pacs}]\n",
			"destinations[0].type: sends what a source of type dicom took in, and this channel's source is of type tcp",
		},
		"objects in MLLP": {
			head + "{type: dicom, host: 127.0.0.1}\n    destinations: [{name: d, type: tcp, host: lab, port: 1}]\n",
			"destinations[0].type: with MLLP carries HL7",
		},
		"one directory for two": {
			head + "{type: dicom, host: 127.0.0.1, dest: objects}\n    destinations: [{name: d, type: file, directory: objects/}]\n",
			"destinations[0].directory: is the same as channels[0].source.dest",
		},
		"a directory that another channel has without saying so": {
			head + "{type: dicom, host: 127.0.0.1}\n    destinations: [{name: d, type: file, directory: data/dicom/a}]\n",
			"destinations[0].directory: is the same as channels[0].source.dest",
		},
		"one port for two": {
			head + "{type: tcp, host: 127.0.0.1, port: 104}\n    destinations: [{name: d, type: file, directory: x}]\n" +
				"  - id: b\n    source: {type: dicom, host: 0.0.0.0}\n    destinations: [{name: d, type: file, directory: y}]\n",
			"channels[1].source.port: is taken by channels[0].source.port",
		},
	} {
		_, _, err := load(t, tt.text, nil)
		require.Error(t, err, name)
		assert.Contains(t, err.Error(), tt.want, name)
		assert.Equal(t, 1, strings.Count(err.Error(), "engine.yaml"), "%s: %v", name, err)
	}
	_, _, err := load(t, head+"{type: channel}\n    destinations: [{name: d, type: dicom, host: pacs}]\n", nil)
	assert.NoError(t, err, "other channels may have objects to hand over")
}

func TestDICOMSettingsAreThoseOfTheGuideAndOfMirth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := testpki.NewCA(t, "Test CA")
	ca.Write(dir, "ca.crt")
	ca.Server().Write(dir, "server")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pw"), []byte("secret\n"), 0o600))
	stores := "tls: bcp195\nkeyStore: server.key\ncertStore: server.crt\ntrustStore: ca.crt\nnoClientAuth: false\nnossl2: true\n"
	path := filepath.Join(dir, "engine.yaml")
	require.NoError(t, os.WriteFile(path, []byte(withDICOM(
		stores+"applicationEntity: ENGINE\nsenders: [{certificate: 'cn:ct', applicationEntities: [CT1, CT2]}]\nrequestTo: 5000\nidleTo: 1m\nallow: [10.0.0.0/8]\ndest: objects",
		stores+"port: 2762\nusername: u\npasscode: file:pw\nuidnegrsp: true\nrspTo: 10000\nlocalHost: 127.0.0.1",
	)), 0o600))
	cfg, err := config.Load(path, environment(nil))
	require.NoError(t, err)

	source := cfg.Channels[0].Source.DICOM
	assert.Equal(t, 104, source.Port)
	assert.Equal(t, filepath.Join(dir, "objects"), source.Directory(cfg.DataDir, "ct"))
	server := source.Server()
	assert.Equal(t, []string{"ENGINE"}, server.AETitles)
	assert.Equal(t, map[string][]string{"cn:ct": {"CT1", "CT2"}}, server.CertificateAEs)
	assert.Equal(t, 5*time.Second, server.AssociateTimeout)
	assert.Equal(t, filepath.Join(dir, "server.key"), server.TLS.KeyStore)
	assert.NoError(t, server.Validate())

	dest := cfg.Channels[0].Destinations[0].DICOM
	assert.Equal(t, "pacs.example.org:2762", dest.Address())
	dialer := dest.Dialer()
	assert.Equal(t, "DCMRCV", dialer.CalledAE, "as Mirth calls whoever has no title")
	assert.Equal(t, "DCMSND", dialer.AETitle)
	assert.Equal(t, dicomtls.IdentityPasscode, dialer.Identity.Type)
	assert.Equal(t, "secret", string(dialer.Identity.Secondary))
	assert.True(t, dialer.Identity.ResponseRequested)
	assert.Equal(t, 10*time.Second, dialer.ResponseTimeout)
	assert.NotNil(t, dialer.NetDialer)

	cfg, _, err = load(t, withDICOM("", ""), nil)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(cfg.DataDir, "dicom", "ct"), cfg.Channels[0].Source.DICOM.Directory(cfg.DataDir, "ct"))
	assert.Nil(t, cfg.Channels[0].Destinations[0].DICOM.Dialer().Identity)
}
