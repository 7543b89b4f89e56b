package dicomtls

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// Properties are the TLS settings of one DICOM listener or sender. The first
// block are the settings of the deployment guide, letter by letter, the second
// are carewire's own, and the third are set by programs and never read from
// configuration.
//
// The zero value is DICOM without TLS; any other setting is then an error. A
// setting that cannot be honoured is a *[FieldError], never a weaker connection.
// A sender always verifies the server.
//
// Printing and logging leave out the passwords; encoding/json does not, so that
// a configuration survives being saved.
type Properties struct {
	// TLS is the mode: notls, 3des, aes or bcp195. Absent: notls.
	TLS DicomTlsMode `json:"tls,omitempty" yaml:"tls,omitempty"`
	// KeyStore is a file with the private key and its certificates: JKS, JCEKS,
	// PKCS#12 or PEM, told apart by content. A listener needs it, and a client
	// needs it unless NoClientAuth is set; there is no built-in key store.
	KeyStore string `json:"keyStore,omitempty" yaml:"keyStore,omitempty"`
	// KeyStorePW opens KeyStore.
	KeyStorePW string `json:"keyStorePW,omitempty" yaml:"keyStorePW,omitempty"`
	// KeyPW opens the key inside KeyStore. Empty: KeyStorePW does. In a PEM file,
	// which has no password of its own, either opens the key.
	KeyPW string `json:"keyPW,omitempty" yaml:"keyPW,omitempty"`
	// TrustStore is a file with the CAs that may have issued the peer's
	// certificate, in the formats of KeyStore. It is needed wherever a peer's
	// certificate is checked against CAs, and the host's roots are never used.
	TrustStore string `json:"trustStore,omitempty" yaml:"trustStore,omitempty"`
	// TrustStorePW opens TrustStore. Empty: a JKS trust store is read without its
	// integrity being checked, as Java does it.
	TrustStorePW string `json:"trustStorePW,omitempty" yaml:"trustStorePW,omitempty"`
	// NoClientAuth means what it says: true makes a listener not ask clients for
	// a certificate, and lets a client do without one (one that is configured is
	// presented all the same). False, the default, requires one of every client.
	//
	// Mirth Connect stores the opposite of what the name says: there, true is its
	// default and requires client certificates. Settings taken from Mirth must be
	// inverted.
	NoClientAuth bool `json:"noClientAuth,omitempty" yaml:"noClientAuth,omitempty"`
	// NoSSL2 is about SSL 2.0, which is never spoken: nil and true say so, and
	// false is warned of and has no effect.
	NoSSL2 *bool `json:"nossl2,omitempty" yaml:"nossl2,omitempty"`

	// CertStore is a PEM file with the certificates of the key in KeyStore. Empty:
	// they are in KeyStore.
	CertStore string `json:"certStore,omitempty" yaml:"certStore,omitempty"`
	// KeyAlias says which key of a key store. Empty: its only one.
	KeyAlias string `json:"keyAlias,omitempty" yaml:"keyAlias,omitempty"`
	// Verification is how the peer's certificate is judged: "full" checks the
	// chain to TrustStore and, on a client, the name; "chain-only" does not check
	// the name, for equipment whose certificate names no host, and lets everyone
	// with a certificate of those CAs pose as the peer; "pinned" checks Pins and
	// nothing else, for self-signed peers. Empty: full.
	Verification tlsprops.VerifyMode `json:"verification,omitempty" yaml:"verification,omitempty"`
	// Pins are "sha256/" and the base64 of the SHA-256 of the peer's public key
	// (SubjectPublicKeyInfo), checked on top of Verification. Empty: none.
	Pins []string `json:"pins,omitempty" yaml:"pins,omitempty"`
	// ServerName is the name that a client sends and checks the certificate for.
	// Empty: the host it dials.
	ServerName string `json:"serverName,omitempty" yaml:"serverName,omitempty"`
	// CRLPaths are files or directories of revocation lists, PEM or DER; what
	// cannot be found in a current one is refused. Empty: no revocation checking.
	CRLPaths []string `json:"crlPaths,omitempty" yaml:"crlPaths,omitempty"`
	// AnyExtendedKeyUsage accepts peers whose certificate was issued for the
	// other role, as that of a device that is both sometimes is.
	AnyExtendedKeyUsage bool `json:"anyExtendedKeyUsage,omitempty" yaml:"anyExtendedKeyUsage,omitempty"`

	// ReloadInterval is how often the files are looked at. Zero: 10 s. Negative:
	// never again.
	ReloadInterval time.Duration `json:"-" yaml:"-"`
	// Observe is called for every event of the files and certificates, by several
	// goroutines at once. It must not block. nil: nobody is told.
	Observe func(tlsprops.Event) `json:"-" yaml:"-"`
	// Logger gets what Observe gets, and warnings. nil: nothing is logged.
	Logger *slog.Logger `json:"-" yaml:"-"`
}

// The names of settings that errors speak of.
const (
	fieldTLS        = "tls"
	fieldKeyStore   = "keyStore"
	fieldTrustStore = "trustStore"
)

// theirNames are the settings of tlsprops and what they are called here; advice
// to use one that is not here goes away.
var theirNames = strings.NewReplacer(
	" (allowExpired starts with it nevertheless)", "",
	", or alwaysSendClientCert if they are set", "",
	"sniServerName, or expectedName,", "serverName",
	"sniServerName, or expectedName", "serverName",
	", or set crlCheck to soft", "",
	"keyStorePath", fieldKeyStore,
	"certStorePath", "certStore",
	"trustStorePath", fieldTrustStore,
	"passphraseFile", "keyPW",
	"keyPassphrase", "keyPW",
	"passphrase", "keyStorePW",
	"sniServerName", "serverName",
	"requireClientCert", "noClientAuth",
	"verify is", "verification is",
	"verify chain-only", "verification chain-only",
	"verify pinned", "verification pinned",
	"set verify", "set verification",
)

// A FieldError says which setting, and which file, cannot be honoured, why, and
// what to do. Its text is one line and holds no content of any file.
type FieldError struct {
	Field string // as in JSON and YAML: "trustStore"
	Path  string // the file or the offending word; empty if there is none
	Err   error
}

// Error returns "dicomtls: field path: reason".
func (e *FieldError) Error() string {
	text := "dicomtls: " + e.Field
	if e.Path != "" {
		text += fmt.Sprintf(" %q", e.Path)
	}
	return text + ": " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *FieldError) Unwrap() error { return e.Err }

func refuse(field, text string) error { return &FieldError{Field: field, Err: errors.New(text)} }

// ours turns a *tlsprops.FieldError into one in the names of this package.
func ours(err error) error {
	theirs, ok := errors.AsType[*tlsprops.FieldError](err)
	if !ok {
		return err
	}
	field := theirs.Field
	switch field {
	case "verify":
		field = "verification"
	case "passphrase":
		field = "keyStorePW"
	default:
		field = theirNames.Replace(field)
	}
	return &FieldError{Field: field, Path: theirs.Path, Err: &renamed{theirs.Err}}
}

// renamed is an error of tlsprops in the names of this package.
type renamed struct{ err error }

func (e *renamed) Error() string { return theirNames.Replace(e.err.Error()) }
func (e *renamed) Unwrap() error { return e.err }

// UnmarshalJSON refuses settings that do not exist: a misspelt noClientAuth must
// not pass for a default.
func (p *Properties) UnmarshalJSON(data []byte) error {
	type plain Properties // without this method
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode((*plain)(p))
	if field, ok := errors.AsType[*FieldError](err); ok {
		return field
	}
	if err != nil {
		return fmt.Errorf("dicomtls: %s: correct the TLS settings", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// given are the settings besides TLS that are set, in the order of the struct.
func (p *Properties) given() []string {
	var names []string
	for _, s := range []struct {
		name string
		set  bool
	}{
		{fieldKeyStore, p.KeyStore != ""},
		{"keyStorePW", p.KeyStorePW != ""},
		{"keyPW", p.KeyPW != ""},
		{fieldTrustStore, p.TrustStore != ""},
		{"trustStorePW", p.TrustStorePW != ""},
		{"noClientAuth", p.NoClientAuth},
		{"certStore", p.CertStore != ""},
		{"keyAlias", p.KeyAlias != ""},
		{"verification", p.Verification != ""},
		{"pins", len(p.Pins) > 0},
		{"serverName", p.ServerName != ""},
		{"crlPaths", len(p.CRLPaths) > 0},
		{"anyExtendedKeyUsage", p.AnyExtendedKeyUsage},
	} {
		if s.set {
			names = append(names, s.name)
		}
	}
	return names
}

// Validate returns the first contradiction that can be seen without reading a
// file, as a *FieldError; nil if there is none. Server and Dialer do the same
// before they do anything else.
func (p *Properties) Validate(role tlsprops.Role) error {
	if err := p.TLS.check(); err != nil {
		return err
	}
	if !p.TLS.Enabled() {
		if names := p.given(); len(names) > 0 {
			return refuse(names[0], "is set although tls is notls: set tls to aes or bcp195, or remove it")
		}
		return nil
	}
	if err := p.validateStores(role); err != nil {
		return err
	}
	theirs := p.tlsProperties(role)
	return ours(theirs.ValidateFor(role))
}

// validateStores checks that every store is named that the role needs, and no
// password for one that is not.
func (p *Properties) validateStores(role tlsprops.Role) error {
	pinned := p.Verification == tlsprops.VerifyPinned
	judges := role == tlsprops.Client || !p.NoClientAuth
	switch {
	case p.KeyStore == "" && role == tlsprops.Listener:
		return refuse(fieldKeyStore, "is missing: a listener needs a private key and a certificate, and none is built in")
	case p.KeyStore == "" && !p.NoClientAuth:
		return refuse(fieldKeyStore, "is missing: name the client's key and certificate, or set noClientAuth to true if the server asks for none")
	case p.TrustStore == "" && judges && !pinned:
		return refuse(fieldTrustStore, "is missing: name the CAs that issue the peers' certificates; none are built in, and the host's are not used")
	case p.TrustStore != "" && pinned:
		return refuse(fieldTrustStore, "is not looked at when verification is pinned: remove it, or set verification to full, which checks it and pins")
	case p.TrustStore == "" && p.TrustStorePW != "":
		return refuse("trustStorePW", "is set without trustStore: set trustStore, or remove it")
	}
	if p.KeyStore == "" {
		for _, s := range []struct{ name, value string }{
			{"keyStorePW", p.KeyStorePW}, {"keyPW", p.KeyPW}, {"certStore", p.CertStore}, {"keyAlias", p.KeyAlias},
		} {
			if s.value != "" {
				return refuse(s.name, "is set without keyStore: set keyStore, or remove it")
			}
		}
	}
	if !judges {
		for _, s := range []struct {
			name string
			set  bool
		}{
			{"verification", p.Verification != ""},
			{"pins", len(p.Pins) > 0},
			{"crlPaths", len(p.CRLPaths) > 0},
			{"anyExtendedKeyUsage", p.AnyExtendedKeyUsage},
		} {
			if s.set {
				return refuse(s.name, "is about client certificates, for which noClientAuth true does not ask: remove one of the two")
			}
		}
	}
	return nil
}

// LogValue returns the settings without the passwords.
func (p Properties) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String(fieldTLS, p.TLS.String())}
	for _, name := range p.given() {
		var value slog.Value
		switch name {
		case fieldKeyStore:
			value = slog.StringValue(p.KeyStore)
		case fieldTrustStore:
			value = slog.StringValue(p.TrustStore)
		case "certStore":
			value = slog.StringValue(p.CertStore)
		case "keyAlias":
			value = slog.StringValue(p.KeyAlias)
		case "verification":
			value = slog.StringValue(string(p.Verification))
		case "serverName":
			value = slog.StringValue(p.ServerName)
		case "pins":
			value = slog.StringValue(strings.Join(p.Pins, " "))
		case "crlPaths":
			value = slog.StringValue(strings.Join(p.CRLPaths, " "))
		case "noClientAuth", "anyExtendedKeyUsage":
			value = slog.BoolValue(true)
		default: // the passwords
			value = slog.StringValue("[redacted]")
		}
		attrs = append(attrs, slog.Attr{Key: name, Value: value})
	}
	return slog.GroupValue(attrs...)
}

// String returns the settings without the passwords.
func (p Properties) String() string {
	var b strings.Builder
	b.WriteString("Properties{")
	for i, a := range p.LogValue().Group() {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.Key + ":" + a.Value.String())
	}
	b.WriteByte('}')
	return b.String()
}

// Format prints String for every verb, so that none shows the passwords.
func (p Properties) Format(w fmt.State, _ rune) {
	_, _ = w.Write([]byte(p.String()))
}
