// Package backup keeps copies of the engine's store in a directory: one at each
// interval and whenever it is asked to, and of these the youngest.
//
// A copy is engine-TIME.db, and beside it engine-TIME.db.sha256 in the form that
// sha256sum -c reads. A file of such a name is complete: it had another while it was
// being written.
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/durable"
)

const (
	prefix    = "engine-"
	suffix    = ".db"
	sumSuffix = ".sha256"
	partial   = ".partial"
	layout    = "20060102T150405.000Z"

	// firstPause lets a start be first.
	firstPause = time.Minute
	// retryPause follows a copy that failed, unless the interval is shorter.
	retryPause = 15 * time.Minute
)

// ErrRuns is returned by Make while another copy is being made.
var ErrRuns = errors.New("another backup is being made")

// Source is a store that can copy itself, while it is in use, into a file that is not
// there yet; the file is durable when Backup returns. An error leaves none.
type Source interface {
	Backup(ctx context.Context, path string) error
}

// Keeper makes copies. Make it with New.
type Keeper struct {
	// static after construction
	source   Source
	dir      string
	interval time.Duration
	keep     int
	log      *slog.Logger
	one      chan struct{} // of capacity 1: full while a copy is being made
}

// New returns a Keeper of the youngest keep copies of source in dir, which is made
// when it is needed. Without an interval, Run makes none.
func New(source Source, dir string, interval time.Duration, keep int, log *slog.Logger) *Keeper {
	return &Keeper{source: source, dir: dir, interval: interval, keep: keep, log: log, one: make(chan struct{}, 1)}
}

// A Copy is one that was made.
type Copy struct {
	Name   string // of the file in the directory
	Bytes  int64
	SHA256 string // hexadecimal
	Made   time.Time
}

// Make makes a copy now, and removes the oldest if there are too many. Once it has
// returned nil, the copy survives a power failure.
func (k *Keeper) Make(ctx context.Context) (Copy, error) {
	select {
	case k.one <- struct{}{}:
		defer func() { <-k.one }()
	default:
		return Copy{}, ErrRuns
	}
	c, err := k.make(ctx)
	if err != nil {
		return Copy{}, err
	}
	k.log.InfoContext(ctx, "backup made", "file", c.Name, "bytes", c.Bytes, "sha256", c.SHA256, "in", time.Since(c.Made).Round(time.Millisecond))
	if err := k.tidy(); err != nil {
		k.log.ErrorContext(ctx, "old backups cannot be removed", "err", err)
	}
	return c, nil
}

func (k *Keeper) make(ctx context.Context) (_ Copy, err error) {
	if err := durable.MakeDir(k.dir); err != nil {
		return Copy{}, err
	}
	c := Copy{Made: time.Now().UTC()}
	c.Name = prefix + c.Made.Format(layout) + suffix
	path := filepath.Join(k.dir, c.Name)
	temp := filepath.Join(k.dir, "."+c.Name+partial)
	if err := k.source.Backup(ctx, temp); err != nil {
		return Copy{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	if c.SHA256, c.Bytes, err = sumOf(temp); err != nil {
		return Copy{}, err
	}
	// The sum first: a copy without one would look like one that was never checked.
	if err := writeSynced(path+sumSuffix, c.SHA256+"  "+c.Name+"\n"); err != nil {
		return Copy{}, errors.Join(err, os.Remove(path+sumSuffix))
	}
	if err := os.Rename(temp, path); err != nil {
		return Copy{}, errors.Join(err, os.Remove(path+sumSuffix))
	}
	return c, durable.SyncDir(k.dir)
}

func sumOf(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	hash := sha256.New()
	size, err = io.Copy(hash, f)
	return hex.EncodeToString(hash.Sum(nil)), size, err
}

func writeSynced(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// copies returns the names of the copies that there are, the oldest first.
func (k *Keeper) copies() (names, rest []string, err error) {
	entries, err := os.ReadDir(k.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	for _, e := range entries {
		name := e.Name()
		if _, ok := madeAt(name); ok {
			names = append(names, name)
		} else if _, ok := madeAt(strings.TrimSuffix(strings.TrimPrefix(name, "."), partial)); ok {
			rest = append(rest, name)
		}
	}
	slices.Sort(names) // which is by time
	return names, rest, err
}

// madeAt returns the time in the name of a copy; ok is false for other files.
func madeAt(name string) (time.Time, bool) {
	text, ours := strings.CutPrefix(name, prefix)
	text, ends := strings.CutSuffix(text, suffix)
	at, err := time.Parse(layout, text)
	return at, ours && ends && err == nil
}

// tidy removes the oldest copies, and what a process that was killed was writing.
func (k *Keeper) tidy() error {
	names, rest, err := k.copies()
	if err != nil {
		return err
	}
	for _, name := range names[:max(0, len(names)-k.keep)] {
		rest = append(rest, name, name+sumSuffix)
	}
	var errs []error
	for _, name := range rest {
		if err := os.Remove(filepath.Join(k.dir, name)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run makes a copy at each interval until ctx ends, counted from the youngest that
// there is. One that fails is tried again after a quarter of an hour.
func (k *Keeper) Run(ctx context.Context) {
	if k.interval <= 0 {
		return
	}
	for pause := k.first(); wait(ctx, pause); {
		pause = k.interval
		if _, err := k.Make(ctx); err != nil && ctx.Err() == nil {
			pause = min(k.interval, retryPause)
			k.log.ErrorContext(ctx, "no backup could be made", "err", err, "next", pause)
		}
	}
}

// first is when the first copy of this run is due.
func (k *Keeper) first() time.Duration {
	names, _, err := k.copies()
	if err != nil || len(names) == 0 {
		return firstPause
	}
	last, _ := madeAt(names[len(names)-1])
	return min(max(k.interval-time.Since(last), firstPause), k.interval)
}

func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Sum returns the SHA-256 that is written beside a copy, or nothing where there is
// none beside it.
func Sum(path string) (string, error) {
	text, err := os.ReadFile(path + sumSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	sum, _, _ := strings.Cut(string(text), " ")
	if raw, bad := hex.DecodeString(sum); err == nil && (bad != nil || len(raw) != sha256.Size) {
		err = fmt.Errorf("%s: has no SHA-256", path+sumSuffix)
	}
	return sum, err
}
