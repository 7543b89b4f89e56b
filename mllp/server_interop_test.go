package mllp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// listener runs a Server on a real port until the test ends, and returns it and
// a function that returns the delivered messages.
func listener(t *testing.T, props *tlsprops.TlsProperties) (addr string, delivered func() []string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	var got []string
	srv := &mllp.Server{TLS: props, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(r.Message))
		return nil, nil
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return ln.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), got...)
	}
}

// mutual writes certificates and returns the properties of a listener that
// requires one of clients.
func mutual(t *testing.T) (props *tlsprops.TlsProperties, ca string, client testpki.Files) {
	p, dir := pki(), t.TempDir()
	server := p.server.Write(dir, "server")
	ca = p.ca.Write(dir, "ca")
	return &tlsprops.TlsProperties{
		Enabled: true, KeyStorePath: server.Key, CertStorePath: server.Cert, TrustStorePath: ca, RequireClientCert: true,
	}, ca, p.client.Write(dir, "client")
}

func TestOpenSSLSendsAMessageOverMutualTLS(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	props, ca, client := mutual(t)
	addr, delivered := listener(t, props)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		// The guide's line, with a message where that has /dev/null.
		cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", addr,
			"-cert", client.Cert, "-key", client.Key, "-CAfile", ca, "-quiet", "-verify_return_error", version)
		stdin, err := cmd.StdinPipe()
		require.NoError(t, err)
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		io.WriteString(stdin, frame(msgA))
		text, err := mllp.NewReader(stdout, 0).Next()
		require.NoError(t, err, version)
		a, err := mllp.ParseAck(text)
		require.NoError(t, err)
		assert.Equal(t, mllp.Ack{Code: mllp.AA, ControlID: "id1"}, a, version)
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
	}
	assert.Equal(t, []string{msgA, msgA}, delivered())
}

func TestTheGuidesLinesOfOpenSSL(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	props, ca, client := mutual(t)
	addr, _ := listener(t, props)
	out, err := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", addr, "-cert", client.Cert, "-key", client.Key, "-CAfile", ca).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "Verify return code: 0 (ok)")
	assert.Contains(t, string(out), "CN = Test CA", "the CA that clients need is named")
	out, err = exec.CommandContext(t.Context(), openssl, "s_client", "-connect", addr, "-CAfile", ca, "-tls1_2").CombinedOutput()
	assert.Error(t, err, "without a certificate")
	assert.Contains(t, string(out), "alert")
	out, err = exec.CommandContext(t.Context(), openssl, "s_client", "-connect", addr, "-CAfile", ca, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0").CombinedOutput()
	assert.Error(t, err, "TLS 1.1")
	assert.Contains(t, string(out), "alert protocol version")
}

func TestPythonHL7Sends(t *testing.T) {
	mllpSend := interop.Need(t, "mllp_send")
	file := filepath.Join(t.TempDir(), "messages")
	require.NoError(t, os.WriteFile(file, []byte(frame(msgA)+frame(msgB)), 0o600))
	send := func(addr string) string {
		host, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, mllpSend, "-p", port, "-f", file, host).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	check := func(out string, delivered []string) {
		// It sends no CR after the last segment.
		assert.Equal(t, []string{strings.TrimSuffix(msgA, "\r"), strings.TrimSuffix(msgB, "\r")}, delivered)
		assert.Contains(t, out, "MSA|AA|id1")
		assert.Contains(t, out, "MSA|AA|id2")
	}
	t.Run("plain", func(t *testing.T) {
		addr, delivered := listener(t, nil)
		check(send(addr), delivered())
	})
	t.Run("through a TLS tunnel", func(t *testing.T) {
		stunnel := interop.Need(t, "stunnel")
		props, ca, client := mutual(t)
		addr, delivered := listener(t, props)
		check(send(tunnel(t, stunnel, addr, ca, client)), delivered())
	})
}

// tunnel returns a plain port from which stunnel, with a certificate of its own,
// goes on over mutual TLS. It runs once for each connection, as inetd would run it,
// so that it has no port of its own to choose.
func tunnel(t *testing.T, stunnel, to, ca string, client testpki.Files) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "stunnel.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil,
		"client = yes\nsyslog = no\nconnect = %s\ncert = %s\nkey = %s\nCAfile = %s\nverifyChain = yes\ncheckHost = localhost\n",
		to, client.Cert, client.Key, ca), 0o600))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			socket, err := conn.(*net.TCPConn).File()
			conn.Close() // the file is a duplicate
			if !assert.NoError(t, err) {
				return
			}
			cmd := exec.CommandContext(t.Context(), stunnel, config) // killed when the test ends
			cmd.Stdin, cmd.Stdout = socket, socket
			var said bytes.Buffer
			cmd.Stderr = &said
			wg.Go(func() {
				defer socket.Close()
				if err := cmd.Run(); err != nil && t.Context().Err() == nil {
					t.Errorf("stunnel: %v\n%s", err, &said)
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

func TestNmapFindsOnlyStrongCiphers(t *testing.T) {
	nmap := interop.Need(t, "nmap")
	mtls, _, _ := mutual(t)
	oneWay := &tlsprops.TlsProperties{Enabled: true, KeyStorePath: mtls.KeyStorePath, CertStorePath: mtls.CertStorePath}
	for name, props := range map[string]*tlsprops.TlsProperties{"TLS": oneWay, "mutual TLS": mtls} {
		addr, _ := listener(t, props)
		_, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		raw, err := exec.CommandContext(t.Context(), nmap, "-Pn", "--script", "ssl-enum-ciphers", "-p", port, "127.0.0.1").CombinedOutput()
		out := string(raw)
		require.NoError(t, err, "%s: %s", name, out)
		assert.Contains(t, out, "least strength: A", name)
		assert.NotContains(t, out, "warnings", name)
		assert.NotContains(t, out, "TLSv1.0", name)
		assert.NotContains(t, out, "TLSv1.1", name)
		suites := regexp.MustCompile(`TLS_[A-Z0-9_]+`).FindAllString(out, -1)
		assert.NotEmpty(t, suites, name)
		for _, s := range suites {
			if !strings.HasPrefix(s, "TLS_AKE_WITH_") { // nmap's prefix for those of TLS 1.3
				assert.Regexp(t, `^TLS_ECDHE_(RSA|ECDSA)_WITH_(AES_(128|256)_GCM_SHA(256|384)|CHACHA20_POLY1305_SHA256)$`, s, name)
			}
		}
	}
}
