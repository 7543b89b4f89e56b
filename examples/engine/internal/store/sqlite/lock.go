//go:build linux || darwin

package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// acquireLock takes the lock of a data directory for this process; closing the
// file, as the end of the process does, gives it back. The file itself stays:
// removing it would let two processes hold locks on two files of one name.
func acquireLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("store: lock %s: %w", path, err)
		}
		var pid [32]byte
		n, _ := f.ReadAt(pid[:], 0) // the holder may not have written it yet
		holder := strings.TrimSpace(string(pid[:n]))
		if holder == "" {
			holder = "unknown"
		}
		return nil, fmt.Errorf("%w: %s is held by process %s", store.ErrLocked, path, holder)
	}
	// The pid is for the message above; on a full disk it may be missing.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}
