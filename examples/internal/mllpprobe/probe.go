package mllpprobe

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultTimeout = 5 * time.Second
	// dripTime is between two bytes of a frame that never ends.
	dripTime = time.Second
	// pauseTime is how long a sender pauses in the middle of a frame: longer than
	// the 500 ms after which some receivers give up, shorter than any that were
	// meant.
	pauseTime = 700 * time.Millisecond
)

// A Probe is pointed at one listener. Dial must be set; every other field has a
// default. Fields must not be changed once a method has been called.
type Probe struct {
	// Dial opens a connection as senders do, with TLS where the listener wants it.
	// It obeys the deadline of its context.
	Dial func(context.Context) (net.Conn, error)
	// DialPlain opens a TCP connection to the same listener. It is for listeners
	// with TLS; nil means that Dial makes such connections.
	DialPlain func(context.Context) (net.Conn, error)
	// Timeout is how long an answer that is due may take. Zero or less means 5 s.
	Timeout time.Duration
	// Conns is how many scenarios run at a time, each on a connection of its own.
	// Zero or less means one: there are receivers that take only one sender.
	Conns int
	// ProcessingID is MSH-11. Empty means T (training); D is debugging.
	ProcessingID string
	// Large adds scenarios that send 16 MiB and more.
	Large bool
	// Slow adds scenarios that take a minute and more.
	Slow bool
	// SlowTime is how long these hold a connection. Zero or less means 90 s.
	SlowTime time.Duration
}

func (p *Probe) timeout() time.Duration {
	if p.Timeout <= 0 {
		return defaultTimeout
	}
	return p.Timeout
}

// linger is how long to look out for an answer too much.
func (p *Probe) linger() time.Duration { return p.timeout() / 25 }

func (p *Probe) processingID() string { return cmp.Or(p.ProcessingID, "T") }

func (p *Probe) slowTime() time.Duration {
	if p.SlowTime <= 0 {
		return 90 * time.Second
	}
	return p.SlowTime
}

// A Grade is the judgement on one scenario.
type Grade string

// The grades; the package comment says when each is given.
const (
	OK      Grade = "ok"
	Differs Grade = "differs"
	Bad     Grade = "BAD"
)

// A Result is what came of one scenario.
type Result struct {
	*Scenario

	Grade  Grade
	Came   string // what came, in the words of the package comment
	Remark string // what that means; empty where Came says it all
	Took   time.Duration
}

// Scenarios returns those that this probe runs, in order: all, or those with the
// given names. A name that is none is an error.
func (p *Probe) Scenarios(names ...string) ([]*Scenario, error) {
	var all []*Scenario
	for _, s := range catalogue {
		if s.mode.in(p) {
			all = append(all, s)
		}
	}
	if len(names) == 0 {
		return all, nil
	}
	var chosen []*Scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s *Scenario) bool { return s.Name == name })
		if i >= 0 {
			chosen = append(chosen, all[i])
			continue
		}
		i = slices.IndexFunc(catalogue, func(s *Scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q", name)
		}
		return nil, fmt.Errorf("scenario %q runs only %s", name, catalogue[i].mode)
	}
	return chosen, nil
}

// run is one call of Run.
type run struct {
	// static after construction
	probe    *Probe
	prefix   string
	baseline string // the code that the ordinary message got, if that was not AA

	ids atomic.Int64
}

// newID returns a control id unlike those of any other run.
func (r *run) newID() string {
	return r.prefix + strings.ToUpper(strconv.FormatInt(r.ids.Add(1), 36))
}

// Run runs scenarios and calls report for each, in their order, from one
// goroutine at a time. Before, it sends one ordinary message, to learn how the
// listener answers that. The error is that of the first connection, or of ctx.
func (p *Probe) Run(ctx context.Context, scenarios []*Scenario, report func(*Result)) error {
	r := &run{probe: p, prefix: "CWP" + rand.Text()[:8]}
	t, err := r.connect(ctx, p.Dial)
	if err != nil {
		return err
	}
	t.send(frame(t.plain()))
	t.settle()
	t.close()
	if len(t.came) == 1 && t.came[0].words == "" && t.came[0].code != "AA" && t.came[0].id == t.sent[0] {
		r.baseline = t.came[0].code
	}

	results := make([]chan *Result, len(scenarios))
	for i := range results {
		results[i] = make(chan *Result, 1)
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	var begun atomic.Int64
	for range min(max(1, p.Conns), len(scenarios)) {
		workers.Go(func() {
			for i := begun.Add(1) - 1; i < int64(len(scenarios)) && ctx.Err() == nil; i = begun.Add(1) - 1 {
				results[i] <- r.try(ctx, scenarios[i])
			}
		})
	}
	for _, result := range results {
		select {
		case done := <-result:
			if ctx.Err() != nil {
				return ctx.Err() // it was cut short
			}
			report(done)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// try runs one scenario.
func (r *run) try(ctx context.Context, s *Scenario) *Result {
	began := time.Now()
	result := &Result{Scenario: s}
	dial := r.probe.Dial
	if s.mode == onPlainOfTLS {
		dial = r.probe.DialPlain
	}
	t, err := r.connect(ctx, dial)
	if err != nil {
		result.Grade, result.Came, result.Remark = Bad, "no connection", "other connections were accepted before: is there a limit?"
	} else {
		s.play(t)
		t.close()
		result.Came = t.outcome()
		result.Grade, result.Remark = s.judge(result.Came, t.readings(r.baseline)...)
	}
	result.Took = time.Since(began)
	return result
}
