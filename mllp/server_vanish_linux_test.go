package mllp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/mllp"
)

// A cable between two network namespaces, the test's own and another.
type cable struct {
	t    *testing.T
	far  string // the other namespace
	near string // the interface on this side
	ip   string // of this side
}

// lay makes a cable, or skips the test where that is not allowed.
func lay(t *testing.T) *cable {
	t.Helper()
	interop.Need(t, "ip")
	if os.Geteuid() != 0 {
		interop.Missing(t, "network namespaces need root")
	}
	// Of the block for tests of this kind (RFC 2544).
	subnet := fmt.Sprintf("198.18.%d.", os.Getpid()%256)
	c := &cable{t: t, far: fmt.Sprintf("carewire-%d", os.Getpid()), near: fmt.Sprintf("cw%d", os.Getpid()), ip: subnet + "1"}
	if out, err := ip("netns", "add", c.far); err != nil {
		interop.Missing(t, "no network namespace can be made: "+out)
	}
	t.Cleanup(func() {
		ip("link", "del", c.near) // and with it the other end
		ip("netns", "del", c.far)
	})
	if out, err := ip("link", "add", c.near, "type", "veth", "peer", "name", "eth0", "netns", c.far); err != nil {
		interop.Missing(t, "no virtual cable can be made: "+out)
	}
	for _, line := range []string{
		"addr add " + c.ip + "/30 dev " + c.near, "link set " + c.near + " up",
		"-n " + c.far + " addr add " + subnet + "2/30 dev eth0", "-n " + c.far + " link set eth0 up",
	} {
		out, err := ip(strings.Fields(line)...)
		require.NoError(t, err, "ip %s: %s", line, out)
	}
	return c
}

// pull takes the cable away without a word to either side.
func (c *cable) pull() {
	out, err := ip("-n", c.far, "link", "set", "eth0", "down")
	require.NoError(c.t, err, out)
}

func ip(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestAClientWhoseCableIsPulledIsFoundAndItsSlotFreed(t *testing.T) {
	c := lay(t)
	// Three seconds in place of two minutes.
	restore := mllp.SetKeepAlive(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2})
	defer restore()
	closed := make(chan mllp.Event, 10)
	srv := &mllp.Server{
		MaxConns: 1,
		Handler:  mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
		Observe: func(e mllp.Event) {
			if e.Kind == mllp.EventClosed {
				closed <- e
			}
		},
	}
	ln, err := net.Listen("tcp", c.ip+":0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	defer func() {
		srv.Close()
		<-served
	}()

	exe, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := exec.CommandContext(ctx, "ip", "netns", "exec", c.far, exe)
	client.Env = append(os.Environ(), roleVariable+"=client plain "+ln.Addr().String()+" 1")
	stdin, err := client.StdinPipe()
	require.NoError(t, err)
	stdout, err := client.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, client.Start())
	defer func() {
		stdin.Close()
		client.Wait()
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)

	select { // the control: a living peer is left alone
	case e := <-closed:
		require.Fail(t, "closed before the cable was pulled", "%v", e)
	case <-time.After(4 * time.Second):
	}
	require.Equal(t, 1, srv.Conns())
	c.pull()
	began := time.Now()
	select {
	case e := <-closed:
		assert.Equal(t, mllp.ReasonReadFailed, e.Reason, "%v", e.Err)
		assert.NotErrorIs(t, e.Err, io.EOF)
	case <-time.After(30 * time.Second):
		require.Fail(t, "the client's end was not found")
	}
	assert.Less(t, time.Since(began), 10*time.Second)
	require.Eventually(t, func() bool { return srv.Conns() == 0 }, 10*time.Second, 10*time.Millisecond, "the slot is free")
}
