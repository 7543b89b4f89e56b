package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// fileDestination writes each message into a file of its own. The name is made
// of when the message came in and its number in the store, and of nothing that
// a sender can choose: a message that is delivered twice has one file, and a
// listing by name is in the order of delivery.
type fileDestination struct {
	queued
	directory string // static after construction
}

func newFileDestination(cfg *config.FileDestination, w *worker) *fileDestination {
	return &fileDestination{queued: queued{w.store}, directory: cfg.Directory}
}

func (f *fileDestination) send(_ context.Context, d *store.Delivery) error {
	name := fmt.Sprintf("%012d-%s.hl7", d.Message.ID, d.Message.Received.UTC().Format("20060102T150405.000Z"))
	if err := writeFile(f.directory, name, d.Message.Raw); err != nil {
		return &unavailable{err}
	}
	return nil
}

// writeFile puts a whole file under name or none: a reader of the directory never
// sees a part, and after a nil no power failure takes it away.
func writeFile(directory, name string, data []byte) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	temp := filepath.Join(directory, "."+name+".part")
	w, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = os.Rename(temp, filepath.Join(directory, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(directory)
}

// syncDir makes a rename durable (POSIX leaves that to fsync of the directory).
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (*fileDestination) close() {}
