package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Environment is how the process itself runs: what an operator sets in a unit
// file or a pod rather than in the configuration of channels.
type Environment struct {
	// HTTPAddr is where the API listens: HTTP_HOST (127.0.0.1) and PORT (8080).
	HTTPAddr string
	// AllowUnauthenticated is HTTP_ALLOW_UNAUTHENTICATED=true. The API has no
	// users in this version: without this setting it is refused an address that
	// other machines reach.
	AllowUnauthenticated bool
	LogLevel             slog.Level // LOG_LEVEL: debug, info (the default), warn, error
	LogJSON              bool       // LOG_FORMAT: text (the default) or json
	ServerID             string     // MIRTH_SERVER_ID; empty: one kept in the data directory
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

	port := get("PORT", "8080")
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		refuse("PORT: is not a port: 1 to 65535, or 0 for any that is free")
	}
	switch value := get("HTTP_ALLOW_UNAUTHENTICATED", "false"); value {
	case "true", "false":
		env.AllowUnauthenticated = value == "true"
	default:
		refuse("HTTP_ALLOW_UNAUTHENTICATED: write true or false")
	}
	host := strings.Trim(get("HTTP_HOST", "127.0.0.1"), "[]")
	if !validHost(host) {
		refuse("HTTP_HOST: is neither a host name nor an address: write it alone, without a port")
	} else if !IsLoopback(host) && !env.AllowUnauthenticated {
		refuse("HTTP_HOST: other machines could reach this address, and the API of this version asks nobody who they are: " +
			"use 127.0.0.1, or set HTTP_ALLOW_UNAUTHENTICATED=true where the network itself keeps strangers out")
	}
	env.HTTPAddr = net.JoinHostPort(host, port)

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
	// A TLS setting that is not honoured must not pass for one that is.
	for _, name := range []string{"TLS_CERT", "TLS_KEY"} {
		if get(name, "") != "" {
			refuse("%s: HTTPS for the API is not in this version of the engine: unset it, and put a TLS proxy in front", name)
		}
	}
	return env, errors.Join(mistakes...)
}

// IsLoopback tells whether only this machine reaches host. A name other than
// localhost may resolve to anything.
func IsLoopback(host string) bool {
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}
