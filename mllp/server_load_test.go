//go:build unix

package mllp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// TestMemoryOfIdleConnections compares the resident memory of a Server with
// 10,000 idle connections with that of the least that can be done with frames
// (see bare). Servers and clients are processes of their own; every connection
// has carried one message.
func TestMemoryOfIdleConnections(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes a minute, and the race detector has a memory of its own")
	}
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	conns := 10_000
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	conns = int(min(uint64(conns), limit.Max-100))
	for _, mode := range []string{"plain", "TLS"} {
		t.Run(mode, func(t *testing.T) {
			least := memoryPerConn(t, "least "+mode, conns)
			ours := memoryPerConn(t, "server "+mode, conns)
			t.Logf("%d connections, bytes for each: %d, the least %d, ratio %.2f", conns, ours, least, float64(ours)/float64(least))
			assert.LessOrEqual(t, float64(ours), 1.25*float64(least))
		})
	}
}

// memoryPerConn returns the bytes that a server takes for an idle connection.
func memoryPerConn(t *testing.T, role string, conns int) int {
	t.Helper()
	server := startRole(t, role)
	addr := server.line()
	before := server.ask("memory")
	client := startRole(t, fmt.Sprintf("client %s %s %d", strings.Fields(role)[1], addr, conns))
	require.Equal(t, "ready", client.line())
	after := server.ask("memory")
	client.end()
	server.end()
	return (after - before) / conns
}

// roleVariable makes the test binary play a role in place of running tests.
const roleVariable = "CAREWIRE_MLLP_TEST_ROLE"

// actor is a process that plays a role.
type actor struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func startRole(t *testing.T, role string) *actor {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return &actor{t: t, cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
}

func (a *actor) line() string {
	a.t.Helper()
	require.True(a.t, a.lines.Scan(), "%v has ended", a.cmd.Env[len(a.cmd.Env)-1])
	return a.lines.Text()
}

func (a *actor) ask(what string) int {
	a.t.Helper()
	fmt.Fprintln(a.stdin, what)
	n, err := strconv.Atoi(a.line())
	require.NoError(a.t, err)
	return n
}

func (a *actor) end() {
	a.stdin.Close()
	a.cmd.Wait()
}

// play plays a role until standard input ends.
func play(role string) {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
	}
	var limit syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	limit.Cur = limit.Max
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	words := strings.Fields(role)
	secure := words[1] == "TLS"
	text := message(255)
	if words[0] == "client" {
		n, err := strconv.Atoi(words[3])
		must(err)
		connectAll(words[2], n, secure, []byte(frame(text)), must)
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(ln.Addr())
	var config *tls.Config
	if secure {
		config = &tls.Config{Certificates: []tls.Certificate{pki().server.TLS()}, MinVersion: tls.VersionTLS13}
	}
	if words[0] == "server" {
		srv := &mllp.Server{
			TLSConfig: config, MaxConns: -1, MaxConnsPerHost: -1,
			Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
		}
		go srv.Serve(context.Background(), ln)
	} else {
		if secure {
			ln = tls.NewListener(ln, config)
		}
		var h mllp.Header
		must(h.Parse([]byte(text)))
		ack, err := mllp.AppendFrame(nil, mllp.AppendAck(nil, &h, mllp.AA, "", []byte("0123456789"), time.Now()))
		must(err)
		go bare(ln, len(text), ack, false, new(sync.WaitGroup))
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		debug.FreeOSMemory()
		time.Sleep(time.Second)
		debug.FreeOSMemory()
		statm, err := os.ReadFile("/proc/self/statm")
		must(err)
		pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
		must(err)
		fmt.Println(pages * os.Getpagesize())
	}
}

// connectAll makes n connections that have each carried one message.
func connectAll(addr string, n int, secure bool, framed []byte, must func(error)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for next.Add(1) <= int64(n) {
				conn, err := net.Dial("tcp", addr)
				must(err)
				if secure {
					conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
				}
				_, err = conn.Write(framed)
				must(err)
				k, err := conn.Read(buf)
				must(err)
				if !bytes.Contains(buf[:k], []byte("MSA|AA|")) {
					must(fmt.Errorf("%q", buf[:k]))
				}
				kept.Store(conn, nil)
			}
		})
	}
	wg.Wait()
}

// kept keeps connections from being closed by the garbage collector.
var kept sync.Map

// TestTheLongestMessageTakesTimeInProportion sends 16 MiB, the default limit.
func TestTheLongestMessageTakesTimeInProportion(t *testing.T) {
	addr, delivered := listener(t, nil)
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	r := mllp.NewReader(c, 0)
	for _, size := range []int{1 << 20, 16 << 20} {
		text := message(size)
		framed := []byte(frame(text))
		start := time.Now()
		_, err = c.Write(framed)
		require.NoError(t, err)
		_, err = r.Next()
		require.NoError(t, err)
		t.Logf("%d bytes: %v", size, time.Since(start))
		all := delivered()
		assert.True(t, all[len(all)-1] == text, "delivered to the byte")
	}
}

// TestHalfOpenFramesDoNotSlowGoodSenders has 16 senders work while 1,000 others
// have begun frames and do not end them.
func TestHalfOpenFramesDoNotSlowGoodSenders(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("measures time")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &mllp.Server{
		MaxConns: -1, MaxConnsPerHost: -1,
		Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	framed := []byte(frame(message(255)))
	p99 := func() time.Duration {
		var mu sync.Mutex
		var all []time.Duration
		var wg sync.WaitGroup
		for range 16 {
			c, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			wg.Go(func() {
				defer c.Close()
				r := mllp.NewReader(c, 0)
				took := make([]time.Duration, 2000)
				for i := range took {
					start := time.Now()
					if _, err := c.Write(framed); err != nil {
						return
					}
					if _, err := r.Next(); err != nil {
						return
					}
					took[i] = time.Since(start)
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, took...)
			})
		}
		wg.Wait()
		require.Len(t, all, 16*2000)
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	half := []byte("\x0b" + message(100_000))
	// Other work on the machine can spoil a round, but not make a bad server good.
	var ratios []float64
	for range 5 {
		alone := p99()
		var open []net.Conn
		for range 1000 {
			c, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			_, err = c.Write(half)
			require.NoError(t, err)
			open = append(open, c)
		}
		among := p99()
		for _, c := range open {
			c.Close()
		}
		ratios = append(ratios, float64(among)/float64(alone))
		if ratios[len(ratios)-1] <= 2 {
			break
		}
	}
	t.Logf("p99 with half-open frames by p99 without: %.2f", ratios)
	assert.LessOrEqual(t, slices.Min(ratios), 2.0)
	require.NoError(t, srv.Close())
	<-served
}
