package api

import "github.com/carewire/carewire/examples/engine/internal/config"

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

func describe(cfg *config.Channel) channel {
	transport, properties := sourceKind(&cfg.Source)
	ch := channel{
		ID: cfg.ID, Name: cfg.Name, Revision: 1, Enabled: true,
		SourceConnector: connector{
			Name: "sourceConnector", Enabled: true, TransportName: transport, Properties: properties(),
		},
		DestinationConnectors: []connector{},
	}
	for i := range cfg.Destinations {
		d := &cfg.Destinations[i]
		transport, properties := destinationKind(d)
		ch.DestinationConnectors = append(ch.DestinationConnectors, connector{
			MetaDataID: i + 1, Name: d.Name, Enabled: true, TransportName: transport,
			Properties: properties(), WaitForPrevious: new(false), QueueEnabled: new(true),
		})
	}
	return ch
}

// sourceKind returns what Mirth calls a source of that type, and what makes its
// properties. This and destinationKind are all that the API knows of types.
func sourceKind(s *config.Source) (transport string, properties func() map[string]any) {
	switch {
	case s.TCP != nil:
		return "TCP Listener", func() map[string]any { return tcpSourceProperties(s.TCP) }
	case s.DICOM != nil:
		return "DICOM Listener", func() map[string]any { return dicomSourceProperties(s.DICOM) }
	case s.HTTP != nil:
		return "HTTP Listener", func() map[string]any { return httpSourceProperties(s.HTTP) }
	case s.MESH != nil:
		return "MESH Reader", func() map[string]any { return meshSourceProperties(s.MESH) }
	default:
		return "Channel Reader", nothing
	}
}

// destinationKind is sourceKind of a destination.
func destinationKind(d *config.Destination) (transport string, properties func() map[string]any) {
	switch {
	case d.TCP != nil:
		return "TCP Sender", func() map[string]any { return tcpDestinationProperties(d.TCP) }
	case d.DICOM != nil:
		return "DICOM Sender", func() map[string]any { return dicomDestinationProperties(d.DICOM) }
	case d.HTTP != nil:
		return "HTTP Sender", func() map[string]any { return httpProperties(d.HTTP) }
	case d.SMTP != nil:
		return "SMTP Sender", func() map[string]any { return smtpProperties(d.SMTP) }
	case d.MESH != nil:
		return "MESH Sender", func() map[string]any { return meshDestinationProperties(d.MESH) }
	case d.File != nil:
		return "File Writer", nothing // a path of the server is told nobody
	default:
		return "Channel Writer", func() map[string]any { return map[string]any{"channelId": d.Channel.ChannelID} }
	}
}

func nothing() map[string]any { return map[string]any{} }

func transportOfSource(s *config.Source) string {
	transport, _ := sourceKind(s)
	return transport
}

func transportOf(d *config.Destination) string {
	transport, _ := destinationKind(d)
	return transport
}
