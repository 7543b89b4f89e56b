package engine

import (
	"context"
	"sync"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/tlsprops"
)

// CertificateUse is one TLS setting of a channel, and what its files hold.
type CertificateUse struct {
	Channel   *config.Channel // not to be changed
	Connector int             // 0: the source; 1: the first destination
	Setting   string          // its key in the configuration: "tls", "responseTls"
	Role      tlsprops.Role
	Status    tlsprops.Status // empty: nothing has been loaded yet
	// Err says why the files as they are now cannot be used. nil: they can.
	Err error
}

// ConnectorName is that of the destination, or "source".
func (u *CertificateUse) ConnectorName() string {
	if u.Connector == 0 {
		return "source"
	}
	return u.Channel.Destinations[u.Connector-1].Name
}

// watchedFiles are the files of one TLS setting, watched for those who look. Each
// connector reads its files for itself, at the same interval and by the same rules;
// this is so that one that is stopped, or has not connected yet, is seen as well.
type watchedFiles struct {
	// static after construction
	connector int
	setting   string
	role      tlsprops.Role
	load      func() (*tlsprops.Source, error)

	mu     sync.Mutex
	source *tlsprops.Source // nil: nothing could be loaded yet; guarded by mu
}

// Certificates returns what the files of all TLS settings hold. It reads those that
// have not been looked at for Options.TLSReloadInterval.
func (e *Engine) Certificates(ctx context.Context) []CertificateUse {
	var list []CertificateUse
	for _, ch := range e.set.Load().channels {
		for _, w := range ch.files {
			use := CertificateUse{Channel: ch.cfg, Connector: w.connector, Setting: w.setting, Role: w.role}
			use.Status, use.Err = w.look(ctx)
			list = append(list, use)
		}
	}
	return list
}

func (w *watchedFiles) look(ctx context.Context) (tlsprops.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.source == nil {
		source, err := w.load()
		if err != nil {
			return tlsprops.Status{}, err
		}
		w.source = source
	}
	_ = w.source.Refresh(ctx) // its error is in the status
	status := w.source.Status()
	return status, status.Err
}

// filesOf returns the TLS settings of a channel.
func filesOf(cfg *config.Channel, opts Options) []*watchedFiles {
	var list []*watchedFiles
	add := func(connector int, setting string, role tlsprops.Role, p *tlsprops.TlsProperties) {
		own := tlsFor(p, nil, opts) // silent: the connector tells the log
		if own == nil {
			return
		}
		list = append(list, &watchedFiles{connector: connector, setting: setting, role: role, load: func() (*tlsprops.Source, error) {
			return tlsprops.Load(*own)
		}})
	}
	dicom := func(connector int, role tlsprops.Role, p dicomtls.Properties) {
		if !p.TLS.Enabled() {
			return
		}
		own := dicomTLSFor(p, nil, opts)
		list = append(list, &watchedFiles{connector: connector, setting: "tls", role: role, load: func() (*tlsprops.Source, error) {
			return own.Load(role)
		}})
	}
	switch s := &cfg.Source; {
	case s.TCP != nil:
		role := tlsprops.Listener
		if s.TCP.Dials() {
			role = tlsprops.Client
		}
		add(0, "tls", role, s.TCP.TLS)
		add(0, "responseTls", tlsprops.Client, s.TCP.ResponseTLS)
	case s.DICOM != nil:
		dicom(0, tlsprops.Listener, s.DICOM.TLS)
	case s.HTTP != nil:
		add(0, "tls", tlsprops.Listener, s.HTTP.TLS)
	case s.MESH != nil:
		add(0, "tls", tlsprops.Client, s.MESH.TLS)
	}
	for i := range cfg.Destinations {
		switch d := &cfg.Destinations[i]; {
		case d.TCP != nil:
			add(i+1, "tls", tlsprops.Client, d.TCP.TLS)
		case d.DICOM != nil:
			dicom(i+1, tlsprops.Client, d.DICOM.TLS)
		case d.HTTP != nil:
			add(i+1, "tls", tlsprops.Client, d.HTTP.TLS)
		case d.SMTP != nil:
			add(i+1, "tls", tlsprops.Client, d.SMTP.TLS)
		case d.MESH != nil:
			add(i+1, "tls", tlsprops.Client, d.MESH.TLS)
		}
	}
	return list
}
