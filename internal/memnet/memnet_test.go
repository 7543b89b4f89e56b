package memnet

import (
	"crypto/rand"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBytesArriveInOrderAndEndAfterCloseWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := Listen()
		client, err := ln.Dial()
		require.NoError(t, err)
		server, err := ln.Accept()
		require.NoError(t, err)
		assert.Equal(t, client.LocalAddr(), server.RemoteAddr())
		sent := make([]byte, 3*window)
		rand.Read(sent)
		go func() {
			client.Write(sent)
			client.CloseWrite()
		}()
		got, err := io.ReadAll(server)
		require.NoError(t, err)
		assert.Equal(t, sent, got)
		_, err = server.Write([]byte("reply"))
		require.NoError(t, err)
		require.NoError(t, server.Close())
		got, err = io.ReadAll(client)
		require.NoError(t, err)
		assert.Equal(t, "reply", string(got))
		require.NoError(t, client.Close())
		assert.ErrorIs(t, client.Close(), net.ErrClosed)
	})
}

func TestDeadlinesAreExactAndCanBeMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := Pipe()
		start := time.Now()
		server.SetReadDeadline(start.Add(3 * time.Second))
		_, err := server.Read(make([]byte, 1))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 3*time.Second, time.Since(start))
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		assert.True(t, ne.Timeout())

		server.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { server.SetReadDeadline(time.Now()) })
		_, err = server.Read(make([]byte, 1))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 4*time.Second, time.Since(start))

		server.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := server.Write(make([]byte, window+1))
		assert.Equal(t, window, n)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 5*time.Second, time.Since(start))
		client.Close()
		server.Close()
	})
}

func TestResets(t *testing.T) {
	for name, abort := range map[string]func(c *Conn){
		"abort":                   (*Conn).Abort,
		"close with unread bytes": func(c *Conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			client, server := Pipe()
			_, err := server.Write([]byte("lost"))
			require.NoError(t, err)
			_, err = client.Write([]byte("unread"))
			require.NoError(t, err)
			abort(server)
			_, err = client.Read(make([]byte, 10))
			assert.ErrorIs(t, err, syscall.ECONNRESET)
			_, err = client.Write([]byte("x"))
			assert.Error(t, err)
			_, err = server.Read(make([]byte, 10))
			assert.ErrorIs(t, err, net.ErrClosed)
		})
	}
}

func TestAClosedListenerRefuses(t *testing.T) {
	ln := Listen()
	waiting, err := ln.Dial()
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	_, err = waiting.Read(make([]byte, 1))
	assert.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = ln.Accept()
	assert.ErrorIs(t, err, net.ErrClosed)
	_, err = ln.Dial()
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
}
