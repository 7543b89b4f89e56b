package devcert_test

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/internal/devcert"
	"github.com/carewire/carewire/internal/interop"
)

func allFiles(f devcert.Files) []string {
	return []string{f.CACert, f.CAKey, f.ServerCert, f.ServerKey, f.ClientCert, f.ClientKey}
}

func pool(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	p := x509.NewCertPool()
	require.True(t, p.AppendCertsFromPEM(data))
	return p
}

func leaf(t *testing.T, cert, key string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	return pair.Leaf
}

func TestWrittenSetCarriesMutualTLSForEveryName(t *testing.T) {
	f, err := devcert.Write(t.TempDir(), devcert.Options{Hosts: []string{"Engine.Example.org", "192.0.2.7", "*.lab.example.org", "localhost"}})
	require.NoError(t, err)

	roots := pool(t, f.CACert)
	server, client := leaf(t, f.ServerCert, f.ServerKey), leaf(t, f.ClientCert, f.ClientKey)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "engine.example.org", "192.0.2.7", "a.lab.example.org"} {
		_, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		assert.NoError(t, err, name)
	}
	_, err = server.Verify(x509.VerifyOptions{Roots: roots, DNSName: "elsewhere.example.org"})
	assert.Error(t, err, "a name that was not asked for")
	_, err = client.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	assert.NoError(t, err)
	_, err = client.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	assert.Error(t, err, "a client's certificate is not a server's")
	assert.Len(t, server.DNSNames, 3, "a name given twice stands once")
	assert.WithinDuration(t, time.Now().Add(365*24*time.Hour), server.NotAfter, time.Minute)

	serverPair, err := tls.LoadX509KeyPair(f.ServerCert, f.ServerKey)
	require.NoError(t, err)
	clientPair, err := tls.LoadX509KeyPair(f.ClientCert, f.ClientKey)
	require.NoError(t, err)
	near, far := net.Pipe()
	s := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{serverPair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13})
	c := tls.Client(near, &tls.Config{Certificates: []tls.Certificate{clientPair}, RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})
	done := make(chan error, 1)
	go func() { done <- s.HandshakeContext(t.Context()) }()
	require.NoError(t, c.HandshakeContext(t.Context()))
	require.NoError(t, <-done)
	assert.Equal(t, "carewire development client", s.ConnectionState().PeerCertificates[0].Subject.CommonName)
}

func TestKeysAreReadableByTheirOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "certs")
	f, err := devcert.Write(dir, devcert.Options{})
	require.NoError(t, err)
	for _, path := range []string{f.CAKey, f.ServerKey, f.ClientKey} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), path)
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o700), info.Mode().Perm())

	// An old key that anybody could read does not pass its mode on.
	require.NoError(t, os.Chmod(f.ServerKey, 0o644))
	_, err = devcert.Write(dir, devcert.Options{Overwrite: true})
	require.NoError(t, err)
	info, err = os.Stat(f.ServerKey)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestExistingFilesAreLeftAloneUnlessTold(t *testing.T) {
	for _, name := range []string{"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600))
			_, err := devcert.Write(dir, devcert.Options{})
			require.ErrorIs(t, err, fs.ErrExist)
			assert.ErrorContains(t, err, name)
			data, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			assert.Equal(t, "mine", string(data))
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Len(t, entries, 1, "nothing else was written")
		})
	}

	dir := t.TempDir()
	f, err := devcert.Write(dir, devcert.Options{})
	require.NoError(t, err)
	before := leaf(t, f.ServerCert, f.ServerKey)
	f, err = devcert.Write(dir, devcert.Options{Overwrite: true})
	require.NoError(t, err)
	assert.False(t, before.Equal(leaf(t, f.ServerCert, f.ServerKey)))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 6, "no temporary file is left")
}

func TestEnsureMakesASetOnceAndRefusesAHalf(t *testing.T) {
	dir := t.TempDir()
	f, made, err := devcert.Ensure(dir)
	require.NoError(t, err)
	assert.True(t, made)
	before := leaf(t, f.ServerCert, f.ServerKey)

	f, made, err = devcert.Ensure(dir)
	require.NoError(t, err)
	assert.False(t, made)
	assert.True(t, before.Equal(leaf(t, f.ServerCert, f.ServerKey)))

	require.NoError(t, os.Remove(f.ClientKey))
	_, _, err = devcert.Ensure(dir)
	require.ErrorContains(t, err, "client.key is missing")
	for _, path := range allFiles(f) {
		if path != f.ClientKey {
			assert.FileExists(t, path)
		}
	}
}

func TestRenewedPairsAreTrustedByWhoeverTrustsTheAuthority(t *testing.T) {
	dir := t.TempDir()
	f, err := devcert.Write(dir, devcert.Options{})
	require.NoError(t, err)
	roots, before := pool(t, f.CACert), leaf(t, f.ServerCert, f.ServerKey)

	f, err = devcert.Renew(dir, "new.example.org")
	require.NoError(t, err)
	after := leaf(t, f.ServerCert, f.ServerKey)
	assert.False(t, before.Equal(after))
	_, err = after.Verify(x509.VerifyOptions{Roots: roots, DNSName: "new.example.org"})
	require.NoError(t, err)
	_, err = leaf(t, f.ClientCert, f.ClientKey).Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.NoError(t, err)

	_, err = devcert.Renew(t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist, "there is no authority to renew from")
}

func TestHostsThatNoCertificateCanNameAreRefused(t *testing.T) {
	for _, host := range []string{"", "localhost:6661", "two words", "a..b", "-a.example.org", "*", "*.", "a*.example.org", "http://x", "ex\x00ample.org"} {
		dir := filepath.Join(t.TempDir(), "certs")
		_, err := devcert.Write(dir, devcert.Options{Hosts: []string{host}})
		assert.Error(t, err, "%q", host)
		assert.NoDirExists(t, dir)
	}
}

// The guide checks a pair with these lines.
func TestGuidesOpensslChecksPass(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	f, err := devcert.Write(t.TempDir(), devcert.Options{})
	require.NoError(t, err)
	run := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), openssl, args...).Output()
		require.NoError(t, err, "openssl %v", args)
		return string(out)
	}
	for cert, key := range map[string]string{f.ServerCert: f.ServerKey, f.ClientCert: f.ClientKey, f.CACert: f.CAKey} {
		run("rsa", "-in", key, "-check", "-noout")
		assert.Equal(t, run("x509", "-in", cert, "-pubkey", "-noout"), run("rsa", "-in", key, "-pubout"))
	}
	assert.Contains(t, run("verify", "-CAfile", f.CACert, "-verify_hostname", "localhost", "-purpose", "sslserver", f.ServerCert), "OK")
	assert.Contains(t, run("verify", "-CAfile", f.CACert, "-purpose", "sslclient", f.ClientCert), "OK")
}
