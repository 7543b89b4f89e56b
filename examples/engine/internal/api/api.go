// Package api is the engine's HTTP interface, in the shapes that clients of Mirth's
// REST API know.
//
// What there is stands in one table (routes.go): each route with the least role it
// needs and the name of its action in the audit log. What is not in the table does
// not exist; a route without a rule is closed to everybody.
//
// A request passes, from the outside in:
//
//	guard        request ID, whose request it is behind proxies, headers, panics
//	cors         pages of the allowed origins; none by default
//	rateLimited  requests per minute and address
//	bounded      length of the body
//	authorized   session, forged requests, role
//	audited      the record, without which nothing is done
//	handler
//
// Clients sign in at /api/users/_login and get a session, which they present as
// the cookie JSESSIONID or in the header X-Session-ID, which wins.
package api

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/serverlog"
	"github.com/carewire/carewire/examples/engine/internal/sessions"
	"github.com/carewire/carewire/examples/engine/internal/users"
	"github.com/carewire/carewire/tlsprops"
)

// Engine is what the API needs of an engine.
type Engine interface {
	Channels() []*config.Channel
	State(id string) (engine.State, error)
	Status(ctx context.Context, id string) (engine.Status, error)
	Statuses(ctx context.Context) ([]engine.Status, error)
	Healthy() error

	ChannelCommands
	Certificates
	Messages
}

// Phase is how far the process is in its life.
type Phase int32

// The phases.
const (
	Starting Phase = iota
	Ready
	ShuttingDown
)

// Server answers requests. Make it with New.
type Server struct {
	// static after construction
	engine        Engine
	users         *users.Store
	sessions      *sessions.Table
	audit         AuditLog
	catalog       Catalog
	backups       Backups // nil: none are made
	cluster       *cluster.Auth
	serverID      string
	log           *slog.Logger
	proxies       proxies
	origins       []string
	secureCookies bool
	crossOrigin   *http.CrossOriginProtection
	certificate   *tlsprops.Source
	serverLog     *serverlog.Log
	maxSockets    int // of each kind
	metrics       http.Handler
	metricsToken  string
	onRefused     func()
	requests      *limiter
	logins        *limiter
	started       time.Time
	handler       http.Handler
	healthOnly    http.Handler

	phase      atomic.Int32
	dashboard  dashboard
	dashboards sockets
	logViewers sockets
}

// Options are the settings of a Server. With the zero value nobody can sign in.
type Options struct {
	ServerID string       // told to clients
	Logger   *slog.Logger // nil: nothing is logged
	Users    *users.Store // nil: there are none
	// Audit keeps what users do. nil: nothing that has to be in it can be done.
	Audit   AuditLog
	Catalog Catalog // where channels are kept that the API makes; nil: it makes none
	Backups Backups // makes copies of the store; nil: none are made
	// Cluster lets other nodes in. nil: what is for them is not there.
	Cluster *cluster.Auth
	// TrustedProxies are the addresses whose X-Forwarded-For and X-Forwarded-Proto
	// are believed. Empty: nobody's.
	TrustedProxies []netip.Prefix
	// Origins are those whose pages may use the API, such as
	// https://dashboard.example.org. Empty: none but its own.
	Origins []string
	// SecureCookies sets the cookies' Secure flag although requests come by plain
	// HTTP: HTTPS ends in front of this server.
	SecureCookies bool
	// Certificate is what this server is reached by, to be shown. nil: plain HTTP, or
	// TLS that ends in front of it.
	Certificate *tlsprops.Source
	// ServerLog is what /ws/serverlog shows. nil: nothing.
	ServerLog *serverlog.Log
	// MaxWebSockets is how many clients each WebSocket may have at a time. 0: 100.
	MaxWebSockets int
	// Metrics answers at /metrics. nil: nothing does.
	Metrics http.Handler
	// MetricsToken lets who presents it read metrics without a session. Empty: nobody.
	MetricsToken string
	// Unauthenticated is called for each who was not who they had to be. It must not
	// block. nil: nobody counts them.
	Unauthenticated func()
	// RequestLimit is how many requests one address may make in a minute. 0: any
	// number.
	RequestLimit int
}

// unauthenticated counts somebody who was not let in.
func (s *Server) unauthenticated() {
	if s.onRefused != nil {
		s.onRefused()
	}
}

// loginLimit is how often one address may try to sign in, in a minute.
const loginLimit = 10

// New returns a server in phase Starting. Close ends its sessions. The error names
// an origin that is none.
func New(e Engine, opts Options) (*Server, error) {
	s := &Server{
		engine: e, users: opts.Users, sessions: sessions.New(), audit: opts.Audit, catalog: opts.Catalog, backups: opts.Backups, cluster: opts.Cluster, serverID: opts.ServerID, log: opts.Logger,
		proxies: opts.TrustedProxies, origins: opts.Origins, secureCookies: opts.SecureCookies,
		crossOrigin: http.NewCrossOriginProtection(),
		requests:    &limiter{limit: opts.RequestLimit}, logins: &limiter{limit: loginLimit}, started: time.Now(),
	}
	s.dashboard = dashboard{engine: e, serverID: opts.ServerID}
	s.metrics, s.metricsToken, s.onRefused = opts.Metrics, opts.MetricsToken, opts.Unauthenticated
	s.certificate = opts.Certificate
	s.serverLog, s.maxSockets = opts.ServerLog, cmp.Or(opts.MaxWebSockets, 100)
	if s.serverLog == nil {
		s.serverLog = serverlog.New(slog.LevelInfo)
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, origin := range opts.Origins {
		if err := s.crossOrigin.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("%q is not an origin such as https://dashboard.example.org", origin)
		}
	}
	s.handler = s.mount(func(*route) bool { return true })
	s.healthOnly = s.mount(func(r *route) bool { return r.health })
	return s, nil
}

// SetPhase tells the server how far the process is.
func (s *Server) SetPhase(p Phase) { s.phase.Store(int32(p)) }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Health is what there is for orchestrators and nothing else, for a port without
// TLS beside one with it.
func (s *Server) Health() http.Handler { return s.healthOnly }

// Close ends all sessions, and with them what WebSockets there are.
func (s *Server) Close() {
	s.sessions.Close()
	s.dashboards.close()
	s.logViewers.close()
}
