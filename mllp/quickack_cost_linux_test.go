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
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer conn.Close()

	var whole quickAck
	for _, n := range []int{255, 3, readChunk, 16} {
		whole.after(n)
		whole.before(conn)
	}
	assert.Zero(t, whole.conn, "no system call")

	var pieces quickAck
	pieces.after(1)
	pieces.before(conn)
	assert.NotZero(t, pieces.conn)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		pieces.after(253)
		pieces.before(conn)
	}))

	var other quickAck // of a connection that is not TCP's
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	other.after(1)
	other.before(a)
	assert.Zero(t, other.conn)
}
