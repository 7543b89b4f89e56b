package meshclient_test

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
	"github.com/carewire/carewire/tlsprops"
)

// stranger gives a client a certificate of an authority that nobody knows.
func stranger(t *testing.T) func(*meshclient.Config) {
	t.Helper()
	files := testpki.NewCA(t, "unknown").Client("stranger").Write(t.TempDir(), "stranger")
	return func(c *meshclient.Config) {
		ca := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(ca, []byte(c.CACert), 0o600))
		c.ClientCert, c.ClientKey, c.CACert = "", "", ""
		c.TLS = &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, TrustStorePath: ca, AlwaysSendClientCert: true,
		}
	}
}

func noCertificate(c *meshclient.Config) { c.ClientCert, c.ClientKey = "", "" }

func TestAClientCertificateThatIsRejectedIsSaidToBeHoweverTheServerSaysIt(t *testing.T) {
	for name, o := range map[string]meshtest.Options{
		"TLS 1.2": {MaxTLS: tls.VersionTLS12}, "TLS 1.3": {}, "a page of HTML": {CertificateByHTTP: true},
	} {
		for who, change := range map[string]func(*meshclient.Config){"stranger": stranger(t), "none": noCertificate} {
			t.Run(name+", "+who, func(t *testing.T) {
				s := serve(t, o)
				_, err := connect(t, s, alice, change).Inbox(bounded(t), nil)
				e := failed(t, err)
				assert.ErrorIs(t, e, meshclient.ErrClientCertificate)
				assert.False(t, e.Retryable())
				assert.False(t, e.MaybeDelivered())
				for range 3 { // what a body does to the alert is a matter of luck
					m := message(noise(4<<20, 1))
					_, err = connect(t, s, alice, change).Send(bounded(t), m)
					e = failed(t, err)
					assert.ErrorIs(t, e, meshclient.ErrClientCertificate, "%v", e)
					assert.False(t, e.Retryable())
					assert.False(t, e.MaybeDelivered())
				}
				assert.Empty(t, s.Waiting(bob))
			})
		}
	}
}

func TestAServerThatCannotBeVerifiedGetsNothing(t *testing.T) {
	s := serve(t, meshtest.Options{})
	other := serve(t, meshtest.Options{})
	for name, change := range map[string]func(*meshclient.Config){
		"unknown root":     func(c *meshclient.Config) { c.CACert = string(other.CA()) },
		"the host's roots": func(c *meshclient.Config) { c.CACert = "" },
		"another name":     func(c *meshclient.Config) { c.BaseURL = "https://mesh.example:" + port(s.URL); c.NetDialer = to(s.URL) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := connect(t, s, alice, change).Send(bounded(t), message([]byte("x")))
			e := failed(t, err)
			_, verification := asType[*tls.CertificateVerificationError](e)
			assert.True(t, verification, "%v", e)
			assert.False(t, e.Retryable())
			assert.False(t, e.MaybeDelivered())
			assert.NotErrorIs(t, e, meshclient.ErrClientCertificate)
		})
	}
	assert.Empty(t, s.Requests())
}

func TestManyRequestsTakeOneHandshake(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := serve(t, meshtest.Options{HTTP2: h2})
		var connections atomic.Int32
		a := connect(t, s, alice, func(c *meshclient.Config) {
			c.Observe = func(e httpsender.Event) {
				if e.Kind == httpsender.EventConnected {
					connections.Add(1)
				}
			}
		})
		for i := range 20 {
			_, err := a.Send(bounded(t), message(noise(1000, uint64(i))))
			require.NoError(t, err)
		}
		assert.Equal(t, int32(1), connections.Load())
	}
}

func TestACertificateThatIsRenewedOnDiskIsUsedWithoutARestart(t *testing.T) {
	s := serve(t, meshtest.Options{})
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path+".new", b, 0o600))
		require.NoError(t, os.Rename(path+".new", path))
		return path
	}
	renew := func() (cert, key string) {
		c, k, err := s.Client(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		require.NoError(t, err)
		both := append(bytes.Clone(c), k...) // in one file, so that they change at once
		return write("client.pem", both), ""
	}
	cert, key := renew()
	rotated := make(chan struct{}, 10)
	a := connect(t, s, alice, func(c *meshclient.Config) {
		c.ClientCert, c.ClientKey, c.CACert = "", "", ""
		c.TLS = &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: cert, CertStorePath: key, TrustStorePath: write("ca.pem", s.CA()), ReloadInterval: 10 * time.Millisecond,
		}
		c.Observe = func(e httpsender.Event) {
			if e.Kind == httpsender.EventRotated {
				rotated <- struct{}{}
			}
		}
	})
	require.NoError(t, a.Handshake(bounded(t)))
	before := a.TLSStatus()
	renew()
	for waiting := true; waiting; {
		select {
		case <-rotated:
			waiting = false
		case <-bounded(t).Done():
			t.Fatal("the new certificate was not noticed")
		default:
			require.NoError(t, a.Handshake(bounded(t)), "no request fails meanwhile")
		}
	}
	require.NoError(t, a.Handshake(bounded(t)))
	assert.NotEqual(t, before, a.TLSStatus())
}

func TestTheFakeTakesTheCallersAuthority(t *testing.T) {
	ca := testpki.NewCA(t, "mine")
	s := serve(t, meshtest.Options{CA: &tls.Certificate{Certificate: [][]byte{ca.Cert.Raw}, PrivateKey: ca.Key}})
	assert.Equal(t, string(ca.PEM()), string(s.CA()))
	require.NoError(t, connect(t, s, alice).Handshake(bounded(t)))
	_, err := meshtest.New(meshtest.Options{CA: &tls.Certificate{}})
	require.Error(t, err)
	_, err = meshtest.New(meshtest.Options{Mailboxes: map[string]string{"a": ""}})
	require.Error(t, err)
}

func TestAClosedClientSaysSo(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	require.NoError(t, a.Handshake(bounded(t)))
	require.NoError(t, a.Close())
	e := failed(t, a.Handshake(bounded(t)))
	assert.ErrorIs(t, e, httpsender.ErrClosed)
	assert.False(t, e.Retryable())
}
