package dicomtls_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// ctSize is the size of the data set of a CT image of 512 x 512 pixels.
const ctSize = 530_594

// BenchmarkStore is an object over an association, and beside it the same bytes
// over TCP and a byte back: what a perfect protocol could do.
func BenchmarkStore(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"CT", ctSize}, {"16MiB", 16 << 20}} {
		b.Run(size.name+"/association", func(b *testing.B) {
			s := listen(b, &dicomtls.Server{Store: discarding})
			o := dicomtls.BytesObject(ctImage, "1.2.3", explicitLE, make([]byte, size.n))
			a, err := (&dicomtls.Dialer{}).DialContext(b.Context(), "tcp", s.addr, dicomtls.Propose([]dicomtls.Object{o})...)
			require.NoError(b, err)
			defer a.Close()
			b.SetBytes(int64(size.n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Store(context.Background(), o); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(size.name+"/limit", func(b *testing.B) {
			client, server := tcpPair(b)
			go func() {
				buf := make([]byte, 128<<10)
				for {
					if _, err := io.CopyBuffer(onlyWriter{io.Discard}, io.LimitReader(server, int64(size.n)), buf); err != nil {
						return
					}
					if _, err := server.Write([]byte{0}); err != nil {
						return
					}
				}
			}()
			data, one := make([]byte, size.n), make([]byte, 1)
			b.SetBytes(int64(size.n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Write(data); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// onlyWriter hides ReadFrom.
type onlyWriter struct{ io.Writer }

func tcpPair(b *testing.B) (client, server net.Conn) {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	require.NoError(b, err)
	server, err = ln.Accept()
	require.NoError(b, err)
	b.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return client, server
}

// BenchmarkAssociate is an association with a C-ECHO and its release, with our
// server and with storescp, and beside it a connection with as many turns of a
// small message.
func BenchmarkAssociate(b *testing.B) {
	associate := func(b *testing.B, addr string) {
		b.Helper()
		d := new(dicomtls.Dialer)
		b.ReportAllocs()
		for b.Loop() {
			a, err := d.DialContext(b.Context(), "tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			if err := a.Echo(b.Context()); err != nil {
				b.Fatal(err)
			}
			if err := a.Release(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("Server", func(b *testing.B) {
		associate(b, listen(b, &dicomtls.Server{MaxAssociationsPerAE: -1, MaxAssociationsPerHost: -1, MaxAssociations: -1}).addr)
	})
	b.Run("storescp", func(b *testing.B) {
		b.Setenv("TCP_NODELAY", "1")
		associate(b, scp(b, "storescp", "--ignore"))
	})
	b.Run("limit", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		defer ln.Close()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(onlyWriter{c}, onlyReader{c})
				}()
			}
		}()
		message := make([]byte, 200)
		b.ReportAllocs()
		for b.Loop() {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			for range 3 {
				if _, err := c.Write(message); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, message); err != nil {
					b.Fatal(err)
				}
			}
			c.Close()
		}
	})
}

type onlyReader struct{ io.Reader }
