package meshclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// minPollInterval is MESH's rule: an inbox is listed no more often, unless it
	// holds more than was listed, or something was just sent.
	minPollInterval = 5 * time.Minute
	// maxPollInterval is MESH's other one: at least once a day.
	maxPollInterval = 24 * time.Hour

	defaultPoisonAfter = 5
	maxBackOff         = time.Hour // of cycles that the server refuses
)

// ErrLocked is for Poller.Lock: another machine polls the mailbox.
var ErrLocked = errors.New("meshclient: another machine polls the mailbox")

// ErrNotNow is for Poller.Handle: nothing can be stored now, whichever message it
// is. The cycle ends, and nothing is counted against the message.
var ErrNotNow = errors.New("meshclient: messages cannot be stored now")

// A TooSoonError is Poll's when MESH's rule forbids to list the inbox again.
type TooSoonError struct {
	Wait time.Duration // until it may be
}

// Error returns one line.
func (e *TooSoonError) Error() string {
	return fmt.Sprintf("meshclient: the inbox was listed not long ago, and may be again in %s", e.Wait.Round(time.Second))
}

// A Poller empties a mailbox as MESH wants it done: it shakes hands once a day,
// lists the inbox every five minutes and again while more waits, hands one message
// at a time to Handle, and acknowledges it when that has returned nil.
//
//	p := &meshclient.Poller{
//		Client: client, Store: meshclient.PollFile("/var/lib/app/mesh.json"),
//		Handle: func(ctx context.Context, id string) error {
//			_, err := client.ReceiveFile(ctx, id, filepath.Join(dir, id+".dat"), nil)
//			return err
//		},
//	}
//	err := p.Run(ctx)
//
// Client and Handle are needed. There must be one Poller for a mailbox; with Lock
// and a Store that they share there may be one on each of several machines. The
// fields must not be changed after the first call.
type Poller struct {
	Client *Client
	// Handle receives a message, or what it is a report of, and makes it durable.
	// Its nil has the message acknowledged, and nothing else does: after an error, a
	// panic, or the end of the program the message comes again under the same id.
	// So it may get one twice, if the program ends between its nil and Store's. An
	// error that is ErrGone or ErrNotFound says that there is no such message any
	// more, one that is ErrNotNow that it is not the message's fault.
	Handle func(ctx context.Context, messageID string) error

	// Interval is between two listings. 0: 5 minutes. Up to 24 hours; less than 5
	// minutes is refused without ShortInterval, which MESH does not allow.
	Interval      time.Duration
	ShortInterval bool
	// WorkflowFilter and MaxResults are those of Query.
	WorkflowFilter string
	MaxResults     int

	// PoisonAfter is how often Handle may fail a message, once a cycle, until it is
	// poison: from then on it is tried again after pauses that double from Interval
	// to 12 hours. It stays in the inbox, and MESH takes it out after 5 days, with a
	// report to its sender. An *Error that is Retryable makes none. 0: 5.
	PoisonAfter int

	// Store keeps what must outlast the program: when the last handshake and the
	// last listing were, which messages failed, and which are stored and not
	// acknowledged, which are then acknowledged without being received again. nil:
	// it is kept in memory, and every start begins with a handshake.
	Store PollStore
	// Lock, if not nil, is asked before every cycle. It returns a context that ends
	// when the lock is lost, and what gives it back; or ErrLocked, and the cycle is
	// another machine's. What is done after the loss of the lock is neither
	// recorded nor acknowledged.
	Lock func(ctx context.Context) (held context.Context, release func(), err error)

	Observe func(PollEvent) // told of what happens, by one goroutine at a time
	Logger  *slog.Logger    // gets the same; nil: nothing is logged

	mu      sync.Mutex
	cycle   *cycle        // the one under way; guarded by mu
	state   *pollState    // of the last cycle, where there is no Store; guarded by mu
	status  PollStatus    // guarded by mu
	refused int           // cycles in a row that the server refused; guarded by mu
	sent    chan struct{} // of capacity 1; made and guarded by mu
	early   bool          // a listing is wanted before its time; guarded by mu
	used    bool          // there was one since the last regular one; guarded by mu
}

// PollKind is what a PollEvent is about.
type PollKind string

// What happens to a Poller and its messages.
const (
	PollHandshake      PollKind = "handshake"      // the server took one
	PollAcknowledged   PollKind = "acknowledged"   // the message is done with
	PollUnacknowledged PollKind = "unacknowledged" // it is stored, but the server did not hear of it; it will
	PollFailed         PollKind = "failed"         // Handle did not store it
	PollPoison         PollKind = "poison"         // that happened PoisonAfter times or more; told once
	PollExpiring       PollKind = "expiring"       // it has waited for 4 of the 5 days that it may, since it was first seen
	PollGone           PollKind = "gone"           // there is no such message any more
	PollEnded          PollKind = "ended"          // a cycle is over, with or without Err
)

// A PollEvent is one thing that happened. Err may be Handle's.
type PollEvent struct {
	Kind      PollKind
	MessageID string // "" where it is about none
	Failures  int    // of the message, so far
	Err       error
}

// Polled counts what a cycle did. Handled messages are among the Acknowledged, if
// they were.
type Polled struct {
	Listed, Handled, Acknowledged, Failed int
	Parked                                int // poison that is left alone for now
	Gone                                  int
}

// PollStatus is how a Poller fares.
type PollStatus struct {
	LastPoll      time.Time // when the inbox was listed; zero: never
	LastHandshake time.Time // zero: never
	Err           error     // of the last cycle; nil: it was a success
	// How many messages are known that failed, how many of them are poison, and
	// how many are stored and not acknowledged.
	Failing, Poison, Unacknowledged int
}

// A cycle is one run through the inbox, which several callers may wait for.
type cycle struct {
	done   chan struct{} // closed when polled and err are set
	polled Polled
	err    error
}

// Validate says what is wrong with the fields.
func (p *Poller) Validate() error {
	switch {
	case p.Client == nil || p.Handle == nil:
		return errors.New("meshclient: Poller needs Client and Handle")
	case p.Interval < 0 || p.Interval > maxPollInterval:
		return errors.New("meshclient: Poller.Interval is not between 5 minutes and 24 hours")
	case p.Interval != 0 && p.Interval < minPollInterval && !p.ShortInterval:
		return errors.New("meshclient: Poller.Interval is less than the 5 minutes that MESH allows: ShortInterval is for servers that are not MESH's")
	case p.PoisonAfter < 0:
		return errors.New("meshclient: Poller.PoisonAfter is negative")
	}
	_, err := (&Query{WorkflowFilter: p.WorkflowFilter, MaxResults: p.MaxResults}).values()
	return err
}

func (p *Poller) interval() time.Duration {
	if p.Interval == 0 {
		return minPollInterval
	}
	return p.Interval
}

// Run polls until ctx ends, which is no error. The message in hand is given the
// end of ctx, and if it is stored nevertheless it is still acknowledged. After a
// cycle that the server refused for the mailbox's credentials or certificate the
// pauses grow, up to an hour.
func (p *Poller) Run(ctx context.Context) error {
	if err := p.Validate(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		_, err := p.Poll(ctx)
		p.wait(ctx, p.pause(err))
	}
	return nil
}

// wait waits until it is time to poll again, or ctx ends.
func (p *Poller) wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.whenSent():
	case <-ctx.Done():
	}
}

// pause is how long to wait after a cycle.
func (p *Poller) pause(err error) time.Duration {
	if soon, ok := errors.AsType[*TooSoonError](err); ok {
		return soon.Wait
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused > 1 {
		return max(p.interval(), min(p.interval()<<min(p.refused-1, 10), maxBackOff))
	}
	if err == nil { // draining may have taken a while, and its last listing counts
		return max(0, p.interval()-time.Since(p.status.LastPoll))
	}
	return p.interval()
}

// Sent lets the inbox be listed once before its time, as NHS wants to see it done
// after something was sent. Between two regular listings only the first counts.
func (p *Poller) Sent() {
	p.mu.Lock()
	p.early = true
	p.mu.Unlock()
	select {
	case p.whenSent() <- struct{}{}:
	default:
	}
}

func (p *Poller) whenSent() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent == nil {
		p.sent = make(chan struct{}, 1)
	}
	return p.sent
}

// Poll goes through the inbox once, or waits for the end of the cycle that is under
// way: there is never more than one. The error is a *TooSoonError if MESH's rule
// forbids it, ErrLocked, Lock's or Store's own, an *Error of the server's, or the
// last of Handle's when five messages in a row have failed or it is ErrNotNow. Of a single message
// that failed there is a count and an event.
func (p *Poller) Poll(ctx context.Context) (Polled, error) {
	if err := p.Validate(); err != nil {
		return Polled{}, err
	}
	p.mu.Lock()
	if c := p.cycle; c != nil {
		p.mu.Unlock()
		select {
		case <-c.done:
			return c.polled, c.err
		case <-ctx.Done():
			return Polled{}, ctx.Err()
		}
	}
	c := &cycle{done: make(chan struct{})}
	p.cycle = c
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.cycle = nil
		p.mu.Unlock()
		close(c.done)
	}()
	c.polled, c.err = p.locked(ctx)
	return c.polled, c.err
}

// Status tells how the Poller fares.
func (p *Poller) Status() PollStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// emit tells of an event.
func (p *Poller) emit(ctx context.Context, e PollEvent) {
	if p.Observe != nil {
		p.Observe(e)
	}
	if p.Logger == nil {
		return
	}
	level := slog.LevelDebug
	switch e.Kind {
	case PollPoison, PollExpiring:
		level = slog.LevelError
	case PollFailed, PollUnacknowledged, PollGone:
		level = slog.LevelWarn
	case PollEnded:
		if e.Err != nil {
			level = slog.LevelWarn
		}
	case PollHandshake, PollAcknowledged:
	}
	attrs := []slog.Attr{slog.String("event", string(e.Kind)), slog.String("mailbox", p.Client.Mailbox())}
	if e.MessageID != "" {
		attrs = append(attrs, slog.String("messageId", e.MessageID))
	}
	if e.Failures != 0 {
		attrs = append(attrs, slog.Int("failures", e.Failures))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("err", e.Err))
	}
	p.Logger.LogAttrs(ctx, level, "meshclient: polling", attrs...)
}
