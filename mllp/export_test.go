package mllp

import "net"

// SetKeepAlive changes how connections find that their peer has vanished, and
// returns what changes it back.
func SetKeepAlive(c net.KeepAliveConfig) (restore func()) {
	old := keepAlive
	keepAlive = c
	return func() { keepAlive = old }
}
