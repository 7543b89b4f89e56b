package tlsprops_test

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/tlsprops"
)

// nobody is a user without rights.
const nobody = 65534

func TestAFileThatMayNotBeReadIsNamed(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	p := newPKI(t)
	for field, path := range map[string]string{
		"keyStorePath": p.serverFiles.Key, "certStorePath": p.serverFiles.Cert, "trustStorePath": p.caFile,
	} {
		require.NoError(t, os.Chmod(path, 0))
		_, err := tlsprops.Load(p.mutual())
		assert.Equal(t, field, fieldOf(t, err))
		assert.ErrorIs(t, err, fs.ErrPermission)
		assert.ErrorContains(t, err, path)
		require.NoError(t, os.Chmod(path, 0o600))
	}
	source := load(t, p.mutual())
	require.NoError(t, os.Chmod(p.serverFiles.Key, 0))
	assert.ErrorIs(t, source.Reload(), fs.ErrPermission)
	assert.EqualValues(t, 1, source.Status().Generation, "the set before is kept")
}

// asNobody runs the calling test again, in a process that is not root's, since
// nothing is forbidden to root.
func asNobody(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	in, err := os.Open(self)
	require.NoError(t, err)
	defer in.Close()
	dir, err := os.MkdirTemp("", "carewire-nobody-") //nolint:usetesting // t.TempDir lies where nobody may not go
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chown(dir, nobody, nobody))
	copied := filepath.Join(dir, "test")
	out, err := os.OpenFile(copied, os.O_WRONLY|os.O_CREATE, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(out, in)
	require.NoError(t, err)
	require.NoError(t, out.Close())
	cmd := exec.CommandContext(t.Context(), copied, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	require.Contains(t, string(text), "--- PASS: "+t.Name())
}
