package testpki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
)

func TestAServerUnderAnIntermediateVerifiesAgainstTheRoot(t *testing.T) {
	ca := testpki.NewCA(t, "root")
	pair := ca.Intermediate("intermediate").Server()
	require.Len(t, pair.Chain, 2)

	clientConn, serverConn := net.Pipe()
	defer clientConn.Close()
	defer serverConn.Close()
	server := tls.Server(serverConn, &tls.Config{Certificates: []tls.Certificate{pair.TLS()}})
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(t.Context()) }()
	client := tls.Client(clientConn, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	require.NoError(t, client.HandshakeContext(t.Context()))
	require.NoError(t, <-done)
	assert.Equal(t, testpki.Pin(client.ConnectionState().PeerCertificates[0]), pair.Pin())
}

func TestFilesLoadAsAKeyPair(t *testing.T) {
	ca := testpki.NewCA(t, "root")
	dir := t.TempDir()
	files := ca.Client("a client").Write(dir, "client")
	_, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	require.NoError(t, err)
	data, err := os.ReadFile(ca.Write(dir, "ca.crt"))
	require.NoError(t, err)
	assert.True(t, x509.NewCertPool().AppendCertsFromPEM(data))
}

func TestARevocationListNamesTheRevoked(t *testing.T) {
	ca := testpki.NewCA(t, "root")
	pair := ca.Client("lost laptop")
	list, err := x509.ParseRevocationList(ca.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{pair}}))
	require.NoError(t, err)
	require.NoError(t, list.CheckSignatureFrom(ca.Cert))
	require.Len(t, list.RevokedCertificateEntries, 1)
	assert.Equal(t, pair.Cert.SerialNumber, list.RevokedCertificateEntries[0].SerialNumber)
}

func TestBadCertificatesAreBadInTheWayAskedFor(t *testing.T) {
	ca := testpki.NewCA(t, "root")
	expired := ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-time.Minute)})
	var invalid x509.CertificateInvalidError
	_, err := expired.Cert.Verify(x509.VerifyOptions{Roots: ca.Pool()})
	require.ErrorAs(t, err, &invalid)
	assert.Equal(t, x509.Expired, invalid.Reason)
	nameless := ca.Issue(testpki.Options{CommonName: "localhost"})
	assert.ErrorContains(t, nameless.Cert.VerifyHostname("localhost"), "legacy Common Name")
}

func TestAMountSwapsAllFilesTogether(t *testing.T) {
	mount := testpki.NewMount(t, t.TempDir(), map[string][]byte{"a": []byte("1"), "b": []byte("1")})
	mount.Swap(map[string][]byte{"a": []byte("2"), "b": []byte("2")})
	for _, name := range []string{"a", "b"} {
		data, err := os.ReadFile(mount.Path(name))
		require.NoError(t, err)
		assert.Equal(t, "2", string(data))
	}
	entries, err := os.ReadDir(mount.Dir)
	require.NoError(t, err)
	assert.Len(t, entries, 4, "the generation before is gone")
}
