package engine_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/barecommit"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
	"github.com/carewire/carewire/mllp"
)

// BenchmarkEngine measures acknowledged messages of 1 KiB a second over MLLP and,
// in the same run and by turns, what a bare group commit on SQLite does with as
// many callers. "ratio" is ours to that.
//
// Ours, for each message: the least stop-and-wait sender that Go can do, in this
// process, writes a frame to a TCP connection of loopback; the server reads and
// checks it; the store commits a row for the message with its control ID and
// source map, one for its delivery, and the counters of the channel and of the
// queue; then the server writes AA, which the sender reads. With mutual TLS, both
// ways are encrypted. TLS files are looked at as often as in production.
//
// Bare, for each message: a caller in this process hands a channel to the loop,
// which commits one row with a blob of the same size. No network, no second table.
//
// Both commit with synchronous=FULL, once for all that wait, and move their log
// into the database themselves. Both have done so once before they are measured:
// until then the log is a file that grows, and is slower to sync.
//
// Queued: the destination is down, so that intake alone is measured. Delivered:
// it works meanwhile, and is another MLLP server in this process; what is queued
// when the last acknowledgement has come is delivered outside of the measured
// time.
func BenchmarkEngine(b *testing.B) {
	p := newPKI(b)
	for _, conns := range []int{1, 50} {
		for _, mode := range []string{"plain", "mutual TLS"} {
			for _, destination := range []string{"queued", "delivered"} {
				b.Run(fmt.Sprintf("conns=%d/%s/%s", conns, mode, destination), func(b *testing.B) {
					benchmarkEngine(b, conns, mode == "mutual TLS", destination == "queued", p)
				})
			}
		}
	}
}

func benchmarkEngine(b *testing.B, conns int, secure, down bool, p *pki) {
	st, err := sqlite.Open(b.Context(), b.TempDir(), nil)
	require.NoError(b, err)
	defer st.Close()
	lab := newReceiver(b)
	if down {
		lab.down()
	}
	ch := channel("adt", toTCP("lab", lab.addr))
	ch.Destinations[0].Queue.RetryInterval = time.Hour
	dial := new(net.Dialer).DialContext
	if secure {
		ch.Source.TCP.TLS = p.server()
		pair := p.ca.Client("bench").TLS()
		dial = (&tls.Dialer{Config: &tls.Config{RootCAs: p.ca.Pool(), Certificates: []tls.Certificate{pair}}}).DialContext
	}
	e := start(b, st, ch)
	defer e.stop()
	senders := make([]sender, conns)
	for i := range senders {
		conn, err := dial(b.Context(), "tcp", e.addr("adt"))
		require.NoError(b, err)
		defer conn.Close()
		senders[i] = sender{conn, make([]byte, 4096)}
	}
	msg := message("BENCH-1")
	msg = append(msg, "OBX|1|TX|||"...)
	for len(msg) < 1024 {
		msg = append(msg, 'x')
	}
	frame, err := mllp.AppendFrame(nil, msg)
	require.NoError(b, err)
	bare, err := barecommit.Open(b.Context(), b.TempDir(), len(msg))
	require.NoError(b, err)
	defer bare.Close()
	for range 12 {
		_, err := st.Intake(b.Context(), store.Intake{Channel: "another", Raw: make([]byte, 1<<20)})
		require.NoError(b, err)
	}
	elapsed(b, 50, 12<<20/len(msg), func(int) error { return bare.Put() })

	// In slices by turns, so that what the machine does meanwhile hits both.
	var ours, limit time.Duration
	const slices = 20
	b.ReportAllocs()
	b.ResetTimer()
	for i := range slices {
		n := b.N/slices + min(1, max(0, b.N%slices-i))
		ours += elapsed(b, conns, n, func(c int) error { return senders[c].send(frame) })
		b.StopTimer()
		if !down {
			// Deliveries lag behind: they must not run beside the limit's slice.
			eventually(b, "the queue is empty", func() bool { return e.stats("adt").Queued == 0 })
		}
		limit += elapsed(b, conns, n, func(int) error { return bare.Put() })
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/ours.Seconds(), "msg/s")
	b.ReportMetric(float64(b.N)/limit.Seconds(), "bare-msg/s")
	b.ReportMetric(limit.Seconds()/ours.Seconds(), "ratio")
}

// sender is the least that a sender can be, because its work is measured too.
type sender struct {
	net.Conn
	reply []byte
}

func (s *sender) send(frame []byte) error {
	if _, err := s.Write(frame); err != nil {
		return err
	}
	n := 0
	for !bytes.HasSuffix(s.reply[:n], []byte{0x1c, '\r'}) {
		m, err := s.Read(s.reply[n:])
		if err != nil {
			return err
		}
		n += m
	}
	if !bytes.Contains(s.reply[:n], []byte("\rMSA|AA|")) {
		return errors.New("not acknowledged")
	}
	return nil
}

// elapsed is how long n puts take, from as many callers.
func elapsed(b *testing.B, callers, n int, put func(caller int) error) time.Duration {
	begin := time.Now()
	var wg sync.WaitGroup
	for c := range callers {
		mine := n/callers + min(1, max(0, n%callers-c))
		wg.Go(func() {
			for range mine {
				if err := put(c); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}
