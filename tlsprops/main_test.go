package tlsprops_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// patience bounds everything that ought to take no time.
const patience = 20 * time.Second

// outcome is how a handshake went for one side.
type outcome struct {
	state tls.ConnectionState
	err   error
}

// serve makes a server's handshake on conn and sends a byte, so that the client
// learns what became of its certificate, which TLS 1.3 tells it only then.
func serve(conn net.Conn, config *tls.Config) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		_ = conn.SetDeadline(time.Now().Add(patience))
		server := tls.Server(conn, config)
		_, err := server.Write([]byte{6})
		done <- outcome{server.ConnectionState(), err}
	}()
	return done
}

// connect makes a client's handshake on conn and reads the server's byte.
func connect(conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	client := tls.Client(conn, config)
	_, err := client.Read(make([]byte, 1))
	return client, err
}

// handshake joins two configurations and returns how it went for each.
func handshake(server, client *tls.Config) (serverSide, clientSide outcome) {
	near, far := memnet.Pipe() // buffered, so that both can write at once
	defer near.Close()
	defer far.Close()
	done := serve(far, server)
	conn, err := connect(near, client)
	return <-done, outcome{conn.ConnectionState(), err}
}

// load loads p and fails the test if that fails.
func load(t testing.TB, p tlsprops.TlsProperties) *tlsprops.Source {
	t.Helper()
	p.Enabled = true
	source, err := tlsprops.Load(p)
	require.NoError(t, err)
	return source
}

// serverConfig returns a listener's configuration of p.
func serverConfig(t testing.TB, p tlsprops.TlsProperties) *tls.Config {
	t.Helper()
	config, err := load(t, p).ServerConfig()
	require.NoError(t, err)
	return config
}

// clientConfig returns the configuration of p for a connection to host.
func clientConfig(t testing.TB, p tlsprops.TlsProperties, host string) *tls.Config {
	t.Helper()
	config, err := load(t, p).ClientConfig(host)
	require.NoError(t, err)
	return config
}

// pki is a CA with a server's and a client's pair, as files.
type pki struct {
	dir            string
	ca             *testpki.Authority
	server, client *testpki.Pair
	caFile         string
	serverFiles    testpki.Files
	clientFiles    testpki.Files
}

// cas gives every CA a name of its own: servers tell clients whose certificates
// they accept by name.
var cas atomic.Int64

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), ca: testpki.NewCA(t, fmt.Sprintf("Test CA %d", cas.Add(1)))}
	p.server, p.client = p.ca.Server(), p.ca.Client("a client")
	p.caFile = p.ca.Write(p.dir, "ca.crt")
	p.serverFiles = p.server.Write(p.dir, "server")
	p.clientFiles = p.client.Write(p.dir, "client")
	return p
}

// listener returns the properties of a listener without client certificates.
func (p *pki) listener() tlsprops.TlsProperties {
	return tlsprops.TlsProperties{Enabled: true, KeyStorePath: p.serverFiles.Key, CertStorePath: p.serverFiles.Cert}
}

// mutual returns the properties of a listener that requires them.
func (p *pki) mutual() tlsprops.TlsProperties {
	props := p.listener()
	props.TrustStorePath, props.RequireClientCert = p.caFile, true
	return props
}

// trusting returns the properties of a client without a certificate.
func (p *pki) trusting() tlsprops.TlsProperties {
	return tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.caFile}
}

// known returns the properties of a client with one.
func (p *pki) known() tlsprops.TlsProperties {
	props := p.trusting()
	props.KeyStorePath, props.CertStorePath = p.clientFiles.Key, p.clientFiles.Cert
	return props
}

// watch runs source.Watch until the test ends.
func watch(t testing.TB, source *tlsprops.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); source.Watch(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}
