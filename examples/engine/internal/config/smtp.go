package config

import (
	"html"
	"io"
	"net/textproto"
	"time"

	"github.com/carewire/carewire/smtpx"
	"github.com/carewire/carewire/tlsprops"
)

// SMTPDestination sends each message as a mail, or a mail about each message. Its
// names are those of the deployment guide and of Mirth.
type SMTPDestination struct {
	SMTPHost   string               `yaml:"smtpHost"`
	SMTPPort   int                  `yaml:"smtpPort"` // unset: 25, 587 or 465, by Encryption
	Encryption smtpx.SmtpEncryption `yaml:"encryption"`

	Authentication bool   `yaml:"authentication"`
	Username       string `yaml:"username"`
	Password       string `yaml:"password"`

	From    Template  `yaml:"from"`
	To      Addresses `yaml:"to"`
	Cc      Addresses `yaml:"cc"`
	Bcc     Addresses `yaml:"bcc"`
	ReplyTo Addresses `yaml:"replyTo"`
	Headers []Header  `yaml:"headers"`
	Subject Template  `yaml:"subject"`
	// HTML says that Body is HTML, in which what a message has stands for its
	// characters and brings no markup with it.
	HTML        bool         `yaml:"html"`
	Body        Template     `yaml:"body"`
	Attachments []Attachment `yaml:"attachments"`

	// TLS adds to the host's roots, or replaces them; it goes with tls and ssl.
	TLS *tlsprops.TlsProperties `yaml:"tls"`
	// Timeout bounds one mail, from connecting to the server's last answer. 0: 5 min.
	Timeout time.Duration `yaml:"timeout"`
}

// An Attachment is a file in a mail.
type Attachment struct {
	Name     Template `yaml:"name"`
	MimeType string   `yaml:"mimeType"` // unset: by Name
	// Content is what is in it. ${message.raw} are the bytes of the message.
	Content Template `yaml:"content"`
}

// Values are what a message has for templates.
type Values struct {
	// Text is for headers, bodies and names: UTF-8.
	Text func(variable string) (string, error)
	// Bytes is for the content of attachments.
	Bytes func(variable string) (string, error)
}

// Sender returns what package smtpx needs to know. The files of TLS are the
// engine's to add to.
func (s *SMTPDestination) Sender() *smtpx.Sender {
	sender := &smtpx.Sender{Host: s.SMTPHost, Port: s.SMTPPort, Encryption: s.Encryption, TLS: s.TLS, MaxConns: 1}
	if s.Authentication {
		sender.Auth = smtpx.Auth{Username: s.Username, Password: s.Password}
	}
	return sender
}

// Message returns the mail for one message.
func (s *SMTPDestination) Message(v Values) (*smtpx.Message, error) {
	m := &smtpx.Message{Headers: make(map[string]string)}
	var err error
	list := func(a Addresses) (out []string) {
		if err == nil {
			out, err = a.Expand(v.Text)
		}
		return out
	}
	text := func(t Template, value func(string) (string, error)) (out string) {
		if err == nil {
			out, err = t.Expand(value)
		}
		return out
	}
	m.To, m.Cc, m.Bcc, m.ReplyTo = list(s.To), list(s.Cc), list(s.Bcc), list(s.ReplyTo)
	m.From, m.Subject = text(s.From, v.Text), text(s.Subject, v.Text)
	for _, h := range s.Headers {
		m.Headers[h.Name] = text(h.Value, v.Text)
	}
	if s.HTML {
		m.HTML = text(s.Body, func(variable string) (string, error) {
			value, err := v.Text(variable)
			return html.EscapeString(value), err
		})
	} else {
		m.Text = text(s.Body, v.Text)
	}
	for _, a := range s.Attachments {
		m.Attachments = append(m.Attachments, smtpx.Attachment{
			Name: text(a.Name, v.Text), ContentType: a.MimeType, Data: []byte(text(a.Content, v.Bytes)),
		})
	}
	return m, err
}

func (d *decoder) smtpDestination(key string, s *SMTPDestination) {
	d.host(join(key, "smtpHost"), s.SMTPHost, "the mail server")
	if at := join(key, "smtpPort"); d.has(at) {
		d.port(at, s.SMTPPort)
	}
	if at := join(key, "encryption"); !d.has(at) {
		d.at(at, "is missing: tls for STARTTLS, ssl for TLS from the start, none to send in the clear")
	} else {
		d.oneOf(at, string(s.Encryption), "none", "tls", "ssl")
	}
	d.credentials(key, "authentication", s.Authentication, s.Username, s.Password)
	for name, missing := range map[string]bool{"from": s.From.Empty(), "to": len(s.To) == 0} {
		if at := join(key, name); missing && d.clean(at) {
			d.at(at, "is missing")
		}
	}
	d.headers(key, s.Headers)
	names := make(map[string]string)
	for i, h := range s.Headers {
		if h.Name != "" {
			d.distinct(names, join(entry(join(key, "headers"), i), "name"), textproto.CanonicalMIMEHeaderKey(h.Name))
		}
	}
	for i, a := range s.Attachments {
		if at := join(entry(join(key, "attachments"), i), "name"); a.Name.Empty() && d.clean(at) {
			d.at(at, "is missing")
		}
	}
	if s.Subject.usesRaw() {
		d.at(join(key, "subject"), "cannot hold ${message.raw}, which has more than one line")
	}
	d.within(key, "timeout", s.Timeout, time.Hour)
	if s.TLS != nil {
		d.tls(join(key, "tls"), *s.TLS, tlsprops.Client, s.SMTPHost)
	}
	if !d.cleanUnder(key) {
		return
	}
	sender := s.Sender()
	sender.TLS = readable(sender.TLS)
	d.library(key, sender.Validate())
	// A mail about nothing shows what is wrong with every mail.
	sample := func(string) (string, error) { return "0", nil }
	mail, err := s.Message(Values{Text: sample, Bytes: sample})
	if err == nil {
		_, err = mail.WriteTo(io.Discard)
	}
	d.library(key, err)
}
