package meshclient_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

const benchSize = 16 << 20

// BenchmarkReceive is to be compared with BenchmarkReceive/bare, which reads the
// same bytes from the same server with a client of net/http.
func BenchmarkReceive(b *testing.B) {
	s := serve(b, meshtest.Options{NoGzip: true})
	id := deliver(s, nil, "", noise(benchSize, 1))
	c := connect(b, s, bob)
	b.Run("mesh", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(benchSize)
		for b.Loop() {
			_, err := c.Receive(b.Context(), id, io.Discard, nil)
			require.NoError(b, err)
		}
	})
	b.Run("bare", func(b *testing.B) {
		do := bare(b, s)
		b.ReportAllocs()
		b.SetBytes(benchSize)
		for b.Loop() {
			require.Positive(b, do(b, http.MethodGet, "/messageexchange/"+bob+"/inbox/"+id, nil))
		}
	})
}

// BenchmarkSend is to be compared with BenchmarkSend/bare, which sends the same
// bytes to the same server, and hashes nothing.
func BenchmarkSend(b *testing.B) {
	s := serve(b, meshtest.Options{Dir: b.TempDir()})
	content := noise(benchSize, 1)
	c := connect(b, s, alice)
	b.Run("mesh", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(benchSize)
		for b.Loop() {
			_, err := c.Send(b.Context(), message(content))
			require.NoError(b, err)
		}
	})
	b.Run("mesh without a checksum", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(benchSize)
		for b.Loop() {
			m := message(content)
			m.NoChecksum = true
			_, err := c.Send(b.Context(), m)
			require.NoError(b, err)
		}
	})
	b.Run("bare", func(b *testing.B) {
		do := bare(b, s)
		b.ReportAllocs()
		b.SetBytes(benchSize)
		for b.Loop() {
			do(b, http.MethodPost, "/messageexchange/"+alice+"/outbox", content)
		}
	})
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
