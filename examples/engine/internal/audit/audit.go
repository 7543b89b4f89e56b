// Package audit keeps the record of who did what, from where and when.
//
// It is a directory of files with one JSON object in a line. A line is only ever
// appended, and Append returns when it is on disk. Each holds the SHA-256 of
// itself and of the line before it, across files too, so that a line that was
// changed, removed or put in is noticed (Verify).
//
// What the chain cannot show is that lines are missing at its end, nor that
// somebody who can write the files has made all hashes anew. For that the hash of
// the last line, which Verify returns, has to be kept somewhere else.
//
// A file that has grown to 16 MiB is followed by another; of those there are 64 at
// most, some millions of lines. The oldest is removed then, which a line says.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/durable"
)

// Outcome is how an action ended.
type Outcome string

// The outcomes.
const (
	// Begun is written before an action is carried out.
	Begun   Outcome = "BEGUN"
	Success Outcome = "SUCCESS"
	Failure Outcome = "FAILURE"
)

// Event is what happened. It never holds content of a message, nor a secret.
type Event struct {
	Action  string // such as "channel.stop"
	Outcome Outcome
	UserID  int    // 0: nobody who is signed in
	User    string // the name at that time
	Client  string // the address that asked
	Request string // the ID of the request: the same in Begun and in what follows
	// Attributes say what was acted on: "channelId", "messageId".
	Attributes map[string]string
}

// Record is an event in the log.
type Record struct {
	Event

	Seq  uint64 // 1 is the first that was ever written
	Time time.Time
	Hash string // hexadecimal
}

// line is a record as it is written. Its hash comes after these fields.
type line struct {
	Seq        uint64            `json:"seq"`
	Time       time.Time         `json:"time"`
	Action     string            `json:"action"`
	Outcome    Outcome           `json:"outcome"`
	UserID     int               `json:"userId,omitempty"`
	User       string            `json:"user,omitempty"`
	Client     string            `json:"client,omitempty"`
	Request    string            `json:"request,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Prev       string            `json:"prev"`
}

const (
	defaultFileBytes = 16 << 20
	defaultFiles     = 64
	maxLine          = 64 << 10

	maxText       = 512 // of one text in an event; what is longer is cut
	maxAttributes = 16
)

// Options are the settings of a Log. The zero value is ready to use.
type Options struct {
	FileBytes int64 // after which a file is followed by another; zero: 16 MiB
	Files     int   // at most; zero: 64
}

// Log is the log of one data directory. It is safe for concurrent use.
type Log struct {
	// static after construction
	dir  string
	opts Options

	mu     sync.Mutex
	file   *os.File // guarded by mu; nil after Close
	number int      // guarded by mu; of file
	size   int64    // guarded by mu; of what is on disk
	dirty  bool     // guarded by mu; there may be something behind size
	seq    uint64   // guarded by mu; of the last record
	last   string   // guarded by mu; its hash
}

// ErrClosed is returned by Append after Close.
var ErrClosed = errors.New("audit: the log is closed")

// Open opens the log in dir, which is made if it is not there, and checks its last
// file. A line that was being written when the process was killed is removed: its
// action had not begun.
func Open(dir string, opts Options) (*Log, error) {
	if opts.FileBytes == 0 {
		opts.FileBytes = defaultFileBytes
	}
	if opts.Files == 0 {
		opts.Files = defaultFiles
	}
	if err := durable.MakeDir(dir); err != nil {
		return nil, err
	}
	numbers, err := list(dir)
	if err != nil {
		return nil, err
	}
	l := &Log{dir: dir, opts: opts, number: 1, last: chainStart}
	unfinished := int64(0)
	if len(numbers) > 0 {
		l.number = numbers[len(numbers)-1]
		if unfinished, err = l.resume(); err != nil {
			return nil, err
		}
	}
	if err := l.openFile(); err != nil {
		return nil, err
	}
	if unfinished > 0 {
		l.dirty = true
		err := l.Append(Event{
			Action: "audit.recover", Outcome: Success,
			Attributes: map[string]string{"unfinishedBytes": fmt.Sprint(unfinished)},
		})
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// resume checks the last file and goes on where it ends.
func (l *Log) resume() (unfinished int64, err error) {
	text, err := os.ReadFile(l.path(l.number))
	if err != nil {
		return 0, err
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	c := chain{file: l.path(l.number)}
	if err := c.lines(whole, nil); err != nil {
		return 0, fmt.Errorf("%w: keep a copy of %s for whoever looks into it, and move it away to go on", err, l.dir)
	}
	l.size = int64(len(whole))
	if c.begun {
		l.seq, l.last = c.seq, c.last
	} else if l.number > 1 {
		// It was made and nothing written: the file before has the end of the chain.
		before := chain{file: l.path(l.number - 1)}
		text, err := os.ReadFile(before.file)
		if err != nil {
			return 0, err
		}
		if err := before.lines(text, nil); err != nil {
			return 0, err
		}
		l.seq, l.last = before.seq, before.last
	}
	return int64(len(text) - len(whole)), nil
}

func (l *Log) path(number int) string {
	return filepath.Join(l.dir, fmt.Sprintf("audit-%06d.jsonl", number))
}

// openFile opens the file of l.number for appending, and makes it last.
func (l *Log) openFile() error {
	f, err := os.OpenFile(l.path(l.number), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := durable.SyncDir(l.dir); err != nil {
		return errors.Join(err, f.Close())
	}
	l.file = f
	return nil
}

// Append writes an event and returns when it is on disk. If it returns an error
// the event is not in the log, and what it was to record must not happen.
func (l *Log) Append(e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return ErrClosed
	}
	if l.dirty {
		// An earlier line may be there in part. It did not count.
		if err := l.file.Truncate(l.size); err != nil {
			return err
		}
		l.dirty = false
	}
	if l.size >= l.opts.FileBytes {
		if err := l.rotateLocked(); err != nil {
			return err
		}
	}
	return l.appendLocked(e)
}

func (l *Log) appendLocked(e Event) error {
	text, hash, err := encode(e, l.seq+1, l.last)
	if err != nil {
		return err
	}
	l.dirty = true
	if _, err := l.file.Write(text); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.dirty = false
	l.size, l.seq, l.last = l.size+int64(len(text)), l.seq+1, hash
	return nil
}

// rotateLocked goes on with another file, and removes the oldest if there are too
// many.
func (l *Log) rotateLocked() error {
	old := l.file
	l.number++
	if err := l.openFile(); err != nil {
		l.number--
		return err
	}
	l.size = 0
	if err := old.Close(); err != nil {
		return err
	}
	numbers, err := list(l.dir)
	if err != nil {
		return err
	}
	for ; len(numbers) > l.opts.Files; numbers = numbers[1:] {
		oldest := l.path(numbers[0])
		err := l.appendLocked(Event{Action: "audit.prune", Outcome: Success, Attributes: map[string]string{"file": filepath.Base(oldest)}})
		if err != nil {
			return err
		}
		if err := os.Remove(oldest); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return f.Close()
}

// encode returns the line of an event, and its hash.
func encode(e Event, seq uint64, prev string) (text []byte, hash string, err error) {
	l := line{
		Seq: seq, Time: time.Now().UTC(), Action: cut(e.Action), Outcome: e.Outcome, UserID: e.UserID, User: cut(e.User),
		Client: cut(e.Client), Request: cut(e.Request), Prev: prev,
	}
	if len(e.Attributes) > maxAttributes {
		return nil, "", fmt.Errorf("audit: more than %d attributes", maxAttributes)
	}
	if len(e.Attributes) > 0 {
		l.Attributes = make(map[string]string, len(e.Attributes))
		for name, value := range e.Attributes {
			l.Attributes[cut(name)] = cut(value)
		}
	}
	text, err = json.Marshal(l)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(text)
	hash = hex.EncodeToString(sum[:])
	text = append(text[:len(text)-1], `,"hash":"`+hash+"\"}\n"...)
	return text, hash, nil
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return s[:maxText] + "…"
}
