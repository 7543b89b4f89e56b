// Package catalog keeps the channels that are made over the API: each in a file of
// its own, in the configuration's language, which the next start reads again.
//
// A change counts when its file is on stable storage, and the engine runs by it: both
// or neither. A file is replaced as a whole, so that a crash leaves the old one or the
// new one. Channels of engine.yaml belong to that file, and are not changed here.
package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/durable"
)

// Errors of a Catalog.
var (
	// ErrConfigured is returned for a channel of engine.yaml.
	ErrConfigured = errors.New("this channel belongs to engine.yaml: change it there")
	// ErrExists is returned by Put for an id that a channel has.
	ErrExists = errors.New("channel already exists")
	// ErrUnknown is returned for an id that no channel has.
	ErrUnknown = errors.New("channel not found")
	// ErrOtherID is returned where a channel's id is not the one it is to replace.
	ErrOtherID = errors.New("the id of a channel cannot be changed: messages are stored under it")
)

// Engine is what a Catalog needs of an engine; see package engine.
type Engine interface {
	Channels() []*config.Channel
	Add(cfg *config.Channel) error
	Replace(ctx context.Context, cfg *config.Channel, force bool) error
	Remove(ctx context.Context, id string, force bool) error
}

// Catalog keeps channels in a directory. Its methods may be called concurrently.
type Catalog struct {
	// static after construction
	dir    string
	engine Engine
	lookup func(string) (string, bool)

	changing sync.Mutex // held during a change: one at a time
}

// Directory is where a data directory has the channels of its API.
func Directory(dataDir string) string { return filepath.Join(dataDir, "channels") }

// New returns a catalog of the channels in dir, which may not be there yet, with
// lookup (os.LookupEnv) for the variables in them.
func New(dir string, engine Engine, lookup func(string) (string, bool)) *Catalog {
	return &Catalog{dir: dir, engine: engine, lookup: lookup}
}

// Put makes a channel of YAML or, with asJSON, of JSON. Where there is one of its id,
// it is replaced with override, and otherwise the error is ErrExists. The errors are also
// config.LineErrors, ErrConfigured, and those of the engine's Add and Replace.
func (c *Catalog) Put(ctx context.Context, data []byte, asJSON, override, force bool) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	id := idOf(data, asJSON)
	if old := c.find(id); old != nil && override {
		return c.replace(ctx, old, data, asJSON, force)
	} else if old != nil {
		// Said before anything of it is checked: its port is taken by itself.
		return fmt.Errorf("%w: %s", ErrExists, id)
	}
	ch, text, err := config.ParseStored(c.path("new"), data, asJSON, c.engine.Channels(), c.lookup)
	if err != nil {
		return err
	}
	file, err := c.stage(ch.ID, text)
	if err != nil {
		return err
	}
	defer file.discard()
	if err := c.engine.Add(ch); err != nil {
		return err
	}
	if err := file.keep(); err != nil {
		return errors.Join(err, c.engine.Remove(ctx, ch.ID, false))
	}
	return nil
}

// Replace gives a channel other settings; see engine.Replace for force.
func (c *Catalog) Replace(ctx context.Context, id string, data []byte, asJSON, force bool) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	old := c.find(id)
	if old == nil {
		return fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	return c.replace(ctx, old, data, asJSON, force)
}

func (c *Catalog) replace(ctx context.Context, old *config.Channel, data []byte, asJSON, force bool) error {
	if !old.Stored {
		return ErrConfigured
	}
	others := slices.DeleteFunc(c.engine.Channels(), func(ch *config.Channel) bool { return ch.ID == old.ID })
	ch, text, err := config.ParseStored(c.path(old.ID), data, asJSON, others, c.lookup)
	if err != nil {
		return err
	}
	if ch.ID != old.ID {
		return ErrOtherID
	}
	file, err := c.stage(ch.ID, text)
	if err != nil {
		return err
	}
	defer file.discard()
	if err := c.engine.Replace(ctx, ch, force); err != nil {
		return err
	}
	if err := file.keep(); err != nil {
		// The channel goes on by what the next start will find.
		return errors.Join(err, c.engine.Replace(ctx, old, true))
	}
	return nil
}

// Remove takes a channel away; see engine.Remove for force.
func (c *Catalog) Remove(ctx context.Context, id string, force bool) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	switch old := c.find(id); {
	case old == nil:
		return fmt.Errorf("%w: %s", ErrUnknown, id)
	case !old.Stored:
		return ErrConfigured
	}
	if err := c.engine.Remove(ctx, id, force); err != nil {
		return err
	}
	// Should this fail, the channel is back after the next start, and so are its
	// messages: nothing is lost.
	if err := os.Remove(c.path(id)); err != nil {
		return fmt.Errorf("channel %s runs no more, and its file cannot be removed: %w", id, err)
	}
	return durable.SyncDir(c.dir)
}

// Text returns what a channel was made of, in YAML.
func (c *Catalog) Text(id string) ([]byte, error) {
	switch ch := c.find(id); {
	case ch == nil:
		return nil, fmt.Errorf("%w: %s", ErrUnknown, id)
	case !ch.Stored:
		return nil, ErrConfigured
	}
	return os.ReadFile(c.path(id))
}

func (c *Catalog) path(id string) string { return config.StoredPath(c.dir, id) }

func (c *Catalog) find(id string) *config.Channel {
	channels := c.engine.Channels()
	if i := slices.IndexFunc(channels, func(ch *config.Channel) bool { return ch.ID == id }); i >= 0 {
		return channels[i]
	}
	return nil
}

// idOf returns what seems to be the id in a channel that is not checked yet.
func idOf(data []byte, asJSON bool) string {
	var ch struct {
		ID string `json:"id" yaml:"id"`
	}
	if asJSON {
		_ = json.Unmarshal(data, &ch) // who reads it in earnest will say what is wrong
	} else {
		_ = yaml.Unmarshal(data, &ch) // as above
	}
	return ch.ID
}

// A staged file is complete beside the one whose place it is to take. What can go
// wrong with a full disk has gone wrong before.
type staged struct{ temp, path string }

func (c *Catalog) stage(id string, text []byte) (*staged, error) {
	if err := durable.MakeDir(c.dir); err != nil {
		return nil, err
	}
	s := &staged{temp: filepath.Join(c.dir, "."+id+".part"), path: c.path(id)}
	f, err := os.OpenFile(s.temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.discard()
		return nil, err
	}
	return s, nil
}

// keep puts the file in its place, durably.
func (s *staged) keep() error {
	if err := os.Rename(s.temp, s.path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(s.path))
}

// discard removes the file unless it was kept.
func (s *staged) discard() { _ = os.Remove(s.temp) } // a rest is overwritten by the next change
