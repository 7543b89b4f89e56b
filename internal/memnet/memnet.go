// Package memnet is a network inside of the process, for tests: a listener, a
// dialer, and connections that behave as TCP does where it matters. Writes are
// buffered, deadlines work, one direction can be closed alone, closing with
// unread bytes resets the connection, and so does Abort. Nothing polls, so it
// works in the bubbles of testing/synctest.
package memnet

import (
	"context"
	"net"
	"sync"
	"syscall"
)

// A Listener accepts the connections that its Dial methods make. The zero value
// is not usable; call Listen.
type Listener struct {
	queue  chan *Conn
	closed chan struct{} // closed by Close
	once   sync.Once

	mu   sync.Mutex
	port int // guarded by mu: of the last dialer
}

// addr is the address of every Listener, from the block for documentation
// (RFC 5737).
var addr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2575}

// Listen returns a new Listener.
func Listen() *Listener {
	return &Listener{queue: make(chan *Conn, 128), closed: make(chan struct{}), port: 49151}
}

// Accept waits for a connection. After Close it returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, opError("accept", net.ErrClosed)
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, opError("accept", net.ErrClosed)
	}
}

// Close ends Accept, and resets connections that were not accepted.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	for {
		select {
		case c := <-l.queue:
			c.Abort()
		default:
			return nil
		}
	}
}

// Addr returns the address of every Listener: 192.0.2.1:2575.
func (l *Listener) Addr() net.Addr { return addr }

// Dial connects from 198.51.100.1 and a port of its own.
func (l *Listener) Dial() (*Conn, error) { return l.DialFrom(net.IPv4(198, 51, 100, 1)) }

// DialFrom connects from ip and a port of its own.
func (l *Listener) DialFrom(ip net.IP) (*Conn, error) {
	l.mu.Lock()
	l.port++
	from := &net.TCPAddr{IP: ip, Port: l.port}
	l.mu.Unlock()
	client, server := pipe(from, addr)
	select {
	case <-l.closed:
		return nil, opError("dial", syscall.ECONNREFUSED)
	default:
	}
	select {
	case l.queue <- server:
		return client, nil
	case <-l.closed:
		return nil, opError("dial", syscall.ECONNREFUSED)
	}
}

// DialContext has the form of a dialer's function; it takes no notice of its
// arguments.
func (l *Listener) DialContext(context.Context, string, string) (net.Conn, error) { return l.Dial() }

// Pipe returns the two ends of a connection.
func Pipe() (client, server *Conn) {
	return pipe(&net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 49151}, addr)
}

func pipe(from, to net.Addr) (client, server *Conn) {
	up, down := newStream(), newStream()
	return &Conn{in: down, out: up, local: from, remote: to}, &Conn{in: up, out: down, local: to, remote: from}
}

func opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "mem", Addr: addr, Err: err}
}
