package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

func (s *Server) channelRoutes() []route {
	return slices.Concat([]route{
		{method: "GET", pattern: "/api/channels", access: viewers, handler: s.channels, query: []param{listParam("channelId")}, gives: []channel{}, summary: "The channels as configured"},
		{method: "GET", pattern: "/api/channels/idsAndNames", access: viewers, handler: s.idsAndNames, gives: map[string]string{}, summary: "The channels' names, by id"},
		{method: "GET", pattern: "/api/channels/statuses", access: viewers, handler: s.statuses, query: []param{listParam("channelId"), textParam("filter"), flagParam("includeUndeployed")}, gives: []channelStatus{}, refuses: []int{http.StatusServiceUnavailable}, summary: "What channels do and have done"},
		{method: "GET", pattern: "/api/channels/statistics", access: viewers, handler: s.allStatistics, query: []param{listParam("channelId")}, gives: []channelStatistics{}, refuses: []int{http.StatusServiceUnavailable}, summary: "The counts of all channels"},
		{method: "GET", pattern: "/api/channels/{channelId}", access: viewers, handler: s.oneChannel, gives: channel{}, refuses: []int{http.StatusNotFound}, summary: "A channel as configured"},
		{method: "GET", pattern: "/api/channels/{channelId}/status", access: viewers, handler: s.status, gives: channelStatus{}, refuses: readErrors, summary: "What a channel does and has done"},
		{method: "GET", pattern: "/api/channels/{channelId}/statistics", access: viewers, handler: s.oneStatistics, gives: channelStatistics{}, refuses: readErrors, summary: "The counts of a channel"},
	}, s.changeRoutes(), s.commandRoutes(), s.messageRoutes(), s.deadLetterRoutes(), s.dispatchRoutes())
}

func (s *Server) channels(w http.ResponseWriter, r *http.Request) {
	list := []channel{}
	for _, cfg := range s.chosen(r) {
		list = append(list, describe(cfg))
	}
	answer(w, http.StatusOK, list)
}

// chosen returns the channels that the query names with channelId; all if it names
// none.
func (s *Server) chosen(r *http.Request) []*config.Channel {
	all, ids := s.engine.Channels(), r.URL.Query()["channelId"]
	if len(ids) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(cfg *config.Channel) bool { return !slices.Contains(ids, cfg.ID) })
}

func (s *Server) oneChannel(w http.ResponseWriter, r *http.Request) {
	for _, cfg := range s.engine.Channels() {
		if cfg.ID == r.PathValue("channelId") {
			answer(w, http.StatusOK, describe(cfg))
			return
		}
	}
	answer(w, http.StatusNotFound, failure{Error: "Channel not found"})
}

func (s *Server) idsAndNames(w http.ResponseWriter, _ *http.Request) {
	names := map[string]string{}
	for _, cfg := range s.engine.Channels() {
		names[cfg.ID] = cfg.Name
	}
	answer(w, http.StatusOK, names)
}

// statistics are counts in a status.
type statistics struct {
	Received int64 `json:"received"`
	Sent     int64 `json:"sent"`
	Error    int64 `json:"error"`
	Filtered int64 `json:"filtered"`
	Queued   int64 `json:"queued"`
}

type listenerInfo struct {
	Port            int    `json:"port"`
	Host            string `json:"host"`
	ConnectionCount int    `json:"connectionCount"`
	MaxConnections  int    `json:"maxConnections"`
	TransportType   string `json:"transportType"`
	Listening       bool   `json:"listening"`
}

type childStatus struct {
	ChannelID     string       `json:"channelId"`
	Name          string       `json:"name"`
	State         engine.State `json:"state"`
	MetaDataID    int          `json:"metaDataId"`
	TransportName string       `json:"transportName"`
	QueueEnabled  bool         `json:"queueEnabled"`
	Enabled       bool         `json:"enabled"`
	Queued        int64        `json:"queued"`
	OldestQueued  string       `json:"oldestQueued,omitempty"` // when the message at the head came in
	Confirmed     *bool        `json:"confirmed,omitempty"`    // false: what is sent is counted when it is written
	Statistics    statistics   `json:"statistics"`
}

type channelStatus struct {
	ChannelID             string        `json:"channelId"`
	Name                  string        `json:"name"`
	State                 engine.State  `json:"state"`
	DeployedDate          string        `json:"deployedDate,omitempty"`
	DeployedRevisionDelta int           `json:"deployedRevisionDelta"`
	LastReceived          string        `json:"lastReceived,omitempty"` // when the youngest message that is kept came in
	Statistics            statistics    `json:"statistics"`
	ListenerInfo          listenerInfo  `json:"listenerInfo"`
	ChildStatuses         []childStatus `json:"childStatuses"`
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.engine.Status(r.Context(), r.PathValue("channelId"))
	if err != nil {
		s.readFailed(w, r, err)
		return
	}
	answer(w, http.StatusOK, statusOf(&st))
}

// readErrors are the statuses of readFailed.
var readErrors = []int{http.StatusNotFound, http.StatusServiceUnavailable}

// readFailed answers that something cannot be read.
func (s *Server) readFailed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, engine.ErrUnknownChannel):
		answer(w, http.StatusNotFound, failure{Error: "Channel not found"})
	case errors.Is(err, store.ErrNotFound):
		answer(w, http.StatusNotFound, failure{Error: "Message not found"})
	case errors.Is(err, store.ErrTampered):
		s.log.ErrorContext(r.Context(), "message cannot be shown", "err", err)
		conflict(w, "The message's content was changed in the store: it is not shown")
	case errors.Is(err, context.DeadlineExceeded):
		unavailable(w, "The search takes too long: narrow it down")
	default:
		s.log.ErrorContext(r.Context(), "store cannot be read", "err", err)
		unavailable(w, "The store does not answer")
	}
}

func (s *Server) statuses(w http.ResponseWriter, r *http.Request) {
	undeployed, filter := r.URL.Query().Get("includeUndeployed") == "true", strings.ToLower(r.URL.Query().Get("filter"))
	list := []channelStatus{}
	for _, cfg := range s.chosen(r) {
		if !strings.Contains(strings.ToLower(cfg.Name), filter) {
			continue
		}
		st, err := s.engine.Status(r.Context(), cfg.ID)
		switch {
		case errors.Is(err, engine.ErrUnknownChannel): // removed since
		case err != nil:
			s.readFailed(w, r, err)
			return
		case st.State != engine.Undeployed || undeployed:
			list = append(list, statusOf(&st))
		}
	}
	answer(w, http.StatusOK, list)
}

// channelStatistics are those of a channel on their own.
type channelStatistics struct {
	ServerID  string `json:"serverId"`
	ChannelID string `json:"channelId"`
	statistics
}

func (s *Server) allStatistics(w http.ResponseWriter, r *http.Request) {
	list := []channelStatistics{}
	for _, cfg := range s.chosen(r) {
		st, err := s.engine.Status(r.Context(), cfg.ID)
		switch {
		case errors.Is(err, engine.ErrUnknownChannel): // removed since
		case err != nil:
			s.readFailed(w, r, err)
			return
		default:
			list = append(list, channelStatistics{s.serverID, cfg.ID, countsOf(&st.Statistics)})
		}
	}
	answer(w, http.StatusOK, list)
}

func (s *Server) oneStatistics(w http.ResponseWriter, r *http.Request) {
	st, err := s.engine.Status(r.Context(), r.PathValue("channelId"))
	if err != nil {
		s.readFailed(w, r, err)
		return
	}
	answer(w, http.StatusOK, channelStatistics{s.serverID, st.Config.ID, countsOf(&st.Statistics)})
}

func countsOf(total *store.Stats) statistics {
	return statistics{
		Received: total.Received, Sent: total.Sent, Error: total.Error, Filtered: total.Filtered, Queued: total.Queued,
	}
}

func statusOf(st *engine.Status) channelStatus {
	source := st.State
	if source == engine.Paused {
		source = engine.Stopped
	}
	body := channelStatus{
		ChannelID: st.Config.ID, Name: st.Config.Name, State: st.State, Statistics: countsOf(&st.Statistics),
		ListenerInfo: listenerInfo{
			Port: st.Listener.Port, Host: st.Listener.Host, ConnectionCount: st.Listener.Connections,
			MaxConnections: st.Listener.MaxConnections, TransportType: st.Listener.Transport, Listening: st.Listener.Listening,
		},
		ChildStatuses: []childStatus{{
			ChannelID: st.Config.ID, Name: "Source", State: source, TransportName: transportOfSource(&st.Config.Source), Enabled: true,
			Statistics: statistics{Received: st.Statistics.Received, Filtered: st.Statistics.Filtered},
		}},
	}
	if !st.Deployed.IsZero() {
		body.DeployedDate = isoTime(st.Deployed)
	}
	if !st.Statistics.LastReceived.IsZero() {
		body.LastReceived = isoTime(st.Statistics.LastReceived)
	}
	for i := range st.Config.Destinations {
		body.ChildStatuses = append(body.ChildStatuses, destinationStatus(st, i))
	}
	for _, counts := range leftovers(st.Config, &st.Statistics) {
		body.ChildStatuses = append(body.ChildStatuses, childStatus{
			ChannelID: st.Config.ID, Name: counts.Name, State: engine.Stopped, MetaDataID: len(body.ChildStatuses), QueueEnabled: true,
			Queued:     counts.Queued,
			Statistics: statistics{Received: counts.Received, Sent: counts.Sent, Error: counts.Error, Queued: counts.Queued},
		})
	}
	return body
}

// leftovers are destinations that the channel has no more and that still have
// messages: they are shown, after the others.
func leftovers(cfg *config.Channel, stats *store.Stats) []store.DestinationStats {
	return slices.DeleteFunc(slices.Clone(stats.Destinations), func(d store.DestinationStats) bool {
		return d.Queued+d.Error == 0 ||
			slices.ContainsFunc(cfg.Destinations, func(c config.Destination) bool { return c.Name == d.Name })
	})
}

func destinationStatus(st *engine.Status, i int) childStatus {
	d := &st.Config.Destinations[i]
	var counts store.DestinationStats
	for _, c := range st.Statistics.Destinations {
		if c.Name == d.Name {
			counts = c
		}
	}
	state := st.State
	if i < len(st.Destinations) {
		state = st.Destinations[i]
	}
	child := childStatus{
		ChannelID: st.Config.ID, Name: d.Name, State: state, MetaDataID: i + 1, TransportName: transportOf(d),
		QueueEnabled: true, Enabled: true, Queued: counts.Queued,
		Statistics: statistics{Received: counts.Received, Sent: counts.Sent, Error: counts.Error, Queued: counts.Queued},
	}
	if d.TCP != nil && d.TCP.IgnoreResponse {
		child.Confirmed = new(false)
	}
	if !counts.OldestQueued.IsZero() {
		child.OldestQueued = isoTime(counts.OldestQueued)
	}
	return child
}
