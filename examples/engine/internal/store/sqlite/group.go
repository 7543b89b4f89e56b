package sqlite

import (
	"context"
	"maps"
	"time"
)

// A group is one transaction: what it numbered and counted, kept apart from the
// writer's own until it is committed. It is owned by the writer.
type group struct {
	db          *database
	known       *names // what was committed before; read only
	now         int64  // Unix nanoseconds
	lastMessage int64
	lastSeq     int64
	queues      map[queueName]int64 // new ones
	messages    []any               // rows of the table message, yet to be inserted
	queued      []any               // rows of the table queued, yet to be inserted
	counts      map[int64]*counts   // by queue
	ended       []int64             // sequence numbers whose attempt has ended
}

// counts are what a group adds to the counters of a queue or channel.
type counts struct{ received, filtered, sent, dead int64 }

// begin makes the group a new one, in the room that the last one had.
func (g *group) begin(db *database, known *names) {
	if g.queues == nil {
		g.queues, g.counts = make(map[queueName]int64), make(map[int64]*counts)
	}
	clear(g.queues)
	clear(g.counts)
	*g = group{
		db:          db,
		known:       known,
		now:         time.Now().UnixNano(),
		lastMessage: known.lastMessage,
		lastSeq:     known.lastSeq,
		queues:      g.queues,
		messages:    g.messages[:0],
		queued:      g.queued[:0],
		counts:      g.counts,
		ended:       g.ended[:0],
	}
}

// forget lets go of the payloads, which are their callers'.
func (g *group) forget() { clear(g.messages) }

// adopt takes over what a committed group added.
func (n *names) adopt(g *group) {
	n.lastMessage, n.lastSeq = g.lastMessage, g.lastSeq
	maps.Copy(n.queues, g.queues)
}

// find returns the number of a queue or channel, if it has one.
func (g *group) find(name queueName) (id int64, ok bool) {
	if id, ok = g.known.queues[name]; !ok {
		id, ok = g.queues[name]
	}
	return id, ok
}

// number returns the number of a queue or channel, and gives it one if it is new.
func (g *group) number(ctx context.Context, name queueName) (int64, error) {
	if id, ok := g.find(name); ok {
		return id, nil
	}
	id := int64(len(g.known.queues) + len(g.queues) + 1) // rows are never deleted
	if _, err := g.db.insertQueue.ExecContext(ctx, id, name.channel, name.destination); err != nil {
		return 0, err
	}
	g.queues[name] = id
	return id, nil
}

// countsOf returns what is to be added to the counters of a queue or channel.
func (g *group) countsOf(id int64) *counts {
	c, ok := g.counts[id]
	if !ok {
		c = new(counts)
		g.counts[id] = c
	}
	return c
}

// finish writes what is cheaper to write once for the whole group: the new
// messages and their deliveries, which nobody can have completed yet, and the
// counters. What can be wrong with a single message was found before.
func (g *group) finish(ctx context.Context) error {
	if err := insert(ctx, g.messages, messageColumns, &g.db.insertMessages); err != nil {
		return err
	}
	if err := insert(ctx, g.queued, queuedColumns, &g.db.insertQueued); err != nil {
		return err
	}
	for id, c := range g.counts {
		if _, err := g.db.count.ExecContext(ctx, c.received, c.filtered, c.sent, c.dead, id); err != nil {
			return err
		}
	}
	return nil
}

// insert inserts rows of so many columns with as few statements as there are for it.
func insert(ctx context.Context, values []any, columns int, statements *inserts) error {
	for i := rowSizes - 1; len(values) > 0; i-- {
		for n := columns << i; len(values) >= n; values = values[n:] {
			if _, err := statements[i].ExecContext(ctx, values[:n]...); err != nil {
				return err
			}
		}
	}
	return nil
}
