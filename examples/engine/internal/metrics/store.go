package metrics

import (
	"context"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// Store returns st with its commits measured.
func (m *Metrics) Store(st store.Store) store.Store { return measured{st, m} }

type measured struct {
	store.Store
	metrics *Metrics
}

// Intake implements [store.Store].
func (s measured) Intake(ctx context.Context, in store.Intake) (int64, error) {
	began := time.Now()
	id, err := s.Store.Intake(ctx, in)
	s.took(in.Channel, began, err)
	return id, err
}

// Forward implements [store.Store].
func (s measured) Forward(ctx context.Context, d *store.Delivery, in store.Intake) (int64, error) {
	began := time.Now()
	id, err := s.Store.Forward(ctx, d, in)
	s.took(in.Channel, began, err)
	return id, err
}

func (s measured) took(channel string, began time.Time, err error) {
	if err != nil {
		s.metrics.commitFailures.Inc()
		return
	}
	now := time.Now()
	s.metrics.commits.WithLabelValues(channel).Observe(now.Sub(began).Seconds())
	s.metrics.lastReceived.WithLabelValues(channel).Set(float64(now.UnixNano()) / 1e9)
}
