package dicomtls

import (
	"net"
	"syscall"
)

// quickConn acknowledges what comes at once. Peers that leave Nagle's algorithm
// on, which DCMTK and dcm4che do by default, hold back the end of a message until
// the beginning of it has been acknowledged, and the kernel would wait 40 ms with
// that. The option does not stay: it is set before every read.
type quickConn struct {
	*net.TCPConn

	raw syscall.RawConn
	set func(fd uintptr) // made once, so that Read allocates nothing
}

// quick returns conn with quick acknowledgements, if it is TCP.
func quick(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	return &quickConn{TCPConn: tcp, raw: raw, set: func(fd uintptr) {
		// Slower, but not wrong, if it fails.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	}}
}

func (c *quickConn) Read(p []byte) (int, error) {
	_ = c.raw.Control(c.set) // fails only on a closed connection, and then so does Read
	return c.TCPConn.Read(p)
}
