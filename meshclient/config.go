package meshclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/tlsprops"
)

// Config are the settings of one mailbox. BaseURL, Mailbox, Password and
// HashSecret are needed, and so are ClientCert and ClientKey, or TLS, for every
// server but one on this machine.
//
// Printing and logging leave out what is secret; encoding/json does not.
type Config struct {
	// BaseURL is where the API is: https://msg.intspineservices.nhs.uk, say, with
	// or without a final /messageexchange. http:// is refused, but to this machine.
	BaseURL string `json:"baseUrl" yaml:"baseUrl"`
	// Mailbox is the mailbox's id. It is used in upper case.
	Mailbox string `json:"mailbox" yaml:"mailbox"`
	// Password is that of the mailbox. Like Mailbox it must not hold a colon.
	Password string `json:"password" yaml:"password"`
	// HashSecret is the environment's shared key, with which tokens are made.
	HashSecret string `json:"hashSecret" yaml:"hashSecret"`

	// ClientCert is the client's certificate and the intermediates above it,
	// ClientKey its private key, CACert the roots that may have issued the
	// server's certificate. Each is the name of a file, or PEM itself, in which
	// \n may stand for the end of a line. With an empty ClientKey the key is in
	// ClientCert too. Where all that are set are files, they are watched, and what
	// changes is used without a restart; PEM itself is taken as it is now, and an
	// encrypted key is refused in it: TLS has its passphrase.
	//
	// MESH's servers have certificates of the NHS's own CAs, which no host
	// trusts by itself. CACert replaces the host's roots; empty: these are used.
	ClientCert string `json:"clientCert,omitempty" yaml:"clientCert,omitempty"`
	ClientKey  string `json:"clientKey,omitempty" yaml:"clientKey,omitempty"`
	CACert     string `json:"caCert,omitempty" yaml:"caCert,omitempty"`
	// RejectUnauthorized is here so that false is refused with a reason: the
	// server's certificate is always verified. nil means true.
	RejectUnauthorized *bool `json:"rejectUnauthorized,omitempty" yaml:"rejectUnauthorized,omitempty"`
	// TLS are the settings of TLS in full, in the place of the three above.
	// rejectUnauthorized false and every verify but full are refused.
	TLS *tlsprops.TlsProperties `json:"tls,omitempty" yaml:"tls,omitempty"`

	// ProxyURL and NoProxy are those of httpsender.Sender.
	ProxyURL string `json:"proxyUrl,omitempty" yaml:"proxyUrl,omitempty"`
	NoProxy  string `json:"noProxy,omitempty" yaml:"noProxy,omitempty"`

	// MaxMessageBytes is how large a message may be that is received, after
	// decompression. 0: 100 GB, the most that MESH carries; negative is refused.
	MaxMessageBytes int64 `json:"maxMessageBytes,omitempty" yaml:"maxMessageBytes,omitempty"`
	// MaxCompressionRatio is how many bytes may come of each compressed byte that
	// is received, beyond the first MiB. 0: 100; negative: any.
	MaxCompressionRatio int `json:"maxCompressionRatio,omitempty" yaml:"maxCompressionRatio,omitempty"`

	// Retry says how often, and after which pause, what can be repeated without
	// harm is. Its zero value has httpsender's defaults, but no MaxElapsed: the
	// number of attempts bounds it, and the context of the call.
	Retry httpsender.Retry `json:"-" yaml:"-"`
	// NetDialer makes the connections below TLS; nil: see httpsender.Sender.
	NetDialer interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	} `json:"-" yaml:"-"`
	// Observe is told of connections, attempts and pauses: see httpsender.Sender.
	Observe func(httpsender.Event) `json:"-" yaml:"-"`
	// Logger gets what Observe gets, a warning when the clocks of this machine and
	// the server differ, and one with every handshake from 60 days before the
	// client's certificate expires. nil: nothing is logged.
	Logger *slog.Logger `json:"-" yaml:"-"`
}

// UnmarshalJSON refuses fields that do not exist: a misspelt rejectUnauthorized
// must not pass for a default.
func (c *Config) UnmarshalJSON(data []byte) error {
	type plain Config // without this method
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode((*plain)(c)); err != nil {
		if _, syntax := errors.AsType[*json.SyntaxError](err); syntax {
			return errors.New("meshclient: the settings are not well-formed JSON")
		}
		return fmt.Errorf("meshclient: settings: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// DefaultDir is where FromEnvironment looks for files.
const DefaultDir = "/certs"

// The files that FromEnvironment looks for, and the variables that come before
// them.
var sources = []struct {
	variable, file string
	secret         bool // the file holds the value; else it is the value
	set            func(*Config) *string
}{
	{"MESH_CLIENT_CERT", "mesh-client-cert.pem", false, func(c *Config) *string { return &c.ClientCert }},
	{"MESH_CLIENT_KEY", "mesh-client-key.pem", false, func(c *Config) *string { return &c.ClientKey }},
	{"MESH_CA_CERT", "nhs-ptl-rootca.pem", false, func(c *Config) *string { return &c.CACert }},
	{"MESH_HASH_SECRET", "mesh-hash-secret", true, func(c *Config) *string { return &c.HashSecret }},
	{"MESH_MAILBOX_ID", "mesh-mailbox-id", true, func(c *Config) *string { return &c.Mailbox }},
	{"MESH_MAILBOX_PASSWORD", "mesh-mailbox-password", true, func(c *Config) *string { return &c.Password }},
}

// maxSecret bounds the files that hold one value.
const maxSecret = 64 << 10

// FromEnvironment returns the settings that variables and the files of a
// directory hold, DefaultDir if it is empty. A variable that is set and not
// empty comes before its file; a file need not be there.
//
//	MESH_BASE_URL          or else MESH_URI_INTEGRATION    BaseURL
//	MESH_CLIENT_CERT       mesh-client-cert.pem            ClientCert
//	MESH_CLIENT_KEY        mesh-client-key.pem             ClientKey
//	MESH_CA_CERT           nhs-ptl-rootca.pem              CACert
//	MESH_HASH_SECRET       mesh-hash-secret                HashSecret
//	MESH_MAILBOX_ID        mesh-mailbox-id                 Mailbox
//	MESH_MAILBOX_PASSWORD  mesh-mailbox-password           Password
//
// getenv is os.Getenv, which nil stands for, or something like it. Whether the
// settings are complete and good, New says.
func FromEnvironment(dir string, getenv func(string) string) (Config, error) {
	if getenv == nil {
		getenv = os.Getenv
	}
	if dir == "" {
		dir = DefaultDir
	}
	var c Config
	if c.BaseURL = getenv("MESH_BASE_URL"); c.BaseURL == "" {
		c.BaseURL = getenv("MESH_URI_INTEGRATION")
	}
	for _, s := range sources {
		field := s.set(&c)
		if *field = getenv(s.variable); *field != "" {
			continue
		}
		path := filepath.Join(dir, s.file)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return Config{}, fmt.Errorf("meshclient: %s is not set, and its file: %w", s.variable, err)
		case !s.secret:
			*field = path
			continue
		case !info.Mode().IsRegular() || info.Size() > maxSecret:
			return Config{}, fmt.Errorf("meshclient: %s is not a file of at most %d bytes", path, maxSecret)
		}
		value, err := os.ReadFile(path) //nolint:gosec // the caller's own directory
		if err != nil {
			return Config{}, fmt.Errorf("meshclient: %s is not set, and its file: %w", s.variable, err)
		}
		*field = strings.TrimRight(string(value), "\r\n")
	}
	return c, nil
}

// validate returns the settings as they are used, the base with /messageexchange.
func (c Config) validate() (Config, *url.URL, error) {
	c.Mailbox = strings.ToUpper(c.Mailbox)
	for _, f := range []struct{ name, value string }{
		{"mailbox", c.Mailbox}, {"password", c.Password}, {"hashSecret", c.HashSecret},
	} {
		switch {
		case f.value == "":
			return c, nil, refuse(f.name, "is missing")
		case f.name != "hashSecret" && strings.Contains(f.value, ":"):
			return c, nil, refuse(f.name, "must not hold a colon, which separates the parts of a token")
		case strings.ContainsFunc(f.value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return c, nil, refuse(f.name, "holds a control character, a line break perhaps")
		}
	}
	if strings.ContainsAny(c.Mailbox, " /") {
		return c, nil, refuse("mailbox", "must not hold a space or a slash")
	}
	if c.RejectUnauthorized != nil && !*c.RejectUnauthorized {
		return c, nil, refuse("rejectUnauthorized", "is false: the server's certificate is always verified; "+
			"set caCert to the root that issued it")
	}
	if c.MaxMessageBytes < 0 {
		return c, nil, refuse("maxMessageBytes", "is negative")
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = maxMessage
	}
	base, err := parseBase(c.BaseURL)
	return c, base, err
}

// parseBase returns the URL below which the mailboxes are.
func parseBase(s string) (*url.URL, error) {
	if s == "" {
		return nil, refuse("baseUrl", "is missing: https://msg.intspineservices.nhs.uk is the integration environment's")
	}
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, refuse("baseUrl", "is not https://host[:port][/path]")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return nil, refuse("baseUrl", "must be https://: a token and patients' data are not sent in the clear")
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), root) + root
	u.RawPath = ""
	return u, nil
}

// root is the path of the API on its host.
const root = "/messageexchange"

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// refuse returns the error for a setting.
func refuse(field, why string) error {
	return &ConfigError{Field: field, Err: errors.New(why)}
}

// A ConfigError says which setting is wrong, and never what a secret is.
type ConfigError struct {
	Field string // as in JSON
	Err   error
}

// Error returns one line.
func (e *ConfigError) Error() string { return "meshclient: " + e.Field + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *ConfigError) Unwrap() error { return e.Err }

// redacted stands for a secret that is set.
const redacted = "[redacted]"

// LogValue returns the settings without what is secret.
func (c Config) LogValue() slog.Value {
	var attrs []slog.Attr
	text := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	secret := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, redacted))
		}
	}
	pem := func(name, value string) {
		if isPEM(value) {
			secret(name, value)
		} else {
			text(name, value)
		}
	}
	if u, err := parseBase(c.BaseURL); err == nil {
		text("baseUrl", u.String()) // without a password that should not be in it
	}
	text("mailbox", c.Mailbox)
	secret("password", c.Password)
	secret("hashSecret", c.HashSecret)
	pem("clientCert", c.ClientCert)
	pem("clientKey", c.ClientKey)
	pem("caCert", c.CACert)
	if c.TLS != nil {
		attrs = append(attrs, slog.Any("tls", c.TLS.LogValue()))
	}
	secret("proxyUrl", c.ProxyURL)
	return slog.GroupValue(attrs...)
}

// String returns the settings without what is secret.
func (c Config) String() string { return "Config" + c.LogValue().String() }

// Format prints String for every verb, so that none shows a secret.
func (c Config) Format(w fmt.State, _ rune) { _, _ = w.Write([]byte(c.String())) }
