package dicomtls

import (
	"context"
	"crypto/tls"

	"github.com/carewire/carewire/tlsprops"
)

// TLSSource is tlsSource for tests.
type TLSSource struct{ s *tlsSource }

// LoadTLS is Properties.load for tests.
func LoadTLS(p Properties, role tlsprops.Role) (*TLSSource, error) {
	s, err := p.load(role)
	if s == nil || err != nil {
		return nil, err
	}
	return &TLSSource{s}, nil
}

// Server returns the configuration of a listener.
func (t *TLSSource) Server() (*tls.Config, error) { return t.s.serverConfig() }

// Client returns the configuration of a client.
func (t *TLSSource) Client(ctx context.Context, host string) (*tls.Config, error) {
	return t.s.clientConfig(ctx, host)
}

// Reload looks at the files now.
func (t *TLSSource) Reload() error { return t.s.source.Reload() }
