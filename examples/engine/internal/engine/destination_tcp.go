package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// tcpDestination sends over one connection, which it keeps open if it may.
//
// It is made of a Dialer and not of an [mllp.Client]: what a Client adds, to wait
// and to try again, the queue does already, with its attempts and pauses in the
// store where a person sees them and a restart finds them. Two back-offs, one
// inside of the other, would only hide how a delivery stands.
type tcpDestination struct {
	queued
	// static after construction
	cfg    *config.TCPDestination
	dialer *mllp.Dialer
	log    *slog.Logger

	// owned by the worker
	conn *mllp.Conn  // nil: none
	idle *time.Timer // closes conn when nothing has been sent for long; nil: none is set
	said bool        // that nobody confirms what is sent
}

func newTCPDestination(cfg *config.TCPDestination, w *worker, opts Options) *tcpDestination {
	t := &tcpDestination{queued: queued{w.store}, cfg: cfg, dialer: cfg.Dialer(), log: w.log}
	t.dialer.TLS = tlsFor(cfg.TLS, w.log, opts)
	return t
}

func (t *tcpDestination) send(ctx context.Context, d *store.Delivery) error {
	if isMLLP(&t.dialer.Framing) && refersToObject(&d.Message) {
		return &unsendableError{errObject}
	}
	msg := d.Message.Raw
	if to := t.cfg.CharsetEncoding; to != mllp.CharsetAuto && to != mllp.CharsetRaw {
		var err error
		if msg, err = convert(&d.Message, to); err != nil {
			return err
		}
	}
	if t.cfg.IgnoreResponse && !t.said {
		t.said = true
		t.log.WarnContext(ctx, "responses are ignored: what is counted as sent here nobody has confirmed")
	}
	err := t.transmit(ctx, msg)
	switch {
	case err == nil:
	case errors.Is(err, mllp.ErrNoApplicationAck):
		return &givenUpError{err} // the receiver has taken charge of it: to send it again would be a mistake
	case t.givesUp() && maybeSent(err) && ctx.Err() == nil:
		return &givenUpError{err}
	}
	return err
}

// givesUp tells whether what may have arrived is not sent again.
func (t *tcpDestination) givesUp() bool {
	again := t.cfg.QueueOnResponseTimeout
	return again != nil && !*again
}

func (t *tcpDestination) transmit(ctx context.Context, msg []byte) error {
	fresh := false
	for {
		idle := t.idle != nil && !t.idle.Stop()
		t.idle = nil
		if idle || t.conn != nil && t.conn.Err() != nil {
			t.close() // it was idle for too long, or the receiver has hung up while nothing was sent
		}
		if t.conn == nil {
			conn, err := t.dialer.DialContext(ctx, "tcp", t.cfg.Address())
			if err != nil {
				return &unavailable{err}
			}
			t.conn, fresh = conn, true
		}
		_, err := t.conn.Send(ctx, msg)
		sent, ok := errors.AsType[*mllp.SendError](err)
		if err == nil || ok && sent.Outcome == mllp.Nacked { // the connection is good
			t.keep()
			return err
		}
		t.close()
		switch {
		case errors.Is(err, mllp.ErrPeerRejectedCertificate):
			return &unavailable{err}
		case !ok || sent.Outcome != mllp.NotSent || !sent.Retryable():
			return err
		case fresh:
			return &unavailable{err}
		}
		// The connection ended just as it was to be used, and nothing was sent: a
		// new one, once.
	}
}

// keep keeps the connection for the next message, for as long as it may.
func (t *tcpDestination) keep() {
	switch {
	case !t.cfg.KeepsOpen():
		t.close()
	case t.cfg.SendTimeout > 0:
		conn := t.conn
		t.idle = time.AfterFunc(t.cfg.SendTimeout, func() { _ = conn.Close() }) // it is given up, whatever it says
	}
}

func (t *tcpDestination) close() {
	if t.idle != nil {
		t.idle.Stop()
		t.idle = nil
	}
	if t.conn != nil {
		_ = t.conn.Close() // it is given up, whatever it says
		t.conn = nil
	}
}

// queued completes deliveries whose receiver is outside of the store.
type queued struct{ store store.Store }

func (q queued) complete(ctx context.Context, d *store.Delivery) error {
	return q.store.Delivered(ctx, d)
}
