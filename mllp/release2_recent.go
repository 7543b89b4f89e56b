package mllp

import (
	"context"
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

// A digest stands for a message and its sender, as far as can be told without
// reading all of it: by 64 bits for the sender, 64 for the message's beginning, with
// the control ID, and by its length. Where two begin alike, 64 bits for all of it
// decide: see sum. No sender can make two the same, since the seeds are secret. A
// cryptographic hash would take three times as long as all the rest.
type digest struct {
	client, begin uint64
	length        int
}

// recent remembers the answers to the last messages, so that one that comes again
// because its 06 got lost does not reach the handler a second time.
type recent struct {
	seeds [2]maphash.Seed // static

	mu sync.Mutex
	// guarded by mu
	known map[digest]*remembered // the youngest with each digest
	queue []*remembered          // those that are settled, oldest first
	bytes int                    // of their answers
}

// remembered is a message that the handler has, or has had.
type remembered struct {
	of digest // static

	// guarded by recent.mu
	settled bool          // the handler has decided
	done    chan struct{} // closed then; nil: nobody waits for it
	older   *remembered   // another, settled message with the same digest

	// set before settled, static then
	answer []byte // nil: it did not take the message
	code   AckCode
	at     time.Time
	sum    uint64 // for the whole message
}

func newRecent() *recent {
	return &recent{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, known: make(map[digest]*remembered)}
}

// client stands for the sender behind a connection: another one must not get
// answers that are not its own.
func (r *recent) client(req *Request) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seeds[1])
	if tcp, ok := req.RemoteAddr.(*net.TCPAddr); ok {
		_, _ = h.Write(tcp.IP.To16()) // it never fails
	}
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 {
		_ = h.WriteByte(1)
		_, _ = h.Write(req.TLS.PeerCertificates[0].Raw)
	}
	return h.Sum64()
}

// digest returns that of text, which holds the control ID, from client.
func (r *recent) digest(client uint64, text []byte) digest {
	return digest{client: client, begin: maphash.Bytes(r.seeds[1], text[:min(len(text), 512)]), length: len(text)}
}

// sum stands for the whole of a message. It takes a pass over all its bytes, so
// it is made when the sender has its answer, and before that only where a digest
// does not decide.
func (r *recent) sum(text []byte) uint64 { return maphash.Bytes(r.seeds[0], text) }

// claim returns text, with digest d, and true if it is new: the caller must settle
// it. If it is not, claim waits until it is settled; nil means that ctx has ended.
func (r *recent) claim(ctx context.Context, d digest, text []byte) (m *remembered, first bool) {
	r.mu.Lock()
	if r.known[d] == nil {
		defer r.mu.Unlock()
		return r.beginLocked(d), true
	}
	r.mu.Unlock()
	sum := r.sum(text)
	for {
		r.mu.Lock()
		r.forgetLocked(time.Now())
		youngest := r.known[d]
		if youngest == nil || youngest.settled {
			defer r.mu.Unlock()
			for m = youngest; m != nil; m = m.older {
				if m.sum == sum {
					return m, false
				}
			}
			return r.beginLocked(d), true
		}
		if youngest.done == nil {
			youngest.done = make(chan struct{})
		}
		r.mu.Unlock()
		select {
		case <-youngest.done:
		case <-ctx.Done():
			return nil, false
		}
		if youngest.answer != nil && youngest.sum == sum {
			return youngest, false // even if it has been forgotten since
		}
	}
}

// beginLocked remembers that a message is in hand.
func (r *recent) beginLocked(d digest) *remembered {
	m := &remembered{of: d, older: r.known[d]}
	r.known[d] = m
	return m
}

// settle says what m, with this text, was answered; nil if the handler did not
// take it.
func (r *recent) settle(m *remembered, text, answer []byte, code AckCode) {
	if answer != nil {
		m.sum = r.sum(text)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	m.answer, m.code, m.at, m.settled = answer, code, now, true
	if answer == nil || len(answer) > recentBytes/4 {
		r.dropLocked(m)
	} else {
		r.queue = append(r.queue, m)
		r.bytes += len(answer)
	}
	if m.done != nil {
		close(m.done)
	}
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
		r.dropLocked(m)
	}
}

// dropLocked takes m off the known ones.
func (r *recent) dropLocked(m *remembered) {
	at := r.known[m.of]
	switch {
	case at != m:
		for at.older != m {
			at = at.older
		}
		at.older = m.older
	case m.older != nil:
		r.known[m.of] = m.older
	default:
		delete(r.known, m.of)
	}
}
