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

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

func TestAHandshakeWarnsOfACertificateFrom60DaysBeforeItExpires(t *testing.T) {
	ca := testpki.NewCA(t, "authority")
	s := serve(t, meshtest.Options{CA: &tls.Certificate{Certificate: [][]byte{ca.Cert.Raw}, PrivateKey: ca.Key}})
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
