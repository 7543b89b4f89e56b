package tlsprops

import (
	"crypto/tls"
	"errors"
	"strings"
)

var (
	errOldVersion = errors.New("nothing below TLS 1.2 is spoken, because RFC 8996 forbids it: " +
		"use TLSv1.2 or TLSv1.3, and a TLS proxy beside a peer that cannot")
	errUnknownVersion = errors.New("unknown TLS version: use TLSv1.2 or TLSv1.3")
)

// parseVersion reads the spellings of TLS versions that Java, Node, OpenSSL,
// Prometheus and Go users write: TLSv1.2, TLSv1_2, TLS12, tls1.2, 1.2,
// VersionTLS12. The empty string is TLS 1.2.
func parseVersion(s string) (uint16, error) {
	if s == "" {
		return tls.VersionTLS12, nil
	}
	v := strings.ToLower(strings.TrimSpace(s))
	if strings.HasPrefix(v, "ssl") {
		return 0, errOldVersion
	}
	v = strings.TrimPrefix(v, "version")
	v = strings.TrimPrefix(v, "tls")
	v = strings.TrimLeft(v, " _-")
	v = strings.TrimPrefix(v, "v")
	switch strings.NewReplacer("_", ".", "-", ".").Replace(v) {
	case "1.3", "13":
		return tls.VersionTLS13, nil
	case "1.2", "12":
		return tls.VersionTLS12, nil
	case "1", "1.0", "10", "1.1", "11":
		return 0, errOldVersion
	}
	return 0, errUnknownVersion
}
