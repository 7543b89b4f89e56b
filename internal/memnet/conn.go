package memnet

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes a connection holds in each direction.
const window = 64 << 10

// A Conn is one end of a connection.
type Conn struct {
	in, out       *stream
	local, remote net.Addr
}

// Read reads from the other end.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, wrap("read", err)
}

// Write waits while the other end does not read what is buffered.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, wrap("write", err)
}

// CloseWrite ends the stream to the other end, as a FIN does.
func (c *Conn) CloseWrite() error {
	c.out.update(func(s *stream) { s.ended = true })
	return nil
}

// Close closes both directions. If bytes are left that were not read, the other
// end gets a reset, as with TCP.
func (c *Conn) Close() error {
	unread, again := false, false
	c.in.update(func(s *stream) {
		unread, again = len(s.data) > 0, s.readerGone
		s.readerGone, s.data = true, nil
	})
	if again {
		return wrap("close", net.ErrClosed)
	}
	c.out.update(func(s *stream) {
		s.writerGone, s.ended = true, true
		if unread {
			s.data, s.reset = nil, true
		}
	})
	return nil
}

// Abort resets the connection: what is buffered is lost, and the other end gets
// ECONNRESET.
func (c *Conn) Abort() {
	c.in.update(func(s *stream) { s.readerGone, s.reset, s.data = true, true, nil })
	c.out.update(func(s *stream) { s.writerGone, s.reset, s.data = true, true, nil })
}

// LocalAddr returns the address of this end, a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the other end, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the time after which Read fails with
// os.ErrDeadlineExceeded; the zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.in.reading.set(c.in, t) }

// SetWriteDeadline is SetReadDeadline for Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.out.writing.set(c.out, t) }

func wrap(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // io.EOF is passed on as it is
		return err
	}
	return opError(op, err)
}

// A stream is one direction of a connection.
type stream struct {
	mu      sync.Mutex
	changed *sync.Cond

	// guarded by mu
	data             []byte
	ended            bool // no more bytes will come
	reset            bool
	readerGone       bool // closed by the reading end
	writerGone       bool // closed by the writing end
	reading, writing deadline
}

func newStream() *stream {
	s := new(stream)
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) update(change func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	s.changed.Broadcast()
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readerGone:
			return 0, net.ErrClosed
		case s.reading.passed():
			return 0, os.ErrDeadlineExceeded
		case len(s.data) > 0 || len(p) == 0:
			n := copy(p, s.data)
			if s.data = s.data[n:]; len(s.data) == 0 {
				s.data = nil
			}
			s.changed.Broadcast()
			return n, nil
		case s.reset:
			return 0, syscall.ECONNRESET
		case s.ended:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.writerGone:
			return n, net.ErrClosed
		case s.writing.passed():
			return n, os.ErrDeadlineExceeded
		case s.ended || s.readerGone:
			return n, syscall.EPIPE
		case s.reset:
			return n, syscall.ECONNRESET
		case len(p) == 0:
			return n, nil
		}
		if free := window - len(s.data); free > 0 {
			k := min(free, len(p))
			s.data = append(s.data, p[:k]...)
			p, n = p[k:], n+k
			s.changed.Broadcast()
			continue
		}
		s.changed.Wait()
	}
}

// A deadline of one direction and one end. Its fields are guarded by the mutex of
// its stream.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(s *stream, t time.Time) error {
	s.update(func(*stream) {
		if d.at = t; d.timer != nil {
			d.timer.Stop()
			d.timer = nil
		}
		if left := time.Until(t); !t.IsZero() && left > 0 {
			d.timer = time.AfterFunc(left, func() { s.update(func(*stream) {}) })
		}
	})
	return nil
}
