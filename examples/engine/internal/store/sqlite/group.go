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
	now         int64
	lastMessage int64
	lastSeq     int64
	known       *names // what was committed before; read only
	channels    map[string]int64
	queues      map[queueName]int64
	messages    map[int64]*channelDelta
	deliveries  map[int64]*queueDelta
	ended       []int64 // sequence numbers whose attempt has ended
}

// What a group adds to the counters of a channel and of a queue.
type (
	channelDelta struct{ received, filtered int64 }
	queueDelta   struct{ received, sent, dead int64 }
)

func newGroup(db *database, known *names) *group {
	return &group{
		db:          db,
		now:         time.Now().UnixNano(),
		lastMessage: known.lastMessage,
		lastSeq:     known.lastSeq,
		known:       known,
		channels:    make(map[string]int64),
		queues:      make(map[queueName]int64),
		messages:    make(map[int64]*channelDelta),
		deliveries:  make(map[int64]*queueDelta),
	}
}

// adopt takes over what a committed group added.
func (n *names) adopt(g *group) {
	n.lastMessage, n.lastSeq = g.lastMessage, g.lastSeq
	maps.Copy(n.channels, g.channels)
	maps.Copy(n.queues, g.queues)
}

// channel returns the number of a channel, and gives it one if it is new.
func (g *group) channel(ctx context.Context, name string) (int64, error) {
	if id, ok := g.known.channels[name]; ok {
		return id, nil
	}
	if id, ok := g.channels[name]; ok {
		return id, nil
	}
	id := int64(len(g.known.channels) + len(g.channels) + 1) // rows are never deleted
	if _, err := g.db.insertChannel.ExecContext(ctx, id, name); err != nil {
		return 0, err
	}
	g.channels[name] = id
	return id, nil
}

// queue returns the number of a queue, and gives it one if it is new.
func (g *group) queue(ctx context.Context, channel int64, name queueName) (int64, error) {
	if id, ok := g.known.queues[name]; ok {
		return id, nil
	}
	if id, ok := g.queues[name]; ok {
		return id, nil
	}
	id := int64(len(g.known.queues) + len(g.queues) + 1)
	if _, err := g.db.insertQueue.ExecContext(ctx, id, channel, name.destination); err != nil {
		return 0, err
	}
	g.queues[name] = id
	return id, nil
}

// countOf returns the counters' changes of a channel or queue.
func countOf[T any](m map[int64]*T, id int64) *T {
	d, ok := m[id]
	if !ok {
		d = new(T)
		m[id] = d
	}
	return d
}

// count writes the counters: once for the whole group.
func (g *group) count(ctx context.Context) error {
	for id, d := range g.messages {
		if _, err := g.db.countChannel.ExecContext(ctx, d.received, d.filtered, id); err != nil {
			return err
		}
	}
	for id, d := range g.deliveries {
		if *d == (queueDelta{}) {
			continue
		}
		if _, err := g.db.countQueue.ExecContext(ctx, d.received, d.sent, d.dead, id); err != nil {
			return err
		}
	}
	return nil
}
