package main

import (
	"log/slog"
	"maps"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/tlsprops"
)

// recordConnector writes into the audit log what happened to the TLS files of a
// channel's source or destination.
func recordConnector(e engine.CertificateEvent, events *audit.Log, log *slog.Logger) {
	whose := map[string]string{"channelId": e.Channel}
	if e.Destination != "" {
		whose["destination"] = e.Destination
	}
	recordCertificate(e.Event, whose, events, log)
}

// recordCertificate writes into the audit log that TLS files were replaced, or were to
// be and cannot, or that a certificate expires; whose says what they are of, and is
// empty for the API. What is served first is the configuration's, and no event.
func recordCertificate(e tlsprops.Event, whose map[string]string, events *audit.Log, log *slog.Logger) {
	event := audit.Event{Action: "certificate.reload", Outcome: audit.Success, Attributes: make(map[string]string)}
	maps.Copy(event.Attributes, whose)
	switch {
	case e.Kind == tlsprops.Loaded && e.Generation > 1:
	case e.Kind == tlsprops.KeptOld:
		event.Outcome = audit.Failure
		event.Attributes["reason"] = e.Err.Error() // it names a setting and a file, and holds nothing of either
	case e.Kind == tlsprops.Expiring:
		event.Action, event.Outcome = "certificate.expiring", audit.Failure
		event.Attributes["path"] = e.Certificate.Path
		event.Attributes["subject"] = e.Certificate.Subject
		event.Attributes["notAfter"] = e.Certificate.NotAfter.UTC().Format(time.RFC3339)
		event.Attributes["left"] = e.Left.Round(time.Minute).String()
	default:
		return
	}
	if err := events.Append(event); err != nil {
		log.Error("the audit log cannot be written", "action", event.Action, "err", err)
	}
}
