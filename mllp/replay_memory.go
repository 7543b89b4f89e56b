package mllp

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"
)

// The defaults of a MemoryReplay.
const (
	defaultReplayEntries = 100_000
	defaultReplayBytes   = 64 << 20
	defaultReplayAge     = 24 * time.Hour
	// replayOverhead is about what an entry takes beside its acknowledgements.
	replayOverhead = 256
)

// A MemoryReplay is a ReplayStore that forgets at the end of the process. The
// zero value is ready to use. Its fields must not be changed after the first call
// of a method, and a MemoryReplay not copied; one may serve several Servers.
//
// What was recorded longest ago is forgotten first.
type MemoryReplay struct {
	MaxEntries int           // messages; 0: 100,000; negative: no limit
	MaxBytes   int64         // of their acknowledgements, and 256 for each; 0: 64 MiB; negative: no limit
	MaxAge     time.Duration // since the acknowledgement; 0: 24 h; negative: no limit

	mu sync.Mutex
	// guarded by mu
	byID  map[ReplayID]*list.Element // of order
	order list.List                  // of *replayEntry, oldest first
	bytes int64
}

// replayEntry is an entry of a MemoryReplay.
type replayEntry struct {
	Replay

	id    ReplayID
	at    time.Time
	bytes int64
}

// Recall returns what Record was given last for id. The error is always nil.
func (m *MemoryReplay) Recall(_ context.Context, id ReplayID) (*Replay, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(time.Now())
	e, ok := m.byID[id]
	if !ok {
		return nil, nil //nolint:nilnil // as ReplayStore says
	}
	return &e.Value.(*replayEntry).Replay, nil
}

// Record remembers r. The error is always nil.
func (m *MemoryReplay) Record(_ context.Context, id ReplayID, r *Replay) error {
	entry := &replayEntry{
		Replay: Replay{Digest: r.Digest, Acks: slices.Clone(r.Acks)},
		id:     id, at: time.Now(), bytes: replayOverhead,
	}
	for _, ack := range r.Acks {
		entry.bytes += int64(len(ack))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID == nil {
		m.byID = make(map[ReplayID]*list.Element)
	}
	if e, ok := m.byID[id]; ok {
		m.remove(e)
	}
	m.byID[id] = m.order.PushBack(entry)
	m.bytes += entry.bytes
	m.forget(entry.at)
	return nil
}

// forget removes what is too old or too much. The caller must hold mu.
func (m *MemoryReplay) forget(now time.Time) {
	entries, size, age := orDefault(m.MaxEntries, defaultReplayEntries), orDefault(m.MaxBytes, defaultReplayBytes), orDefault(m.MaxAge, defaultReplayAge)
	for e := m.order.Front(); e != nil; e = m.order.Front() {
		if (entries < 0 || m.order.Len() <= entries) && (size < 0 || m.bytes <= size) && (age < 0 || now.Sub(e.Value.(*replayEntry).at) <= age) {
			return
		}
		m.remove(e)
	}
}

// remove removes an entry. The caller must hold mu.
func (m *MemoryReplay) remove(e *list.Element) {
	entry := m.order.Remove(e).(*replayEntry)
	m.bytes -= entry.bytes
	delete(m.byID, entry.id)
}
