package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// export is a channel with the filter between.
func export(filter string) string {
	return `<channel version="4.5.2"><id>adt</id><name>ADT</name>
<sourceConnector><name>in</name><transportName>TCP Listener</transportName><properties class="com.mirth.connect.connectors.tcp.TcpReceiverProperties">
<listenerConnectorProperties><host>127.0.0.1</host><port>6661</port></listenerConnectorProperties></properties>` + filter + `</sourceConnector>
<destinationConnectors><connector><name>out</name><transportName>TCP Sender</transportName><properties class="com.mirth.connect.connectors.tcp.TcpDispatcherProperties">
<remoteAddress>127.0.0.1</remoteAddress><remotePort>6662</remotePort><template>${message.encodedData}</template></properties></connector></destinationConnectors></channel>`
}

const withFilter = `<filter><elements><rule><script>return false;</script></rule></elements></filter>`

func TestMirthImportWritesAConfigurationAndSaysWhatIsMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	plain, filtered := file(t, "plain.xml", export("")), file(t, "filtered.xml", export(withFilter))

	r := carewire(t, "mirth", "import", plain, "--out", dir)
	require.Equal(t, exitOK, r.status, r.err)
	assert.Contains(t, r.out, `channel adt "ADT": imported`)
	name := filepath.Join(dir, "engine.yaml")
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Contains(t, string(text), "\n  - id: adt\n")
	info, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	r = carewire(t, "mirth", "import", filtered, "--out", dir)
	assert.Equal(t, exitUsage, r.status, "it is not replaced unasked")

	r = carewire(t, "mirth", "import", filtered, "--out", dir, "--force", "--json")
	assert.Equal(t, exitNo, r.status)
	var states, losses int
	for line := range strings.Lines(r.out) {
		var v struct{ Kind, State, Severity, What string }
		require.NoError(t, json.Unmarshal([]byte(line), &v))
		if v.Kind == "channel" {
			states++
			assert.Equal(t, "held", v.State)
		}
		if v.Severity == "lost behaviour" {
			losses++
			assert.Equal(t, "filter", v.What)
		}
	}
	assert.Equal(t, 1, states)
	assert.Equal(t, 1, losses)
	text, err = os.ReadFile(name)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "\nchannels:", "nobody runs a channel without its filter")

	r = carewire(t, "mirth", "import", filtered, "--out", "-", "--accept-losses")
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.out, "\nchannels:")
	assert.Contains(t, r.err, `lost behaviour: "ADT": "in": filter: `)
}

func TestMirthImportReadsStandardInputAndRefusesWhatIsNoExport(t *testing.T) {
	r := carewireReading(t, strings.NewReader(export("")), "mirth", "import", "-", "--out", "-")
	assert.Equal(t, exitOK, r.status)
	for name, args := range map[string][]string{
		"no export":    {file(t, "a.xml", "<html/>"), "--out", "-"},
		"no file":      {filepath.Join(t.TempDir(), "gone"), "--out", "-"},
		"both on one":  {file(t, "b.xml", export("")), "--out", "-", "--json"},
		"nowhere":      {file(t, "c.xml", export(""))},
		"not a folder": {file(t, "d.xml", export("")), "--out", file(t, "e", "")},
	} {
		r := carewire(t, append([]string{"mirth", "import"}, args...)...)
		assert.Equal(t, exitUsage, r.status, name)
		assert.Empty(t, r.out, name)
	}
}
