package dicomtls

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// commit gives the file part its name, and returns when that is on disk and the
// program has been told. start is where the data set begins in part.
func (s *FileStore) commit(ctx context.Context, part string, o StoredObject, start int64) error {
	for n := 1; ; n++ {
		o.Path = s.path(o.Meta.SOPInstanceUID, n)
		taken, err := s.rename(part, o.Path)
		if err != nil {
			return &storeError{StatusOutOfResources, "the disk cannot be written", err}
		}
		if !taken {
			break
		}
		// Names that are taken stay so, so that this needs no lock.
		same, err := sameDataSet(part, start, o.Path, o.Meta.TransferSyntaxUID)
		if err != nil {
			return &storeError{StatusOutOfResources, "an earlier object of this UID cannot be read", err}
		}
		if same {
			o.Duplicate = true
			break
		}
		if s.Duplicates == DuplicateReject {
			return &storeError{status: statusDuplicateInstance, comment: "another object of this SOP Instance UID is stored"}
		}
	}
	// Also for what was there already: whoever put it there may not be that far.
	if err := syncDir(s.Dir); err != nil {
		return &storeError{StatusOutOfResources, "the disk cannot be written", err}
	}
	if s.Stored == nil {
		return nil
	}
	if err := s.Stored(ctx, o); err != nil {
		return &storeError{StatusOutOfResources, "the object could not be passed on", err}
	}
	return nil
}

// path returns the n-th name of an instance, whose UID is valid.
func (s *FileStore) path(uid string, n int) string {
	if n > 1 {
		return filepath.Join(s.Dir, fmt.Sprintf("%s-%d%s", uid, n, objectSuffix))
	}
	return filepath.Join(s.Dir, uid+objectSuffix)
}

// rename gives part the name path, unless that is taken.
func (s *FileStore) rename(part, path string) (taken bool, err error) {
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.Duplicates != DuplicateOverwrite {
		switch _, err := os.Lstat(path); {
		case err == nil:
			return true, nil
		case !errors.Is(err, os.ErrNotExist):
			return false, err
		}
	}
	return false, os.Rename(part, path)
}

// sameDataSet compares the data set in part, from start on, with that of a file of
// the store.
func sameDataSet(part string, start int64, stored, transferSyntax string) (bool, error) {
	a, err := os.Open(part)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := os.Open(stored)
	if err != nil {
		return false, err
	}
	defer b.Close()
	if _, err := a.Seek(start, io.SeekStart); err != nil {
		return false, err
	}
	there := bufio.NewReaderSize(b, scanBuffer)
	meta, _, err := ReadFileMeta(there)
	if _, broken := errors.AsType[*MetaError](err); broken {
		return false, nil // not a file of ours
	}
	if err != nil {
		return false, err
	}
	if meta.TransferSyntaxUID != transferSyntax {
		return false, nil
	}
	return sameBytes(bufio.NewReaderSize(a, scanBuffer), there)
}

// sameBytes tells whether two readers have the same to read.
func sameBytes(a, b *bufio.Reader) (bool, error) {
	for {
		x, errA := a.Peek(scanBuffer)
		y, errB := b.Peek(scanBuffer)
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) {
				return false, err
			}
		}
		if !bytes.Equal(x, y) {
			return false, nil
		}
		if len(x) == 0 {
			return true, nil
		}
		_, _ = a.Discard(len(x)) // they have been peeked
		_, _ = b.Discard(len(x))
	}
}

// makeDir makes a directory and those around it that are missing, durably: else a
// power failure could take it away with all that was synced in it.
func makeDir(name string) error {
	name = filepath.Clean(name)
	parent := filepath.Dir(name)
	if info, err := os.Stat(name); err == nil && info.IsDir() || parent == name {
		return os.MkdirAll(name, 0o700) // which says what is wrong, if anything is
	}
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.MkdirAll(name, 0o700); err != nil {
		return err
	}
	return syncDir(parent)
}

// syncDir makes the names of a directory durable.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if closing := dir.Close(); err == nil {
		err = closing
	}
	return err
}

// withoutPaths returns the text of an error without the names of files, which
// hold UIDs.
func withoutPaths(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Op + ": " + e.Err.Error()
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Op + ": " + e.Err.Error()
	}
	return err.Error()
}
