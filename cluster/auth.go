package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultWindow is the tolerance in general use for signed requests: NTP
	// keeps clocks a thousand times closer.
	defaultWindow = 5 * time.Minute
	// maxWindow bounds for how long nonces are remembered.
	maxWindow = time.Hour
	// defaultBodyBytes is what other servers take on their internal endpoint.
	defaultBodyBytes = 10 << 20
	// maxBodyBytes is what can be held in memory with a good conscience.
	maxBodyBytes = 1 << 30
	// defaultBufferedBytes is 25 bodies of the largest size.
	defaultBufferedBytes = 256 << 20
	// defaultBodyTimeout is 10 MiB at 3 Mbit/s.
	defaultBodyTimeout = 30 * time.Second
	// defaultNonces is 3,495 requests a second for 5 minutes, in 25 to 40 MB.
	defaultNonces = 1 << 20
)

// An Auth is one node's part in a cluster that shares a secret: Handler lets in
// who has it, and Do and Authorize show it to other nodes. Node and either Secret
// or SecretFile must be set; every other field has a default. The zero Auth
// refuses every request.
//
// Its methods may be called concurrently. Fields must not be changed after the
// first call of a method, and an Auth not copied.
type Auth struct {
	// Node is the name of this node, by which others address it: 1 to 255 letters,
	// digits and .-_:[] . A request signed for another node is refused.
	Node string `json:"node" yaml:"node"`

	// Secret is sent, and accepted. It is 32 to 1024 printable ASCII characters.
	Secret Secret `json:"secret,omitempty" yaml:"secret,omitempty"`
	// Accept are up to seven secrets that are accepted too, and never sent: in a
	// rotation, first the next one, then the previous one.
	Accept []Secret `json:"accept,omitempty" yaml:"accept,omitempty"`
	// SecretFile takes the place of Secret and Accept: a file of up to 64 KiB with
	// one secret in a line, first the one to send. Empty lines and lines that begin
	// with # are skipped. It is read again when it has changed, by the first
	// request, in or out, after ReloadInterval; that request takes some 50 ms
	// longer, until the file has settled. If the file cannot be used any more, the
	// secrets before it go on, and an event says so.
	SecretFile string `json:"secretFile,omitempty" yaml:"secretFile,omitempty"`
	// ReloadInterval is the least time between two looks at SecretFile. If zero,
	// 10 s; negative means that only Reload looks.
	ReloadInterval time.Duration `json:"-" yaml:"-"`

	// SignedOnly refuses the plain header: a secret that has been on the wire may
	// be known to others.
	SignedOnly bool `json:"signedOnly,omitempty" yaml:"signedOnly,omitempty"`
	// PlainHeader makes Do send the plain header in place of a signature, and take
	// any answer, for nodes that know nothing else. It excludes SignedOnly.
	PlainHeader bool `json:"plainHeader,omitempty" yaml:"plainHeader,omitempty"`
	// AllowPlaintext lets Do and Authorize use http:// to other machines, where
	// everybody on the way reads the bodies, and with PlainHeader the secret. It
	// is for networks that encrypt by themselves, as a service mesh does.
	AllowPlaintext bool `json:"allowPlaintext,omitempty" yaml:"allowPlaintext,omitempty"`

	// Window is how far the clock of a signed request may be from ours, in either
	// direction. If zero, 5 minutes; more than an hour, or less than zero, is an
	// error.
	Window time.Duration `json:"-" yaml:"-"`
	// MaxBodyBytes limits the body of a request, received or sent, and of a signed
	// answer. If zero, 10 MiB; negative, or more than 1 GiB, is an error.
	MaxBodyBytes int64 `json:"maxBodyBytes,omitempty" yaml:"maxBodyBytes,omitempty"`
	// MaxBufferedBytes limits the bodies of all signed requests in hand together;
	// a body of unknown length counts as MaxBodyBytes. Further ones are refused. If
	// zero, 256 MiB, or MaxBodyBytes if that is more; less than that is an error.
	MaxBufferedBytes int64 `json:"maxBufferedBytes,omitempty" yaml:"maxBufferedBytes,omitempty"`
	// BodyTimeout limits the time in which the body of a signed request comes in.
	// It replaces the ReadTimeout of the http.Server for it. If zero, 30 s;
	// negative means that the http.Server's timeout holds. A body after the plain
	// header is the http.Server's matter alone.
	BodyTimeout time.Duration `json:"-" yaml:"-"`
	// MaxNonces limits the signed requests that can be remembered, and so the
	// requests in Window. Further ones are refused. If zero, 1,048,576 (25 to
	// 40 MB when they are used); negative is an error. Not used with Nonces.
	MaxNonces int `json:"maxNonces,omitempty" yaml:"maxNonces,omitempty"`
	// Nonces remembers signed requests in place of this process's memory. If nil,
	// memory is used.
	Nonces Nonces `json:"-" yaml:"-"`

	// Logger gets the events. If nil, nothing is logged.
	Logger *slog.Logger `json:"-" yaml:"-"`
	// Observe is called for each event, from several goroutines at a time, and
	// must not block. May be nil.
	Observe func(Event) `json:"-" yaml:"-"`

	once sync.Once
	// Static after once.
	settingsErr error // what Validate reports of the fields
	keys        *keyring
	memory      *memory // of nonces, unless Nonces is set

	buffered atomic.Int64 // bytes reserved for the bodies of signed requests
}

// FieldError says which setting, and which file, cannot be honoured, why, and
// what to do. Its text holds no secret.
type FieldError struct {
	Field string // as in JSON and YAML: "secretFile"
	Path  string // the file; empty if there is none
	Err   error
}

// Error returns "cluster: field path: reason".
func (e *FieldError) Error() string {
	if e.Path == "" {
		return "cluster: " + e.Field + ": " + e.Err.Error()
	}
	return fmt.Sprintf("cluster: %s %q: %v", e.Field, e.Path, e.Err)
}

// Unwrap returns the reason.
func (e *FieldError) Unwrap() error { return e.Err }

// Validate returns the first setting that cannot be honoured, as a *FieldError,
// nil if all is well. It reads SecretFile. Call it before anything is served: an
// Auth that is not valid refuses every request.
func (a *Auth) Validate() error {
	a.prepare()
	if a.settingsErr != nil {
		return a.settingsErr
	}
	return a.Status().Err
}

// prepare does, once, what has to be done before anything else.
func (a *Auth) prepare() {
	var events []Event
	a.once.Do(func() { events = a.setUp() })
	a.keys.tell(events) // not within once: Observe may call methods of a
}

func (a *Auth) setUp() (events []Event) {
	a.keys = newKeyring(a.SecretFile, a.reloadInterval(), a.announce)
	a.memory = newMemory(a.maxNonces(), a.window())
	a.settingsErr = a.checkSettings()
	switch {
	case a.settingsErr != nil:
	case a.SecretFile != "":
		events, _ = a.keys.reload() // Status has the error, and a later look may find the file
	case a.Secret == "" && len(a.Accept) == 0:
		a.keys.err = &FieldError{Field: "secret", Err: ErrNoSecret} // until SetSecrets
	default:
		events, a.settingsErr = a.keys.set(slices.Concat([]Secret{a.Secret}, a.Accept))
	}
	return events
}

func (a *Auth) checkSettings() error {
	fault := func(field, text string) error { return &FieldError{Field: field, Err: errors.New(text)} }
	switch {
	case !validNode(a.Node) && a.Node == "":
		return fault("node", "it must be set to the name by which other nodes address this one")
	case !validNode(a.Node):
		return fault("node", "a name has 1 to 255 letters, digits and .-_:[]")
	case a.SecretFile != "" && (a.Secret != "" || len(a.Accept) > 0):
		return fault("secretFile", "secret or accept is set as well: leave one out")
	case a.SignedOnly && a.PlainHeader:
		return fault("plainHeader", "signedOnly is set as well: leave one out")
	case a.Window < 0 || a.Window > maxWindow:
		return fault("window", "it must be between 0, which means 5 minutes, and 1 hour")
	case a.MaxBodyBytes < 0 || a.MaxBodyBytes > maxBodyBytes:
		return fault("maxBodyBytes", "it must be between 0, which means 10 MiB, and 1 GiB: bodies are held in memory")
	case a.MaxBufferedBytes < 0, a.MaxBufferedBytes > 0 && a.MaxBufferedBytes < a.maxBody():
		return fault("maxBufferedBytes", "it must not be less than maxBodyBytes")
	case a.MaxNonces < 0:
		return fault("maxNonces", "it must not be negative")
	}
	for i, s := range a.Accept {
		if err := s.check(); err != nil {
			return &FieldError{Field: fmt.Sprintf("accept[%d]", i), Err: err}
		}
	}
	return nil
}

// SetSecrets replaces the secrets in use, for a program that gets them from
// somewhere else than a file: secret is sent, all are accepted. Requests in hand
// are not disturbed. On an error the old ones stay. It excludes SecretFile.
func (a *Auth) SetSecrets(secret Secret, accept ...Secret) error {
	a.prepare()
	switch {
	case a.settingsErr != nil:
		return a.settingsErr
	case a.SecretFile != "":
		return &FieldError{Field: "secretFile", Path: a.SecretFile, Err: errors.New("the secrets come from this file")}
	}
	events, err := a.keys.set(slices.Concat([]Secret{secret}, accept))
	a.keys.tell(events)
	return err
}

// Reload looks at SecretFile now, which takes some 50 ms if it has changed. The
// error is why what was in use before goes on.
func (a *Auth) Reload() error {
	a.prepare()
	switch {
	case a.settingsErr != nil:
		return a.settingsErr
	case a.SecretFile == "":
		return &FieldError{Field: "secretFile", Err: errors.New("it is not set: there is nothing to read again")}
	}
	events, err := a.keys.reload()
	a.keys.tell(events)
	return err
}

// Status is what an Auth has in use.
type Status struct {
	// Generation counts the sets of secrets that were in use, from 1. 0: there is
	// none, and every request is refused.
	Generation uint64
	// Loaded is when they came into use.
	Loaded time.Time
	// KeyID names the secret that is sent. It tells secrets apart and nothing of
	// them, and is the same on all nodes.
	KeyID string
	// Accepted are the IDs of all that are accepted, KeyID among them.
	Accepted []string
	// Err says why there are none, or why the file as it is now is not in use.
	Err error
}

// Status returns what is in use now. It does not look at the file.
func (a *Auth) Status() Status {
	a.prepare()
	k := a.keys
	k.stateMu.Lock()
	defer k.stateMu.Unlock()
	s := Status{Loaded: k.loaded, Err: k.err}
	if a.settingsErr != nil {
		s.Err = a.settingsErr
	}
	if r := k.current.Load(); r != nil {
		s.Generation, s.KeyID, s.Accepted = r.generation, r.primary().id, r.ids()
	}
	return s
}

func (a *Auth) window() time.Duration {
	if a.Window == 0 {
		return defaultWindow
	}
	return a.Window
}

func (a *Auth) maxBody() int64 {
	if a.MaxBodyBytes == 0 {
		return defaultBodyBytes
	}
	return a.MaxBodyBytes
}

func (a *Auth) maxBuffered() int64 {
	if a.MaxBufferedBytes == 0 {
		return max(defaultBufferedBytes, a.maxBody())
	}
	return a.MaxBufferedBytes
}

func (a *Auth) bodyTimeout() time.Duration {
	if a.BodyTimeout == 0 {
		return defaultBodyTimeout
	}
	return a.BodyTimeout
}

func (a *Auth) maxNonces() int {
	if a.MaxNonces == 0 {
		return defaultNonces
	}
	return a.MaxNonces
}

func (a *Auth) reloadInterval() time.Duration {
	if a.ReloadInterval == 0 {
		return defaultReload
	}
	return a.ReloadInterval
}
