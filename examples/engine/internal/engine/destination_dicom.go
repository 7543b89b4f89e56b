package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// mostKinds is how many kinds of objects an association can be for (PS3.8
	// 7.1.1.13).
	mostKinds = 128
	// farewell is how long the end of an association may take when the engine stops.
	farewell = 2 * time.Second
)

// dicomDestination sends the objects that messages refer to, over one association,
// which it keeps open as long as there is something to send.
type dicomDestination struct {
	queued
	// static after construction
	engine   *Engine
	cfg      *config.DICOMDestination
	dialer   *dicomtls.Dialer
	priority dicomtls.Priority
	log      *slog.Logger

	// owned by the worker
	association *dicomtls.Association // nil: none
	idle        *time.Timer           // releases association when nothing has been sent for a while; nil: none is set
	// kinds are what the association has been asked to be for, and the next one
	// will be: the kinds of objects that have been sent so far.
	kinds []dicomtls.Proposal
}

func newDICOMDestination(e *Engine, cfg *config.DICOMDestination, w *worker, opts Options) *dicomDestination {
	t := &dicomDestination{queued: queued{w.store}, engine: e, cfg: cfg, dialer: cfg.Dialer(), log: w.log}
	props := dicomTLSFor(cfg.TLS, w.log, opts)
	t.dialer.TLS, t.dialer.Commitments = &props, e.commitments
	switch cfg.Priority { // Mirth sends them the wrong way round
	case "low":
		t.priority = dicomtls.PriorityLow
	case "high":
		t.priority = dicomtls.PriorityHigh
	}
	return t
}

func (t *dicomDestination) send(ctx context.Context, d *store.Delivery) error {
	o, err := t.object(&d.Message)
	if err != nil {
		return err
	}
	fresh := false
	for {
		dialed, err := t.associate(ctx, &o)
		if err != nil {
			return &unavailable{err}
		}
		fresh = fresh || dialed
		err = t.store(ctx, &o, d.Message.ID)
		_, stored := errors.AsType[*uncommittedError](err)
		sent, ok := errors.AsType[*dicomtls.SendError](err)
		unsent := ok && !stored && sent.Outcome == dicomtls.NotSent && sent.Retryable()
		if t.association.Err() == nil { // it is good, whatever became of the object
			t.keep()
			if unsent {
				return &unavailable{err} // the disk does not give it out
			}
			return err
		}
		t.abort()
		switch {
		case !stored && errors.Is(err, dicomtls.ErrPeerRejectedCertificate):
			return &unavailable{err}
		case !unsent:
			return err
		case !fresh:
			// The association ended while it was not used, and the receiver does not
			// have the object: a new one, once.
		case byPeer(err):
			return err // the receiver may have aborted because of the object
		default:
			return &unavailable{err}
		}
	}
}

// byPeer tells whether the receiver has said that it ends the association.
func byPeer(err error) bool {
	abort, ok := errors.AsType[*dicomtls.AbortError](err)
	return ok && abort.ByPeer
}

// object returns what m refers to, read from disk while it is sent.
func (t *dicomDestination) object(m *store.Message) (dicomtls.Object, error) {
	path, err := t.engine.objectPath(m)
	if err != nil {
		return dicomtls.Object{}, err
	}
	o, err := dicomtls.FileObject(path)
	if err != nil {
		if _, disk := errors.AsType[*fs.PathError](err); disk {
			return o, aboutObject(err)
		}
		return o, &unsendableError{errors.New("the file of the DICOM object is damaged")}
	}
	o.Name, o.Priority = "", t.priority
	open := o.Open
	o.Open = func() (io.ReadCloser, error) {
		r, err := open()
		if f, ok := r.(*os.File); ok {
			return &object{f}, nil
		}
		return r, nameless(err)
	}
	return o, nil
}

// associate sees to it that there is an association for objects like o. fresh tells
// that it is a new one.
func (t *dicomDestination) associate(ctx context.Context, o *dicomtls.Object) (fresh bool, err error) {
	idle := t.idle != nil && !t.idle.Stop()
	t.idle = nil
	if idle || t.association != nil && t.association.Err() != nil {
		t.abort() // it was idle for too long, or the receiver has ended it
	}
	news := slices.DeleteFunc(dicomtls.Propose([]dicomtls.Object{*o}), func(p dicomtls.Proposal) bool {
		return slices.ContainsFunc(t.kinds, func(k dicomtls.Proposal) bool {
			return k.AbstractSyntax == p.AbstractSyntax && k.TransferSyntaxes[0] == p.TransferSyntaxes[0]
		})
	})
	if t.association != nil && len(news) == 0 {
		return false, nil
	}
	t.release(ctx)
	room := mostKinds
	if t.cfg.Stgcmt {
		room--
	}
	if t.kinds = append(t.kinds, news...); len(t.kinds) > room {
		t.kinds = dicomtls.Propose([]dicomtls.Object{*o})
	}
	proposals := t.kinds
	if t.cfg.Stgcmt {
		proposals = append(slices.Clone(t.kinds), dicomtls.CommitProposal())
	}
	a, err := t.dialer.DialContext(ctx, "tcp", t.cfg.Address(), proposals...)
	if err != nil {
		return true, err
	}
	if t.cfg.Stgcmt && !a.Accepts(dicomtls.StorageCommitmentSOPClass) {
		_ = a.Release(ctx) // nothing was done on it
		return true, errors.New("the receiver does not offer storage commitment: set it up there, or remove stgcmt")
	}
	t.association = a
	return true, nil
}

// store sends an object and, if that is asked for, has it committed.
func (t *dicomDestination) store(ctx context.Context, o *dicomtls.Object, message int64) error {
	status, err := t.association.Store(ctx, *o)
	if err != nil {
		return err
	}
	if status.Warning() {
		t.log.WarnContext(ctx, "the receiver stored an object with a warning", "message", message, "status", status.String())
	}
	if !t.cfg.Stgcmt {
		return nil
	}
	result, err := t.association.Commit(ctx, []dicomtls.Reference{{SOPClassUID: o.SOPClassUID, SOPInstanceUID: o.SOPInstanceUID}})
	if err != nil {
		return &uncommittedError{err: err}
	}
	if len(result.Failed) > 0 {
		return &uncommittedError{status: result.Failed[0].Reason}
	}
	return nil
}

// An uncommittedError is an object that the receiver has, and does not vouch for.
type uncommittedError struct {
	status dicomtls.Status // of the report
	err    error           // why there is no report; nil: there is one
}

func (e *uncommittedError) Error() string {
	if e.err != nil {
		return "stored, but it is not known whether it is committed: " + e.err.Error()
	}
	return fmt.Sprintf("stored, but not committed: %v", e.status)
}

func (e *uncommittedError) Unwrap() error        { return e.err }
func (e *uncommittedError) MaybeDelivered() bool { return true }
func (e *uncommittedError) Retryable() bool      { return true }
func (e *uncommittedError) Code() string         { return "uncommitted" }

// keep keeps the association for the next object, for a while.
func (t *dicomDestination) keep() {
	a := t.association
	t.idle = time.AfterFunc(t.cfg.Linger, func() { release(context.Background(), a) })
}

// abort gives up the association.
func (t *dicomDestination) abort() {
	if t.association != nil {
		_ = t.association.Close() // which never fails
		t.association = nil
	}
}

// release ends the association in good order.
func (t *dicomDestination) release(ctx context.Context) {
	if t.association != nil {
		release(ctx, t.association)
		t.association = nil
	}
}

func release(ctx context.Context, a *dicomtls.Association) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	_ = a.Release(ctx) // what was answered is not in doubt
}

func (t *dicomDestination) close() {
	if t.idle != nil {
		t.idle.Stop()
		t.idle = nil
	}
	t.release(context.Background())
}
