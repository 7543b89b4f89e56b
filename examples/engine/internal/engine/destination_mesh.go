package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/meshclient"
)

// meshDestination sends each message to a mailbox. What may have arrived is asked
// for, by its local id, before it is sent again.
type meshDestination struct {
	queued
	// static after construction
	cfg    *config.MESHDestination
	conf   meshclient.Config
	box    *mailbox
	worker *worker

	client *meshclient.Client // owned by the worker; nil: none yet
}

func newMESHDestination(ch *channel, cfg *config.MESHDestination, w *worker, opts Options) *meshDestination {
	return &meshDestination{queued: queued{w.store}, cfg: cfg, conf: meshConfig(&cfg.Mailbox, ch, opts), box: ch.engine.mailbox(&cfg.Mailbox), worker: w}
}

func (m *meshDestination) send(ctx context.Context, d *store.Delivery) error {
	if m.client == nil {
		client, err := meshclient.New(m.conf)
		if err != nil {
			return &unavailable{err} // of settings, not of the message
		}
		m.client = client
	}
	message, err := m.message(d)
	if err != nil {
		return err
	}
	ctx, release, err := m.box.lock(ctx)
	if err != nil {
		return &unavailable{err}
	}
	defer release()
	if d.MaybeSent {
		there, err := m.isThere(ctx, message.LocalID)
		if err != nil || there {
			return err
		}
	}
	if _, err = m.client.Send(ctx, message); err != nil {
		return aboutMESH(err)
	}
	m.box.sent()
	return nil
}

// message returns what is sent of a delivery.
func (m *meshDestination) message(d *store.Delivery) (*meshclient.Message, error) {
	values := valuesOf(&d.Message)
	out := &meshclient.Message{
		To: m.cfg.To, WorkflowID: m.cfg.WorkflowID, ContentType: m.cfg.ContentType, Gzip: m.cfg.Gzip,
		// The same for every try of a delivery, and for no other: of another store
		// with the same numbers, either.
		LocalID: fmt.Sprintf("%s.%s.%d.%x", m.worker.channel, m.worker.name, d.Message.ID, d.Message.Received.UnixNano()),
	}
	content, err := m.cfg.Content.Expand(values.Bytes)
	if err != nil {
		return nil, err
	}
	out.Content = strings.NewReader(content)
	if out.Subject, err = m.cfg.Subject.Expand(values.Text); err != nil {
		return nil, err
	}
	out.FileName, err = m.cfg.FileName.Expand(values.Text)
	return out, err
}

// isThere tells whether MESH has a message that an earlier try sent.
func (m *meshDestination) isThere(ctx context.Context, localID string) (bool, error) {
	track, err := m.client.TrackLocal(ctx, localID)
	switch {
	case errors.Is(err, meshclient.ErrNotFound):
		return false, nil
	case errors.Is(err, meshclient.ErrNotUnique):
		return true, nil // more than once, even
	case err != nil:
		return false, &unavailable{err}
	}
	return track.Status == meshclient.StatusAccepted || track.Status == meshclient.StatusAcknowledged, nil
}

// aboutMESH tells apart what is about the message, and what is about the server, the
// way to it or our credentials, which makes no message poison.
func aboutMESH(err error) error {
	failed, ok := errors.AsType[*meshclient.Error](err)
	if !ok || failed.MaybeDelivered() {
		return err
	}
	switch {
	case errors.Is(err, meshclient.ErrAuth), errors.Is(err, meshclient.ErrClientCertificate):
	case errors.Is(err, meshclient.ErrInvalid), errors.Is(err, meshclient.ErrTooLarge), errors.Is(err, meshclient.ErrSourceChanged):
		return err
	case failed.Status == 0, failed.Status == http.StatusTooManyRequests, failed.Status >= 500 && failed.Retryable():
	default:
		return err
	}
	return &unavailable{err}
}

func (m *meshDestination) close() {
	if m.client != nil {
		_ = m.client.Close() // it is given up, whatever it says
		m.client = nil
	}
}
