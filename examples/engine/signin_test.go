package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
