package tlsprops

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"
)

// Status is what a Source serves and how its last look at the files went.
type Status struct {
	// Generation counts the sets served since Load, which was the first.
	Generation uint64
	// Loaded is when the set that is served came into use.
	Loaded time.Time
	// Err says why the files as they are now are not served, or, where they are,
	// that the connector's own certificate is out of date. The set of Generation
	// is served all the while. nil: all is well.
	Err error
	// Failures counts the looks and reloads that kept the old set.
	Failures uint64
	// Certificates are those served and trusted: the leaf, the rest of its
	// chain, then the CAs of the trust store.
	Certificates []Certificate
	// CRLs are the revocation lists.
	CRLs []CRL
	// Warnings are what is allowed but should not be, in words for a person.
	Warnings []string
	// Insecure is set when connections are made without checking whom they
	// reach: a client with rejectUnauthorized false.
	Insecure bool
}

// Certificate says of a certificate what a person wants to watch.
type Certificate struct {
	Use       Use
	Field     string // the setting that names its file
	Path      string
	Subject   string
	Issuer    string
	NotBefore time.Time
	NotAfter  time.Time
}

// Use is what a certificate is for.
type Use string

// The uses of certificates.
const (
	// UseLeaf is the connector's own certificate.
	UseLeaf Use = "leaf"
	// UseChain is sent with the leaf.
	UseChain Use = "chain"
	// UseCA is trusted to have issued certificates of peers.
	UseCA Use = "ca"
)

// CRL says of a revocation list what a person wants to watch.
type CRL struct {
	Path       string
	Issuer     string
	ThisUpdate time.Time
	NextUpdate time.Time
	Revoked    int // the number of certificates in it
}

// Status tells what is served and how the last look went. It does not wait for
// a look that is going on.
func (s *Source) Status() Status {
	g := s.current.Load()
	now := time.Now()
	st := Status{Generation: g.number, Loaded: g.loaded}
	for _, c := range g.set.certs {
		st.Certificates = append(st.Certificates, c.status())
	}
	if g.set.crls != nil {
		st.CRLs = g.set.crls.status()
	}
	st.Warnings = s.props.commonWarnings()
	var roles []Role
	for _, role := range []Role{Listener, Client} {
		if s.used[role].Load() {
			roles = append(roles, role)
			st.Warnings = append(st.Warnings, s.props.roleWarnings(role)...)
		}
	}
	st.Warnings = append(st.Warnings, g.set.warningsAt(now, roles)...)
	st.Insecure = s.used[Client].Load() && !s.props.rejects()

	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	st.Err, st.Failures = s.err, s.failures
	if st.Err == nil {
		st.Err = g.set.outOfDate(now)
	}
	st.Warnings = append(st.Warnings, s.fileNote...)
	return st
}

// EventKind is what happened to a Source.
type EventKind int

// The kinds of events.
const (
	// Loaded: a set came into use; from the second Generation on this is a
	// rotation, after which a program may want to close old connections.
	Loaded EventKind = iota + 1
	// KeptOld: the files changed, cannot be served because of Err, and the set
	// before goes on. It comes once for each different failure.
	KeptOld
	// Expiring: Certificate ends in Left. It comes when 30, 7, 1 and 0 days are
	// left, and at once for what is loaded later than that.
	Expiring
	// ClientCertUnacceptable: a server named the CAs it accepts, and the
	// client's own certificate is from none of them.
	ClientCertUnacceptable
)

// String returns the kind in lower-case words.
func (k EventKind) String() string {
	switch k {
	case Loaded:
		return "loaded"
	case KeptOld:
		return "kept old"
	case Expiring:
		return "expiring"
	case ClientCertUnacceptable:
		return "client certificate unacceptable"
	default:
		return fmt.Sprintf("EventKind(%d)", int(k))
	}
}

// Event is passed to Observe. What does not belong to its Kind is zero.
type Event struct {
	Kind       EventKind
	Generation uint64 // that is served
	Err        error  // KeptOld

	Certificate Certificate   // Expiring; ClientCertUnacceptable: the leaf
	Left        time.Duration // Expiring; negative when it has expired
	Hint        string        // Expiring: why it will not be renewed, if that can be told

	AcceptableCAs int  // ClientCertUnacceptable: how many the server named
	Sent          bool // ClientCertUnacceptable: it was sent nevertheless
}

// emit tells the logger and the observer of e.
func (s *Source) emit(ctx context.Context, e Event) {
	if s.props.Logger != nil {
		s.log(ctx, e)
	}
	if s.props.Observe != nil {
		s.props.Observe(e)
	}
}

func (s *Source) log(ctx context.Context, e Event) {
	generation := slog.Uint64("generation", e.Generation)
	cert := slog.Group("certificate", slog.String("use", string(e.Certificate.Use)), slog.String("path", e.Certificate.Path),
		slog.String("subject", e.Certificate.Subject), slog.Time("notAfter", e.Certificate.NotAfter))
	switch e.Kind {
	case Loaded:
		s.props.Logger.LogAttrs(ctx, slog.LevelInfo, "TLS files loaded", generation)
	case KeptOld:
		s.props.Logger.LogAttrs(ctx, slog.LevelError, "TLS files changed and cannot be used; the set before is kept",
			generation, slog.String("error", e.Err.Error()))
	case Expiring:
		s.props.Logger.LogAttrs(ctx, slog.LevelWarn, "certificate expires", cert, slog.Duration("left", e.Left), slog.String("hint", e.Hint))
	case ClientCertUnacceptable:
		s.props.Logger.LogAttrs(ctx, slog.LevelWarn, "the server names the CAs it accepts, and none of them issued our certificate",
			cert, slog.Int("acceptableCAs", e.AcceptableCAs), slog.Bool("sent", e.Sent))
	}
}

func (s *Source) warn(warnings []string) {
	if s.props.Logger == nil {
		return
	}
	for _, w := range warnings {
		s.props.Logger.LogAttrs(context.Background(), slog.LevelWarn, "TLS settings", slog.String("warning", w))
	}
}

// expiryMarks are the times left at which an Expiring event comes.
var expiryMarks = []time.Duration{30 * day, 7 * day, day, 0}

const day = 24 * time.Hour

// expiryWatch remembers which marks each certificate has passed, so that every
// mark is told once. Not safe for concurrent use.
type expiryWatch map[[sha256.Size]byte]int

// passed returns the events of certs due at now, and forgets all other
// certificates.
func (w *expiryWatch) passed(certs []watched, now time.Time) []Event {
	next := make(expiryWatch, len(certs))
	var events []Event
	for _, c := range certs {
		id := sha256.Sum256(c.cert.Raw)
		if _, twice := next[id]; twice {
			continue
		}
		left := c.cert.NotAfter.Sub(now)
		marks := 0
		for marks < len(expiryMarks) && left <= expiryMarks[marks] {
			marks++
		}
		if marks > (*w)[id] {
			events = append(events, Event{Kind: Expiring, Certificate: c.status(), Left: left})
		}
		next[id] = marks
	}
	*w = next
	return events
}

// watched is a certificate with where it came from.
type watched struct {
	cert  *x509.Certificate
	use   Use
	field string
	path  string
}

func (w watched) status() Certificate {
	return Certificate{
		Use: w.use, Field: w.field, Path: w.path,
		Subject: w.cert.Subject.String(), Issuer: w.cert.Issuer.String(),
		NotBefore: w.cert.NotBefore, NotAfter: w.cert.NotAfter,
	}
}
