package api

import (
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// healthRoutes are for orchestrators, which have no session, and are all that PORT
// serves when there is HTTPS.
func (s *Server) healthRoutes() []route {
	public := func(pattern string, handler http.HandlerFunc, gives any, summary string) route {
		return route{method: "GET", pattern: pattern, access: anyone, handler: handler, gives: gives, summary: summary, health: true, unlimited: true}
	}
	// of what may be unwell too
	either := func(r route) route {
		r.also = map[int]any{http.StatusServiceUnavailable: r.gives}
		return r
	}
	about := public("/api", s.about, aboutBody{}, "What this is")
	about.unlimited = false
	return []route{
		public("/health", s.health, healthBody{}, "The process answers"),
		about,
		either(public("/api/health", s.readiness, readinessBody{}, "Readiness: 503 while messages cannot be taken in")),
		public("/api/health/live", s.liveness, livenessBody{}, "Liveness: never depends on the store"),
		either(public("/api/health/startup", s.startup, startupBody{}, "503 until every port is open")),
		either(public("/api/health/channels/{channelId}", s.channelHealth, channelHealthBody{}, "503 unless the channel is started")),
	}
}

// The JSON of these routes.
type (
	healthBody struct {
		Status    string `json:"status"`
		Timestamp string `json:"timestamp"`
	}
	aboutBody struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Runtime string `json:"runtime"`
	}
	readinessBody struct {
		Status   string `json:"status"`
		ServerID string `json:"serverId"`
		Uptime   int64  `json:"uptime"` // seconds
		Mode     string `json:"mode"`
	}
	livenessBody struct {
		Status string `json:"status"`
	}
	startupBody struct {
		Status   string `json:"status"`
		ServerID string `json:"serverId"`
	}
	channelHealthBody struct {
		Status    string `json:"status"`
		ChannelID string `json:"channelId"`
		ServerID  string `json:"serverId"`
	}
)

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, healthBody{Status: "ok", Timestamp: isoTime(time.Now())})
}

func (s *Server) about(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, aboutBody{Name: "carewire engine API", Version: mirthVersion, Runtime: runtime.Version()})
}

func (s *Server) readiness(w http.ResponseWriter, _ *http.Request) {
	body := readinessBody{Status: "ok", ServerID: s.serverID, Uptime: int64(time.Since(s.started).Seconds()), Mode: "standalone"}
	code := http.StatusOK
	switch phase := Phase(s.phase.Load()); {
	case phase == ShuttingDown:
		body.Status, code = "shutting_down", http.StatusServiceUnavailable
	case phase == Starting:
		body.Status, code = "starting", http.StatusServiceUnavailable
	case s.engine.Healthy() != nil:
		// The reason is in the log: it may name paths, and nobody is asked who they are.
		body.Status, code = "store_unavailable", http.StatusServiceUnavailable
	}
	answer(w, code, body)
}

func (s *Server) liveness(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, livenessBody{Status: "alive"})
}

func (s *Server) startup(w http.ResponseWriter, _ *http.Request) {
	if Phase(s.phase.Load()) == Starting {
		answer(w, http.StatusServiceUnavailable, startupBody{Status: "starting", ServerID: s.serverID})
		return
	}
	answer(w, http.StatusOK, startupBody{Status: "ready", ServerID: s.serverID})
}

func (s *Server) channelHealth(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("channelId")
	body := channelHealthBody{ChannelID: id, ServerID: s.serverID}
	state, err := s.engine.State(id)
	code := http.StatusServiceUnavailable
	switch {
	case err != nil:
		body.Status = "not_deployed"
	case state == engine.Started:
		body.Status, code = "started", http.StatusOK
	default:
		body.Status = strings.ToLower(string(state))
	}
	answer(w, code, body)
}
