package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/serverlog"
)

// logFilter says which lines a client of /ws/serverlog wants.
type logFilter struct {
	Level    string `json:"level,omitempty"`    // the least; empty: all
	Category string `json:"category,omitempty"` // a part of it; empty: all
}

// logViewer is a client of /ws/serverlog.
type logViewer struct {
	log      *serverlog.Log
	serverID string

	subscribed bool
	filter     logFilter
	seen       uint64 // ID of the last entry that was sent or passed over
}

func (s *Server) newLogViewer() conversation {
	return &logViewer{log: s.serverLog, serverID: s.serverID}
}

func (v *logViewer) take(_ context.Context, kind string, message []byte) frame {
	switch kind {
	case "subscribe":
		var body struct {
			Filter logFilter `json:"filter"`
		}
		var level slog.Level
		if json.Unmarshal(message, &body) != nil || body.Filter.Level != "" && level.UnmarshalText([]byte(body.Filter.Level)) != nil {
			return frame{"type": "error", "message": "Invalid message format"}
		}
		v.subscribed, v.filter, v.seen = true, body.Filter, v.log.Last()
		return frame{"type": "subscribed", "filter": v.filter}
	case "unsubscribe":
		v.subscribed = false
		return frame{"type": "unsubscribed"}
	case "getHistory":
		size, lastLogID, ok := historyOf(message)
		if !ok {
			return frame{"type": "error", "message": "Invalid message format"}
		}
		entries, _ := v.log.Since(lastLogID)
		items := []frame{}
		for _, e := range entries {
			if v.wants(&e) {
				items = append(items, v.item(&e))
			}
		}
		return frame{"type": "history", "data": items[max(0, len(items)-size):]}
	case "ping":
		return frame{"type": "pong"}
	}
	return nil
}

// historyOf reads what getHistory asks for: how many at most, and after which.
func historyOf(message []byte) (size int, lastLogID uint64, ok bool) {
	var body struct {
		FetchSize *int   `json:"fetchSize"`
		LastLogID uint64 `json:"lastLogId"`
	}
	if json.Unmarshal(message, &body) != nil {
		return 0, 0, false
	}
	size = 100
	if body.FetchSize != nil {
		size = *body.FetchSize
	}
	return min(size, 1000), body.LastLogID, size >= 1
}

func (v *logViewer) news(context.Context) ([][]byte, <-chan struct{}, time.Duration) {
	if !v.subscribed {
		return nil, nil, 0
	}
	entries, more := v.log.Since(v.seen)
	var news [][]byte
	for _, e := range entries {
		v.seen = e.ID
		if v.wants(&e) {
			news = append(news, encode(frame{"type": "log", "data": v.item(&e)}))
		}
	}
	return news, more, 0
}

func (v *logViewer) wants(e *serverlog.Entry) bool {
	level := slog.LevelDebug
	if v.filter.Level != "" {
		_ = level.UnmarshalText([]byte(v.filter.Level)) // take has seen to it
	}
	return e.Level >= level && strings.Contains(e.Category, v.filter.Category)
}

func (v *logViewer) item(e *serverlog.Entry) frame {
	return frame{
		"id": e.ID, "serverId": v.serverID, "level": e.Level.String(), "date": e.Time.Format(socketDate), "threadName": "",
		"category": e.Category, "lineNumber": strconv.Itoa(e.Line), "message": e.Message, "throwableInformation": "",
	}
}

// socketDate is how WebSockets write a time.
const socketDate = "2006-01-02 15:04:05.000"
