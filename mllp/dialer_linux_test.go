package mllp

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAVanishedPeerIsFoundByKeepAliveWithinTwoMinutes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := new(Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	conn, err := c.raw.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	option := func(level, name int) (value int) {
		require.NoError(t, conn.Control(func(fd uintptr) {
			value, err = syscall.GetsockoptInt(int(fd), level, name)
		}))
		require.NoError(t, err)
		return value
	}
	assert.Equal(t, 1, option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE))
	assert.Equal(t, 60, option(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE))
	assert.Equal(t, 15, option(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL))
	assert.Equal(t, 4, option(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT))
	assert.Equal(t, 1, option(syscall.IPPROTO_TCP, syscall.TCP_NODELAY))
	assert.Equal(t, 120_000, option(syscall.IPPROTO_TCP, tcpUserTimeout), "also if it has something to confirm")
}
