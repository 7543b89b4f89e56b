package mllp_test

import (
	"crypto/tls"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// IHE ATNA (ITI TF-2, 3.19.6.2.3) lists these suites for TLS 1.2.
func TestTheSuitesOfIHEAreAcceptedAndTLS13IsPreferred(t *testing.T) {
	p, dir := pki(), t.TempDir()
	rsa := p.ca.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost"}, Key: testpki.RSAKey(t, 2048)})
	files := rsa.Write(dir, "rsa")
	for name, tc := range map[string]struct {
		suites  []uint16
		highest uint16
		version uint16
	}{
		"ECDHE_RSA_AES128_GCM_SHA256": {[]uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, tls.VersionTLS12, tls.VersionTLS12},
		"ECDHE_RSA_AES256_GCM_SHA384": {[]uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}, tls.VersionTLS12, tls.VersionTLS12},
		"anything":                    {nil, 0, tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{TLS: &tlsprops.TlsProperties{Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, ReloadInterval: -1}})
				s.clients = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12, MaxVersion: tc.highest, CipherSuites: tc.suites}
				c := s.call()
				c.say(frame(msgA))
				assert.Equal(t, "AA id1", c.hear())
				state := c.Conn.(*tls.Conn).ConnectionState()
				assert.Equal(t, tc.version, state.Version)
				if tc.suites != nil {
					assert.Equal(t, tc.suites[0], state.CipherSuite)
				}
			})
		})
	}
}
