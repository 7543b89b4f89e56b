package meshtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carewire/carewire/meshclient"
)

// Options say how a Server departs from an ordinary one.
type Options struct {
	// Mailboxes are ids in upper case, and their passwords. nil: MAILBOX1 and
	// MAILBOX2, both with "password".
	Mailboxes map[string]string
	// HashSecret is the shared key; "": "TestKey".
	HashSecret string
	// Workflows are those that can be sent; nil: all. Endpoint lookup finds all
	// mailboxes for each of them.
	Workflows []string
	// CA signs the server's certificate and those of Client, and must have its key.
	// nil: a new one.
	CA *tls.Certificate
	// CertificateByHTTP answers to clients without a good certificate as NHS's edge
	// does, with a page of HTML and status 400, and not in TLS.
	CertificateByHTTP bool
	// MaxTLS is the highest version of TLS, 0: 1.3.
	MaxTLS uint16
	// SmallChunks lets chunks have fewer than 5 MB.
	SmallChunks bool
	// NoGzip leaves out the compression of downloads that were not sent so.
	NoGzip bool
	// HTTP2 offers HTTP/2 beside HTTP/1.1.
	HTTP2 bool
	// Dir is where content is kept, in files. "": in memory.
	Dir string
	// Listener takes the connections, and is closed with the Server. nil: a new
	// one on 127.0.0.1.
	Listener net.Listener
}

// A Server is a MESH service. All methods are safe for concurrent use.
type Server struct {
	// URL is the base URL for a client.
	URL string

	// static after construction
	o       Options
	pki     authority
	http    *http.Server
	serving sync.WaitGroup

	mu       sync.Mutex
	offset   time.Duration        // guarded by mu: of the clock
	used     map[string]time.Time // guarded by mu: tokens, and when
	disabled map[string]bool      // guarded by mu
	messages map[string]*message  // guarded by mu
	order    []string             // guarded by mu: ids, the oldest first
	number   int                  // guarded by mu: of the last id
	faults   []*Fault             // guarded by mu
	requests []Request            // guarded by mu
}

// A Request is one that the server has seen.
type Request struct {
	Op            string // as in Fault
	Method        string
	Mailbox       string
	Authorization string
	Accept        string
	Header        http.Header
	Chunk         int // of "chunk" and "download", from 1
	Status        int // of the answer; 0: the connection was dropped
}

// New starts a Server.
func New(o Options) (*Server, error) {
	if o.Mailboxes == nil {
		o.Mailboxes = map[string]string{"MAILBOX1": "password", "MAILBOX2": "password"}
	}
	for id := range o.Mailboxes {
		if id == "" || id != strings.ToUpper(id) || strings.ContainsAny(id, ": /") {
			return nil, errors.New("meshtest: a mailbox's id is not in upper case, or has a colon, slash or space")
		}
	}
	if o.HashSecret == "" {
		o.HashSecret = "TestKey"
	}
	s := &Server{
		o: o, used: make(map[string]time.Time), disabled: make(map[string]bool), messages: make(map[string]*message),
	}
	if err := s.pki.init(o.CA); err != nil {
		return nil, err
	}
	ln := o.Listener
	if ln == nil {
		var err error
		if ln, err = new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("meshtest: %w", err)
		}
	}
	conf, err := s.tlsConfig(ln.Addr())
	if err != nil {
		_ = ln.Close() // which nobody uses yet
		return nil, err
	}
	s.URL = "https://" + ln.Addr().String()
	s.http = &http.Server{
		Handler: http.HandlerFunc(s.serve), TLSConfig: conf, ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // handshakes that fail are what tests are about
	}
	s.http.Protocols = new(http.Protocols)
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(o.HTTP2)
	s.serving.Go(func() { _ = s.http.ServeTLS(ln, "", "") }) // ends with Close
	return s, nil
}

func (s *Server) tlsConfig(addr net.Addr) (*tls.Config, error) {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(addr.String()); err == nil && !slices.Contains(hosts, host) {
		hosts = append(hosts, host)
	}
	cert, err := s.pki.issue(leaf{hosts: hosts, name: "meshtest", usage: x509.ExtKeyUsageServerAuth})
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, MaxVersion: s.o.MaxTLS, Certificates: []tls.Certificate{*cert},
		ClientCAs: s.pki.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	if s.o.CertificateByHTTP {
		conf.ClientAuth = tls.RequestClientCert
	}
	return conf, nil
}

// Close ends the server, and all connections.
func (s *Server) Close() {
	_ = s.http.Close() // of connections that are being cut off anyhow
	s.serving.Wait()
}

// Config returns settings for a client of a mailbox of this server, with a client
// certificate that is good for a year. A Listener that is not on the network
// needs a NetDialer beside it.
func (s *Server) Config(mailbox string) (meshclient.Config, error) {
	cert, key, err := s.Client(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	if err != nil {
		return meshclient.Config{}, err
	}
	return meshclient.Config{
		BaseURL: s.URL, Mailbox: mailbox, Password: s.o.Mailboxes[mailbox], HashSecret: s.o.HashSecret,
		ClientCert: string(cert), ClientKey: string(key), CACert: string(s.CA()), ProxyURL: "none",
	}, nil
}

// Client returns a client certificate and its key, in PEM.
func (s *Server) Client(notBefore, notAfter time.Time) (cert, key []byte, err error) {
	pair, err := s.pki.issue(leaf{
		name:  "client." + strings.ToLower(slices.Sorted(maps.Keys(s.o.Mailboxes))[0]) + ".api.mesh-client.nhs.uk",
		usage: x509.ExtKeyUsageClientAuth, notBefore: notBefore, notAfter: notAfter,
	})
	if err != nil {
		return nil, nil, err
	}
	return encode(pair)
}

// CA returns the certificate of the authority, in PEM.
func (s *Server) CA() []byte { return s.pki.pem() }

// Advance moves the server's clock, back if d is negative.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset += d
}

// now is the server's clock; s.mu is held.
func (s *Server) nowLocked() time.Time { return time.Now().Add(s.offset).UTC() }

// Disable makes the server refuse a mailbox, as NHS does with one in disuse.
func (s *Server) Disable(mailbox string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disabled[mailbox] = true
}

// Requests returns what was asked so far, the faults among it.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}
