package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// replayStore remembers what was answered to messages in the store, so that a restart
// answers a repeated one with the same bytes; and the latest of it in memory.
type replayStore struct {
	latest  mllp.ReplayStore // in memory
	store   store.Store
	channel string
	age     time.Duration
}

// Recall implements [mllp.ReplayStore].
func (r *replayStore) Recall(ctx context.Context, id mllp.ReplayID) (*mllp.Replay, error) {
	if known, err := r.latest.Recall(ctx, id); known != nil || err != nil {
		return known, err
	}
	kept, err := r.store.Recall(ctx, r.channel, id[:])
	if kept == nil || err != nil {
		return nil, err
	}
	return decodeReplay(kept)
}

// Record implements [mllp.ReplayStore]. It returns when what is remembered is on
// disk, and the answer leaves after that.
func (r *replayStore) Record(ctx context.Context, id mllp.ReplayID, answered *mllp.Replay) error {
	if err := r.latest.Record(ctx, id, answered); err != nil {
		return err
	}
	return r.store.Remember(ctx, r.channel, store.Once{Key: id[:], For: r.age}, encodeReplay(answered))
}

// encodeReplay writes the digest, and each answer after its length.
func encodeReplay(r *mllp.Replay) []byte {
	text := r.Digest[:len(r.Digest):len(r.Digest)]
	for _, ack := range r.Acks {
		text = binary.AppendUvarint(text, uint64(len(ack)))
		text = append(text, ack...)
	}
	return text
}

var errReplay = errors.New("what was answered to a message cannot be read")

func decodeReplay(text []byte) (*mllp.Replay, error) {
	var r mllp.Replay
	if len(text) < len(r.Digest) {
		return nil, errReplay
	}
	text = text[copy(r.Digest[:], text):]
	for len(text) > 0 {
		length, n := binary.Uvarint(text)
		if n <= 0 || length > uint64(len(text)-n) {
			return nil, errReplay
		}
		end := n + int(length)
		r.Acks, text = append(r.Acks, text[n:end]), text[end:]
	}
	return &r, nil
}
