package mllp_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// patience bounds the waits of tests with real files and sockets.
const patience = 30 * time.Second

// replace writes a file as a careful program does.
func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", data, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// secured is a Server on a real port whose TLS files change.
type secured struct {
	t           *testing.T
	addr        string
	trust, crl  string // files
	first, next *testpki.Authority
	events      chan mllp.Event // closed, and handshake_failed
	loaded      chan struct{}   // a later generation of files
	release     chan struct{}   // ends the handling of the message "slow"
	handling    chan struct{}   // the message "slow" has come
}

// secure starts a Server that trusts two authorities.
func secure(t *testing.T, recheck bool) *secured {
	t.Helper()
	p, dir := pki(), t.TempDir()
	s := &secured{
		t: t, trust: filepath.Join(dir, "trust"), crl: filepath.Join(dir, "crl"), first: testpki.NewCA(t, "First CA"), next: testpki.NewCA(t, "Next CA"),
		events: make(chan mllp.Event, 100), loaded: make(chan struct{}, 100), release: make(chan struct{}), handling: make(chan struct{}, 1),
	}
	replace(t, s.trust, slices.Concat(s.first.PEM(), s.next.PEM()))
	replace(t, s.crl, slices.Concat(s.first.CRL(testpki.CRLOptions{})))
	files := p.server.Write(dir, "server")
	srv := &mllp.Server{
		TLS: &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, TrustStorePath: s.trust,
			RequireClientCert: true, CRLPaths: []string{s.crl}, CRLCheck: "soft", ReloadInterval: 10 * time.Millisecond,
			Observe: func(e tlsprops.Event) {
				if e.Kind == tlsprops.Loaded && e.Generation > 1 {
					s.loaded <- struct{}{}
				}
			},
		},
		RecheckClients: recheck,
		Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			if string(r.Header.ControlID) == "slow" {
				s.handling <- struct{}{}
				<-s.release
			}
			return nil, nil
		}),
		Observe: func(e mllp.Event) {
			if e.Kind == mllp.EventClosed || e.Kind == mllp.EventHandshakeFailed {
				s.events <- e
			}
		},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	t.Cleanup(func() {
		require.NoError(t, srv.Close())
		<-served
	})
	return s
}

// dial connects with a certificate, and sends a message if it can.
func (s *secured) dial(pair *testpki.Pair, sessions tls.ClientSessionCache) (*tls.Conn, error) {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.addr, &tls.Config{
		RootCAs: pki().ca.Pool(), ClientSessionCache: sessions,
		// Certificates would leave one out that the server will not accept.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(pair.TLS()), nil },
	})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	require.NoError(s.t, c.SetDeadline(time.Now().Add(patience)))
	return c, ask(c, "id1")
}

// ask sends a message and waits for its answer.
func ask(c *tls.Conn, id string) error {
	if _, err := c.Write([]byte(frame(string(adt(id))))); err != nil {
		return err
	}
	_, err := mllp.NewReader(c, 0).Next()
	return err
}

// event waits for the next one.
func (s *secured) event() mllp.Event {
	s.t.Helper()
	select {
	case e := <-s.events:
		return e
	case <-time.After(patience):
		require.Fail(s.t, "no connection was closed")
	}
	return mllp.Event{}
}

// reloaded waits until the Server has taken up the files as they are.
func (s *secured) reloaded() {
	s.t.Helper()
	select {
	case <-s.loaded:
	case <-time.After(patience):
		require.Fail(s.t, "the files were not loaded")
	}
}

func TestConnectionsWhoseAuthorityIsWithdrawnAreEndedWhereThatIsAskedFor(t *testing.T) {
	s := secure(t, true)
	one, two := s.first.Client("one"), s.next.Client("two")
	idle, err := s.dial(one, nil)
	require.NoError(t, err)
	other, err := s.dial(two, nil)
	require.NoError(t, err)
	replace(t, s.trust, s.next.PEM())
	e := s.event()
	assert.Equal(t, mllp.ReasonTLSWithdrawn, e.Reason)
	assert.Equal(t, "CN=one", e.Certificate.Subject)
	assert.NotEmpty(t, e.Certificate.Serial)
	assert.Equal(t, idle.LocalAddr().String(), e.RemoteAddr.String())
	assert.Error(t, ask(idle, "id2"))
	assert.NoError(t, ask(other, "id2"), "the others go on")
}

func TestAMessageInHandIsAnsweredBeforeARevokedClientIsEnded(t *testing.T) {
	s := secure(t, true)
	client := s.first.Client("one")
	c, err := s.dial(client, nil)
	require.NoError(t, err)
	_, err = c.Write([]byte(frame(string(adt("slow"))) + frame(string(adt("id2")))))
	require.NoError(t, err)
	<-s.handling
	replace(t, s.crl, s.first.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{client}, Number: 2}))
	s.reloaded()
	// The reload is told before clients are looked at; the next one, after.
	replace(t, s.crl, s.first.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{client}, Number: 3}))
	s.reloaded()
	close(s.release)
	frames := mllp.NewReader(c, 0)
	text, err := frames.Next()
	require.NoError(t, err)
	ack, err := mllp.ParseAck(text)
	require.NoError(t, err)
	assert.Equal(t, "slow", ack.ControlID)
	_, err = frames.Next()
	assert.Error(t, err, "what came after it is not taken")
	assert.Equal(t, mllp.ReasonTLSWithdrawn, s.event().Reason)
}

func TestConnectionsGoOnAfterTheirAuthorityIsWithdrawnButNewAndResumedOnesAreRefused(t *testing.T) {
	s := secure(t, false)
	one, sessions := s.first.Client("one"), tls.NewLRUClientSessionCache(1)
	c, err := s.dial(one, sessions)
	require.NoError(t, err)
	again, err := s.dial(one, sessions)
	require.NoError(t, err)
	require.True(t, again.ConnectionState().DidResume, "the control: sessions are resumed")
	replace(t, s.trust, s.next.PEM())
	s.reloaded()
	_, err = s.dial(one, sessions)
	assert.Error(t, err)
	assert.Equal(t, mllp.ReasonTLSUnknownAuthority, s.event().Reason)
	assert.NoError(t, ask(c, "id2"))
}

func TestAnExpiredServerCertificateStopsTheStartUnlessForced(t *testing.T) {
	p, dir := pki(), t.TempDir()
	old := p.ca.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-time.Hour)})
	files := old.Write(dir, "old")
	srv := func(force bool) *mllp.Server {
		return &mllp.Server{
			Addr: "127.0.0.1:0", TLS: &tlsprops.TlsProperties{Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, AllowExpired: force},
			Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
		}
	}
	err := srv(false).ListenAndServe(t.Context())
	assert.ErrorContains(t, err, "mllp: Server.TLS: tlsprops: certStorePath "+files.Cert+": the certificate expired at")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	assert.ErrorIs(t, srv(true).ListenAndServe(ctx), mllp.ErrServerClosed, "it gets as far as listening")
}

func TestACertificateThatExpiresSoonIsToldAndLogged(t *testing.T) {
	p, dir := pki(), t.TempDir()
	soon := p.ca.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost"}, NotAfter: time.Now().Add(10 * 24 * time.Hour)})
	files := soon.Write(dir, "soon")
	told := make(chan tlsprops.Event, 10)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &site{t: t}
	srv := &mllp.Server{
		TLS: &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert,
			Observe: func(e tlsprops.Event) { told <- e },
		},
		Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
		Logger:  textLogger(s),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	assert.Equal(t, tlsprops.Loaded, (<-told).Kind)
	e := <-told
	assert.Equal(t, tlsprops.Expiring, e.Kind)
	assert.InDelta(t, 10*24, e.Left.Hours(), 1)
	require.NoError(t, srv.Close())
	<-served
	assert.Contains(t, s.log.String(), "certificate expires", "by the Server's logger, because TLS has none")
}
