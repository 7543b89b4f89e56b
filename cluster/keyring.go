package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultReload is the time between two looks at a SecretFile. The kubelet
	// itself takes up to a minute to bring a new Secret to its mount.
	defaultReload = 10 * time.Second
	// settleTime is how long a changed file must have stayed the same before it
	// is used: longer than a program takes to write a few lines.
	settleTime = 50 * time.Millisecond
	// settleReads is how often a look reads a file that keeps changing.
	settleReads = 4
	// maxFileBytes bounds a SecretFile: some comments and eight secrets.
	maxFileBytes = 64 << 10
)

// errGivenUp means that the request ended for which the file was read.
var errGivenUp = errors.New("cluster: nobody waits any more")

// A keyring holds the ring in use, and replaces it when its file changes or
// somebody sets another one.
type keyring struct {
	// Static after construction.
	path     string        // "" without a file
	interval time.Duration // negative: no looks
	start    time.Time     // of the monotonic time in nextLook
	emit     func(Event)

	current  atomic.Pointer[ring] // nil until there are secrets; written under lock
	nextLook atomic.Int64         // when the file may be looked at, in nanoseconds since start

	// lock is a mutex that can be waited for with a limit: it is held while the
	// file is read, which may be long.
	lock chan struct{}
	// Guarded by lock.
	rejected sum // of what was read last and cannot be used

	// stateMu guards what Status reports.
	stateMu sync.Mutex
	loaded  time.Time
	err     error // why the file as it is now is not used, or there is no ring
}

func newKeyring(path string, interval time.Duration, emit func(Event)) *keyring {
	return &keyring{path: path, interval: interval, start: time.Now(), emit: emit, lock: make(chan struct{}, 1)}
}

// get returns the ring in use, after a look at the file if one is due. It is nil
// if there never was one.
func (k *keyring) get(ctx context.Context) *ring {
	if k.path != "" && k.interval >= 0 && int64(time.Since(k.start)) >= k.nextLook.Load() {
		select {
		case k.lock <- struct{}{}:
			events, _ := k.look(ctx.Done())
			<-k.lock
			k.tell(events)
		default: // somebody is looking
		}
	}
	return k.current.Load()
}

// newer returns the ring that another goroutine may just be reading, nil if it
// is the one that the caller has. It is for requests about to be refused: the
// first two after a long silence may come at once, and after a rotation.
func (k *keyring) newer(ctx context.Context, than *ring) *ring {
	limit := time.NewTimer((settleReads + 1) * settleTime) // longer than a look on a disk that answers
	defer limit.Stop()
	select {
	case k.lock <- struct{}{}:
		<-k.lock
	case <-ctx.Done():
	case <-limit.C:
	}
	if now := k.current.Load(); now != than {
		return now
	}
	return nil
}

// reload looks at the file now. The caller tells of the events.
func (k *keyring) reload() ([]Event, error) {
	k.lock <- struct{}{}
	defer func() { <-k.lock }()
	return k.look(nil)
}

// set puts secrets from elsewhere in the place of those in use. The caller tells
// of the events.
func (k *keyring) set(secrets []Secret) ([]Event, error) {
	r, err := newRing(secrets)
	if err != nil {
		return nil, &FieldError{Field: "secret", Err: err}
	}
	k.lock <- struct{}{}
	defer func() { <-k.lock }()
	return k.publish(r), nil
}

func (k *keyring) tell(events []Event) {
	for _, e := range events {
		k.emit(e)
	}
}

// look reads the file and uses it if it is different and good. Called with lock
// held. The error is why what was in use goes on, or errGivenUp once done is
// closed.
func (k *keyring) look(done <-chan struct{}) ([]Event, error) {
	// Set before the reading, which a change may follow at once.
	k.nextLook.Store(int64(time.Since(k.start) + k.interval))
	c := k.read(done)
	if errors.Is(c.err, errGivenUp) {
		k.nextLook.Store(0) // for the next caller to finish
		return nil, c.err
	}
	if c.err != nil {
		return k.keep(c)
	}
	return k.publish(c.ring), nil
}

// publish puts a ring into use. Called with lock held.
func (k *keyring) publish(r *ring) []Event {
	k.stateMu.Lock()
	defer k.stateMu.Unlock()
	k.err, k.rejected = nil, sum{}
	old := k.current.Load()
	if old != nil && old.same(r) {
		return nil
	}
	r.generation = 1
	if old != nil {
		r.generation = old.generation + 1
	}
	k.loaded = time.Now()
	k.current.Store(r)
	return []Event{{Kind: Loaded, Generation: r.generation, KeyID: r.primary().id, Primary: true, Accepted: r.ids()}}
}

// keep notes why the file is not used, and tells of it once for each content.
// Called with lock held.
func (k *keyring) keep(c content) ([]Event, error) {
	err := &FieldError{Field: "secretFile", Path: k.path, Err: c.err}
	k.stateMu.Lock()
	k.err = err
	k.stateMu.Unlock()
	if c.is(k.rejected) {
		return nil, err
	}
	k.rejected = c.sum
	e := Event{Kind: KeptOld, Err: err}
	if r := k.current.Load(); r != nil {
		e.Generation, e.KeyID, e.Primary, e.Accepted = r.generation, r.primary().id, true, r.ids()
	}
	return []Event{e}, err
}

// content is what one reading of the file found.
type content struct {
	sum  sum   // of the text, or of the error
	ring *ring // nil if it cannot be used, because of err
	err  error
}

func (c *content) is(other sum) bool { return hmac.Equal(c.sum[:], other[:]) }

// read returns what the file holds. If that is neither in use nor refused
// already, it is read again until it has settled: somebody may be writing it,
// and a part of a secret looks like another one.
func (k *keyring) read(done <-chan struct{}) content {
	c := readContent(k.path)
	current := k.current.Load()
	if c.is(k.rejected) || c.ring != nil && current != nil && c.ring.same(current) {
		return c
	}
	for range settleReads {
		timer := time.NewTimer(settleTime)
		select {
		case <-done:
			timer.Stop()
			return content{err: errGivenUp}
		case <-timer.C:
		}
		before := c.sum
		if c = readContent(k.path); c.is(before) {
			return c
		}
	}
	return content{err: errors.New("the file changes while it is read: waiting until it is written")}
}

func readContent(path string) content {
	text, err := readFile(path)
	if err != nil {
		return content{sum: sha256.Sum256([]byte(err.Error())), err: err}
	}
	c := content{sum: sha256.Sum256([]byte(text))}
	secrets, err := parseSecrets(text)
	if err == nil {
		c.ring, err = newRing(secrets)
	}
	c.err = err
	return c
}

// readFile returns the text of a regular file, within bounds.
func readFile(path string) (string, error) {
	// A pipe would hang on opening, a device might never end.
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxFileBytes {
		return "", fmt.Errorf("the file has more than %d bytes", maxFileBytes)
	}
	return string(data), nil
}
