//go:build !unix

package mllp

import (
	"context"
	"syscall"
)

// control is the ControlContext of a net.Dialer. Windows lets a port be used again
// without being asked.
func (o socketOptions) control(context.Context, string, string, syscall.RawConn) error { return nil }
