package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/catalog"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/metrics"
	"github.com/carewire/carewire/examples/engine/internal/sealed"
	"github.com/carewire/carewire/examples/engine/internal/serverlog"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

// drainTime is how long a shutdown lets messages in hand be finished. It stays
// below the 30 s that Kubernetes and systemd's users commonly wait.
const drainTime = 20 * time.Second

// serve runs the engine until ctx ends and everything is put away. The order is
// the promise: nothing is accepted before what an earlier run left is recovered
// and being delivered, and the API can be asked how that goes.
//
// wrap stands between the engine and its store. What a person has to know to sign
// in goes to tell, which is not the log; recent has what was last written to log.
func serve(ctx context.Context, cfg *config.Config, env config.Environment, vars *config.Variables, wrap func(store.Store) store.Store, tell io.Writer, log *slog.Logger, recent *serverlog.Log) (err error) {
	// Everything that ends the engine ends ctx; drain ends a while after it.
	ctx, end := context.WithCancel(ctx)
	defer end()
	drain, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(drainTime, cancel) })

	st, err := sqlite.Open(ctx, cfg.DataDir, &sqlite.Options{Logger: log})
	if err != nil && ctx.Err() != nil {
		return nil // told to stop before it began
	}
	if err != nil {
		return fmt.Errorf("opening the store in %s: %w", cfg.DataDir, err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()

	keys, err := sealingKeys(cfg, env)
	if err != nil {
		return err
	}
	kept, err := sealed.Open(ctx, st, keys, sealed.Options{RefuseUnsealed: cfg.Encryption.Unsealed == "refuse", Logger: log})
	if err != nil {
		return err
	}
	id, err := serverID(env.ServerID, cfg.DataDir)
	if err != nil {
		return err
	}
	people, err := openUsers(ctx, cfg, env, tell)
	if err != nil {
		return err
	}
	events, err := audit.Open(filepath.Join(cfg.DataDir, "audit"), audit.Options{})
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	certificate, err := loadCertificate(env, cfg.CertificateCheckInterval, events, log)
	if err != nil {
		return err
	}
	measures := metrics.New()
	refused := newRefusals(events, log)
	nodes, err := config.ReadCluster(vars.Lookup, id, log, func(e cluster.Event) {
		if e.Kind == cluster.Refused {
			measures.Unauthenticated(metrics.Cluster)
		}
		refused.observe(e)
	})
	if err != nil {
		return err
	}
	if nodes != nil {
		defer refused.watch()()
	}
	stored := catalog.Directory(cfg.DataDir)
	if err := config.LoadStored(stored, cfg, vars.Lookup); err != nil {
		return err
	}
	// Everything that is looked up at a start has been.
	if unknown := vars.Unknown(os.Environ()); len(unknown) > 0 {
		log.WarnContext(ctx, "variables that nothing here asks for have no effect", "variables", unknown)
	}
	eng := engine.New(cfg, measures.Store(wrap(kept)), engine.Options{
		Logger: log, TLSReloadInterval: cfg.CertificateCheckInterval, Observe: measures.Observe,
		Certificates: func(e engine.CertificateEvent) { recordConnector(e, events, log) },
	})
	measures.Watch(eng, cfg.DataDir, certificate)
	eng.StartDestinations() // stopped by StopDestinations, with a deadline
	defer func() { eng.StopDestinations(drain) }()
	defer end()

	backups, stop := startKeeping(ctx, cfg, eng, st, log)
	defer func() { end(); stop() }()
	server, err := api.New(eng, api.Options{
		ServerID: id, Logger: log, Users: people, Audit: events, ServerLog: recent, MaxWebSockets: env.WebSockets, TrustedProxies: env.TrustedProxies, Origins: env.CORSOrigins,
		SecureCookies: env.SecureCookies, RequestLimit: env.RequestLimit,
		Catalog: catalog.New(stored, eng, vars.Lookup), Backups: backups, Cluster: nodes, Certificate: certificate,
		Metrics: measures, MetricsToken: env.MetricsToken, Unauthenticated: func() { measures.Unauthenticated(metrics.API) },
	})
	if err != nil {
		return err
	}
	defer server.Close()
	failed, closeHTTP, err := openAPI(ctx, env, certificate, server, log)
	if err != nil {
		return err
	}
	defer func() { closeHTTP(drain) }()

	if err := eng.StartSources(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	stopAlerts, err := watchForAlerts(eng, cfg, id, certificate, log)
	if err != nil {
		return err
	}
	defer stopAlerts()
	server.SetPhase(api.Ready)
	log.InfoContext(ctx, "engine ready", "channels", len(cfg.Channels), "data", cfg.DataDir, "server", id)

	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("the API failed: %w", err)
	}
	end()
	log.InfoContext(ctx, "shutting down", "within", drainTime)
	server.SetPhase(api.ShuttingDown)
	if drainErr := eng.StopSources(drain); drainErr != nil {
		// Their senders have no acknowledgement and send again: nothing is lost.
		log.WarnContext(ctx, "messages being received were cut off", "err", drainErr)
	}
	return err
}
