package tlsprops

import (
	"crypto/tls"
	"crypto/x509"
)

// base returns what both roles share.
func (s *Source) base() *tls.Config {
	c := &tls.Config{
		MinVersion:   s.minVersion,
		CipherSuites: s.suites,
		NextProtos:   s.props.NextProtos,
	}
	if s.props.ClassicalKeyExchange {
		c.CurvePreferences = classicalCurves
	}
	return c
}

// serverConfig returns the configuration of one generation of a listener.
func (s *Source) serverConfig(g *generation) *tls.Config {
	c := s.base()
	c.Certificates = []tls.Certificate{*g.set.cert}
	// Sealed by the one ticket configuration of the Source, which crypto/tls
	// rotates daily: tickets outlive a generation, but not a change of trust.
	c.WrapSession = g.tickets.EncryptTicket
	c.UnwrapSession = g.tickets.DecryptTicket
	if !s.props.asksClientCert() {
		return c
	}
	if g.set.roots != nil {
		c.ClientCAs = g.set.roots
	}
	v := &verifier{
		usage: x509.ExtKeyUsageClientAuth, roots: g.set.roots,
		crls: g.set.crls, pins: s.pins,
	}
	required := s.props.requiresClientCert()
	switch {
	case s.props.Verify == VerifyPinned || s.props.AnyExtendedKeyUsage:
		// crypto/tls would check the chain and the usage; VerifyConnection does
		// what is asked of it, in every handshake, resumed ones too.
		c.ClientAuth = tls.RequestClientCert
		if required {
			c.ClientAuth = tls.RequireAnyClientCert
		}
		if s.props.AnyExtendedKeyUsage {
			v.chain, v.usage = true, x509.ExtKeyUsageAny
		}
	case required:
		c.ClientAuth = tls.RequireAndVerifyClientCert
	default:
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.VerifyConnection = v.callback()
	return c
}

// clientConfig returns the configuration of one generation of a client, for a
// server that is sent the name sni and has a certificate for name. Either may
// be empty.
func (s *Source) clientConfig(g *generation, sni, name string) *tls.Config {
	c := s.base()
	c.ServerName = sni
	c.RootCAs = g.set.roots
	c.ClientSessionCache = g.sessions
	if g.set.cert != nil {
		c.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return s.clientCertificate(g, r), nil
		}
	}
	v := &verifier{
		usage: x509.ExtKeyUsageServerAuth, roots: g.set.roots,
		crls: g.set.crls, pins: s.pins,
	}
	v.staples = s.props.rejects() && s.props.Verify != VerifyPinned // where there is a chain to judge it by
	switch {
	case !v.staples:
		c.InsecureSkipVerify = true
	case s.props.Verify == VerifyChainOnly:
		c.InsecureSkipVerify = true // VerifyConnection checks the chain
		v.chain = true
	case name != sni || s.props.AnyExtendedKeyUsage:
		c.InsecureSkipVerify = true // VerifyConnection checks the chain and the name
		v.chain, v.name = true, name
	}
	if s.props.AnyExtendedKeyUsage {
		v.usage = x509.ExtKeyUsageAny
	}
	c.VerifyConnection = v.callback()
	return c
}

// clientCertificate returns the certificate for a server's request: the
// connector's own, or an empty one if the server would not accept it.
func (s *Source) clientCertificate(g *generation, r *tls.CertificateRequestInfo) *tls.Certificate {
	if r.SupportsCertificate(g.set.cert) == nil {
		return g.set.cert
	}
	send := s.props.AlwaysSendClientCert
	s.emit(r.Context(), Event{
		Kind: ClientCertUnacceptable, Generation: g.number, Certificate: g.set.certs[0].status(),
		AcceptableCAs: len(r.AcceptableCAs), Sent: send,
	})
	if send {
		return g.set.cert
	}
	return new(tls.Certificate)
}

// ServerConfig returns the configuration of a listener. Each handshake uses the
// set that is current when it begins; none reads a file. Properties that cannot
// be a listener's are a *FieldError.
//
// Set NextProtos in the properties rather than on the result: what is changed on
// the result does not reach the handshakes.
func (s *Source) ServerConfig() (*tls.Config, error) {
	if err := s.use(Listener); err != nil {
		return nil, err
	}
	c := s.current.Load().server.Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return s.current.Load().server, nil
	}
	return c, nil
}

// ClientConfig returns the configuration for one connection to the host
// serverName, a name or an IP address without a port, with the set that is
// current now: call it for every connection. SniServerName, if set, comes before
// serverName. Properties that cannot be a client's, and a name that cannot be
// checked, are a *FieldError. The result is the caller's to change.
func (s *Source) ClientConfig(serverName string) (*tls.Config, error) {
	if err := s.use(Client); err != nil {
		return nil, err
	}
	sni, err := s.sniName(serverName)
	if err != nil {
		return nil, err
	}
	name := sni
	if s.props.ExpectedName != "" {
		if name, err = hostName(s.props.ExpectedName); err != nil {
			return nil, &FieldError{Field: "expectedName", Path: s.props.ExpectedName, Err: err}
		}
	}
	if name == "" && s.props.rejects() && (s.props.Verify == "" || s.props.Verify == VerifyFull) {
		return nil, refuse("sniServerName", "is missing, and no host is dialed that the certificate could be checked for: set it, or expectedName")
	}
	return s.clientConfig(s.current.Load(), sni, name), nil
}

// sniName returns the name to send, from the properties or the host dialed.
func (s *Source) sniName(serverName string) (string, error) {
	name := serverName
	if s.props.SniServerName != "" {
		name = s.props.SniServerName
	}
	if name == "" {
		return "", nil
	}
	host, err := hostName(name)
	if err != nil {
		return "", &FieldError{Field: "sniServerName", Path: name, Err: err}
	}
	return host, nil
}
