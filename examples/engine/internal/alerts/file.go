package alerts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/durable"
)

// fileName is in the data directory.
const fileName = "alerts.json"

// raised is an alert that people were told and that is not over.
type raised struct {
	Kind        string    `json:"kind"`
	Channel     string    `json:"channel,omitempty"`
	Destination string    `json:"destination,omitempty"`
	Severity    int       `json:"severity,omitempty"`
	Since       time.Time `json:"since"`
	Over        string    `json:"over"` // what is said when it is
}

// memory is what the file holds.
type memory struct {
	Raised  map[string]raised `json:"raised"`
	Pending []alert           `json:"pending,omitempty"`
}

func load(dir string) (*memory, error) {
	text, err := os.ReadFile(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return &memory{Raised: make(map[string]raised)}, nil
	}
	if err != nil {
		return nil, err
	}
	m := new(memory)
	if err := json.Unmarshal(text, m); err != nil || m.Raised == nil {
		return nil, fmt.Errorf("%s is damaged: remove it, and what is wrong is told again", filepath.Join(dir, fileName))
	}
	return m, nil
}

// save replaces the file as a whole.
func save(dir string, m *memory) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+fileName+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, fileName))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return durable.SyncDir(dir)
}
