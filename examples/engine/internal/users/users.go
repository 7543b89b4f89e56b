// Package users knows who may use the engine's API.
//
// Users are in one file, which is replaced as a whole and synced before anything
// counts as done. Passwords are kept as argon2id (RFC 9106); hashes of Mirth are
// accepted and replaced by argon2id when their user signs in.
//
// Verify tells nobody whether a user exists: for a name that there is not it does
// the same work and gives the same error. After five wrong passwords in a row a
// user is locked, for 30 seconds at first and twice as long after each further
// one, up to 15 minutes. The count is in the file and so survives a restart.
package users

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Errors of a Store.
var (
	// ErrRefused is all that Verify says of a wrong name, a wrong password, and a
	// user who is locked.
	ErrRefused = errors.New("users: wrong name or password")
	// ErrBusy means that too many passwords are being checked.
	ErrBusy = errors.New("users: too many passwords are being checked")
	// ErrUnknown means that there is no such user.
	ErrUnknown = errors.New("users: no such user")
	// ErrExists means that a user of that name is there.
	ErrExists = errors.New("users: there is a user of that name")
	// ErrConfigured means that the configuration file says what was to be changed.
	ErrConfigured = errors.New("users: this user is set in the configuration")
	// ErrLastAdmin means that nobody would be left to manage users.
	ErrLastAdmin = errors.New("users: this is the last admin")
	// ErrWeakPassword means that a password is too short or too long.
	ErrWeakPassword = fmt.Errorf("users: a password has %d to %d bytes", MinPassword, maxPassword)
	// ErrName means that a name cannot be a user's.
	ErrName = errors.New("users: a name has letters, digits and . _ - @ only, 64 at most")
	// ErrRole means that a word is none of the roles.
	ErrRole = errors.New("users: the roles are admin, operator and viewer")
)

const (
	// MinPassword is how many bytes a password has at least.
	MinPassword = 12
	maxPassword = 1024 // bytes; what is longer is refused before it is hashed
	maxUsers    = 10_000

	freeFailures = 4 // wrong passwords in a row that lock nobody
	firstLock    = 30 * time.Second
	longestLock  = 15 * time.Minute

	// atOnce bounds the memory that passwords being checked take.
	atOnce  = 2
	maxWait = 10 * time.Second
)

// User is a user without what is secret.
type User struct {
	ID   int
	Name string
	Role Role
	// Configured means that the configuration file, and not the API, says what
	// this user's role and password are.
	Configured bool
	// MustChange means that the password was generated: it is good for nothing
	// but to choose another.
	MustChange bool
	LastLogin  time.Time // zero: never
	Failures   int       // wrong passwords in a row
	// LockedUntil is when this user can sign in again. Zero: now.
	LockedUntil time.Time
}

// Store holds the users of one data directory. Make it with Open; it is safe for
// concurrent use.
type Store struct {
	// static after construction
	path  string
	cost  Cost
	dummy parsedHash    // verified for names that there are not
	gate  chan struct{} // holds one entry for each password being hashed

	mu   sync.Mutex
	data file // guarded by mu; what is in the file at path
}

// Options are the settings of a Store. The zero value is ready to use.
type Options struct {
	Cost Cost // of new hashes; zero: 19 MiB, 2 passes
}

// Open reads the users in the file path, which need not be there.
func Open(path string, opts Options) (*Store, error) {
	cost := opts.Cost
	if cost == (Cost{}) {
		cost = defaultCost
	}
	dummy, err := parseHash(hashPassword(rand.Text(), cost))
	if err != nil {
		return nil, err
	}
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return &Store{path: path, cost: cost, dummy: dummy, gate: make(chan struct{}, atOnce), data: data}, nil
}

// enter waits for its turn to hash a password. leave must be called after it.
func (s *Store) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	select {
	case s.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ErrBusy
	}
}

func (s *Store) leave() { <-s.gate }

// Verify returns the user of that name and password, and counts what was wrong.
// The error is ErrRefused, ErrBusy, or that of writing the file, without which
// nobody is let in.
func (s *Store) Verify(ctx context.Context, name, password string) (User, error) {
	if err := s.enter(ctx); err != nil {
		return User{}, err
	}
	defer s.leave()
	s.mu.Lock()
	hash, known := s.dummy, false
	if rec := s.data.byName(name); rec != nil {
		hash, known = rec.parsed, true
	}
	mixed := s.data.find(func(r *record) bool { return r.parsed.ofMirth() }) != nil
	s.mu.Unlock()

	tooLong := len(password) > maxPassword
	if tooLong {
		password = "" // no more work than that of others
	}
	right := hash.matches(password) && !tooLong
	switch {
	case mixed && hash.ofMirth():
		s.dummy.matches(password)
	case mixed:
		// Hashes of Mirth take longer: while there are any, all names do.
		parsedHash{salt: s.dummy.salt, key: s.dummy.key}.matches(password)
	}
	fresh := ""
	if known && right && hash.cost != s.cost {
		fresh = hashPassword(password, s.cost)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.data.clone()
	rec := next.byName(name)
	ok := false
	if rec != nil {
		// Another hash means another password since.
		ok = right && rec.parsed.equal(hash)
		ok = rec.attempt(ok, time.Now())
		if ok && fresh != "" {
			if err := rec.setHash(fresh); err != nil {
				return User{}, err
			}
		}
	}
	// It is written in any case: so it takes as long for a name that there is not.
	if err := s.saveLocked(next); err != nil {
		return User{}, err
	}
	if !ok {
		return User{}, ErrRefused
	}
	return rec.user(), nil
}

// attempt counts an attempt to sign in and tells whether it succeeds. While a user
// is locked none does, and none makes it longer.
func (r *record) attempt(right bool, now time.Time) bool {
	switch {
	case now.Before(r.lockedUntil(now)):
		return false
	case right:
		r.Failures, r.LockedUntil, r.LastLogin = 0, time.Time{}, now
		return true
	}
	r.Failures++
	if beyond := r.Failures - freeFailures; beyond > 0 {
		lock := longestLock
		if beyond <= 5 {
			lock = min(firstLock<<(beyond-1), longestLock)
		}
		r.LockedUntil = now.Add(lock)
	}
	return false
}

// lockedUntil is never further away than the longest lock, wherever the clock
// was when it was set.
func (r *record) lockedUntil(now time.Time) time.Time {
	if latest := now.Add(longestLock); r.LockedUntil.After(latest) {
		r.LockedUntil = latest
	}
	return r.LockedUntil
}

// Get returns a user.
func (s *Store) Get(id int) (User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec := s.data.byID(id); rec != nil {
		return rec.user(), nil
	}
	return User{}, ErrUnknown
}

// Known tells whether there is a user of that name, and what the name is there.
func (s *Store) Known(name string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec := s.data.byName(name); rec != nil {
		return rec.Name, true
	}
	return "", false
}

// List returns all users in the order of their IDs.
func (s *Store) List() []User {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]User, len(s.data.Users))
	for i, rec := range s.data.Users {
		list[i] = rec.user()
	}
	slices.SortFunc(list, func(a, b User) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Create adds a user.
func (s *Store) Create(ctx context.Context, name, password string, role Role) (User, error) {
	return s.create(ctx, name, password, role, false)
}

// CreateFirst adds the user admin with a generated password if there is no user
// at all, and returns that password. It is nowhere kept; "" means that there are
// users.
func (s *Store) CreateFirst(ctx context.Context) (password string, err error) {
	if len(s.List()) > 0 {
		return "", nil
	}
	password = rand.Text()
	_, err = s.create(ctx, "admin", password, Admin, true)
	return password, err
}

func (s *Store) create(ctx context.Context, name, password string, role Role, generated bool) (User, error) {
	if err := validUser(name, role); err != nil {
		return User{}, err
	}
	hash, err := s.hash(ctx, password)
	if err != nil {
		return User{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.data.clone()
	if next.byName(name) != nil {
		return User{}, ErrExists
	}
	if len(next.Users) >= maxUsers {
		return User{}, errors.New("users: there are too many")
	}
	rec := next.add(name, role)
	if err := rec.setHash(hash); err != nil {
		return User{}, err
	}
	rec.MustChange = generated
	user := rec.user()
	return user, s.saveLocked(next)
}

func validUser(name string, role Role) error {
	switch {
	case !ValidName(name):
		return ErrName
	case !role.Valid():
		return ErrRole
	}
	return nil
}

// ValidName tells whether name can be a user's.
func ValidName(name string) bool {
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-@", r)
	})
}

// CheckPassword returns ErrWeakPassword for what cannot be a password.
func CheckPassword(password string) error {
	if len(password) < MinPassword || len(password) > maxPassword {
		return ErrWeakPassword
	}
	return nil
}

func (s *Store) hash(ctx context.Context, password string) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	if err := s.enter(ctx); err != nil {
		return "", err
	}
	defer s.leave()
	return hashPassword(password, s.cost), nil
}

// SetPassword gives a user another password and ends a lock. The sessions of the
// user are the caller's to end.
func (s *Store) SetPassword(ctx context.Context, id int, password string) error {
	hash, err := s.hash(ctx, password)
	if err != nil {
		return err
	}
	return s.change(id, func(_ *file, rec *record) error {
		rec.MustChange, rec.Failures, rec.LockedUntil = false, 0, time.Time{}
		return rec.setHash(hash)
	})
}

// SetRole gives a user another role.
func (s *Store) SetRole(id int, role Role) error {
	if !role.Valid() {
		return ErrRole
	}
	return s.change(id, func(next *file, rec *record) error {
		rec.Role = role
		return next.hasAdmin()
	})
}

// Delete removes a user.
func (s *Store) Delete(id int) error {
	return s.change(id, func(next *file, _ *record) error {
		next.Users = slices.DeleteFunc(next.Users, func(r *record) bool { return r.ID == id })
		return next.hasAdmin()
	})
}

// change edits a user who is not set in the configuration.
func (s *Store) change(id int, edit func(next *file, rec *record) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.data.clone()
	rec := next.byID(id)
	switch {
	case rec == nil:
		return ErrUnknown
	case rec.Configured != "":
		return ErrConfigured
	}
	if err := edit(&next, rec); err != nil {
		return err
	}
	return s.saveLocked(next)
}

// saveLocked makes next durable, and only then what holds.
func (s *Store) saveLocked(next file) error {
	if err := writeFile(s.path, next); err != nil {
		return err
	}
	s.data = next
	return nil
}
