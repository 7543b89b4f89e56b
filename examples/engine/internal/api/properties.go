package api

import (
	"strconv"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// tcpSourceProperties are those of a source of type tcp, by Mirth's names and, like
// there, as text. What Mirth does not have follows under the configuration's names.
func tcpSourceProperties(tcp *config.TCPSource) map[string]any {
	props := map[string]any{
		"serverMode":                 tcp.ServerMode != "CLIENT",
		"transmissionModeProperties": transmissionMode(&tcp.Framing),
		"receiveTimeout":             milliseconds(tcp.ReceiveTimeout),
		"keepConnectionOpen":         tcp.KeepsOpen(),
		"charsetEncoding":            charset(tcp.CharsetEncoding),
		"responseMode":               tcp.ResponseMode,
		"respondOnNewConnection":     strconv.Itoa(tcp.RespondOnNewConnection),
		"tls":                        enabled(tcp.TLS),
		"maxMessageSize":             tcp.MaxMessageSize,
		"batches":                    tcp.Batches,
		"onStoreError":               tcp.OnStoreError,
		"enhancedAcknowledgement":    tcp.EnhancedAcknowledgement,
		"replay":                     tcp.Replay != nil,
		"quarantine":                 tcp.Quarantine != nil,
	}
	if tcp.Dials() {
		props["remoteAddress"], props["remotePort"] = tcp.RemoteAddress, strconv.Itoa(tcp.RemotePort)
	} else {
		props["listenerConnectorProperties"] = map[string]string{"host": tcp.Host, "port": strconv.Itoa(tcp.Port)}
		props["maxConnections"] = strconv.Itoa(tcp.MaxConnections)
		props["maxConnectionsPerHost"] = tcp.MaxConnectionsPerHost
	}
	if tcp.RespondOnNewConnection != 0 {
		props["responseAddress"], props["responsePort"] = tcp.ResponseAddress, strconv.Itoa(tcp.ResponsePort)
		props["responseTls"] = enabled(tcp.ResponseTLS)
	}
	if tcp.MissingCondition != "" {
		props["missingCondition"] = tcp.MissingCondition
	}
	if tcp.Parallel > 1 {
		props["orderKey"], props["parallel"] = tcp.OrderKey.String(), tcp.Parallel
	}
	return props
}

// tcpDestinationProperties are those of a destination of type tcp, likewise.
func tcpDestinationProperties(tcp *config.TCPDestination) map[string]any {
	props := map[string]any{
		"remoteAddress": tcp.Host, "remotePort": strconv.Itoa(tcp.Port),
		"transmissionModeProperties": transmissionMode(&tcp.Framing),
		"keepConnectionOpen":         tcp.KeepsOpen(),
		"checkRemoteHost":            true,
		"sendTimeout":                milliseconds(tcp.SendTimeout),
		"responseTimeout":            milliseconds(tcp.ResponseTimeout),
		"ignoreResponse":             tcp.IgnoreResponse,
		"queueOnResponseTimeout":     tcp.QueueOnResponseTimeout == nil || *tcp.QueueOnResponseTimeout,
		"charsetEncoding":            charset(tcp.CharsetEncoding),
		"tls":                        enabled(tcp.TLS),
		"enhancedAcknowledgement":    tcp.EnhancedAcknowledgement,
	}
	if tcp.LocalAddress != "" || tcp.LocalPort != 0 {
		props["localAddress"], props["localPort"] = tcp.LocalAddress, strconv.Itoa(tcp.LocalPort)
	}
	if tcp.MissingCondition != "" {
		props["missingCondition"] = tcp.MissingCondition
	}
	return props
}

// httpProperties are those of a destination of type http, without what may be
// secret: the query of the URL, headers and credentials.
func httpProperties(h *config.HTTPDestination) map[string]any {
	host, _, _ := strings.Cut(h.Host, "?")
	return map[string]any{
		"host": host, "method": h.Method, "contentType": h.ContentType,
		"useAuthentication": h.UseAuthentication, "authenticationType": h.AuthenticationType,
		"responseTimeout": milliseconds(h.ResponseTimeout), "tls": enabled(h.TLS),
	}
}

// smtpProperties are those of a destination of type smtp, without credentials,
// addresses and texts.
func smtpProperties(s *config.SMTPDestination) map[string]any {
	port := s.SMTPPort
	if port == 0 {
		port = s.Encryption.DefaultPort()
	}
	return map[string]any{
		"smtpHost": s.SMTPHost, "smtpPort": strconv.Itoa(port), "encryption": string(s.Encryption),
		"authentication": s.Authentication, "html": s.HTML, "tls": enabled(s.TLS),
	}
}

// httpSourceProperties are those of a source of type http, by Mirth's names, without
// credentials and headers.
func httpSourceProperties(h *config.HTTPSource) map[string]any {
	return map[string]any{
		"listenerConnectorProperties": map[string]string{"host": h.Host, "port": strconv.Itoa(h.Port)},
		"contextPath":                 h.ContextPath, "methods": h.Methods, "charset": charset(h.Charset),
		"timeout": milliseconds(h.Timeout), "maxMessageSize": h.MaxMessageSize,
		"maxConnections": strconv.Itoa(h.MaxConnections), "responseContentType": h.ResponseContentType,
		"responseStatusCode": strconv.Itoa(h.ResponseStatusCode), "useAuthentication": h.UseAuthentication,
		"tls": enabled(h.TLS),
	}
}

// meshSourceProperties are those of a source of type mesh, without credentials.
func meshSourceProperties(m *config.MESHSource) map[string]any {
	return map[string]any{
		"baseUrl": m.BaseURL, "mailbox": m.Mailbox.Mailbox, "workflowFilter": m.WorkflowFilter,
		"pollingFrequency": milliseconds(m.PollingFrequency), "maxMessageSize": m.MaxMessageSize, "tls": enabled(m.TLS),
	}
}

// meshDestinationProperties are those of a destination of type mesh, likewise, and
// without the recipient, which for some workflows names a patient.
func meshDestinationProperties(m *config.MESHDestination) map[string]any {
	return map[string]any{
		"baseUrl": m.BaseURL, "mailbox": m.Mailbox.Mailbox, "workflowId": m.WorkflowID,
		"contentType": m.ContentType, "gzip": m.Gzip, "tls": enabled(m.TLS),
	}
}

func transmissionMode(f *config.Framing) map[string]string {
	mode := map[string]string{"pluginPointName": f.TransmissionMode}
	switch f.TransmissionMode {
	case string(mllp.ModeRAW):
		mode["delimiter"] = f.Delimiter
	case string(mllp.ModeFRAME):
		mode["startOfMessageBytes"], mode["endOfMessageBytes"] = f.StartOfMessageBytes.String(), f.EndOfMessageBytes.String()
	default:
		mode["startOfMessageBytes"], mode["endOfMessageBytes"] = "0B", "1C0D"
	}
	return mode
}

func charset(set mllp.Charset) string {
	if set == mllp.CharsetAuto {
		return "auto"
	}
	return string(set)
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func enabled(p *tlsprops.TlsProperties) map[string]bool {
	return map[string]bool{"enabled": p != nil && p.Enabled}
}
