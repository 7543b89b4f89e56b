package mllp

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnlyForSendersOfPiecesAreTCPsAcknowledgementsHurried(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	tcp, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer tcp.Close()

	var c conn
	for _, n := range []int{255, 3, readChunk, 16} {
		c.inPieces(n)
		assert.Nil(t, c.quick, "whole frames: no system call")
	}
	c.inPieces(1)
	require.NotNil(t, c.quick)
	c.quick.before(tcp)
	assert.NotZero(t, c.quick.conn)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c.inPieces(253)
		c.quick.before(tcp)
	}))

	var other quickAck // of a connection that is not TCP's
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	other.before(a)
	assert.Zero(t, other.conn)
}
