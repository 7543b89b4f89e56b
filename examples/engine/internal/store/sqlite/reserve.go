package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/examples/engine/internal/disk"
)

// A reserve is a file that holds space on the disk until it is needed. It is
// owned by the writer.
type reserve struct {
	path string
	size int64 // bytes; 0 means none is wanted
}

func newReserve(path string, size int64) *reserve {
	if size == 0 {
		size = defaultReserve
	}
	return &reserve{path: path, size: max(size, 0)}
}

// take sets the space aside, unless it is already. It leaves at least half as
// much free: taking the last byte would fill the disk in order to be ready for a
// full disk.
func (r *reserve) take() error {
	info, err := os.Stat(r.path)
	switch {
	case r.size == 0:
		return r.release()
	case err == nil && info.Size() == r.size:
		return nil
	}
	if err := r.release(); err != nil {
		return err
	}
	space, err := disk.Of(filepath.Dir(r.path))
	if err != nil {
		return fmt.Errorf("store: reserve: %w", err)
	}
	if need := r.size + r.size/2; space.Free < need {
		return fmt.Errorf("store: reserve: %d bytes are free, %d are needed", space.Free, need)
	}
	if err := r.fill(); err != nil {
		return errors.Join(fmt.Errorf("store: reserve: %w", err), r.release())
	}
	return nil
}

// fill writes the file, as a file that is only extended holds no space.
func (r *reserve) fill() error {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	zeros := make([]byte, 256<<10)
	for left := r.size; left > 0 && err == nil; left -= int64(len(zeros)) {
		_, err = f.Write(zeros[:min(left, int64(len(zeros)))])
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// release gives the space up.
func (r *reserve) release() error {
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
