package dicomtls_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

func TestCertificatesAreToldWithoutAServer(t *testing.T) {
	t.Parallel()
	ca, dir := testpki.NewCA(t, "Test CA"), t.TempDir()
	pair, root := ca.Server().Write(dir, "server"), ca.Write(dir, "ca")
	p := dicomtls.Properties{TLS: dicomtls.ModeAES, KeyStore: pair.Key, CertStore: pair.Cert, TrustStore: root}
	source, err := p.Load(tlsprops.Listener)
	require.NoError(t, err)
	assert.Len(t, source.Status().Certificates, 2, "the leaf and the CA")

	_, err = new(dicomtls.Properties).Load(tlsprops.Listener)
	require.ErrorIs(t, err, tlsprops.ErrDisabled)
	p.KeyStore = dir + "/nowhere"
	_, err = p.Load(tlsprops.Listener)
	var field *dicomtls.FieldError
	require.ErrorAs(t, err, &field)
	assert.Equal(t, "keyStore", field.Field)
}
