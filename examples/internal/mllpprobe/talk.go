package mllpprobe

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A talk is what is said on the connection of one scenario. But for its reader,
// it is owned by the goroutine that runs the scenario.
type talk struct {
	// static after construction
	ctx     context.Context //nolint:containedctx // a talk lives as long as one call of Run
	run     *run
	conn    net.Conn
	in      chan chunk    // from the reader
	done    chan struct{} // closed by close
	unwatch func() bool   // ends the wait for the end of ctx, which closes conn

	reader  sync.WaitGroup
	reading bool
	sent    []string // MSH-10 of the messages, in order
	parser  parser
	came    []answer
	ended   string // how the peer ended the connection; empty: it did not
}

// chunk is what one read brought.
type chunk struct {
	data []byte
	err  error
}

// connect begins a talk.
func (r *run) connect(ctx context.Context, dial func(context.Context) (net.Conn, error)) (*talk, error) {
	limited, cancel := context.WithTimeout(ctx, r.probe.timeout())
	defer cancel()
	conn, err := dial(limited)
	if err != nil {
		return nil, err
	}
	t := &talk{ctx: ctx, run: r, conn: conn, in: make(chan chunk), done: make(chan struct{})}
	t.unwatch = context.AfterFunc(ctx, func() { conn.Close() })
	return t, nil
}

// close ends the talk.
func (t *talk) close() {
	t.unwatch()
	close(t.done)
	t.conn.Close()
	t.reader.Wait()
}

// listen begins to read, unless that has begun. A talk that does not listen
// leaves its answers unread.
func (t *talk) listen() {
	if t.reading {
		return
	}
	t.reading = true
	t.reader.Go(func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := t.conn.Read(buf)
			select {
			case t.in <- chunk{data: append([]byte(nil), buf[:n]...), err: err}:
			case <-t.done:
				return
			}
			if err != nil {
				return
			}
		}
	})
}

// send writes pieces, each with a Write of its own. Where the peer does not take
// them, its end of the connection tells.
func (t *talk) send(pieces ...string) {
	t.listen()
	for _, piece := range pieces {
		if !t.write(piece) {
			return
		}
	}
}

// write writes a piece and meanwhile takes what comes: a peer may stop reading
// until its answers are read.
func (t *talk) write(piece string) bool {
	written := make(chan bool, 1)
	go func() { written <- t.put(piece, t.run.probe.timeout()) }()
	for {
		select {
		case ok := <-written:
			return ok
		case c := <-t.in:
			t.take(c)
		}
	}
}

// put writes a piece within d. It may be called from another goroutine.
func (t *talk) put(piece string, d time.Duration) bool {
	_ = t.conn.SetWriteDeadline(time.Now().Add(d)) // fails only on a connection that has ended
	_, err := t.conn.Write([]byte(piece))
	return err == nil
}

// sendLong writes text again and again until n bytes are written, or the peer
// takes no more.
func (t *talk) sendLong(text string, n int) {
	t.listen()
	block := strings.Repeat(text, max(1, 64<<10/len(text)))
	for ; n > 0 && t.ended == ""; n -= len(block) {
		if !t.write(block[:min(n, len(block))]) {
			return
		}
	}
}

// halfClose ends our direction of the stream.
func (t *talk) halfClose() {
	if c, ok := t.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // fails only on a connection that has ended
	}
}

// next waits for something to come, at most for d, and reports whether it did.
func (t *talk) next(d time.Duration) bool {
	if t.ended != "" {
		return false
	}
	t.listen()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case c := <-t.in:
		t.take(c)
		return true
	case <-timer.C:
		return false
	case <-t.ctx.Done():
		return false
	}
}

// take takes what one read has brought.
func (t *talk) take(c chunk) {
	t.came = append(t.came, t.parser.feed(c.data)...)
	if c.err == nil {
		return
	}
	t.came = append(t.came, t.parser.end()...)
	t.ended = "closed"
	if errors.Is(c.err, syscall.ECONNRESET) {
		t.ended = "reset"
	}
}

// watch takes what comes within d.
func (t *talk) watch(d time.Duration) {
	for end := time.Now().Add(d); t.next(time.Until(end)); {
	}
}

// pause waits for as long as a slow sender would.
func (t *talk) pause() { t.watch(pauseTime) }

// settle waits until the last message is answered, and then for what comes too
// much, or too late.
func (t *talk) settle() {
	for !t.answered() && t.next(t.run.probe.timeout()) {
	}
	t.rest()
}

// answered tells whether the last message is.
func (t *talk) answered() bool {
	last := t.sent[len(t.sent)-1]
	return slices.ContainsFunc(t.came, func(a answer) bool { return a.words == "" && a.id == last })
}

// atLeast waits for n answers, and for what comes right after them.
func (t *talk) atLeast(n int) {
	for len(t.came) < n && t.next(t.run.probe.timeout()) {
	}
	t.rest()
}

// rest takes what still comes.
func (t *talk) rest() {
	for t.next(t.run.probe.linger()) {
	}
}

// untilEnd waits for the peer to close.
func (t *talk) untilEnd() { t.watch(t.run.probe.timeout()) }

// say adds fixed words to what came.
func (t *talk) say(words string) { t.came = append(t.came, answer{words: words}) }

// then sends the ordinary message after something that may have made the peer
// close, and waits for its answer.
func (t *talk) then() {
	t.watch(t.run.probe.linger())
	if t.ended == "" {
		t.send(frame(t.plain()))
		t.settle()
	}
}

// outcome is the result in words.
func (t *talk) outcome() string {
	t.came = append(t.came, t.parser.end()...)
	return outcome(t.sent, t.came, t.ended)
}

// readings are other outcomes that what came may stand for. Where the peer refuses
// even the ordinary message, with the code baseline, that code may mean AA: in
// all of its answers, or in those after the first ones, which it refuses for what
// the scenario did.
func (t *talk) readings(baseline string) (all []string) {
	if baseline == "" {
		return nil
	}
	for literal := range min(3, len(t.came)) {
		came := slices.Clone(t.came)
		for i := range came[literal:] {
			if a := &came[literal+i]; a.words == "" && a.code == baseline {
				a.code = "AA"
			}
		}
		all = append(all, outcome(t.sent, came, t.ended))
	}
	return all
}
