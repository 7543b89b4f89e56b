package tlsprops_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/tlsprops"
)

func TestWhatAPeerRefusesIsReadFromItsAlert(t *testing.T) {
	p := newPKI(t)
	stranger := newPKI(t)
	withStranger := stranger.known()
	withStranger.TrustStorePath, withStranger.AlwaysSendClientCert = p.caFile, true
	for name, tc := range map[string]struct {
		server, client *tls.Config
		want           tlsprops.Refusal
	}{
		"no certificate":          {serverConfig(t, p.mutual()), clientConfig(t, p.trusting(), "localhost"), tlsprops.RefusedCertificate},
		"a stranger's":            {serverConfig(t, p.mutual()), clientConfig(t, withStranger, "localhost"), tlsprops.RefusedCertificate},
		"no version in common":    {&tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS13}, &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MaxVersion: tls.VersionTLS12}, tlsprops.RefusedSettings},
		"no protocol in common":   {&tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, NextProtos: []string{"a"}}, &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", NextProtos: []string{"b"}}, tlsprops.RefusedSettings},
		"nothing is the matter":   {serverConfig(t, p.mutual()), clientConfig(t, p.known(), "localhost"), tlsprops.RefusedNothing},
		"we refuse, not the peer": {serverConfig(t, p.listener()), clientConfig(t, stranger.trusting(), "localhost"), tlsprops.RefusedNothing},
	} {
		_, clientSide := handshake(tc.server, tc.client)
		text, what := tlsprops.PeerAlert(fmt.Errorf("wrapped: %w", clientSide.err))
		assert.Equal(t, tc.want, what, "%s: %v", name, clientSide.err)
		assert.Equal(t, tc.want == tlsprops.RefusedNothing, text == "", name)
		if clientSide.err != nil {
			assert.True(t, tlsprops.HandshakeFault(clientSide.err), name)
		}
	}
}

func TestALostConnectionIsNoFaultOfCertificatesOrSettings(t *testing.T) {
	_, refused := net.Dial("tcp", "127.0.0.1:1")
	require.Error(t, refused)
	for _, err := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, context.Canceled, context.DeadlineExceeded, refused} {
		assert.False(t, tlsprops.HandshakeFault(fmt.Errorf("wrapped: %w", err)), "%v", err)
		_, what := tlsprops.PeerAlert(err)
		assert.Equal(t, tlsprops.RefusedNothing, what)
	}
	assert.True(t, tlsprops.HandshakeFault(errors.New("tls: something of its own")))
}
