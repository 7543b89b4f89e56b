package users

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Configured is a user whom the configuration file sets. Of Password and Hash one
// is given.
type Configured struct {
	Name     string
	Role     Role
	Password string
	Hash     string // by argon2id, or one of Mirth's
}

// fromPassword marks a hash made of a configured password. A configured hash is
// marked by its digest, to notice that it has been changed since.
const fromPassword = "password"

func (c *Configured) mark() string {
	if c.Hash == "" {
		return fromPassword
	}
	sum := sha256.Sum256([]byte(c.Hash))
	return hex.EncodeToString(sum[:])
}

// CheckHash returns why a configuration cannot give a user this hash.
func CheckHash(hash string) error {
	_, err := parseHash(hash)
	return err
}

// Configure makes the users of the configuration what it says, and removes those
// whom it said before and does not any more. Who was created through the API
// stays, other than where the configuration has the same name.
//
// A count of wrong passwords stays too, unless the password is another.
func (s *Store) Configure(ctx context.Context, list []Configured) error {
	s.mu.Lock()
	next := s.data.clone()
	s.mu.Unlock()
	next.Users = slices.DeleteFunc(next.Users, func(r *record) bool {
		return r.Configured != "" && !slices.ContainsFunc(list, func(c Configured) bool { return strings.EqualFold(c.Name, r.Name) })
	})
	for _, c := range list {
		if err := s.configure(ctx, &next, &c); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saveLocked(next)
}

func (s *Store) configure(ctx context.Context, next *file, c *Configured) error {
	if err := validUser(c.Name, c.Role); err != nil {
		return err
	}
	rec := next.byName(c.Name)
	if rec == nil {
		rec = next.add(c.Name, c.Role)
	}
	mark := c.mark()
	same := rec.Configured == mark && (mark != fromPassword || rec.parsed.matches(c.Password))
	rec.Name, rec.Role, rec.Configured, rec.MustChange = c.Name, c.Role, mark, false
	if same {
		return nil
	}
	hash := c.Hash
	if hash == "" {
		var err error
		if hash, err = s.hash(ctx, c.Password); err != nil {
			return err
		}
	}
	rec.Failures, rec.LockedUntil = 0, time.Time{}
	return rec.setHash(hash)
}
