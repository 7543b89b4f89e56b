package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/durable"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// fileDestination writes each message into a file of its own. The name is made
// of when the message came in and its number in the store, and of nothing that
// a sender can choose: a message that is delivered twice has one file, and a
// listing by name is in the order of delivery. Of a message that refers to a DICOM
// object it writes the object.
type fileDestination struct {
	queued
	// static after construction
	engine    *Engine
	directory string
}

func newFileDestination(e *Engine, cfg *config.FileDestination, w *worker) *fileDestination {
	return &fileDestination{queued: queued{w.store}, engine: e, directory: cfg.Directory}
}

func (f *fileDestination) send(_ context.Context, d *store.Delivery) error {
	stem := fmt.Sprintf("%012d-%s", d.Message.ID, d.Message.Received.UTC().Format("20060102T150405.000Z"))
	var err error
	if refersToObject(&d.Message) {
		err = f.copyObject(stem+objectSuffix, &d.Message)
	} else {
		err = writeFile(f.directory, stem+".hl7", bytes.NewReader(d.Message.Raw))
	}
	if _, said := errors.AsType[sendFailure](err); err != nil && !said {
		return &unavailable{err}
	}
	return err
}

// copyObject writes the object that m refers to.
func (f *fileDestination) copyObject(name string, m *store.Message) error {
	object, err := f.engine.openObject(m)
	if err != nil {
		return err
	}
	defer object.Close()
	return writeFile(f.directory, name, object)
}

// writeFile puts a whole file under name or none: a reader of the directory never
// sees a part, and after a nil no power failure takes it away.
func writeFile(directory, name string, content io.Reader) error {
	if err := durable.MakeDir(directory); err != nil {
		return err
	}
	temp := filepath.Join(directory, "."+name+".part")
	w, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, content)
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = os.Rename(temp, filepath.Join(directory, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return durable.SyncDir(directory)
}

func (*fileDestination) close() {}
