package tlsprops_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

func TestRevokedCertificatesAreRefusedInBothRoles(t *testing.T) {
	p := newPKI(t)
	region := p.ca.Intermediate("Region CA")
	regional := region.Client("regional")
	files := regional.Write(p.dir, "regional")
	regionalProps := p.trusting()
	regionalProps.KeyStorePath, regionalProps.CertStorePath = files.Key, files.Cert
	hour := time.Hour
	list := func(ca *testpki.Authority, next time.Duration, revoked ...*testpki.Pair) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: ca.CRL(testpki.CRLOptions{
			Revoked: revoked, ThisUpdate: time.Now().Add(-2 * hour), NextUpdate: time.Now().Add(next),
		})})
	}
	regionCA := &testpki.Pair{Cert: region.Cert}
	for _, test := range []struct {
		name       string
		lists      [][]byte
		client     tlsprops.TlsProperties
		hard, soft bool // whether each lets it in
	}{
		{"not listed", [][]byte{list(p.ca, hour, p.server)}, p.known(), true, true},
		{"listed", [][]byte{list(p.ca, hour, p.client)}, p.known(), false, false},
		{"listed in a list out of date", [][]byte{list(p.ca, -hour, p.client)}, p.known(), false, false},
		{"listed in one of two", [][]byte{list(p.ca, hour), list(p.ca, hour, p.client)}, p.known(), false, false},
		{"not listed, out of date", [][]byte{list(p.ca, -hour)}, p.known(), false, true},
		{"not listed, an old list beside a current one", [][]byte{list(p.ca, -hour), list(p.ca, hour)}, p.known(), true, true},
		{"no list of its issuer", [][]byte{list(testpki.NewCA(t, "Elsewhere"), hour)}, p.known(), false, true},
		{"below an intermediate, both lists", [][]byte{list(p.ca, hour), list(region, hour)}, regionalProps, true, true},
		{"below an intermediate, its list missing", [][]byte{list(p.ca, hour)}, regionalProps, false, true},
		{"below an intermediate, listed", [][]byte{list(p.ca, hour), list(region, hour, regional)}, regionalProps, false, false},
		{"below a revoked intermediate", [][]byte{list(p.ca, hour, regionCA), list(region, hour)}, regionalProps, false, false},
		{"a list in the intermediate's name by another", [][]byte{list(p.ca, hour), list(testpki.NewCA(t, "Region CA"), hour)}, regionalProps, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for i, data := range test.lists {
				write(t, filepath.Join(dir, fmt.Sprintf("%d.crl", i)), data)
			}
			for check, want := range map[string]bool{"": test.hard, "hard": test.hard, "soft": test.soft} {
				props := p.mutual()
				props.CRLPaths, props.CRLCheck = []string{dir}, check
				bothVersions(t, func(t *testing.T, version uint16) {
					client := clientConfig(t, test.client, "localhost")
					client.MaxVersion = version
					serverSide, _ := handshake(serverConfig(t, props), client)
					assert.Equal(t, want, serverSide.err == nil, "crlCheck %q: %v", check, serverSide.err)
				})
			}
		})
	}
	t.Run("a server", func(t *testing.T) {
		props := p.trusting()
		props.CRLPaths = []string{write(t, filepath.Join(p.dir, "server.crl"), p.ca.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{p.server}}))}
		for _, mode := range []tlsprops.VerifyMode{tlsprops.VerifyFull, tlsprops.VerifyChainOnly} {
			props.Verify = mode
			_, clientSide := handshake(serverConfig(t, p.listener()), clientConfig(t, props, "localhost"))
			assert.ErrorContains(t, clientSide.err, "is revoked")
			_, clientSide = handshake(bare(p.ca.Server()), clientConfig(t, props, "localhost"))
			assert.NoError(t, clientSide.err)
		}
	})
}

func TestListsThatCannotBeHonouredAreErrors(t *testing.T) {
	p := newPKI(t)
	extension := func(id []int, critical bool, value ...byte) []byte {
		return p.ca.CRL(testpki.CRLOptions{Extra: []pkix.Extension{{Id: id, Critical: critical, Value: value}}})
	}
	good := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: p.ca.CRL(testpki.CRLOptions{})})
	forged := testpki.NewCA(t, p.ca.Cert.Subject.CommonName).CRL(testpki.CRLOptions{})
	for name, test := range map[string]struct {
		data []byte
		text string
	}{
		"delta":                    {extension([]int{2, 5, 29, 27}, true, 0x02, 0x01, 0x01), "delta and indirect"},
		"indirect":                 {extension([]int{2, 5, 29, 28}, true, 0x30, 0x03, 0x84, 0x01, 0xff), "delta and indirect"},
		"for CA certificates":      {extension([]int{2, 5, 29, 28}, true, 0x30, 0x03, 0x82, 0x01, 0xff), "only some"},
		"for some reasons":         {extension([]int{2, 5, 29, 28}, true, 0x30, 0x04, 0x83, 0x02, 0x00, 0xff), "only some"},
		"with something unknown":   {extension([]int{1, 2, 3, 4}, true, 0x05, 0x00), "1.2.3.4"},
		"signed by somebody else":  {forged, "signature"},
		"a certificate":            {p.ca.PEM(), "no revocation list"},
		"cut off":                  {good[:len(good)-40], "cut off"},
		"damaged DER":              {p.ca.Cert.Raw[:50], "not a revocation list"},
		"damaged DER inside a PEM": {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte{0x30, 0}}), "not a readable"},
		"empty":                    {nil, "revocation list"},
	} {
		t.Run(name, func(t *testing.T) {
			props := p.mutual()
			props.Enabled = true
			props.CRLPaths = []string{write(t, filepath.Join(t.TempDir(), "list.crl"), test.data)}
			for _, check := range []string{"hard", "soft"} {
				props.CRLCheck = check
				_, err := tlsprops.Load(props)
				assert.Equal(t, "crlPaths", fieldOf(t, err))
				assert.ErrorContains(t, err, test.text)
			}
		})
	}
	t.Run("a distribution point is no matter", func(t *testing.T) {
		props := p.mutual()
		point := extension([]int{2, 5, 29, 28}, true, 0x30, 0x09, 0xa0, 0x07, 0xa0, 0x05, 0x86, 0x03, 'a', ':', 'b')
		props.CRLPaths = []string{write(t, filepath.Join(t.TempDir(), "list.crl"), point)}
		load(t, props)
	})
}

func TestAMissingListStopsAHardCheckAndWarnsASoftOne(t *testing.T) {
	p := newPKI(t)
	empty := t.TempDir()
	for _, path := range []string{filepath.Join(p.dir, "none.crl"), empty} {
		props := p.mutual()
		props.Enabled = true
		props.CRLPaths = []string{path}
		_, err := tlsprops.Load(props)
		assert.Equal(t, "crlPaths", fieldOf(t, err))
		props.CRLCheck = "soft"
		source := load(t, props)
		assert.Contains(t, fmt.Sprint(source.Status().Warnings), path)
	}
}

func TestARevocationTakesEffectOnReloadAndInResumedSessions(t *testing.T) {
	p := newPKI(t)
	path := filepath.Join(p.dir, "list.crl")
	bothVersions(t, func(t *testing.T, version uint16) {
		write(t, path, p.ca.CRL(testpki.CRLOptions{}))
		props := p.mutual()
		props.CRLPaths = []string{path}
		source := load(t, props)
		config, err := source.ServerConfig()
		require.NoError(t, err)
		before, after, _ := resumption(t, version, config, clientConfig(t, p.known(), "localhost"), func() {
			write(t, path, p.ca.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{p.client}, Number: 2}))
			require.NoError(t, source.Reload())
		})
		require.True(t, before.state.DidResume)
		assert.ErrorContains(t, after.err, "is revoked")
	})
}

// A list goes stale by the passing of time alone: no file changes, so that sessions
// resume, and what they began with does not count.
func TestAListThatGoesStaleEndsResumedSessionsToo(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		synctest.Test(t, func(t *testing.T) {
			p := newPKI(t)
			props := p.mutual()
			props.CRLPaths = []string{write(t, filepath.Join(p.dir, "list.crl"), p.ca.CRL(testpki.CRLOptions{NextUpdate: time.Now().Add(time.Hour)}))}
			config, err := load(t, props).ServerConfig()
			require.NoError(t, err)
			before, after, _ := resumption(t, version, config, clientConfig(t, p.known(), "localhost"), func() { time.Sleep(2 * time.Hour) })
			require.True(t, before.state.DidResume)
			assert.ErrorContains(t, after.err, "is out of date")
		})
	})
}

func TestStatusAndWarningsFollowTheLists(t *testing.T) {
	p := newPKI(t)
	next := time.Now().Add(-time.Hour).Truncate(time.Second)
	path := write(t, filepath.Join(p.dir, "list.crl"), p.ca.CRL(testpki.CRLOptions{
		Revoked: []*testpki.Pair{p.client}, ThisUpdate: next.Add(-time.Hour), NextUpdate: next,
	}))
	props := p.mutual()
	props.CRLPaths = []string{path}
	st := load(t, props).Status()
	require.Len(t, st.CRLs, 1)
	assert.Equal(t, path, st.CRLs[0].Path)
	assert.Equal(t, 1, st.CRLs[0].Revoked)
	assert.True(t, next.Equal(st.CRLs[0].NextUpdate))
	assert.Contains(t, fmt.Sprint(st.Warnings), "certificates of that issuer are refused")
}

func TestAListFromAKubernetesMountIsReadWithItsGeneration(t *testing.T) {
	p := newPKI(t)
	good, bad := p.ca.CRL(testpki.CRLOptions{}), p.ca.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{p.client}})
	mount := testpki.NewMount(t, t.TempDir(), map[string][]byte{"ca.crl": good})
	for _, path := range []string{mount.Dir, mount.Path("ca.crl")} {
		mount.Swap(map[string][]byte{"ca.crl": good})
		props := p.mutual()
		props.CRLPaths = []string{path}
		source := load(t, props)
		config, err := source.ServerConfig()
		require.NoError(t, err)
		serverSide, _ := handshake(config, clientConfig(t, p.known(), "localhost"))
		require.NoError(t, serverSide.err)
		mount.Swap(map[string][]byte{"ca.crl": bad})
		require.NoError(t, source.Reload())
		serverSide, _ = handshake(config, clientConfig(t, p.known(), "localhost"))
		var verification *tls.CertificateVerificationError
		assert.ErrorAs(t, serverSide.err, &verification)
	}
}
