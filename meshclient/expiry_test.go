package meshclient_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
)

func TestAHandshakeWarnsOfACertificateFrom60DaysBeforeItExpires(t *testing.T) {
	ca := testpki.NewCA(t, "authority")
	s := serve(t, meshtest.Options{CA: certificate(ca)})
	for days, warns := range map[int]bool{40: true, 61: false} {
		pair := ca.Issue(testpki.Options{
			CommonName: "client", NotAfter: time.Now().AddDate(0, 0, days).Add(time.Hour), EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		for name, set := range map[string]func(*meshclient.Config){
			"PEM": func(c *meshclient.Config) {
				c.ClientCert, c.ClientKey = string(pair.CertPEM()), string(pair.KeyPEM())
			},
			"files": func(c *meshclient.Config) {
				dir := t.TempDir()
				roots := filepath.Join(dir, "roots.pem")
				require.NoError(t, os.WriteFile(roots, []byte(c.CACert), 0o600))
				files := pair.Write(dir, "client")
				c.ClientCert, c.ClientKey, c.CACert = files.Cert, files.Key, roots
			},
		} {
			var said bytes.Buffer
			c := connect(t, s, bob, set, func(c *meshclient.Config) { c.Logger = everything(&said) })
			require.NoError(t, c.Handshake(bounded(t)), name)
			if warns {
				assert.Contains(t, said.String(), "daysLeft=40", name)
			} else {
				assert.NotContains(t, said.String(), "expires soon", name)
			}
		}
	}
}

func TestAServerWhoseCertificateHasExpiredGetsNothing(t *testing.T) {
	ca := testpki.NewCA(t, "authority")
	now := time.Now()
	for name, row := range map[string]struct {
		from, to time.Time
		says     string
	}{
		"expired":       {now.Add(-48 * time.Hour), now.Add(-time.Hour), "has expired"},
		"not valid yet": {now.Add(time.Hour), now.Add(48 * time.Hour), "not yet valid"},
		"a control":     {now.Add(-time.Hour), now.Add(time.Hour), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				w.WriteHeader(http.StatusAccepted)
				_, _ = w.Write([]byte(`{"message_id":"M1"}`))
			}))
			srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(testpki.Options{
				CommonName: "mesh", Hosts: []string{"127.0.0.1"}, NotBefore: row.from, NotAfter: row.to,
			}).TLS()}}
			srv.StartTLS()
			t.Cleanup(srv.Close)
			attempts := 0
			c := connect(t, serve(t, meshtest.Options{}), alice, func(c *meshclient.Config) {
				c.BaseURL, c.CACert = srv.URL, string(ca.PEM())
				c.Observe = func(e httpsender.Event) {
					if e.Kind == httpsender.EventAttempt {
						attempts++
					}
				}
			})
			_, err := c.Send(bounded(t), message([]byte("x")))
			assert.Equal(t, 1, attempts, "to try again cannot help")
			if row.says == "" {
				require.NoError(t, err)
				return
			}
			e := failed(t, err)
			_, verification := asType[*tls.CertificateVerificationError](e)
			assert.True(t, verification, "%v", e)
			assert.ErrorContains(t, e, row.says)
			assert.False(t, e.Retryable())
			assert.False(t, e.MaybeDelivered())
			assert.NotErrorIs(t, e, meshclient.ErrClientCertificate, "it is the server's")
			assert.Zero(t, asked.Load())
		})
	}
}

// HSCN's servers have such certificates.
func TestAServerThatHasACommonNameAloneIsRefusedWithTheReason(t *testing.T) {
	ca := testpki.NewCA(t, "authority")
	var asked atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(testpki.Options{CommonName: "localhost"}).TLS()}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c := connect(t, serve(t, meshtest.Options{}), alice, func(c *meshclient.Config) {
		c.BaseURL, c.CACert = "https://localhost:"+port(srv.URL), string(ca.PEM())
		c.NetDialer = to(srv.URL)
	})
	_, err := c.Send(bounded(t), message([]byte("x")))
	e := failed(t, err)
	assert.ErrorContains(t, e, "legacy Common Name field, use SANs instead")
	assert.False(t, e.Retryable())
	assert.False(t, e.MaybeDelivered())
	assert.Zero(t, asked.Load())
}
