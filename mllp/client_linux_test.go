package mllp_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/mllp"
)

func TestALocalPortCanBeUsedAgainAtOnce(t *testing.T) {
	came := make(chan string, 9)
	addr := listen(t, "127.0.0.1", func(nc *net.TCPConn, frames *mllp.Reader) {
		came <- nc.RemoteAddr().String()
		acceptAll(nc, frames)
	})
	// An address and a port that nobody else comes from.
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 55), Port: addr.Port}
	c := &mllp.Client{Addr: addr.String(), DialPerMessage: true, MaxBackoff: time.Second, Dialer: &mllp.Dialer{LocalAddr: from.String()}}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	for _, id := range []string{"M1", "M2"} {
		// To the same peer Linux lets a port go a second after its last connection.
		_, err := c.Send(ctx, adt(id))
		require.NoError(t, err)
		assert.Equal(t, from.String(), <-came)
	}
	assert.Less(t, time.Since(began), 20*time.Second, "it is not the end of TIME_WAIT that is waited for")
	require.NoError(t, c.Close()) // this end has closed first
	_, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", addr.String())
	require.ErrorIs(t, err, syscall.EADDRINUSE, "without the option the port is taken for a minute")
}

func TestALocalAddressIsUsed(t *testing.T) {
	came := make(chan net.Addr, 1)
	addr := listen(t, "127.0.0.1", func(nc *net.TCPConn, _ *mllp.Reader) { came <- nc.RemoteAddr() })
	for local, want := range map[string]string{"": "127.0.0.1", "127.0.0.55": "127.0.0.55", "127.0.0.55:0": "127.0.0.55", ":0": "127.0.0.1"} {
		c, err := (&mllp.Dialer{LocalAddr: local}).DialContext(t.Context(), "tcp", addr.String())
		require.NoError(t, err, local)
		assert.Equal(t, want, (<-came).(*net.TCPAddr).IP.String())
		require.NoError(t, c.Close())
	}
}

// TestAReceiverThatVanishesIsNoticed has one in a network of its own (RFC 2544),
// whose cable is then pulled.
func TestAReceiverThatVanishesIsNoticed(t *testing.T) {
	ip := interop.Need(t, "ip")
	if os.Getuid() != 0 {
		interop.Missing(t, "making a network namespace takes root")
	}
	name := "cw" + strconv.Itoa(os.Getpid())
	run := func(args ...string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, ip, args...).CombinedOutput()
		if err != nil {
			t.Logf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return err
	}
	if run("netns", "add", name) != nil {
		interop.Missing(t, "a network namespace cannot be made")
	}
	t.Cleanup(func() { assert.NoError(t, run("netns", "del", name)) })
	t.Cleanup(func() { _ = run("link", "del", name+"a") }) // both ends of the cable, if there is one yet
	for _, args := range []string{
		"link add " + name + "a type veth peer name " + name + "b netns " + name,
		"addr add 198.18.77.1/30 dev " + name + "a", "link set " + name + "a up",
		"-n " + name + " addr add 198.18.77.2/30 dev " + name + "b", "-n " + name + " link set " + name + "b up",
	} {
		require.NoError(t, run(strings.Fields(args)...))
	}
	ln := listenIn(t, name, "198.18.77.2:0")
	serveOn(t, ln, func(nc *net.TCPConn, frames *mllp.Reader) {
		nc.SetLinger(0) // or it would outlive the test, waiting for an answer
		acceptAll(nc, frames)
	})
	addr := ln.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	closed := make(chan mllp.Event, 1)
	idle := &mllp.Client{
		Addr: addr, Observe: func(e mllp.Event) {
			if e.Kind == mllp.EventClosed {
				closed <- e
			}
		},
		Dialer: &mllp.Dialer{NetDialer: &net.Dialer{ // the default's probes, in less time
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2},
		}},
	}
	defer idle.Close()
	busy := &mllp.Client{Addr: addr, Dialer: &mllp.Dialer{Timeout: time.Second}}
	defer busy.Close()
	for _, c := range []*mllp.Client{idle, busy} {
		_, err := c.Send(ctx, adt("M1"))
		require.NoError(t, err)
	}
	require.NoError(t, run("-n", name, "link", "set", name+"b", "down"))
	_, err := busy.Send(ctx, adt("M2"))
	failed(t, err, mllp.Unknown)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	select {
	case e := <-closed:
		assert.Equal(t, mllp.ReasonReadFailed, e.Reason)
		assert.Zero(t, idle.Health().Conns)
	case <-ctx.Done():
		t.Fatal("the Client did not notice within a minute that its receiver is gone")
	}
}

// listenIn listens in a network namespace.
func listenIn(t *testing.T, namespace, addr string) net.Listener {
	t.Helper()
	setns, ok := map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH] // which package syscall has for some only
	if !ok {
		interop.Missing(t, "the number of setns is not known here")
	}
	type result struct {
		ln  net.Listener
		err error
	}
	ch := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and its namespace with it
		ns, err := os.Open("/var/run/netns/" + namespace)
		if err != nil {
			ch <- result{err: err}
			return
		}
		defer ns.Close()
		if _, _, errno := syscall.Syscall(setns, ns.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
			ch <- result{err: os.NewSyscallError("setns", errno)}
			return
		}
		ln, err := net.Listen("tcp", addr)
		ch <- result{ln, err}
	}()
	r := <-ch
	require.NoError(t, r.err)
	return r.ln
}
