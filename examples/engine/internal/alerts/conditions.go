package alerts

import (
	"context"
	"fmt"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// find looks at everything.
func (w *Watch) find(ctx context.Context, f *findings) {
	w.store(f)
	w.disk(f)
	w.certificates(ctx, f)
	for _, cfg := range w.engine.Channels() {
		status, err := w.engine.Status(ctx, cfg.ID)
		if err != nil {
			f.unsure = append(f.unsure, "queueing/"+cfg.ID+"/", "silent/"+cfg.ID+"/")
			continue
		}
		w.queues(f, &status)
		w.silence(f, &status)
	}
}

func (w *Watch) store(f *findings) {
	if w.engine.Healthy() != nil {
		f.add(condition{id: "store", kind: "store", text: "The store accepts no messages: senders are refused. The log says why.", over: "The store accepts messages again."})
	}
}

// queues finds messages that have waited too long. A queue is well again when its
// oldest message has waited half as long, or when nothing waits.
func (w *Watch) queues(f *findings, status *engine.Status) {
	for _, q := range status.Statistics.Destinations {
		id := "queueing/" + status.Config.ID + "/" + q.Name
		limit := w.opts.Config.QueueingAfter
		if f.was(id) {
			limit /= 2
		}
		if q.OldestQueued.IsZero() || f.now.Sub(q.OldestQueued) < limit {
			continue
		}
		where := named(status.Config) + " → " + q.Name
		f.add(condition{
			id: id, kind: "queueing", channel: status.Config.ID, destination: q.Name,
			text: fmt.Sprintf("%s: messages have waited since %s. In the queue: %d.", where, clock(q.OldestQueued), q.Queued),
			over: where + ": messages do not wait any more.",
		})
	}
}

// silence finds a channel that got nothing when it was to get something. It stays
// raised until a message comes, also while none is expected.
func (w *Watch) silence(f *findings, status *engine.Status) {
	cfg, last := status.Config, status.Statistics.LastReceived
	if cfg.Expected == nil {
		return
	}
	id := "silent/" + cfg.ID + "/"
	over := named(cfg) + ": messages come again, or are not expected any more."
	if before, ok := f.raised[id]; ok {
		if !last.After(before.Since) {
			f.add(condition{id: id, kind: "silent", channel: cfg.ID, over: over})
		}
		return
	}
	opened, open := cfg.Expected.Calendar.Open(f.now)
	from := latest(last, opened, w.began)
	if !open || f.now.Sub(from) < cfg.Expected.Within {
		return
	}
	text := named(cfg) + ": no message has come"
	if !last.IsZero() {
		text += " since " + clock(last)
	}
	f.add(condition{id: id, kind: "silent", channel: cfg.ID, text: fmt.Sprintf("%s. One is expected every %v.", text, cfg.Expected.Within), over: over})
}

// disk finds little space. It is well again when there is a fifth more than there must
// be.
func (w *Watch) disk(f *findings) {
	space, err := w.opts.Disk()
	if err != nil || space.Size <= 0 {
		f.unsure = append(f.unsure, "disk")
		return
	}
	free, limit := float64(space.Free)/float64(space.Size)*100, float64(w.opts.Config.DiskFreePercent)
	if f.was("disk") {
		limit *= 1.2
	}
	if free >= limit {
		return
	}
	severity := 1
	if free < float64(w.opts.Config.DiskFreePercent)/2 {
		severity = 2
	}
	f.add(condition{
		id: "disk", kind: "disk", severity: severity,
		text: fmt.Sprintf("%.1f %% of the data directory's disk is free. When it is full, senders are refused.", free),
		over: "There is enough space on the data directory's disk again.",
	})
}

// certificates finds those that end soon, and files that are not in use because they
// cannot be.
func (w *Watch) certificates(ctx context.Context, f *findings) {
	if w.opts.Certificates == nil {
		return
	}
	for _, c := range w.opts.Certificates(ctx) {
		if c.Failure != "" {
			f.add(condition{
				id: "replacement/" + c.Use, kind: "certificate",
				text: fmt.Sprintf("%s: the TLS files as they are now cannot be used, so what was read before is: %s.", c.Use, c.Failure),
				over: c.Use + ": the TLS files as they are now are in use.",
			})
			continue
		}
		left := c.NotAfter.Sub(f.now)
		const day = 24 * time.Hour
		if left > time.Duration(w.opts.Config.CertificateDays)*day {
			continue
		}
		severity := 1
		for _, limit := range []time.Duration{7 * day, day, 0} {
			if left <= limit {
				severity++
			}
		}
		days := "days"
		if left/day == 1 {
			days = "day"
		}
		text := fmt.Sprintf("ends in %d %s, at %s", int(left/day), days, clock(c.NotAfter))
		if left <= 0 {
			text = "has ended at " + clock(c.NotAfter)
		}
		f.add(condition{
			id: "certificate/" + c.Use + "/" + c.Path + "/" + c.Subject, kind: "certificate", severity: severity,
			text: fmt.Sprintf("The certificate %s in %s (%s) %s.", c.Subject, c.Path, c.Use, text),
			over: fmt.Sprintf("The certificate %s in %s (%s) was renewed.", c.Subject, c.Path, c.Use),
		})
	}
}

func named(cfg *config.Channel) string {
	if cfg.Name == "" || cfg.Name == cfg.ID {
		return cfg.ID
	}
	return fmt.Sprintf("%s (%s)", cfg.Name, cfg.ID)
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func latest(times ...time.Time) time.Time {
	var last time.Time
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}
