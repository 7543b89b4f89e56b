package main

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/examples/engine/internal/audit"
)

// refusalPause is the least time between two records of refused requests of nodes.
const refusalPause = 10 * time.Second

// refusals puts into the audit log that requests of other nodes were refused. Whoever
// can send requests can have them refused, at any rate: so one record tells of all
// since the one before it.
type refusals struct {
	// static after construction
	events *audit.Log
	log    *slog.Logger
	wakeup chan struct{} // of capacity 1; never closed

	mu    sync.Mutex
	count int           // since the last record; guarded by mu
	last  cluster.Event // of those; guarded by mu
}

func newRefusals(events *audit.Log, log *slog.Logger) *refusals {
	return &refusals{events: events, log: log, wakeup: make(chan struct{}, 1)}
}

// watch has what is observed recorded until stop is called, which records the rest.
func (r *refusals) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// observe does not block.
func (r *refusals) observe(e cluster.Event) {
	if e.Kind != cluster.Refused {
		return
	}
	r.mu.Lock()
	r.count++
	r.last = e
	r.mu.Unlock()
	select {
	case r.wakeup <- struct{}{}:
	default:
	}
}

func (r *refusals) run(ctx context.Context) {
	for {
		select {
		case <-r.wakeup:
		case <-ctx.Done():
			r.record()
			return
		}
		r.record()
		select {
		case <-time.After(refusalPause):
		case <-ctx.Done():
		}
	}
}

func (r *refusals) record() {
	r.mu.Lock()
	count, last := r.count, r.last
	r.count = 0
	r.mu.Unlock()
	if count == 0 {
		return
	}
	host, _, err := net.SplitHostPort(last.RemoteAddr)
	if err != nil {
		host = last.RemoteAddr
	}
	err = r.events.Append(audit.Event{
		Action: "cluster.request", Outcome: audit.Failure, Client: host,
		Attributes: map[string]string{"reason": string(last.Reason), "requests": strconv.Itoa(count)},
	})
	if err != nil {
		r.log.Error("the audit log cannot be written", "action", "cluster.request", "err", err)
	}
}
