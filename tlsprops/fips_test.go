package tlsprops_test

import (
	"crypto/fips140"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// inFIPS tells whether the test runs in FIPS 140-3 mode. If not, it runs the
// test there in a process of its own.
func inFIPS(t *testing.T) bool {
	t.Helper()
	if fips140.Enabled() {
		return true
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=on")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "--- PASS: "+t.Name())
	return false
}

func TestFIPSModeReportsWhatItDrops(t *testing.T) {
	if !inFIPS(t) {
		return
	}
	p := newPKI(t)
	props := p.mutual()
	props.CipherSuites = []string{"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"}
	weak := testpki.NewCAWith(t, testpki.Options{CommonName: "Weak CA", Key: testpki.RSAKey(t, 1024)})
	props.TrustStorePath = write(t, filepath.Join(p.dir, "bundle"), p.ca.PEM(), weak.PEM())
	source := load(t, props)
	warnings := fmt.Sprint(source.Status().Warnings)
	assert.Contains(t, warnings, "leaves out ECDHE-ECDSA-CHACHA20-POLY1305")
	assert.Contains(t, warnings, `does not allow the key of "CN=Weak CA"`)

	props.CipherSuites = props.CipherSuites[:1]
	assert.Equal(t, "cipherSuites", fieldOf(t, props.Validate()))
}

func TestFIPSModeWorksInBothRolesAndModes(t *testing.T) {
	if !inFIPS(t) {
		return
	}
	p := newPKI(t)
	chainOnly := p.known()
	chainOnly.Verify = tlsprops.VerifyChainOnly
	for _, client := range []tlsprops.TlsProperties{p.known(), chainOnly} {
		bothVersions(t, func(t *testing.T, version uint16) {
			config := clientConfig(t, client, "localhost")
			config.MaxVersion = version
			serverSide, clientSide := handshake(serverConfig(t, p.mutual()), config)
			require.NoError(t, clientSide.err)
			assert.Len(t, serverSide.state.PeerCertificates, 1)
		})
	}
	// A chain with a key that is not allowed does not pass where this package
	// verifies it either.
	weak := testpki.NewCAWith(t, testpki.Options{CommonName: "Weak CA", Key: testpki.RSAKey(t, 1024)})
	weak.Write(p.dir, "weak.crt")
	for _, mode := range []tlsprops.VerifyMode{tlsprops.VerifyFull, tlsprops.VerifyChainOnly} {
		props := tlsprops.TlsProperties{TrustStorePath: filepath.Join(p.dir, "weak.crt"), Verify: mode}
		_, clientSide := handshake(&tls.Config{Certificates: []tls.Certificate{weak.Server().TLS()}}, clientConfig(t, props, "localhost"))
		var verification *tls.CertificateVerificationError
		assert.ErrorAs(t, clientSide.err, &verification, mode)
	}
}
