package mllp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// tlsPeer accepts TLS connections on an in-memory network with config, and
// answers every message. Its own errors are for the Conn to report.
func tlsPeer(t *testing.T, config *tls.Config) *memnet.Listener {
	ln := memnet.Listen()
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				secured := tls.Server(nc, config)
				if secured.HandshakeContext(context.Background()) != nil {
					return
				}
				frames := mllp.NewReader(secured, 0)
				for {
					msg, err := frames.Next()
					if err != nil {
						return
					}
					var h mllp.Header
					if h.Parse(msg) != nil {
						return
					}
					if _, err := io.WriteString(secured, answer(mllp.AA, string(h.ControlID))); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln
}

func TestMessagesGoOverEveryKindOfTLS(t *testing.T) {
	for name, tt := range map[string]struct {
		version uint16
		mutual  bool
	}{
		"TLS 1.2":         {tls.VersionTLS12, false},
		"TLS 1.3":         {tls.VersionTLS13, false},
		"mutual, TLS 1.2": {tls.VersionTLS12, true},
		"mutual, TLS 1.3": {tls.VersionTLS13, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := testpki.NewCA(t, "CA")
				server := &tls.Config{Certificates: []tls.Certificate{ca.Server("receiver").TLS()}, MaxVersion: tt.version}
				client := &tls.Config{RootCAs: ca.Pool()}
				if tt.mutual {
					server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
					client.Certificates = []tls.Certificate{ca.Client("sender").TLS()}
				}
				ln := tlsPeer(t, server)
				var count *countWrites
				d := &mllp.Dialer{TLSConfig: client, NetDialer: dialFunc(func(context.Context) (net.Conn, error) {
					nc, err := ln.Dial()
					count = &countWrites{Conn: nc}
					return count, err
				})}
				assert.Equal(t, "MLLPS", d.Transport())
				c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
				require.NoError(t, err)
				defer c.Close()
				state, secured := c.ConnectionState()
				require.True(t, secured)
				assert.Equal(t, tt.version, state.Version)
				assert.Empty(t, client.ServerName, "the caller's configuration is not written to")
				for _, id := range []string{"M1", "M2"} {
					before := count.n
					_, err = c.Send(t.Context(), adt(id))
					require.NoError(t, err)
					assert.Equal(t, before+1, count.n, "one write, one record for a message")
				}
			})
		})
	}
}

func TestAFrameLeavesInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memnet.Listen()
		defer ln.Close()
		var count *countWrites
		d := &mllp.Dialer{NetDialer: dialFunc(func(context.Context) (net.Conn, error) {
			nc, err := ln.Dial()
			count = &countWrites{Conn: nc}
			return count, err
		})}
		c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
		require.NoError(t, err)
		defer c.Close()
		nc, err := ln.Accept()
		require.NoError(t, err)
		defer nc.Close()
		ch := send(t.Context(), c, append(adt("M1"), make([]byte, 8<<10)...))
		io.WriteString(nc, answer(mllp.AA, "M1"))
		require.NoError(t, (<-ch).err)
		assert.Equal(t, 1, count.n)
	})
}

func TestAServerThatIsNotTrustedGetsNoMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := testpki.NewCA(t, "CA"), testpki.NewCA(t, "Other CA")
		day := 24 * time.Hour
		for name, server := range map[string]tls.Certificate{
			"another authority": other.Server("receiver").TLS(),
			"another name":      ca.Server("sender").TLS(),
			"expired":           ca.Issue(testpki.Options{Hosts: []string{"receiver"}, NotAfter: time.Now().Add(-day)}).TLS(),
			"not yet valid":     ca.Issue(testpki.Options{Hosts: []string{"receiver"}, NotBefore: time.Now().Add(day)}).TLS(),
			"a client's":        ca.Issue(testpki.Options{Hosts: []string{"receiver"}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}).TLS(),
		} {
			ln := tlsPeer(t, &tls.Config{Certificates: []tls.Certificate{server}})
			d := &mllp.Dialer{NetDialer: ln, TLSConfig: &tls.Config{RootCAs: ca.Pool()}}
			c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
			assert.Nil(t, c, name)
			assert.False(t, failed(t, err, mllp.NotSent).Retryable(), name)
			var verification *tls.CertificateVerificationError
			require.ErrorAs(t, err, &verification, name)
		}
	})
}

func TestAServerIsKnownByItsIPAddressWithoutSNI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA(t, "CA")
		sni := "none seen"
		config := &tls.Config{Certificates: []tls.Certificate{ca.Server("192.0.2.1").TLS()}}
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			sni = hello.ServerName
			return nil, nil
		}
		d := &mllp.Dialer{NetDialer: tlsPeer(t, config), TLSConfig: &tls.Config{RootCAs: ca.Pool()}}
		c, err := d.DialContext(t.Context(), "tcp", "192.0.2.1:2575")
		require.NoError(t, err)
		defer c.Close()
		assert.Empty(t, sni)
		_, err = d.DialContext(t.Context(), "tcp", "192.0.2.2:2575")
		assert.False(t, failed(t, err, mllp.NotSent).Retryable())
	})
}

func TestAPeerThatDoesNotSpeakOurTLSIsNotRetryable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA(t, "CA")
		ln := tlsPeer(t, &tls.Config{Certificates: []tls.Certificate{ca.Server("receiver").TLS()}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		d := &mllp.Dialer{NetDialer: ln, TLSConfig: &tls.Config{RootCAs: ca.Pool()}}
		_, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
		assert.False(t, failed(t, err, mllp.NotSent).Retryable(), "an old version: %v", err)

		plain := memnet.Listen()
		defer plain.Close()
		go func() {
			nc, err := plain.Accept()
			if err == nil {
				nc.Read(make([]byte, 4096))
				io.WriteString(nc, answer(mllp.AR, ""))
				nc.Close()
			}
		}()
		d = &mllp.Dialer{NetDialer: plain, TLSConfig: &tls.Config{RootCAs: ca.Pool()}}
		_, err = d.DialContext(t.Context(), "tcp", "receiver:2575")
		assert.False(t, failed(t, err, mllp.NotSent).Retryable(), "no TLS at all: %v", err)
	})
}

func TestAHandshakeIsBoundedAndItsBreakingIsRetryable(t *testing.T) {
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	for name, tt := range map[string]struct {
		timeout, ctx, want time.Duration
	}{
		"by default":            {0, time.Hour, 10 * time.Second},
		"by HandshakeTimeout":   {3 * time.Second, time.Hour, 3 * time.Second},
		"by an earlier context": {3 * time.Second, time.Second, time.Second},
		"by a context alone":    {-1, time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				silent := memnet.Listen()
				defer silent.Close()
				ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
				defer cancel()
				start := time.Now()
				d := &mllp.Dialer{NetDialer: silent, TLSConfig: config, HandshakeTimeout: tt.timeout}
				_, err := d.DialContext(ctx, "tcp", "receiver:2575")
				assert.True(t, failed(t, err, mllp.NotSent).Retryable())
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, tt.want, time.Since(start))
			})
		})
	}
	for name, end := range map[string]func(*memnet.Conn){
		"closed": func(c *memnet.Conn) { c.Read(make([]byte, 4096)); c.Close() },
		"reset":  func(c *memnet.Conn) { c.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := memnet.Listen()
				defer ln.Close()
				go func() {
					if nc, err := ln.Accept(); err == nil {
						end(nc.(*memnet.Conn))
					}
				}()
				_, err := (&mllp.Dialer{NetDialer: ln, TLSConfig: config}).DialContext(t.Context(), "tcp", "receiver:2575")
				assert.True(t, failed(t, err, mllp.NotSent).Retryable(), "%v", err)
			})
		})
	}
}

// rejecting is a server that wants client certificates of its authority.
func rejecting(t *testing.T, version uint16) (server *tls.Config, ca *testpki.Authority) {
	ca = testpki.NewCA(t, "CA")
	return &tls.Config{
		Certificates: []tls.Certificate{ca.Server("receiver").TLS()}, MaxVersion: version,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}, ca
}

func TestARejectedClientCertificateIsPermanent(t *testing.T) {
	for name, certificate := range map[string]func(t *testing.T, ca *testpki.Authority) []tls.Certificate{
		"none": func(*testing.T, *testpki.Authority) []tls.Certificate { return nil },
		"another authority's": func(t *testing.T, _ *testpki.Authority) []tls.Certificate {
			return []tls.Certificate{testpki.NewCA(t, "CA").Client("sender").TLS()} // of the same name, so that it is sent
		},
		"expired": func(_ *testing.T, ca *testpki.Authority) []tls.Certificate {
			return []tls.Certificate{ca.Issue(testpki.Options{CommonName: "sender", NotAfter: time.Now().Add(-time.Hour)}).TLS()}
		},
	} {
		t.Run(name+", TLS 1.2: DialContext fails", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, ca := rejecting(t, tls.VersionTLS12)
				d := &mllp.Dialer{NetDialer: tlsPeer(t, server), TLSConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: certificate(t, ca)}}
				_, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
				if name != "none" { // for which TLS 1.2 has no word but "handshake failure"
					require.ErrorIs(t, err, mllp.ErrPeerRejectedCertificate)
				}
				assert.False(t, failed(t, err, mllp.NotSent).Retryable())
			})
		})
		t.Run(name+", TLS 1.3: the Conn has ended before Send", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, ca := rejecting(t, tls.VersionTLS13)
				d := &mllp.Dialer{NetDialer: tlsPeer(t, server), TLSConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: certificate(t, ca)}}
				c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
				require.NoError(t, err)
				synctest.Wait()
				require.ErrorIs(t, c.Err(), mllp.ErrPeerRejectedCertificate)
				_, err = c.Send(t.Context(), adt("M1"))
				assert.False(t, failed(t, err, mllp.NotSent).Retryable())
				require.ErrorIs(t, err, mllp.ErrPeerRejectedCertificate)
			})
		})
		t.Run(name+", TLS 1.3: Send was faster than the alert", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, ca := rejecting(t, tls.VersionTLS13)
				ln := memnet.Listen()
				defer ln.Close()
				d := &mllp.Dialer{NetDialer: ln, TLSConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: certificate(t, ca)}}
				sent := make(chan struct{})
				go func() {
					nc, err := ln.Accept()
					if err != nil {
						return
					}
					// The last flight of the handshake, and with it the client's
					// certificate, is seen only when the message is there too.
					gate := &gatedConn{Conn: nc, after: 1, open: sent}
					tls.Server(gate, server).HandshakeContext(context.Background())
					nc.Close()
				}()
				c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
				require.NoError(t, err)
				ch := send(t.Context(), c, adt("M1"))
				close(sent)
				s := <-ch
				require.ErrorIs(t, s.err, mllp.ErrPeerRejectedCertificate)
				e := failed(t, s.err, mllp.Unknown)
				assert.False(t, e.Retryable(), "another try would meet the same end")
			})
		})
	}
}

func TestARejectionIsHeardAlsoWhereWritingFailsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, ca := rejecting(t, tls.VersionTLS13)
		ln := memnet.Listen()
		defer ln.Close()
		writeFailed := make(chan struct{})
		go func() {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			tls.Server(&gatedConn{Conn: nc, after: 1, open: writeFailed}, server).HandshakeContext(context.Background())
			nc.Close()
		}()
		broken := &brokenPipe{failed: writeFailed}
		d := &mllp.Dialer{TLSConfig: &tls.Config{RootCAs: ca.Pool()}, NetDialer: dialFunc(func(context.Context) (nc net.Conn, err error) {
			broken.Conn, err = ln.Dial()
			return broken, err
		})}
		c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
		require.NoError(t, err)
		broken.now.Store(true)
		_, err = c.Send(t.Context(), adt("M1"))
		require.ErrorIs(t, err, mllp.ErrPeerRejectedCertificate)
		assert.False(t, failed(t, err, mllp.NotSent).Retryable())
	})
}

// brokenPipe fails to write once now is set, and closes failed then.
type brokenPipe struct {
	net.Conn
	now    atomic.Bool
	failed chan struct{}
}

func (c *brokenPipe) Write(p []byte) (int, error) {
	if c.now.Swap(false) {
		close(c.failed)
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

// gatedConn lets after reads through, and the others when open is closed.
type gatedConn struct {
	net.Conn
	after int
	open  chan struct{}
	buf   []byte
}

func (c *gatedConn) Read(p []byte) (int, error) {
	if len(c.buf) == 0 {
		if c.after--; c.after < 0 {
			<-c.open
		}
		c.buf = make([]byte, 64<<10)
		n, err := c.Conn.Read(c.buf)
		if c.buf = c.buf[:n]; err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}

func TestClosingOverTLSSaysFarewell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA(t, "CA")
		ln := memnet.Listen()
		defer ln.Close()
		ended := make(chan error, 1)
		go func() {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			defer nc.Close()
			secured := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{ca.Server("receiver").TLS()}})
			_, err = secured.Read(make([]byte, 1))
			ended <- err
		}()
		c, err := (&mllp.Dialer{NetDialer: ln, TLSConfig: &tls.Config{RootCAs: ca.Pool()}}).DialContext(t.Context(), "tcp", "receiver:2575")
		require.NoError(t, err)
		require.NoError(t, c.Close())
		assert.Equal(t, io.EOF, <-ended)
		assert.NotErrorIs(t, c.Err(), os.ErrDeadlineExceeded)
	})
}

func TestTheDialersTLSPropertiesAreHonoured(t *testing.T) {
	ca, other := testpki.NewCA(t, "CA"), testpki.NewCA(t, "Other CA")
	dir := t.TempDir()
	trust, client := ca.Write(dir, "ca.crt"), ca.Client("sender").Write(dir, "client")
	server := &tls.Config{
		Certificates: []tls.Certificate{ca.Server("receiver").TLS()},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}
	mutual := tlsprops.TlsProperties{Enabled: true, TrustStorePath: trust, KeyStorePath: client.Key, CertStorePath: client.Cert}

	t.Run("mutual TLS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := &mllp.Dialer{NetDialer: tlsPeer(t, server), TLS: &mutual}
			assert.Equal(t, "MLLPS", d.Transport())
			for range 2 {
				c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
				require.NoError(t, err)
				_, err = c.Send(t.Context(), adt("M1"))
				require.NoError(t, err)
				require.NoError(t, c.Close())
			}
		})
	})
	for name, change := range map[string]func(*tlsprops.TlsProperties){
		"a name that the certificate has not": func(p *tlsprops.TlsProperties) { p.SniServerName = "elsewhere" },
		"a pin that does not fit":             func(p *tlsprops.TlsProperties) { p.Pins = []string{other.Server("receiver").Pin()} },
		"a missing file":                      func(p *tlsprops.TlsProperties) { p.TrustStorePath += "x" },
		"a setting for listeners":             func(p *tlsprops.TlsProperties) { p.RequireClientCert = true },
		"files, but not enabled":              func(p *tlsprops.TlsProperties) { p.Enabled = false },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mutual
				change(&p)
				d := &mllp.Dialer{NetDialer: tlsPeer(t, server), TLS: &p}
				c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
				assert.Nil(t, c)
				assert.False(t, failed(t, err, mllp.NotSent).Retryable(), "%v", err)
			})
		})
	}
	t.Run("disabled and empty means no TLS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := dial(t, &mllp.Dialer{TLS: &tlsprops.TlsProperties{}})
			_, secured := c.ConnectionState()
			assert.False(t, secured)
		})
	})
	t.Run("TLSConfig replaces them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := &mllp.Dialer{
				NetDialer: tlsPeer(t, server), TLS: &tlsprops.TlsProperties{TrustStorePath: "does not exist"},
				TLSConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client("sender").TLS()}},
			}
			assert.Equal(t, "MLLPS", d.Transport())
			c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
			require.NoError(t, err)
			c.Close()
		})
	})
}

func TestANewCertificateIsUsedForTheNextConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA(t, "CA")
		dir := t.TempDir()
		var seen string
		server := &tls.Config{
			Certificates: []tls.Certificate{ca.Server("receiver").TLS()},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
			VerifyConnection: func(state tls.ConnectionState) error {
				seen = state.PeerCertificates[0].Subject.CommonName
				return nil
			},
		}
		files := ca.Client("first").Write(dir, "client")
		d := &mllp.Dialer{NetDialer: tlsPeer(t, server), TLS: &tlsprops.TlsProperties{
			Enabled: true, TrustStorePath: ca.Write(dir, "ca.crt"), KeyStorePath: files.Key, CertStorePath: files.Cert,
		}}
		connect := func() *mllp.Conn {
			c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
			require.NoError(t, err)
			_, err = c.Send(t.Context(), adt("M1"))
			require.NoError(t, err)
			return c
		}
		old := connect()
		defer old.Close()
		assert.Equal(t, "first", seen)
		ca.Client("second").Write(dir, "client")
		time.Sleep(11 * time.Second)
		connect().Close()
		assert.Equal(t, "second", seen)
		_, err := old.Send(t.Context(), adt("M2"))
		require.NoError(t, err, "connections in hand go on")
	})
}
