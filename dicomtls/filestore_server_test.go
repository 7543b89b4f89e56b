package dicomtls_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// storing associates with a receiver for CT objects in Explicit VR Little Endian.
func storing(t testing.TB, port string) *dicomtls.Association {
	t.Helper()
	a, err := new(dicomtls.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", port),
		dicomtls.Proposal{AbstractSyntax: ctStorage, TransferSyntaxes: []string{dicomtls.ExplicitVRLittleEndian}})
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

// ctSlice is an object under the UIDs of explicit().
func ctSlice(data []byte) dicomtls.Object {
	return dicomtls.BytesObject(ctStorage, anInstance, dicomtls.ExplicitVRLittleEndian, data)
}

func TestAnObjectThatIsRefusedDoesNotKeepBackTheNext(t *testing.T) {
	port, dir := receiver(t, new(dicomtls.Server))
	a := storing(t, port)
	good := explicit().element(0x00100020, "LO", strings.Repeat("x", 60_000)).Bytes()
	for name, test := range map[string]struct {
		data []byte
		want dicomtls.Status
	}{
		"truncated": {good[:len(good)-10], dicomtls.StatusCannotUnderstand},
		"garbage":   {bytes.Repeat([]byte("no data set "), 10_000), dicomtls.StatusCannotUnderstand},
		"another's": {new(builder).uids(ctStorage, "1.2.3").Bytes(), dicomtls.StatusDataSetMismatch},
		"deep":      {append(explicit().Bytes(), bytes.Repeat(new(builder).header(0x00081140, "SQ", undefined).delimiter(item, undefined).Bytes(), 100_000)...), dicomtls.StatusCannotUnderstand},
	} {
		status, err := a.Store(t.Context(), ctSlice(test.data))
		assert.Error(t, err, name)
		assert.Equal(t, test.want, status, name)
		assert.Empty(t, names(t, dir), name)
	}
	status, err := a.Store(t.Context(), ctSlice(good))
	assert.NoError(t, err)
	assert.Equal(t, dicomtls.StatusSuccess, status)
	assert.NoError(t, a.Release(t.Context()))
	_, got := stored(t, filepath.Join(dir, anInstance+".dcm"))
	assert.Equal(t, good, got)
}

func TestAnObjectThatIsCutOffLeavesNothing(t *testing.T) {
	port, dir := receiver(t, new(dicomtls.Server))
	a := storing(t, port)
	o := ctSlice(nil)
	o.Size = 10 << 20
	o.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(explicit().header(pixelData, "OW", 9<<20).Bytes()), io.LimitReader(zeros{}, 3<<20), iotest.ErrReader(errors.New("the source is gone")))), nil
	}
	_, err := a.Store(t.Context(), o)
	require.Error(t, err)
	// Whoever comes next finds the place clean.
	b := storing(t, port)
	_, err = b.Store(t.Context(), ctSlice(explicit().Bytes()))
	require.NoError(t, err)
	require.NoError(t, b.Release(t.Context()))
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.Equal(c, []string{anInstance + ".dcm"}, names(t, dir))
	}, patience, 10e6, "the part of the object that was cut off is removed")
}

func TestTheSameInstanceOverTwoAssociationsIsKeptOnce(t *testing.T) {
	port, dir := receiver(t, new(dicomtls.Server))
	data := explicit().element(0x00100020, "LO", strings.Repeat("x", 60_000)).Bytes()
	var senders sync.WaitGroup
	for range 2 {
		a := storing(t, port)
		senders.Go(func() {
			for range 5 {
				status, err := a.Store(t.Context(), ctSlice(data))
				assert.NoError(t, err)
				assert.Equal(t, dicomtls.StatusSuccess, status)
			}
		})
	}
	senders.Wait()
	assert.Equal(t, []string{anInstance + ".dcm"}, names(t, dir))
}

func TestARevokedOrExpiredCertificateIsRefused(t *testing.T) {
	p := newPKI(t)
	list := p.write(t, "ca.crl", p.authority.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{p.clientPair}}))
	listener := p.listener(dicomtls.ModeBCP195)
	_, serverErr, _ := handshake(serverConfig(t, listener), clientConfig(t, p.sender(dicomtls.ModeBCP195)))
	require.NoError(t, serverErr, "the control")
	listener.CRLPaths = []string{list}
	_, serverErr, clientErr := handshake(serverConfig(t, listener), clientConfig(t, p.sender(dicomtls.ModeBCP195)))
	assert.ErrorContains(t, serverErr, "revoked")
	assert.Error(t, clientErr)

	wrongUse := p.authority.Issue(testpki.Options{CommonName: "a server", EKU: p.rsaPair.Cert.ExtKeyUsage[:1], Key: rsaKey(t, 2)})
	client := &tls.Config{RootCAs: p.authority.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{wrongUse.TLS()}}
	listener = p.listener(dicomtls.ModeBCP195)
	_, serverErr, _ = handshake(serverConfig(t, listener), client)
	assert.Error(t, serverErr, "a client with a server's certificate")
	listener.AnyExtendedKeyUsage = true
	_, serverErr, _ = handshake(serverConfig(t, listener), client)
	assert.NoError(t, serverErr)
	assert.NoError(t, listener.Check(tlsprops.Listener))
}

func TestADataSetOfMoreThan4GiBIsScannedToItsEnd(t *testing.T) {
	if raceDetector {
		t.Skip("skipped under the race detector: takes ten times as long, and has no second goroutine")
	}
	const fragment = 1 << 31
	parts := []io.Reader{bytes.NewReader(explicit().header(pixelData, "OB", undefined).delimiter(item, 0).Bytes())}
	for range 3 {
		parts = append(parts, bytes.NewReader(new(builder).delimiter(item, fragment).Bytes()), io.LimitReader(zeros{}, fragment))
	}
	parts = append(parts, bytes.NewReader(new(builder).delimiter(sequenceEnd, 0).element(0xFFFCFFFC, "OB", "").Bytes()[:18]))
	err := dicomtls.Scan(io.MultiReader(parts...), "1.2.840.10008.1.2.4.50", nil)
	var broken *dicomtls.DataSetError
	require.ErrorAs(t, err, &broken, "the last element is cut short")
	assert.Greater(t, broken.Offset, int64(3*fragment))
}

func TestAStoreMadeByHandIsUsableAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	assert.Equal(t, dicomtls.StatusSuccess, (&dicomtls.FileStore{Dir: dir}).ServeStore(t.Context(), &dicomtls.StoreRequest{
		SOPClassUID: ctStorage, SOPInstanceUID: anInstance, TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian, Body: bytes.NewReader(explicit().Bytes()),
	}))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}
