package users

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/durable"
)

// file is what is on disk.
type file struct {
	NextID int       `json:"nextId"`
	Users  []*record `json:"users"`
}

// record is a user on disk.
type record struct {
	ID          int       `json:"id"`
	Name        string    `json:"name"`
	Role        Role      `json:"role"`
	Hash        string    `json:"hash"`
	Configured  string    `json:"configured,omitempty"` // what in the configuration the hash was made of
	MustChange  bool      `json:"mustChange,omitempty"`
	LastLogin   time.Time `json:"lastLogin,omitzero"`
	Failures    int       `json:"failures,omitempty"`
	LockedUntil time.Time `json:"lockedUntil,omitzero"`

	parsed parsedHash // of Hash
}

func (r *record) setHash(hash string) error {
	parsed, err := parseHash(hash)
	if err != nil {
		return err
	}
	r.Hash, r.parsed = hash, parsed
	return nil
}

func (p parsedHash) equal(other parsedHash) bool {
	return p.cost == other.cost && slices.Equal(p.salt, other.salt) && slices.Equal(p.key, other.key)
}

func (r *record) user() User {
	u := User{
		ID: r.ID, Name: r.Name, Role: r.Role, Configured: r.Configured != "", MustChange: r.MustChange,
		LastLogin: r.LastLogin, Failures: r.Failures,
	}
	if now := time.Now(); now.Before(r.LockedUntil) {
		u.LockedUntil = r.LockedUntil
	}
	return u
}

// clone returns a copy that can be edited.
func (f file) clone() file {
	next := f
	next.Users = make([]*record, len(f.Users))
	for i, rec := range f.Users {
		next.Users[i] = new(*rec)
	}
	return next
}

func (f file) byName(name string) *record {
	return f.find(func(r *record) bool { return strings.EqualFold(r.Name, name) })
}

func (f file) byID(id int) *record { return f.find(func(r *record) bool { return r.ID == id }) }

func (f file) find(which func(*record) bool) *record {
	if i := slices.IndexFunc(f.Users, which); i >= 0 {
		return f.Users[i]
	}
	return nil
}

func (f file) hasAdmin() error {
	if f.find(func(r *record) bool { return r.Role == Admin }) == nil {
		return ErrLastAdmin
	}
	return nil
}

func (f *file) add(name string, role Role) *record {
	f.NextID++
	rec := &record{ID: f.NextID, Name: name, Role: role}
	f.Users = append(f.Users, rec)
	return rec
}

// maxFileBytes is far more than maxUsers users take.
const maxFileBytes = 16 << 20

// readFile reads what writeFile wrote. A file that is not there has no users.
func readFile(path string) (file, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, nil
	}
	if err != nil {
		return file{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return file{}, err
	}
	data, err := parseFile(text)
	if err != nil {
		return file{}, fmt.Errorf("%s: %w: restore it from a backup, or remove it to begin without users", path, err)
	}
	return data, nil
}

// parseFile returns the users in text. Its errors hold nothing of the text.
func parseFile(text []byte) (file, error) {
	var data file
	if len(text) > maxFileBytes || json.Unmarshal(text, &data) != nil {
		return file{}, errors.New("is not a file of users")
	}
	ids, names := make(map[int]bool), make(map[string]bool)
	for i, rec := range data.Users {
		if rec == nil || validUser(rec.Name, rec.Role) != nil || rec.ID < 1 || rec.ID > data.NextID {
			return file{}, fmt.Errorf("user %d in it is not valid", i+1)
		}
		parsed, err := parseHash(rec.Hash)
		if err != nil {
			return file{}, fmt.Errorf("the hash of user %d in it %w", i+1, err)
		}
		rec.parsed = parsed
		if name := strings.ToLower(rec.Name); ids[rec.ID] || names[name] {
			return file{}, fmt.Errorf("user %d in it is there twice", i+1)
		} else {
			ids[rec.ID], names[name] = true, true
		}
	}
	return data, nil
}

// writeFile replaces the file at path: whatever happens, the old one or the new
// one is there, whole.
func writeFile(path string, data file) (err error) {
	text, err := json.MarshalIndent(data, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".users-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}
