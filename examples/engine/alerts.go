package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/carewire/carewire/examples/engine/internal/alerts"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/tlsprops"
)

// watchForAlerts looks for what is wrong, if the configuration asks for it, until stop
// is called.
func watchForAlerts(eng *engine.Engine, cfg *config.Config, server string, own *tlsprops.Source, log *slog.Logger) (stop func(), err error) {
	if cfg.Alerts == nil {
		return func() {}, nil
	}
	watch, err := alerts.New(eng, alerts.Options{
		Config: *cfg.Alerts, Directory: cfg.DataDir, ServerID: server, Logger: log,
		Certificates: func(ctx context.Context) []alerts.Certificate { return certificatesInUse(ctx, eng, own) },
	})
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

// certificatesInUse are those of all TLS settings, of the API's as well.
func certificatesInUse(ctx context.Context, eng *engine.Engine, own *tlsprops.Source) []alerts.Certificate {
	var list []alerts.Certificate
	add := func(where string, status tlsprops.Status) {
		if status.Err != nil {
			list = append(list, alerts.Certificate{Use: where, Failure: status.Err.Error()})
		}
		for _, c := range status.Certificates {
			list = append(list, alerts.Certificate{Use: where, Path: c.Path, Subject: c.Subject, NotAfter: c.NotAfter})
		}
	}
	if own != nil {
		add("API", own.Status())
	}
	for _, use := range eng.Certificates(ctx) {
		use.Status.Err = use.Err
		add(fmt.Sprintf("channel %s, %s, %s", use.Channel.ID, use.ConnectorName(), use.Setting), use.Status)
	}
	return list
}
