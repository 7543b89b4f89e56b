package main

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"strings"
	"time"
)

// probeReport is what a probe found; its JSON form is what --json prints.
type probeReport struct {
	Address string `json:"address"`
	Name    string `json:"name"` // that the certificate was checked for
	OK      bool   `json:"ok"`   // a client with these settings can use the server
	// Error is why the handshake failed, or what the server said after it.
	Error string `json:"error,omitempty"`
	// Verified says that the chain leads to a trusted authority, is valid now and
	// has the name; Problems say why not.
	Verified bool     `json:"verified"`
	Problems []string `json:"problems,omitempty"`

	Version     string     `json:"version,omitempty"`
	CipherSuite string     `json:"cipherSuite,omitempty"`
	KeyExchange string     `json:"keyExchange,omitempty"`
	Chain       []certInfo `json:"chain,omitempty"`
	ClientCert  *clientAsk `json:"clientCertificate,omitempty"`

	Versions         []versionAnswer `json:"versions,omitempty"`
	Suites           []suiteAnswer   `json:"tls12Suites,omitempty"`
	SuitesIncomplete string          `json:"tls12SuitesIncomplete,omitempty"` // why some may be missing
}

// clientAsk is what the server wants of clients.
type clientAsk struct {
	Requested bool `json:"requested"`
	// Required is known when none was sent, from what the server did then.
	Required    *bool    `json:"required,omitempty"`
	Sent        bool     `json:"sent"`
	Authorities []string `json:"authorities,omitempty"` // whose certificates the server says it takes
}

// describe takes from the looks what does not need a judgement.
func (r *probeReport) describe(asClient, shown *look, now time.Time) {
	if asClient.err != nil {
		r.Error = printable(hint(asClient.err))
		if asClient.requested != nil && !asClient.sent && asClient.refused() {
			r.Error += " (it asked for a client certificate and got none)"
		}
	}
	if !shown.saw {
		return
	}
	r.Version = tls.VersionName(shown.state.Version)
	r.CipherSuite = tls.CipherSuiteName(shown.state.CipherSuite)
	if shown.state.CurveID != 0 {
		r.KeyExchange = shown.state.CurveID.String()
	}
	for _, c := range shown.state.PeerCertificates {
		r.Chain = append(r.Chain, newCertInfo(c, now))
	}
	r.ClientCert = &clientAsk{Requested: shown.requested != nil, Sent: shown.sent}
	if shown.requested == nil {
		return
	}
	for _, der := range shown.requested.AcceptableCAs {
		r.ClientCert.Authorities = append(r.ClientCert.Authorities, distinguishedName(der))
	}
	if !shown.sent && (shown.err == nil || shown.refused()) {
		r.ClientCert.Required = new(shown.err != nil)
	}
}

// distinguishedName reads the name of an authority as a server hints it.
func distinguishedName(der []byte) string {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
		return "(a name that cannot be read)"
	}
	return printable(rdns.String())
}

// print writes the report for a person.
func (r *probeReport) print(w io.Writer) {
	line := func(title, text string) { fmt.Fprintf(w, "%-19s %s\n", title, text) }
	line("server", r.Address+" as "+printable(r.Name))
	if r.Version != "" {
		line("negotiated", strings.Trim(r.Version+", "+r.CipherSuite+", "+r.KeyExchange, ", "))
	}
	for i, c := range r.Chain {
		line(fmt.Sprintf("certificate %d", i+1), c.Subject)
		c.print(w, strings.Repeat(" ", 20))
	}
	if r.ClientCert != nil {
		line("client certificate", r.ClientCert.String())
		for _, name := range r.ClientCert.Authorities {
			line("  accepted authority", name)
		}
	}
	for _, v := range r.Versions {
		text := string(v.Answer)
		if v.Detail != "" {
			text += " (" + v.Detail + ")"
		}
		line(v.Version, text)
	}
	for _, s := range r.Suites {
		if s.Weakness != "" {
			line("TLS 1.2 suite", s.Name+"   WEAK: "+s.Weakness)
		} else {
			line("TLS 1.2 suite", s.Name)
		}
	}
	if r.SuitesIncomplete != "" {
		line("", "the list of suites is incomplete: "+r.SuitesIncomplete)
	}
	if len(r.Chain) > 0 {
		line("verified", r.verified())
	}
	line("verdict", r.verdict())
}

func (a *clientAsk) String() string {
	switch {
	case !a.Requested:
		return "not asked for"
	case a.Sent:
		return "asked for; ours was sent"
	case a.Required != nil && *a.Required:
		return "required"
	default:
		return "asked for, not required"
	}
}

func (r *probeReport) verified() string {
	if r.Verified {
		return "yes"
	}
	return "no: " + strings.Join(r.Problems, "; ")
}

// verdict sums the report up in a sentence.
func (r *probeReport) verdict() string {
	if !r.OK {
		return "NOT USABLE: " + r.Error
	}
	if weak := r.weaknesses(); len(weak) > 0 {
		return "usable, but WEAK: the server also accepts " + strings.Join(weak, ", ")
	}
	return "usable; nothing weak found among what crypto/tls can ask for"
}

// weaknesses are the old versions and weak suites that the server accepts.
func (r *probeReport) weaknesses() []string {
	var weak []string
	for _, v := range r.Versions {
		if v.Answer == answerYes && (v.Version == tls.VersionName(tls.VersionTLS10) || v.Version == tls.VersionName(tls.VersionTLS11)) {
			weak = append(weak, v.Version)
		}
	}
	suites := 0
	for _, s := range r.Suites {
		if s.Weakness != "" {
			suites++
		}
	}
	if suites > 0 {
		weak = append(weak, plural(suites, "weak suite")+" of TLS 1.2")
	}
	return weak
}
