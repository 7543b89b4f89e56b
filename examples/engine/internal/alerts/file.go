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

func load(dir string) (map[string]raised, error) {
	known := make(map[string]raised)
	text, err := os.ReadFile(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &known); err != nil {
		return nil, fmt.Errorf("%s: is damaged: remove it, and what is wrong is told again: %w", filepath.Join(dir, fileName), err)
	}
	return known, nil
}

// save replaces the file as a whole.
func save(dir string, known map[string]raised) error {
	text, err := json.MarshalIndent(known, "", "  ")
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
