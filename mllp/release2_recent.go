package mllp

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
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

// A digest stands for a message and its sender: by 128 bits for the beginning of
// a message, with its control ID, and, where two begin alike, by 64 for all of it.
// No sender can make two the same, since the seeds are secret. A cryptographic
// hash would take three times as long as all the rest.
type digest struct {
	client [sha256.Size]byte
	text   [2]uint64
	length int
}

// client stands for the sender behind this connection: another one must not get
// answers that are not its own.
func (c *conn) client() (sum [sha256.Size]byte) {
	h := sha256.New()
	if tcp, ok := c.req.RemoteAddr.(*net.TCPAddr); ok {
		h.Write(tcp.IP.To16())
	}
	if c.req.TLS != nil && len(c.req.TLS.PeerCertificates) > 0 {
		h.Write([]byte{1})
		h.Write(c.req.TLS.PeerCertificates[0].Raw)
	}
	h.Sum(sum[:0])
	return sum
}

// recent remembers the answers to the last messages, so that one that comes again
// because its 06 got lost does not reach the handler a second time.
type recent struct {
	seeds [2]maphash.Seed // static

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

func newRecent() *recent {
	return &recent{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, known: make(map[digest]*remembered)}
}

// digest returns that of text, which holds the control ID, from client.
func (r *recent) digest(client [sha256.Size]byte, text []byte) digest {
	begin := text[:min(len(text), 512)]
	return digest{client: client, text: [2]uint64{maphash.Bytes(r.seeds[0], text), maphash.Bytes(r.seeds[1], begin)}, length: len(text)}
}

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
