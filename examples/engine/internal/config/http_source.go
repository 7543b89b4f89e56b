package config

import (
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// HTTPSource takes messages in over HTTP or HTTPS, the body of each request as one
// message. Its names are Mirth's.
type HTTPSource struct {
	// Host is the address to listen on, Port 1 to 65535. Both are required.
	Host string `yaml:"host"`
	Port int    `yaml:"port"`
	// ContextPath is the path that requests must have. Default: /
	ContextPath string `yaml:"contextPath"`
	// Methods are those that are taken. Default: POST and PUT.
	Methods []string `yaml:"methods"`
	// TLS is the guide's TlsProperties; nil and enabled: false mean none.
	TLS *tlsprops.TlsProperties `yaml:"tls"`

	// UseAuthentication asks for Username and Password (Basic).
	UseAuthentication bool   `yaml:"useAuthentication"`
	Username          string `yaml:"username"`
	Password          string `yaml:"password"`

	// Charset is the character set of what comes in, where a request does not say;
	// auto and unset: that of MSH-18. As TCPSource.CharsetEncoding.
	Charset mllp.Charset `yaml:"charset"`
	// MaxMessageSize is the longest body, in bytes. 0: 16 MiB.
	MaxMessageSize int64 `yaml:"maxMessageSize"`
	// MaxConnections is how many senders may be connected at once. 0: 256.
	MaxConnections int `yaml:"maxConnections"`
	// Timeout is how long a request may take to arrive, and its answer to leave. 0:
	// 30 s.
	Timeout time.Duration `yaml:"timeout"`

	// ResponseStatusCode, from 200 to 299, ResponseContentType and ResponseHeaders
	// are of the answer to a message that is stored, which has no body. Defaults:
	// 200, text/plain, none.
	ResponseStatusCode  int             `yaml:"responseStatusCode"`
	ResponseContentType string          `yaml:"responseContentType"`
	ResponseHeaders     []ResponseField `yaml:"responseHeaders"`
}

// A ResponseField is a header of every answer.
type ResponseField struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

const defaultHTTPConnections = 256

func (h *HTTPSource) setDefaults() {
	setDefault(&h.ContextPath, "/")
	if len(h.Methods) == 0 {
		h.Methods = []string{http.MethodPost, http.MethodPut}
	}
	setDefault(&h.MaxMessageSize, defaultMaxMessageSize)
	setDefault(&h.MaxConnections, defaultHTTPConnections)
	setDefault(&h.Timeout, defaultResponseTimeout)
	setDefault(&h.ResponseStatusCode, http.StatusOK)
	setDefault(&h.ResponseContentType, "text/plain")
}

func (d *decoder) httpSource(key string, h *HTTPSource, others []listener) []listener {
	hostOK := d.host(join(key, "host"), h.Host, "0.0.0.0 accepts from every network, 127.0.0.1 from this machine only")
	portOK := d.port(join(key, "port"), h.Port)
	if at := join(key, "contextPath"); d.has(at) && d.clean(at) && !isPath(h.ContextPath) {
		d.at(at, "is not a path: write it such as /hl7, without ? and with / in front")
	}
	for i, m := range h.Methods {
		if at := entry(join(key, "methods"), i); d.clean(at) && (!isToken(m) || m != strings.ToUpper(m) || slices.Contains([]string{"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"}, m)) {
			d.at(at, "is not a method that brings a message: write POST, PUT or PATCH")
		}
	}
	secure := h.TLS != nil && h.TLS.Enabled
	d.credentials(key, "useAuthentication", h.UseAuthentication, h.Username, h.Password)
	if h.UseAuthentication && !secure && hostOK && !IsLoopback(h.Host) {
		d.at(join(key, "useAuthentication"), "would let a password come in the clear: set tls, or listen on 127.0.0.1")
	}
	if at := join(key, "username"); h.UseAuthentication && d.clean(at) && strings.Contains(h.Username, ":") {
		d.at(at, "cannot hold a colon, which ends it in the header")
	}
	d.charset(join(key, "charset"), h.Charset)
	d.between(key, "maxMessageSize", h.MaxMessageSize, maxMessageSize, "bytes")
	d.between(key, "maxConnections", int64(h.MaxConnections), 100_000, "connections")
	d.within(key, "timeout", h.Timeout, maxTimeout)
	d.httpAnswer(key, h)
	if h.TLS != nil {
		d.tls(join(key, "tls"), *h.TLS, tlsprops.Listener, "")
	}
	if hostOK && portOK {
		others = d.claim(others, listener{h.Host, h.Port, join(key, "port")})
	}
	return others
}

// httpAnswer checks what every answer has.
func (d *decoder) httpAnswer(key string, h *HTTPSource) {
	if at := join(key, "responseStatusCode"); d.has(at) && d.clean(at) && (h.ResponseStatusCode < 200 || h.ResponseStatusCode > 299) {
		d.at(at, "must be from 200 to 299: it is for messages that are stored")
	}
	if at := join(key, "responseContentType"); d.has(at) && d.clean(at) {
		if _, _, err := mime.ParseMediaType(h.ResponseContentType); err != nil {
			d.at(at, "is not a content type: write it such as text/plain")
		}
	}
	for i, f := range h.ResponseHeaders {
		at := entry(join(key, "responseHeaders"), i)
		switch name := join(at, "name"); {
		case !d.clean(name):
		case f.Name == "":
			d.at(name, "is missing")
		case !isToken(f.Name):
			d.at(name, "is not a name of a header")
		case slices.Contains([]string{"Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Date"}, http.CanonicalHeaderKey(f.Name)):
			d.at(name, "is made by the engine: remove it")
		}
		if strings.ContainsFunc(f.Value, unicode.IsControl) {
			d.at(join(at, "value"), "cannot stand in a header")
		}
	}
}

func isPath(p string) bool {
	return strings.HasPrefix(p, "/") && !strings.ContainsAny(p, "?#%\\") && !strings.ContainsFunc(p, unicode.IsControl)
}
