package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A destination that is down is told once, through a channel like any other, and once
// when it is up again; a restart in between tells nothing.
func TestAlertsGoThroughAChannel(t *testing.T) {
	port := freePort(t)
	path := writeConfig(t, `alerts: {channel: ops, checkInterval: 1s, queueingAfter: 1s, diskFreePercent: 1}
users: [{name: test, role: admin, password: `+secret+`}]
channels:
  - id: adt
    source: {type: channel}
    destinations: [{name: lab, type: tcp, host: 127.0.0.1, port: %d, queue: {retryInterval: 100ms}}]
  - id: ops
    source: {type: channel}
    destinations: [{name: people, type: file, directory: ./alerts}]
`, port)
	told := func() (texts []string) {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "alerts", "[^.]*"))
		require.NoError(t, err)
		for _, file := range files { // their names are in the order of delivery
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var alert struct{ State, Alert, Channel, Destination string }
			require.NoError(t, json.Unmarshal(text, &alert), "%s", text)
			texts = append(texts, alert.State+" "+alert.Alert+" "+alert.Channel+" "+alert.Destination)
		}
		return texts
	}
	p := launch(t, nil, "-config", path)
	p.says("engine ready")
	base := p.api()
	code, body := post(t, http.MethodPost, base+"/api/channels/adt/messages", string(message("M1")), "Content-Type: text/plain", "X-Session-ID: "+signIn(t, base, "test", secret))
	require.Less(t, code, 300, body)
	eventually(t, "it is told", func() bool { return len(told()) == 1 })
	p.signal(syscall.SIGKILL)
	assert.Equal(t, -1, p.code())

	lab := new(recorder)
	lab.listen(t, port)
	launch(t, nil, "-config", path)
	eventually(t, "its end is told", func() bool { return len(told()) == 2 })
	assert.Equal(t, []string{"raised queueing adt lab", "cleared queueing adt lab"}, told())
}
