package tlsprops

import (
	"crypto/fips140"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// suite is a TLS 1.2 cipher suite that may be used, under its two names.
type suite struct {
	id      uint16
	openSSL string
	fips    bool // stays under GODEBUG=fips140=on
}

// suites are all that is ever offered for TLS 1.2: ephemeral key exchange and
// authenticated encryption (RFC 9325 section 4.2). Named one by one, because an
// empty list would make crypto/tls offer ECDHE with CBC as well. IHE ATNA lists
// DHE suites besides; crypto/tls has none, and peers that follow ATNA have the
// ECDHE ones.
var suites = []suite{
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", true},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", true},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", true},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", true},
	{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", false},
	{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", false},
}

// parseSuites returns the ids of names, all of them if there are none.
func parseSuites(names []string) ([]uint16, error) {
	var ids []uint16
	for _, s := range suites {
		if len(names) == 0 {
			ids = append(ids, s.id)
		}
	}
	for _, name := range names {
		s, err := suiteNamed(name)
		if err != nil {
			return nil, &FieldError{Field: "cipherSuites", Path: name, Err: err}
		}
		if !slices.Contains(ids, s.id) {
			ids = append(ids, s.id)
		}
	}
	return ids, nil
}

func suiteNamed(name string) (suite, error) {
	name = strings.ToUpper(strings.TrimSpace(name))
	var known []string
	for _, s := range suites {
		iana := tls.CipherSuiteName(s.id)
		// The ChaCha20 suites got their _SHA256 late; both forms are about.
		if name == iana || name == s.openSSL || name+"_SHA256" == iana {
			return s, nil
		}
		known = append(known, s.openSSL)
	}
	for _, s := range tls.CipherSuites() {
		if name == s.Name && !slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			return suite{}, errors.New("the suites of TLS 1.3 are not configurable in Go and always on: leave it out")
		}
	}
	return suite{}, fmt.Errorf("not a suite with ECDHE and authenticated encryption, or unknown: use some of %s", strings.Join(known, ", "))
}

// droppedByFIPS returns those of names that FIPS 140-3 mode leaves out, and
// whether nothing is left.
func droppedByFIPS(names []string) (dropped []string, none bool) {
	if !fips140.Enabled() || len(names) == 0 {
		return nil, false
	}
	for _, name := range names {
		if s, err := suiteNamed(name); err == nil && !s.fips {
			dropped = append(dropped, name)
		}
	}
	return dropped, len(dropped) == len(names)
}

// classicalCurves are the key exchanges of ClassicalKeyExchange. FIPS 140-3
// mode takes X25519 out by itself and leaves the three NIST curves.
var classicalCurves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
