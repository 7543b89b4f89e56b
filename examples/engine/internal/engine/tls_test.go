package engine_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// serial returns the serial number of the certificate that addr shows.
func serial(t *testing.T, addr string, p *pki) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.client().CertStorePath, p.client().KeyStorePath)
	require.NoError(t, err)
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: p.ca.Pool(), Certificates: []tls.Certificate{pair}, ServerName: "localhost"}}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestCertificateIsExchangedWithoutARestart(t *testing.T) {
	p := newPKI(t)
	ch := channel("adt", toFile("archive", t.TempDir()))
	ch.Source.TCP.TLS = p.server()
	e := start(t, openStore(t, t.TempDir()), ch)
	addr := e.addr("adt")
	old := dial(t, addr, p.client())
	send(t, old, "M1")
	first := serial(t, addr, p)

	p.ca.Server().Write(p.dir, "server")
	eventually(t, "the new certificate is shown", func() bool { return serial(t, addr, p) != first })
	second := serial(t, addr, p)
	send(t, old, "M2") // connections in hand go on
	send(t, dial(t, addr, p.client()), "M3")

	// A broken replacement keeps the old set, and says so.
	require.NoError(t, os.WriteFile(p.server().CertStorePath, []byte("-----BEGIN CERTIFICATE-----\nhalf"), 0o600))
	eventually(t, "a complaint", func() bool { return strings.Contains(e.log.String(), "certStorePath") })
	assert.Equal(t, second, serial(t, addr, p))
	send(t, dial(t, addr, p.client()), "M4")
	assert.Equal(t, int64(4), e.stats("adt").Received)
}

func TestAListenerServesFromAJavaKeyStore(t *testing.T) {
	stores := filepath.Join("..", "..", "..", "..", "keystore", "testdata", "stores")
	ch := channel("adt", toFile("archive", t.TempDir()))
	ch.Source.TCP.TLS = &tlsprops.TlsProperties{Enabled: true, KeyStorePath: filepath.Join(stores, "mirth.jks"), Passphrase: "KqVh3TtYwR8a", KeyPassphrase: "Zx81mPnLcD0e"}
	e := start(t, openStore(t, t.TempDir()), ch)
	client := &tlsprops.TlsProperties{Enabled: true, TrustStorePath: filepath.Join("..", "..", "..", "..", "keystore", "testdata", "pki", "root.crt"), SniServerName: "localhost"}
	send(t, dial(t, e.addr("adt"), client), "M1")
	assert.Equal(t, int64(1), e.stats("adt").Received)
}

func TestClientsWithoutATrustedCertificateAreTurnedAway(t *testing.T) {
	p, stranger := newPKI(t), newPKI(t)
	ch := channel("adt", toFile("archive", t.TempDir()))
	ch.Source.TCP.TLS = p.server()
	e := start(t, openStore(t, t.TempDir()), ch)
	addr := e.addr("adt")

	none := p.client()
	none.CertStorePath, none.KeyStorePath = "", ""
	wrong := stranger.client()
	wrong.TrustStorePath = p.client().TrustStorePath
	for name, d := range map[string]*mllp.Dialer{
		"plain": {Timeout: 2 * time.Second}, "no certificate": {TLS: none}, "another authority's": {TLS: wrong},
	} {
		conn, err := d.DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_, err = conn.Send(t.Context(), message("X1"))
			conn.Close()
		}
		assert.Error(t, err, name)
	}
	assert.Zero(t, e.stats("adt").Received)
	send(t, dial(t, addr, p.client()), "M1") // and the port works on
}

func TestChannelWhoseTLSFilesAreGoneDoesNotStart(t *testing.T) {
	p := newPKI(t)
	ch := channel("adt", toFile("archive", t.TempDir()))
	ch.Source.TCP.TLS = p.server()
	e := start(t, openStore(t, t.TempDir()), ch)
	addr := e.addr("adt")
	require.NoError(t, e.StopChannel(t.Context(), "adt"))
	require.NoError(t, os.Remove(filepath.Join(p.dir, "ca.crt")))

	err := e.StartChannel(t.Context(), "adt")
	require.ErrorContains(t, err, "trustStorePath")
	_, err = new(mllp.Dialer).DialContext(t.Context(), "tcp", addr)
	require.Error(t, err, "and never in plaintext")

	p.ca.Write(p.dir, "ca.crt")
	require.NoError(t, e.StartChannel(t.Context(), "adt"))
	send(t, dial(t, addr, p.client()), "M1")
}

// With the files of two authorities in a client's trust store, both are served:
// the way a change of authority goes without an interruption.
func TestAuthorityIsExchangedWithoutARestart(t *testing.T) {
	p, next := newPKI(t), testpki.NewCA(t, "Next CA")
	ch := channel("adt", toFile("archive", t.TempDir()))
	ch.Source.TCP.TLS = p.server()
	e := start(t, openStore(t, t.TempDir()), ch)
	next.Client("New ward").Write(p.dir, "new")
	fresh := p.pair("new")
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "ca.crt"), append(p.ca.PEM(), next.PEM()...), 0o600))
	eventually(t, "the new authority's clients are let in", func() bool {
		conn, err := (&mllp.Dialer{TLS: fresh}).DialContext(t.Context(), "tcp", e.addr("adt"))
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = conn.Send(t.Context(), message("M1"))
		return err == nil
	})
	send(t, dial(t, e.addr("adt"), p.client()), "M2")
}
