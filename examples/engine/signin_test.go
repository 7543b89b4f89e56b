package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const noUsers = `channels: [{id: a, source: {type: channel}, destinations: [{name: f, type: file, directory: ./archive}]}]
`

// Row 38: no password that anybody knows, and none in the log.
func TestFirstStartMakesAPasswordThatIsGoodForChoosingAnother(t *testing.T) {
	path := writeConfig(t, noUsers)
	p := launch(t, []string{"LOG_LEVEL=debug"}, "-config", path)
	p.says("engine ready")
	file := filepath.Join(filepath.Dir(path), "data", "admin-password")
	assert.Contains(t, p.stdout.String(), file, "what is no terminal gets no password")
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	password := strings.TrimSpace(string(text))
	assert.NotContains(t, p.stdout.String()+p.stderr.String(), password)

	base := p.api()
	session := signIn(t, base, "admin", password)
	code, body := call(t, http.MethodGet, base+"/api/channels", session)
	assert.Equal(t, 403, code)
	assert.Contains(t, body["message"], "password")
	_, user := call(t, http.MethodGet, base+"/api/users/current", session)
	assert.Equal(t, true, user["mustChangePassword"])

	again := launch(t, nil, "-config", path, "-data", t.TempDir())
	again.says("engine ready")
	assert.Contains(t, again.stdout.String(), "admin-password", "each data directory has its own")
}

// Row 55, in the built binary: the log survives restarts, and a change shows.
func TestAuditLogIsVerified(t *testing.T) {
	path := writeConfig(t, oneChannel, freePort(t))
	for range 2 {
		p := launch(t, nil, "-config", path)
		p.says("engine ready")
		session := signIn(t, p.api(), "test", secret)
		code, _ := call(t, http.MethodPost, p.api()+"/api/channels/adt/_stop", session)
		require.Equal(t, 204, code)
		p.signal(syscall.SIGTERM)
		require.Equal(t, 0, p.code())
	}
	p := launch(t, nil, "-config", path, "-verify-audit")
	require.Equal(t, 0, p.code())
	assert.Contains(t, p.stdout.String(), "records 1 to 6")

	log := filepath.Join(filepath.Dir(path), "data", "audit", "audit-000001.jsonl")
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(log, bytes.Replace(text, []byte(`"user":"test"`), []byte(`"user":"root"`), 1), 0o600))
	p = launch(t, nil, "-data", filepath.Join(filepath.Dir(path), "data"), "-verify-audit")
	assert.Equal(t, 1, p.code())
	assert.Contains(t, p.stderr.String(), log+":1: was changed")
	p = launch(t, nil, "-config", path)
	assert.Equal(t, 1, p.code(), "an engine does not go on with it")
	assert.Contains(t, p.stderr.String(), "move it away")
}
