package tlsprops_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// guideListener serves config on loopback until the test ends and returns its
// address. It reads what a client sends until the client ends.
func guideListener(t *testing.T, config *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			server := tls.Server(conn, config)
			for buf := make([]byte, 1024); err == nil; {
				_, err = server.Read(buf)
			}
			_ = server.Close()
		}
	})
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	return "localhost:" + port
}

// shell runs a line of the guide, with the address and the directory of the
// certificates put in, and returns what it prints.
func shell(t *testing.T, dir, addr, line string) (string, error) {
	t.Helper()
	line = strings.ReplaceAll(line, "localhost:6661", addr)
	line = strings.ReplaceAll(line, "/etc/mirth/certs/", "")
	cmd := exec.CommandContext(t.Context(), "bash", "-c", line)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// The lines of the deployment guide, section 5, "Testing TLS Connectivity".
const (
	guideDirect = `openssl s_client -connect localhost:6661 </dev/null 2>/dev/null | \
  openssl x509 -noout -dates -subject`
	guideBundle = `openssl s_client -connect localhost:6661 \
  -CAfile /etc/mirth/certs/ca.crt </dev/null`
	guideMutual = `openssl s_client -connect localhost:6661 \
  -cert client.crt -key client.key \
  -CAfile ca.crt </dev/null`
)

func TestTheGuidesOpenSSLLinesWork(t *testing.T) {
	interop.Need(t, "openssl")
	interop.Need(t, "bash")
	p := newPKI(t)
	rsa := p.ca.Issue(testpki.Options{
		CommonName: "localhost", Hosts: []string{"localhost", "127.0.0.1"}, Key: testpki.RSAKey(t, 2048),
		EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}).Write(p.dir, "rsa")
	withRSA := tlsprops.TlsProperties{KeyStorePath: rsa.Key, CertStorePath: rsa.Cert}
	for name, props := range map[string]tlsprops.TlsProperties{"ECDSA": p.listener(), "RSA": withRSA} {
		t.Run(name, func(t *testing.T) {
			addr := guideListener(t, serverConfig(t, props))
			out, err := shell(t, p.dir, addr, guideDirect)
			require.NoError(t, err, out)
			assert.Contains(t, out, "notAfter=")
			assert.Contains(t, out, "localhost")

			out, err = shell(t, p.dir, addr, guideBundle)
			require.NoError(t, err, out)
			assert.Contains(t, out, "Verify return code: 0 (ok)")
		})
	}
	t.Run("mutual TLS", func(t *testing.T) {
		addr := guideListener(t, serverConfig(t, p.mutual()))
		out, err := shell(t, p.dir, addr, guideMutual)
		require.NoError(t, err, out)
		assert.Contains(t, out, "Verify return code: 0 (ok)")
		assert.Contains(t, out, p.ca.Cert.Subject.CommonName)

		out, err = shell(t, p.dir, addr, strings.Replace(guideMutual, "</dev/null", "-tls1_2 </dev/null", 1))
		require.NoError(t, err, out)
		out, _ = shell(t, p.dir, addr, strings.Replace(guideBundle, "</dev/null", "-tls1_2 </dev/null", 1))
		assert.Contains(t, out, "alert", "without a certificate nobody gets in")
	})
}

func TestOpenSSLFindsNothingWeakOnAListener(t *testing.T) {
	interop.Need(t, "openssl")
	interop.Need(t, "bash")
	p := newPKI(t)
	addr := guideListener(t, serverConfig(t, p.listener()))
	for _, weak := range []string{
		"-tls1_1 -cipher DEFAULT:@SECLEVEL=0", "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA", "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256",
		"-tls1_2 -cipher AES128-GCM-SHA256", "-tls1_2 -cipher AES128-SHA",
	} {
		out, err := shell(t, p.dir, addr, "openssl s_client "+weak+" -connect localhost:6661 </dev/null")
		assert.Error(t, err, "%s: %s", weak, out)
	}
	out, err := shell(t, p.dir, addr, "openssl s_client -tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384 -connect localhost:6661 </dev/null")
	assert.NoError(t, err, "the control: %s", out)
}

func TestAKeyEncryptedByOpenSSLServes(t *testing.T) {
	interop.Need(t, "openssl")
	interop.Need(t, "bash")
	p := newPKI(t)
	out, err := shell(t, p.dir, "", "openssl pkcs8 -topk8 -in server.key -out encrypted.key -passout pass:sesame")
	require.NoError(t, err, out)
	props := p.listener()
	props.KeyStorePath, props.Passphrase = p.dir+"/encrypted.key", "sesame"
	_, clientSide := handshake(serverConfig(t, props), clientConfig(t, p.trusting(), "localhost"))
	assert.NoError(t, clientSide.err)
}
