package mllp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// message returns a message of n bytes: segments as long as they are in
// practice.
func message(n int) string {
	var b strings.Builder
	b.WriteString("MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ORU^R01^ORU_R01|MSG00001|P|2.5.1\r")
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "OBX|%d|NM|1554-5^GLUCOSE^LN||%d|mg/dl|70_105|H|||F|||20250102030405\r", i, 100+i%50)
	}
	return b.String()[:n-1] + "\r"
}

// bare is the least that can be done with frames: one buffer, one search for
// FS, one Write of an acknowledgement that does not depend on the message. It
// takes a message that was cut off by another one, and two messages in one frame,
// for one message, and would acknowledge what it has lost. With checking it makes
// the two searches without which that cannot be seen: for a VT, and for a byte
// that only a second MSH has.
func bare(ln net.Listener, size int, ack []byte, checking bool, wg *sync.WaitGroup) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			buf := make([]byte, max(4096, size+3))
			n := 0
			for {
				k, err := conn.Read(buf[n:])
				if err != nil {
					return
				}
				end := bytes.IndexByte(buf[n:n+k], 0x1c)
				if checking && (bytes.IndexByte(buf[max(n, 1):n+k], 0x0b) >= 0 || bytes.IndexByte(buf[max(n, 8):n+k], '~') >= 0) {
					return
				}
				if n += k; end < 0 {
					continue
				}
				if _, err := conn.Write(ack); err != nil {
					return
				}
				n = 0
			}
		})
	}
}

// rig is a server with clients that can be run for a while.
type rig struct {
	frame []byte
	conns []net.Conn
	bufs  [][4096]byte
	count int64
}

func newRig(b *testing.B, dial func() net.Conn, conns int, frame []byte) *rig {
	r := &rig{frame: frame, bufs: make([][4096]byte, conns)}
	for range conns {
		r.conns = append(r.conns, dial())
	}
	b.Cleanup(func() {
		for _, c := range r.conns {
			c.Close()
		}
	})
	return r
}

// run lets the clients work for d and returns how long that took in the end.
func (r *rig) run(d time.Duration) time.Duration {
	var (
		on    atomic.Bool
		count atomic.Int64
		wg    sync.WaitGroup
	)
	on.Store(true)
	start := time.Now()
	for i, conn := range r.conns {
		wg.Go(func() {
			n := int64(0)
			for on.Load() && r.exchange(conn, &r.bufs[i]) {
				n++
			}
			count.Add(n)
		})
	}
	time.Sleep(d)
	on.Store(false)
	wg.Wait()
	r.count += count.Load()
	return time.Since(start)
}

// exchange sends the frame and waits for the answer.
func (r *rig) exchange(conn net.Conn, buf *[4096]byte) bool {
	if _, err := conn.Write(r.frame); err != nil {
		return false
	}
	for n := 0; ; {
		k, err := conn.Read(buf[n:])
		if err != nil {
			return false
		}
		if n += k; n > 1 && buf[n-2] == 0x1c && buf[n-1] == '\r' {
			return true
		}
	}
}

// BenchmarkServer compares the Server with the least that can be done with
// frames. Both run in turn, for a moment each, so that whatever else the machine
// does hits both; ratio is the Server's messages per second by the other's, and
// ratio-checking that by those of the least that notices what was lost.
func BenchmarkServer(b *testing.B) {
	for _, mode := range []string{"plain", "TLS", "mTLS"} {
		for _, conns := range []int{1, 16, 256} {
			for _, size := range []int{255, 4 << 10, 64 << 10, 1 << 20} {
				b.Run(fmt.Sprintf("%s/%dconns/%dB", mode, conns, size), func(b *testing.B) { benchServer(b, mode, conns, size) })
			}
		}
	}
}

func benchServer(b *testing.B, mode string, conns, size int) {
	text := message(size)
	framed, err := mllp.AppendFrame(nil, []byte(text))
	require.NoError(b, err)
	var server, client *tls.Config
	if mode != "plain" {
		p := pki()
		server = &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS13}
		client = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13}
		if mode == "mTLS" {
			server.ClientCAs, server.ClientAuth = p.ca.Pool(), tls.RequireAndVerifyClientCert
			client.Certificates = []tls.Certificate{p.client.TLS()}
		}
	}
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		return ln
	}
	dialer := func(ln net.Listener) func() net.Conn {
		return func() net.Conn {
			conn, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(b, err)
			if client != nil {
				tc := tls.Client(conn, client)
				require.NoError(b, tc.Handshake())
				return tc
			}
			return conn
		}
	}
	var h mllp.Header
	require.NoError(b, h.Parse([]byte(text)))
	ack, err := mllp.AppendFrame(nil, mllp.AppendAck(nil, &h, mllp.AA, "", []byte("0123456789"), time.Now()))
	require.NoError(b, err)

	var wg sync.WaitGroup
	srv := &mllp.Server{
		Handler:   mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
		TLSConfig: server, MaxConnsPerHost: -1, MaxBufferedBytes: 1 << 30, MaxBufferedBytesPerHost: -1,
	}
	ours := listen()
	wg.Go(func() { srv.Serve(b.Context(), ours) })
	theirs := [2]net.Listener{listen(), listen()}
	for i, ln := range theirs {
		if server != nil {
			ln = tls.NewListener(ln, server)
		}
		wg.Go(func() { bare(ln, size, ack, i == 1, &wg) })
	}
	b.Cleanup(wg.Wait)
	b.Cleanup(func() {
		srv.Close()
		theirs[0].Close()
		theirs[1].Close()
	})

	rigs := []*rig{newRig(b, dialer(theirs[0]), conns, framed), newRig(b, dialer(theirs[1]), conns, framed), newRig(b, dialer(ours), conns, framed)}
	const slice = 20 * time.Millisecond
	for _, r := range rigs {
		r.run(slice)
	}
	var rates [3]float64
	var took [3]time.Duration
	for i := range rigs {
		rigs[i].count = 0
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, r := range rigs {
			took[i] += r.run(slice)
		}
	}
	for i, r := range rigs {
		rates[i] = float64(r.count) / took[i].Seconds()
	}
	b.ReportMetric(rates[0], "least-msg/s")
	b.ReportMetric(rates[2], "msg/s")
	b.ReportMetric(rates[2]/rates[0], "ratio")
	b.ReportMetric(rates[2]/rates[1], "ratio-checking")
	b.ReportMetric(0, "ns/op")
}
