package dicomtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carewire/carewire/internal/netserver"
	"github.com/carewire/carewire/tlsprops"
)

// A Server accepts associations: it is the SCP of verification, of storage if
// Store is set, and of storage commitment if Commit is set. Every zero field has a
// default; the zero Server answers C-ECHO alone.
//
// Fields must not be changed after the first call of a method, and all methods
// are safe for concurrent use. In durations zero means the default that is given
// with the field, and a negative value no limit; the same goes for numbers,
// unless said otherwise.
type Server struct {
	// Addr is where ListenAndServe listens. Empty: ":11112", with TLS ":2762",
	// which are the ports that are registered for DICOM.
	Addr string

	// AETitles are the titles by which this server may be called. Empty: any.
	AETitles []string
	// CallingAETitles are the titles of those who may call. Empty: anyone.
	// Titles are claims; CertificateAEs makes them more.
	CallingAETitles []string
	// Allow and Deny say which IP addresses may connect. Others are closed before
	// a byte is exchanged. Deny comes first. If Allow is empty, all may that are
	// not in Deny.
	Allow, Deny Prefixes
	// CertificateAEs binds AE titles to client certificates: the calling title
	// must be among those of a key that describes the certificate. Keys are
	// "dns:" with a DNS name and "ip:" with an address among its subject
	// alternative names, "cn:" with its common name, or "sha256:" with the
	// lower case hexadecimal SHA-256 of the certificate. Nil: no binding. It
	// needs TLS with client certificates: without one, every call is rejected.
	CertificateAEs map[string][]string
	// Authenticate, if not nil, decides about every association that the rules
	// above let in, by Identity above all, which may be nil. An error rejects it
	// for good. The response goes to a peer that asked for one, and may be empty.
	Authenticate func(ctx context.Context, a *AssociationInfo) (response []byte, err error)

	// Store takes objects. Nil: no storage class is accepted.
	Store StoreHandler
	// Echo is asked for the status of a C-ECHO. Nil: success.
	Echo EchoHandler
	// Commit takes requests for storage commitment. Nil: it is not offered.
	Commit CommitHandler
	// Commitments gets the reports of storage commitment that peers bring on
	// associations of their own. Nil: none are accepted.
	Commitments *Commitments

	// SOPClasses are the storage SOP classes that are accepted, each with its
	// transfer syntaxes in the order of preference. No transfer syntaxes: the
	// first proposed one of those that DICOM has for storage. A transfer syntax
	// "*" stands for any other, private ones included, in the order of the
	// proposal; a class "*" for all other classes. Nil: all storage classes of
	// PS3.6. Whatever is chosen, data sets are stored as they come.
	SOPClasses map[string][]string

	// TLS are the settings of TLS as configuration files have them. Nil, or mode
	// notls, means no TLS.
	TLS *Properties
	// TLSConfig, if not nil, turns TLS on and replaces TLS.
	TLSConfig *tls.Config

	MaxPDUBytes            int   // of P-DATA that is accepted, as it is announced; 0: 128 KiB; 4 KiB to 1 MiB
	MaxObjectBytes         int64 // of the data set of an object; 0: 16 GiB; larger ones are answered A700
	MaxAssociations        int   // at a time; 0: 256. More are rejected, from twice as many connections on without a word
	MaxAssociationsPerAE   int   // of one calling AE title; 0: 64
	MaxAssociationsPerHost int   // of one address; 0: 64
	// Window is how many operations a client that asks for it may send before
	// the first is answered. They are handled one after the other all the same,
	// so that it saves waiting, and bounds nothing: TCP does that. 0: 1.
	Window int

	HandshakeTimeout time.Duration // for the TLS handshake; 0: 10 s
	AssociateTimeout time.Duration // from then to the whole A-ASSOCIATE-RQ: the ARTIM timer of PS3.8 9.1.5; 0: 30 s
	IdleTimeout      time.Duration // between two messages; 0: 60 s
	// MessageTimeout is how long the client may keep the server waiting in the
	// course of a message, to which it gains a second with every 4 KiB; 0: 60 s.
	MessageTimeout time.Duration
	WriteTimeout   time.Duration // for a response; 0: 30 s
	HandlerTimeout time.Duration // after which the context of a handler ends; 0: none
	LingerTimeout  time.Duration // for the client to close the connection after the last PDU; 0: 5 s
	DrainTimeout   time.Duration // at the end of Serve's context; 0: 30 s

	// Logger gets the events. If nil, nothing is logged.
	Logger *slog.Logger
	// Observe is called for each event, from several goroutines at a time, and
	// must not block. May be nil.
	Observe func(Event)

	net    netserver.Server
	census census
}

const mostMaxPDU = 1 << 20

// Prefixes are ranges of IP addresses, a []netip.Prefix. An IPv4-mapped IPv6
// address counts as the IPv4 address that it stands for. In JSON and YAML they are
// an array of texts such as "10.1.0.0/16", "2001:db8::/32" or, for one address,
// "192.0.2.7", or a single text that separates them by commas or white space.
type Prefixes = netserver.Prefixes

// Validate returns the first error in the settings. Serve calls it.
func (s *Server) Validate() error {
	for _, f := range []struct {
		field  string
		titles []string
	}{{"AETitles", s.AETitles}, {"CallingAETitles", s.CallingAETitles}} {
		for _, title := range f.titles {
			if !validAE(title) {
				return fmt.Errorf("dicomtls: Server.%s: %q is no AE title: 1 to 16 characters, no backslash, no spaces around", f.field, title)
			}
		}
	}
	for _, l := range []struct {
		field string
		list  Prefixes
	}{{"Allow", s.Allow}, {"Deny", s.Deny}} {
		if _, err := l.list.Canonical(); err != nil {
			return fmt.Errorf("dicomtls: Server.%s: %w", l.field, err)
		}
	}
	if s.MaxPDUBytes != 0 && (s.MaxPDUBytes < 4<<10 || s.MaxPDUBytes > mostMaxPDU) {
		return fmt.Errorf("dicomtls: Server.MaxPDUBytes is %d: use 4096 to %d", s.MaxPDUBytes, mostMaxPDU)
	}
	for key, titles := range s.CertificateAEs {
		kind, name, _ := strings.Cut(key, ":")
		if name == "" || kind != "dns" && kind != "ip" && kind != "cn" && kind != "sha256" {
			return fmt.Errorf("dicomtls: Server.CertificateAEs: %q is not dns:, ip:, cn: or sha256: with a name", key)
		}
		for _, title := range titles {
			if !validAE(title) {
				return fmt.Errorf("dicomtls: Server.CertificateAEs: %q of %q is no AE title", title, key)
			}
		}
	}
	for class, syntaxes := range s.SOPClasses {
		if class != "*" && !validUID(class) {
			return fmt.Errorf("dicomtls: Server.SOPClasses: %q is no UID", class)
		}
		for _, uid := range syntaxes {
			if uid != "*" && !validUID(uid) {
				return fmt.Errorf("dicomtls: Server.SOPClasses: %q of %q is no UID", uid, class)
			}
		}
	}
	if len(s.CertificateAEs) > 0 && !s.secure() {
		return errors.New("dicomtls: Server.CertificateAEs is set, but TLS is not")
	}
	if s.TLS != nil && s.TLSConfig == nil {
		if err := s.TLS.Validate(tlsprops.Listener); err != nil {
			return err
		}
		if len(s.CertificateAEs) > 0 && s.TLS.NoClientAuth {
			return errors.New("dicomtls: Server.CertificateAEs is set, but noClientAuth asks clients for no certificate")
		}
	}
	if c := s.TLSConfig; c != nil {
		if len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
			return errors.New("dicomtls: Server.TLSConfig has no certificate")
		}
		if len(s.CertificateAEs) > 0 && c.GetConfigForClient == nil && c.ClientAuth != tls.RequireAndVerifyClientCert {
			return errors.New("dicomtls: Server.CertificateAEs is set, but TLSConfig does not verify client certificates")
		}
	}
	return nil
}

func (s *Server) secure() bool { return s.TLSConfig != nil || s.TLS != nil && s.TLS.TLS.Enabled() }

// ListenAndServe listens on Addr and calls Serve.
func (s *Server) ListenAndServe(ctx context.Context) error {
	if err := s.Validate(); err != nil {
		return err
	}
	addr := s.Addr
	switch {
	case addr != "":
	case s.secure():
		addr = ":2762"
	default:
		addr = ":11112"
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("dicomtls: %w", err)
	}
	return s.Serve(ctx, ln)
}

// Serve accepts connections on ln, which it closes in the end, until ctx ends,
// Shutdown or Close is called, or ln is closed by someone else. It then drains:
// idle associations are aborted, and messages that have begun may be finished
// until DrainTimeout. What is left then is cut, and the contexts of handlers end.
//
// Serve returns when nothing that it started still runs. The error is never nil;
// see ErrServerClosed. A Server that has ended cannot be used again.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	cfg, err := s.config() //nolint:contextcheck // reading files has no use for one
	if err != nil {
		ln.Close()
		return err
	}
	if cfg.source != nil {
		var watch sync.WaitGroup
		watching, stop := context.WithCancel(context.WithoutCancel(ctx))
		watch.Go(func() { cfg.source.watch(watching) })
		defer watch.Wait()
		defer stop()
	}
	backstop := cfg.drainTimeout // negative: for ever
	if backstop >= 0 {
		backstop += abortGrace // drain is there first, unless the listener failed
	}
	var drain sync.WaitGroup
	ended := make(chan struct{})
	drain.Go(func() { s.drain(ctx, ended, cfg.drainTimeout) })
	defer drain.Wait()
	defer close(ended)
	err = s.net.Serve(ctx, ln, netserver.Options{
		NewConn:         func(raw net.Conn, _ netserver.Peer) netserver.Conn { return newConn(cfg, raw) },
		Allow:           cfg.allow,
		Deny:            cfg.deny,
		MaxConns:        2 * cfg.maxAssociations,
		MaxConnsPerHost: 2 * cfg.maxPerHost,
		DrainTimeout:    backstop,
		Refused: func(from netserver.Peer, why error) {
			reason := ReasonTooMany
			switch {
			case errors.Is(why, netserver.ErrDenied):
				reason = ReasonAddress
			case errors.Is(why, netserver.ErrHostFull):
				reason = ReasonTooManyOfHost
			}
			cfg.tell(ctx, Event{Kind: EventRefused, Reason: reason, RemoteAddr: from.Addr})
		},
		AcceptFailed: func(err error, pause time.Duration) {
			cfg.tell(ctx, Event{Kind: EventAcceptFailed, Err: err, Duration: pause})
		},
	})
	if !errors.Is(err, netserver.ErrClosed) {
		return fmt.Errorf("dicomtls: %w", err)
	}
	return s.drained(ErrServerClosed)
}

// drain aborts and cuts what is left when Serve's context ended and the time to
// drain has passed.
func (s *Server) drain(ctx context.Context, ended <-chan struct{}, limit time.Duration) {
	select {
	case <-ctx.Done():
	case <-ended:
		return
	}
	if limit < 0 {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.census.abort()
		s.net.Close()
	case <-ended:
	}
}

// Shutdown drains as Serve does at the end of its context, until ctx ends or
// DrainTimeout has passed. It returns nil, or a *DrainError if messages in hand
// had to be abandoned. Serve may still be waiting then for a handler that does
// not heed its context.
func (s *Server) Shutdown(ctx context.Context) error {
	limit, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() {
		s.census.abort()
		cut()
	})
	defer stop()
	s.net.Shutdown(limit)
	cause := context.Cause(ctx)
	if cause == nil {
		cause = context.DeadlineExceeded // DrainTimeout
	}
	return s.drained(cause)
}

// Close closes the listeners and all connections at once, and ends the contexts
// of handlers. It does not wait; Serve does. The error is always nil.
func (s *Server) Close() error {
	s.net.Close()
	return nil
}

// drained returns err or, if something was abandoned, says so; nil if nothing
// was, and err is not ErrServerClosed.
func (s *Server) drained(err error) error {
	if n := s.net.Abandoned(); n > 0 {
		return &DrainError{Abandoned: n, Err: err}
	}
	if errors.Is(err, ErrServerClosed) {
		return err
	}
	return nil
}

// Associations returns the number of associations.
func (s *Server) Associations() int { return s.census.count() }

// config is what the connections of one call of Serve share: the settings with
// their defaults. It is static after construction.
type config struct {
	*Server

	tls    *tls.Config // nil: plain
	source *tlsSource  // of tls; nil if that was given

	allow, deny Prefixes // of Server, in their canonical form

	maxPDU                                uint32
	maxObject                             int64
	maxAssociations, maxPerAE, maxPerHost int // 0 or less: no limit

	handshakeTimeout, associateTimeout, idleTimeout, messageTimeout, writeTimeout, lingerTimeout, drainTimeout time.Duration // 0 or less: none
}

func (s *Server) config() (*config, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	allow, _ := s.Allow.Canonical() // Validate has seen the errors
	deny, _ := s.Deny.Canonical()
	c := &config{
		Server: s,
		allow:  allow, deny: deny,
		tls:              s.TLSConfig.Clone(),
		maxPDU:           uint32(orDefault(s.MaxPDUBytes, defaultMaxPDU)), //nolint:gosec // checked by Validate
		maxObject:        max(0, orDefault(s.MaxObjectBytes, 16<<30)),
		maxAssociations:  orDefault(s.MaxAssociations, 256),
		maxPerAE:         orDefault(s.MaxAssociationsPerAE, 64),
		maxPerHost:       orDefault(s.MaxAssociationsPerHost, 64),
		handshakeTimeout: orDefault(s.HandshakeTimeout, 10*time.Second),
		associateTimeout: orDefault(s.AssociateTimeout, 30*time.Second),
		idleTimeout:      orDefault(s.IdleTimeout, time.Minute),
		messageTimeout:   orDefault(s.MessageTimeout, time.Minute),
		writeTimeout:     orDefault(s.WriteTimeout, 30*time.Second),
		lingerTimeout:    orDefault(s.LingerTimeout, 5*time.Second),
		drainTimeout:     orDefault(s.DrainTimeout, 30*time.Second),
	}
	if c.tls != nil || s.TLS == nil {
		return c, nil
	}
	var err error
	if c.source, err = s.TLS.load(tlsprops.Listener); err == nil && c.source != nil {
		c.tls, err = c.source.serverConfig()
	}
	return c, err
}

// orDefault returns v, or deflt if v is zero.
func orDefault[T int | int64 | time.Duration](v, deflt T) T {
	if v == 0 {
		return deflt
	}
	return v
}

// after returns the time when d has passed, zero if d is no limit.
func after(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// A census counts associations.
type census struct {
	mu sync.Mutex
	// guarded by mu
	total int
	byAE  map[string]int
	byIP  map[string]int
	conns map[*conn]struct{}
}

// enter counts the association of a connection, or says which limit stands
// against it.
func (n *census) enter(a *conn) Reason {
	c, ae, ip := a.cfg, a.info.CallingAE, hostOf(a.info.RemoteAddr)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case c.maxAssociations > 0 && n.total >= c.maxAssociations:
		return ReasonTooMany
	case c.maxPerAE > 0 && n.byAE[ae] >= c.maxPerAE:
		return ReasonTooManyOfAE
	case c.maxPerHost > 0 && n.byIP[ip] >= c.maxPerHost:
		return ReasonTooManyOfHost
	}
	if n.byAE == nil {
		n.byAE, n.byIP, n.conns = make(map[string]int), make(map[string]int), make(map[*conn]struct{})
	}
	n.conns[a] = struct{}{}
	n.total++
	n.byAE[ae]++
	n.byIP[ip]++
	return ""
}

func (n *census) leave(a *conn) {
	ae, ip := a.info.CallingAE, hostOf(a.info.RemoteAddr)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, a)
	n.total--
	if n.byAE[ae]--; n.byAE[ae] == 0 {
		delete(n.byAE, ae)
	}
	if n.byIP[ip]--; n.byIP[ip] == 0 {
		delete(n.byIP, ip)
	}
}

// abort sends A-ABORT on all associations, before they are cut.
func (n *census) abort() {
	n.mu.Lock()
	left := slices.Collect(maps.Keys(n.conns))
	n.mu.Unlock()
	var all sync.WaitGroup
	for _, a := range left {
		all.Go(a.abort)
	}
	all.Wait()
}

func (n *census) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.total
}
