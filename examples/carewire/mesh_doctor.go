package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/tlsprops"
)

type meshDoctorCmd struct{ meshFlags }

// Help is shown by --help.
func (c *meshDoctorCmd) Help() string {
	return "It looks at the settings, the client certificate, the roots, the server's certificate, the clock, and then shakes hands, and says of each what to " +
		"do. Nothing but the handshake is sent. The exit status is 1 when something is BAD."
}

// A finding is what the doctor says of one thing.
type finding struct {
	What  string `json:"what"`
	State string `json:"state"` // "ok", "warn" or "BAD"
	Says  string `json:"says"`
	Fix   string `json:"fix,omitempty"`
}

// A doctor collects findings.
type doctor struct {
	s    *streams
	json bool
	bad  int
	err  error // of printing
}

func (d *doctor) say(what, state, says, fix string) {
	if state == "BAD" {
		d.bad++
	}
	var err error
	if d.json {
		err = d.s.printJSON(finding{what, state, says, fix})
	} else if _, err = fmt.Fprintf(d.s.out, "%-4s %s: %s\n", state, what, says); err == nil && fix != "" {
		_, err = fmt.Fprintf(d.s.out, "     -> %s\n", fix)
	}
	d.err = errors.Join(d.err, err)
}

func (c *meshDoctorCmd) Run(ctx context.Context, s *streams) error {
	conf, err := c.config()
	if err != nil {
		return err
	}
	d := &doctor{s: s, json: c.JSON}
	d.certificate(conf.ClientCert)
	roots := d.roots(conf.CACert)
	client, err := meshclient.New(conf)
	if err != nil {
		field := ""
		if f, ok := errors.AsType[*tlsprops.FieldError](err); ok {
			field = " (" + f.Field + ")"
		}
		d.say("settings", "BAD", err.Error(), "correct the setting"+field+": no request can be made without it")
	} else {
		defer client.Close()
		d.say("settings", "ok", "complete, for mailbox "+client.Mailbox(), "")
		d.server(ctx, conf, roots)
		d.handshake(ctx, client)
	}
	switch {
	case d.err != nil:
		return d.err
	case d.bad > 0:
		return &exitError{status: exitNo, err: fmt.Errorf("%s BAD", plural(d.bad, "thing"))}
	}
	return nil
}

// pemOf returns what a setting is or names.
func pemOf(setting string) ([]byte, error) {
	if strings.Contains(setting, "-----BEGIN ") {
		return []byte(strings.ReplaceAll(setting, `\n`, "\n")), nil
	}
	return os.ReadFile(setting)
}

// meshName is the form of a client certificate's common name.
var meshName = regexp.MustCompile(`^[^.]+\.[^.]+\.api\.mesh-client\.nhs\.uk$`)

func (d *doctor) certificate(setting string) {
	const what = "client certificate"
	if setting == "" {
		d.say(what, "BAD", "there is none", "set --cert and --key, or put mesh-client-cert.pem and mesh-client-key.pem into --dir")
		return
	}
	text, err := pemOf(setting)
	var certs []*x509.Certificate
	if err == nil {
		certs, err = parseCertificates(text)
	}
	if err != nil {
		d.say(what, "BAD", err.Error(), "set --cert to a file of PEM")
		return
	}
	leaf := certs[0]
	const renew = "make a new key and request, and have NHS sign it"
	left := int(time.Until(leaf.NotAfter) / day)
	switch ends := leaf.NotAfter.UTC().Format(time.DateOnly); {
	case left < 0 || time.Now().After(leaf.NotAfter):
		d.say(what, "BAD", "it expired on "+ends, renew)
	case time.Now().Before(leaf.NotBefore):
		d.say(what, "BAD", "it is not valid before "+leaf.NotBefore.UTC().Format(time.DateTime)+" UTC", "set this machine's clock")
	case left < 60:
		d.say(what, "warn", fmt.Sprintf("it expires in %s, on %s", plural(left, "day"), ends), renew)
	default:
		d.say(what, "ok", "good until "+ends, "")
	}
	name := leaf.Subject.CommonName
	if meshName.MatchString(name) && len(leaf.EmailAddresses) == 0 {
		d.say("client name", "ok", printable(name), "")
	} else {
		d.say("client name", "warn", printable(name)+" is not local-id.ods-code.api.mesh-client.nhs.uk, or there is a mail address",
			"request a certificate with that common name and no mail address")
	}
}

// roots returns those of a setting, nil for the host's.
func (d *doctor) roots(setting string) *x509.CertPool {
	const what = "roots"
	if setting == "" {
		d.say(what, "warn", "there are none but the host's", "MESH's servers have certificates of the NHS's own roots: set --ca to that of the environment")
		return nil
	}
	text, err := pemOf(setting)
	var certs []*x509.Certificate
	if err == nil {
		certs, err = parseCertificates(text)
	}
	if err != nil {
		d.say(what, "BAD", err.Error(), "set --ca to a file of PEM")
		return nil
	}
	pool, good := x509.NewCertPool(), 0
	for _, cert := range certs {
		pool.AddCert(cert)
		if time.Now().After(cert.NotAfter) {
			d.say(what, "warn", printable(cert.Subject.String())+" expired on "+cert.NotAfter.UTC().Format(time.DateOnly), "remove it from the file")
			continue
		}
		good++
	}
	if good == 0 {
		d.say(what, "BAD", "all have expired", "get the current root of the environment")
	} else {
		d.say(what, "ok", plural(good, "certificate"), "")
	}
	return pool
}

// server looks at the server's certificate.
func (d *doctor) server(ctx context.Context, conf meshclient.Config, roots *x509.CertPool) {
	const what = "server certificate"
	u, err := url.Parse(conf.BaseURL)
	if err != nil || u.Scheme == "http" {
		return // which New has allowed for this machine
	}
	if conf.ProxyURL != "" && conf.ProxyURL != "none" || u.Host == "" {
		d.say(what, "ok", "looked at by the handshake below", "")
		return
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err == nil {
		leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
		_ = conn.Close() // of which nothing is wanted any more
		d.say(what, "ok", "verified, and good until "+leaf.NotAfter.UTC().Format(time.DateOnly), "")
		return
	}
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown) && unknown.Cert != nil:
		d.say(what, "BAD", "no root verifies what "+printable(unknown.Cert.Issuer.String())+" has signed",
			"set --ca to the root of this environment (integration and live have different ones); a proxy that opens TLS shows up here too")
	case errors.As(err, &host):
		d.say(what, "BAD", "it is not for "+u.Hostname(), "use the name that is in it; those of the HSCN without a subject alternative name cannot be used")
	case errors.As(err, &invalid):
		d.say(what, "BAD", invalid.Error(), "if this machine's clock is right, the server's certificate is not: tell NHS")
	case errors.As(err, new(*net.OpError)) || errors.Is(err, context.DeadlineExceeded):
		d.say(what, "BAD", "no connection to "+net.JoinHostPort(u.Hostname(), port)+": "+err.Error(), "open the firewall to it, or set a proxy; MESH takes connections from the UK")
	default:
		d.say(what, "BAD", err.Error(), "see package tlsprops for the versions and suites that are offered")
	}
}

func (d *doctor) handshake(ctx context.Context, client *meshclient.Client) {
	const what = "handshake"
	err := client.Handshake(ctx)
	switch skew := client.Skew(); {
	case skew.Abs() > 2*time.Hour:
		d.say("clock", "BAD", fmt.Sprintf("this machine's is %s ahead of the server's", skew), "set it: MESH refuses tokens that are two hours off")
	case skew.Abs() > 5*time.Minute:
		d.say("clock", "warn", fmt.Sprintf("this machine's is %s ahead of the server's", skew), "set it, before it is two hours")
	case err == nil:
		d.say("clock", "ok", fmt.Sprintf("%s ahead of the server's", skew), "")
	}
	switch {
	case err == nil:
		d.say(what, "ok", "the server takes certificate, mailbox, password and hash secret", "")
	case errors.Is(err, meshclient.ErrClientCertificate):
		d.say(what, "BAD", err.Error(), "each environment has client certificates of its own: use the one for this one, with its key and intermediates")
	case errors.Is(err, meshclient.ErrClockSkew):
		d.say(what, "BAD", err.Error(), "set the clock")
	case errors.Is(err, meshclient.ErrAuth):
		d.say(what, "BAD", err.Error(), "compare mailbox, password and the environment's hash secret; a mailbox in disuse is refused too")
	default:
		d.say(what, "BAD", err.Error(), "what is BAD above comes first")
	}
}
