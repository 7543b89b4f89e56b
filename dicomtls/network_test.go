package dicomtls_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
)

func TestACallingTitleIsBoundToACertificate(t *testing.T) {
	ca := testpki.NewCA(t, "CA")
	server, client := ca.Server(), ca.Issue(testpki.Options{CommonName: "ct-1", Hosts: []string{"ct1.example.org", "192.0.2.7"}})
	sum := sha256.Sum256(client.Cert.Raw)
	for name, bound := range map[string]map[string][]string{
		"by its DNS name":    {"dns:ct1.example.org": {"OTHER", "CT1"}},
		"by its address":     {"ip:192.0.2.7": {"CT1"}},
		"by its common name": {"cn:ct-1": {"CT1"}},
		"by its hash":        {"sha256:" + hex.EncodeToString(sum[:]): {"CT1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t, &dicomtls.Server{
				CertificateAEs: bound,
				TLSConfig:      &tls.Config{Certificates: []tls.Certificate{server.TLS()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool()},
			})
			dial := func(title string) error {
				d := &dicomtls.Dialer{AETitle: title, TLSConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{client.TLS()}}}
				a, err := d.DialContext(t.Context(), "tcp", s.addr)
				if err != nil {
					return err
				}
				defer a.Close()
				assert.NotNil(t, a.Info().TLS)
				return a.Echo(t.Context())
			}
			require.NoError(t, dial("CT1"))
			err := dial("CT2")
			assert.Equal(t, "A-ASSOCIATE-RJ(1,1,3)", sendError(t, err).Code())
			s.waitFor("rejected certificate_ae", 1)
		})
	}
}

func TestTLSFailuresAreTold(t *testing.T) {
	ca, other := testpki.NewCA(t, "CA"), testpki.NewCA(t, "Other CA")
	s := listen(t, &dicomtls.Server{
		HandshakeTimeout: 200 * time.Millisecond,
		TLSConfig:        &tls.Config{Certificates: []tls.Certificate{ca.Server().TLS()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool()},
	})
	dial := func(d *dicomtls.Dialer) *dicomtls.SendError {
		_, err := d.DialContext(t.Context(), "tcp", s.addr)
		return sendError(t, err)
	}
	good := ca.Client("good").TLS()
	err := dial(&dicomtls.Dialer{TLSConfig: &tls.Config{RootCAs: ca.Pool()}})
	assert.ErrorIs(t, err, dicomtls.ErrPeerRejectedCertificate)
	assert.False(t, err.Retryable())
	s.waitFor("handshake_failed tls_no_certificate", 1)
	err = dial(&dicomtls.Dialer{TLSConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{other.Client("x").TLS()}, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c := other.Client("x").TLS()
		return &c, nil
	}}})
	assert.ErrorIs(t, err, dicomtls.ErrPeerRejectedCertificate)
	s.waitFor("handshake_failed tls_bad_certificate", 1)
	err = dial(&dicomtls.Dialer{TLSConfig: &tls.Config{RootCAs: other.Pool(), Certificates: []tls.Certificate{good}}})
	assert.False(t, err.Retryable(), "%v", err)
	s.waitFor("handshake_failed tls_peer_refused", 1)
	err = dial(&dicomtls.Dialer{TLSConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{good}, ServerName: "elsewhere"}})
	assert.False(t, err.Retryable(), "%v", err)
	err = dial(&dicomtls.Dialer{}) // without TLS
	assert.Equal(t, dicomtls.NotSent, err.Outcome)
	s.waitFor("handshake_failed not_tls", 1)
	assert.Equal(t, "DICOM without TLS", s.event("handshake_failed not_tls").Detail)
	silent := s.call()
	began := time.Now()
	_, readErr := silent.Read(make([]byte, 1))
	assert.Error(t, readErr)
	assert.Less(t, time.Since(began), 10*time.Second)
	s.waitFor("handshake_failed tls_handshake_timeout", 1)

	plain := listen(t, &dicomtls.Server{})
	_, dialErr := (&dicomtls.Dialer{TLSConfig: &tls.Config{RootCAs: ca.Pool()}}).DialContext(t.Context(), "tcp", plain.addr)
	assert.False(t, sendError(t, dialErr).Retryable())
	plain.waitFor("rejected wrong_protocol", 1)
}

func TestAThousandIdleAssociationsCostLittle(t *testing.T) {
	const n = 1000
	s := listen(t, &dicomtls.Server{MaxAssociations: n, MaxAssociationsPerAE: -1, MaxAssociationsPerHost: -1})
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := used()
	for range n {
		s.associatedFor(t, "AC 1=0 3=3")
	}
	require.Equal(t, n, s.srv.Associations())
	assert.Less(t, used()-before, uint64(100<<20), "the clients' side included")
}

func TestALargeObjectNeedsLittleMemoryOnBothSides(t *testing.T) {
	const size = 300 << 20
	s := listen(t, &dicomtls.Server{Store: dicomtls.StoreHandlerFunc(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != size {
			return dicomtls.StatusOutOfResources
		}
		return dicomtls.StatusSuccess
	})})
	o := ctObject(1)
	o.Size = size
	o.Open = func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(nothing{}, size)), nil }
	a, err := (&dicomtls.Dialer{}).DialContext(t.Context(), "tcp", s.addr, dicomtls.Propose([]dicomtls.Object{o})...)
	require.NoError(t, err)
	defer a.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = a.Store(t.Context(), o)
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20), "not even what could be given back")
}

func TestStoringAnObjectAllocatesLittle(t *testing.T) {
	s := listen(t, &dicomtls.Server{Store: discarding})
	o := dicomtls.BytesObject(ctImage, "1.2.3", explicitLE, make([]byte, 1<<20))
	a, err := (&dicomtls.Dialer{}).DialContext(t.Context(), "tcp", s.addr, dicomtls.Propose([]dicomtls.Object{o})...)
	require.NoError(t, err)
	defer a.Close()
	allocs := testing.AllocsPerRun(50, func() {
		if _, err := a.Store(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	})
	assert.LessOrEqual(t, allocs, 120.0, "both sides, whatever the size")
}

func TestIPv6AndLocalAddresses(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		interop.Missing(t, "there is no IPv6 on the loopback")
	}
	s := serve(t, &dicomtls.Server{}, ln)
	local, err := net.Listen("tcp", "[::1]:0")
	require.NoError(t, err)
	defer local.Close()
	d := &dicomtls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv6loopback}}}
	a, err := d.DialContext(t.Context(), "tcp6", ln.Addr().String())
	require.NoError(t, err)
	require.NoError(t, a.Echo(t.Context()))
	require.NoError(t, a.Release(t.Context()))
	s.waitFor("closed released", 1)
	d = &dicomtls.Dialer{NetDialer: &net.Dialer{LocalAddr: local.Addr()}}
	_, err = d.DialContext(t.Context(), "tcp6", ln.Addr().String())
	require.ErrorContains(t, err, local.Addr().String(), "the local address is taken")
	busy := &dicomtls.Server{Addr: local.Addr().String()}
	require.ErrorContains(t, busy.ListenAndServe(t.Context()), local.Addr().String())
}

// discarding is a StoreHandler that keeps nothing.
var discarding = dicomtls.StoreHandlerFunc(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return dicomtls.StatusOutOfResources
	}
	return dicomtls.StatusSuccess
})

func TestAPeerThatWaitsForAcknowledgementsOfTCPIsNotKeptWaiting(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: only Linux can acknowledge at once")
	}
	s := listen(t, &dicomtls.Server{Store: discarding})
	c := s.call()
	require.NoError(t, c.Conn.(*net.TCPConn).SetNoDelay(false)) // as DCMTK and dcm4che leave it
	c.say(associateRQ{}.String())
	require.Equal(t, "AC 1=0 3=0", c.hear())
	began := time.Now()
	for id := range 100 { // each costs 40 ms without
		c.say(pdata(pdv(3, 3, storeRQ(id, ctImage, "1.2.3"))))
		c.say(pdata(pdv(3, 2, someData)))
		c.hear()
	}
	assert.Less(t, time.Since(began), 2*time.Second)
}
