package meshclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"time"
)

const (
	handshakeEvery = 24 * time.Hour
	// handshakeJitter is by how much less than a day it may be, so that mailboxes
	// that began together do not go on so.
	handshakeJitter = time.Hour

	// maxInARow is after how many messages in a row that failed a cycle ends: it is
	// then not they that are to blame.
	maxInARow = 5

	maxParked = 12 * time.Hour     // pause of poison
	alarmAge  = 4 * 24 * time.Hour // of a message that cannot be handled; after five days MESH takes it away

	// recordTime is how long it may take to note, and to acknowledge, what was
	// stored while the Poller was told to end.
	recordTime = 10 * time.Second
)

// A round is one cycle of a Poller, and belongs to its goroutine.
type round struct {
	p      *Poller
	parent context.Context //nolint:containedctx // of the one call that it is part of
	state  *pollState
	start  time.Time
	tried  map[string]bool // ids, of which none is tried twice
	inARow int             // failures
	polled Polled
}

// locked does a cycle under the Lock.
func (p *Poller) locked(ctx context.Context) (Polled, error) {
	held := ctx
	if p.Lock != nil {
		var release func()
		var err error
		if held, release, err = p.Lock(ctx); err != nil {
			return Polled{}, err
		}
		defer release()
	}
	state, err := p.load(held)
	if err != nil {
		return Polled{}, fmt.Errorf("meshclient: reading what the last cycle left: %w", err)
	}
	r := &round{p: p, parent: ctx, state: state, start: time.Now(), tried: make(map[string]bool)}
	if err := r.mayList(); err != nil {
		return Polled{}, err
	}
	err = r.all(held)
	state.prune(time.Now())
	r.save(held)
	p.ended(state, err)
	p.emit(ctx, PollEvent{Kind: PollEnded, Err: err})
	return r.polled, err
}

// mayList refuses what comes too soon.
func (r *round) mayList() error {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := p.interval() - r.start.Sub(r.state.LastPoll)
	switch {
	case wait <= 0, wait > p.interval(): // a time to come is of a clock that was wrong
		p.used, p.early = false, false
	case p.early && !p.used:
		p.used, p.early = true, false
	default:
		p.early = false
		return &TooSoonError{Wait: wait}
	}
	return nil
}

// ended notes how a cycle ended.
func (p *Poller) ended(state *pollState, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = PollStatus{LastPoll: state.LastPoll, LastHandshake: state.LastHandshake, Err: err}
	for _, m := range state.Messages {
		switch {
		case m.Stored:
			p.status.Unacknowledged++
		case m.Failures > 0:
			p.status.Failing++
			if m.Poison {
				p.status.Poison++
			}
		}
	}
	if errors.Is(err, ErrAuth) || errors.Is(err, ErrClientCertificate) {
		p.refused++
	} else {
		p.refused = 0
	}
}

func (p *Poller) poisonAfter() int {
	if p.PoisonAfter == 0 {
		return defaultPoisonAfter
	}
	return p.PoisonAfter
}

// all shakes hands if it is time to, and lists the inbox until nothing is left.
func (r *round) all(ctx context.Context) error {
	r.state.LastPoll = r.start // also if it comes to nothing: a program that cannot stay up is not to knock each time
	if until := r.state.NextHandshake.Sub(r.start); until <= 0 || until > handshakeEvery {
		r.save(ctx)
		if err := r.p.Client.Handshake(ctx); err != nil {
			return err
		}
		r.state.LastHandshake = time.Now()
		r.state.NextHandshake = r.state.LastHandshake.Add(handshakeEvery - r.p.interval() - rand.N(handshakeJitter))
		r.p.emit(ctx, PollEvent{Kind: PollHandshake})
	}
	q := Query{MaxResults: r.p.MaxResults, WorkflowFilter: r.p.WorkflowFilter}
	followed := make(map[string]bool)
	for range maxPages {
		r.state.LastPoll = time.Now()
		r.save(ctx)
		page, err := r.p.Client.Inbox(ctx, &q)
		if err != nil {
			return err
		}
		before := r.polled.Acknowledged
		if err := r.page(ctx, page.MessageIDs); err != nil {
			return err
		}
		acknowledged := r.polled.Acknowledged - before
		switch {
		case page.Next == "" && !page.Full:
			return nil
		case acknowledged > 0 && 2*acknowledged >= len(page.MessageIDs), page.Next == "" && acknowledged > 0:
			q.Next = "" // what is left has moved up
		case page.Next == "":
			return nil
		case followed[page.Next]:
			return badAnswer("inbox", http.StatusOK, "the links to the next pages go in a circle")
		default: // past what cannot be handled
			followed[page.Next] = true
			q.Next = page.Next
		}
	}
	return badAnswer("inbox", http.StatusOK, "there is no end of pages")
}

// page handles those messages of a page that were not tried yet. Those that failed
// before come last, so that nothing waits behind them.
func (r *round) page(ctx context.Context, ids []string) error {
	for _, failedBefore := range []bool{false, true} {
		for _, id := range ids {
			m := r.state.Messages[id]
			if r.tried[id] || (m != nil && m.Failures > 0 && !m.Stored) != failedBefore {
				continue
			}
			r.tried[id] = true
			if err := r.message(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// message handles and acknowledges a message. Its error ends the cycle.
func (r *round) message(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.polled.Listed++
	m := r.state.message(id, time.Now())
	if m.Stored {
		return r.acknowledge(ctx, id, m)
	}
	if r.start.Before(m.Next) {
		r.polled.Parked++
		r.alarm(ctx, id, m)
		return nil
	}
	switch err := r.p.handle(ctx, id); {
	case r.lost(ctx):
		return ctx.Err()
	case err == nil:
		r.polled.Handled++
		// It is noted before it is acknowledged, for what is between may be the end.
		m.Stored, m.Next = true, time.Time{}
		r.save(ctx)
		return r.acknowledge(ctx, id, m)
	case ctx.Err() != nil:
		return ctx.Err() // which says nothing of the message
	case errors.Is(err, ErrNotNow):
		return err // and neither does this
	case errors.Is(err, ErrGone), errors.Is(err, ErrNotFound):
		delete(r.state.Messages, id)
		r.polled.Gone++
		r.p.emit(ctx, PollEvent{Kind: PollGone, MessageID: id, Err: err})
		return nil
	default:
		return r.failed(ctx, id, m, err)
	}
}

// failed notes that a message was not handled.
func (r *round) failed(ctx context.Context, id string, m *pollMessage, err error) error {
	r.polled.Failed++
	m.Failures++
	e := PollEvent{Kind: PollFailed, MessageID: id, Failures: m.Failures, Err: err}
	own, ok := errors.AsType[*Error](err)
	network := ok && own.Retryable()
	if beyond := m.Failures - r.p.poisonAfter(); beyond >= 0 && !network {
		m.Next = r.start.Add(max(r.p.interval(), min(r.p.interval()<<min(beyond+1, 16), maxParked)))
		if !m.Poison {
			m.Poison, e.Kind = true, PollPoison
		}
	}
	r.p.emit(ctx, e)
	r.alarm(ctx, id, m)
	return r.count(err)
}

// alarm tells, once, of a message that MESH is about to take away.
func (r *round) alarm(ctx context.Context, id string, m *pollMessage) {
	if !m.Alarmed && r.start.Sub(m.First) >= alarmAge {
		m.Alarmed = true
		r.p.emit(ctx, PollEvent{Kind: PollExpiring, MessageID: id, Failures: m.Failures})
	}
}

// count ends the cycle when the failure is one too many in a row.
func (r *round) count(err error) error {
	if r.inARow++; r.inARow >= maxInARow {
		return fmt.Errorf("meshclient: %d messages in a row failed, the last so: %w", r.inARow, err)
	}
	return nil
}

// acknowledge takes a message that is stored out of the inbox, also when the
// Poller is told to end in the meantime.
func (r *round) acknowledge(ctx context.Context, id string, m *pollMessage) error {
	if r.lost(ctx) {
		return ctx.Err()
	}
	ackCtx := ctx
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ackCtx, cancel = context.WithTimeout(context.WithoutCancel(ctx), recordTime)
		defer cancel()
	}
	err := r.p.Client.Acknowledge(ackCtx, id)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrGone) {
		err = nil // there is nothing left to be acknowledged
	}
	if err != nil {
		r.p.emit(ctx, PollEvent{Kind: PollUnacknowledged, MessageID: id, Failures: m.Failures, Err: err})
		return r.count(err)
	}
	r.inARow = 0
	r.polled.Acknowledged++
	delete(r.state.Messages, id)
	r.p.emit(ctx, PollEvent{Kind: PollAcknowledged, MessageID: id})
	return nil
}

// lost tells whether the lock was.
func (r *round) lost(held context.Context) bool { return held.Err() != nil && r.parent.Err() == nil }

// save keeps the state. That it cannot be is told and no reason to stop: messages
// are safe without it, and come twice at worst.
func (r *round) save(held context.Context) {
	if r.lost(held) {
		return // it is another's now
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(held), recordTime)
	defer cancel()
	if err := r.p.keep(ctx, r.state); err != nil && r.p.Logger != nil {
		r.p.Logger.LogAttrs(ctx, slog.LevelError, "meshclient: polling: what it has to remember cannot be kept", slog.Any("err", err))
	}
}

// errPanic is what a panic of Handle comes to: what it was with may be a message.
var errPanic = errors.New("meshclient: Poller.Handle panicked")

func (p *Poller) handle(ctx context.Context, id string) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		err = errPanic
		if p.Logger != nil {
			p.Logger.LogAttrs(ctx, slog.LevelError, "meshclient: polling: panic in Handle",
				slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack())))
		}
	}()
	return p.Handle(ctx, id)
}

// load returns the state of the last cycle.
func (p *Poller) load(ctx context.Context) (*pollState, error) {
	if p.Store == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.state == nil {
			p.state = newPollState()
		}
		return p.state, nil
	}
	text, err := p.Store.Load(ctx)
	if err != nil {
		return nil, err
	}
	return parsePollState(slices.Clone(text))
}

// keep keeps a state.
func (p *Poller) keep(ctx context.Context, state *pollState) error {
	if p.Store == nil {
		return nil // it is the one that load returns
	}
	text, err := state.encode()
	if err != nil {
		return err
	}
	return p.Store.Save(ctx, text)
}
