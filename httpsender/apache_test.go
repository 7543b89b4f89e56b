package httpsender_test

import (
	"crypto/md5"
	"encoding/hex"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/interop"
)

// apache runs the real one with Digest, Basic and a file, and returns its URL.
func apache(t *testing.T) string {
	t.Helper()
	path := interop.Need(t, "apache2")
	const modules = "/usr/lib/apache2/modules"
	if _, err := os.Stat(modules + "/mod_auth_digest.so"); err != nil {
		interop.Missing(t, "apache2 has no mod_auth_digest in "+modules)
	}
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "www"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "www", "file"), []byte("content"), 0o644))
	require.NoError(t, os.Chmod(dir, 0o755)) // its workers are another user's if we are root
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	ha1 := md5.Sum([]byte("Mufasa:the realm:Circle of Life"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "digest"), []byte("Mufasa:the realm:"+hex.EncodeToString(ha1[:])+"\n"), 0o644))
	addr := loopback()
	host, _, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	config := filepath.Join(dir, "apache.conf")
	require.NoError(t, os.WriteFile(config, []byte(strings.NewReplacer("ADDR", addr, "HOST", host, "DIR", dir, "MODULES", modules).Replace(`
ServerRoot DIR
ServerName HOST
Listen ADDR
PidFile DIR/pid
ErrorLog /dev/stderr
LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authn_core_module MODULES/mod_authn_core.so
LoadModule authn_file_module MODULES/mod_authn_file.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule authz_user_module MODULES/mod_authz_user.so
LoadModule auth_digest_module MODULES/mod_auth_digest.so
User nobody
Group nogroup
DocumentRoot DIR/www
<Directory DIR/www>
	AuthType Digest
	AuthName "the realm"
	AuthDigestProvider file
	AuthDigestDomain /
	AuthDigestNonceLifetime 2
	AuthUserFile DIR/digest
	Require valid-user
</Directory>
`)), 0o600))
	child(t, addr, path, "-X", "-f", config)
	return "http://" + addr
}

func TestApacheDigest(t *testing.T) {
	url := apache(t)
	s := &httpsender.Sender{
		Auth:     httpsender.Auth{Scheme: httpsender.AuthDigest, Username: "Mufasa", Password: "Circle of Life"},
		ProxyURL: httpsender.DirectOnly,
	}
	defer s.Close()
	var j journal
	s.Observe = j.observe
	for _, path := range []string{"/file", "/file?a=b&c=%20d"} {
		for range 3 {
			status, body, err := exchange(s, request(t, "GET", url+path, nil))
			require.NoError(t, err)
			assert.Equal(t, 200, status)
			assert.Equal(t, "content", body)
		}
	}
	assert.Len(t, j.of(httpsender.EventAttempt), 7, "one challenge for six requests")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10 {
				status, _, err := exchange(s, request(t, "POST", url+"/file", text("x")))
				assert.NoError(t, err)
				assert.Equal(t, 200, status)
			}
		})
	}
	all.Wait()
	wrong := &httpsender.Sender{
		Auth:     httpsender.Auth{Scheme: httpsender.AuthDigest, Username: "Mufasa", Password: "hunter2"},
		ProxyURL: httpsender.DirectOnly,
	}
	defer wrong.Close()
	e := outcome(t, wrong, request(t, "GET", url+"/file", nil))
	assert.Equal(t, http.StatusUnauthorized, e.Status)
	assert.Equal(t, httpsender.Rejected, e.Outcome)
}
