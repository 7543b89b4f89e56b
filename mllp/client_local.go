package mllp

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// vanished is how long what was written may stay unconfirmed by the peer's system
// until the connection ends: as long as keepAlive takes for an idle one.
const vanished = 2 * time.Minute

// netDialer is what makes connections if there is no NetDialer.
func (d *Dialer) netDialer() *net.Dialer {
	options := socketOptions{}
	if d.WriteTimeout >= 0 { // it would also end a connection whose peer may take its time to read
		options.userTimeout = vanished
	}
	dialer := &net.Dialer{KeepAliveConfig: keepAlive}
	if from, _ := d.localAddr(); from != nil { // whose error check has seen
		dialer.LocalAddr = from
		options.reuse = from.Port != 0
	}
	dialer.ControlContext = options.control
	return dialer
}

// localAddr returns LocalAddr, nil if there is none.
func (d *Dialer) localAddr() (*net.TCPAddr, error) {
	s := d.LocalAddr
	if s == "" {
		return nil, nil
	}
	if ip, err := netip.ParseAddr(s); err == nil {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)), nil
	}
	if port, ok := strings.CutPrefix(s, ":"); ok {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			return &net.TCPAddr{Port: int(n)}, nil
		}
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, errors.New(`mllp: Dialer.LocalAddr must be an IP address, ":port" or "ip:port"`)
	}
	return net.TCPAddrFromAddrPort(addr), nil
}

// socketOptions are set on a socket before it connects.
type socketOptions struct {
	// userTimeout bounds how long what was sent may stay unconfirmed (RFC 5482); 0:
	// as long as the system retransmits, a quarter of an hour on Linux.
	userTimeout time.Duration
	// reuse permits a local port whose last connection is in TIME_WAIT.
	reuse bool
}
