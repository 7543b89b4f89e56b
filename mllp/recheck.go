package mllp

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/carewire/carewire/internal/netserver"
	"github.com/carewire/carewire/tlsprops"
)

// loadTLS reads the files of the Server's TLS properties.
func (c *config) loadTLS(s *Server) (err error) {
	p := *s.TLS
	if p.Logger == nil {
		p.Logger = s.Logger
	}
	if c.recheck {
		p.Observe = func(e tlsprops.Event) {
			if s.TLS.Observe != nil {
				s.TLS.Observe(e)
			}
			// The first generation is of Load, the others are of Serve's watching.
			if e.Kind == tlsprops.Loaded && e.Generation > 1 {
				c.generation.Add(1)
				s.recheck(c)
			}
		}
	}
	if c.source, err = tlsprops.Load(p); err == nil {
		c.tls, err = c.source.ServerConfig()
	}
	return err
}

// recheck ends the connections whose clients the files that have just been
// loaded would not let in any more.
func (s *Server) recheck(c *config) {
	var conns []*conn
	s.net.Each(func(nc netserver.Conn) {
		if one, ok := nc.(*conn); ok && one.cfg == c {
			conns = append(conns, one)
		}
	})
	for _, one := range conns {
		one.recheck()
	}
}

// recheck verifies the client's certificate again. It may be called from any
// goroutine.
func (c *conn) recheck() {
	state := c.verified.Load()
	if state == nil {
		return
	}
	current, err := c.cfg.tls.GetConfigForClient(new(tls.ClientHelloInfo))
	if err == nil {
		err = verifyAgain(current, state)
	}
	if err != nil {
		c.dismissal.CompareAndSwap(nil, &closeError{reason: ReasonTLSWithdrawn, err: err})
		_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // wakes Read; if it fails, the connection has ended
	}
}

// verifyAgain does what crypto/tls does with a client's certificate in a handshake
// with config.
func verifyAgain(config *tls.Config, old *tls.ConnectionState) error {
	state := *old
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	if config.ClientAuth >= tls.VerifyClientCertIfGiven {
		opts := x509.VerifyOptions{
			Roots: config.ClientCAs, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		for _, cert := range state.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		chains, err := state.PeerCertificates[0].Verify(opts)
		if err != nil {
			return err
		}
		state.VerifiedChains = chains
	}
	if config.VerifyConnection != nil {
		return config.VerifyConnection(state)
	}
	return nil
}

// dismissed returns why the connection is to end at once, or nil.
func (c *conn) dismissed() error {
	if e := c.dismissal.Load(); e != nil {
		return e
	}
	return nil
}
