package mllp

import (
	"context"
	"crypto/sha256"
	"net"
	"sync"
	"time"
)

// What a Server with MLLP release 2 remembers of the messages that it has
// committed: enough for the retries of every client, which last a minute or two,
// and of no more memory than one long message.
const (
	recentMessages = 1024
	recentBytes    = 4 << 20
	recentTime     = 10 * time.Minute
)

// A digest stands for a message and its sender.
type digest [sha256.Size]byte

// digest returns that of text, which holds the control ID, from the client of
// this connection: another one must not get answers that are not its own.
func (c *conn) digest(text []byte) (d digest) {
	h := sha256.New()
	if tcp, ok := c.req.RemoteAddr.(*net.TCPAddr); ok {
		h.Write(tcp.IP.To16())
	}
	h.Write([]byte{0})
	if c.req.TLS != nil && len(c.req.TLS.PeerCertificates) > 0 {
		h.Write(c.req.TLS.PeerCertificates[0].Raw)
	}
	h.Write([]byte{0})
	h.Write(text)
	h.Sum(d[:0])
	return d
}

// recent remembers the answers to the last messages, so that one that comes again
// because its 06 got lost does not reach the handler a second time.
type recent struct {
	mu sync.Mutex
	// guarded by mu
	known map[digest]*remembered
	queue []*remembered // those that are settled, oldest first
	bytes int           // of their answers
}

// remembered is a message that the handler has, or has had.
type remembered struct {
	of   digest
	done chan struct{} // closed when the handler has decided
	// set before done is closed, static then
	answer []byte // nil: it did not take the message
	code   AckCode
	at     time.Time
}

func newRecent() *recent { return &recent{known: make(map[digest]*remembered)} }

// claim returns the message d and true if it is new: the caller must settle it.
// If it is not, claim waits until it is settled; nil means that ctx has ended.
func (r *recent) claim(ctx context.Context, d digest) (m *remembered, first bool) {
	for {
		r.mu.Lock()
		r.forgetLocked(time.Now())
		m = r.known[d]
		if m == nil {
			m = &remembered{of: d, done: make(chan struct{})}
			r.known[d] = m
			r.mu.Unlock()
			return m, true
		}
		r.mu.Unlock()
		select {
		case <-m.done:
		case <-ctx.Done():
			return nil, false
		}
		if m.answer != nil {
			return m, false
		}
	}
}

// settle says what m was answered; nil if the handler did not take it.
func (r *recent) settle(m *remembered, answer []byte, code AckCode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if answer == nil || len(answer) > recentBytes/4 {
		delete(r.known, m.of)
	} else {
		r.queue = append(r.queue, m)
		r.bytes += len(answer)
	}
	m.answer, m.code, m.at = answer, code, now
	close(m.done)
	r.forgetLocked(now)
}

// forgetLocked forgets what is too old or too much.
func (r *recent) forgetLocked(now time.Time) {
	for len(r.queue) > 0 {
		m := r.queue[0]
		if len(r.queue) <= recentMessages && r.bytes <= recentBytes && now.Sub(m.at) < recentTime {
			return
		}
		r.queue[0] = nil
		r.queue = r.queue[1:]
		r.bytes -= len(m.answer)
		delete(r.known, m.of)
	}
}
