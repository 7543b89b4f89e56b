package testpki

import (
	"fmt"
	"os"
	"path/filepath"
)

// Mount is a directory laid out as the kubelet lays out a Secret or ConfigMap:
//
//	dir/..2026_00001/tls.crt     the files of one generation
//	dir/..data -> ..2026_00001   swapped by one rename
//	dir/tls.crt -> ..data/tls.crt
//
// It is not safe for concurrent use.
type Mount struct {
	Dir string

	tb      TB
	current string // the directory that ..data names
	count   int
}

// NewMount makes dir such a mount of files (name to content).
func NewMount(tb TB, dir string, files map[string][]byte) *Mount {
	tb.Helper()
	m := &Mount{Dir: dir, tb: tb}
	m.Swap(files)
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), m.Path(name)); err != nil {
			tb.Fatalf("testpki: %v", err)
		}
	}
	return m
}

// Path returns the path of a file of the mount, through its links.
func (m *Mount) Path(name string) string { return filepath.Join(m.Dir, name) }

// Swap publishes files as the next generation in one rename and removes the
// generation before, as the kubelet does.
func (m *Mount) Swap(files map[string][]byte) {
	m.tb.Helper()
	m.count++
	next := fmt.Sprintf("..2026_%05d", m.count)
	if err := m.swap(next, files); err != nil {
		m.tb.Fatalf("testpki: swap ..data: %v", err)
	}
	m.current = next
}

func (m *Mount) swap(next string, files map[string][]byte) error {
	if err := os.Mkdir(filepath.Join(m.Dir, next), 0o755); err != nil {
		return err
	}
	for name, data := range files {
		// 0644 is Kubernetes' own default, for keys too.
		if err := os.WriteFile(filepath.Join(m.Dir, next, name), data, 0o644); err != nil {
			return err
		}
	}
	link := filepath.Join(m.Dir, "..data_tmp")
	if err := os.Symlink(next, link); err != nil {
		return err
	}
	if err := os.Rename(link, filepath.Join(m.Dir, "..data")); err != nil {
		return err
	}
	if m.current == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(m.Dir, m.current))
}
