package dicomtls

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Commitments brings the reports of storage commitment to those who wait for
// them. An SCP may send its report on the association of the request or on one
// that it opens itself (PS3.4 J.3.3.1.3), so a program gives the same
// Commitments to its Dialer and to the Server that the SCP can reach. The zero
// value is ready to use; its methods are safe for concurrent use.
type Commitments struct {
	// Unclaimed gets a report for which nobody waits: one that came too late, of
	// an unknown transaction, or from another application entity than was asked.
	// What it returns is answered. It must not take long: while it runs, nothing
	// else of its association is read. Nil: such reports are answered with 0110,
	// processing failure.
	Unclaimed func(ctx context.Context, a *AssociationInfo, r *CommitReport) Status

	mu sync.Mutex
	// guarded by mu
	waiting map[string]*Transaction
	settled [256]string // the last transactions with a report: peers repeat themselves
	next    int         // index in settled
}

// A Transaction is a request for storage commitment that the SCP has taken.
type Transaction struct {
	// static after construction
	uid     string
	refs    []Reference
	peer    string // AE title of the SCP
	timeout time.Duration
	from    *Commitments
	over    <-chan struct{} // closed when no report can come any more; nil: never

	report *CommitReport // set before settled is closed
	done   chan struct{} // closed when the report is there
}

// A CommitResult says which of the objects of a request are safe with the SCP.
type CommitResult struct {
	Committed []Reference
	Failed    []FailedReference // also those that the report does not mention
}

// UID returns the Transaction UID, to recognize a late report by.
func (t *Transaction) UID() string { return t.uid }

// Wait waits for the report until ctx ends or Dialer.CommitTimeout has passed.
// The error is a *[SendError] with the outcome Unknown: the SCP may vouch for
// the objects or not, and its report then goes to Commitments.Unclaimed.
func (t *Transaction) Wait(ctx context.Context) (*CommitResult, error) {
	ctx, stop := withTimeout(ctx, t.timeout)
	defer stop()
	over := t.over
	for {
		select {
		case <-t.done:
			return t.result(), nil
		case <-ctx.Done():
			return nil, t.giveUp(&SendError{Outcome: Unknown, Err: waitError(ctx)})
		case <-over:
			select {
			case <-t.done: // both at once
				over = nil
				continue
			default:
			}
			return nil, t.giveUp(&SendError{Outcome: Unknown, Err: errors.New("dicomtls: the association has ended without a report")})
		}
	}
}

// waitError is why a wait has ended.
func waitError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("dicomtls: no report in time: %w", os.ErrDeadlineExceeded)
	}
	return context.Cause(ctx)
}

// giveUp stops waiting because of err.
func (t *Transaction) giveUp(err *SendError) *SendError {
	t.from.mu.Lock()
	defer t.from.mu.Unlock()
	delete(t.from.waiting, t.uid)
	return err
}

// result compares the report with the request. An object counts as committed
// only if the report says so and does not say the opposite, whatever its event
// type: dcm4che 2 reports failures with the type of success.
func (t *Transaction) result() *CommitResult {
	failed := make(map[string]Status, len(t.report.Failed))
	for _, f := range t.report.Failed {
		failed[f.SOPInstanceUID] = f.Reason
	}
	committed := make(map[Reference]bool, len(t.report.Committed))
	for _, r := range t.report.Committed {
		committed[r] = true
	}
	result := new(CommitResult)
	for _, ref := range t.refs {
		reason, no := failed[ref.SOPInstanceUID]
		if !no && committed[ref] {
			result.Committed = append(result.Committed, ref)
			continue
		}
		result.Failed = append(result.Failed, FailedReference{ref, reason})
	}
	return result
}

// expect registers a transaction before its request is sent: the report can come
// before the response.
func (c *Commitments) expect(t *Transaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		c.waiting = make(map[string]*Transaction)
	}
	t.from, t.done = c, make(chan struct{})
	c.waiting[t.uid] = t
}

// deliver brings a report of the application entity peer to who waits for it.
func (c *Commitments) deliver(ctx context.Context, a *AssociationInfo, peer string, r *CommitReport) Status {
	if c.claim(peer, r) {
		return StatusSuccess
	}
	if c.Unclaimed == nil {
		return StatusProcessingFailure
	}
	return c.Unclaimed(ctx, a, r)
}

func (c *Commitments) claim(peer string, r *CommitReport) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := peer + "\\" + r.TransactionUID // no title has a backslash
	for _, uid := range c.settled {
		if uid == key {
			return true
		}
	}
	t := c.waiting[r.TransactionUID]
	if t == nil || t.peer != peer {
		return false
	}
	delete(c.waiting, t.uid)
	c.settled[c.next] = key
	c.next = (c.next + 1) % len(c.settled)
	t.report = r
	close(t.done)
	return true
}
