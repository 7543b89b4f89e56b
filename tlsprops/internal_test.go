package tlsprops

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
)

func TestAFileMountedByItselfIsFound(t *testing.T) {
	table := []byte("36 35 98:0 / / rw,noatime master:1 - ext3 /dev/root rw\n" +
		"37 36 0:5 /tls.crt /etc/certs/tls.crt ro,relatime - tmpfs tmpfs rw\n\nshort line\n")
	assert.True(t, isMountPoint(table, "/etc/certs/tls.crt"))
	assert.True(t, isMountPoint(table, "/etc/certs/../certs/tls.crt"))
	assert.False(t, isMountPoint(table, "/etc/certs/tls.key"))
	assert.Empty(t, staleMountHint("/no/such/file"))
}

func FuzzRevocationListsAreReadWholeOrRefused(f *testing.F) {
	ca := testpki.NewCA(f, "CA")
	list := ca.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{ca.Client("x")}})
	f.Add(list)
	f.Add(ca.PEM())
	f.Add([]byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	chain := ca.Client("y")
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, err := parseCRLFile(data)
		require.Equal(t, err == nil, len(lists) > 0)
		rs := &revocations{hard: true}
		for _, list := range lists {
			l := &revocationList{list: list, revoked: make(map[string]bool)}
			if l.check(nil) == nil {
				rs.lists = append(rs.lists, l)
			}
		}
		// Whatever the lists hold, without one of the CA nobody gets in.
		if err := rs.checkCert(chain.Cert, ca.Cert, time.Now()); err == nil {
			for _, l := range rs.lists {
				if l.list.CheckSignatureFrom(ca.Cert) == nil {
					return
				}
			}
			t.Error("accepted without a list of the issuer")
		}
	})
}
