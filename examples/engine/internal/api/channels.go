package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

func (s *Server) channelRoutes() []route {
	return []route{
		{method: "GET", pattern: "/api/channels", access: viewers, handler: s.channels, summary: "The channels as configured"},
		{method: "GET", pattern: "/api/channels/{channelId}/status", access: viewers, handler: s.status, summary: "What a channel does and has done"},
		{method: "POST", pattern: "/api/channels/{channelId}/_start", access: operators, audit: "channel.start", handler: s.command(s.engine.StartChannel), query: []string{"returnErrors"}, summary: "Start a channel; errors are told with returnErrors=true only"},
		{method: "POST", pattern: "/api/channels/{channelId}/_stop", access: operators, audit: "channel.stop", handler: s.command(s.engine.StopChannel), query: []string{"returnErrors"}, summary: "Stop a channel; errors are told with returnErrors=true only"},
	}
}

// connector is a source or a destination in a channel's JSON.
type connector struct {
	MetaDataID    int            `json:"metaDataId"` // 0 is the source, 1 the first destination
	Name          string         `json:"name"`
	Enabled       bool           `json:"enabled"`
	TransportName string         `json:"transportName"`
	Properties    map[string]any `json:"properties"`
	// Of destinations only.
	WaitForPrevious *bool `json:"waitForPrevious,omitempty"`
	QueueEnabled    *bool `json:"queueEnabled,omitempty"`
}

// channel is a channel's JSON. It holds no path, no passphrase and no pin.
type channel struct {
	ID                    string      `json:"id"`
	Name                  string      `json:"name"`
	Description           string      `json:"description"`
	Revision              int         `json:"revision"`
	Enabled               bool        `json:"enabled"`
	SourceConnector       connector   `json:"sourceConnector"`
	DestinationConnectors []connector `json:"destinationConnectors"`
}

func (s *Server) channels(w http.ResponseWriter, _ *http.Request) {
	list := []channel{}
	for _, cfg := range s.engine.Channels() {
		list = append(list, describe(cfg))
	}
	answer(w, http.StatusOK, list)
}

func describe(cfg *config.Channel) channel {
	ch := channel{
		ID: cfg.ID, Name: cfg.Name, Revision: 1, Enabled: true,
		SourceConnector: connector{
			Name: "sourceConnector", Enabled: true, TransportName: sourceTransportName(&cfg.Source),
			Properties: sourceProperties(&cfg.Source),
		},
	}
	for i := range cfg.Destinations {
		d := &cfg.Destinations[i]
		ch.DestinationConnectors = append(ch.DestinationConnectors, connector{
			MetaDataID: i + 1, Name: d.Name, Enabled: true, TransportName: transportName(d),
			Properties: properties(d), WaitForPrevious: new(false), QueueEnabled: new(true),
		})
	}
	return ch
}

func sourceTransportName(s *config.Source) string {
	switch {
	case s.TCP != nil:
		return "TCP Listener"
	case s.DICOM != nil:
		return "DICOM Listener"
	case s.HTTP != nil:
		return "HTTP Listener"
	case s.MESH != nil:
		return "MESH Reader"
	default:
		return "Channel Reader"
	}
}

func sourceProperties(s *config.Source) map[string]any {
	switch {
	case s.TCP != nil:
		return tcpSourceProperties(s.TCP)
	case s.DICOM != nil:
		return dicomSourceProperties(s.DICOM)
	case s.HTTP != nil:
		return httpSourceProperties(s.HTTP)
	case s.MESH != nil:
		return meshSourceProperties(s.MESH)
	default:
		return map[string]any{}
	}
}

func transportName(d *config.Destination) string {
	switch {
	case d.TCP != nil:
		return "TCP Sender"
	case d.DICOM != nil:
		return "DICOM Sender"
	case d.HTTP != nil:
		return "HTTP Sender"
	case d.SMTP != nil:
		return "SMTP Sender"
	case d.MESH != nil:
		return "MESH Sender"
	case d.File != nil:
		return "File Writer"
	default:
		return "Channel Writer"
	}
}

func properties(d *config.Destination) map[string]any {
	switch {
	case d.TCP != nil:
		return destinationProperties(d.TCP)
	case d.DICOM != nil:
		return dicomDestinationProperties(d.DICOM)
	case d.HTTP != nil:
		return httpProperties(d.HTTP)
	case d.SMTP != nil:
		return smtpProperties(d.SMTP)
	case d.MESH != nil:
		return meshDestinationProperties(d.MESH)
	case d.Channel != nil:
		return map[string]any{"channelId": d.Channel.ChannelID}
	default:
		return map[string]any{}
	}
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
	Statistics            statistics    `json:"statistics"`
	ListenerInfo          listenerInfo  `json:"listenerInfo"`
	ChildStatuses         []childStatus `json:"childStatuses"`
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.engine.Status(r.Context(), r.PathValue("channelId"))
	switch {
	case errors.Is(err, engine.ErrUnknownChannel):
		answer(w, http.StatusNotFound, failure{Error: "Channel not found"})
		return
	case err != nil:
		s.log.ErrorContext(r.Context(), "status cannot be read", "err", err)
		answer(w, http.StatusServiceUnavailable, failure{Error: "Service Unavailable", Message: "The store does not answer"})
		return
	}
	total := st.Statistics
	body := channelStatus{
		ChannelID: st.Config.ID, Name: st.Config.Name, State: st.State,
		Statistics: statistics{
			Received: total.Received, Sent: total.Sent, Error: total.Error, Filtered: total.Filtered, Queued: total.Queued,
		},
		ListenerInfo: listenerInfo{
			Port: st.Listener.Port, Host: st.Listener.Host, ConnectionCount: st.Listener.Connections,
			MaxConnections: st.Listener.MaxConnections, TransportType: st.Listener.Transport, Listening: st.Listener.Listening,
		},
		ChildStatuses: []childStatus{{
			ChannelID: st.Config.ID, Name: "Source", State: st.State, TransportName: sourceTransportName(&st.Config.Source), Enabled: true,
			Statistics: statistics{Received: total.Received, Filtered: total.Filtered},
		}},
	}
	if !st.Deployed.IsZero() {
		body.DeployedDate = isoTime(st.Deployed)
	}
	for i := range st.Config.Destinations {
		body.ChildStatuses = append(body.ChildStatuses, destinationStatus(&st, i))
	}
	answer(w, http.StatusOK, body)
}

func destinationStatus(st *engine.Status, i int) childStatus {
	d := &st.Config.Destinations[i]
	var counts store.DestinationStats
	for _, c := range st.Statistics.Destinations {
		if c.Name == d.Name {
			counts = c
		}
	}
	child := childStatus{
		ChannelID: st.Config.ID, Name: d.Name, State: st.State, MetaDataID: i + 1, TransportName: transportName(d),
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

// commandTimeout bounds _start and _stop: a stop drains for less than this.
const commandTimeout = time.Minute

func (s *Server) command(run func(context.Context, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// A client that hangs up does not leave a channel half stopped.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
		defer cancel()
		id := r.PathValue("channelId")
		err := run(ctx, id)
		if err != nil {
			failed(ctx)
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
