package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/carewire/carewire/examples/engine/internal/alerts"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// watchForAlerts looks for what is wrong, if the configuration asks for it, until stop
// is called.
func watchForAlerts(eng *engine.Engine, cfg *config.Config, server string, log *slog.Logger) (stop func(), err error) {
	if cfg.Alerts == nil {
		return func() {}, nil
	}
	watch, err := alerts.New(eng, alerts.Options{Config: *cfg.Alerts, Directory: cfg.DataDir, ServerID: server, Logger: log})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { watch.Run(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}, nil
}
