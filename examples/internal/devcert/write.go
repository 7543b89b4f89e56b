package devcert

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is one file to write.
type file struct {
	path string
	data []byte
	mode fs.FileMode
}

func refuseExisting(paths []string) error {
	there, err := existing(paths)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("devcert: %s: %w: nothing was written", strings.Join(there, ", "), fs.ErrExist)
	}
	return nil
}

// writeAll writes the files. Without replace, it fails on one that is there and
// removes those that it had already written.
func writeAll(dir string, files []file, replace bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("devcert: %w", err)
	}
	var written []string
	for _, f := range files {
		put := create
		if replace {
			put = swap
		}
		if err := put(f); err != nil {
			for _, path := range written {
				err = errors.Join(err, os.Remove(path))
			}
			return fmt.Errorf("devcert: %w", err)
		}
		if !replace {
			written = append(written, f.path)
		}
	}
	return nil
}

// create writes a new file and fails with fs.ErrExist on an old one, also when
// it appears at the last moment or is a dangling symbolic link.
func create(f file) error {
	w, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if err != nil {
		return err
	}
	_, err = w.Write(f.data)
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, os.Remove(f.path))
	}
	return nil
}

// swap replaces a file in one step, so that nobody reads half of it and an old
// file's wider mode does not outlive it.
func swap(f file) error {
	w, err := os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+".*")
	if err != nil {
		return err
	}
	_, err = w.Write(f.data)
	err = errors.Join(err, w.Chmod(f.mode), w.Close())
	if err == nil {
		err = os.Rename(w.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(w.Name()))
	}
	return nil
}
