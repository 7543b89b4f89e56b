package mllp_test

import (
	"context"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// keeping is a listener that hands its connections to the test too.
type keeping struct {
	net.Listener
	conns chan *net.TCPConn
}

func (k *keeping) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	if err == nil {
		k.conns <- c.(*net.TCPConn)
	}
	return c, err
}

func TestAVanishedClientIsFoundByKeepAliveWithinTwoMinutes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	kept := &keeping{ln, make(chan *net.TCPConn, 1)}
	srv := &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), kept) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	c.Write([]byte(frame(msgA)))
	_, err = mllp.NewReader(c, 0).Next()
	require.NoError(t, err)
	raw, err := (<-kept.conns).SyscallConn()
	require.NoError(t, err)
	option := func(level, name int) (value int) {
		require.NoError(t, raw.Control(func(fd uintptr) {
			value, err = syscall.GetsockoptInt(int(fd), level, name)
		}))
		require.NoError(t, err)
		return value
	}
	assert.Equal(t, 1, option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE))
	assert.Equal(t, 60, option(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE))
	assert.Equal(t, 15, option(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL))
	assert.Equal(t, 4, option(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT))
	require.NoError(t, srv.Close())
	<-served
}
