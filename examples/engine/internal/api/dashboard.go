package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// dashboardInterval is how often the connections are looked at while there are
// clients to be told.
const dashboardInterval = time.Second

// dashboardShare is how many times as long as a look takes passes from one to the next
// at least: to be watched must not cost more than a tenth of a processor, however many
// channels there are, and however little else of the machine is left.
const dashboardShare = 10

// maxConnectionLog bounds what getHistory can return.
const maxConnectionLog = 1000

// connectionState is what /ws/dashboardstatus says of a source.
type connectionState struct {
	ServerID           string `json:"serverId"`
	ChannelID          string `json:"channelId"`
	MetadataID         string `json:"metadataId"`
	Status             string `json:"status"`
	ConnectionCount    int    `json:"connectionCount"`
	MaxConnectionCount int    `json:"maxConnectionCount"`
}

// connectionLog is what it says of a change.
type connectionLog struct {
	LogID         uint64 `json:"logId"`
	ServerID      string `json:"serverId"`
	ChannelID     string `json:"channelId"`
	MetadataID    int    `json:"metadataId"`
	DateAdded     string `json:"dateAdded"`
	ChannelName   string `json:"channelName"`
	ConnectorType string `json:"connectorType"`
	EventState    string `json:"eventState"`
	Information   string `json:"information"`

	state connectionState
}

// dashboard looks at all channels, once for all clients.
type dashboard struct {
	// static after construction
	engine   Engine
	serverID string

	mu     sync.Mutex
	looked time.Time                  // guarded by mu
	took   time.Duration              // of the last look; guarded by mu
	board  board                      // guarded by mu
	states map[string]connectionState // guarded by mu; by channel ID; replaced, never changed
	log    []connectionLog            // guarded by mu; up to maxConnectionLog, the latest last
	next   uint64                     // guarded by mu; ID of the last of log
}

// look returns the states, which are not to be changed, and the log from behind the
// one with an ID. It asks the engine if the last time is long enough ago.
func (d *dashboard) look(ctx context.Context, after uint64) (map[string]connectionState, []connectionLog) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.looked.IsZero() || now.Sub(d.looked) >= max(dashboardInterval, dashboardShare*d.took) {
		d.looked = now
		d.refreshLocked(ctx, now)
		d.took = time.Since(now)
	}
	var log []connectionLog
	for _, item := range d.log {
		if item.LogID > after {
			log = append(log, item)
		}
	}
	return d.states, log
}

func (d *dashboard) refreshLocked(ctx context.Context, now time.Time) {
	statuses, err := d.engine.Statuses(ctx)
	d.board.setHealthy(err == nil && d.engine.Healthy() == nil)
	if err != nil {
		return // the next look tells
	}
	d.board.update(statuses)
	states := make(map[string]connectionState, len(statuses))
	for i := range statuses {
		status := &statuses[i]
		cfg := status.Config
		state := connectionState{
			ServerID: d.serverID, ChannelID: cfg.ID, MetadataID: "0", Status: connectionStatus(status),
			ConnectionCount: status.Listener.Connections, MaxConnectionCount: status.Listener.MaxConnections,
		}
		states[cfg.ID] = state
		if before, known := d.states[cfg.ID]; !known && d.states != nil || known && before != state {
			d.next++
			d.log = append(d.log, connectionLog{
				LogID: d.next, ServerID: d.serverID, ChannelID: cfg.ID, DateAdded: now.Format(socketDate), ChannelName: cfg.Name,
				ConnectorType: transportOfSource(&cfg.Source), EventState: state.Status,
				Information: fmt.Sprintf("%d of %d connections", state.ConnectionCount, state.MaxConnectionCount), state: state,
			})
		}
	}
	if len(d.log) > maxConnectionLog {
		d.log = slices.Delete(d.log, 0, len(d.log)-maxConnectionLog)
	}
	d.states = states
}

func connectionStatus(s *engine.Status) string {
	switch {
	case s.State != engine.Started:
		return "DISCONNECTED"
	case s.Listener.Connections > 0:
		return "CONNECTED"
	default:
		return "IDLE"
	}
}

// statuses returns what a client that has seen the board as it was at a version does
// not know yet, and the version that it is at.
func (d *dashboard) statuses(channelID string, seen uint64) ([][]byte, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.board.news(channelID, seen, d.looked), d.board.version
}

// dashboardViewer is a client of /ws/dashboardstatus.
type dashboardViewer struct {
	dashboard *dashboard

	subscribed bool
	channelID  string // empty: all
	seen       uint64 // ID of the last of the log that was sent or passed over
	statuses   bool   // whether it wants them, too
	known      uint64 // the version of the board that it knows
}

func (s *Server) newDashboard() conversation { return &dashboardViewer{dashboard: &s.dashboard} }

func (v *dashboardViewer) take(ctx context.Context, kind string, message []byte) frame {
	var body struct {
		ChannelID string `json:"channelId"`
		Statuses  bool   `json:"statuses"`
	}
	if json.Unmarshal(message, &body) != nil {
		return frame{"type": "error", "message": "Invalid message format"}
	}
	switch kind {
	case "subscribe":
		_, log := v.dashboard.look(ctx, 0)
		if len(log) > 0 {
			v.seen = log[len(log)-1].LogID
		}
		v.subscribed, v.channelID, v.statuses, v.known = true, body.ChannelID, body.Statuses, 0
		f := frame{"type": "subscribed"}
		if body.ChannelID != "" {
			f["channelId"] = body.ChannelID
		}
		return f
	case "unsubscribe":
		v.subscribed = false
		return frame{"type": "unsubscribed"}
	case "getStates":
		states, _ := v.dashboard.look(ctx, 0)
		data := make(map[string][]connectionState)
		for id, state := range states {
			data[id] = []connectionState{state}
		}
		return frame{"type": "states", "data": data}
	case "getHistory":
		size, lastLogID, ok := historyOf(message)
		if !ok {
			return frame{"type": "error", "message": "Invalid message format"}
		}
		items := []connectionLog{}
		_, log := v.dashboard.look(ctx, lastLogID)
		for _, item := range log {
			if body.ChannelID == "" || item.ChannelID == body.ChannelID {
				items = append(items, item)
			}
		}
		return frame{"type": "history", "channelId": body.ChannelID, "data": items[max(0, len(items)-size):]}
	case "ping":
		return frame{"type": "pong"}
	}
	return nil
}

func (v *dashboardViewer) news(ctx context.Context) ([][]byte, <-chan struct{}, time.Duration) {
	if !v.subscribed {
		return nil, nil, 0
	}
	var news [][]byte
	_, log := v.dashboard.look(ctx, v.seen)
	for _, item := range log {
		v.seen = item.LogID
		if v.channelID == "" || item.ChannelID == v.channelID {
			news = append(news, encode(frame{"type": "connectionLog", "data": item}),
				encode(frame{"type": "stateChange", "connectorId": item.ChannelID + "_0", "data": item.state}))
		}
	}
	if v.statuses {
		var more [][]byte
		more, v.known = v.dashboard.statuses(v.channelID, v.known)
		news = append(news, more...)
	}
	return news, nil, dashboardInterval
}
