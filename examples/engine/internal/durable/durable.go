// Package durable makes names of files and directories survive a power failure: that
// a file's content is synced says nothing of the directory in which it is found
// (POSIX, fsync).
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// MakeDir makes dir and what it lies in, for the owner alone, where they are not
// there, and makes their names durable.
func MakeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := MakeDir(parent); err != nil {
		return err
	}
	// Somebody else may make it at the same time.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// SyncDir makes the names in a directory durable: those that were made, renamed and
// removed.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
