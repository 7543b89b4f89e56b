// Package sessions knows who is signed in.
//
// A session ends by itself after IdleTimeout without a request and after
// Lifetime in any case; it ends at once when its user signs out or gets another
// password. Sessions live in the memory of the process: a restart ends all.
//
// What a client holds is 130 random bits. The table keeps only their SHA-256, so
// that a copy of the memory is no set of keys.
package sessions

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

// How long a session lasts (spec/engine.md row 33), and how many there may be.
const (
	IdleTimeout = 30 * time.Minute
	Lifetime    = 12 * time.Hour
	maxPerUser  = 100    // one more ends the one that was used least recently
	maxAll      = 10_000 // likewise
)

// digest is the SHA-256 of a session's ID.
type digest [sha256.Size]byte

// Session is one user signed in once. It is safe for concurrent use.
type Session struct {
	// static after construction
	user  int
	key   digest
	done  chan struct{} // closed by the table when the session ends
	ends  time.Time
	timer *time.Timer // ends the session; its deadline is guarded by the table's mutex

	used time.Time // guarded by the table's mutex
}

// User returns the ID of the user.
func (s *Session) User() int { return s.user }

// Done returns a channel that is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Table holds all sessions. Make it with New; it is safe for concurrent use.
type Table struct {
	mu   sync.Mutex
	all  map[digest]*Session // guarded by mu
	done bool                // guarded by mu
}

// New returns a table without sessions.
func New() *Table { return &Table{all: make(map[digest]*Session)} }

// Create signs a user in and returns the ID to be given to the client, which is
// nowhere kept.
func (t *Table) Create(user int) (string, *Session) {
	id := rand.Text()
	now := time.Now()
	s := &Session{user: user, key: sha256.Sum256([]byte(id)), done: make(chan struct{}), ends: now.Add(Lifetime), used: now}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		close(s.done)
		return id, s
	}
	t.makeRoomLocked(user)
	t.all[s.key] = s
	s.timer = time.AfterFunc(IdleTimeout, func() { t.End(s) })
	return id, s
}

// makeRoomLocked ends the session that was used least recently, of the user if it
// has too many, else of all.
func (t *Table) makeRoomLocked(user int) {
	own := 0
	var oldest, oldestOwn *Session
	for _, s := range t.all {
		if oldest == nil || s.used.Before(oldest.used) {
			oldest = s
		}
		if s.user != user {
			continue
		}
		own++
		if oldestOwn == nil || s.used.Before(oldestOwn.used) {
			oldestOwn = s
		}
	}
	switch {
	case own >= maxPerUser:
		t.endLocked(oldestOwn)
	case len(t.all) >= maxAll:
		t.endLocked(oldest)
	}
}

// Use returns the session with an ID, and counts as use of it.
func (t *Table) Use(id string) (*Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.all[sha256.Sum256([]byte(id))]
	if ok {
		t.touchLocked(s)
	}
	return s, ok
}

// Touch counts as use of a session that may have ended already.
func (t *Table) Touch(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[s.key] == s {
		t.touchLocked(s)
	}
}

func (t *Table) touchLocked(s *Session) {
	s.used = time.Now()
	s.timer.Reset(min(IdleTimeout, s.ends.Sub(s.used)))
}

// SignedIn tells whether a user has a session.
func (t *Table) SignedIn(user int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.all {
		if s.user == user {
			return true
		}
	}
	return false
}

// End ends one session.
func (t *Table) End(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[s.key] == s {
		t.endLocked(s)
	}
}

// EndAllOf ends all sessions of a user.
func (t *Table) EndAllOf(user int) { t.end(func(s *Session) bool { return s.user == user }) }

// Close ends all sessions, and no more begin.
func (t *Table) Close() {
	t.mu.Lock()
	t.done = true
	t.mu.Unlock()
	t.end(func(*Session) bool { return true })
}

func (t *Table) end(which func(*Session) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.all {
		if which(s) {
			t.endLocked(s)
		}
	}
}

func (t *Table) endLocked(s *Session) {
	delete(t.all, s.key)
	s.timer.Stop()
	close(s.done)
}
