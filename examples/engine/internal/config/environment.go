package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/sealed"
)

// Environment is how the process itself runs: what an operator sets in a unit
// file or a pod rather than in the configuration of channels.
type Environment struct {
	// HTTPAddr is where the API listens: HTTP_HOST (127.0.0.1) and PORT (8080).
	HTTPAddr string
	// TLSCert and TLSKey are TLS_CERT and TLS_KEY, PEM files; both or neither. With
	// them the API is at HTTPSAddr, by HTTPS, and at HTTPAddr there is health only.
	TLSCert, TLSKey string
	// HTTPSAddr is HTTP_HOST and HTTPS_PORT (8443).
	HTTPSAddr string
	// SecureCookies is TLS_ENABLED=true or NODE_ENV=production: the operator says
	// that clients come by HTTPS, which ends in front of the engine.
	SecureCookies bool
	// TrustedProxies is HTTP_TRUSTED_PROXIES: addresses and ranges, with commas
	// between them, whose X-Forwarded-For and X-Forwarded-Proto are believed.
	TrustedProxies []netip.Prefix
	CORSOrigins    []string // CORS_ORIGINS: origins, with commas between them
	RequestLimit   int      // MIRTH_API_RATE_LIMIT: requests a minute and address (100); 0: any number
	WebSockets     int      // MIRTH_WS_MAX_CLIENTS: at a time, of each kind (100)
	// MetricsToken is METRICS_TOKEN, or what is in the file METRICS_TOKEN_FILE: who
	// presents it may read /metrics without a session. 16 bytes at least.
	MetricsToken string
	ExtraCACerts string     // NODE_EXTRA_CA_CERTS: a PEM file of CAs to trust besides the host's
	LogLevel     slog.Level // LOG_LEVEL: debug, info (the default), warn, error
	LogJSON      bool       // LOG_FORMAT: text (the default) or json
	ServerID     string     // MIRTH_SERVER_ID; empty: one kept in the data directory
	// EncryptionKeys are MIRTH_ENCRYPTION_KEY: what seals the content of messages where
	// the configuration names no file of keys.
	EncryptionKeys sealed.Keys
	// Unsupported are the variables that are set, that other versions of Mirth know,
	// and that mean nothing here.
	Unsupported []string
}

// ReadEnvironment reads the variables with lookup (os.LookupEnv); an empty one
// counts as not set. The error holds every mistake, a line each.
func ReadEnvironment(lookup func(string) (string, bool)) (Environment, error) {
	get := func(name, otherwise string) string {
		if value, _ := lookup(name); value != "" {
			return value
		}
		return otherwise
	}
	var env Environment
	var mistakes []error
	refuse := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }

	port, httpsPort := get("PORT", "8080"), get("HTTPS_PORT", "8443")
	for name, value := range map[string]string{"PORT": port, "HTTPS_PORT": httpsPort} {
		if n, err := strconv.Atoi(value); err != nil || n < 0 || n > 65535 {
			refuse("%s: is not a port: 1 to 65535, or 0 for any that is free", name)
		}
	}
	// A TLS setting that is not honoured must not pass for one that is.
	env.TLSCert, env.TLSKey = get("TLS_CERT", ""), get("TLS_KEY", "")
	switch {
	case env.TLSCert != "" && env.TLSKey == "":
		refuse("TLS_KEY: is not set, and TLS_CERT is: HTTPS needs both")
	case env.TLSCert == "" && env.TLSKey != "":
		refuse("TLS_CERT: is not set, and TLS_KEY is: HTTPS needs both")
	case env.TLSCert == "" && get("HTTPS_PORT", "") != "":
		refuse("HTTPS_PORT: is set, and TLS_CERT and TLS_KEY are not: there is no HTTPS without them")
	case env.TLSCert != "" && port == httpsPort && port != "0":
		refuse("HTTPS_PORT: is the same as PORT, which keeps serving health")
	}
	if get("HTTP_ALLOW_UNAUTHENTICATED", "") != "" {
		refuse("HTTP_ALLOW_UNAUTHENTICATED: the API asks everybody who they are now: unset it")
	}
	switch value := strings.ToLower(get("TLS_ENABLED", "false")); value {
	case "true", "false":
		env.SecureCookies = value == "true" || get("NODE_ENV", "") == "production"
	default:
		refuse("TLS_ENABLED: write true or false")
	}
	host := strings.Trim(get("HTTP_HOST", "127.0.0.1"), "[]")
	if !validHost(host) {
		refuse("HTTP_HOST: is neither a host name nor an address: write it alone, without a port")
	} else if !IsLoopback(host) && !env.SecureCookies && env.TLSCert == "" {
		refuse("HTTP_HOST: passwords would cross the network in the clear: use 127.0.0.1, set TLS_CERT and TLS_KEY, or, " +
			"where a proxy in front terminates TLS and nobody else reaches this port, set TLS_ENABLED=true")
	}
	env.HTTPAddr = net.JoinHostPort(host, port)
	if env.TLSCert != "" {
		env.HTTPSAddr = net.JoinHostPort(host, httpsPort)
	}

	if err := env.LogLevel.UnmarshalText([]byte(get("LOG_LEVEL", "info"))); err != nil {
		refuse("LOG_LEVEL: is not a level: debug, info, warn or error")
	}
	switch strings.ToLower(get("LOG_FORMAT", "text")) {
	case "text":
	case "json":
		env.LogJSON = true
	default:
		refuse("LOG_FORMAT: is not a format: text or json")
	}
	env.ServerID = get("MIRTH_SERVER_ID", "")
	if env.ServerID != "" && !validID(env.ServerID) {
		refuse("MIRTH_SERVER_ID: may have letters, digits, -, _ and . only, 64 at most")
	}
	env.TrustedProxies = proxyPrefixes(get("HTTP_TRUSTED_PROXIES", ""), refuse)
	env.CORSOrigins = origins(get("CORS_ORIGINS", ""), refuse)
	limit, err := strconv.Atoi(get("MIRTH_API_RATE_LIMIT", "100"))
	if err != nil || limit < 0 {
		refuse("MIRTH_API_RATE_LIMIT: is not a number of requests per minute: 1 or more, or 0 for any number")
	}
	env.RequestLimit = limit
	env.WebSockets, err = strconv.Atoi(get("MIRTH_WS_MAX_CLIENTS", "100"))
	if err != nil || env.WebSockets < 1 {
		refuse("MIRTH_WS_MAX_CLIENTS: is not a number of clients: 1 or more")
	}
	env.MetricsToken = metricsToken(get, refuse)
	env.ExtraCACerts = get("NODE_EXTRA_CA_CERTS", "")
	if text := get("MIRTH_ENCRYPTION_KEY", ""); text != "" {
		if env.EncryptionKeys, err = sealed.ParseKeys(text); err != nil {
			refuse("MIRTH_ENCRYPTION_KEY: %w", err)
		}
	}
	foreign(&env, get, refuse)
	return env, errors.Join(mistakes...)
}

// metricsToken reads the token itself or its file.
func metricsToken(get func(name, otherwise string) string, refuse func(string, ...any)) string {
	variable, token := "METRICS_TOKEN", get("METRICS_TOKEN", "")
	if path := get("METRICS_TOKEN_FILE", ""); path != "" {
		if token != "" {
			refuse("METRICS_TOKEN_FILE: is set, and so is METRICS_TOKEN: unset one")
			return ""
		}
		data, err := readBounded(path)
		if err != nil {
			refuse("METRICS_TOKEN_FILE: %s: cannot be read", path)
			return ""
		}
		variable, token = "METRICS_TOKEN_FILE", strings.TrimRight(string(data), "\r\n")
		if token == "" {
			refuse("METRICS_TOKEN_FILE: %s: is empty", path)
			return ""
		}
	}
	if token != "" && (len(token) < 16 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })) {
		refuse("%s: is not a token: 16 characters or more, without spaces, such as openssl rand -hex 32 makes", variable)
		return ""
	}
	return token
}

// proxyPrefixes reads addresses and ranges with commas between them.
func proxyPrefixes(list string, refuse func(string, ...any)) []netip.Prefix {
	var found []netip.Prefix
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(item)
		if addr, addrErr := netip.ParseAddr(item); addrErr == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || prefix != prefix.Masked() {
			refuse("HTTP_TRUSTED_PROXIES: has something that is neither an address nor a range such as 10.1.0.0/16, which has no bits set behind its length")
			return nil
		}
		found = append(found, prefix)
	}
	return found
}

// origins reads origins with commas between them. A star is refused: with it every
// page that a user looks at could do what the user may do.
func origins(list string, refuse func(string, ...any)) []string {
	var found []string
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		u, err := url.Parse(item)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+u.Host != item || strings.Contains(u.Host, "*") {
			refuse("CORS_ORIGINS: has something that is not an origin such as https://dashboard.example.org: " +
				"name each, and no *, with which any page could use a session")
			return nil
		}
		found = append(found, item)
	}
	return found
}

// IsLoopback tells whether only this machine reaches host. A name other than
// localhost may resolve to anything.
func IsLoopback(host string) bool {
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}
