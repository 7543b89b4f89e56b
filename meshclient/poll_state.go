package meshclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// A PollStore keeps a Poller's memory, a few hundred bytes and as many for each
// message that failed. It is never called twice at once.
type PollStore interface {
	// Load returns what was saved last, and nothing if nothing was.
	Load(ctx context.Context) ([]byte, error)
	// Save makes state durable in the place of what was there.
	Save(ctx context.Context, state []byte) error
}

// maxPollState bounds what is read: more than a hundred thousand messages.
const maxPollState = 32 << 20

// forgetAfter is when a message that is not listed any more is forgotten: MESH
// deletes messages after 30 days.
const forgetAfter = 31 * 24 * time.Hour

// pollState is what a PollStore keeps.
type pollState struct {
	LastPoll      time.Time               `json:"lastPoll"`
	LastHandshake time.Time               `json:"lastHandshake"`
	NextHandshake time.Time               `json:"nextHandshake"`
	Messages      map[string]*pollMessage `json:"messages,omitempty"`
}

// A pollMessage is one that was listed, and not acknowledged.
type pollMessage struct {
	First    time.Time `json:"first"` // when it was listed first
	Seen     time.Time `json:"seen"`  // when it was last
	Stored   bool      `json:"stored,omitempty"`
	Failures int       `json:"failures,omitempty"`
	Poison   bool      `json:"poison,omitempty"`
	Next     time.Time `json:"next,omitzero"` // not to be tried before
	Alarmed  bool      `json:"alarmed,omitempty"`
}

func newPollState() *pollState { return &pollState{Messages: make(map[string]*pollMessage)} }

func parsePollState(text []byte) (*pollState, error) {
	s := newPollState()
	if len(bytes.TrimSpace(text)) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, errors.New("it is not the state of a Poller")
	}
	if s.Messages == nil {
		s.Messages = make(map[string]*pollMessage)
	}
	maps.DeleteFunc(s.Messages, func(_ string, m *pollMessage) bool { return m == nil })
	return s, nil
}

func (s *pollState) encode() ([]byte, error) { return json.Marshal(s) }

// message returns what is known of a message that is listed now.
func (s *pollState) message(id string, now time.Time) *pollMessage {
	m := s.Messages[id]
	if m == nil {
		m = &pollMessage{First: now}
		s.Messages[id] = m
	}
	m.Seen = now
	return m
}

// prune forgets what is not listed any more, and what there is nothing to know of.
func (s *pollState) prune(now time.Time) {
	maps.DeleteFunc(s.Messages, func(_ string, m *pollMessage) bool {
		return now.Sub(m.Seen) > forgetAfter || !m.Stored && m.Failures == 0
	})
}

// PollFile is a PollStore that is a file. It is replaced as a whole, so that a loss
// of power leaves the old or the new one.
type PollFile string

// Load reads the file, which need not be there.
func (f PollFile) Load(context.Context) ([]byte, error) {
	text, err := readSmall(string(f), maxPollState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// Save replaces the file.
func (f PollFile) Save(_ context.Context, state []byte) error {
	return replaceFile(string(f), state)
}

// readSmall reads a file that has no more than limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the caller's own path
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return text, err
}

// replaceFile writes a file so that it is there, whole, when the power fails.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".mesh-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename durable (POSIX leaves that to fsync of the directory).
func syncDir(path string) error {
	dir, err := os.Open(path) //nolint:gosec // of the caller's own path
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
