// Package sealed keeps the content of messages encrypted in whatever store there is:
// it stands between the engine and a [store.Store].
//
// Payload and source map of each message are sealed with AES-256-GCM before they reach
// the store, and opened when they come back. What the store needs to know, and people
// to search for, stays as it is: channel, control id (MSH-10), times, states, lengths,
// and the reasons of failures, which hold nothing of a payload.
//
// # What is noticed, and what is not
//
// Content that was changed, cut, or put into the place of another message's with
// another channel or control id does not open: [store.ErrTampered]. A queued delivery
// of such a message is set aside as a dead letter with that reason, whatever the queue
// does with others, and the log says so: it is never sent, and holds up nothing. No
// encryption of single messages shows that whole messages were removed or repeated, or
// that two with the same channel and control id were exchanged.
//
// What was stored before encryption was turned on remains readable. Until that is
// refused ([Options].RefuseUnsealed), whoever can write the database can also put
// something in that is not sealed.
//
// # Keys
//
// The first key seals; the others open what they have sealed. The store remembers
// with which keys messages may be sealed that are still there, and Open refuses to
// begin without one of these. A key is needed until the last message of its time has
// been pruned.
package sealed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// Options are the settings of a Store. The zero value is ready to use.
type Options struct {
	// RefuseUnsealed treats what is not sealed as tampered with.
	RefuseUnsealed bool
	Logger         *slog.Logger // nil: nothing is logged
}

// Store is a [store.Store] that seals what it hands to another. Open makes one.
type Store struct {
	store.Store // whose other methods are right as they are

	// static after construction
	keys Keys
	opts Options
}

// Open returns a store that keeps everything in st sealed with the first of keys, or,
// without keys, st itself. Nobody else may take in through st.
//
// The error names a key that is missing, or is another than the one with its id that
// the store was sealed with. It says that keyFile and the variable are where keys are
// given.
func Open(ctx context.Context, st store.Store, keys Keys, opts Options) (store.Store, error) {
	needed, err := st.SealingKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("keys of the store: %w", err)
	}
	for _, need := range needed {
		have := keys.find(need.ID)
		if have == nil {
			return nil, fmt.Errorf("the store holds messages that are sealed with the key %q: give it, too, in encryption.keyFile or MIRTH_ENCRYPTION_KEY", need.ID)
		}
		if have.made(need.Check) != nil {
			return nil, fmt.Errorf("the key %q in encryption.keyFile or MIRTH_ENCRYPTION_KEY is not the one of that id that messages in the store are sealed with", need.ID)
		}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	var note store.SealingKey
	if keys.Len() > 0 {
		note.ID = keys.ring[0].id
		if note.Check, err = keys.ring[0].check(); err != nil {
			return nil, fmt.Errorf("the key %q: %w", note.ID, err)
		}
	}
	if err := st.UseSealingKey(ctx, note); err != nil {
		return nil, fmt.Errorf("keys of the store: %w", err)
	}
	if keys.Len() == 0 {
		return st, nil
	}
	return &Store{Store: st, keys: keys, opts: opts}, nil
}

// Intake implements [store.Store].
func (s *Store) Intake(ctx context.Context, in store.Intake) (int64, error) {
	in, err := s.keys.ring[0].seal(in)
	if err != nil {
		return 0, err
	}
	return s.Store.Intake(ctx, in)
}

// Forward implements [store.Store].
func (s *Store) Forward(ctx context.Context, d *store.Delivery, in store.Intake) (int64, error) {
	in, err := s.keys.ring[0].seal(in)
	if err != nil {
		return 0, err
	}
	return s.Store.Forward(ctx, d, in)
}

// Pending implements [store.Store]. What does not open it sets aside.
func (s *Store) Pending(ctx context.Context, channel, destination string, after int64, limit int) ([]store.Delivery, error) {
	for {
		list, err := s.Store.Pending(ctx, channel, destination, after, limit)
		if err != nil {
			return nil, err
		}
		good := list[:0]
		for i := range list {
			d := &list[i]
			fault := s.open(&d.Message, true)
			switch {
			case fault == nil:
				good = append(good, *d)
				continue
			case !errors.Is(fault, store.ErrTampered): // it says nothing about the message
				return nil, fault
			}
			if err := s.Store.DeadLetter(ctx, d, false, fault.Error()); err != nil {
				return nil, fmt.Errorf("setting aside message %d, which does not open: %w", d.Message.ID, err)
			}
			s.opts.Logger.ErrorContext(ctx, "message set aside as dead letter: it does not open", "channel", channel, "destination", destination,
				"message", d.Message.ID, "err", fault)
		}
		if len(good) > 0 || len(list) == 0 {
			return good, nil
		}
	}
}

// DeadLetters implements [store.Store]. One that does not open has no content, and its
// LastError says so, too.
func (s *Store) DeadLetters(ctx context.Context, channel, destination string, after int64, limit int) ([]store.Delivery, error) {
	list, err := s.Store.DeadLetters(ctx, channel, destination, after, limit)
	for i := range list {
		d := &list[i]
		if fault := s.open(&d.Message, true); fault != nil {
			if d.LastError != fault.Error() {
				d.LastError += "; " + fault.Error()
			}
			d.Message.Raw, d.Message.Source = nil, store.Source{}
		}
	}
	return list, err
}

// Message implements [store.Browser].
func (s *Store) Message(ctx context.Context, channel string, id int64) (store.Message, error) {
	m, err := s.Store.Message(ctx, channel, id)
	if err != nil {
		return m, err
	}
	if err := s.open(&m, true); err != nil {
		return store.Message{}, fmt.Errorf("message %d: %w", id, err)
	}
	return m, nil
}

// Find implements [store.Browser]. A source map that does not open is left out.
func (s *Store) Find(ctx context.Context, channel string, f store.Filter, offset, limit int) ([]store.Summary, error) {
	list, err := s.Store.Find(ctx, channel, f, offset, limit)
	for i := range list {
		m := &list[i]
		if isSealed(m.Source) {
			m.Bytes = max(0, m.Bytes-overhead)
		}
		if s.open(&m.Message, false) != nil {
			m.Source = store.Source{}
		}
	}
	return list, err
}

// open opens a message, with its payload or, where that was not asked for, without.
func (s *Store) open(m *store.Message, hasRaw bool) error {
	if !isSealed(m.Source) {
		if s.opts.RefuseUnsealed {
			return errUnsealed
		}
		return nil
	}
	source, raw, err := s.keys.open(m.Channel, m.ControlID, m.Source, m.Raw, hasRaw)
	if err == nil {
		m.Source, m.Raw = source, raw
	}
	return err
}
