package httpsender_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
)

// echo answers with what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(r.ContentLength))
	}
	io.Copy(w, r.Body)
}

// rivals returns a Sender and a bare client with the same settings of transport,
// for a server with TLS and HTTP/1.1.
func rivals(tb testing.TB) (sender, bare func(body []byte) error) {
	p := newPKI(tb)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	srv.TLS = p.mutual()
	srv.StartTLS()
	tb.Cleanup(srv.Close)
	props := p.known()
	props.ReloadInterval = 0 // as it is by default: reading the files is not what is measured
	s := &httpsender.Sender{TLS: props, ProxyURL: httpsender.DirectOnly, DisableHTTP2: true}
	tb.Cleanup(func() { s.Close() })
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: p.ca.Pool(), Certificates: []tls.Certificate{p.ca.Client("c").TLS()}},
		MaxConnsPerHost: 16, MaxIdleConnsPerHost: 16, IdleConnTimeout: 55 * time.Second,
		ResponseHeaderTimeout: time.Minute, ExpectContinueTimeout: time.Second,
		Protocols: new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	tb.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	with := func(do func(*http.Request) (*http.Response, error)) func([]byte) error {
		buf := make([]byte, 64<<10)
		return func(body []byte) error {
			r, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, srv.URL, bytes.NewReader(body))
			if err != nil {
				return err
			}
			resp, err := do(r)
			if err != nil {
				return err
			}
			n := 0
			for err == nil {
				var k int
				k, err = resp.Body.Read(buf)
				n += k
			}
			resp.Body.Close()
			if !errors.Is(err, io.EOF) || n != len(body) {
				return fmt.Errorf("%d bytes: %w", n, err)
			}
			return nil
		}
	}
	return with(s.Do), with(client.Do)
}

// BenchmarkExchange sends a body and reads it back. The two sides take turns, and
// are compared by their medians and, for a machine that does other things too, by
// the tenth of their times that was least disturbed. sender/bare and best-tenth are
// quotients of times: below 1 the Sender is the faster one.
func BenchmarkExchange(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			sender, bare := rivals(b)
			body := make([]byte, size)
			var took [2][]time.Duration
			b.ReportAllocs()
			b.SetBytes(int64(2 * 2 * size))
			for n := 0; b.Loop(); n++ {
				for i := range 2 {
					which := (i + n) % 2 // who comes first alternates
					start := time.Now()
					if err := []func([]byte) error{sender, bare}[which](body); err != nil {
						b.Fatal(err)
					}
					took[which] = append(took[which], time.Since(start))
				}
			}
			at := func(d []time.Duration, percent int) float64 {
				slices.Sort(d)
				return float64(d[len(d)*percent/100])
			}
			b.ReportMetric(at(took[0], 50)/at(took[1], 50), "sender/bare")
			b.ReportMetric(at(took[0], 10)/at(took[1], 10), "best-tenth")
			b.ReportMetric(at(took[1], 50), "bare-ns")
		})
	}
}

func TestAllocationsAboveABareClient(t *testing.T) {
	if raceDetector {
		t.Skip("skipped: the race detector has allocations of its own")
	}
	sender, bare := rivals(t)
	body := make([]byte, 1<<10)
	count := func(f func([]byte) error) float64 {
		require.NoError(t, f(body))
		return testing.AllocsPerRun(200, func() {
			if err := f(body); err != nil {
				t.Error(err)
			}
		})
	}
	theirs, ours := count(bare), count(sender)
	t.Logf("%.0f allocations for a request, %.0f with a bare client", ours, theirs)
	if ours > theirs+16 {
		t.Errorf("%.0f allocations for a request, a bare client has %.0f: at most 16 more", ours, theirs)
	}
}
