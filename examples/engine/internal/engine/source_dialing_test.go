package engine_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// station is a system that waits for the engine to connect, and then sends.
type station struct {
	t  *testing.T
	ln net.Listener
}

func newStation(t *testing.T, cfg *tls.Config) *station {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	if cfg != nil {
		ln = tls.NewListener(ln, cfg)
	}
	t.Cleanup(func() { ln.Close() })
	return &station{t, ln}
}

// channel is one whose source connects to the station.
func (s *station) channel(dir string, props *tlsprops.TlsProperties) config.Channel {
	ch := channel("adt", toFile("archive", dir))
	ch.Source.TCP = &config.TCPSource{ServerMode: "CLIENT", RemoteAddress: "127.0.0.1", RemotePort: s.ln.Addr().(*net.TCPAddr).Port, TLS: props}
	return ch
}

func (s *station) accept() net.Conn {
	s.t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := s.ln.Accept(); err == nil {
			accepted <- conn
		}
	}()
	select {
	case conn := <-accepted:
		s.t.Cleanup(func() { conn.Close() })
		return conn
	case <-time.After(patience):
		s.t.Fatalf("the engine has not connected in %v", patience)
		return nil
	}
}

// sends sends a message that must be acknowledged with AA.
func (s *station) sends(conn net.Conn, id string) {
	s.t.Helper()
	_, err := conn.Write(frame(s.t, message(id)))
	require.NoError(s.t, err)
	require.NoError(s.t, conn.SetReadDeadline(time.Now().Add(patience)))
	reply, err := mllp.NewReader(conn, 0).Next()
	require.NoError(s.t, err)
	ack, err := mllp.ParseAck(reply)
	require.NoError(s.t, err)
	require.Equal(s.t, mllp.AA, ack.Code)
	require.Equal(s.t, id, ack.ControlID)
}

func TestSourceConnectsAndReceivesOverTheConnection(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	pair, err := tls.LoadX509KeyPair(p.server().CertStorePath, p.server().KeyStorePath)
	require.NoError(t, err)
	for name, cfg := range map[string]*tls.Config{"plain": nil, "mutual TLS": {
		Certificates: []tls.Certificate{pair}, ClientCAs: p.ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, dir := newStation(t, cfg), t.TempDir()
			var props *tlsprops.TlsProperties
			if cfg != nil {
				props = p.client()
			}
			e := start(t, openStore(t, t.TempDir()), s.channel(dir, props))
			conn := s.accept()
			s.sends(conn, "M1")
			s.sends(conn, "M2")
			status, err := e.Status(t.Context(), "adt")
			require.NoError(t, err)
			assert.Equal(t, map[bool]string{true: "MLLPS", false: "MLLP"}[cfg != nil], status.Listener.Transport)
			assert.Equal(t, 1, status.Listener.Connections)
			assert.Equal(t, s.ln.Addr().(*net.TCPAddr).Port, status.Listener.Port)

			for _, id := range []string{"M3", "M4"} { // it comes back, each time
				require.NoError(t, conn.Close())
				conn = s.accept()
				s.sends(conn, id)
			}
			eventually(t, "all messages are filed", func() bool { return len(filed(t, dir)) == 4 })
			assert.Equal(t, []string{"M1", "M2", "M3", "M4"}, filedIDs(t, dir))

			require.NoError(t, e.StopChannel(t.Context(), "adt"))
			assert.Empty(t, closed(t, conn), "the connection ends with the channel")
			require.NoError(t, e.StartChannel(t.Context(), "adt"))
			s.sends(s.accept(), "M5")
		})
	}
}

// A station that does not work yet is no reason not to start.
func TestSourceGoesOnTryingToConnect(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	pair, err := tls.LoadX509KeyPair(p.server().CertStorePath, p.server().KeyStorePath)
	require.NoError(t, err)
	s := newStation(t, nil)
	e := start(t, openStore(t, t.TempDir()), s.channel(t.TempDir(), p.client()))
	state, err := e.State("adt")
	require.NoError(t, err)
	assert.Equal(t, engine.Started, state)
	for range 2 {
		require.NoError(t, s.accept().Close()) // in the middle of the handshake
	}
	conn := tls.Server(s.accept(), &tls.Config{Certificates: []tls.Certificate{pair}})
	s.sends(conn, "M1")
	assert.EqualValues(t, 1, e.stats("adt").Received)
	assert.Equal(t, 1, e.log.count("level=WARN msg=\"cannot connect to the sender"), "it is said, once")
}

func TestSourceDoesNotReceiveFromWhomItDoesNotTrust(t *testing.T) {
	t.Parallel()
	p, stranger := newPKI(t), newPKI(t)
	pair, err := tls.LoadX509KeyPair(stranger.server().CertStorePath, stranger.server().KeyStorePath)
	require.NoError(t, err)
	s := newStation(t, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: x509.NewCertPool()})
	e := start(t, openStore(t, t.TempDir()), s.channel(t.TempDir(), p.client()))
	conn := s.accept()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Write(frame(t, message("M1")))
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	require.Error(t, err)
	eventually(t, "it is said", func() bool { return e.log.count("cannot connect to the sender") > 0 })
	assert.Zero(t, e.stats("adt").Received)
	assert.False(t, bytes.Contains([]byte(e.log.String()), []byte("Patient")))
}

func TestSourceWhoseTLSFilesAreGoneDoesNotConnect(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	s := newStation(t, nil)
	props := p.client()
	props.TrustStorePath += ".gone"
	cfg := &config.Config{Channels: []config.Channel{s.channel(t.TempDir(), props)}}
	e := engine.New(cfg, openStore(t, t.TempDir()), engine.Options{})
	require.ErrorContains(t, e.StartSources(t.Context()), "trustStorePath")
}
