package tlsprops

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultReload is the time between two looks at the files. The kubelet
	// itself takes up to a minute to bring a new Secret to its mount.
	defaultReload = 10 * time.Second
	// settleTime is how long files outside a Kubernetes mount must have stayed
	// the same before they are used: longer than any program takes between the
	// first and the last write of a certificate and its key.
	settleTime = 50 * time.Millisecond
	// settleReads is how often a look reads files that keep changing.
	settleReads = 4
	// expiryInterval is how often expiry is looked at when the files are not.
	expiryInterval = time.Hour
)

// errUnsettled is why files that are being written are not used.
var errUnsettled = errors.New("tlsprops: the files change while they are read: waiting until they are written")

// A Source serves the files of TlsProperties as they change. It is made by Load
// and safe for concurrent use. It has no goroutine of its own: a listener runs
// Watch, a dialer calls Refresh.
type Source struct {
	// Static after construction.
	props      TlsProperties
	roleErr    [2]error // by Role
	minVersion uint16
	suites     []uint16
	pins       map[[sha256.Size]byte]bool
	start      time.Time // of the monotonic time in nextLook

	// current is never nil after Load. Written by who is looking.
	current atomic.Pointer[generation]
	// nextLook is when the files may be looked at again, in nanoseconds since
	// start.
	nextLook atomic.Int64
	used     [2]atomic.Bool // by Role: configurations of it were handed out

	// looking has room for the one who reads the files. A channel, because who
	// has it may wait for files to settle, and a goroutine that waits for a mutex
	// stops the clock of a synctest bubble.
	looking chan struct{}
	// Guarded by looking.
	rejected rejection
	expiry   expiryWatch

	// stateMu guards what Status reports of the last look.
	stateMu  sync.Mutex
	err      error
	failures uint64
	fileNote []string // warnings about the files as they were read last
}

// generation is one set of files in use. Immutable, but for the caches that
// crypto/tls keeps.
type generation struct {
	number   uint64
	loaded   time.Time
	sum      [sha256.Size]byte // of all files
	loose    [sha256.Size]byte // of the files outside Kubernetes mounts
	trust    [sha256.Size]byte // of the files that decide whom to trust
	set      *set
	server   *tls.Config // nil without a certificate
	tickets  *tls.Config // seals a listener's tickets; replaced when trust changes
	sessions tls.ClientSessionCache
}

// rejection is the content that was read last and not used, so that it is
// parsed once: opening an encrypted key can take a second.
type rejection struct {
	sum [sha256.Size]byte
	set *set // nil: it does not parse, because of err
	err error
}

// Load reads the files that p names and checks everything that can be checked
// without knowing the role. The error is ErrDisabled if p is not enabled, else a
// *FieldError. p is copied.
func Load(p TlsProperties) (*Source, error) {
	p = p.clone()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if !p.Enabled {
		return nil, ErrDisabled
	}
	s := &Source{props: p, start: time.Now(), looking: make(chan struct{}, 1), expiry: make(expiryWatch)}
	for _, role := range []Role{Listener, Client} {
		s.roleErr[role] = p.ValidateFor(role)
	}
	var err error
	if s.minVersion, err = parseVersion(p.MinVersion); err != nil {
		return nil, err
	}
	if s.suites, err = parseSuites(p.CipherSuites); err != nil {
		return nil, err
	}
	if s.pins, err = parsePins(p.Pins); err != nil {
		return nil, err
	}
	s.looking <- struct{}{}
	defer func() { <-s.looking }()
	r, err := s.first()
	if err != nil {
		return nil, err
	}
	events := s.publish(r.reading, r.set)
	s.postpone()
	s.warn(slices.Concat(p.commonWarnings(), s.fileNote, r.set.warningsAt(time.Now(), nil)))
	for _, e := range append(events, s.expiring()...) {
		s.emit(context.Background(), e)
	}
	return s, nil
}

// loaded is a reading and what it holds.
type loaded struct {
	*reading
	set *set
}

// first reads the set to begin with. There is no old one to keep, so files that
// do not fit are read again once they have settled, in case they are being
// written at this moment.
func (s *Source) first() (loaded, error) {
	for {
		r, err := s.props.readAll()
		if err != nil {
			return loaded{}, err
		}
		set, err := s.props.parse(r)
		if err == nil && !s.props.AllowExpired {
			err = set.outOfDate(time.Now())
		}
		if err == nil {
			return loaded{r, set}, nil
		}
		again, settleErr := s.settle(context.Background(), r)
		if settleErr != nil || again.sum() == r.sum() {
			return loaded{}, err
		}
	}
}

// Reload looks at the files now. If they are different and good they are
// served from now on. If they are not good, the set before is kept, and the
// error says why, as Status does.
func (s *Source) Reload() error {
	s.looking <- struct{}{}
	s.postpone()
	events, err := s.look(context.Background())
	<-s.looking
	for _, e := range events {
		s.emit(context.Background(), e)
	}
	return err
}

// Refresh looks at the files if ReloadInterval has passed since the last look,
// and nobody else is looking. That the files cannot be used is no error of
// Refresh, because the set before is kept and still good: see Status and
// Observe. The only error is that of ctx, which is looked at while changed files
// settle (for some 50 ms).
//
// Between looks it costs an atomic load: call it before every connection.
func (s *Source) Refresh(ctx context.Context) error {
	due := s.nextLook.Load()
	if s.props.ReloadInterval < 0 || s.elapsed() < due {
		return ctx.Err()
	}
	select {
	case s.looking <- struct{}{}:
	default:
		return ctx.Err() // somebody is looking
	}
	if s.nextLook.Load() != due { // somebody has looked
		<-s.looking
		return ctx.Err()
	}
	s.postpone()
	events, err := s.look(ctx)
	if ctxErr := ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
		s.nextLook.Store(0) // for the next caller to finish
	}
	<-s.looking
	for _, e := range events {
		s.emit(ctx, e)
	}
	return ctx.Err()
}

// Watch calls Refresh when it is due, until ctx ends. Any number may run on one
// Source; the files are read once in an interval all the same. With a negative
// ReloadInterval it watches only for expiry.
func (s *Source) Watch(ctx context.Context) {
	for {
		wait := expiryInterval
		if s.props.ReloadInterval >= 0 {
			wait = max(time.Duration(s.nextLook.Load()-s.elapsed()), time.Millisecond)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if s.props.ReloadInterval >= 0 {
			_ = s.Refresh(ctx) // the error is that of ctx, seen above
			continue
		}
		s.looking <- struct{}{}
		events := s.expiring()
		<-s.looking
		for _, e := range events {
			s.emit(ctx, e)
		}
	}
}

func (s *Source) elapsed() int64 { return int64(time.Since(s.start)) }

// postpone sets the time of the next look: within one ReloadInterval, early
// enough for changed files to settle and be parsed before it ends, and a little
// at random, so that the connectors of a process do not all look at once.
func (s *Source) postpone() {
	interval := s.props.ReloadInterval
	if interval == 0 {
		interval = defaultReload
	}
	interval = max(interval, 0)
	pause := max(interval-2*settleTime, interval/2)
	pause -= rand.N(pause/20 + 1)
	s.nextLook.Store(s.elapsed() + int64(pause))
}

// look reads the files and publishes them if they are different and good.
// Called by who is looking. The error is why the set before is kept, or that of ctx.
func (s *Source) look(ctx context.Context) ([]Event, error) {
	r, set, err := s.change(ctx)
	var events []Event
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, err
	case err != nil:
		events = s.keep(err)
	case set == nil: // nothing new
		s.settled(r)
	default:
		events = s.publish(r, set)
	}
	return append(events, s.expiring()...), err
}

// change returns what is to be published; a nil set if nothing is new.
func (s *Source) change(ctx context.Context) (*reading, *set, error) {
	cur := s.current.Load()
	r, err := s.props.readAll()
	if err != nil {
		return nil, nil, err
	}
	if r.sum() != cur.sum && r.looseSum() != cur.loose {
		if r, err = s.settle(ctx, r); err != nil {
			return nil, nil, err
		}
	}
	sum := r.sum()
	if sum == cur.sum {
		return r, nil, nil
	}
	if s.rejected.sum != sum {
		s.rejected = rejection{sum: sum}
		s.rejected.set, s.rejected.err = s.props.parse(r)
	}
	if s.rejected.err != nil {
		return nil, nil, s.rejected.err
	}
	// A certificate out of date does not replace one in date; but where both are
	// out of date, the clock is as likely wrong, and the newer may be what peers
	// accept.
	now := time.Now()
	if err := s.rejected.set.outOfDate(now); err != nil && !s.props.AllowExpired && cur.set.outOfDate(now) == nil {
		return nil, nil, err
	}
	return r, s.rejected.set, nil
}

// settle reads the files until those outside Kubernetes mounts are the same
// twice, settleTime apart, and returns the last reading.
func (s *Source) settle(ctx context.Context, r *reading) (*reading, error) {
	for range settleReads {
		timer := time.NewTimer(settleTime)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
		again, err := s.props.readAll()
		if err != nil {
			return nil, err
		}
		if again.looseSum() == r.looseSum() {
			return again, nil
		}
		r = again
	}
	return nil, errUnsettled
}

// publish makes set the one that is served. Called by who is looking.
func (s *Source) publish(r *reading, set *set) []Event {
	g := &generation{
		number: 1, loaded: time.Now(), sum: r.sum(), loose: r.looseSum(), trust: r.trustSum(), set: set,
		// A session stands for the certificates of both sides when it began, so
		// a client does not take one along into another generation.
		sessions: tls.NewLRUClientSessionCache(0),
	}
	if old := s.current.Load(); old != nil {
		g.number = old.number + 1
		if g.trust == old.trust {
			g.tickets = old.tickets
		}
	}
	if g.tickets == nil {
		g.tickets = new(tls.Config)
	}
	if set.cert != nil {
		g.server = s.serverConfig(g)
	}
	s.current.Store(g)
	s.rejected = rejection{}
	s.settled(r)
	return []Event{{Kind: Loaded, Generation: g.number}}
}

// settled records that the files as they are now are served.
func (s *Source) settled(r *reading) {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	s.err = nil
	s.fileNote = r.warnings()
}

// keep records why the set before is kept. The event comes once for each
// different reason.
func (s *Source) keep(err error) []Event {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	told := s.err != nil && s.err.Error() == err.Error()
	s.err = err
	s.failures++
	if told {
		return nil
	}
	return []Event{{Kind: KeptOld, Generation: s.current.Load().number, Err: err}}
}

// expiring returns the events of certificates about to expire. Called with
// by who is looking.
func (s *Source) expiring() []Event {
	g := s.current.Load()
	events := s.expiry.passed(g.set.certs, time.Now())
	for i := range events {
		events[i].Generation = g.number
		events[i].Hint = staleMountHint(events[i].Certificate.Path)
	}
	return events
}

// use returns the error of using the source in role, and notes the first use.
func (s *Source) use(role Role) error {
	if err := s.roleErr[role]; err != nil {
		return err
	}
	if !s.used[role].Load() && s.used[role].CompareAndSwap(false, true) {
		s.warn(s.props.roleWarnings(role))
	}
	return nil
}
