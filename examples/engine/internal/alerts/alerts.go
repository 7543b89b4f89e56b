// Package alerts tells people once when something breaks, and once when it is well
// again.
//
// An alert is a message: it is taken in by a channel of the engine, and that
// channel's destinations bring it by mail, to a webhook or wherever they bring any
// other message. So alerts have what messages have: they are on disk before they
// count as told, wait while the mail server is down, and are sent in their order.
//
// What is looked at, every 15 seconds unless the configuration says otherwise:
//
//	queueing     a message has waited for its destination longer than it may
//	silent       no message has come when some are expected
//	certificate  one ends soon, or its replacement cannot be used
//	disk         little space is left for the store
//	store        the store accepts nothing
//
// Which alerts are raised, and which are still to be told, is kept in a file, so that
// a restart tells nobody a second time. An alert about the store itself can only be told when the store is well
// again, and is told then: watch /api/health for it, too.
package alerts

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/disk"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// lookTime bounds how long the store may take for one look at everything.
	lookTime = 10 * time.Second
	// maxPending bounds the alerts that wait for the store. There are two for each
	// thing that can break.
	maxPending = 10_000
)

// Engine is what alerts ask of an engine, and where they go.
type Engine interface {
	Channels() []*config.Channel
	Status(ctx context.Context, id string) (engine.Status, error)
	Healthy() error
	Inject(ctx context.Context, id string, in engine.Injected) (int64, error)
}

// A Certificate is one whose end is watched or, with Failure, files that cannot be used
// as they are now.
type Certificate struct {
	Use      string // what it is for: "channel adt, source, tls"
	Path     string
	Subject  string
	NotAfter time.Time
	Failure  string // why; empty: a certificate that is in use
}

// Options are the settings of a Watch.
type Options struct {
	Config    config.Alerts // with its defaults set
	Directory string        // the data directory, where the file of raised alerts is
	ServerID  string
	Logger    *slog.Logger
	// Certificates returns those in use. nil: there are none.
	Certificates func(ctx context.Context) []Certificate
	// Disk returns the space of the data directory. nil: the operating system's answer.
	Disk func() (disk.Space, error)
}

// A Watch looks for what is wrong. Make it with New, and Run it.
type Watch struct {
	// static after construction
	engine Engine
	opts   Options

	// owned by Run
	began   time.Time
	raised  map[string]raised // by the condition's id; what people were told
	pending []alert           // to be told, in this order
	quiet   bool              // that alerts cannot be told was logged
	unsaved bool              // likewise that they cannot be written down
}

// condition is something that is wrong now.
type condition struct {
	id          string // the same for as long as it lasts
	kind        string
	channel     string
	destination string
	severity    int // a condition that gets worse is told again
	text        string
	// over is what is said when it is well again.
	over string
}

// New returns a Watch over e. An error tells that the file of raised alerts cannot
// be read.
func New(e Engine, opts Options) (*Watch, error) {
	before, err := load(opts.Directory)
	if err != nil {
		return nil, fmt.Errorf("raised alerts: %w", err)
	}
	if opts.Disk == nil {
		opts.Disk = func() (disk.Space, error) { return disk.Of(opts.Directory) }
	}
	return &Watch{engine: e, opts: opts, raised: before.Raised, pending: before.Pending}, nil
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	w.began = time.Now()
	ticker := time.NewTicker(w.opts.Config.CheckInterval)
	defer ticker.Stop()
	for {
		w.look(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look compares what is wrong with what people were told.
func (w *Watch) look(ctx context.Context) {
	now := time.Now()
	looking, cancel := context.WithTimeout(ctx, lookTime)
	found := &findings{now: now, raised: w.raised}
	w.find(looking, found)
	cancel()
	if ctx.Err() != nil {
		return
	}
	for _, c := range found.wrong {
		if before, told := w.raised[c.id]; !told || c.severity > before.Severity {
			since := now
			if told {
				since = before.Since
			}
			w.raise(c, since, now)
		}
	}
	for id, r := range w.raised {
		if !found.lasts(id) {
			w.clear(id, r, now)
		}
	}
	w.tell(ctx)
}

func (w *Watch) raise(c condition, since, now time.Time) {
	w.raised[c.id] = raised{Kind: c.kind, Channel: c.channel, Destination: c.destination, Severity: c.severity, Since: since, Over: c.over}
	w.queue(alert{
		Text: c.text, Alert: c.kind, State: stateRaised, Channel: c.channel, Destination: c.destination, Since: since, At: now, ID: c.id,
		Severity: c.severity,
	})
}

func (w *Watch) clear(id string, r raised, now time.Time) {
	delete(w.raised, id)
	w.queue(alert{
		Text: r.Over, Alert: r.Kind, State: stateCleared, Channel: r.Channel, Destination: r.Destination, Since: r.Since, At: now, ID: id,
	})
}

func (w *Watch) queue(a alert) {
	a.Server = w.opts.ServerID
	if len(w.pending) < maxPending {
		w.pending = append(w.pending, a)
	}
	w.opts.Logger.Warn("alert", "alert", a.Alert, "state", a.State, "channel", a.Channel, "destination", a.Destination, "text", a.Text)
}

// tell hands over what is to be told. What is to be told is written down before, and
// that it was, after it: a crash between the two tells again rather than not at all,
// and the channel then knows that it has the message.
func (w *Watch) tell(ctx context.Context) {
	if len(w.pending) == 0 {
		return
	}
	w.save(ctx)
	told := 0
	for _, a := range w.pending {
		_, err := w.engine.Inject(ctx, w.opts.Config.Channel, engine.Injected{Raw: a.message(), Once: store.Once{Key: a.key(), For: rememberFor}})
		if err != nil {
			if !w.quiet {
				w.quiet = true
				w.opts.Logger.ErrorContext(ctx, "alerts cannot be told yet", "channel", w.opts.Config.Channel, "err", err)
			}
			break
		}
		w.quiet = false
		told++
	}
	if told > 0 {
		w.pending = slices.Delete(w.pending, 0, told)
		w.save(ctx)
	}
}

func (w *Watch) save(ctx context.Context) {
	err := save(w.opts.Directory, &memory{Raised: w.raised, Pending: w.pending})
	if err != nil && !w.unsaved {
		w.opts.Logger.ErrorContext(ctx, "which alerts are raised cannot be written down: a restart tells them again", "err", err)
	}
	w.unsaved = err != nil
}

// findings are what one look has found.
type findings struct {
	now    time.Time
	raised map[string]raised // before
	wrong  []condition
	unsure []string // beginnings of the ids of which nothing could be learned
}

func (f *findings) add(c condition) { f.wrong = append(f.wrong, c) }

// was tells whether a condition was raised before: it then ends later than it began,
// so that what goes to and fro around a limit is told once.
func (f *findings) was(id string) bool { _, ok := f.raised[id]; return ok }

// lasts tells whether a raised condition is to stay so.
func (f *findings) lasts(id string) bool {
	if slices.ContainsFunc(f.unsure, func(beginning string) bool { return strings.HasPrefix(id, beginning) }) {
		return true
	}
	return slices.ContainsFunc(f.wrong, func(c condition) bool { return c.id == id })
}
