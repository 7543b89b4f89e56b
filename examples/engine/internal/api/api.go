// Package api is the engine's HTTP interface: health for orchestrators, and the
// channels, in the shapes that clients of Mirth's REST API know.
//
//	GET  /health                            the process answers
//	GET  /api                               what this is
//	GET  /api/health                        readiness: 503 while it cannot take messages in
//	GET  /api/health/live                   liveness: never depends on the store
//	GET  /api/health/startup                503 until every port is open
//	GET  /api/health/channels/{id}          503 unless the channel is started
//	GET  /api/channels                      the channels as configured
//	GET  /api/channels/{id}/status          what a channel does and has done
//	POST /api/channels/{id}/_start, _stop   204, whatever happens; with ?returnErrors=true the truth
//
// There are no users in this version. It is therefore meant for loopback: a
// request that names another host is refused, so that a page whose name was
// turned to 127.0.0.1 (DNS rebinding) cannot use it, and commands that a browser
// sends on behalf of another site are refused too.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// Engine is what the API needs of an engine.
type Engine interface {
	Channels() []*config.Channel
	State(id string) (engine.State, error)
	Status(ctx context.Context, id string) (engine.Status, error)
	StartChannel(ctx context.Context, id string) error
	StopChannel(ctx context.Context, id string) error
	Healthy() error
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
	engine   Engine
	serverID string
	log      *slog.Logger
	anyHost  bool
	started  time.Time
	handler  http.Handler

	phase atomic.Int32
}

// Options are the settings of a Server. The zero value is ready to use.
type Options struct {
	ServerID string       // told to clients
	Logger   *slog.Logger // nil: nothing is logged
	// AnyHost also answers requests that name a host other than this machine.
	AnyHost bool
}

// commandTimeout bounds _start and _stop: a stop drains for less than this.
const commandTimeout = time.Minute

// New returns a server in phase Starting.
func New(e Engine, opts Options) *Server {
	s := &Server{engine: e, serverID: opts.ServerID, log: opts.Logger, anyHost: opts.AnyHost, started: time.Now()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /api", s.about)
	mux.HandleFunc("GET /api/health", s.readiness)
	mux.HandleFunc("GET /api/health/live", s.liveness)
	mux.HandleFunc("GET /api/health/startup", s.startup)
	mux.HandleFunc("GET /api/health/channels/{id}", s.channelHealth)
	mux.HandleFunc("GET /api/channels", s.channels)
	mux.HandleFunc("GET /api/channels/{id}/status", s.status)
	mux.HandleFunc("POST /api/channels/{id}/_start", s.command(s.engine.StartChannel))
	mux.HandleFunc("POST /api/channels/{id}/_stop", s.command(s.engine.StopChannel))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, failure{Error: "Not Found", Message: "The requested resource was not found"})
	})

	csrf := http.NewCrossOriginProtection()
	csrf.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusForbidden, failure{Error: "Forbidden", Message: "Cross-origin request refused"})
	}))
	s.handler = s.guard(csrf.Handler(mux))
	return s
}

// SetPhase tells the server how far the process is.
func (s *Server) SetPhase(p Phase) { s.phase.Store(int32(p)) }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// guard bounds what a request may be, and keeps a panic to itself.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		defer func() {
			if v := recover(); v != nil {
				s.log.ErrorContext(ctx, "panic in the API", "path", r.Pattern, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
				answer(w, http.StatusInternalServerError, failure{Error: "Internal Server Error"})
			}
		}()
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if !s.anyHost && !config.IsLoopback(hostname(r.Host)) {
			answer(w, http.StatusForbidden, failure{Error: "Forbidden", Message: "This API is for this machine: ask it by localhost or 127.0.0.1"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		next.ServeHTTP(w, r)
	})
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

// failure is the body of every error.
type failure struct {
	Error   string `json:"error"`
	Message string `json:"message,omitempty"`
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client has gone; nobody is left to tell
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"status": "ok", "timestamp": isoTime(time.Now())})
}

// about has the version of Mirth's API whose shapes this one follows.
func (s *Server) about(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"name": "carewire engine API", "version": "3.9.0", "runtime": runtime.Version()})
}

func (s *Server) readiness(w http.ResponseWriter, _ *http.Request) {
	body := map[string]any{
		"status": "ok", "serverId": s.serverID, "uptime": int64(time.Since(s.started).Seconds()), "mode": "standalone",
	}
	code := http.StatusOK
	switch phase := Phase(s.phase.Load()); {
	case phase == ShuttingDown:
		body["status"], code = "shutting_down", http.StatusServiceUnavailable
	case phase == Starting:
		body["status"], code = "starting", http.StatusServiceUnavailable
	case s.engine.Healthy() != nil:
		// The reason is in the log: it may name paths, and nobody is asked who they are.
		body["status"], code = "store_unavailable", http.StatusServiceUnavailable
	}
	answer(w, code, body)
}

func (s *Server) liveness(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"status": "alive"})
}

func (s *Server) startup(w http.ResponseWriter, _ *http.Request) {
	if Phase(s.phase.Load()) == Starting {
		answer(w, http.StatusServiceUnavailable, map[string]any{"status": "starting", "serverId": s.serverID})
		return
	}
	answer(w, http.StatusOK, map[string]any{"status": "ready", "serverId": s.serverID})
}

func (s *Server) command(run func(context.Context, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// A client that hangs up does not leave a channel half stopped.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
		defer cancel()
		id := r.PathValue("id")
		err := run(ctx, id)
		if err != nil {
			s.log.WarnContext(ctx, "command failed", "command", r.Pattern, "err", err)
		}
		switch {
		case err == nil || r.URL.Query().Get("returnErrors") != "true":
			w.WriteHeader(http.StatusNoContent)
		case errors.Is(err, engine.ErrUnknownChannel):
			answer(w, http.StatusNotFound, failure{Error: "Channel not found: " + id})
		default:
			answer(w, http.StatusInternalServerError, failure{Error: err.Error()})
		}
	}
}

// isoTime is a time as JavaScript's Date writes it.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
