//go:build unix

package mllp

import (
	"context"
	"os"
	"runtime"
	"syscall"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall has not.
const tcpUserTimeout = 0x12

// control is the ControlContext of a net.Dialer.
func (o socketOptions) control(_ context.Context, _, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		if o.userTimeout > 0 && runtime.GOOS == "linux" {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(o.userTimeout.Milliseconds()))
		}
		if err == nil && o.reuse {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
		}
	}); controlErr != nil {
		return controlErr
	}
	return os.NewSyscallError("setsockopt", err)
}
