package meshclient_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// A framer is a MESH that speaks HTTP/2 by hand: it answers every request with a
// message id, but does to the second what refuse says.
type framer struct {
	refuse func(w io.Writer, stream uint32)

	mu sync.Mutex
	// What the requests' headers were, as they came: the server has asked for no
	// compression that depends on what was before, so that what is the same twice was
	// sent twice, its token included. guarded by mu
	headers []string
	conns   int // guarded by mu
}

// frame returns one frame (RFC 9113, section 4.1).
func frame(kind, flags byte, stream uint32, payload string) []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))[1:]
	head = append(head, kind, flags)
	return append(binary.BigEndian.AppendUint32(head, stream), payload...)
}

func (f *framer) serve(c net.Conn) {
	defer c.Close()
	f.mu.Lock()
	f.conns++
	f.mu.Unlock()
	if _, err := io.ReadFull(c, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	c.Write(frame(4, 0, 0, "\x00\x01\x00\x00\x00\x00")) // SETTINGS: a header table of 0 bytes
	acknowledged := make(chan struct{})
	var answering sync.WaitGroup
	defer answering.Wait()
	gone := make(chan struct{})
	defer close(gone)
	var writing sync.Mutex
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(c, payload); err != nil {
			return
		}
		stream := binary.BigEndian.Uint32(head[5:])
		switch kind, flags := head[3], head[4]; {
		case kind == 1: // HEADERS
			f.mu.Lock()
			f.headers = append(f.headers, string(payload))
			second := len(f.headers) == 2
			f.mu.Unlock()
			answering.Go(func() {
				select {
				case <-acknowledged: // from here on no header depends on another
				case <-gone:
					return
				}
				writing.Lock()
				defer writing.Unlock()
				if second {
					f.refuse(c, stream)
					return
				}
				c.Write(frame(1, 4, stream, "\x08\x03202")) // :status 202
				c.Write(frame(0, 1, stream, `{"message_id":"M1"}`))
			})
		case kind == 4 && flags == 1:
			close(acknowledged)
		case kind == 4:
			writing.Lock()
			c.Write(frame(4, 1, 0, ""))
			writing.Unlock()
		case kind == 6 && flags == 0: // PING
			writing.Lock()
			c.Write(frame(6, 1, 0, string(payload)))
			writing.Unlock()
		}
	}
}

// HTTP/2 lets a server refuse what a client has already sent, and net/http would send
// it again as it was, with a token that was used.
func TestARequestThatHTTP2RefusesIsSentAgainWithATokenOfItsOwn(t *testing.T) {
	ca := testpki.NewCA(t, "authority")
	for name, refuse := range map[string]func(io.Writer, uint32){
		"GOAWAY":         func(w io.Writer, _ uint32) { w.Write(frame(7, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00")) },
		"REFUSED_STREAM": func(w io.Writer, stream uint32) { w.Write(frame(3, 0, stream, "\x00\x00\x00\x07")) },
	} {
		for op, call := range map[string]func(*meshclient.Client) error{
			"send":        func(c *meshclient.Client) error { _, err := c.Send(bounded(t), message([]byte("x"))); return err },
			"long send":   func(c *meshclient.Client) error { _, err := c.Send(bounded(t), message(noise(60_000, 1))); return err },
			"acknowledge": func(c *meshclient.Client) error { return c.Acknowledge(bounded(t), "M1") },
			"inbox":       func(c *meshclient.Client) error { _, err := c.Inbox(bounded(t), nil); return err },
		} {
			t.Run(name+", "+op, func(t *testing.T) {
				f := &framer{refuse: refuse}
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				secure := tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{ca.Server("127.0.0.1").TLS()}, NextProtos: []string{"h2"}})
				var serving sync.WaitGroup
				serving.Go(func() {
					for {
						conn, err := secure.Accept()
						if err != nil {
							return
						}
						serving.Go(func() { f.serve(conn) })
					}
				})
				c := connect(t, serve(t, meshtest.Options{}), alice, func(c *meshclient.Config) {
					c.BaseURL, c.CACert = "https://"+ln.Addr().String(), string(ca.PEM())
				})
				t.Cleanup(func() {
					c.Close()
					ln.Close()
					serving.Wait()
				})
				require.NoError(t, c.Ping(bounded(t)))
				require.NoError(t, call(c))
				f.mu.Lock()
				defer f.mu.Unlock()
				assert.Len(t, f.headers, 3)
				seen := make(map[string]bool)
				for _, h := range f.headers {
					assert.False(t, seen[h], "a token was sent twice")
					seen[h] = true
				}
			})
		}
	}
}
