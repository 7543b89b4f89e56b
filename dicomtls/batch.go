package dicomtls

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// A Result is the fate of one of many objects.
type Result struct {
	Outcome Outcome
	Status  Status // the peer's answer, if Outcome is Stored or Refused
	Err     error  // nil if Outcome is Stored, else a *SendError
}

// StoreAll sends objects over as many associations as their SOP classes and
// transfer syntaxes need, one after the other, each with up to 128 presentation
// contexts, and with as many objects under way as the window allows. An object
// that the peer does not take, or that cannot be sent, does not keep back the
// others; an association that is lost does: what was not sent on it is NotSent.
//
// The results are those of the objects, in the same order. each, if not nil, is
// called with the index and the result of an object as soon as there is one,
// from one goroutine at a time.
func (d *Dialer) StoreAll(ctx context.Context, network, addr string, objects []Object, each func(i int, r Result)) []Result {
	results := make([]Result, len(objects))
	var mu sync.Mutex
	settle := func(i int, r Result) {
		mu.Lock()
		defer mu.Unlock()
		results[i] = r
		if each != nil {
			each(i, r)
		}
	}
	for rest := objects; len(rest) > 0; {
		first := len(objects) - len(rest)
		n, proposals := fill(rest)
		a, err := d.dial(ctx, network, addr, proposals)
		if err != nil {
			for i := range rest { // the next association would meet with the same
				settle(first+i, Result{Outcome: NotSent, Err: err})
			}
			return results
		}
		a.storeAll(ctx, rest[:n], func(i int, r Result) { settle(first+i, r) })
		_ = a.Release(ctx) // what was answered is not in doubt
		rest = rest[n:]
	}
	return results
}

// fill returns how many of the objects fit one association, and what is to be
// proposed for them.
func fill(objects []Object) (n int, proposals []Proposal) {
	known := make(map[[2]string]bool)
	for n = range objects {
		var fresh []Proposal
		for _, p := range Propose(objects[n : n+1]) {
			if !known[[2]string{p.AbstractSyntax, p.TransferSyntaxes[0]}] {
				fresh = append(fresh, p)
			}
		}
		if objects[n].check() != nil {
			continue // it gets its error when its turn comes
		}
		if len(proposals)+len(fresh) > maxContexts {
			return n, proposals
		}
		for _, p := range fresh {
			known[[2]string{p.AbstractSyntax, p.TransferSyntaxes[0]}] = true
		}
		proposals = append(proposals, fresh...)
	}
	return len(objects), proposals
}

// storeAll sends objects in their order, with as many under way as the window allows.
func (a *Association) storeAll(ctx context.Context, objects []Object, settle func(i int, r Result)) {
	var (
		next    atomic.Int64
		workers sync.WaitGroup
	)
	for range min(cap(a.slots), len(objects)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(objects) {
					return
				}
				settle(i, a.result(ctx, objects[i]))
			}
		})
	}
	workers.Wait()
}

func (a *Association) result(ctx context.Context, o Object) Result {
	status, err := a.Store(ctx, o)
	if failed, ok := errors.AsType[*SendError](err); ok {
		return Result{Outcome: failed.Outcome, Status: status, Err: failed}
	}
	return Result{Outcome: Stored, Status: status}
}
