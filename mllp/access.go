package mllp

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carewire/carewire/internal/netserver"
	"github.com/carewire/carewire/internal/proxyproto"
	"github.com/carewire/carewire/tlsprops"
)

// Prefixes are ranges of IP addresses, a []netip.Prefix. An IPv4-mapped IPv6
// address counts as the IPv4 address that it stands for, in the ranges and in what
// they are compared with; an IPv6 range such as ::/0 holds no IPv4 address.
//
// In JSON and YAML they are an array of texts such as "10.1.0.0/16",
// "2001:db8::/32" or, for one address, "192.0.2.7", or a single text that
// separates them by commas or white space. A range whose address has bits set
// behind its length, such as 10.1.0.7/16, is an error.
type Prefixes = netserver.Prefixes

// ParsePrefixes reads ranges that are separated by commas or white space.
func ParsePrefixes(text string) (Prefixes, error) { return netserver.ParsePrefixes(text) }

// A SenderRule says in whose name a client may send. It is for the clients whose
// [Identity] has all that SPKI, DNSName, URI and CommonName ask for, of which at
// least one must be set.
type SenderRule struct {
	// SPKI is the client's Identity.SPKI, "sha256/" and base64.
	SPKI string `json:"spki,omitempty" yaml:"spki,omitempty"`
	// DNSName is one of its DNSNames, whatever the case of letters. It is
	// compared as text: *.example.org is no pattern.
	DNSName string `json:"dnsName,omitempty" yaml:"dnsName,omitempty"`
	// URI is one of its URIs.
	URI string `json:"uri,omitempty" yaml:"uri,omitempty"`
	// CommonName is its CommonName.
	CommonName string `json:"commonName,omitempty" yaml:"commonName,omitempty"`

	// Applications and Facilities are what MSH-3 and MSH-4 of its messages may be
	// (of a batch, FHS-3, BHS-3 and so on, and of every message in it). "*" is
	// anything, and nothing too. Any other text is compared, byte by byte and with
	// escape sequences as they stand, with the field as it was sent and with its
	// first component, which in HD is the namespace: "LAB" permits LAB and
	// LAB^1.2.3^ISO, and "LAB^1.2.3^ISO" that alone. Neither may be empty.
	Applications []string `json:"applications" yaml:"applications"`
	Facilities   []string `json:"facilities" yaml:"facilities"`
}

// anySender permits every application or facility.
const anySender = "*"

func (r *SenderRule) validate() error {
	switch {
	case r.SPKI == "" && r.DNSName == "" && r.URI == "" && r.CommonName == "":
		return errors.New("names no client: set one of spki, dnsName, uri, commonName")
	case len(r.Applications) == 0 || slices.Contains(r.Applications, ""):
		return fmt.Errorf("has no applications or an empty one: %q permits all, and an empty MSH-3", anySender)
	case len(r.Facilities) == 0 || slices.Contains(r.Facilities, ""):
		return fmt.Errorf("has no facilities or an empty one: %q permits all, and an empty MSH-4", anySender)
	case r.SPKI != "":
		digest, found := strings.CutPrefix(r.SPKI, spkiPrefix)
		if sum, err := base64.StdEncoding.DecodeString(digest); !found || err != nil || len(sum) != sha256.Size {
			return fmt.Errorf("spki %q is not %q and the base64 of a SHA-256", r.SPKI, spkiPrefix)
		}
	}
	return nil
}

// isFor reports whether the rule is the one for a client.
func (r *SenderRule) isFor(id *Identity) bool {
	return (r.SPKI == "" || r.SPKI == id.SPKI) &&
		(r.DNSName == "" || slices.ContainsFunc(id.DNSNames, func(name string) bool { return strings.EqualFold(name, r.DNSName) })) &&
		(r.URI == "" || slices.Contains(id.URIs, r.URI)) &&
		(r.CommonName == "" || r.CommonName == id.CommonName)
}

// permits reports whether a message with this header may be sent.
func (r *SenderRule) permits(h *Header) bool {
	return permits(r.Applications, h, h.SendingApplication) && permits(r.Facilities, h, h.SendingFacility)
}

func permits(allowed []string, h *Header, field []byte) bool {
	first := h.component(field, 0)
	for _, s := range allowed {
		if s == anySender || s == string(field) || s == string(first) {
			return true
		}
	}
	return false
}

// sender returns the rule for a client: the first that is for it, or nil.
func (c *config) sender(id *Identity) *SenderRule {
	if id == nil {
		return nil
	}
	for i := range c.senders {
		if r := &c.senders[i]; r.isFor(id) {
			return r
		}
	}
	return nil
}

// permitted reports whether the client may send the message in hand.
func (x *exchange) permitted() bool {
	r := x.r
	if x.sender == nil || r.Flags&NotHL7 != 0 || !x.sender.permits(&r.Header) {
		return false
	}
	if r.Flags&(Batch|MultipleMSH) == 0 {
		return true
	}
	// What the first header says is not all that the handler will take from it.
	for rest := r.Message; len(rest) > 0; {
		end := segmentEnd(rest)
		segment := rest[:end]
		rest = rest[min(end+1, len(rest)):]
		if !bytes.HasPrefix(segment, []byte("MSH")) && !bytes.HasPrefix(segment, []byte("FHS")) && !bytes.HasPrefix(segment, []byte("BHS")) {
			continue
		}
		var h Header
		if h.Parse(segment) != nil || !x.sender.permits(&h) {
			return false
		}
	}
	return true
}

// validateAccess is the part of Validate about who may connect and send.
func (s *Server) validateAccess() error {
	for _, l := range []struct {
		field string
		list  Prefixes
	}{{"Allow", s.Allow}, {"Deny", s.Deny}, {"TrustedProxies", s.TrustedProxies}} {
		if _, err := l.list.Canonical(); err != nil {
			return fmt.Errorf("mllp: Server.%s: %w", l.field, err)
		}
	}
	for i := range s.Senders {
		if err := s.Senders[i].validate(); err != nil {
			return fmt.Errorf("mllp: Server.Senders[%d] %w", i, err)
		}
		if s.TLSConfig == nil && s.TLS != nil && keysOnly(s.TLS) && s.Senders[i].SPKI == "" {
			return fmt.Errorf("mllp: Server.Senders[%d] has no spki, but with verify pinned nobody vouches for a client's names", i)
		}
	}
	if len(s.Senders) > 0 && !s.asksClientCert() {
		return errors.New("mllp: Server.Senders is set, but clients are not asked for a certificate: set requireClientCert in Server.TLS")
	}
	if s.RecheckClients && (s.TLSConfig != nil || s.TLS == nil || !s.asksClientCert()) {
		return errors.New("mllp: Server.RecheckClients is set, but there are no client certificates whose authorities are loaded again: set requireClientCert in Server.TLS")
	}
	return nil
}

// asksClientCert reports whether clients may have an Identity.
func (s *Server) asksClientCert() bool {
	switch {
	case s.TLSConfig != nil:
		return s.TLSConfig.ClientAuth >= tls.VerifyClientCertIfGiven || s.TLSConfig.GetConfigForClient != nil
	case s.TLS != nil && s.TLS.Enabled:
		return s.TLS.RequireClientCert || s.TLS.RequireClientAuth || s.TLS.ClientAuth != ""
	}
	return false
}

// access is the part of a config about who may connect and send.
type access struct {
	allow, deny, proxies Prefixes
	evictIdle            time.Duration // 0 or less: nobody is evicted
	senders              []SenderRule  // empty: everybody may send everything
	keysOnly             bool          // of clients' certificates only the key is verified
	recheck              bool
}

// access returns the settings of a Server that is valid.
func (s *Server) access() access {
	a := access{evictIdle: s.EvictIdle, senders: slices.Clone(s.Senders), recheck: s.RecheckClients}
	for _, l := range []struct{ to, from *Prefixes }{{&a.allow, &s.Allow}, {&a.deny, &s.Deny}, {&a.proxies, &s.TrustedProxies}} {
		*l.to, _ = l.from.Canonical() // Validate has seen the error
	}
	a.keysOnly = s.TLSConfig == nil && s.TLS != nil && keysOnly(s.TLS)
	return a
}

// keysOnly reports whether of a client's certificate only the key is verified.
func keysOnly(p *tlsprops.TlsProperties) bool { return p.Verify == tlsprops.VerifyPinned }

// refusalEvent returns the event of a connection that is closed without being served.
func refusalEvent(from netserver.Peer, why error) Event {
	e := Event{Kind: EventRefused, RemoteAddr: from.Addr, ProxyAddr: from.Proxy}
	switch {
	case errors.Is(why, netserver.ErrDenied):
		e.Reason = ReasonAddressDenied
	case errors.Is(why, netserver.ErrFull):
		e.Reason = ReasonTooManyConns
	case errors.Is(why, netserver.ErrHostFull):
		e.Reason = ReasonTooManyConnsOfHost
	case errors.Is(why, io.EOF): // a proxy that looks whether the port is open
		e.Kind = EventProbe
	default:
		e.Reason = ReasonProxyHeader
		switch {
		case isTimeout(why):
			e.Detail = "timeout"
		case errors.Is(why, proxyproto.ErrNoHeader), errors.Is(why, proxyproto.ErrMalformed),
			errors.Is(why, proxyproto.ErrTooLong), errors.Is(why, proxyproto.ErrChecksum):
			e.Detail = why.Error()
		default:
			e.Err = why
		}
	}
	return e
}

// A storm of connections that are refused must not fill the log: so many lines of
// them are written in a window, and the next one after it tells how many were not.
const (
	refusalWindow = 10 * time.Second
	refusalLines  = 10
)

// refusals decides which of them are logged.
type refusals struct {
	mu sync.Mutex
	// guarded by mu
	began    time.Time // of the window
	lines    int       // in it
	unlogged int64     // since the last line
}

// log reports whether one more is to be logged, and how many before it were not.
func (r *refusals) log(now time.Time) (ok bool, unlogged int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.began) >= refusalWindow {
		r.began, r.lines = now, 0
	}
	if r.lines >= refusalLines {
		r.unlogged++
		return false, 0
	}
	r.lines++
	unlogged, r.unlogged = r.unlogged, 0
	return true, unlogged
}
