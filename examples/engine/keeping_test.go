package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keptChannel has a destination that may be down, sealed content, and backups.
const keptChannel = `dataDir: %s
users: [{name: test, role: admin, password: ` + secret + `}]
backup: {directory: ./copies}
encryption: {keyFile: ./keys, unsealed: refuse}
retention: {days: 30}
channels:
  - id: adt
    source: {type: tcp, host: 127.0.0.1, port: %d}
    destinations: [{name: lab, type: tcp, host: 127.0.0.1, port: %d, queue: {retryInterval: 20ms}}]
`

// From end to end: content is sealed, a backup is made while the engine runs, the
// engine is killed, and the backup goes on in another data directory.
func TestBackupOfASealedStoreGoesOnElsewhere(t *testing.T) {
	port, lab := freePort(t), freePort(t)
	path := writeConfig(t, keptChannel, "./data", port, lab)
	dir := filepath.Dir(path)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keys"), []byte("2026a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600))
	p := launch(t, nil, "-config", path)
	p.says("engine ready")
	conn := dial(t, port, nil)
	send := func(id string) {
		_, err := conn.Send(t.Context(), message(id))
		require.NoError(t, err)
	}
	for i := range 5 {
		send(fmt.Sprint("before-", i))
	}
	base := p.api()
	code, body := call(t, "POST", base+"/api/server/_backup", signIn(t, base, "test", secret))
	require.Equal(t, 200, code, "%v", body)
	send("after")
	p.signal(syscall.SIGKILL)
	<-p.exited
	copied := filepath.Join(dir, "copies", fmt.Sprint(body["name"]))
	content, err := os.ReadFile(copied)
	require.NoError(t, err)
	assert.False(t, bytes.Contains(content, []byte("PID|1")), "a backup is as sealed as the store")

	elsewhere := filepath.Join(dir, "elsewhere.yaml")
	require.NoError(t, os.WriteFile(elsewhere, fmt.Appendf(nil, keptChannel, "./restored", port, lab), 0o600))
	r := launch(t, nil, "-config", elsewhere, "-restore", copied)
	require.Equal(t, 0, r.code())
	assert.Contains(t, r.stdout.String(), body["sha256"])
	assert.Contains(t, r.stdout.String(), "It is the one in the file beside it.")
	assert.Contains(t, r.stdout.String(), "Deliveries that wait: 5.")
	r = launch(t, nil, "-config", elsewhere, "-restore", copied)
	assert.Equal(t, 1, r.code(), "there is a store now")
	assert.Contains(t, r.stderr.String(), "restore into a directory without a store")

	without := filepath.Join(dir, "without.yaml")
	text := regexp.MustCompile("(?m)^encryption:.*\n").ReplaceAllString(fmt.Sprintf(keptChannel, "./restored", port, lab), "")
	require.NoError(t, os.WriteFile(without, []byte(text), 0o600))
	refused := launch(t, nil, "-config", without)
	assert.Equal(t, 1, refused.code())
	assert.Contains(t, refused.stderr.String(), `sealed with the key "2026a": give it, too, in encryption.keyFile or MIRTH_ENCRYPTION_KEY`)
	assert.NotContains(t, refused.stderr.String(), "channel started")

	var got recorder
	got.listen(t, lab)
	p = launch(t, nil, "-config", elsewhere)
	p.says("engine ready")
	eventually(t, "the queue of the backup is delivered", func() bool { return len(got.received()) >= 5 })
	assert.Equal(t, []string{"before-0", "before-1", "before-2", "before-3", "before-4"}, got.received()[:5])
	p.says("sending again what may have arrived")
	assert.NotContains(t, got.received(), "after", "what came after the backup is not in it")
}

func TestKeysAndRestoreOnTheCommandLineAreHeldAgainstTheRest(t *testing.T) {
	path := writeConfig(t, keptChannel, "./data", freePort(t), freePort(t))
	key := "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	p := launch(t, nil, "-config", path)
	assert.Equal(t, 1, p.code())
	assert.Contains(t, p.stderr.String(), "engine.yaml:4: encryption.keyFile: ")
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), "keys"), []byte(key), 0o600))
	p = launch(t, []string{"MIRTH_ENCRYPTION_KEY=" + key}, "-config", path)
	assert.Equal(t, 1, p.code())
	assert.Contains(t, p.stderr.String(), "MIRTH_ENCRYPTION_KEY is set, and so is encryption.keyFile")
	assert.NotContains(t, p.stderr.String(), key[2:])
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(text), "keyFile: ./keys, ", "", 1)), 0o600))
	p = launch(t, nil, "-config", path)
	assert.Equal(t, 1, p.code())
	assert.Contains(t, p.stderr.String(), "encryption.unsealed is refuse, and there is no key")
	p = launch(t, nil, "-check", "-config", path, "-restore", "x")
	assert.Equal(t, 2, p.code())
	p = launch(t, nil, "-data", t.TempDir(), "-restore", "none.db")
	assert.Equal(t, 1, p.code())
	assert.Contains(t, p.stderr.String(), "no such file")
}
