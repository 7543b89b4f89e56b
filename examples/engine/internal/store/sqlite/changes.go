package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// maxRaw bounds a payload; the connectors' own limits lie far below.
const maxRaw = 128 << 20

// maxKey bounds the key of a [store.Once], maxValue what is remembered under one.
const (
	maxKey   = 64
	maxValue = 64 << 10
)

// Intake implements [store.Store].
func (s *Store) Intake(ctx context.Context, in store.Intake) (int64, error) {
	m, err := newMessage(in)
	if err != nil {
		return 0, err
	}
	var id int64
	err = s.submit(ctx, &request{intake: true, size: len(in.Raw), apply: func(ctx context.Context, g *group) (err error) {
		id, err = g.intake(ctx, m)
		return err
	}})
	if err != nil {
		return 0, err
	}
	return id, nil
}

// Delivered implements [store.Store].
func (s *Store) Delivered(ctx context.Context, d *store.Delivery) error {
	return s.submit(ctx, &request{apply: func(ctx context.Context, g *group) error {
		_, err := g.complete(ctx, d, outcome{state: doneSent, lastError: d.LastError})
		return err
	}})
}

// Failed implements [store.Store].
func (s *Store) Failed(ctx context.Context, d *store.Delivery, next time.Time, maybeSent bool, reason string) error {
	queued := false
	err := s.submit(ctx, &request{apply: func(ctx context.Context, g *group) (err error) {
		queued, err = g.fail(ctx, d, next, maybeSent, reason)
		return err
	}})
	if err == nil && queued {
		d.Attempts++
		d.NextAt, d.LastError, d.MaybeSent = fromUnix(unix(next)), reason, d.MaybeSent || maybeSent
	}
	return err
}

// Skip implements [store.Store].
func (s *Store) Skip(ctx context.Context, d *store.Delivery, next time.Time, maybeSent bool, reason string) error {
	var fresh int64
	err := s.submit(ctx, &request{apply: func(ctx context.Context, g *group) (err error) {
		fresh, err = g.skip(ctx, d, next, maybeSent, reason)
		return err
	}})
	if err == nil && fresh != 0 {
		d.Seq, d.Skipped = fresh, true
		d.Attempts++
		d.NextAt, d.LastError, d.MaybeSent = fromUnix(unix(next)), reason, d.MaybeSent || maybeSent
	}
	return err
}

// DeadLetter implements [store.Store].
func (s *Store) DeadLetter(ctx context.Context, d *store.Delivery, maybeSent bool, reason string) error {
	dead := outcome{state: doneDead, attempts: 1, maybeSent: maybeSent, lastError: reason}
	queued := false
	err := s.submit(ctx, &request{apply: func(ctx context.Context, g *group) (err error) {
		queued, err = g.complete(ctx, d, dead)
		return err
	}})
	if err == nil && queued {
		d.Attempts++
		d.LastError, d.MaybeSent = reason, d.MaybeSent || maybeSent
	}
	return err
}

// Forward implements [store.Store].
func (s *Store) Forward(ctx context.Context, d *store.Delivery, in store.Intake) (int64, error) {
	m, err := newMessage(in)
	if err != nil {
		return 0, err
	}
	var id int64
	err = s.submit(ctx, &request{intake: true, size: len(in.Raw), apply: func(ctx context.Context, g *group) error {
		id = 0
		queued, err := g.complete(ctx, d, outcome{state: doneSent, lastError: d.LastError})
		if err != nil || !queued {
			return err
		}
		id, err = g.intake(ctx, m)
		return err
	}})
	if err != nil {
		return 0, err
	}
	return id, nil
}

// Requeue implements [store.Store].
func (s *Store) Requeue(ctx context.Context, seq int64) (int64, error) {
	var newSeq int64
	err := s.submit(ctx, &request{apply: func(ctx context.Context, g *group) (err error) {
		newSeq, err = g.requeue(ctx, seq)
		return err
	}})
	if err != nil {
		return 0, err
	}
	return newSeq, nil
}

// RequeueAll implements [store.Store].
func (s *Store) RequeueAll(ctx context.Context, channel, destination string, limit int) (int, error) {
	n := 0
	err := s.submit(ctx, &request{apply: func(ctx context.Context, g *group) (err error) {
		n, err = g.requeueAll(ctx, queueName{channel, destination}, limit)
		return err
	}})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Remember implements [store.Store].
func (s *Store) Remember(ctx context.Context, channel string, once store.Once, value []byte) error {
	switch {
	case channel == "":
		return fmt.Errorf("%w: no channel", store.ErrInvalid)
	case len(once.Key) == 0 || len(once.Key) > maxKey || once.For <= 0:
		return fmt.Errorf("%w: a key of %d bytes, remembered for %v", store.ErrInvalid, len(once.Key), once.For)
	case len(value) > maxValue:
		return fmt.Errorf("%w: %d bytes to be remembered are more than %d", store.ErrInvalid, len(value), maxValue)
	}
	// Like an intake, it is what a sender waits for.
	return s.submit(ctx, &request{intake: true, size: len(value), apply: func(ctx context.Context, g *group) error {
		number, err := g.number(ctx, queueName{channel: channel})
		if err != nil {
			return err
		}
		return g.remember(ctx, number, once, 0, value)
	}})
}

// A message is an intake that was found valid, in the form it is kept in.
type message struct {
	store.Intake

	source any // JSON, or nil
}

func newMessage(in store.Intake) (message, error) {
	m := message{Intake: in}
	switch {
	case in.Channel == "":
		return m, fmt.Errorf("%w: no channel", store.ErrInvalid)
	case len(in.Raw) > maxRaw:
		return m, fmt.Errorf("%w: %d bytes are more than %d", store.ErrInvalid, len(in.Raw), maxRaw)
	}
	if len(in.Once.Key) > maxKey || len(in.Once.Key) > 0 && in.Once.For <= 0 {
		return m, fmt.Errorf("%w: a key of %d bytes, remembered for %v", store.ErrInvalid, len(in.Once.Key), in.Once.For)
	}
	for i, d := range in.Destinations {
		if d == "" || slices.Contains(in.Destinations[:i], d) {
			return m, fmt.Errorf("%w: destination %d (%q) has no name or is named twice", store.ErrInvalid, i, d)
		}
	}
	if m.Raw == nil {
		m.Raw = []byte{} // nil would be NULL
	}
	if text := in.Source.Text(); text != "" {
		m.source = text
	}
	return m, nil
}

// intake adds a message and its deliveries.
func (g *group) intake(ctx context.Context, m message) (int64, error) {
	channel, err := g.number(ctx, queueName{channel: m.Channel})
	if err != nil {
		return 0, err
	}
	if len(m.Once.Key) > 0 {
		if id, err := g.first(ctx, channel, m.Once); err != nil || id != 0 {
			return id, err
		}
	}
	g.lastMessage++
	id := g.lastMessage
	g.messages = append(g.messages, id, channel, g.now, []byte(m.ControlID), m.source, m.Raw, g.lastSeq+1, len(m.Destinations))
	count := g.countsOf(channel)
	count.received++
	if len(m.Destinations) == 0 {
		count.filtered++
	}
	for _, destination := range m.Destinations {
		queue, err := g.number(ctx, queueName{m.Channel, destination})
		if err != nil {
			return 0, err
		}
		g.lastSeq++
		g.queued = append(g.queued, queue, g.lastSeq, id)
		g.countsOf(queue).received++
	}
	return id, nil
}

// first returns the message that was taken in under a key, if that is remembered.
// Otherwise it remembers that the next message is.
func (g *group) first(ctx context.Context, channel int64, once store.Once) (id int64, err error) {
	err = g.db.onceKnown.QueryRowContext(ctx, channel, once.Key, g.now).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	return 0, g.remember(ctx, channel, once, g.lastMessage+1, nil)
}

// remember keeps a key, and forgets two whose time is over: the table does not grow
// with what is past.
func (g *group) remember(ctx context.Context, channel int64, once store.Once, message int64, value []byte) error {
	if _, err := g.db.forget.ExecContext(ctx, g.now); err != nil {
		return err
	}
	_, err := g.db.remember.ExecContext(ctx, channel, once.Key, message, g.now+int64(once.For), value)
	return err
}

// An outcome is how a delivery leaves its queue.
type outcome struct {
	state     int
	attempts  int  // to be added
	maybeSent bool // to be added
	lastError string
}

// complete takes a delivery out of its queue; queued tells whether it was in.
func (g *group) complete(ctx context.Context, d *store.Delivery, o outcome) (queued bool, err error) {
	queue, queued, err := g.end(ctx, d, g.db.insertDone, o.state, o.attempts, o.maybeSent, o.lastError, g.now)
	if !queued {
		return false, err
	}
	if _, err := g.db.deleteQueued.ExecContext(ctx, queue, d.Seq); err != nil {
		return false, err
	}
	if count := g.countsOf(queue); o.state == doneDead {
		count.dead++
	} else {
		count.sent++
	}
	return true, nil
}

// fail keeps a delivery in its queue after an attempt; queued tells whether it was in.
func (g *group) fail(ctx context.Context, d *store.Delivery, next time.Time, maybeSent bool, reason string) (queued bool, err error) {
	_, queued, err = g.end(ctx, d, g.db.failed, unix(next), maybeSent, reason)
	return queued, err
}

// skip puts a delivery behind all others; fresh is its new sequence number, or 0 if
// it was not in the queue.
func (g *group) skip(ctx context.Context, d *store.Delivery, next time.Time, maybeSent bool, reason string) (fresh int64, err error) {
	number := skippedSeq + g.lastSeq + 1
	queue, queued, err := g.end(ctx, d, g.db.skip, number, unix(next), maybeSent, reason)
	if !queued {
		return 0, err
	}
	g.lastSeq++
	if _, err := g.db.deleteMoved.ExecContext(ctx, d.Message.ID, d.Seq); err != nil {
		return 0, err
	}
	_, err = g.db.insertMoved.ExecContext(ctx, queue, number)
	return number, err
}

// end runs a statement that ends an attempt at a queued delivery. The statement's
// last parameters are the delivery's queue and sequence number.
func (g *group) end(ctx context.Context, d *store.Delivery, statement *sql.Stmt, args ...any) (queue int64, queued bool, err error) {
	queue, ok := g.find(queueName{d.Message.Channel, d.Destination})
	if !ok {
		return 0, false, fmt.Errorf("%w: %d", store.ErrNotFound, d.Seq)
	}
	result, err := statement.ExecContext(ctx, append(args, queue, d.Seq)...)
	if err != nil {
		return 0, false, err
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, false, err
	}
	if n == 0 {
		if _, err := g.db.doneIn(ctx, d.Seq); err != nil {
			return 0, false, err
		}
	}
	g.ended = append(g.ended, d.Seq)
	return queue, n > 0, nil
}

// requeue gives a dead letter a new place at the end of its queue.
func (g *group) requeue(ctx context.Context, seq int64) (int64, error) {
	queue, err := g.db.doneIn(ctx, seq)
	if err != nil {
		return 0, err
	}
	result, err := g.db.insertRequeued.ExecContext(ctx, g.lastSeq+1, seq)
	if err != nil {
		return 0, err
	}
	if n, err := result.RowsAffected(); err != nil {
		return 0, err
	} else if n == 0 {
		return 0, fmt.Errorf("%w: %d is not a dead letter", store.ErrNotFound, seq)
	}
	if _, err := g.db.deleteDone.ExecContext(ctx, seq); err != nil {
		return 0, err
	}
	g.lastSeq++
	if _, err := g.db.insertMoved.ExecContext(ctx, queue, g.lastSeq); err != nil {
		return 0, err
	}
	g.countsOf(queue).dead--
	return g.lastSeq, nil
}

// requeueAll gives the oldest dead letters of a queue new places at its end.
func (g *group) requeueAll(ctx context.Context, name queueName, limit int) (int, error) {
	queue, ok := g.find(name)
	if !ok {
		return 0, nil
	}
	dead, err := numbers(ctx, g.db.dead, queue, limit)
	if err != nil {
		return 0, err
	}
	for _, seq := range dead {
		if _, err := g.requeue(ctx, seq); err != nil {
			return 0, err
		}
	}
	return len(dead), nil
}

// numbers returns what a query of one column has found.
func numbers(ctx context.Context, query *sql.Stmt, args ...any) ([]int64, error) {
	rows, err := query.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, rows.Err()
}
