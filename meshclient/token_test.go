package meshclient_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

func TestATokenIsTheOneOfTheSpecificationByteForByte(t *testing.T) {
	at := time.Date(2020, 5, 4, 13, 5, 59, 0, time.UTC)
	nonce := "bd0e2bd5-218e-41d0-83a9-73fdec414803"
	assert.Equal(t, "NHSMESH X26ABC1:"+nonce+":0:202005041305:1d7da1305d2c4f169b097f4e7fddbc8dfba024de2ea0fdee858b64536f2a90bc",
		meshclient.Authorization("X26ABC1", "password", "TestKey", nonce, 0, at))
	assert.Equal(t, "NHSMESH X26ABC1:"+nonce+":1:202005041305:b35be3a6bdca886d8117b2f29cc9f3f90ad607efbc88c20aa41a0f3d5e65c863",
		meshclient.Authorization("X26ABC1", "password", "TestKey", nonce, 1, at))
}

func TestATokenHasTheTimeInUTCWhereverTheMachineIs(t *testing.T) {
	at := time.Date(2026, 7, 1, 23, 30, 0, 0, time.UTC)
	for _, zone := range []*time.Location{time.UTC, time.FixedZone("BST", 3600), time.FixedZone("JST", 9*3600)} {
		token := meshclient.Authorization("A", "p", "k", "n", 0, at.In(zone))
		assert.Equal(t, "202607012330", strings.Split(token, ":")[3])
	}
}

func TestEveryAttemptHasATokenOfItsOwn(t *testing.T) {
	s := serve(t, meshtest.Options{})
	c := connect(t, s, alice)
	s.Script(meshtest.Fault{Op: "count", Status: 503, Times: 2})
	n, err := c.Count(bounded(t))
	require.NoError(t, err)
	assert.Equal(t, 0, n)
	seen := make(map[string]bool)
	for _, r := range ops(s, "count") {
		seen[r.Authorization] = true
	}
	assert.Len(t, seen, 3)
}

func TestNoTokenIsUsedTwiceByManyAtOnceOverHTTP1AndHTTP2(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := serve(t, meshtest.Options{HTTP2: h2})
		c := connect(t, s, alice)
		s.Script(meshtest.Fault{Op: "count", Drop: true, Skip: 20, Times: 3})
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for range 20 {
					_, err := c.Count(bounded(t))
					assert.NoError(t, err) // the server remembers tokens
				}
			})
		}
		all.Wait()
		seen := make(map[string]bool)
		for _, r := range s.Requests() {
			assert.False(t, seen[r.Authorization])
			seen[r.Authorization] = true
		}
	}
}

// The control of the tests above.
func TestTheFakeRefusesATokenThatWasUsedBefore(t *testing.T) {
	s := serve(t, meshtest.Options{})
	conf, err := s.Config(alice)
	require.NoError(t, err)
	pair, err := tls.X509KeyPair([]byte(conf.ClientCert), []byte(conf.ClientKey))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(s.CA()))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	defer transport.CloseIdleConnections()
	token := meshclient.Authorization(alice, "password", "TestKey", "one", 0, time.Now())
	for _, want := range []int{http.StatusOK, http.StatusForbidden} {
		r, err := http.NewRequestWithContext(bounded(t), http.MethodGet, s.URL+"/messageexchange/"+alice+"/inbox", http.NoBody)
		require.NoError(t, err)
		r.Header.Set("Authorization", token)
		resp, err := transport.RoundTrip(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, want, resp.StatusCode)
	}
}

func TestAClockThatIsOffIsNamedAsTheReason(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, ln := inMemory(t, meshtest.Options{})
		var log strings.Builder
		c := connect(t, s, alice, func(conf *meshclient.Config) { conf.NetDialer, conf.Logger = ln, everything(&log) })
		require.NoError(t, c.Handshake(t.Context()))
		assert.NotContains(t, log.String(), "clocks")

		s.Advance(45 * time.Minute)
		require.NoError(t, c.Handshake(t.Context()))
		assert.Contains(t, log.String(), "clocks of this machine and the server differ")
		assert.InDelta(t, -45*time.Minute, c.Skew(), float64(2*time.Second))

		s.Advance(2*time.Hour + 15*time.Minute)
		e := failed(t, c.Handshake(t.Context()))
		assert.ErrorIs(t, e, meshclient.ErrAuth)
		assert.ErrorIs(t, e, meshclient.ErrClockSkew)
		assert.Contains(t, e.Error(), "this machine's is 3h0m")
		assert.Contains(t, e.Error(), "behind")
		assert.False(t, e.Retryable())
	})
}
