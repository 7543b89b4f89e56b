package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// store keeps messages as files of a directory. It is safe for concurrent use.
type store struct {
	// static after construction
	dir string
	run string // in the names of all files of this run, so that no two runs clash

	kept atomic.Int64
}

// openStore opens the directory dir, and makes it where it is missing.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &store{dir: dir, run: rand.Text()[:6]}, nil
}

// keep writes a message, byte for byte, to a file of its own and returns the
// file's path once both the bytes and the name have reached the disk. What goes
// wrong before leaves no file behind that a reader would take for a message: names
// ending in .hl7 are always whole.
func (s *store) keep(message, controlID []byte) (path string, err error) {
	f, err := os.CreateTemp(s.dir, ".incoming-*") // mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(message)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return "", err
	}
	path = filepath.Join(s.dir, s.name(controlID))
	if err := os.Rename(f.Name(), path); err != nil {
		return "", err
	}
	if err := syncDir(s.dir); err != nil {
		_ = os.Remove(path)
		return "", err
	}
	return path, nil
}

// name makes a file name that sorts by time of arrival and tells the control id,
// as far as a file name can.
func (s *store) name(controlID []byte) string {
	id := strings.Map(func(r rune) rune {
		if r < 0x80 && isAlphanumeric(byte(r)) || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, string(controlID[:min(len(controlID), 64)]))
	return fmt.Sprintf("%s-%s-%08d-%s.hl7", time.Now().UTC().Format("20060102T150405.000"), s.run, s.kept.Add(1), id)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closing := d.Close(); err == nil {
		err = closing
	}
	return err
}
