package api

import (
	"strconv"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
)

// dicomSourceProperties are those of a source of type dicom, by Mirth's names and,
// like there, as text; without paths and passwords.
func dicomSourceProperties(s *config.DICOMSource) map[string]any {
	props := map[string]any{
		"listenerConnectorProperties": map[string]string{"host": s.Host, "port": strconv.Itoa(s.Port)},
		"applicationEntity":           s.ApplicationEntity,
		"maxAssociations":             s.MaxAssociations,
		"maxAssociationsPerHost":      s.MaxAssociationsPerHost,
		"maxObjectSize":               s.MaxObjectSize,
	}
	dicomTLSProperties(props, &s.TLS)
	return props
}

// dicomDestinationProperties are those of a destination of type dicom, likewise,
// and without the user.
func dicomDestinationProperties(t *config.DICOMDestination) map[string]any {
	props := map[string]any{
		"host": t.Host, "port": strconv.Itoa(t.Port),
		"applicationEntity": t.ApplicationEntity, "localApplicationEntity": t.LocalApplicationEntity,
		"priority": t.Priority, "stgcmt": t.Stgcmt, "uidnegrsp": t.UIDNegRsp,
	}
	if t.LocalHost != "" {
		props["localHost"] = t.LocalHost
	}
	dicomTLSProperties(props, &t.TLS)
	return props
}

// dicomTLSProperties adds the mode and, where there is TLS, noClientAuth in the
// sense of the deployment guide, which is the opposite of Mirth's.
func dicomTLSProperties(props map[string]any, p *dicomtls.Properties) {
	props["tls"] = p.TLS.String()
	if p.TLS.Enabled() {
		props["noClientAuth"] = p.NoClientAuth
	}
}
