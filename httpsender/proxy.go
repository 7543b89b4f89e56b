package httpsender

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/carewire/carewire/tlsprops"
)

// DirectOnly as a ProxyURL means that no proxy is used, whatever the environment says.
const DirectOnly = "none"

// maxConnectAnswer bounds what a proxy may answer to CONNECT.
const maxConnectAnswer = 16 << 10

// proxies says which proxy a host is reached through.
type proxies struct {
	http, https *url.URL // for URLs of that scheme; nil: none
	direct      []direct
	loopback    bool // is reached through the proxy like anything else
}

// A direct is one entry of NO_PROXY: the hosts that are reached without a proxy.
type direct struct {
	all    bool
	name   string       // in lower case: this name, unless below is set, and all below it
	below  bool         // only what is below name
	prefix netip.Prefix // or these addresses
	port   string       // "": any
}

// loadProxies reads ProxyURL and NoProxy, or where they are empty the environment.
func (s *Sender) loadProxies() error {
	env := func(name string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return os.Getenv(strings.ToLower(name))
	}
	p := &s.proxies
	var err error
	list := s.NoProxy
	switch s.ProxyURL {
	case DirectOnly:
		return nil
	case "":
		if p.https, err = parseProxy("HTTPS_PROXY", env("HTTPS_PROXY")); err != nil {
			return err
		}
		// In a CGI program HTTP_PROXY may be a header of a request (CVE-2016-5385).
		if os.Getenv("REQUEST_METHOD") == "" {
			if p.http, err = parseProxy("HTTP_PROXY", env("HTTP_PROXY")); err != nil {
				return err
			}
		}
		if list == "" {
			list = env("NO_PROXY")
		}
	default:
		if p.https, err = parseProxy("ProxyURL", s.ProxyURL); err != nil {
			return err
		}
		p.http, p.loopback = p.https, true
	}
	p.direct = parseNoProxy(list)
	return nil
}

// parseProxy reads the URL of a proxy. No error of it holds any part of value,
// which may be a password.
func parseProxy(name, value string) (*url.URL, error) {
	if value == "" {
		return nil, nil
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("httpsender: " + name + " is not a URL of the form http://user:password@host:port")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("httpsender: " + name + ": the scheme of a proxy must be http or https")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	return u, nil
}

// parseNoProxy reads a list as in NO_PROXY: names (with those below them), names
// with a leading dot (only those below), IP addresses, prefixes, each but the last
// with a port or without, and "*" for everything.
func parseNoProxy(list string) []direct {
	var out []direct
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.ToLower(strings.TrimSpace(entry))
		if entry == "" {
			continue
		}
		if entry == "*" {
			return []direct{{all: true}}
		}
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			out = append(out, direct{prefix: prefix.Masked()})
			continue
		}
		d := direct{name: strings.Trim(entry, "[]")}
		if host, port, err := net.SplitHostPort(entry); err == nil {
			d.name, d.port = host, port
		}
		if ip, err := netip.ParseAddr(d.name); err == nil {
			ip = ip.Unmap()
			d.name, d.prefix = "", netip.PrefixFrom(ip, ip.BitLen())
		}
		d.name = strings.TrimPrefix(d.name, "*")
		d.name, d.below = strings.CutPrefix(d.name, ".")
		out = append(out, d)
	}
	return out
}

func (d *direct) matches(host, port string, ip netip.Addr) bool {
	switch {
	case d.all:
		return true
	case d.port != "" && d.port != port:
		return false
	case d.prefix.IsValid():
		return ip.IsValid() && d.prefix.Contains(ip)
	case d.name == "" || ip.IsValid():
		return false
	case host == d.name:
		return !d.below
	}
	return strings.HasSuffix(host, "."+d.name)
}

// forURL returns the proxy for a URL, nil for none.
func (p *proxies) forURL(u *url.URL) *url.URL {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return p.forHost(u.Scheme, net.JoinHostPort(u.Hostname(), port))
}

func (p *proxies) forHost(scheme, addr string) *url.URL {
	proxy := p.http
	if scheme == "https" {
		proxy = p.https
	}
	host, port, err := net.SplitHostPort(addr)
	if proxy == nil || err != nil {
		return nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ip, _ := netip.ParseAddr(host)
	ip = ip.Unmap()
	if !p.loopback && isLoopback(host) {
		return nil
	}
	for i := range p.direct {
		if p.direct[i].matches(host, port, ip) {
			return nil
		}
	}
	return proxy
}

// secure tells whether a proxy is spoken to with TLS.
func (p *proxies) secure() bool {
	return p.http != nil && p.http.Scheme == "https" || p.https != nil && p.https.Scheme == "https"
}

// isLoopback tells whether a host is this machine.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// A proxyError is a proxy's refusal of CONNECT.
type proxyError struct{ status int }

func (e *proxyError) Error() string {
	return fmt.Sprintf("httpsender: the proxy answered %d to CONNECT", e.status)
}

// dialProxy connects to a proxy, or, if secure is not set, to anything.
func (s *Sender) dialProxy(ctx context.Context, network, addr string, secure bool) (net.Conn, error) {
	conn, err := s.dial(ctx, network, addr)
	if err != nil || !secure {
		return conn, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		_ = conn.Close() // nothing was written
		return nil, err
	}
	_ = s.proxySource.Refresh(ctx) // its only error is that ctx has ended, which the handshake notices too
	config, err := s.proxySource.ClientConfig(host)
	if err != nil {
		_ = conn.Close() // nothing was written
		return nil, err
	}
	return s.handshake(ctx, conn, config)
}

// tunnel connects to addr through a proxy (RFC 9110, section 9.3.6).
func (s *Sender) tunnel(ctx context.Context, network, addr string, proxy *url.URL) (net.Conn, error) {
	conn, err := s.dialProxy(ctx, network, proxy.Host, proxy.Scheme == "https")
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, orDefault(s.DialTimeout, defaultDial))
	defer cancel()
	// Closing is what interrupts reading and writing.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = connect(conn, addr, proxy.User)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // the other error is the one that matters
		return nil, err
	}
	return conn, nil
}

func connect(conn net.Conn, addr string, user *url.Userinfo) error {
	r := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header),
	}
	if user != nil {
		password, _ := user.Password()
		r.Header.Set("Proxy-Authorization", "Basic "+basic(user.Username(), password))
	}
	if err := r.Write(conn); err != nil {
		return err
	}
	// The server does not speak before its client does, so no byte after the
	// proxy's answer can have been read with it.
	in := bufio.NewReader(io.LimitReader(conn, maxConnectAnswer))
	resp, err := http.ReadResponse(in, r) //nolint:bodyclose // the tunnel is in the place of a body
	if err != nil {
		return public(err)
	}
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired, resp.StatusCode == http.StatusUnauthorized: // tinyproxy 1.11
		return ErrProxyAuth
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return &proxyError{resp.StatusCode}
	case in.Buffered() > 0:
		return ErrBadResponse
	}
	return nil
}

// loadProxyTLS reads the settings for proxies that are spoken to with TLS.
func (s *Sender) loadProxyTLS() error {
	props := tlsprops.TlsProperties{Enabled: true}
	if s.ProxyTLS != nil {
		props = *s.ProxyTLS
	}
	source, err := tlsprops.Load(props)
	if err != nil {
		return fmt.Errorf("httpsender: ProxyTLS: %w", err)
	}
	s.proxySource = source
	return nil
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}
