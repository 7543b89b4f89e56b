package mllp

import (
	"io"
	"net"
	"time"
)

// Outcome returns Acked or Nacked, as Ack.Code says, or Sent if there is none.
func (r *Reply) Outcome() Outcome {
	switch {
	case r.Ack.Code == "":
		return Sent
	case r.Ack.Code.Accepted():
		return Acked
	}
	return Nacked
}

// sent is the end of f under MatchNone: it has been written.
func (c *Conn) sent(f *flight) (*Reply, *SendError) {
	c.withdraw(f)
	return c.land(f, &Reply{Duration: time.Since(f.began)})
}

// drain reads, and throws away, until the connection ends: what the peer says
// under MatchNone must not fill the buffers until it stops reading.
func (c *Conn) drain() error {
	_, err := io.Copy(io.Discard, c.nc)
	if err == nil {
		err = io.EOF
	}
	return err
}

// closeTimeout is how long the last messages may take to arrive; crypto/tls gives
// its farewell as long.
const closeTimeout = 5 * time.Second

// finish closes a connection whose messages had no acknowledgements so that they
// arrive: closing at once, with bytes of the peer's unread or still to come, makes
// TCP throw away what has been written and not yet delivered.
func (c *Conn) finish() {
	if c.raw.SetDeadline(time.Now().Add(closeTimeout)) != nil {
		return
	}
	for _, nc := range [...]net.Conn{c.nc, c.raw} { // with TLS, first a close_notify
		if w, ok := nc.(interface{ CloseWrite() error }); ok && w.CloseWrite() != nil {
			return
		}
	}
	<-c.readerDone // the peer has ended too, or the deadline has passed
}
