package main

import (
	"bufio"
	"crypto/tls"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
)

// sServer runs openssl s_server on a loopback port until the test ends.
func sServer(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), interop.Need(t, "openssl"), append([]string{"s_server", "-accept", "127.0.0.1:0"}, args...)...)
	stdin, err := cmd.StdinPipe() // at the end of its input s_server closes its connections
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "ACCEPT "); ok {
			go func() { // ends with the process
				for lines.Scan() {
				}
			}()
			return address
		}
	}
	t.Fatal("openssl s_server did not start")
	return ""
}

func TestProbeOfOpenSSL(t *testing.T) {
	ca := newPKI(t)
	server := ca.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost"}, Key: testpki.RSAKey(t, 2048)}).Write(ca.dir, "server")
	old := ca.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-day / 2)}).Write(ca.dir, "old")
	client := ca.Client("client").Write(ca.dir, "client")
	pair := []string{"-cert", server.Cert, "-key", server.Key}
	trust := []string{"--ca", ca.file, "--name", "localhost"}

	t.Run("TLS 1.2 only", func(t *testing.T) {
		status, report := probe(t, sServer(t, append(pair, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")...), trust...)
		assert.Equal(t, exitOK, status, report.Error)
		assert.Equal(t, "no no yes no", answers(report))
		assert.Equal(t, "TLS 1.2", report.Version)
		assert.Equal(t, []suiteAnswer{{Name: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}}, report.Suites)
		assert.Empty(t, report.weaknesses())
	})
	t.Run("TLS 1.3 only", func(t *testing.T) {
		status, report := probe(t, sServer(t, append(pair, "-tls1_3", "-groups", "P-384")...), trust...)
		assert.Equal(t, exitOK, status, report.Error)
		assert.Equal(t, "no no no yes", answers(report))
		assert.Equal(t, "CurveP384", report.KeyExchange)
		assert.Empty(t, report.Suites)
	})
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run("a client certificate required "+version, func(t *testing.T) {
			address := sServer(t, append(pair, version, "-Verify", "1", "-verify_return_error", "-CAfile", ca.file)...)
			status, report := probe(t, address, trust...)
			assert.Equal(t, exitNo, status)
			assert.Contains(t, report.Error, "remote error: tls: ")
			assert.Equal(t, new(true), report.ClientCert.Required)
			assert.Equal(t, []string{"CN=Test CA"}, report.ClientCert.Authorities)
			assert.True(t, report.Verified)

			status, report = probe(t, address, append(trust, "--cert", client.Cert, "--key", client.Key)...)
			assert.Equal(t, exitOK, status, report.Error)
		})
	}
	t.Run("expired", func(t *testing.T) {
		status, report := probe(t, sServer(t, "-cert", old.Cert, "-key", old.Key), trust...)
		assert.Equal(t, exitNo, status)
		require.Len(t, report.Problems, 1)
		assert.Contains(t, report.Problems[0], "expired")
		assert.Equal(t, -1, report.Chain[0].DaysLeft)
	})
	t.Run("old versions and weak suites", func(t *testing.T) {
		status, report := probe(t, sServer(t, append(pair, "-min_protocol", "TLSv1", "-cipher", "ALL:@SECLEVEL=0")...), trust...)
		assert.Equal(t, exitOK, status, "weak, but a client of this library can use it: %s", report.Error)
		assert.Equal(t, "yes yes yes yes", answers(report))
		assert.Contains(t, report.Suites, suiteAnswer{Name: "TLS_RSA_WITH_AES_128_CBC_SHA", Weakness: "no forward secrecy, CBC"})
		weak := report.weaknesses()
		require.Len(t, weak, 3)
		assert.Equal(t, []string{"TLS 1.0", "TLS 1.1"}, weak[:2])
	})
	t.Run("nothing but TLS 1.1", func(t *testing.T) {
		status, report := probe(t, sServer(t, append(pair, "-min_protocol", "TLSv1.1", "-max_protocol", "TLSv1.1", "-cipher", "ALL:@SECLEVEL=0")...), trust...)
		assert.Equal(t, exitNo, status)
		assert.False(t, report.OK)
		assert.True(t, report.Verified, "its certificate is in order: %v", report.Problems)
		assert.Equal(t, "TLS 1.1", report.Version)
		assert.Equal(t, "no yes no no", answers(report))
	})
}

func TestProbeFindsTheSuitesThatNmapFinds(t *testing.T) {
	nmap := interop.Need(t, "nmap")
	ca := newPKI(t)
	server := ca.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost"}, Key: testpki.RSAKey(t, 2048)}).Write(ca.dir, "server")
	address := sServer(t, "-cert", server.Cert, "-key", server.Key, "-min_protocol", "TLSv1.2", "-cipher", "ALL:@SECLEVEL=0")
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), nmap, "-Pn", "-n", "--script", "ssl-enum-ciphers", "-p", port, "127.0.0.1").CombinedOutput()
	require.NoError(t, err, string(out))
	_, section, found := strings.Cut(string(out), "TLSv1.2:")
	require.True(t, found, string(out))
	section, _, _ = strings.Cut(section, "TLSv1.3:")
	var theirs []string
	for word := range strings.FieldsSeq(section) {
		// What crypto/tls cannot ask for, a probe cannot see.
		if slices.ContainsFunc(knownSuites(), func(id uint16) bool { return tls.CipherSuiteName(id) == word }) {
			theirs = append(theirs, word)
		}
	}
	require.NotEmpty(t, theirs, string(out))
	var ours []string
	_, report := probe(t, address, "--ca", ca.file, "--name", "localhost")
	for _, suite := range report.Suites {
		ours = append(ours, suite.Name)
	}
	assert.ElementsMatch(t, theirs, ours)
	assert.Equal(t, "no no yes yes", answers(report))
}
