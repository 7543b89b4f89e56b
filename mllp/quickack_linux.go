package mllp

import (
	"net"
	"syscall"
)

// quickAck makes TCP say at once that bytes have arrived, for senders that wait
// for that.
//
// One that writes a frame in pieces (VT, text, FS CR) and leaves Nagle's
// algorithm on (RFC 9293, section 3.7.4) sends no small piece while TCP has not
// acknowledged the one before. A receiver that has nothing to say yet puts that
// off, on Linux by 40 ms, and both wait: for most of a second, over ten messages.
//
// A sender that writes frames whole has nothing of this, and pays nothing for
// it: only a connection on which VT or FS CR have come alone gets one (see
// conn.inPieces). The zero value is ready for use. It is owned by Serve.
type quickAck struct {
	conn syscall.RawConn // nil: not asked for yet, or not TCP
	set  func(fd uintptr)
}

// before is to be called before a read in the middle of a frame. The option does
// not last (tcp(7), TCP_QUICKACK), so it is set every time; setting it sends the
// acknowledgement that is due. A failure costs nothing but the delay.
func (q *quickAck) before(conn net.Conn) {
	if q.set == nil {
		q.set = func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			q.conn, _ = tcp.SyscallConn() // fails on a closed connection, of which the read will tell
		}
	}
	if q.conn != nil {
		_ = q.conn.Control(q.set)
	}
}
