package config

import (
	"cmp"
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/keystore"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// maxTimeout bounds what somebody waits for: a longer time is a mistake in units.
const maxTimeout = time.Hour

// maxMessageSize is what every store keeps.
const maxMessageSize = 128 << 20

type listener struct {
	host string
	port int
	key  string
}

// meets tells whether two listeners cannot be open at the same time.
func (l listener) meets(o listener) bool {
	wild := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.IsUnspecified()
	}
	local := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
	}
	return l.port == o.port && (strings.EqualFold(l.host, o.host) || wild(l.host) || wild(o.host) ||
		local(l.host) && local(o.host) && (strings.EqualFold(l.host, "localhost") || strings.EqualFold(o.host, "localhost")))
}

func (d *decoder) source(channel string, s *Source, others []listener, directories map[string]string) []listener {
	key := join(channel, "source")
	if !d.has(key) {
		d.at(key, "is missing: a channel takes its messages from somewhere")
		return others
	}
	if s.Type == "" {
		return others // reported when it was read
	}
	switch {
	case s.TCP != nil:
		others = d.tcpSource(key, s.TCP, others, directories)
	case s.DICOM != nil:
		others = d.dicomSource(key, s.DICOM, others)
	case s.HTTP != nil:
		others = d.httpSource(key, s.HTTP, others)
	case s.MESH != nil:
		d.meshSource(key, s.MESH, directories)
	}
	return others
}

// claim adds a listener to the others, unless one of those is in its way.
func (d *decoder) claim(others []listener, this listener) []listener {
	if i := slices.IndexFunc(others, this.meets); i >= 0 {
		d.at(this.key, "is taken by %s: each source needs its own", d.place(others[i].key))
	}
	return append(others, this)
}

func (d *decoder) tcpSource(key string, tcp *TCPSource, others []listener, directories map[string]string) []listener {
	d.oneOf(join(key, "serverMode"), tcp.ServerMode, "SERVER", "CLIENT")
	if tcp.Dials() {
		d.dialingSource(key, tcp)
	} else {
		others = d.listeningSource(key, tcp, others)
	}
	d.framing(key, &tcp.Framing)
	d.charset(join(key, "charsetEncoding"), tcp.CharsetEncoding)
	d.within(key, "receiveTimeout", tcp.ReceiveTimeout, 7*24*time.Hour)
	d.between(key, "maxMessageSize", tcp.MaxMessageSize, maxMessageSize, "bytes")
	d.oneOf(join(key, "batches"), tcp.Batches, "reject", "deliver", "per-message", "batch", "last")
	d.answers(key, tcp)
	d.order(key, tcp)
	if r := tcp.Replay; r != nil {
		at := join(key, "replay")
		d.within(at, "maxAge", r.MaxAge, 31*24*time.Hour)
		d.between(at, "maxEntries", int64(r.MaxEntries), 10_000_000, "messages")
		d.oneOf(join(at, "duplicateControlId"), r.DuplicateControlID, "reject", "error", "deliver")
	}
	if q := tcp.Quarantine; q != nil {
		at := join(key, "quarantine")
		d.directory(join(at, "directory"), q.Directory, directories)
		d.between(at, "bytes", int64(q.Bytes), maxMessageSize, "bytes")
		d.between(at, "maxFiles", int64(q.MaxFiles), 1_000_000, "files")
	}
	d.together(key, tcp)
	if d.cleanUnder(key) {
		d.library(key, d.validateServer(tcp))
	}
	return others
}

// together checks what a way of framing excludes.
func (d *decoder) together(key string, tcp *TCPSource) {
	if !tcp.KeepsOpen() && tcp.Parallel > 1 {
		d.at(join(key, "parallel"), "a connection that carries one message has none to take in beside it: remove it and orderKey")
	}
	if tcp.TransmissionMode == "RAW" && tcp.Length > cmp.Or(tcp.MaxMessageSize, defaultMaxMessageSize) {
		d.at(join(key, "length"), "is more than maxMessageSize")
	}
	if tcp.TransmissionMode != "MLLPv2" {
		return
	}
	const excluded = "cannot be used with MLLPv2, which has commits and a memory of answers of its own: remove one of the two"
	d.refuse(key, excluded, "replay", "orderKey", "parallel")
	if tcp.EnhancedAcknowledgement {
		d.at(join(key, "enhancedAcknowledgement"), excluded)
	}
	if tcp.RespondOnNewConnection != 0 {
		d.at(join(key, "respondOnNewConnection"), excluded)
	}
	if tcp.Batches != "" && tcp.Batches != "reject" && tcp.Batches != "deliver" {
		d.at(join(key, "batches"), "must be reject or deliver with MLLPv2, which commits a batch as a whole")
	}
}

// validateServer asks package mllp, whose word is the last.
func (d *decoder) validateServer(tcp *TCPSource) error {
	server := tcp.Server()
	server.Handler, server.TLS = mllp.HandlerFunc(nil), readable(server.TLS)
	if r := server.Responder; r != nil {
		r.Dialer.TLS = readable(r.Dialer.TLS)
	}
	if tcp.Parallel > 1 {
		server.Key = func(*mllp.Request) []byte { return nil }
	}
	return server.Validate()
}

// readable returns p as the engine uses it, with which key stores can be read.
func readable(p *tlsprops.TlsProperties) *tlsprops.TlsProperties {
	if p == nil {
		return nil
	}
	own := *p
	own.Decoder = keystore.Decoder
	return &own
}

// library reports what a package of the library has against values that are good
// each by itself, without the values that it quotes.
func (d *decoder) library(key string, err error) {
	if err != nil {
		text := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "mllp: "), "smtpx: "), "meshclient: ")
		d.at(key, "%s", yamlQuoted.ReplaceAllString(text, "…"))
	}
}

// listeningSource checks what only a source with a port of its own has.
func (d *decoder) listeningSource(key string, tcp *TCPSource, others []listener) []listener {
	hostOK := d.host(join(key, "host"), tcp.Host, "0.0.0.0 accepts from every network, 127.0.0.1 from this machine only")
	portOK := d.port(join(key, "port"), tcp.Port)
	d.refuse(key, "only serverMode: CLIENT connects to somebody: remove it", "remoteAddress", "remotePort")
	d.between(key, "maxConnections", int64(tcp.MaxConnections), 1_000_000, "connections")
	d.between(key, "maxConnectionsPerHost", int64(tcp.MaxConnectionsPerHost), 1_000_000, "connections")
	d.senders(key, tcp)
	if p := tcp.TLS; p != nil {
		d.tls(join(key, "tls"), *p, tlsprops.Listener, "")
	}
	if hostOK && portOK {
		others = d.claim(others, listener{tcp.Host, tcp.Port, join(key, "port")})
	}
	return others
}

// dialingSource checks what only a source that connects has.
func (d *decoder) dialingSource(key string, tcp *TCPSource) {
	d.host(join(key, "remoteAddress"), tcp.RemoteAddress, "the name or address to connect to")
	d.port(join(key, "remotePort"), tcp.RemotePort)
	d.refuse(key, "with serverMode: CLIENT nothing listens: write remoteAddress and remotePort", "host", "port")
	d.refuse(key, "with serverMode: CLIENT nobody connects: the engine makes one connection itself; remove it",
		"maxConnections", "maxConnectionsPerHost", "allow", "deny", "trustedProxies", "senders", "recheckClients")
	if p := tcp.TLS; p != nil {
		d.tls(join(key, "tls"), *p, tlsprops.Client, tcp.RemoteAddress)
		if p.Enabled && tcp.TransmissionMode == "RAW" && (tcp.Delimiter == "eof" || tcp.Delimiter == "idle") {
			d.at(join(key, "delimiter"), "with serverMode: CLIENT and TLS nobody could say whether such a message is whole: use length or newline, or a frame")
		}
	}
}

// senders checks the rules for certificates, and that there are certificates.
func (d *decoder) senders(key string, tcp *TCPSource) {
	asks := tcp.TLS != nil && tcp.TLS.Enabled && (tcp.TLS.RequireClientCert || tcp.TLS.RequireClientAuth || tcp.TLS.ClientAuth != "")
	if !asks {
		const advice = "needs client certificates: set requireClientCert under tls"
		if len(tcp.Senders) > 0 {
			d.at(join(key, "senders"), advice)
		}
		if tcp.RecheckClients {
			d.at(join(key, "recheckClients"), advice)
		}
	}
	for i, rule := range tcp.Senders {
		at := entry(join(key, "senders"), i)
		if !d.cleanUnder(at) {
			continue
		}
		if rule.SPKI == "" && rule.DNSName == "" && rule.URI == "" && rule.CommonName == "" {
			d.at(at, "is for no certificate: set one of spki, dnsName, uri, commonName")
		}
		if digest, found := strings.CutPrefix(rule.SPKI, "sha256/"); rule.SPKI != "" {
			if sum, err := base64.StdEncoding.DecodeString(digest); !found || err != nil || len(sum) != 32 {
				d.at(join(at, "spki"), "is not sha256/ and the base64 of a SHA-256 of the public key")
			}
		}
		if len(rule.Applications) == 0 || slices.Contains(rule.Applications, "") {
			d.at(join(at, "applications"), `is missing or has an empty entry: list what MSH-3 may be, or "*" for anything`)
		}
		if len(rule.Facilities) == 0 || slices.Contains(rule.Facilities, "") {
			d.at(join(at, "facilities"), `is missing or has an empty entry: list what MSH-4 may be, or "*" for anything`)
		}
	}
}

// answers checks what is answered, and where to.
func (d *decoder) answers(key string, tcp *TCPSource) {
	d.oneOf(join(key, "onStoreError"), tcp.OnStoreError, "AE", "close")
	d.missingCondition(key, tcp.MissingCondition, tcp.EnhancedAcknowledgement)
	mode := join(key, "responseMode")
	switch {
	case !d.has(mode) || !d.clean(mode) || tcp.ResponseMode == "AUTO":
	case tcp.ResponseMode == "NONE":
		const silent = "with responseMode: NONE nothing is answered: remove one of the two"
		d.refuse(key, silent, "replay", "responseAddress", "responsePort", "responseTls")
		if tcp.OnStoreError == "AE" {
			d.at(join(key, "onStoreError"), silent)
		}
		if tcp.EnhancedAcknowledgement {
			d.at(join(key, "enhancedAcknowledgement"), silent)
		}
		if tcp.RespondOnNewConnection != 0 {
			d.at(join(key, "respondOnNewConnection"), silent)
		}
		if tcp.TransmissionMode == "MLLPv2" {
			d.at(mode, "contradicts MLLPv2, in which each message is committed to its sender: write MLLP, or AUTO")
		}
	default:
		d.at(mode, "must be AUTO, the acknowledgement says whether the message is stored, or NONE: the answer of a destination or of a script cannot be waited for, since messages are acknowledged when they are safe")
	}
	respond := join(key, "respondOnNewConnection")
	switch {
	case tcp.RespondOnNewConnection < 0 || tcp.RespondOnNewConnection > 2:
		d.at(respond, "must be 0 (over the connection of the message), 1 (over a new one) or 2 (over a new one if that has ended)")
	case !d.clean(respond):
	case tcp.RespondOnNewConnection == 0:
		if tcp.ResponseMode != "NONE" {
			d.refuse(key, "is used only with respondOnNewConnection: 1 or 2: set that, or remove it", "responseAddress", "responsePort", "responseTls")
		}
	case tcp.ResponseMode != "NONE":
		d.host(join(key, "responseAddress"), tcp.ResponseAddress, "answers go to an address that is configured, never to that of whoever has connected")
		d.port(join(key, "responsePort"), tcp.ResponsePort)
		if tcp.Delimiter == "length" {
			d.at(respond, "cannot be used with delimiter: length: an answer has a length of its own, which its receiver could not tell")
		}
		if p := tcp.ResponseTLS; p != nil {
			d.tls(join(key, "responseTls"), *p, tlsprops.Client, tcp.ResponseAddress)
		}
	}
}

// order checks that a key and the number of messages side by side come together.
func (d *decoder) order(key string, tcp *TCPSource) {
	orderKey, parallel := join(key, "orderKey"), join(key, "parallel")
	switch {
	case !d.clean(orderKey) || !d.clean(parallel):
	case tcp.Parallel < 0 || tcp.Parallel > 256:
		d.at(parallel, "must be between 2 and 256 messages; without it they are taken in one after the other")
	case tcp.Parallel > 1 && tcp.OrderKey.Segment == "":
		d.at(parallel, "needs orderKey: without one nobody can say which messages must keep their order")
	case tcp.Parallel <= 1 && tcp.OrderKey.Segment != "":
		d.at(orderKey, "is used only with parallel: 2 or more; without it all messages keep their order")
	}
}

func (d *decoder) tcpDestination(key string, tcp *TCPDestination) {
	d.host(join(key, "host"), tcp.Host, "the name or address to send to")
	d.port(join(key, "port"), tcp.Port)
	d.framing(key, &tcp.Framing)
	d.charset(join(key, "charsetEncoding"), tcp.CharsetEncoding)
	d.within(key, "responseTimeout", tcp.ResponseTimeout, maxTimeout)
	d.within(key, "applicationTimeout", tcp.ApplicationTimeout, maxTimeout)
	d.within(key, "sendTimeout", tcp.SendTimeout, 24*time.Hour)
	if at := join(key, "localAddress"); d.has(at) && d.clean(at) {
		if _, err := netip.ParseAddr(tcp.LocalAddress); err != nil {
			d.at(at, "is not an IP address of this machine: write it without a port")
		}
	}
	if at := join(key, "localPort"); d.has(at) {
		d.port(at, tcp.LocalPort)
	}
	if !tcp.KeepsOpen() && tcp.SendTimeout > 0 {
		d.at(join(key, "sendTimeout"), "is how long a connection is kept without a message, but none is kept: remove it")
	}
	if tcp.EnhancedAcknowledgement && tcp.TransmissionMode == "MLLPv2" {
		d.at(join(key, "enhancedAcknowledgement"), "cannot be used with MLLPv2, whose commits are an acknowledgement of their own: remove it")
	}
	d.missingCondition(key, tcp.MissingCondition, tcp.EnhancedAcknowledgement)
	if tcp.IgnoreResponse {
		const ignored = "with ignoreResponse: true no answer is waited for: remove one of the two"
		d.refuse(key, ignored, "responseTimeout", "queueOnResponseTimeout", "applicationTimeout")
		if tcp.EnhancedAcknowledgement {
			d.at(join(key, "enhancedAcknowledgement"), ignored)
		}
		if tcp.TransmissionMode == "MLLPv2" {
			d.at(join(key, "ignoreResponse"), "contradicts MLLPv2, in which the receiver commits each message: write MLLP, or remove it")
		}
	} else if !tcp.EnhancedAcknowledgement {
		d.refuse(key, "is used only with enhancedAcknowledgement: true", "applicationTimeout")
	}
	if tcp.TLS != nil {
		d.tls(join(key, "tls"), *tcp.TLS, tlsprops.Client, tcp.Host)
	}
	if d.cleanUnder(key) {
		dialer := tcp.Dialer()
		dialer.TLS = readable(dialer.TLS)
		d.library(key, (&mllp.Client{Addr: tcp.Address(), Dialer: dialer}).Validate())
	}
}

// missingCondition checks the key of this name, of a source or a destination.
func (d *decoder) missingCondition(parent, value string, enhanced bool) {
	const name = "missingCondition"
	if !enhanced {
		d.refuse(parent, "is used only with enhancedAcknowledgement: true", name)
		return
	}
	d.oneOf(join(parent, name), value, "AL", "NE", "ER", "SU")
}

// refuse reports those of the keys that are in the file.
func (d *decoder) refuse(parent, why string, names ...string) {
	for _, name := range names {
		if key := join(parent, name); d.has(key) && d.clean(key) {
			d.at(key, "%s", why)
		}
	}
}

func (d *decoder) within(parent, name string, value, most time.Duration) {
	if key := join(parent, name); d.clean(key) && (value < 0 || value > most) {
		d.at(key, "must be between nothing and %v, such as 30s", most)
	}
}

func (d *decoder) between(parent, name string, value, most int64, what string) {
	switch key := join(parent, name); {
	case !d.clean(key):
	case value < 0:
		d.at(key, "must not be negative; 0 means the default")
	case value > most:
		d.at(key, "must be at most %d %s", most, what)
	}
}

// charset checks that the engine can convert from and to a set.
func (d *decoder) charset(key string, set mllp.Charset) {
	if set == mllp.CharsetAuto {
		return
	}
	if _, err := set.Encode(nil, "", 0); err != nil {
		d.at(key, "is a character set that the engine cannot convert: write raw, ASCII, UTF-8 or ISO-8859-1 to -9 and -15")
	}
}

// host checks a host name or an address, without a port.
func (d *decoder) host(key, host, advice string) bool {
	switch {
	case host == "" && !d.clean(key):
	case host == "":
		d.at(key, "is missing: %s", advice)
	case !validHost(host):
		d.at(key, "is neither a host name nor an address: write it alone, without brackets and without a port")
	default:
		return true
	}
	return false
}

func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return len(host) <= 253 && !strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
}

func (d *decoder) port(key string, port int) bool {
	switch {
	case !d.has(key):
		d.at(key, "is missing: 1 to 65535")
	case !d.clean(key):
	case port < 1 || port > 65535:
		d.at(key, "is not a port: 1 to 65535")
	default:
		return true
	}
	return false
}
