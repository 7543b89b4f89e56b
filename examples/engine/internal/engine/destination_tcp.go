package engine

import (
	"context"
	"errors"
	"net"
	"strconv"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// tcpDestination sends by MLLP or MLLPS over one connection that it keeps open.
type tcpDestination struct {
	queued
	// static after construction
	dialer  mllp.Dialer
	address string

	conn *mllp.Conn // nil: none; owned by the worker
}

func newTCPDestination(cfg *config.TCPDestination, w *worker, opts Options) *tcpDestination {
	return &tcpDestination{
		queued:  queued{w.store},
		dialer:  mllp.Dialer{TLS: tlsFor(cfg.TLS, w.log, opts), Timeout: cfg.ResponseTimeout},
		address: net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)),
	}
}

func (t *tcpDestination) send(ctx context.Context, d *store.Delivery) error {
	fresh := false
	for {
		if t.conn != nil && t.conn.Err() != nil {
			t.close() // the receiver has hung up while nothing was sent
		}
		if t.conn == nil {
			conn, err := t.dialer.DialContext(ctx, "tcp", t.address)
			if err != nil {
				return &unavailable{err}
			}
			t.conn, fresh = conn, true
		}
		_, err := t.conn.Send(ctx, d.Message.Raw)
		if err == nil {
			return nil
		}
		sent, ok := errors.AsType[*mllp.SendError](err)
		if ok && sent.Outcome == mllp.Nacked {
			return err // the connection is good
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

func (t *tcpDestination) close() {
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
