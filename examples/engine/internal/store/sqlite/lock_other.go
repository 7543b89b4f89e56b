//go:build !linux && !darwin

package sqlite

import (
	"errors"
	"fmt"
	"os"
)

// acquireLock refuses: without a lock two processes could send the same queue.
func acquireLock(path string) (*os.File, error) {
	return nil, fmt.Errorf("store: lock %s: %w on this system", path, errors.ErrUnsupported)
}
