package dicomtls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/interop"
)

// The suites of one peer each, in the words of OpenSSL.
var openSSLSuites = map[string]struct {
	flags []string
	suite uint16 // of TLS 1.2; 0: any of TLS 1.3
	modes []dicomtls.DicomTlsMode
}{
	"TLS 1.3":                     {[]string{"-tls1_3"}, 0, []dicomtls.DicomTlsMode{dicomtls.ModeAES, dicomtls.ModeBCP195}},
	"ECDHE-RSA-AES256-GCM-SHA384": {[]string{"-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"}, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, []dicomtls.DicomTlsMode{dicomtls.ModeAES, dicomtls.ModeBCP195}},
	"ECDHE-RSA-AES128-GCM-SHA256": {[]string{"-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"}, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, []dicomtls.DicomTlsMode{dicomtls.ModeAES, dicomtls.ModeBCP195}},
	"AES128-SHA":                  {[]string{"-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"}, tls.TLS_RSA_WITH_AES_128_CBC_SHA, []dicomtls.DicomTlsMode{dicomtls.ModeAES}},
	"AES256-SHA":                  {[]string{"-tls1_2", "-cipher", "AES256-SHA:@SECLEVEL=0"}, 0, nil},
	"ECDHE-RSA-AES128-SHA":        {[]string{"-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:@SECLEVEL=0"}, 0, nil},
	"DHE-RSA-AES128-GCM-SHA256":   {[]string{"-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"}, 0, nil},
	"NULL-SHA":                    {[]string{"-tls1_2", "-cipher", "NULL-SHA:@SECLEVEL=0"}, 0, nil},
	"TLS 1.0":                     {[]string{"-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0"}, 0, nil},
	"TLS 1.1":                     {[]string{"-tls1_1", "-cipher", "AES128-SHA:@SECLEVEL=0"}, 0, nil},
}

var tlsModes = []dicomtls.DicomTlsMode{dicomtls.Mode3DES, dicomtls.ModeAES, dicomtls.ModeBCP195}

// program runs a peer to its end and returns what it printed. Its input stays
// open until it ends.
func program(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, interop.Need(t, name), args...)
	cmd.Env = append(os.Environ(), "TCP_NODELAY=1") // for DCMTK, which waits for delayed acknowledgements without
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// background runs a peer that listens, until the test ends, on a port that it
// takes itself: the arguments name it {port}. It waits until the port answers.
func background(t *testing.T, name string, args ...string) (addr string) {
	t.Helper()
	path := interop.Need(t, name)
	for range 5 {
		// These programs cannot be told to take any port, or do not say which they
		// took: one that was free a moment ago may be gone, so try again.
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr = ln.Addr().String()
		_, port, _ := net.SplitHostPort(addr)
		require.NoError(t, ln.Close())
		actual := make([]string, len(args))
		for i, a := range args {
			actual[i] = strings.ReplaceAll(a, "{port}", port)
		}
		cmd := exec.Command(path, actual...)
		cmd.Env = append(os.Environ(), "TCP_NODELAY=1")
		in, err := cmd.StdinPipe() // s_server ends with its input
		require.NoError(t, err)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(t, cmd.Start())
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); <-ended })
		if answers(t, addr, ended) {
			return addr
		}
		<-ended
		t.Logf("%s ended at once: %s", name, out.String())
	}
	require.Fail(t, name+" did not start")
	return ""
}

// answers waits until somebody listens on addr; false if ended comes first.
func answers(t *testing.T, addr string, ended <-chan struct{}) bool {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

// connect makes a handshake with a program and reads, so that a refusal that
// comes late is seen.
func connect(t *testing.T, addr string, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	d := tls.Dialer{Config: config}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	// A program that took the certificate says nothing, one that did not sends
	// its alert at once.
	_ = conn.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	if ne, ok := err.(net.Error); ok && ne.Timeout() || err == io.EOF { //nolint:errorlint // of crypto/tls itself
		err = nil
	}
	c, _ := conn.(*tls.Conn)
	return c.ConnectionState(), err
}

func TestOpenSSLAgreesWithEachModeOnItsSuitesAndNoOthers(t *testing.T) {
	p := newPKI(t)
	for name, peer := range openSSLSuites {
		addr := background(t, "openssl", append([]string{
			"s_server", "-accept", "127.0.0.1:{port}", "-cert", p.rsa, "-key", p.rsa, "-CAfile", p.ca, "-Verify", "1", "-verify_return_error", "-quiet",
		}, peer.flags...)...)
		for _, mode := range tlsModes {
			want := slices.Contains(peer.modes, mode)
			state, err := connect(t, addr, clientConfig(t, p.sender(mode)))
			assert.Equal(t, want, err == nil, "to s_server, %s, mode %s: %v", name, mode, err)
			if want && peer.suite != 0 {
				assert.Equal(t, peer.suite, state.CipherSuite)
			}
			ours, _ := listenTLS(t, serverConfig(t, p.listener(mode)))
			out, err := program(t, "openssl", append([]string{
				"s_client", "-connect", ours, "-cert", p.client, "-key", p.client, "-CAfile", p.ca, "-verify_return_error", "-quiet",
			}, peer.flags...)...)
			assert.Equal(t, want, err == nil && strings.Contains(out, "hello"), "from s_client, %s, mode %s: %s", name, mode, out)
		}
	}
}

// Debian's OpenSSL has no suite with 3DES; GnuTLS has.
func TestGnuTLSAgreesOn3DES(t *testing.T) {
	const only = "NONE:+VERS-TLS1.2:+3DES-CBC:+RSA:+SHA1:+SIGN-ALL:+COMP-NULL:%SAFE_RENEGOTIATION"
	p := newPKI(t)
	addr := background(t, "gnutls-serv", "--port", "{port}", "--x509certfile", p.rsa, "--x509keyfile", p.rsa, "--x509cafile", p.ca,
		"--require-client-cert", "--verify-client-cert", "--echo", "--quiet", "--priority", only)
	for _, mode := range tlsModes {
		want := mode == dicomtls.Mode3DES
		state, err := connect(t, addr, clientConfig(t, p.sender(mode)))
		assert.Equal(t, want, err == nil, "to gnutls-serv, mode %s: %v", mode, err)
		if want {
			assert.Equal(t, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, state.CipherSuite)
		}
		ours, _ := listenTLS(t, serverConfig(t, p.listener(mode)))
		_, port, _ := net.SplitHostPort(ours)
		out, err := program(t, "gnutls-cli", "--port", port, "--x509certfile", p.client, "--x509keyfile", p.client, "--x509cafile", p.ca,
			"--priority", only, "localhost")
		assert.Equal(t, want, err == nil && strings.Contains(out, "3DES-CBC"), "from gnutls-cli, mode %s: %s", mode, out)
	}
}
