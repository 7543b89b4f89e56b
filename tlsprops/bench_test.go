package tlsprops_test

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkHandshake compares a listener of this package, whose Source watches
// its files, with a bare crypto/tls listener with the same certificate, which is
// the limit. The two take turns over loopback, so that whatever else the machine
// does falls on both. Each ns/op is one handshake of each; of-limit is the
// handshakes per second of this package over those of the limit, by the medians.
func BenchmarkHandshake(b *testing.B) {
	p := newPKI(b)
	source := load(b, p.mutual())
	watch(b, source)
	watched, err := source.ServerConfig()
	require.NoError(b, err)
	limit := &tls.Config{
		Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12,
		ClientCAs: p.ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}
	for _, bench := range []struct {
		name    string
		version uint16
		resumed bool
	}{
		{"TLS 1.3", tls.VersionTLS13, false},
		{"TLS 1.2", tls.VersionTLS12, false},
		{"TLS 1.3 resumed", tls.VersionTLS13, true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var sides [2]func() time.Duration
			for i, config := range []*tls.Config{limit, watched} {
				client := &tls.Config{
					RootCAs: p.ca.Pool(), ServerName: "localhost", MaxVersion: bench.version,
					Certificates: []tls.Certificate{p.client.TLS()},
				}
				if bench.resumed {
					client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				}
				addr := handshakeListener(b, config)
				sides[i] = func() time.Duration {
					start := time.Now()
					raw, err := net.Dial("tcp", addr)
					require.NoError(b, err)
					_, err = connect(raw, client)
					require.NoError(b, err)
					_ = raw.Close()
					return time.Since(start)
				}
			}
			var took [2][]time.Duration
			b.ReportAllocs()
			for b.Loop() {
				for i, side := range sides {
					took[i] = append(took[i], side())
				}
			}
			for i := range took {
				slices.Sort(took[i])
			}
			median := func(d []time.Duration) float64 { return float64(d[len(d)/2]) }
			b.ReportMetric(median(took[0])/median(took[1]), "of-limit")
		})
	}
}

// handshakeListener makes a handshake on each connection, one after the other.
func handshakeListener(b *testing.B, config *tls.Config) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	var wg sync.WaitGroup
	b.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			<-serve(conn, config)
			_ = conn.Close()
		}
	})
	return ln.Addr().String()
}

// BenchmarkRefresh is what a dialer pays before each connection.
func BenchmarkRefresh(b *testing.B) {
	source := load(b, newPKI(b).known())
	b.ReportAllocs()
	for b.Loop() {
		_ = source.Refresh(context.Background())
	}
}

// BenchmarkClientConfig is what a dialer pays for the configuration.
func BenchmarkClientConfig(b *testing.B) {
	source := load(b, newPKI(b).known())
	b.ReportAllocs()
	for b.Loop() {
		_, _ = source.ClientConfig("localhost")
	}
}

// BenchmarkLook is what a look at unchanged files costs.
func BenchmarkLook(b *testing.B) {
	source := load(b, newPKI(b).mutual())
	b.ReportAllocs()
	for b.Loop() {
		_ = source.Reload()
	}
}
