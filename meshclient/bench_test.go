package meshclient_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

const benchSize = 16 << 20

// sideBySide runs ours and theirs in turn, so that what else the machine does slows
// both, and reports how fast ours is: ours/bare is 1 if it is as fast, and less if it
// is slower. It compares medians, and best-tenth the tenth of the runs that was least
// disturbed.
func sideBySide(b *testing.B, ours, theirs func()) {
	b.Helper()
	var took [2][]time.Duration
	b.ReportAllocs()
	b.SetBytes(2 * benchSize)
	for n := 0; b.Loop(); n++ {
		for i := range 2 {
			which := (i + n) % 2 // who comes first alternates
			start := time.Now()
			[]func(){ours, theirs}[which]()
			took[which] = append(took[which], time.Since(start))
		}
	}
	at := func(d []time.Duration, percent int) float64 {
		slices.Sort(d)
		return float64(d[len(d)*percent/100])
	}
	b.ReportMetric(at(took[1], 50)/at(took[0], 50), "ours/bare")
	b.ReportMetric(at(took[1], 10)/at(took[0], 10), "best-tenth")
	b.ReportMetric(at(took[1], 50), "bare-ns")
}

// BenchmarkReceive compares Receive with a client of net/http that reads the same
// bytes from the same server, and looks at none of them.
func BenchmarkReceive(b *testing.B) {
	s := serve(b, meshtest.Options{NoGzip: true})
	content := noise(benchSize, 1)
	sum := sha256.Sum256(content)
	for name, h := range map[string]http.Header{
		"with a checksum": {"Mex-Content-Checksum": {"sha256:" + hex.EncodeToString(sum[:])}}, "without": nil,
	} {
		id := deliver(s, h, "", content)
		c, do := connect(b, s, bob), bare(b, s)
		b.Run(name, func(b *testing.B) {
			sideBySide(b, func() {
				_, err := c.Receive(b.Context(), id, io.Discard, nil)
				require.NoError(b, err)
			}, func() {
				require.Positive(b, do(b, http.MethodGet, "/messageexchange/"+bob+"/inbox/"+id, nil))
			})
		})
	}
}

// BenchmarkSend compares Send with a client of net/http that sends the same bytes to
// the same server, and hashes nothing.
func BenchmarkSend(b *testing.B) {
	s := serve(b, meshtest.Options{Dir: b.TempDir()})
	content := noise(benchSize, 1)
	c, do := connect(b, s, alice), bare(b, s)
	for name, without := range map[string]bool{"with a checksum": false, "without": true} {
		b.Run(name, func(b *testing.B) {
			sideBySide(b, func() {
				m := message(content)
				m.NoChecksum = without
				_, err := c.Send(b.Context(), m)
				require.NoError(b, err)
			}, func() {
				do(b, http.MethodPost, "/messageexchange/"+alice+"/outbox", content)
			})
		})
	}
}

// bare returns a client of net/http, which makes its own tokens.
func bare(b *testing.B, s *meshtest.Server) func(b *testing.B, method, path string, body []byte) int64 {
	b.Helper()
	conf, err := s.Config(alice)
	require.NoError(b, err)
	pair, err := tls.X509KeyPair([]byte(conf.ClientCert), []byte(conf.ClientKey))
	require.NoError(b, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	transport := &http.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	b.Cleanup(transport.CloseIdleConnections)
	return func(b *testing.B, method, path string, body []byte) int64 {
		b.Helper()
		r, err := http.NewRequestWithContext(b.Context(), method, s.URL+path, bytes.NewReader(body))
		require.NoError(b, err)
		r.Header.Set("Authorization", meshclient.Authorization(strings.Split(path, "/")[2], "password", "TestKey", rand.Text(), 0, time.Now()))
		r.Header.Set("Accept", "application/vnd.mesh.v2+json")
		r.Header.Set("Mex-To", bob)
		r.Header.Set("Mex-WorkflowID", "W")
		resp, err := transport.RoundTrip(r)
		require.NoError(b, err)
		defer resp.Body.Close()
		require.Less(b, resp.StatusCode, 300)
		n, err := io.Copy(io.Discard, resp.Body)
		require.NoError(b, err)
		return n
	}
}
