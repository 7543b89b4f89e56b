package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/tlsprops"
)

// Certificates are what an engine tells of the files of TLS settings.
type Certificates interface {
	Certificates(ctx context.Context) []engine.CertificateUse
}

func (s *Server) certificateRoutes() []route {
	return []route{
		{method: "GET", pattern: "/api/certificates", access: viewers, handler: s.certificates, query: []param{listParam("channelId")}, gives: []certificateUse{}, summary: "The certificates of each TLS setting, what they are for, and until when"},
	}
}

// certificateUse is the JSON of one TLS setting: of a channel, or of this API. It
// holds no path.
type certificateUse struct {
	ChannelID     string        `json:"channelId,omitempty"` // empty: this API
	ChannelName   string        `json:"channelName,omitempty"`
	MetaDataID    int           `json:"metaDataId"` // 0: the source
	ConnectorName string        `json:"connectorName"`
	Setting       string        `json:"setting"`              // its key in the configuration; of this API: TLS_CERT
	Role          string        `json:"role"`                 // listener or client
	LoadedDate    string        `json:"loadedDate,omitempty"` // when these came into use
	Generation    uint64        `json:"generation"`           // 1: they have not been replaced since
	Error         string        `json:"error,omitempty"`      // why the files as they are now are not used
	Certificates  []certificate `json:"certificates"`
}

// certificate is a certificate's JSON.
type certificate struct {
	Use       tlsprops.Use `json:"use"` // leaf: presented; chain: sent with it; ca: trusted
	Subject   string       `json:"subject"`
	Issuer    string       `json:"issuer"`
	NotBefore string       `json:"notBefore"`
	NotAfter  string       `json:"notAfter"`
}

func (s *Server) certificates(w http.ResponseWriter, r *http.Request) {
	list := []certificateUse{}
	wanted := r.URL.Query()["channelId"]
	if s.certificate != nil && len(wanted) == 0 {
		status := s.certificate.Status()
		own := describeCertificates(&status)
		own.ConnectorName, own.Setting, own.Role = "API", "TLS_CERT", roleName(tlsprops.Listener)
		own.Error = certificateError(status.Err)
		list = append(list, own)
	}
	chosen := make(map[string]bool)
	for _, cfg := range s.chosen(r) {
		chosen[cfg.ID] = true
	}
	for _, use := range s.engine.Certificates(r.Context()) {
		if !chosen[use.Channel.ID] {
			continue
		}
		of := describeCertificates(&use.Status)
		of.ChannelID, of.ChannelName, of.MetaDataID = use.Channel.ID, use.Channel.Name, use.Connector
		of.ConnectorName, of.Setting, of.Role, of.Error = "Source", use.Setting, roleName(use.Role), certificateError(use.Err)
		if use.Connector > 0 {
			of.ConnectorName = use.Channel.Destinations[use.Connector-1].Name
		}
		list = append(list, of)
	}
	answer(w, http.StatusOK, list)
}

func roleName(role tlsprops.Role) string {
	if role == tlsprops.Client {
		return "client"
	}
	return "listener"
}

func describeCertificates(status *tlsprops.Status) certificateUse {
	use := certificateUse{Generation: status.Generation, Certificates: []certificate{}}
	if !status.Loaded.IsZero() {
		use.LoadedDate = isoTime(status.Loaded)
	}
	for _, c := range status.Certificates {
		use.Certificates = append(use.Certificates, certificate{
			Use: c.Use, Subject: c.Subject, Issuer: c.Issuer, NotBefore: isoTime(c.NotBefore), NotAfter: isoTime(c.NotAfter),
		})
	}
	return use
}

// certificateError says what is wrong with files, and names the setting but no path.
func certificateError(err error) string {
	if err == nil {
		return ""
	}
	if field, ok := errors.AsType[*tlsprops.FieldError](err); ok {
		return field.Field + " cannot be used: the engine's log says why"
	}
	if field, ok := errors.AsType[*dicomtls.FieldError](err); ok {
		return field.Field + " cannot be used: the engine's log says why"
	}
	return "The files cannot be used: the engine's log says why"
}
