package mllp

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// keySeed hashes the keys of Server.Key: two that hash alike are handled one
// after the other, which does no harm.
var keySeed = maphash.MakeSeed()

// lanes are the messages of a connection that are handled beside each other.
type lanes struct {
	// static after construction
	c    *conn
	free chan *job // those with nothing in hand

	pending atomic.Int32 // jobs that run

	// owned by the connection's own goroutine
	running       sync.WaitGroup
	jobs          []*job
	first, second <-chan struct{} // closed when the youngest job's acknowledgements have left
	n             uint64          // jobs begun

	write sync.Mutex // guards what conn.write uses, gentle and unread

	mu  sync.Mutex
	err error // guarded by mu: why the connection must end
}

// A job is a message that is handled in a goroutine of its own.
//
// Acknowledgements leave in the order in which the messages came: the first ones
// among themselves, and the second ones of enhanced mode, which may take long,
// among themselves. So each job has two turns.
type job struct {
	lanes *lanes

	// owned by the connection's own goroutine while the job is free, then by its own
	x       exchange
	req     Request
	buf     *buffer
	charge  int64              // of buf, in the budget
	key, id uint64             // hashes of key and MSH-10 of the message in hand or, while free, the last one
	n       uint64             // the lanes' n when it began
	before  [2]<-chan struct{} // closed when those with the same key, and the same MSH-10, are done; nil: there is none
	handled chan struct{}      // closed when handlers are done with the message

	released bool    // handled has been closed
	turns    [2]turn // the ones that have passed are zero
}

type turn struct {
	before <-chan struct{} // closed when it has come
	passed chan struct{}   // to be closed by the job
}

func newLanes(c *conn, n int) *lanes {
	done := make(chan struct{})
	close(done)
	l := &lanes{c: c, free: make(chan *job, n), first: done, second: done}
	for range n {
		j := &job{lanes: l}
		j.x = exchange{conn: c, r: &j.req, job: j}
		l.jobs = append(l.jobs, j)
		l.free <- j
	}
	return l
}

// dispatch begins to handle the message in hand beside others. It reports false
// if that one must be handled by itself: it has no key, or no memory is free for
// a copy of it.
func (c *conn) dispatch(ctx context.Context) bool {
	l := c.lanes
	key := c.cfg.key(&c.req)
	if len(key) == 0 {
		return false
	}
	hash := maphash.Bytes(keySeed, key)
	// It always comes: handlers have a time limit, or are waited for as in any case.
	j := <-l.free
	if !j.take(hash) {
		l.free <- j
		return false
	}
	l.pending.Add(1)
	l.running.Go(func() { j.run(ctx) })
	return true
}

// finish waits until nothing is in hand, and returns why the connection must end.
func (l *lanes) finish() error {
	l.running.Wait()
	return l.failed()
}

func (l *lanes) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// fail ends the connection because of err.
func (l *lanes) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		_ = l.c.raw.SetReadDeadline(time.Unix(1, 0)) // wakes Read, which looks at failed; if not, the next message does
	}
}

// take makes the connection's message in hand the job's.
func (j *job) take(key uint64) bool {
	l, c := j.lanes, j.lanes.c
	text := c.req.Message
	_, size := class(len(text))
	if !c.cfg.budget.takeNow(c, int64(size)) {
		return false
	}
	j.buf, j.charge = getBuffer(len(text)), int64(size)
	j.req = c.req
	j.req.Message = j.buf.bytes[:copy(j.buf.bytes, text)]
	_ = j.req.Header.Parse(j.req.Message) // as it did before
	j.x.offset, j.x.asked = c.own.offset, c.own.asked

	j.key, j.id = key, maphash.Bytes(keySeed, j.req.Header.ControlID)
	j.before = [2]<-chan struct{}{}
	var latest [2]uint64
	for _, other := range l.jobs {
		// With Server.Replay, the first of those with one MSH-10 must be the first here.
		for i, same := range [...]bool{other.key == key, c.cfg.replay != nil && other.id == j.id} {
			if same && other != j && other.handled != nil && other.n >= latest[i] {
				j.before[i], latest[i] = other.handled, other.n
			}
		}
	}
	l.n++
	j.n, j.handled, j.released = l.n, make(chan struct{}), false
	j.turns = [2]turn{{l.first, make(chan struct{})}, {l.second, make(chan struct{})}}
	l.first, l.second = j.turns[0].passed, j.turns[1].passed
	return true
}

// run handles the job's message and answers it.
func (j *job) run(ctx context.Context) {
	l := j.lanes
	var err error
	defer func() {
		if v := recover(); v != nil { // not of the handler: see call
			j.x.panicked(ctx, v)
			err = &closeError{reason: ReasonPanic}
		}
		if err != nil {
			if t := j.turns[0]; t.passed != nil {
				<-t.before // what came before is answered before the end
			}
			l.fail(err)
		}
		j.release()
		j.pass()
		buf, charge := j.buf, j.charge
		j.buf, j.req.Message, j.req.Header = nil, nil, Header{}
		putBuffer(buf)
		l.c.cfg.budget.give(l.c, charge, false)
		l.pending.Add(-1)
		l.free <- j
	}()
	for _, before := range j.before {
		if before != nil {
			<-before
		}
	}
	err = j.x.take(ctx, refusal{})
}

// await waits for the job's next turn to answer; pass passes it on.
func (j *job) await() (pass func(), err error) {
	i := 0
	if j.turns[0].passed == nil {
		i = 1
	}
	<-j.turns[i].before
	return func() {
		close(j.turns[i].passed)
		j.turns[i] = turn{}
	}, j.lanes.failed()
}

// release lets the next message with the same key begin.
func (j *job) release() {
	if !j.released {
		j.released = true
		close(j.handled)
	}
}

// pass passes on the turns that the job has not used.
func (j *job) pass() {
	for i, t := range j.turns {
		if t.passed != nil {
			<-t.before
			close(t.passed)
			j.turns[i] = turn{}
		}
	}
}
