package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

// configured are the channels of an engine.yaml.
func configured(t *testing.T) *config.Config {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "engine.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`channels:
  - id: first
    name: First
    source: {type: tcp, host: 127.0.0.1, port: 6661}
    destinations: [{name: archive, type: file, directory: /tmp/carewire-first}]
  - id: reader
    source: {type: channel}
    destinations: [{name: next, type: channel, channelId: first}]
`), 0o600))
	cfg, err := config.Load(path, lookup)
	require.NoError(t, err)
	return cfg
}

func lookup(name string) (string, bool) { return "hunter2", name == "SECRET" }

func others(cfg *config.Config) []*config.Channel {
	var list []*config.Channel
	for i := range cfg.Channels {
		list = append(list, &cfg.Channels[i])
	}
	return list
}

const storedYAML = `# by hand
id: second
name: "010"
initialState: PAUSED
source:
  type: tcp
  host: 127.0.0.1
  port: 6662
destinations:
  - name: archive
    type: file
    directory: archive
  - {name: next, type: channel, channelId: reader}
  - name: mail
    type: smtp
    smtpHost: smtp.example.org
    smtpPort: 25
    encryption: none
    from: a@example.org
    to: b@example.org
    subject: "\"yes\" ${message.id}"
`

const storedJSON = `{
	"id": "second", "name": "010", "initialState": "PAUSED",
	"source": {"type": "tcp", "host": "127.0.0.1", "port": 6662},
	"destinations": [
		{"name": "archive", "type": "file", "directory": "archive"},
		{"name": "next", "type": "channel", "channelId": "reader"},
		{"name": "mail", "type": "smtp", "smtpHost": "smtp.example.org", "smtpPort": 25, "encryption": "none",
		 "from": "a@example.org", "to": "b@example.org", "subject": "\"yes\" ${message.id}"}]}`

func TestStoredChannelIsTheSameFromYAMLAndJSONAndAfterARestart(t *testing.T) {
	cfg, dir := configured(t), t.TempDir()
	path := config.StoredPath(dir, "second")
	fromYAML, text, err := config.ParseStored(path, []byte(storedYAML), false, others(cfg), lookup)
	require.NoError(t, err)
	assert.Equal(t, storedYAML, string(text), "kept as it came, comments and all")
	assert.True(t, fromYAML.Stored)
	assert.Equal(t, "PAUSED", fromYAML.InitialState)
	assert.Equal(t, filepath.Join(dir, "archive"), fromYAML.Destinations[0].File.Directory, "relative to its file")
	assert.Equal(t, "block", fromYAML.Destinations[0].Queue.OnPoison, "defaults are set")

	fromJSON, text, err := config.ParseStored(path, []byte(storedJSON), true, others(cfg), lookup)
	require.NoError(t, err)
	assert.Equal(t, fromYAML, fromJSON)
	require.NoError(t, os.WriteFile(path, text, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".half.yaml"), []byte("id: h"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README"), []byte("not one"), 0o600))
	require.NoError(t, config.LoadStored(dir, cfg, lookup))
	require.Len(t, cfg.Channels, 3)
	assert.Equal(t, *fromJSON, cfg.Channels[2])
	assert.False(t, cfg.Channels[0].Stored)
	require.NoError(t, config.LoadStored(filepath.Join(dir, "nothing"), cfg, lookup))
	assert.Len(t, cfg.Channels, 3)
}

func TestMistakesInAStoredChannelHaveTheirLines(t *testing.T) {
	cfg := configured(t)
	path := config.StoredPath("/data/channels", "x")
	smtp := func(password string) string {
		return strings.Replace(storedYAML, "    encryption: none", "    encryption: tls\n    authentication: true\n    username: u\n    password: "+password, 1)
	}
	for name, tt := range map[string]struct {
		text string
		json bool
		want string
	}{
		"unknown key":                {"id: x\nsuorce: {}\n", false, "x.yaml:2: suorce: not a key here; did you mean source?"},
		"unknown key in JSON":        {"{\"id\": \"x\",\n \"suorce\": {}}", true, "x.yaml:2: suorce: not a key here; did you mean source?"},
		"key twice in JSON":          {"{\"id\": \"x\",\n\"id\": \"y\"}", true, "x.yaml:2: id: stands here a second time, after line 1"},
		"a channel of Mirth":         {`{"id": "x", "sourceConnector": {}}`, true, "sourceConnector: not a key here"},
		"not JSON":                   {"{\"id\": \"x\",\n\"secret: }", true, "x.yaml:2: is not JSON: it ends too early"},
		"broken JSON":                {"{\"id\": \"x\"\n\"secret\"}", true, "x.yaml:2: is not JSON: look at brackets"},
		"two values":                 {"{} {}", true, "more follows"},
		"a list":                     {"[]", true, "must be a group of keys"},
		"deep":                       {strings.Repeat("[", 10000), true, "nested too deeply"},
		"not UTF-8":                  {"\"\xff\"", true, "is not UTF-8"},
		"null":                       {"{\"id\": null}", true, "x.yaml:1: id: has no value"},
		"no id":                      {"name: x\n", false, "id: is missing"},
		"path for an id":             {"id: ../x\n", false, "id: may have letters"},
		"the id of another":          {strings.Replace(storedYAML, "id: second", "id: first", 1), false, "x.yaml:2: id: is the same as that of channel first"},
		"the name of another":        {strings.Replace(storedYAML, `"010"`, "First", 1), false, "x.yaml:3: name: is the same as that of channel first"},
		"the port of another":        {strings.Replace(storedYAML, "6662", "6661", 1), false, "x.yaml:8: source.port: is taken by that of channel first"},
		"the directory of another":   {strings.Replace(storedYAML, "directory: archive", "directory: /tmp/carewire-first", 1), false, "that of channel first"},
		"a channel that is not":      {strings.Replace(storedYAML, "channelId: reader", "channelId: nope", 1), false, "x.yaml:13: destinations[1].channelId: no channel has this id"},
		"a ring of itself":           {strings.Replace(storedYAML, "channelId: reader", "channelId: second", 1), false, "closes a ring"},
		"an initial state":           {strings.Replace(storedYAML, "PAUSED", "RUNNING", 1), false, "x.yaml:4: initialState: must be one of STARTED, PAUSED, STOPPED"},
		"a password":                 {smtp("hunter2"), false, "password: must not stand here itself"},
		"a password with a variable": {smtp("x${SECRET}"), false, "password: must not stand here itself"},
		"a file that is not":         {smtp("file:/nonexistent/password"), false, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := config.ParseStored(path, []byte(tt.text), tt.json, others(cfg), lookup)
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), "hunter2")
			assert.NotContains(t, err.Error(), "secret:")
		})
	}
	ch, text, err := config.ParseStored(path, []byte(smtp("${SECRET}")), false, others(cfg), lookup)
	require.NoError(t, err)
	assert.Equal(t, "hunter2", ch.Destinations[2].SMTP.Password)
	assert.NotContains(t, string(text), "hunter2", "what is kept is the reference")
}

func TestStoredChannelThatClosesARingIsRefused(t *testing.T) {
	cfg := configured(t)
	text := "id: first\nsource: {type: channel}\ndestinations: [{name: a, type: channel, channelId: reader}]\n"
	all := others(cfg)
	_, _, err := config.ParseStored("first.yaml", []byte(text), false, all[1:], lookup)
	require.ErrorContains(t, err, "first.yaml:3: destinations[0].channelId: closes a ring")
}

func TestMistakesInStoredFilesStopTheStart(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	leading := func(id, to string) string {
		return "id: " + id + "\nsource: {type: channel}\ndestinations: [{name: n, type: channel, channelId: " + to + "}]\n"
	}
	write("a.yaml", leading("a", "b"))
	write("b.yaml", leading("b", "first"))
	cfg := configured(t)
	require.NoError(t, config.LoadStored(dir, cfg, lookup), "they may lead to later ones")
	assert.Len(t, cfg.Channels, 4)

	write("b.yaml", leading("b", "a"))
	require.ErrorContains(t, config.LoadStored(dir, configured(t), lookup), "closes a ring")
	write("b.yaml", leading("c", "first"))
	err := config.LoadStored(dir, configured(t), lookup)
	require.ErrorContains(t, err, "b.yaml:1: id: is not the name of the file")
	write("a.yaml", "id: a\nnope: 1\n")
	err = config.LoadStored(dir, configured(t), lookup)
	require.ErrorContains(t, err, "a.yaml:2: nope: not a key here")
	require.ErrorContains(t, err, "b.yaml:1", "all mistakes of all files")
}

func FuzzStoredJSON(f *testing.F) {
	f.Add(storedJSON)
	f.Add(`{"id": "x", "source": {"type": "tcp", "port": 1e3}, "destinations": [null, true, -0, "\ud800\u0000"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		ch, kept, err := config.ParseStored("x.yaml", []byte(text), true, nil, lookup)
		if err != nil {
			return
		}
		again, _, err := config.ParseStored("x.yaml", kept, false, nil, lookup)
		if err != nil {
			t.Fatalf("what was kept is refused: %v", err)
		}
		assert.Equal(t, ch, again)
	})
}

// What sources of every kind have to themselves is not given to a second one.
func TestStoredChannelTakesNothingThatASourceHas(t *testing.T) {
	all := []*config.Channel{
		{ID: "web", Source: config.Source{Type: "http", HTTP: &config.HTTPSource{Host: "127.0.0.1", Port: 7001}}},
		{ID: "pacs", Source: config.Source{Type: "dicom", DICOM: &config.DICOMSource{Host: "127.0.0.1", Port: 7002, Dest: "/tmp/carewire-objects"}}},
	}
	for text, want := range map[string]string{
		strings.Replace(storedYAML, "6662", "7001", 1):                                           "source.port: is taken by that of channel web",
		strings.Replace(storedYAML, "6662", "7002", 1):                                           "source.port: is taken by that of channel pacs",
		strings.Replace(storedYAML, "directory: archive", "directory: /tmp/carewire-objects", 1): "that of channel pacs",
	} {
		_, _, err := config.ParseStored("/data/channels/x.yaml", []byte(text), false, all, lookup)
		require.ErrorContains(t, err, want)
	}
}
