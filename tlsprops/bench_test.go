package tlsprops_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkHandshake compares a listener of this package, whose Source watches
// its files, with a bare crypto/tls listener with the same certificate, in the
// same run over loopback. The bare one is the limit.
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
	client := &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{p.client.TLS()}}
	for _, bench := range []struct {
		name    string
		version uint16
		cache   tls.ClientSessionCache
	}{
		{"TLS 1.3", tls.VersionTLS13, nil},
		{"TLS 1.2", tls.VersionTLS12, nil},
		{"TLS 1.3 resumed", tls.VersionTLS13, tls.NewLRUClientSessionCache(1)},
	} {
		for _, side := range []struct {
			name   string
			config *tls.Config
		}{{"limit", limit}, {"tlsprops", watched}} {
			b.Run(bench.name+"/"+side.name, func(b *testing.B) {
				c := client.Clone()
				c.MaxVersion, c.ClientSessionCache = bench.version, bench.cache
				if c.ClientSessionCache != nil {
					c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				}
				handshakes(b, side.config, c)
			})
		}
	}
}

// handshakes makes b.N connections one after the other.
func handshakes(b *testing.B, server, client *tls.Config) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ln.Close()
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			<-serve(conn, server)
			_ = conn.Close()
		}
	})
	b.ReportAllocs()
	for b.Loop() {
		raw, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		_, err = connect(raw, client)
		require.NoError(b, err)
		_ = raw.Close()
	}
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
