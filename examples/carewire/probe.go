package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// probeCmd is `carewire tls probe`.
type probeCmd struct {
	Address string `arg:"" name:"host:port" help:"Server to look at."`
	clientTLS
	StartTLS string        `name:"starttls" enum:",smtp" default:"" placeholder:"smtp" help:"Protocol in which to ask for TLS first: smtp."`
	Timeout  time.Duration `default:"10s" help:"Limit for each of the connections that the probe makes."`
	JSON     bool          `name:"json" help:"Print one JSON object."`
}

// Help is shown by --help.
func (c *probeCmd) Help() string {
	return "The exit status is 0 only when a client with these settings can use the server: the handshake succeeded, " +
		"and the certificate's chain and name are verified. Weak versions and suites are named, and do not change it."
}

// Run looks at the server three times over: as a client of this library would,
// which decides the verdict; where that fails, with a client that accepts
// anything, so that there is something to show; and then once for every version
// and suite.
func (c *probeCmd) Run(ctx context.Context, s *streams) error {
	if c.Timeout <= 0 {
		return unusable("--timeout must be more than 0")
	}
	strict, err := c.config(c.Address)
	if err != nil {
		return err
	}
	p := &prober{address: c.Address, startTLS: c.StartTLS != "", timeout: c.Timeout}
	report := p.probe(ctx, s, strict)
	if err := ctx.Err(); err != nil {
		return &exitError{status: exitNo, err: errors.New("interrupted")}
	}
	if c.JSON {
		if err := s.printJSON(report); err != nil {
			return err
		}
	} else {
		report.print(s.out)
	}
	if !report.OK {
		return &exitError{status: exitNo}
	}
	return nil
}

// prober makes the connections of one probe.
type prober struct {
	address  string
	startTLS bool
	timeout  time.Duration
}

// look is what one handshake showed. It is owned by the goroutine that runs the
// handshake, in which crypto/tls calls back.
type look struct {
	reached   bool                        // a TCP connection was made, and STARTTLS where asked for went well
	saw       bool                        // the server chose a version and sent its certificate
	complete  bool                        // the handshake came to its end
	state     tls.ConnectionState         // as far as the handshake came
	requested *tls.CertificateRequestInfo // nil: the server asked for no certificate
	sent      bool                        // the server got one of ours
	err       error                       // why the server is not usable; nil: it is
}

// at connects and shakes hands as config says. With patience it waits for what
// the server may say of our certificate after the handshake.
func (p *prober) at(ctx context.Context, config *tls.Config, patience bool) *look {
	l := new(look)
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	dialer := net.Dialer{Timeout: p.timeout}
	conn, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		l.err = err
		return l
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // fails only on a closed connection, which the handshake reports
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if p.startTLS {
		if err := startTLS(conn); err != nil {
			l.err = err
			return l
		}
	}
	l.reached = true
	client := tls.Client(conn, l.watch(config))
	began := time.Now()
	l.err = client.HandshakeContext(ctx)
	l.complete = l.err == nil
	l.state = client.ConnectionState()
	if patience && l.complete && l.requested != nil && l.state.Version == tls.VersionTLS13 {
		_ = conn.SetReadDeadline(earlier(deadline, time.Now().Add(refusalWait+2*time.Since(began))))
		l.err = lateRefusal(client)
	}
	return l
}

// refusalWait is how long, besides two of its round trips, a server may take to
// refuse our certificate. In TLS 1.3 a client's handshake ends before the server
// has looked at it, and the refusal is the first thing to be read (RFC 8446,
// section 4.4.2.4); a server that is content says nothing.
const refusalWait = time.Second

func lateRefusal(client *tls.Conn) error {
	_, err := client.Read(make([]byte, 1))
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the server closed the connection after the handshake, perhaps for want of a client certificate: %w", io.ErrUnexpectedEOF)
	default:
		return err
	}
}

// watch returns a copy of config that tells l what the server sent.
func (l *look) watch(config *tls.Config) *tls.Config {
	config = config.Clone()
	choose := config.GetClientCertificate
	certificates := config.Certificates
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		l.requested = info
		cert := new(tls.Certificate)
		if choose != nil {
			var err error
			if cert, err = choose(info); err != nil {
				return nil, err
			}
		} else if i := slices.IndexFunc(certificates, func(c tls.Certificate) bool { return info.SupportsCertificate(&c) == nil }); i >= 0 {
			cert = &certificates[i]
		}
		l.sent = len(cert.Certificate) > 0
		return cert, nil
	}
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		l.saw = true
		if verify == nil {
			return nil
		}
		return verify(state)
	}
	return config
}

// refused tells whether the server turned the handshake down, rather than the
// network, or this client, having failed.
func (l *look) refused() bool {
	if !l.reached || l.err == nil {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](l.err); ok && op.Op == "remote error" {
		return true // an alert
	}
	return errors.Is(l.err, io.EOF) || errors.Is(l.err, io.ErrUnexpectedEOF) || errors.Is(l.err, syscall.ECONNRESET) || errors.Is(l.err, syscall.EPIPE) ||
		// The server chose a version that was not offered; crypto/tls has no type for it.
		strings.Contains(l.err.Error(), "server selected unsupported protocol version")
}

// permissive returns a configuration that takes whatever the server has, so that
// it can be shown. Nothing is ever sent over such a connection, and the verdict
// does not rest on it.
func permissive(strict *tls.Config) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify:   true, //nolint:gosec // a probe: see above
		ServerName:           strict.ServerName,
		MinVersion:           tls.VersionTLS10,
		CipherSuites:         knownSuites(),
		Certificates:         strict.Certificates,
		GetClientCertificate: strict.GetClientCertificate,
	}
}

// knownSuites are all suites up to TLS 1.2 that crypto/tls can speak, the insecure
// ones too.
func knownSuites() []uint16 {
	var ids []uint16
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if slices.Contains(suite.SupportedVersions, tls.VersionTLS12) {
			ids = append(ids, suite.ID)
		}
	}
	return ids
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// hint explains failures whose own words do not help.
func hint(err error) string {
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if string(header.RecordHeader[:3]) == "220" {
			return "the server does not speak TLS from the start: it greets as a mail server does (try --starttls smtp)"
		}
		return "the server does not speak TLS on this port"
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "the server closed the connection during the handshake"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "the server did not answer in time"
	}
	return err.Error()
}
