package config

import (
	"net/textproto"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/tlsprops"
)

// HTTPDestination sends each message as one HTTP request.
type HTTPDestination struct {
	// Host is the URL, https:// or http://, as Mirth names it. It is fixed when the
	// engine starts.
	Host        string `yaml:"host"`
	Method      string `yaml:"method"`      // default: POST
	ContentType string `yaml:"contentType"` // default: application/hl7-v2
	// Headers are further headers. With Idempotency-Key, such as
	// ${message.channelId}-${message.id}, a request whose answer did not come is
	// known not to do harm a second time.
	Headers []Header `yaml:"headers"`
	// Content is the body. Default: ${message.raw}, the bytes of the message.
	Content Template `yaml:"content"`

	UseAuthentication  bool   `yaml:"useAuthentication"`
	AuthenticationType string `yaml:"authenticationType"` // Basic or Digest; default: Basic
	Username           string `yaml:"username"`
	Password           string `yaml:"password"`

	// TLS is for https:// alone. Unset: the host's roots, and no client certificate.
	TLS *tlsprops.TlsProperties `yaml:"tls"`
	// ProxyURL is httpsender.Sender's: unset, the variables HTTPS_PROXY, HTTP_PROXY
	// and NO_PROXY count; none: there is no proxy.
	ProxyURL string `yaml:"proxyUrl"`
	// ResponseTimeout is how long the answer may take to begin. 0: 30 s.
	ResponseTimeout time.Duration `yaml:"responseTimeout"`
}

// A Header is one header of a request or a mail.
type Header struct {
	Name  string   `yaml:"name"`
	Value Template `yaml:"value"`
}

// Sender returns what package httpsender needs to know, which tries once: the
// queue tries again. The files of TLS are the engine's to add to.
func (h *HTTPDestination) Sender() *httpsender.Sender {
	s := &httpsender.Sender{
		TLS: h.TLS, ProxyURL: h.ProxyURL, ResponseHeaderTimeout: h.ResponseTimeout,
		Retry: httpsender.Retry{MaxAttempts: -1}, Breaker: httpsender.Breaker{Failures: -1},
	}
	if h.UseAuthentication {
		s.Auth = httpsender.Auth{Scheme: httpsender.AuthBasic, Username: h.Username, Password: h.Password}
		if h.AuthenticationType == "Digest" {
			s.Auth.Scheme = httpsender.AuthDigest
		}
	}
	return s
}

func (h *HTTPDestination) setDefaults() {
	setDefault(&h.Method, "POST")
	setDefault(&h.ContentType, "application/hl7-v2")
	setDefault(&h.AuthenticationType, "Basic")
	setDefault(&h.ResponseTimeout, defaultResponseTimeout)
	if h.Content.Empty() {
		h.Content = rawTemplate
	}
}

func (d *decoder) httpDestination(key string, h *HTTPDestination) {
	secure := d.url(join(key, "host"), h.Host)
	if at := join(key, "method"); d.has(at) && d.clean(at) && !isToken(h.Method) {
		d.at(at, "is not a method: write it such as POST or PUT")
	}
	if at := join(key, "contentType"); d.has(at) && d.clean(at) && strings.ContainsFunc(h.ContentType, unicode.IsControl) {
		d.at(at, "cannot stand in a header")
	}
	d.headers(key, h.Headers, "Authorization", "Content-Length", "Content-Type", "Host", "Transfer-Encoding")
	d.oneOf(join(key, "authenticationType"), h.AuthenticationType, "Basic", "Digest")
	d.credentials(key, "useAuthentication", h.UseAuthentication, h.Username, h.Password, "authenticationType")
	d.within(key, "responseTimeout", h.ResponseTimeout, maxTimeout)
	d.proxy(join(key, "proxyUrl"), h.ProxyURL)
	if h.TLS == nil {
		return
	}
	if at := join(key, "tls"); !secure && d.clean(join(key, "host")) {
		d.at(at, "is used with an https:// host only: remove one of the two")
	} else if u, err := url.Parse(h.Host); err == nil {
		d.tls(at, *h.TLS, tlsprops.Client, u.Hostname())
	}
}

func (d *decoder) proxy(key, proxy string) {
	if !d.has(key) || !d.clean(key) || proxy == httpsender.DirectOnly {
		return
	}
	if u, err := url.Parse(proxy); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		d.at(key, "is neither http://host:port, https://host:port nor none")
	}
}

// url checks where to send, and tells whether it is https://.
func (d *decoder) url(key, text string) (secure bool) {
	u, err := url.Parse(text)
	switch {
	case !d.clean(key):
	case text == "":
		d.at(key, "is missing: the URL to send to, https://host[:port]/path")
	case strings.Contains(text, "${message."):
		d.at(key, "is fixed when the engine starts: per-message values cannot stand here")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.Fragment != "":
		d.at(key, "is not a URL to send to: write https://host[:port]/path")
	case u.User != nil:
		d.at(key, "holds credentials: use username and password")
	default:
		return u.Scheme == "https"
	}
	return false
}

// headers checks the names of headers, and that values fit a line.
func (d *decoder) headers(parent string, list []Header, reserved ...string) {
	for i, h := range list {
		at := entry(join(parent, "headers"), i)
		name := join(at, "name")
		switch {
		case !d.clean(name):
		case h.Name == "":
			d.at(name, "is missing")
		case !isToken(h.Name):
			d.at(name, "is not a name of a header")
		default:
			for _, r := range reserved {
				if textproto.CanonicalMIMEHeaderKey(h.Name) == r {
					d.at(name, "is made by the engine: remove it")
				}
			}
		}
		if h.Value.usesRaw() {
			d.at(join(at, "value"), "cannot hold ${message.raw}, which has more than one line")
		}
	}
}

// credentials checks a user and a password, which go with the key that turns
// them on.
func (d *decoder) credentials(parent, on string, used bool, user, password string, more ...string) {
	if !used {
		d.refuse(parent, "is used only with "+on+": true", append([]string{"username", "password"}, more...)...)
		return
	}
	for name, value := range map[string]string{"username": user, "password": password} {
		if at := join(parent, name); value == "" && d.clean(at) {
			d.at(at, "is missing, with %s: true", on)
		}
	}
}

// isToken tells whether s is a word as HTTP and mail have them for methods and
// names of headers (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
