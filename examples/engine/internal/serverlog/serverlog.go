// Package serverlog keeps the latest lines of the engine's own log, for those who
// look at them from afar. What the log holds nothing of, there is nothing of here:
// no content of messages, no secrets.
package serverlog

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	kept    = 1000 // lines
	maxText = 2048 // bytes of a line's text; what is longer is cut
)

// Entry is a line of the log.
type Entry struct {
	ID       uint64 // 1 is the first since the start
	Time     time.Time
	Level    slog.Level
	Category string // the package that wrote it
	Line     int    // in its source
	Message  string // with the attributes
}

// Log keeps the latest entries. Make it with New; it is safe for concurrent use.
type Log struct {
	handler slog.Handler // static after construction

	mu      sync.Mutex
	entries []Entry       // guarded by mu; up to kept, the latest last
	next    uint64        // guarded by mu; ID of the last entry
	more    chan struct{} // guarded by mu; closed and replaced when there is an entry
}

// New returns a log that keeps what has at least a level.
func New(level slog.Level) *Log {
	l := &Log{more: make(chan struct{})}
	l.handler = slog.NewJSONHandler(l, &slog.HandlerOptions{Level: level, AddSource: true})
	return l
}

// Handler returns the handler that writes into the log.
func (l *Log) Handler() slog.Handler { return l.handler }

// Write takes one record, as slog.JSONHandler writes it, in one call. It is for the
// handler alone.
func (l *Log) Write(text []byte) (int, error) {
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return 0, err
	}
	e := Entry{Time: time.Now()}
	e.Message, _ = fields[slog.MessageKey].(string)
	level, _ := fields[slog.LevelKey].(string)
	if err := e.Level.UnmarshalText([]byte(level)); err != nil {
		return 0, err
	}
	if source, ok := fields[slog.SourceKey].(map[string]any); ok {
		function, _ := source["function"].(string)
		e.Category, _, _ = strings.Cut(path.Base(function), ".")
		line, _ := source["line"].(float64)
		e.Line = int(line)
	}
	for _, known := range []string{slog.TimeKey, slog.LevelKey, slog.MessageKey, slog.SourceKey} {
		delete(fields, known)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		e.Message += fmt.Sprintf(" %s=%v", name, fields[name])
	}
	if len(e.Message) > maxText {
		e.Message = strings.ToValidUTF8(e.Message[:maxText], "") + "…"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	e.ID = l.next
	if len(l.entries) == kept {
		l.entries = slices.Delete(l.entries, 0, kept/10) // not at every line
	}
	l.entries = append(l.entries, e)
	close(l.more)
	l.more = make(chan struct{})
	return len(text), nil
}

// Since returns the entries after the one with an ID that are still kept, and a
// channel that is closed when there are more.
func (l *Log) Since(id uint64) ([]Entry, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.entries, id+1, func(e Entry, id uint64) int {
		switch {
		case e.ID < id:
			return -1
		case e.ID > id:
			return 1
		}
		return 0
	})
	return slices.Clone(l.entries[i:]), l.more
}

// Last returns the ID of the last entry; 0: there is none yet.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}
