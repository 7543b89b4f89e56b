package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/tlsprops"
)

// Mailbox is what a source and a destination of type mesh have in common: the
// NHS MESH mailbox that they speak for.
type Mailbox struct {
	// BaseURL is where the API is, https://msg.intspineservices.nhs.uk say.
	BaseURL string `yaml:"baseUrl"`
	Mailbox string `yaml:"mailbox"`
	// Password is the mailbox's, HashSecret the environment's shared key.
	Password   string `yaml:"password"`
	HashSecret string `yaml:"hashSecret"`
	// TLS has the client's certificate, and as trust store the roots of the NHS. The
	// server is always verified: rejectUnauthorized false is refused.
	TLS *tlsprops.TlsProperties `yaml:"tls"`
	// ProxyURL is httpsender.Sender's: see HTTPDestination.
	ProxyURL string `yaml:"proxyUrl"`
}

// Config returns what package meshclient needs to know. The files of TLS are the
// engine's to add to.
func (m *Mailbox) Config() meshclient.Config {
	return meshclient.Config{
		BaseURL: m.BaseURL, Mailbox: m.Mailbox, Password: m.Password, HashSecret: m.HashSecret, TLS: m.TLS, ProxyURL: m.ProxyURL,
	}
}

// MESHSource takes messages in from the inbox of a mailbox.
type MESHSource struct {
	Mailbox `yaml:",inline"`

	// WorkflowFilter takes one workflow, or all but that: W, !W, W*, !W*, *W*, !*W*.
	// Unset: all.
	WorkflowFilter string `yaml:"workflowFilter"`
	// PollingFrequency is how often the inbox is listed, when it is not full. 0: 5
	// minutes, which is the shortest that MESH allows; up to 24 h.
	PollingFrequency time.Duration `yaml:"pollingFrequency"`
	// MaxMessageSize is the longest message that is taken, in bytes. 0: 16 MiB. One
	// that is longer stays in the inbox.
	MaxMessageSize int64 `yaml:"maxMessageSize"`
	// Directory has what must survive a restart beside the store: how far a message
	// has come, when the inbox was listed, reports. Default: mesh/ and the channel's
	// id under DataDir.
	Directory string `yaml:"directory"`
}

// MESHDestination sends each message to a mailbox.
type MESHDestination struct {
	Mailbox `yaml:",inline"`

	To          string   `yaml:"to"` // the recipient's mailbox
	WorkflowID  string   `yaml:"workflowId"`
	Subject     Template `yaml:"subject"`
	FileName    Template `yaml:"fileName"`
	ContentType string   `yaml:"contentType"` // default: application/octet-stream
	// Gzip compresses what is sent; the recipient gets it as it was.
	Gzip bool `yaml:"gzip"`
	// Content is what is sent. Default: ${message.raw}, the bytes of the message.
	Content Template `yaml:"content"`
}

func (m *MESHSource) setDefaults(dataDir, channel string) {
	setDefault(&m.PollingFrequency, defaultPollingFrequency)
	setDefault(&m.MaxMessageSize, defaultMaxMessageSize)
	setDefault(&m.Directory, filepath.Join(dataDir, "mesh", channel))
}

func (m *MESHDestination) setDefaults() {
	setDefault(&m.ContentType, "application/octet-stream")
	if m.Content.Empty() {
		m.Content = rawTemplate
	}
}

// defaultPollingFrequency is the shortest that MESH allows.
const defaultPollingFrequency = 5 * time.Minute

// mailbox checks what source and destination have in common.
func (d *decoder) mailbox(key string, m *Mailbox) {
	for _, f := range []struct{ name, value string }{
		{"baseUrl", m.BaseURL}, {"mailbox", m.Mailbox}, {"password", m.Password}, {"hashSecret", m.HashSecret},
	} {
		if at := join(key, f.name); f.value == "" && d.clean(at) {
			d.at(at, "is missing")
		}
	}
	d.proxy(join(key, "proxyUrl"), m.ProxyURL)
	if m.TLS != nil {
		host := ""
		if u, err := url.Parse(m.BaseURL); err == nil {
			host = u.Hostname()
		}
		d.tls(join(key, "tls"), *m.TLS, tlsprops.Client, host)
	}
	if !d.cleanUnder(key) {
		return
	}
	conf := m.Config()
	conf.TLS = readable(conf.TLS)
	client, err := meshclient.New(conf)
	if err == nil {
		_ = client.Close() // which has sent nothing
	}
	d.library(key, err)
}

func (d *decoder) meshSource(key string, m *MESHSource, directories map[string]string) {
	if at := join(key, "pollingFrequency"); d.clean(at) && m.PollingFrequency != 0 &&
		(m.PollingFrequency < defaultPollingFrequency || m.PollingFrequency > 24*time.Hour) {
		d.at(at, "must be between 5m and 24h, which are MESH's rules")
	}
	if at := join(key, "workflowFilter"); d.clean(at) && m.WorkflowFilter != "" && (len(m.WorkflowFilter) < 2 || len(m.WorkflowFilter) > 255) {
		d.at(at, "must have 2 to 255 bytes")
	}
	d.between(key, "maxMessageSize", m.MaxMessageSize, maxMessageSize, "bytes")
	if m.Directory != "" {
		d.directory(join(key, "directory"), m.Directory, directories)
	}
	d.mailbox(key, &m.Mailbox)
}

func (d *decoder) meshDestination(key string, m *MESHDestination) {
	for _, f := range []struct{ name, value string }{{"to", m.To}, {"workflowId", m.WorkflowID}} {
		at := join(key, f.name)
		switch {
		case !d.clean(at):
		case f.value == "":
			d.at(at, "is missing")
		case strings.Contains(f.value, "${message."):
			d.at(at, "is fixed when the engine starts: per-message values cannot stand here")
		}
	}
	if m.Subject.usesRaw() {
		d.at(join(key, "subject"), "cannot hold ${message.raw}, which has more than one line")
	}
	if m.FileName.usesRaw() {
		d.at(join(key, "fileName"), "cannot hold ${message.raw}, which has more than one line")
	}
	d.mailbox(key, &m.Mailbox)
}

// inboxes checks that no two sources empty one mailbox: MESH allows one at a time,
// and each would take messages of the other's.
func (d *decoder) inboxes(cfg *Config) {
	seen := make(map[string]string)
	for i := range cfg.Channels {
		m, key := cfg.Channels[i].Source.MESH, fmt.Sprintf("channels[%d].source.mailbox", i)
		if m == nil || m.Mailbox.Mailbox == "" || !d.clean(key) {
			continue
		}
		d.distinct(seen, key, m.inbox())
	}
}

// inbox is which mailbox a source empties.
func (m *MESHSource) inbox() string {
	return strings.ToUpper(m.Mailbox.Mailbox) + " " + strings.ToLower(m.BaseURL)
}
