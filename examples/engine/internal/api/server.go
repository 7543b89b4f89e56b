package api

import (
	"io"
	"net/http"
	"runtime"
	"time"
)

// mirthVersion is that of Mirth's API whose shapes this one follows.
const mirthVersion = "3.9.0"

func (s *Server) serverRoutes() []route {
	text := func(pattern, summary string, value func() string) route {
		return route{method: "GET", pattern: pattern, access: viewers, summary: summary, plain: typeText, handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, value()) // the client has gone
		}}
	}
	return []route{
		text("/api/server/version", "The version of Mirth's API that this one follows", func() string { return mirthVersion }),
		text("/api/server/id", "What tells this server from others", func() string { return s.serverID }),
		text("/api/server/jvm", "What the engine runs on", runtime.Version),
		text("/api/server/timezone", "The server's time zone", func() string { return time.Now().Format("MST") }),
		{method: "GET", pattern: "/api/server/time", access: viewers, handler: s.serverTime, gives: timeBody{}, summary: "The server's clock"},
		{method: "GET", pattern: "/api/server/status", access: viewers, handler: s.serverStatus, gives: object{"type": "integer", "enum": []int{0, 1}}, summary: "0: it takes messages in; 1: it does not"},
		{method: "GET", pattern: "/api/system/info", access: viewers, handler: s.systemInfo, gives: systemInfoBody{}, summary: "What the engine runs on"},
		{method: "GET", pattern: "/api/system/stats", access: viewers, handler: s.systemStats, gives: systemStatsBody{}, summary: "The memory of the process"},
		{method: "GET", pattern: "/api/openapi.json", access: anyone, handler: s.openAPI, gives: object{"type": "object"}, summary: "This description"},
	}
}

// The JSON of these routes, by Mirth's names.
type (
	timeBody struct {
		Time         string `json:"time"`
		TimeInMillis int64  `json:"timeInMillis"`
	}
	systemInfoBody struct {
		JVMVersion     string `json:"jvmVersion"`
		OSName         string `json:"osName"`
		OSArchitecture string `json:"osArchitecture"`
		DBName         string `json:"dbName"`
	}
	systemStatsBody struct {
		Timestamp            string `json:"timestamp"`
		AllocatedMemoryBytes uint64 `json:"allocatedMemoryBytes"`
		FreeMemoryBytes      uint64 `json:"freeMemoryBytes"`
		MaxMemoryBytes       uint64 `json:"maxMemoryBytes"`
		Goroutines           int    `json:"goroutines"`
	}
)

func (s *Server) serverTime(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	answer(w, http.StatusOK, timeBody{Time: isoTime(now), TimeInMillis: now.UnixMilli()})
}

func (s *Server) serverStatus(w http.ResponseWriter, _ *http.Request) {
	status := 1
	if Phase(s.phase.Load()) == Ready && s.engine.Healthy() == nil {
		status = 0
	}
	answer(w, http.StatusOK, status)
}

func (s *Server) systemInfo(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, systemInfoBody{
		JVMVersion: runtime.Version(), OSName: runtime.GOOS, OSArchitecture: runtime.GOARCH, DBName: "SQLite",
	})
}

func (s *Server) systemStats(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	answer(w, http.StatusOK, systemStatsBody{
		Timestamp: isoTime(time.Now()), AllocatedMemoryBytes: m.HeapSys, FreeMemoryBytes: m.HeapSys - m.HeapInuse,
		MaxMemoryBytes: m.Sys, Goroutines: runtime.NumGoroutine(),
	})
}
