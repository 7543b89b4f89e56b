package engine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/httpsender"
)

// httpDestination sends each message as one request. The Sender tries once: to
// wait and to try again is the queue's.
type httpDestination struct {
	queued
	// static after construction
	cfg    *config.HTTPDestination
	worker *worker
	opts   Options

	sender *httpsender.Sender // owned by the worker; nil: none yet
}

func newHTTPDestination(cfg *config.HTTPDestination, w *worker, opts Options) *httpDestination {
	return &httpDestination{queued: queued{w.store}, cfg: cfg, worker: w, opts: opts}
}

func (h *httpDestination) send(ctx context.Context, d *store.Delivery) error {
	if h.sender == nil {
		h.sender = h.cfg.Sender()
		h.sender.TLS = tlsFor(h.cfg.TLS, h.worker.log, h.opts)
	}
	req, err := h.request(ctx, &d.Message)
	if err != nil {
		return err
	}
	resp, err := h.sender.Do(req)
	if err == nil {
		err = httpsender.Check(resp)
		// The status has said it all; what comes after it is read so that the
		// connection can be used again.
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	return aboutHTTP(err)
}

// request returns the request for one message.
func (h *httpDestination) request(ctx context.Context, m *store.Message) (*http.Request, error) {
	values := valuesOf(m)
	content, err := h.cfg.Content.Expand(values.Bytes)
	if err != nil {
		return nil, err
	}
	req, err := httpsender.NewRequest(ctx, h.cfg.Method, h.cfg.Host, httpsender.Bytes(h.cfg.ContentType, []byte(content)))
	if err != nil {
		return nil, &unavailable{err} // of settings, not of the message
	}
	for _, header := range h.cfg.Headers {
		value, err := header.Value.Expand(values.Text)
		if err != nil {
			return nil, err
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return nil, &unsendableError{errors.New("a header would hold a control character")}
		}
		req.Header.Add(header.Name, value)
	}
	return req, nil
}

// aboutHTTP tells apart what is about the message, and what is about the server,
// the way to it or our credentials, which makes no message poison.
func aboutHTTP(err error) error {
	failed, ok := errors.AsType[*httpsender.SendError](err)
	if !ok || failed.MaybeDelivered() {
		return err
	}
	switch failed.Status {
	case 0: // not reached, not secure, or lost without harm
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return err
	}
	return &unavailable{err}
}

func (h *httpDestination) close() {
	if h.sender != nil {
		_ = h.sender.Close() // it is given up, whatever it says
		h.sender = nil
	}
}
