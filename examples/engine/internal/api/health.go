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
	public := func(pattern string, handler http.HandlerFunc, summary string) route {
		return route{method: "GET", pattern: pattern, access: anyone, handler: handler, summary: summary, health: true, unlimited: true}
	}
	about := public("/api", s.about, "What this is")
	about.unlimited = false
	return []route{
		public("/health", s.health, "The process answers"),
		about,
		public("/api/health", s.readiness, "Readiness: 503 while messages cannot be taken in"),
		public("/api/health/live", s.liveness, "Liveness: never depends on the store"),
		public("/api/health/startup", s.startup, "503 until every port is open"),
		public("/api/health/channels/{channelId}", s.channelHealth, "503 unless the channel is started"),
	}
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"status": "ok", "timestamp": isoTime(time.Now())})
}

func (s *Server) about(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"name": "carewire engine API", "version": mirthVersion, "runtime": runtime.Version()})
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

func (s *Server) channelHealth(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("channelId")
	body := map[string]any{"channelId": id, "serverId": s.serverID}
	state, err := s.engine.State(id)
	code := http.StatusServiceUnavailable
	switch {
	case err != nil:
		body["status"] = "not_deployed"
	case state == engine.Started:
		body["status"], code = "started", http.StatusOK
	default:
		body["status"] = strings.ToLower(string(state))
	}
	answer(w, code, body)
}
