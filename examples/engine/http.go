package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/tlsprops"
)

// loadCertificate reads what TLS_CERT and TLS_KEY name. It returns nil where
// neither is set; an error names the variable and the file.
func loadCertificate(env config.Environment, interval time.Duration, events *audit.Log, log *slog.Logger) (*tlsprops.Source, error) {
	if env.TLSCert == "" {
		return nil, nil //nolint:nilnil // HTTPS is not asked for
	}
	source, err := tlsprops.Load(tlsprops.TlsProperties{
		Enabled: true, CertStorePath: env.TLSCert, KeyStorePath: env.TLSKey,
		NextProtos: []string{"h2", "http/1.1"}, ReloadInterval: interval, Logger: log,
		Observe: func(e tlsprops.Event) { recordCertificate(e, nil, events, log) },
	})
	if err == nil {
		_, err = source.ServerConfig()
	}
	if field, ok := errors.AsType[*tlsprops.FieldError](err); ok {
		variable := "TLS_CERT"
		if field.Field == "keyStorePath" {
			variable = "TLS_KEY"
		}
		return nil, fmt.Errorf("%s: %s: %w", variable, field.Path, field.Err)
	}
	return source, err
}

// openAPI opens the API's ports: HTTP_HOST with PORT or, where there is a
// certificate, with HTTPS_PORT; PORT then has health and nothing else, for probes
// that trust no certificate. The channel gets the error of a port that ended by
// itself.
func openAPI(ctx context.Context, env config.Environment, certificate *tlsprops.Source, server *api.Server, log *slog.Logger) (<-chan error, func(context.Context), error) {
	p := &ports{log: log, failed: make(chan error, 2)}
	if certificate == nil {
		if err := p.open(ctx, "PORT", env.HTTPAddr, server, nil); err != nil {
			return nil, nil, err
		}
		log.InfoContext(ctx, "API listens", "addr", p.addr())
		return p.failed, p.close, nil
	}
	conf, err := certificate.ServerConfig()
	if err != nil {
		return nil, nil, err
	}
	if err := p.open(ctx, "HTTPS_PORT", env.HTTPSAddr, server, conf); err != nil {
		return nil, nil, err
	}
	log.InfoContext(ctx, "API listens", "addr", p.addr(), "tls", true)
	if err := p.open(ctx, "PORT", env.HTTPAddr, server.Health(), nil); err != nil {
		p.close(ctx)
		return nil, nil, err
	}
	log.InfoContext(ctx, "health listens", "addr", p.addr())
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	p.running.Go(func() { certificate.Watch(watch) })
	return p.failed, p.close, nil
}

// ports are those that serve HTTP.
type ports struct {
	log     *slog.Logger
	failed  chan error // has room for every port
	running sync.WaitGroup
	servers []*http.Server
	last    net.Addr
	stop    context.CancelFunc // ends watching the certificate; nil: there is none
}

func (p *ports) addr() string { return p.last.String() }

// open serves handler on addr, by TLS if conf is set. Variable is what an operator
// would change.
func (p *ports) open(ctx context.Context, variable, addr string, handler http.Handler, conf *tls.Config) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("opening the API's port (%s, HTTP_HOST): %w", variable, err)
	}
	server := &http.Server{
		Handler:           handler,
		TLSConfig:         conf,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      90 * time.Second, // a command may drain for a minute
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	p.servers, p.last = append(p.servers, server), ln.Addr()
	p.running.Go(func() {
		serve := func() error { return server.Serve(ln) }
		if conf != nil {
			serve = func() error { return server.ServeTLS(ln, "", "") }
		}
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			p.failed <- err
		}
	})
	return nil
}

// close lets the requests in hand be finished, until drain ends.
func (p *ports) close(drain context.Context) {
	for _, server := range p.servers {
		if server.Shutdown(drain) != nil {
			_ = server.Close() // the time is over
		}
	}
	if p.stop != nil {
		p.stop()
	}
	p.running.Wait()
}
