package config_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
)

// marker stands for every value of the faulty configurations: no problem may
// show it.
const marker = "Xy77Secret"

func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

func load(t *testing.T, text string, vars map[string]string) (*config.Config, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	cfg, err := config.Load(path, environment(vars))
	return cfg, path, err
}

// good is a configuration without mistakes, whose lines the mistakes replace.
const good = `dataDir: ./data
store: sqlite
channels:
  - id: adt-in
    name: MLLPS Receiver
    source:
      type: tcp
      host: 127.0.0.1
      port: 6661
      transmissionMode: MLLP
    destinations:
      - name: lab
        type: tcp
        host: lab.example.org
        port: 6662
        responseTimeout: 5s
        queue: {retryInterval: 2s, maxAttempts: 4, onPoison: deadletter}
      - name: archive
        type: file
        directory: ./archive
      - name: copy
        type: channel
        channelId: second
  - id: second
    source: {type: tcp, host: 127.0.0.1, port: 6663}
    destinations:
      - {name: archive, type: file, directory: /var/lib/second}
`

func TestConfigurationIsReadWithItsDefaults(t *testing.T) {
	cfg, path, err := load(t, good, nil)
	require.NoError(t, err)
	dir := filepath.Dir(path)

	assert.Equal(t, filepath.Join(dir, "data"), cfg.DataDir, "relative to the file")
	require.Len(t, cfg.Channels, 2)
	first, second := cfg.Channels[0], cfg.Channels[1]
	assert.Equal(t, "MLLPS Receiver", first.Name)
	assert.Equal(t, "second", second.Name, "the id, where there is no name")
	assert.Equal(t, &config.TCPSource{
		ServerMode: "SERVER", Host: "127.0.0.1", Port: 6663, Framing: config.Framing{TransmissionMode: "MLLP"},
		MaxConnections: 1024, MaxConnectionsPerHost: 64, MaxMessageSize: 16 << 20, Batches: "reject", ResponseMode: "AUTO", OnStoreError: "AE",
	}, second.Source.TCP)
	assert.Equal(t, config.Queue{RetryInterval: 2 * time.Second, MaxAttempts: 4, OnPoison: "deadletter"}, first.Destinations[0].Queue)
	assert.Equal(t, config.Queue{RetryInterval: 10 * time.Second, OnPoison: "block"}, first.Destinations[1].Queue)
	assert.Equal(t, 5*time.Second, first.Destinations[0].TCP.ResponseTimeout)
	assert.Equal(t, filepath.Join(dir, "archive"), first.Destinations[1].File.Directory)
	assert.Equal(t, "/var/lib/second", second.Destinations[0].File.Directory)
	assert.Equal(t, "second", first.Destinations[2].Channel.ChannelID)
}

// Every mistake gives exactly one line: file, line, key, what is wrong and what
// to do; and none shows a value.
func TestEveryMistakeGivesOneLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		old, new string // old is replaced by new in good; an empty old appends
		line     int
		key      string
		text     string
	}{
		{"unknown key", "store: sqlite", "stroe: " + marker, 2, "stroe", "did you mean store?"},
		{"unknown key without a likeness", "store: sqlite", "frobnicate: " + marker, 2, "frobnicate", "the keys are alerts, backup, certificateCheckInterval, channels, dataDir, encryption, retention, store"},
		{"plaintext to other nodes, of which there are none", "store: sqlite", "allow_insecure_cluster: true", 2, "allow_insecure_cluster", "not a key here"},
		{"certificates looked at all the time", "store: sqlite", "certificateCheckInterval: 1ms", 2, "certificateCheckInterval", "at least 100ms"},
		{"unknown key in a source", "transmissionMode: MLLP", "TransmissionMode: MLLP", 10, "channels[0].source.TransmissionMode", "did you mean transmissionMode?"},
		{"key of another type of destination", "responseTimeout: 5s", "directory: " + marker, 16, "channels[0].destinations[0].directory", "not a key here"},
		{"unknown key under tls", "transmissionMode: MLLP", "tls: {enabled: false, trustStore: " + marker + "}", 10, "channels[0].source.tls.trustStore", "not a key here"},
		{"key given twice", "transmissionMode: MLLP", "port: 6664", 10, "channels[0].source.port", "a second time, after line 9"},
		{"value with a colon taken for a key", "store: sqlite", `"` + marker + `:x": y`, 2, "", "not a key"},
		{"text for a number", "port: 6661", "port: " + marker, 9, "channels[0].source.port", "write a whole number"},
		{"number for text", "name: MLLPS Receiver", "name: 777", 5, "channels[0].name", "write text, in quotes"},
		{"text for a truth", "transmissionMode: MLLP", "tls: {enabled: 'yes'}", 10, "channels[0].source.tls.enabled", "write true or false"},
		{"number for a duration", "retryInterval: 2s", "retryInterval: 2", 17, "channels[0].destinations[0].queue.retryInterval", "write a duration such as 10s"},
		{"text for a group", "queue: {retryInterval: 2s, maxAttempts: 4, onPoison: deadletter}", "queue: " + marker, 17, "channels[0].destinations[0].queue", "must be a group of keys"},
		{"group for text", "name: MLLPS Receiver", "name: {a: " + marker + "}", 5, "channels[0].name", "must be a single value"},
		{"text for the list of channels", good, "channels: " + marker, 1, "channels", "must be a list"},
		{"key without a value", "store: sqlite", "store:", 2, "store", "has no value"},
		{"alias", "name: MLLPS Receiver", "name: *" + marker, 5, "", "is not YAML"},
		{"no YAML", "store: sqlite", "store: [" + marker, 2, "", "is not YAML"},
		{"not UTF-8", "name: MLLPS Receiver", "name: \xff" + marker, 5, "", "is not UTF-8"},
		{"tab for indentation", "    name: MLLPS Receiver", "\tname: " + marker, 5, "", "is not YAML"},
		{"second document", "", "---\nstore: " + marker + "\n", 28, "", "second document"},

		{"store of another kind", "store: sqlite", "store: postgres://u:" + marker + "@host/db", 2, "store", "only sqlite"},
		{"no channels", good, "store: sqlite\n", 1, "channels", "is missing"},
		{"empty list of channels", good, "channels: []\n", 1, "channels", "at least one"},
		{"channel without an id", "  - id: adt-in\n    name", "  - name", 4, "channels[0].id", "is missing"},
		{"channel id with a space", "id: adt-in", "id: adt in", 4, "channels[0].id", "letters, digits"},
		{"channel id that climbs directories", "id: adt-in", "id: ../adt", 4, "channels[0].id", "letters, digits"},
		{"two channels of one id", "", "  - {id: second, name: x, source: {type: tcp, host: 127.0.0.1, port: 7001}, destinations: [{name: a, type: file, directory: d3}]}\n", 28, "channels[2].id", "the same as channels[1].id in line 24"},
		{"two channels of one name", "id: second", "id: second\n    name: MLLPS Receiver", 25, "channels[1].name", "the same as channels[0].name"},
		{"no source", "    source: {type: tcp, host: 127.0.0.1, port: 6663}\n", "", 24, "channels[1].source", "is missing"},
		{"source without a type", "type: tcp, host: 127.0.0.1, port: 6663", "host: 127.0.0.1, port: 6663", 25, "channels[1].source.type", "is missing: the types are tcp"},
		{"unknown type of source", "      type: tcp\n", "      type: " + marker + "\n", 7, "channels[0].source.type", "is not a type: the types are tcp"},
		{"source of a channel with a port", "type: tcp, host: 127.0.0.1, port: 6663", "type: channel, port: 6663", 25, "channels[1].source.port", "not a key here"},
		{"source without a host", "      host: 127.0.0.1\n", "", 6, "channels[0].source.host", "is missing: 0.0.0.0 accepts from every network"},
		{"host with a port", "      host: 127.0.0.1\n", "      host: 127.0.0.1:6661\n", 8, "channels[0].source.host", "without a port"},
		{"source without a port", "      port: 6661\n", "", 6, "channels[0].source.port", "is missing"},
		{"port out of range", "port: 6661", "port: 66610", 9, "channels[0].source.port", "1 to 65535"},
		{"one port for two sources", "port: 6663", "port: 6661", 25, "channels[1].source.port", "is taken by channels[0].source.port in line 9"},
		{"one port on one and on all addresses", "host: 127.0.0.1, port: 6663", "host: '::', port: 6661", 25, "channels[1].source.port", "is taken by"},
		{"one port on localhost by name and by number", "host: 127.0.0.1, port: 6663", "host: LocalHost, port: 6661", 25, "channels[1].source.port", "is taken by"},
		{"unknown mode", "transmissionMode: MLLP", "transmissionMode: " + marker, 10, "channels[0].source.transmissionMode", "one of MLLP, MLLPv2, FRAME, RAW"},
		{"negative number of connections", "transmissionMode: MLLP", "maxConnections: -1", 10, "channels[0].source.maxConnections", "negative"},
		{"unknown answer to store errors", "transmissionMode: MLLP", "onStoreError: AA", 10, "channels[0].source.onStoreError", "one of AE, close"},

		{"no destinations", "    destinations:\n      - {name: archive, type: file, directory: /var/lib/second}\n", "", 24, "channels[1].destinations", "is missing"},
		{"empty list of destinations", "\n      - {name: archive, type: file, directory: /var/lib/second}", " []", 26, "channels[1].destinations", "at least one"},
		{"destination without a name", "name: archive, type: file, directory: /var", "type: file, directory: /var", 27, "channels[1].destinations[0].name", "is missing"},
		{"two destinations of one name", "name: copy", "name: lab", 21, "channels[0].destinations[2].name", "the same as channels[0].destinations[0].name in line 12"},
		{"destination without a type", "        type: file\n", "", 18, "channels[0].destinations[1].type", "is missing: the types are tcp, dicom, http, smtp, mesh, file, channel"},
		{"unknown type of destination", "type: file\n", "type: " + marker + "\n", 19, "channels[0].destinations[1].type", "is not a type"},
		{"destination without a host", "        host: lab.example.org\n", "", 12, "channels[0].destinations[0].host", "is missing"},
		{"destination whose host is a URL", "lab.example.org", "mllp://lab/", 14, "channels[0].destinations[0].host", "neither a host name nor an address"},
		{"destination without a port", "        port: 6662\n", "", 12, "channels[0].destinations[0].port", "is missing"},
		{"negative response timeout", "responseTimeout: 5s", "responseTimeout: -5s", 16, "channels[0].destinations[0].responseTimeout", "between nothing and 1h0m0s"},
		{"no pause between attempts", "retryInterval: 2s", "retryInterval: 0s", 17, "channels[0].destinations[0].queue.retryInterval", "such as 10s"},
		{"negative number of attempts", "maxAttempts: 4", "maxAttempts: -4", 17, "channels[0].destinations[0].queue.maxAttempts", "0 tries for ever"},
		{"unknown word for poison", "onPoison: deadletter", "onPoison: drop", 17, "channels[0].destinations[0].queue.onPoison", "one of block, skip, deadletter"},
		{"a bound that is none", "maxAttempts: 4", "maxMessages: -1", 17, "channels[0].destinations[0].queue.maxMessages", "must not be negative"},
		{"file destination without a directory", "        directory: ./archive\n", "", 18, "channels[0].destinations[1].directory", "is missing"},
		{"directory per message", "./archive", "./${message.type}", 20, "channels[0].destinations[1].directory", "fixed when the engine starts"},
		{"one directory for two destinations", "./archive", "/var/lib/second/", 27, "channels[1].destinations[0].directory", "the same as channels[0].destinations[1].directory in line 20"},
		{"channel destination without a target", "        channelId: second\n", "", 21, "channels[0].destinations[2].channelId", "is missing"},
		{"channel destination to nowhere", "channelId: second", "channelId: " + marker, 23, "channels[0].destinations[2].channelId", "no channel has this id"},
		{"channel destination to itself", "channelId: second", "channelId: adt-in", 23, "channels[0].destinations[2].channelId", "ring"},
		{"ring of two channels", "{name: archive, type: file, directory: /var/lib/second}", "{name: back, type: channel, channelId: adt-in}", 27, "channels[1].destinations[0].channelId", "ring"},

		{"variable that is not set", "MLLPS Receiver", "${NOT_SET}", 5, "channels[0].name", "the environment variable NOT_SET is not set"},
		{"variable without its brace", "MLLPS Receiver", marker + "${NAME", 5, "channels[0].name", "without its }"},
		{"variable of another kind", "MLLPS Receiver", "${" + marker + "-x}", 5, "channels[0].name", "only ${NAME} and ${message.…}"},
		{"secret in a file that is not there", "transmissionMode: MLLP", "tls: {enabled: false, passphrase: 'file:none.txt'}", 10, "channels[0].source.tls.passphrase", "no such file"},
		{"passphrase that is a number", "transmissionMode: MLLP", "tls: {enabled: false, passphrase: 7777}", 10, "channels[0].source.tls.passphrase", "in quotes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := good + tt.new
			if tt.old != "" {
				require.Contains(t, good, tt.old, "the test replaces nothing")
				text = strings.Replace(good, tt.old, tt.new, 1)
			}
			_, path, err := load(t, text, map[string]string{"NAME": marker})
			var problems config.LineErrors
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, 1, "%v", err)
			p := problems[0]
			assert.Equal(t, path, p.File)
			assert.Equal(t, tt.line, p.Line, "%v", p)
			assert.Equal(t, tt.key, p.Key, "%v", p)
			assert.Contains(t, p.Text, tt.text)
			assert.NotContains(t, err.Error(), marker, "a value is shown")
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestAllMistakesAreReportedInTheOrderOfTheirLines(t *testing.T) {
	_, path, err := load(t, `store: mysql
channels:
  - id: a
    namme: x
    source: {type: tcp, host: "", port: zero}
    destinations:
      - {name: d, type: file, directory: x}
      - {name: d, type: fax}
      - {name: d, type: file, directory: y}
`, nil)
	require.Error(t, err)
	var got []string
	for line := range strings.Lines(err.Error()) {
		got = append(got, strings.TrimPrefix(strings.TrimSpace(line), path+":"))
	}
	want := []string{
		"1: store: only sqlite is in this version of the engine: remove the key or write sqlite",
		"4: channels[0].namme: not a key here; did you mean name?",
		"5: channels[0].source.port: has the wrong type: write a whole number",
		"5: channels[0].source.host: is missing: 0.0.0.0 accepts from every network, 127.0.0.1 from this machine only",
		"8: channels[0].destinations[1].type: is not a type: the types are tcp, dicom, http, smtp, mesh, file, channel",
		"9: channels[0].destinations[2].name: is the same as channels[0].destinations[0].name in line 7: each needs its own",
	}
	assert.Equal(t, want, got)
}

func TestFileThatCannotBeReadIsOneLine(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	_, err := config.Load(missing, environment(nil))
	assert.EqualError(t, err, missing+": no such file or directory: give the configuration's path with -config")

	for name, text := range map[string]string{"nothing": "", "a comment": "# nothing\n", "null": "~\n"} {
		_, path, err := load(t, text, nil)
		assert.EqualError(t, err, path+": is empty: it needs at least one channel under channels:", name)
	}
}

func TestVariablesAreReplacedOnceAndNeverAgain(t *testing.T) {
	vars := map[string]string{"NAME": "${OTHER} $${x} file:/etc/passwd", "OTHER": "never", "PORT_IN": "7001", "EMPTY": ""}
	cfg, _, err := load(t, strings.NewReplacer(
		"MLLPS Receiver", `"<${NAME}> ${message.id} $${NAME} 5$ ${EMPTY}"`,
		"6661", "${PORT_IN}",
	).Replace(good), vars)
	require.NoError(t, err)
	assert.Equal(t, "<${OTHER} $${x} file:/etc/passwd> ${message.id} ${NAME} 5$ ", cfg.Channels[0].Name)
	assert.Equal(t, 7001, cfg.Channels[0].Source.TCP.Port)
}

func TestSecretsComeFromFiles(t *testing.T) {
	const secret = "${NAME} p:w "
	dir := t.TempDir()
	pair := testpki.NewCA(t, "Test CA").Server().Write(dir, "server")
	encryptKey(t, pair.Key, secret)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte(secret+"\r\n"), 0o600))
	path := filepath.Join(dir, "engine.yaml")
	loadWith := func(passphrase string, vars map[string]string) (*config.Config, error) {
		text := strings.Replace(good, "transmissionMode: MLLP",
			"tls: {enabled: true, keyStorePath: server.key, certStorePath: server.crt, passphrase: '"+passphrase+"'}", 1)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return config.Load(path, environment(vars))
	}
	for name, value := range map[string]string{"absolute": dir, "beside the configuration": "."} {
		cfg, err := loadWith("file:${DIR}/secret", map[string]string{"DIR": value})
		require.NoError(t, err, name)
		assert.Equal(t, secret, cfg.Channels[0].Source.TCP.TLS.Passphrase, name)
		assert.Equal(t, pair.Key, cfg.Channels[0].Source.TCP.TLS.KeyStorePath, "relative to the file, too")
	}

	// What a variable holds is a value, not a reference to a file.
	_, err := loadWith("${REF}", map[string]string{"REF": "file:secret"})
	require.ErrorContains(t, err, "engine.yaml:10: channels[0].source.tls.keyStorePath")
	_, err = loadWith("${REF}", map[string]string{"REF": secret})
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), make([]byte, 65<<10), 0o600))
	_, err = loadWith("file:secret", nil)
	require.ErrorContains(t, err, "it is not a secret")
}

// encryptKey replaces the key in path by the same under a passphrase.
func encryptKey(t *testing.T, path, passphrase string) {
	t.Helper()
	openssl := interop.Need(t, "openssl")
	cmd := exec.CommandContext(t.Context(), openssl, "pkcs8", "-topk8", "-in", path, "-out", path+".new", "-passout", "stdin")
	cmd.Stdin = strings.NewReader(passphrase + "\n")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Rename(path+".new", path))
}

// What tlsprops has against a TLS block stands at the line of the setting.
func TestTLSThatCannotBeHonouredIsRefusedAtItsLine(t *testing.T) {
	dir := t.TempDir()
	ca := testpki.NewCA(t, "Test CA")
	ca.Write(dir, "ca.crt")
	ca.Server().Write(dir, "server")
	ca.Client("other").Write(dir, "other")
	expired := ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-time.Hour)})
	expired.Write(dir, "expired")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "half.crt"), []byte("-----BEGIN CERTIFICATE-----\nMIIB\n"), 0o600))
	path := filepath.Join(dir, "engine.yaml")

	const serverKey, serverCert = "keyStorePath: server.key, ", "certStorePath: server.crt, "
	for _, tt := range []struct {
		name     string
		old, tls string // in good, old is replaced by tls
		line     int
		key      string
		text     string
	}{
		{"paths although it is off", "transmissionMode: MLLP", "tls: {enabled: false, certStorePath: server.crt}", 10, "source.tls.certStorePath", "enabled"},
		{"listener without a key", "transmissionMode: MLLP", "tls: {enabled: true}", 10, "source.tls.keyStorePath", "missing"},
		{"client certificates without a trust store", "transmissionMode: MLLP", "tls: {enabled: true, " + serverKey + serverCert + "requireClientCert: true}", 10, "source.tls.trustStorePath", "missing"},
		{"version too old", "transmissionMode: MLLP", "tls: {enabled: true, " + serverKey + serverCert + "minVersion: SSLv3}", 10, "source.tls.minVersion", ""},
		{"file that is not there", "transmissionMode: MLLP", "tls: {enabled: true, " + serverKey + "certStorePath: none.crt}", 10, "source.tls.certStorePath", "none.crt"},
		{"half a certificate", "transmissionMode: MLLP", "tls: {enabled: true, " + serverKey + "certStorePath: half.crt}", 10, "source.tls.certStorePath", "half.crt"},
		{"key of another certificate", "transmissionMode: MLLP", "tls: {enabled: true, " + serverCert + "keyStorePath: other.key}", 10, "source.tls", "belong together"},
		{"expired certificate", "transmissionMode: MLLP", "tls: {enabled: true, keyStorePath: expired.key, certStorePath: expired.crt}", 10, "source.tls.certStorePath", "expired"},
		{"setting of a listener on a client", "responseTimeout: 5s", "tls: {enabled: true, requireClientCert: true}", 16, "destinations[0].tls.requireClientCert", "remove it"},
		{"trust store of a client that is not there", "responseTimeout: 5s", "tls: {enabled: true, trustStorePath: none.crt}", 16, "destinations[0].tls.trustStorePath", "none.crt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(good, tt.old, tt.tls, 1)), 0o600))
			_, err := config.Load(path, environment(nil))
			var problems config.LineErrors
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, 1, "%v", err)
			assert.Equal(t, tt.line, problems[0].Line, "%v", err)
			assert.True(t, strings.HasPrefix(problems[0].Key, "channels[0]."+tt.key), "%v", err)
			assert.Contains(t, problems[0].Text, tt.text)
			assert.NotContains(t, problems[0].Text, "SSLv3", "a value is shown")
		})
	}
	// The positive control: the same files, put right.
	require.NoError(t, os.WriteFile(path, []byte(strings.NewReplacer(
		"transmissionMode: MLLP", "tls: {enabled: true, "+serverKey+serverCert+"trustStorePath: ca.crt, requireClientCert: true, minVersion: TLSv1.2}",
		"responseTimeout: 5s", "tls: {enabled: true, trustStorePath: ca.crt, keyStorePath: other.key, certStorePath: other.crt, sniServerName: lab.example.org}",
	).Replace(good)), 0o600))
	_, err := config.Load(path, environment(nil))
	require.NoError(t, err)
}

func TestTLSPathsMayNameJavaKeyStores(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"kinds.jks", "trust.pkcs12"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "keystore", "testdata", "stores", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	path := filepath.Join(dir, "engine.yaml")
	load := func(tls string) error {
		require.NoError(t, os.WriteFile(path, []byte(strings.Replace(good, "transmissionMode: MLLP", tls, 1)), 0o600))
		_, err := config.Load(path, environment(nil))
		return err
	}
	const tls = "tls: {enabled: true, keyStorePath: kinds.jks, keyAlias: EC256, trustStorePath: trust.pkcs12, requireClientCert: true, passphrase: "
	require.NoError(t, load(tls+"changeit}"))
	assert.ErrorContains(t, load(tls+"mistaken}"), "incorrect password")
	assert.ErrorContains(t, load("tls: {enabled: true, keyStorePath: kinds.jks, passphrase: changeit}"), "7 private keys: name the alias of one")
}

func FuzzLoadNeverPanicsOrShowsAValue(f *testing.F) {
	f.Add(good)
	f.Add("channels: [{id: a, source: {type: tcp}}]")
	f.Add("a: &x [*x]")
	f.Add("<<: {store: 1}\n? [a]: b")
	f.Add(withKeys("transmissionMode: RAW\ndelimiter: idle\nallow: [10.0.0.0/8]\norderKey: PID-3.1\nparallel: 4\nreplay: {maxAge: 1h}", "charsetEncoding: UTF-8\nlocalAddress: 127.0.0.1"))
	f.Add("channels:\n- destinations: [{type: channel, channelId: ${A}}]")
	path := filepath.Join(f.TempDir(), "engine.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "file:") || strings.Contains(text, "Path") {
			t.Skip("would read files")
		}
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		cfg, err := config.Load(path, environment(map[string]string{"A": marker}))
		if err == nil {
			require.NotEmpty(t, cfg.Channels)
			return
		}
		require.NotContains(t, err.Error(), marker)
		var problems config.LineErrors
		require.ErrorAs(t, err, &problems)
		require.NotEmpty(t, problems)
		require.Len(t, strings.Split(err.Error(), "\n"), len(problems), "one line each")
	})
}
