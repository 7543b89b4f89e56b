package dicomtls

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/carewire/carewire/keystore"
	"github.com/carewire/carewire/tlsprops"
)

// alpn is the protocol name of DICOM (IANA, PS3.15 B.12). A client offers it; a
// listener refuses clients that offer only others, and takes those that offer
// none, which is what most equipment does.
const alpn = "dicom"

// tlsProperties are the settings in the words of tlsprops, for a mode with TLS.
func (p *Properties) tlsProperties(role tlsprops.Role) tlsprops.TlsProperties {
	// tlsprops has one password for both stores and never asks for that of a
	// store: the decoder knows it. What tlsprops is told opens PEM keys.
	storePW, keyPW, trustPW := p.KeyStorePW, p.KeyPW, p.TrustStorePW
	t := tlsprops.TlsProperties{
		Enabled:        true,
		KeyStorePath:   p.KeyStore,
		CertStorePath:  p.CertStore,
		TrustStorePath: p.TrustStore,
		KeyAlias:       p.KeyAlias,
		Verify:         p.Verification,
		Pins:           slices.Clone(p.Pins),
		CRLPaths:       slices.Clone(p.CRLPaths),

		AnyExtendedKeyUsage: p.AnyExtendedKeyUsage,

		ReloadInterval: p.ReloadInterval,
		NextProtos:     []string{alpn},
		Observe:        p.Observe,
		Logger:         p.Logger,
		Decoder: func(in tlsprops.DecoderInput) (*tlsprops.Material, error) {
			in.Passphrase, in.KeyPassphrase = storePW, keyPW
			if in.Field == "trustStorePath" {
				in.Passphrase, in.KeyPassphrase = trustPW, ""
			}
			return keystore.Decoder(in)
		},
	}
	if p.KeyStore != "" {
		t.Passphrase = cmp.Or(keyPW, storePW)
	}
	if role == tlsprops.Listener {
		t.RequireClientCert = !p.NoClientAuth
		t.SniServerName = p.ServerName // which tlsprops refuses
		return t
	}
	t.SniServerName = p.ServerName
	// Servers with a list of acceptable CAs, and modalities with self-signed
	// certificates, are an everyday pair: crypto/tls would send none.
	t.AlwaysSendClientCert = p.KeyStore != ""
	return t
}

// tlsSource serves the configurations of a mode as the files change. It is safe
// for concurrent use.
type tlsSource struct {
	// static after construction
	source  *tlsprops.Source
	profile profile

	// server is the last configuration of a listener and what it was made of.
	server atomic.Pointer[adapted]
}

// adapted is a configuration of tlsprops and the same for the profile.
type adapted struct{ theirs, ours *tls.Config }

// load reads the files and checks everything that can be checked for the role.
// It returns nil and no error in a mode without TLS; every error is a
// *FieldError or names the setting.
func (p *Properties) load(role tlsprops.Role) (*tlsSource, error) {
	if err := p.Validate(role); err != nil || !p.TLS.Enabled() {
		return nil, err
	}
	source, err := tlsprops.Load(p.tlsProperties(role))
	if err != nil {
		return nil, ours(err)
	}
	s := &tlsSource{source: source, profile: profiles[p.TLS]}
	if role == tlsprops.Listener {
		if err := p.checkListenerKey(s); err != nil {
			return nil, err
		}
	}
	if p.NoSSL2 != nil && !*p.NoSSL2 && p.Logger != nil {
		p.Logger.Warn("nossl2 false has no effect: SSL 2.0 is not spoken here")
	}
	return s, nil
}

// Check is Validate and reads the files, as Server and Dialer do before they
// begin: a program can so find out in time that they could not. The error is a
// *[FieldError].
func (p *Properties) Check(role tlsprops.Role) error {
	_, err := p.load(role)
	return err
}

// Load reads the files as Server and Dialer do, for a program that wants to watch
// their certificates without either: see [tlsprops.Source]. The error is
// [tlsprops.ErrDisabled] in a mode without TLS, else a *[FieldError].
func (p *Properties) Load(role tlsprops.Role) (*tlsprops.Source, error) {
	s, err := p.load(role)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return nil, tlsprops.ErrDisabled
	}
	return s.source, nil
}

// checkListenerKey refuses a certificate with which no handshake could succeed.
func (p *Properties) checkListenerKey(s *tlsSource) error {
	config, err := s.source.ServerConfig()
	if err != nil {
		return ours(err)
	}
	if _, ok := config.Certificates[0].Leaf.PublicKey.(*rsa.PublicKey); ok {
		return nil
	}
	if s.profile.rsaOnly {
		return &FieldError{Field: fieldKeyStore, Path: p.KeyStore, Err: errors.New(
			"the key is not RSA, and the only suite of this mode needs one (RFC 5246 section 7.4.2): use an RSA certificate, or set tls to bcp195",
		)}
	}
	if s.profile.legacy && p.Logger != nil {
		p.Logger.Warn("the listener's key is not RSA: peers that have only TLS_RSA_WITH_AES_128_CBC_SHA, Mirth Connect for one, cannot connect")
	}
	return nil
}

// serverConfig returns the configuration of a listener. Each handshake uses the
// files that are current when it begins; none reads one.
func (s *tlsSource) serverConfig() (*tls.Config, error) {
	base, err := s.source.ServerConfig()
	if err != nil {
		return nil, ours(err)
	}
	current := base.GetConfigForClient
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		theirs, err := current(hello)
		if err != nil || theirs == nil {
			return theirs, err
		}
		last := s.server.Load()
		if last == nil || last.theirs != theirs {
			// Several handshakes may do this at once after a rotation; all make
			// the same.
			last = &adapted{theirs, s.profile.apply(theirs.Clone())}
			s.server.Store(last)
		}
		return last.ours, nil
	}
	return s.profile.apply(base), nil
}

// clientConfig returns the configuration for one connection to the host
// serverName, a name or an IP address without a port, having looked at the files
// if that is due.
func (s *tlsSource) clientConfig(ctx context.Context, serverName string) (*tls.Config, error) {
	if err := s.source.Refresh(ctx); err != nil {
		return nil, err
	}
	config, err := s.source.ClientConfig(serverName)
	if err != nil {
		return nil, ours(err)
	}
	return s.profile.apply(config), nil
}

// watch looks at the files when it is due, until ctx ends.
func (s *tlsSource) watch(ctx context.Context) { s.source.Watch(ctx) }

// TLSHint returns what a person can do about an error of a handshake, in the
// names of Properties, in one line that fits behind the error; "" if nothing is
// known about it.
func TLSHint(err error) string { return theirNames.Replace(tlsprops.Hint(err)) }
