package dicomtls

import (
	"crypto/fips140"
	"crypto/tls"
	"errors"
	"fmt"
)

// DicomTlsMode says how a DICOM connection is secured: the word of the setting
// tls. The empty mode is ModeNoTLS, which is the guide's default; an empty word
// in a configuration is refused all the same.
type DicomTlsMode string //nolint:revive // the user's name, letter by letter

// The modes.
const (
	// ModeNoTLS is DICOM without TLS.
	ModeNoTLS DicomTlsMode = "notls"
	// Mode3DES is the Basic TLS Secure Transport Connection Profile (PS3.15 B.1,
	// retired): TLS 1.2 with TLS_RSA_WITH_3DES_EDE_CBC_SHA and nothing else, for
	// equipment that has nothing better. It has no forward secrecy, a block of 64
	// bits, and about a fiftieth of the speed of the others.
	Mode3DES DicomTlsMode = "3des"
	// ModeAES is the AES TLS Secure Transport Connection Profile (PS3.15 B.3,
	// retired) joined with today's: TLS 1.3, TLS 1.2 with ECDHE and AES-GCM, and
	// TLS_RSA_WITH_AES_128_CBC_SHA, which is the only one that Mirth Connect's aes
	// has. Both ends pick the best that they share. The last one needs an RSA
	// certificate on the listener.
	ModeAES DicomTlsMode = "aes"
	// ModeBCP195 is the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection
	// Profile (PS3.15 B.12) and nothing else: TLS 1.3, and TLS 1.2 with ECDHE and
	// AES-GCM.
	ModeBCP195 DicomTlsMode = "bcp195"
)

// profile is what a mode means to crypto/tls.
type profile struct {
	minVersion, maxVersion uint16 // maxVersion 0: the highest there is
	suites                 []uint16
	legacy                 bool // has what FIPS 140-3 does not allow
	rsaOnly                bool // no suite works with another kind of listener's key
}

// bcp195 are the suites of PS3.15 B.12 for TLS 1.2. crypto/tls has none of those
// with DHE that the retired B.9 to B.11 listed.
var bcp195 = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
}

var profiles = map[DicomTlsMode]profile{
	Mode3DES: {
		minVersion: tls.VersionTLS12, maxVersion: tls.VersionTLS12,
		suites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}, legacy: true, rsaOnly: true,
	},
	ModeAES: {
		minVersion: tls.VersionTLS12,
		suites:     append([]uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}, bcp195...), legacy: true,
	},
	ModeBCP195: {minVersion: tls.VersionTLS12, suites: bcp195},
}

// apply makes c, whose owner is the caller, one of the profile.
func (p *profile) apply(c *tls.Config) *tls.Config {
	c.MinVersion, c.MaxVersion, c.CipherSuites = p.minVersion, p.maxVersion, p.suites
	return c
}

// Enabled reports whether the mode is one with TLS.
func (m DicomTlsMode) Enabled() bool { return m != "" && m != ModeNoTLS }

// String returns the word of the mode.
func (m DicomTlsMode) String() string {
	if m == "" {
		return string(ModeNoTLS)
	}
	return string(m)
}

// check returns why the mode cannot be used, as a *FieldError.
func (m DicomTlsMode) check() error {
	if !m.Enabled() {
		return nil
	}
	p, known := profiles[m]
	switch {
	case m == "without":
		return &FieldError{Field: fieldTLS, Path: string(m), Err: errors.New(
			"is Mirth's word for TLS that encrypts nothing, and there is no such thing here: use bcp195 or aes, or notls and say so",
		)}
	case !known:
		return &FieldError{Field: fieldTLS, Path: string(m), Err: errors.New("unknown: use notls, 3des, aes or bcp195")}
	case p.legacy && fips140.Enabled():
		return &FieldError{Field: fieldTLS, Path: string(m), Err: errors.New(
			"has suites that FIPS 140-3 mode does not allow, and crypto/tls would leave them out unsaid: use bcp195",
		)}
	}
	return nil
}

// MarshalText returns the word of the mode; an unknown mode is an error.
func (m DicomTlsMode) MarshalText() ([]byte, error) {
	if _, known := profiles[m]; m.Enabled() && !known {
		return nil, fmt.Errorf("dicomtls: unknown mode %q", string(m))
	}
	return []byte(m.String()), nil
}

// UnmarshalText takes notls, 3des, aes and bcp195, spelled exactly so. Everything
// else is a *FieldError, the empty word and Mirth's "without" among it.
func (m *DicomTlsMode) UnmarshalText(text []byte) error {
	word := DicomTlsMode(text)
	if word == "" {
		return &FieldError{Field: fieldTLS, Err: errors.New("is empty: use notls, 3des, aes or bcp195")}
	}
	_, known := profiles[word]
	if !known && word != ModeNoTLS {
		return word.check()
	}
	*m = word
	return nil
}
