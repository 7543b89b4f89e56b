package tlsprops

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

const (
	// maxFileBytes bounds each file: the largest revocation lists in use have
	// some ten million bytes, the bundle of all public CAs a quarter million.
	maxFileBytes = 32 << 20
	// maxCRLFiles bounds what a directory of revocation lists may hold.
	maxCRLFiles = 1000
	// dataLink is the link that the kubelet swaps to publish a new version of
	// all files of a mounted Secret or ConfigMap at once.
	dataLink = "..data"
	// maxLinks bounds the symbolic links followed by hand, as the kernel does.
	maxLinks = 40
)

// file is one file of a reading.
type file struct {
	field string // the setting that names it
	path  string // as set, or inside the directory that is set
	data  []byte
	mount bool // from a Kubernetes mount, where all files change at once
	shown bool // readable by users other than the owner
}

// reading is every file of a set, read in one pass.
type reading struct {
	files   []file
	missing []string // of crlPaths under crlCheck soft
}

// sum identifies the content of the whole set.
func (r *reading) sum() [sha256.Size]byte { return r.sumOf(func(file) bool { return true }) }

// looseSum identifies the content of the files outside Kubernetes mounts.
func (r *reading) looseSum() [sha256.Size]byte { return r.sumOf(func(f file) bool { return !f.mount }) }

// trustSum identifies what decides whom the set trusts.
func (r *reading) trustSum() [sha256.Size]byte {
	return r.sumOf(func(f file) bool { return f.field == "trustStorePath" || f.field == "crlPaths" })
}

func (r *reading) sumOf(include func(file) bool) [sha256.Size]byte {
	h := sha256.New()
	for _, f := range r.files {
		if !include(f) {
			continue
		}
		for _, part := range [][]byte{[]byte(f.field), []byte(f.path), f.data} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// file returns the file of a setting, nil if it is not set.
func (r *reading) file(field string) *file {
	for i := range r.files {
		if r.files[i].field == field {
			return &r.files[i]
		}
	}
	return nil
}

// mounts are the Kubernetes mounts of one reading, each with its ..data
// resolved once, so that every file comes from the same version.
type mounts map[string]*os.Root

func (m mounts) open(dir string) (*os.Root, error) {
	if root := m[dir]; root != nil {
		return root, nil
	}
	root, err := os.OpenRoot(filepath.Join(dir, dataLink))
	if err == nil {
		m[dir] = root
	}
	return root, err
}

func (m mounts) close() {
	for _, root := range m {
		_ = root.Close()
	}
}

// readTries is how often a set is read again when a file has gone: the kubelet
// removes a version right after it has swapped in the next.
const readTries = 3

// readAll reads every file that p names.
func (p *TlsProperties) readAll() (*reading, error) {
	for try := 1; ; try++ {
		r, err := p.readOnce()
		if err == nil || try == readTries || !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
	}
}

func (p *TlsProperties) readOnce() (*reading, error) {
	m := make(mounts)
	defer m.close()
	r := &reading{}
	for _, named := range []struct{ field, path string }{
		{"keyStorePath", p.KeyStorePath},
		{"certStorePath", p.CertStorePath},
		{"trustStorePath", p.TrustStorePath},
		{"passphraseFile", p.PassphraseFile},
		{"ocspStaplePath", p.OCSPStaplePath},
	} {
		if named.path == "" {
			continue
		}
		f, err := m.read(named.field, named.path)
		if err != nil {
			return nil, err
		}
		secret := named.field == "keyStorePath" || named.field == "passphraseFile"
		if secret && f.shown && p.StrictPermissions {
			return nil, &FieldError{Field: f.field, Path: f.path, Err: errors.New(shownText)}
		}
		f.shown = f.shown && secret
		r.files = append(r.files, f)
	}
	for _, path := range p.CRLPaths {
		files, err := m.readLists(path)
		if err != nil && p.CRLCheck == crlSoft && errors.Is(err, fs.ErrNotExist) {
			r.missing = append(r.missing, path)
			continue
		}
		if err != nil {
			return nil, err
		}
		r.files = append(r.files, files...)
	}
	return r, nil
}

// warnings returns what is strange about the files themselves.
func (r *reading) warnings() []string {
	var w []string
	for _, f := range r.files {
		if f.shown {
			w = append(w, f.field+" "+f.path+": "+shownText)
		}
	}
	for _, path := range r.missing {
		w = append(w, "crlPaths "+path+": there is no such file, and certificates that it would list are accepted")
	}
	return w
}

const shownText = "other users can read it: chmod 0600, or mount it with defaultMode 0400"

// place is where a path leads: into a mount, or to a file of its own.
type place struct {
	mount string // the directory that holds ..data; empty outside mounts
	name  string // relative to ..data, or the path itself
}

// locate finds out whether path goes through the ..data of a Kubernetes mount,
// following links that lead into one.
func locate(path string) place {
	path = filepath.Clean(path)
	for range maxLinks {
		if p, ok := inMount(path); ok {
			return p
		}
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = filepath.Clean(target)
	}
	return place{name: path}
}

// inMount looks for the nearest directory above path, or path itself, that has
// a ..data link through which path goes.
func inMount(path string) (place, bool) {
	if isLink(filepath.Join(path, dataLink)) {
		return place{mount: path, name: "."}, true
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if isLink(filepath.Join(dir, dataLink)) {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return place{}, false
			}
			if rest, ok := strings.CutPrefix(name, dataLink+string(filepath.Separator)); ok {
				return place{mount: dir, name: rest}, true
			}
			first, _, _ := strings.Cut(name, string(filepath.Separator))
			target, err := os.Readlink(filepath.Join(dir, first))
			if err == nil && filepath.Clean(target) == filepath.Join(dataLink, first) {
				return place{mount: dir, name: name}, true
			}
			return place{}, false // beside the link, but not published by it
		}
		if dir == filepath.Dir(dir) {
			return place{}, false
		}
	}
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// read reads one file of at most maxFileBytes.
func (m mounts) read(field, path string) (file, error) {
	return m.readAt(field, path, locate(path))
}

func (m mounts) readAt(field, path string, at place) (file, error) {
	f := file{field: field, path: path, mount: at.mount != ""}
	fail := func(err error) (file, error) {
		return file{}, &FieldError{Field: field, Path: path, Err: explainFile(err)}
	}
	stat, open := os.Stat, os.Open
	if f.mount {
		root, err := m.open(at.mount)
		if err != nil {
			return fail(err)
		}
		stat, open = root.Stat, root.Open
	}
	// Looked at before it is opened: opening a named pipe would wait for a writer.
	info, err := stat(at.name)
	if err != nil {
		return fail(err)
	}
	if info.IsDir() {
		return fail(errors.New("is a directory: name a file in it"))
	}
	if !info.Mode().IsRegular() {
		return fail(errors.New("is not a regular file, and cannot be read again on rotation: copy it to a file"))
	}
	// Windows has no such bits and Go makes them up.
	f.shown = runtime.GOOS != "windows" && info.Mode().Perm()&0o044 != 0
	in, err := open(at.name)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	f.data, err = io.ReadAll(io.LimitReader(in, maxFileBytes+1))
	if err != nil {
		return fail(err)
	}
	if len(f.data) > maxFileBytes {
		return fail(fmt.Errorf("has more than %d bytes: this is not a file of certificates", maxFileBytes))
	}
	return f, nil
}

// readLists reads a file of revocation lists, or every file of a directory
// whose name does not begin with a dot.
func (m mounts) readLists(path string) ([]file, error) {
	fail := func(err error) ([]file, error) {
		return nil, &FieldError{Field: "crlPaths", Path: path, Err: explainFile(err)}
	}
	at := locate(path)
	var info fs.FileInfo
	var err error
	if at.mount == "" {
		info, err = os.Stat(at.name)
	} else if root, openErr := m.open(at.mount); openErr != nil {
		err = openErr
	} else {
		info, err = root.Stat(at.name)
	}
	if err != nil {
		return fail(err)
	}
	if !info.IsDir() {
		f, err := m.readAt("crlPaths", path, at)
		return []file{f}, err
	}
	entries, err := m.list(at)
	if err != nil {
		return fail(err)
	}
	var files []file
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		if len(files) == maxCRLFiles {
			return fail(fmt.Errorf("holds more than %d files: keep only revocation lists in it", maxCRLFiles))
		}
		inside := filepath.Join(path, e.Name())
		within := place{mount: at.mount, name: filepath.Join(at.name, e.Name())}
		if at.mount == "" {
			within = locate(within.name)
		}
		f, err := m.readAt("crlPaths", inside, within)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, &FieldError{
			Field: "crlPaths", Path: path,
			Err: &fileError{"the directory holds no files: put the revocation lists into it", fs.ErrNotExist},
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.path, b.path) })
	return files, nil
}

func (m mounts) list(at place) ([]fs.DirEntry, error) {
	if at.mount == "" {
		return os.ReadDir(at.name)
	}
	root, err := m.open(at.mount)
	if err != nil {
		return nil, err
	}
	return fs.ReadDir(root.FS(), filepath.ToSlash(at.name))
}

// fileError says in a person's words what the file system said.
type fileError struct {
	text string
	err  error
}

func (e *fileError) Error() string { return e.text }
func (e *fileError) Unwrap() error { return e.err }

// explainFile says what to do about an error of the file system, without the
// path, which the FieldError has.
func explainFile(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &fileError{"there is no such file: correct the path, or put the file there", err}
	case errors.Is(err, fs.ErrPermission):
		return &fileError{fmt.Sprintf("permission denied: let user %d read it", os.Getuid()), err}
	}
	return err
}

// staleMountHint says that the file path will not be renewed, if it is mounted
// by itself, as Kubernetes does for a subPath: such a file never changes while
// its container runs.
func staleMountHint(path string) string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || !isMountPoint(table, path) { // no such table outside Linux
		return ""
	}
	return "the file is a mount of its own (subPath), which Kubernetes never updates: mount the whole volume"
}

// isMountPoint looks for path in the table of proc_pid_mountinfo(5).
func isMountPoint(table []byte, path string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == abs {
			return true
		}
	}
	return false
}
