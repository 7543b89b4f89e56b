package api

import (
	"bytes"
	"reflect"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// boardFrame is how many channels one message to a client has at most: it is to be
// sent, and read, in pieces that a phone can take.
const boardFrame = 250

// board is what all channels do, as clients are told it: each status is described
// once, when it has changed, for however many clients. Whose it is guards it.
type board struct {
	version     uint64 // counts what has changed
	shown       []shownStatus
	listed      uint64 // the version at which channels came, went or changed places
	healthy     bool
	healthSince uint64 // the version at which it changed; 0: nobody has looked yet
}

// shownStatus is a channel's status as it was last described.
type shownStatus struct {
	status  engine.Status
	json    []byte // replaced, never changed
	version uint64 // of the board, when it changed
}

// setHealthy notes whether the engine takes messages in.
func (b *board) setHealthy(healthy bool) {
	if b.healthSince == 0 || b.healthy != healthy {
		b.version++
		b.healthy, b.healthSince = healthy, b.version
	}
}

// update takes over what channels do now.
func (b *board) update(statuses []engine.Status) {
	known := make(map[string]*shownStatus, len(b.shown))
	for i := range b.shown {
		known[b.shown[i].status.Config.ID] = &b.shown[i]
	}
	next := b.version + 1
	fresh := make([]shownStatus, len(statuses))
	sameList, changed := len(statuses) == len(b.shown), false
	for i := range statuses {
		id := statuses[i].Config.ID
		before := known[id]
		sameList = sameList && b.shown[i].status.Config.ID == id
		if before != nil && unchanged(&before.status, &statuses[i]) {
			fresh[i] = *before
			continue
		}
		changed = true
		fresh[i] = shownStatus{statuses[i], encode(statusOf(&statuses[i])), next}
	}
	b.shown = fresh
	if !sameList {
		b.listed = next
	}
	if changed || !sameList {
		b.version = next
	}
}

// unchanged tells whether two statuses are the same. What moves on a busy channel is
// looked at first: to compare everything takes as long as to describe it.
func unchanged(a, b *engine.Status) bool {
	return a.Statistics.Received == b.Statistics.Received && a.Statistics.Sent == b.Statistics.Sent && reflect.DeepEqual(a, b)
}

// news returns what a client that knows the board as it was at a version does not
// know yet, in the form of
//
//	{"type": "statuses", "time": "...", "healthy": true, "channels": ["id", ..], "data": [status, ..]}
//
// with channels, which are all that there are, in their order, only where these have
// changed. channelID narrows data down to one; empty: all.
func (b *board) news(channelID string, seen uint64, at time.Time) [][]byte {
	if seen == b.version {
		return nil
	}
	var items [][]byte
	for i := range b.shown {
		s := &b.shown[i]
		if s.version > seen && (channelID == "" || s.status.Config.ID == channelID) {
			items = append(items, s.json)
		}
	}
	head := frame{"type": "statuses", "time": isoTime(at), "healthy": b.healthy}
	if b.listed > seen {
		ids := make([]string, len(b.shown))
		for i := range b.shown {
			ids[i] = b.shown[i].status.Config.ID
		}
		head["channels"] = ids
	}
	var frames [][]byte
	for first := true; first || len(items) > 0; first = false {
		n := min(boardFrame, len(items))
		frames = append(frames, withData(head, items[:n]))
		items = items[n:]
		delete(head, "channels")
	}
	return frames
}

// withData returns a frame with data that is JSON already.
func withData(head frame, items [][]byte) []byte {
	text := encode(head)
	text = append(text[:len(text)-1], `,"data":[`...)
	text = append(text, bytes.Join(items, []byte{','})...)
	return append(text, "]}"...)
}
