package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
)

func TestCertsSaysWhatItWroteAndKeepsWhatIsThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	r := carewire(t, "tls", "certs", "--dir", dir, "--host", "lab.example.org,10.1.2.3", "--host", "pacs")
	require.Equal(t, exitOK, r.status, r.err)
	var written []string
	for line := range strings.Lines(r.out) {
		path, _, _ := strings.Cut(line, "\t")
		written = append(written, filepath.Base(path))
		assert.FileExists(t, path)
	}
	assert.Equal(t, []string{"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"}, written)
	before, err := os.ReadFile(filepath.Join(dir, "server.crt"))
	require.NoError(t, err)

	r = carewire(t, "tls", "certs", "--dir", dir)
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.err, "--force")
	assert.Empty(t, r.out)
	after, err := os.ReadFile(filepath.Join(dir, "server.crt"))
	require.NoError(t, err)
	assert.Equal(t, before, after)

	r = carewire(t, "tls", "certs", "--dir", dir, "--force")
	assert.Equal(t, exitOK, r.status, r.err)
	after, err = os.ReadFile(filepath.Join(dir, "server.crt"))
	require.NoError(t, err)
	assert.NotEqual(t, before, after)
}

// The guide's lines, and those with which openssl judges what tls certs wrote.
func TestOpenSSLAcceptsTheCertificates(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	dir := t.TempDir()
	require.Equal(t, exitOK, carewire(t, "tls", "certs", "--dir", dir, "--host", "lab.example.org").status)
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), openssl, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "openssl %s: %s", strings.Join(args, " "), out)
		return string(out)
	}
	run("verify", "-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_hostname", "localhost", "server.crt")
	run("verify", "-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_hostname", "lab.example.org", "server.crt")
	run("verify", "-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_ip", "127.0.0.1", "server.crt")
	run("verify", "-CAfile", "ca.crt", "-purpose", "sslclient", "client.crt")
	for _, name := range []string{"ca", "server", "client"} {
		assert.Contains(t, run("rsa", "-in", name+".key", "-check", "-noout"), "ok")
		run("x509", "-in", name+".crt", "-text", "-noout")
		assert.Equal(t, run("x509", "-in", name+".crt", "-pubkey", "-noout"), strings.TrimPrefix(run("rsa", "-in", name+".key", "-pubout"), "writing RSA key\n"))
	}
}
