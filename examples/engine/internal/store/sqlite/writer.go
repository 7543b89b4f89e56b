package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// A group takes at most this many requests and, once over, no more payload,
	// so that one caller's wait stays bounded.
	groupRequests = 256
	groupBytes    = 8 << 20

	// The log is moved into the database when about this many bytes are in it,
	// or as many as half the reserve, if that is less: on a disk that has become
	// full the reserve must hold what is moved, or the log could not start anew.
	logLength = 8 << 20

	// What a group adds to the log beside its payload, in bytes: some pages for
	// itself, and parts of pages for each request.
	logPerGroup   = 6 * 4096
	logPerRequest = 512

	probeInterval  = time.Second      // how often a full disk is looked at
	reopenInterval = time.Second      // until the first attempt to reopen; doubles
	reopenLimit    = 30 * time.Second // up to this
)

// condition is what the store can do.
type condition int

const (
	well   condition = iota
	full             // completions only
	failed           // nothing
)

// A writer makes changes durable, one group after the other. All its fields are
// owned by run.
type writer struct {
	store *Store
	db    *database // nil while failed
	names names

	condition  condition
	reason     error         // what Healthy says
	pause      time.Duration // between attempts to get well
	lastIntake time.Time     // when a group with intake was last committed
	callers    int           // how many had a request here when the last group was committed
	commitTime time.Duration // of a group, as it has been of late
	group      []*request    // the requests in hand; between groups, the room for them
	open       group         // likewise the transaction
	logged     int64         // about how many bytes the log has grown by since the last checkpoint
}

// run serves requests until Close.
func (w *writer) run() {
	s := w.store
	defer close(s.stopped)
	cure := time.NewTimer(0)
	defer cure.Stop()
	<-cure.C
	for armed := false; ; {
		if w.condition != well && !armed {
			cure.Reset(w.pause)
			armed = true
		}
		select {
		case <-s.inbox.arrived:
			w.gather()
			w.serve(w.group)
			clear(w.group[:cap(w.group)]) // the payloads are their callers' again
		case <-cure.C:
			armed = false
			w.getWell()
		case <-s.closing:
			s.closeErr = w.shutdown()
			return
		}
	}
}

// serve makes the requests' changes durable together and answers each of them.
func (w *writer) serve(requests []*request) {
	for len(requests) > 0 {
		switch w.condition {
		case failed:
			requests = refuse(requests, w.reason, func(*request) bool { return true })
			continue
		case full:
			requests = refuse(requests, w.reason, func(r *request) bool { return r.intake })
		case well:
		}
		if len(requests) == 0 {
			return
		}
		culprit, err := w.commit(requests)
		if err == nil {
			break
		}
		switch fault := faultOf(err); {
		case fault == faultFull && w.condition == well:
			w.becomeFull(err) // and try what needs no intake once more
		case fault == faultFull:
			requests = refuse(requests, classify(err), func(*request) bool { return true })
		case fault == faultDisk:
			w.fail(err)
		case culprit != nil:
			requests = refuse(requests, err, func(r *request) bool { return r == culprit })
		case len(requests) > 1: // it is one's, which shows when each is on its own
			for _, r := range requests {
				w.serve([]*request{r})
			}
			return
		default:
			requests = refuse(requests, fmt.Errorf("store: %w", err), func(*request) bool { return true })
		}
	}
	w.maybeCheckpoint()
}

// refuse answers those of requests that match with err, and returns the others.
func refuse(requests []*request, err error, match func(*request) bool) []*request {
	return slices.DeleteFunc(requests, func(r *request) bool {
		if !match(r) {
			return false
		}
		r.answer(err)
		return true
	})
}

// commit runs one transaction with all requests and answers them after it is
// durable. On an error nobody was answered and nothing was changed, unless the
// disk failed; culprit is the request whose statement failed, if it was one's
// alone.
func (w *writer) commit(requests []*request) (culprit *request, err error) {
	ctx := context.Background() // whoever was let in waits for the outcome
	began := time.Now()
	if _, err := w.db.begin.ExecContext(ctx); err != nil {
		return nil, err
	}
	g := &w.open
	g.begin(w.db, &w.names)
	defer g.forget()
	size, intake := logPerGroup, false
	for _, r := range requests {
		r.err = r.apply(ctx, g)
		if r.err != nil && !errors.Is(r.err, store.ErrNotFound) { // that one has changed nothing
			culprit, err = r, r.err
			break
		}
		size += r.size + logPerRequest
		intake = intake || r.intake
	}
	if err == nil {
		err = g.finish(ctx)
	}
	if err == nil {
		_, err = w.db.commit.ExecContext(ctx)
	}
	if err != nil {
		// After most errors SQLite has rolled back itself, and says so here.
		w.db.rollback.ExecContext(ctx) //nolint:errcheck // see above
		return culprit, err
	}
	w.names.adopt(g)
	w.logged += int64(size)
	now := time.Now()
	if intake {
		w.lastIntake = now
	}
	w.commitTime += (now.Sub(began) - w.commitTime) / commitTimes
	w.callers = len(requests) + w.store.inbox.len()
	for _, seq := range g.ended {
		w.store.attemptEnded(seq)
	}
	for _, r := range requests {
		close(r.done)
	}
	return nil, nil
}

// maybeCheckpoint keeps the log short. The callers have their answers already.
func (w *writer) maybeCheckpoint() {
	limit := int64(logLength)
	if half := w.store.reserve.size / 2; half > 0 {
		limit = min(limit, half)
	}
	if w.condition != failed && w.logged >= limit {
		w.checkpoint()
	}
}

func (w *writer) checkpoint() {
	w.logged = 0
	err := w.db.checkpoint(context.Background())
	switch faultOf(err) {
	case faultNone, faultRequest, faultBusy:
	case faultFull:
		if w.condition == well {
			w.becomeFull(err)
		}
	case faultDisk:
		w.fail(err)
	}
}

// becomeFull gives up the reserve, and refuses intake from now on.
func (w *writer) becomeFull(cause error) {
	w.condition, w.pause = full, probeInterval
	w.reason = fmt.Errorf("%w: %w", store.ErrFull, cause)
	if errors.Is(cause, store.ErrFull) {
		w.reason = cause
	}
	w.store.setSick(w.reason)
	if err := w.store.reserve.release(); err != nil {
		w.store.log.Error("store: the reserve cannot be given up", "err", err)
	}
	w.checkpoint() // so that the log starts anew, in the space it has
	w.store.log.Error("store: disk full, intake is refused", "err", w.reason)
}

// fail closes everything after an error of the disk.
func (w *writer) fail(cause error) {
	w.condition, w.pause = failed, reopenInterval
	w.reason = fmt.Errorf("%w: %w", store.ErrFailed, cause)
	w.store.setSick(w.reason)
	w.store.log.Error("store: the disk failed, everything is refused until the store has been reopened", "err", cause)
	w.store.stopBackups()
	w.store.swap(nil)
	if err := w.db.close(); err != nil {
		w.store.log.Error("store: close after failure", "err", err)
	}
	w.db = nil
}

// getWell tries to end a condition that is not well.
func (w *writer) getWell() {
	if w.condition == failed {
		if err := w.reopen(); err != nil {
			w.pause = min(2*w.pause, reopenLimit)
			w.store.log.Error("store: cannot be reopened yet", "err", err, "next", w.pause)
			return
		}
		w.store.log.Info("store: reopened and verified")
	}
	if err := w.store.reserve.take(); err != nil {
		if w.condition == failed { // reopened, but on a disk without space
			w.becomeFull(err)
		}
		return
	}
	if w.condition == full {
		w.store.log.Info("store: there is space again, intake resumes")
	}
	w.condition, w.reason = well, nil
	w.store.setSick(w.reason)
}

// reopen opens and verifies the files after a failure.
func (w *writer) reopen() error {
	s := w.store
	// A disk that is full can look like one that fails: opening needs some space.
	if err := s.reserve.release(); err != nil {
		return err
	}
	ctx := context.Background()
	db, err := openDatabase(ctx, filepath.Join(s.dir, databaseName), s.synchronous, s.log)
	if err != nil {
		return err
	}
	names, err := db.loadNames(ctx)
	if err == nil && (names.lastMessage < w.names.lastMessage || names.lastSeq < w.names.lastSeq) {
		err = fmt.Errorf("store: messages up to %d were confirmed, but the database ends with %d", w.names.lastMessage, names.lastMessage)
	}
	if err != nil {
		return errors.Join(err, db.close())
	}
	w.db, w.names = db, names
	w.logged = 0
	s.swap(db)
	return nil
}

// shutdown ends the store in order, if it is well enough.
func (w *writer) shutdown() error {
	s := w.store
	for left, _ := s.inbox.take(nil); len(left) > 0; left, _ = s.inbox.take(nil) {
		refuse(left, store.ErrClosed, func(*request) bool { return true })
	}
	var errs []error
	if w.condition == failed {
		errs = append(errs, fmt.Errorf("store: closed while failed: %w", w.reason))
	} else {
		attempting := make(map[int64]int64)
		s.mu.Lock()
		for seq, name := range s.attempting {
			attempting[seq] = w.names.queues[name]
		}
		s.mu.Unlock()
		err := w.db.noteOrderly(context.Background(), attempting)
		s.swap(nil)
		errs = append(errs, err, w.db.close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
