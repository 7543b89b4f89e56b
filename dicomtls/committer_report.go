package dicomtls

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Run brings the reports until ctx ends, and returns when nothing that it started
// runs any more. The error is that of Open, or ctx's cause. Requestors do not wait
// for one another; of one of them the oldest request comes first.
func (c *Committer) Run(ctx context.Context) error {
	if err := c.Open(); err != nil {
		return err
	}
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("dicomtls: Committer.Run is running already")
	}
	c.running, c.queues = true, make(map[string]chan struct{}, len(c.Requestors))
	for title := range c.Requestors {
		c.queues[title] = make(chan struct{}, 1)
	}
	queues := c.queues
	c.mu.Unlock()
	var queue sync.WaitGroup
	for title, wake := range queues {
		queue.Go(func() { c.serve(ctx, title, wake) })
	}
	<-ctx.Done()
	queue.Wait()
	c.mu.Lock()
	c.running, c.queues = false, nil
	c.mu.Unlock()
	return context.Cause(ctx)
}

// serve brings the reports of one requestor.
func (c *Committer) serve(ctx context.Context, title string, wake <-chan struct{}) {
	first := orDefault(c.RetryInterval, 10*time.Second)
	longest := max(first, orDefault(c.MaxRetryInterval, 10*time.Minute))
	wait := first
	for ctx.Err() == nil {
		if c.bringAll(ctx, c.of(title)) {
			wait = first
			select {
			case <-ctx.Done():
			case <-wake:
			}
			continue
		}
		again := time.NewTimer(wait/2 + rand.N(wait/2+1)) //nolint:gosec // spreads load, guards nothing
		wait = min(2*wait, longest)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				waiting = false
			case <-again.C:
				waiting = false
			case <-wake:
				// Who asks is there. If it takes that report, the others follow.
				fresh := c.of(title)
				if waiting = !c.bringAll(ctx, fresh[max(0, len(fresh)-1):]); !waiting {
					wait = first
				}
			}
		}
		again.Stop()
	}
}

// of returns what waits for a requestor, the oldest first.
func (c *Committer) of(title string) []*pendingCommit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.pending), func(p *pendingCommit) bool { return p.calling != title })
}

// bringAll tells whether all of them are done with. It stops at the first one for
// which the requestor could not be reached.
func (c *Committer) bringAll(ctx context.Context, list []*pendingCommit) bool {
	all := true
	for _, p := range list {
		err := c.bring(ctx, p)
		if ctx.Err() != nil {
			return false
		}
		failure, _ := errors.AsType[*SendError](err)
		limit := orDefault(c.GiveUpAfter, 72*time.Hour)
		switch {
		case err == nil:
			c.remove(p)
			continue
		case failure != nil && failure.Outcome == Refused && !failure.Retryable():
			c.warn(ctx, "given up: the requestor does not take the report", p.calling, err)
			c.remove(p)
			continue
		case limit > 0 && time.Since(p.taken) >= limit:
			c.warn(ctx, "given up: it could not be reported in time", p.calling, err)
			c.remove(p)
			continue
		}
		c.warn(ctx, "not reported yet", p.calling, err)
		all = false
		if failure != nil && failure.Outcome == NotSent {
			return false
		}
	}
	return all
}

// bring reports once.
func (c *Committer) bring(ctx context.Context, p *pendingCommit) error {
	record, _, err := readRecord(filepath.Join(c.Dir, p.name))
	if err != nil {
		return err
	}
	report, err := c.report(ctx, record)
	if err != nil {
		return err
	}
	d := c.Dialer
	if d == nil {
		d = new(Dialer)
	}
	d = d.with(record.Called, record.Calling)
	if c.Dialer != nil && c.Dialer.AETitle != "" {
		d.AETitle = c.Dialer.AETitle
	}
	return d.Report(ctx, "tcp", c.Requestors[p.calling], report)
}

// report says what becomes of a request. The error is that of ctx.
func (c *Committer) report(ctx context.Context, r *commitRecord) (*CommitReport, error) {
	report := &CommitReport{TransactionUID: r.TransactionUID}
	if r.Duplicate {
		for _, ref := range r.References {
			report.Failed = append(report.Failed, FailedReference{ref, StatusDuplicateTransaction})
		}
		return report, nil
	}
	failed := c.Vouch(ctx, slices.Clone(r.References))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	reasons := make(map[Reference]Status, len(failed))
	for _, f := range failed {
		reasons[f.Reference] = cmp.Or(f.Reason, StatusProcessingFailure)
	}
	for _, ref := range r.References {
		if reason, no := reasons[ref]; no {
			report.Failed = append(report.Failed, FailedReference{ref, reason})
		} else {
			report.Committed = append(report.Committed, ref)
		}
	}
	return report, nil
}

// remove forgets a request. If its file comes back after a power failure, the
// requestor gets its report twice.
func (c *Committer) remove(p *pendingCommit) {
	if err := os.Remove(filepath.Join(c.Dir, p.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.warn(context.Background(), "the file of a reported request cannot be removed", p.calling, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = slices.DeleteFunc(c.pending, func(other *pendingCommit) bool { return other == p })
	c.bytes -= p.size
}
