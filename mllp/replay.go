package mllp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// A ReplayID stands for who sent a message and its control ID (MSH-10). It is a
// SHA-256 of MSH-3, MSH-4, MSH-10 and the sender: the subject and issuer of its
// certificate if that has been verified, else its IP address.
type ReplayID [sha256.Size]byte

// A Replay is what a ReplayStore remembers of a message that was accepted.
type Replay struct {
	Digest [sha256.Size]byte // SHA-256 of the message
	// Acks are the acknowledgements, without their frames, in their order: one, in
	// enhanced mode none to two. They say nothing of the message but its control ID,
	// unless the handler's own reply does.
	Acks [][]byte
}

// A ReplayStore remembers what was answered to messages. Its methods are called
// concurrently, for one ID by one goroutine of a Server at a time.
type ReplayStore interface {
	// Recall returns what Record was given last for id, and nil if there is
	// nothing, or nothing any more. The Replay is not modified. An error has the
	// message answered AE: it might be a repeated one.
	Recall(ctx context.Context, id ReplayID) (*Replay, error)
	// Record remembers r, in place of what it had for id. It is called before
	// the acknowledgement leaves, again with one more for the second
	// acknowledgement of enhanced mode, and must not keep r itself. After an
	// error the acknowledgement leaves all the same: the message is safe, and
	// will be taken for a new one when it is repeated.
	Record(ctx context.Context, id ReplayID, r *Replay) error
}

// replays are the messages that are being handled, so that one that is repeated
// meanwhile waits for its answer.
type replays struct {
	mu sync.Mutex
	// guarded by mu; the channel is closed at the end
	inHand map[ReplayID]chan struct{}
}

// enter waits until no message with id is in hand, and makes it so. It reports
// false if ctx has ended before.
func (p *replays) enter(ctx context.Context, id ReplayID) bool {
	for {
		p.mu.Lock()
		other, taken := p.inHand[id]
		if !taken {
			if p.inHand == nil {
				p.inHand = make(map[ReplayID]chan struct{})
			}
			p.inHand[id] = make(chan struct{})
		}
		p.mu.Unlock()
		if !taken {
			return true
		}
		select {
		case <-other:
		case <-ctx.Done():
			return false
		}
	}
}

func (p *replays) leave(id ReplayID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.inHand[id])
	delete(p.inHand, id)
}

// replayID returns the ID of the message in hand.
func (x *exchange) replayID() ReplayID {
	var (
		buf [512]byte
		all = buf[:0]
	)
	add := func(part []byte) {
		all = binary.AppendUvarint(all, uint64(len(part)))
		all = append(all, part...)
	}
	h := &x.r.Header
	add(h.SendingApplication)
	add(h.SendingFacility)
	add(h.ControlID)
	switch t := x.r.TLS; {
	case t != nil && len(t.VerifiedChains) > 0:
		add(t.PeerCertificates[0].RawSubject)
		add(t.PeerCertificates[0].RawIssuer)
	default:
		if a, ok := x.r.RemoteAddr.(*net.TCPAddr); ok {
			add(a.IP.To16())
		} else {
			add([]byte(x.r.RemoteAddr.String()))
		}
	}
	return sha256.Sum256(all)
}

// A memo is what there is to know of a message, beside itself, while it may be
// repeated.
type memo struct {
	*Replay // to be recorded; nil: nothing is

	id     ReplayID
	stored bool // the Replay is in the store
	held   bool // repetitions wait
}

// remembers tells whether an acknowledgement with this code is recorded: the
// first that accepts the message, and what follows it.
func (m *memo) remembers(code AckCode) bool {
	return m.Replay != nil && (code.Accepted() || code == "" || m.stored)
}

// once is handle where messages may be repeated.
func (x *exchange) once(ctx context.Context) error {
	m := &memo{id: x.replayID()}
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if t := x.cfg.handlerTimeout; t > 0 {
		waiting, cancel = context.WithTimeout(ctx, t)
	}
	defer cancel()
	if !x.cfg.replays.enter(waiting, m.id) {
		return x.conclude(ctx, &outcome{code: AE, text: "timeout"})
	}
	x.memo, m.held = m, true
	defer func() {
		x.letGo()
		x.memo = nil
	}()
	digest := sha256.Sum256(x.r.Message)
	before, err := x.cfg.replay.Recall(waiting, m.id)
	switch {
	case err != nil:
		o := x.judge(ctx, nil, err, time.Time{})
		return x.conclude(ctx, &o)
	case before != nil && before.Digest == digest:
		return x.repeat(ctx, before)
	case before != nil:
		x.r.Flags |= DuplicateID
		if policy := x.cfg.duplicateID; policy != PolicyDeliver {
			return x.refuse(ctx, refusal{policy: policy, reason: ReasonDuplicateID, text: "duplicate control ID"})
		}
	}
	m.Replay = &Replay{Digest: digest}
	return x.process(ctx)
}

// letGo lets a repetition of the message in hand go on.
func (x *exchange) letGo() {
	if m := x.memo; m != nil && m.held {
		m.held = false
		x.cfg.replays.leave(m.id)
	}
}

// record remembers that the message was accepted, and the frame that says so, if
// there is one.
func (x *exchange) record(ctx context.Context, frame []byte) {
	m := x.memo
	m.stored = true
	if frame != nil {
		m.Acks = append(m.Acks, bytes.Clone(x.cfg.replies.text(frame)))
	}
	if err := x.cfg.replay.Record(ctx, m.id, m.Replay); err != nil {
		e := x.event(EventHandlerFailed)
		e.Detail = typeName(err)
		x.cfg.tell(ctx, e)
	}
}

// repeat answers a repeated message as before.
func (x *exchange) repeat(ctx context.Context, before *Replay) error {
	e := x.event(EventReplayed)
	var err error
	for _, text := range before.Acks {
		var frame []byte
		if frame, err = x.cfg.replies.AppendFrame(nil, text); err != nil {
			err = &closeError{reason: ReasonWriteFailed, err: err} // recorded by a Server with another Framing
			break
		}
		var code AckCode
		if ack, parseErr := findMSA(text); parseErr == nil {
			code = ack.code
		}
		if err = x.transmit(ctx, frame, code, time.Now()); err != nil {
			break
		}
		e.Code = code
	}
	x.cfg.tell(ctx, e)
	return err
}
