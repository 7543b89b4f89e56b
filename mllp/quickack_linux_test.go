package mllp_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/mllp"
)

// hidden is a listener whose connections the Server cannot tell to be TCP's: it
// sets no options on them.
type hidden struct{ net.Listener }

func (l hidden) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{conn}, nil
}

// pieces is the client's end of a connection, which writes a frame as simple
// senders do: VT, text, FS CR, with Nagle's algorithm.
type pieces struct{ net.Conn }

func (c pieces) Write(frame []byte) (int, error) {
	for _, piece := range [][]byte{frame[:1], frame[1 : len(frame)-2], frame[len(frame)-2:]} {
		if _, err := c.Conn.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(frame), nil
}

// plainServer starts a Server that accepts everything, and returns its address.
func plainServer(tb testing.TB, config *tls.Config, hide bool) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	addr := ln.Addr().String()
	if hide {
		ln = hidden{ln}
	}
	srv := &mllp.Server{
		Handler:   mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
		TLSConfig: config,
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(context.Background(), ln)
	}()
	tb.Cleanup(func() {
		srv.Close()
		<-served
	})
	return addr
}

// dialPieces connects as one that writes frames in pieces.
func dialPieces(tb testing.TB, addr string) net.Conn {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(tb, err)
	require.NoError(tb, conn.(*net.TCPConn).SetNoDelay(false))
	return conn
}

func TestASenderThatWritesFramesInPiecesIsNotKeptWaiting(t *testing.T) {
	const messages = 50
	take := func(hide bool) time.Duration {
		conn := dialPieces(t, plainServer(t, nil, hide))
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		r := &rig{frame: []byte(frame(msgA))}
		var buf [4096]byte
		began := time.Now()
		for range messages {
			require.True(t, r.exchange(pieces{conn}, &buf))
		}
		return time.Since(began)
	}
	waiting := take(true)
	if waiting < messages*20*time.Millisecond {
		interop.Missing(t, fmt.Sprintf("this system does not put TCP's acknowledgements off: %v for %d messages", waiting, messages))
	}
	assert.Less(t, take(false), waiting/2)
}

// BenchmarkThreePieceWriter measures what TCP_QUICKACK does for senders that
// write a frame in three pieces, with Nagle's algorithm on, and what it costs those that
// write it at once. The Server runs with it and without, in turn, for a moment
// each; ratio is messages per second with it by those without, in the median.
func BenchmarkThreePieceWriter(b *testing.B) {
	for _, mode := range []string{"plain", "TLS"} {
		for _, writer := range []string{"pieces", "whole"} {
			for _, size := range []int{255, 4 << 10, 64 << 10, 1 << 20} {
				b.Run(fmt.Sprintf("%s/%s/%dB", mode, writer, size), func(b *testing.B) { benchQuickAck(b, mode, writer, size) })
			}
		}
	}
}

func benchQuickAck(b *testing.B, mode, writer string, size int) {
	framed, err := mllp.AppendFrame(nil, []byte(message(size)))
	require.NoError(b, err)
	var serverTLS, clientTLS *tls.Config
	if mode == "TLS" {
		p := pki()
		serverTLS = &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS13}
		clientTLS = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13}
	}
	start := func(hide bool) *rig {
		addr := plainServer(b, serverTLS, hide)
		return newRig(b, func() net.Conn {
			var conn net.Conn
			if writer == "pieces" {
				conn = dialPieces(b, addr)
			} else {
				conn, err = net.Dial("tcp", addr)
				require.NoError(b, err)
			}
			if clientTLS != nil {
				conn = tls.Client(conn, clientTLS)
			}
			if writer == "pieces" {
				conn = pieces{conn}
			}
			return conn
		}, 1, framed)
	}
	rigs := []*rig{start(true), start(false)}
	rate := func(r *rig) float64 {
		r.count = 0
		took := r.run(50 * time.Millisecond)
		return float64(r.count) / took.Seconds()
	}
	for _, r := range rigs {
		r.run(200 * time.Millisecond) // TCP acknowledges the first segments at once
	}
	var without, with, ratio []float64
	b.ReportAllocs()
	for b.Loop() {
		a, b := rate(rigs[0]), rate(rigs[1])
		without, with = append(without, a), append(with, b)
		if a > 0 {
			ratio = append(ratio, b/a)
		}
	}
	for name, all := range map[string][]float64{"without-msg/s": without, "msg/s": with, "ratio": ratio} {
		if len(all) > 0 {
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], name)
		}
	}
	b.ReportMetric(0, "ns/op")
}
