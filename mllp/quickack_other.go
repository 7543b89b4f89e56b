//go:build !linux

package mllp

import "net"

// quickAck does nothing where there is no TCP_QUICKACK: see the one for Linux.
type quickAck struct{}

func (*quickAck) before(net.Conn) {}
