package tlsprops

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Role is the side of a connection that properties are for.
type Role int

// The two roles.
const (
	// Listener accepts connections and must prove who it is.
	Listener Role = iota
	// Client makes connections and checks who answers.
	Client
)

// String returns "listener" or "client".
func (r Role) String() string {
	switch r {
	case Listener:
		return "listener"
	case Client:
		return "client"
	default:
		return fmt.Sprintf("Role(%d)", int(r))
	}
}

// The words of ClientAuth and CRLCheck.
const (
	clientAuthOptional = "optional"
	crlHard            = "hard"
	crlSoft            = "soft"
)

// setting is one setting for the rules below: what it is called and whether it
// is given.
type setting struct {
	field string
	given bool
}

// settings returns every setting but Enabled in the order of the struct.
func (p *TlsProperties) settings() []setting {
	return []setting{
		{"keyStorePath", p.KeyStorePath != ""},
		{"certStorePath", p.CertStorePath != ""},
		{"trustStorePath", p.TrustStorePath != ""},
		{"rejectUnauthorized", p.RejectUnauthorized != nil},
		{"requireClientCert", p.RequireClientCert},
		{"requireClientAuth", p.RequireClientAuth},
		{"sniServerName", p.SniServerName != ""},
		{"minVersion", p.MinVersion != ""},
		{"passphrase", p.Passphrase != ""},
		{"passphraseFile", p.PassphraseFile != ""},
		{"keyPassphrase", p.KeyPassphrase != ""},
		{"keyAlias", p.KeyAlias != ""},
		{"clientAuth", p.ClientAuth != ""},
		{"trustSystemRoots", p.TrustSystemRoots},
		{"verify", p.Verify != ""},
		{"expectedName", p.ExpectedName != ""},
		{"pins", len(p.Pins) > 0},
		{"crlPaths", len(p.CRLPaths) > 0},
		{"crlCheck", p.CRLCheck != ""},
		{"ocspStaplePath", p.OCSPStaplePath != ""},
		{"anyExtendedKeyUsage", p.AnyExtendedKeyUsage},
		{"alwaysSendClientCert", p.AlwaysSendClientCert},
		{"cipherSuites", len(p.CipherSuites) > 0},
		{"classicalKeyExchange", p.ClassicalKeyExchange},
		{"strictPermissions", p.StrictPermissions},
		{"allowExpired", p.AllowExpired},
	}
}

// given tells which of fields are set, by the name of the first.
func (p *TlsProperties) given(fields ...string) (string, bool) {
	for _, s := range p.settings() {
		for _, f := range fields {
			if s.given && s.field == f {
				return f, true
			}
		}
	}
	return "", false
}

// refuse returns a *FieldError without a path.
func refuse(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// Validate returns the first contradiction that can be seen without reading a
// file or knowing the role, as a *FieldError; nil if there is none. Load and
// ValidateFor do the same.
func (p *TlsProperties) Validate() error {
	if !p.Enabled {
		for _, s := range p.settings() {
			if s.given {
				return refuse(s.field, "is set although enabled is false: set enabled to true, or remove it")
			}
		}
		return nil
	}
	if err := p.validateWords(); err != nil {
		return err
	}
	if err := p.validateFiles(); err != nil {
		return err
	}
	return p.validateVerification()
}

// validateWords checks each setting by itself.
func (p *TlsProperties) validateWords() error {
	if _, err := parseVersion(p.MinVersion); err != nil {
		return &FieldError{Field: "minVersion", Path: p.MinVersion, Err: err}
	}
	if _, err := parseSuites(p.CipherSuites); err != nil {
		return err
	}
	if _, none := droppedByFIPS(p.CipherSuites); none {
		return refuse("cipherSuites", "FIPS 140-3 mode leaves none of them: add a suite with AES-GCM")
	}
	switch p.Verify {
	case "", VerifyFull, VerifyChainOnly, VerifyPinned:
	default:
		return &FieldError{Field: "verify", Path: string(p.Verify), Err: errors.New("unknown: use full, chain-only or pinned")}
	}
	if p.ClientAuth != "" && p.ClientAuth != clientAuthOptional {
		return &FieldError{
			Field: "clientAuth", Path: p.ClientAuth,
			Err: errors.New("unknown: use optional, or requireClientCert to require certificates"),
		}
	}
	if p.CRLCheck != "" && p.CRLCheck != crlHard && p.CRLCheck != crlSoft {
		return &FieldError{Field: "crlCheck", Path: p.CRLCheck, Err: errors.New("unknown: use hard or soft")}
	}
	if p.SniServerName != "" {
		if _, err := hostName(p.SniServerName); err != nil {
			return &FieldError{Field: "sniServerName", Path: p.SniServerName, Err: err}
		}
	}
	if p.ExpectedName != "" {
		if _, err := hostName(p.ExpectedName); err != nil {
			return &FieldError{Field: "expectedName", Path: p.ExpectedName, Err: err}
		}
	}
	_, err := parsePins(p.Pins)
	return err
}

// validateFiles checks that no file is named without the one it needs.
func (p *TlsProperties) validateFiles() error {
	if p.CertStorePath != "" && p.KeyStorePath == "" {
		return refuse("keyStorePath", "is missing although certStorePath is set: "+
			"set it to the private key, or to the same file if that holds both")
	}
	if p.Passphrase != "" && p.PassphraseFile != "" {
		return refuse("passphraseFile", "is set as well as passphrase: remove one")
	}
	if f, ok := p.given("passphrase", "passphraseFile"); ok && p.KeyStorePath == "" && p.TrustStorePath == "" {
		return refuse(f, "is set, but there is no file to open with it: set keyStorePath, or remove it")
	}
	if f, ok := p.given("keyPassphrase", "keyAlias"); ok {
		if p.KeyStorePath == "" {
			return refuse(f, "is set without keyStorePath: set keyStorePath, or remove it")
		}
		if p.Decoder == nil {
			return refuse(f, "belongs to key stores, and this program reads PEM alone: convert the key store to PEM, or remove it")
		}
	}
	if f, ok := p.given("ocspStaplePath", "alwaysSendClientCert", "allowExpired", "strictPermissions"); ok && p.KeyStorePath == "" {
		return refuse(f, "is set without keyStorePath: set keyStorePath, or remove it")
	}
	if p.CRLCheck != "" && len(p.CRLPaths) == 0 {
		return refuse("crlCheck", "is set without crlPaths: set crlPaths, or remove it")
	}
	if slices.Contains(p.CRLPaths, "") {
		return refuse("crlPaths", "holds an empty path: remove it")
	}
	return nil
}

// validateVerification checks that the ways of judging a peer go together.
func (p *TlsProperties) validateVerification() error {
	if !p.rejects() {
		if f, ok := p.given("verify", "expectedName", "crlPaths", "anyExtendedKeyUsage"); ok {
			return refuse(f, "asks for a check that rejectUnauthorized false takes away: remove one of the two")
		}
	}
	switch p.Verify {
	case VerifyPinned:
		if len(p.Pins) == 0 {
			return refuse("pins", "is empty, but verify is pinned: add the peer's pin")
		}
		if f, ok := p.given("trustStorePath", "trustSystemRoots", "expectedName", "crlPaths", "anyExtendedKeyUsage"); ok {
			return refuse(f, "is not looked at when verify is pinned: remove it, or set verify to full, which checks it and pins")
		}
	case VerifyChainOnly:
		if p.ExpectedName != "" {
			return refuse("expectedName", "is not looked at when verify is chain-only: remove one of the two")
		}
	case VerifyFull:
	}
	return nil
}

// ValidateFor is Validate and the contradictions of a role: a listener without
// a key, client certificates asked for with nothing to check them against,
// settings of the other role. Disabled properties are valid for both.
func (p *TlsProperties) ValidateFor(role Role) error {
	if err := p.Validate(); err != nil || !p.Enabled {
		return err
	}
	if role == Listener {
		return p.validateListener()
	}
	if f, ok := p.given("requireClientCert", "requireClientAuth", "clientAuth", "ocspStaplePath"); ok {
		return refuse(f, "is for listeners, and this is a client: remove it")
	}
	return nil
}

func (p *TlsProperties) validateListener() error {
	if p.KeyStorePath == "" {
		return refuse("keyStorePath", "is missing: a listener needs a private key and a certificate")
	}
	if f, ok := p.given("sniServerName", "expectedName", "alwaysSendClientCert"); ok {
		return refuse(f, "is for clients, and this is a listener: remove it")
	}
	if !p.asksClientCert() {
		if f, ok := p.given("verify", "pins", "crlPaths", "anyExtendedKeyUsage"); ok {
			return refuse(f, "is about client certificates, which this listener does not ask for: set requireClientCert to true, or remove it")
		}
		return nil
	}
	if !p.rejects() {
		return refuse("rejectUnauthorized", "is false, but client certificates are asked for: "+
			"a certificate that is not checked proves nothing; remove one of the two")
	}
	if p.TrustStorePath == "" && !p.TrustSystemRoots && p.Verify != VerifyPinned {
		return refuse("trustStorePath", "is missing, but client certificates are asked for: "+
			"set it to the CA that issues them (trustSystemRoots would let in everyone with a public certificate)")
	}
	return nil
}

// roleWarnings returns what is strange about p for a role, but not wrong.
func (p *TlsProperties) roleWarnings(role Role) []string {
	var w []string
	if role == Listener {
		if f, ok := p.given("trustStorePath", "trustSystemRoots"); ok && !p.asksClientCert() {
			w = append(w, f+" has no effect: this listener does not ask for client certificates; set requireClientCert to true if it should")
		}
		if !p.rejects() {
			w = append(w, "rejectUnauthorized false has no effect: this listener does not ask for client certificates")
		}
	} else if !p.rejects() {
		msg := "rejectUnauthorized is false: the server's certificate is not checked, and anyone on the way can read and change what is sent"
		if len(p.Pins) > 0 {
			msg = "rejectUnauthorized is false: of the server's certificate only the pin is checked; verify pinned says the same without this warning"
		}
		w = append(w, msg)
	}
	return w
}

// commonWarnings returns what is strange about p in both roles.
func (p *TlsProperties) commonWarnings() []string {
	var w []string
	if v, err := parseVersion(p.MinVersion); err == nil && v == tls.VersionTLS13 && len(p.CipherSuites) > 0 {
		w = append(w, "cipherSuites has no effect: minVersion is TLSv1.3, whose suites are not configurable in Go")
	}
	if dropped, _ := droppedByFIPS(p.CipherSuites); len(dropped) > 0 {
		w = append(w, "cipherSuites: FIPS 140-3 mode leaves out "+strings.Join(dropped, ", "))
	}
	return w
}

const pinPrefix = "sha256/"

// parsePins returns the set of hashes that pins name.
func parsePins(pins []string) (map[[sha256.Size]byte]bool, error) {
	set := make(map[[sha256.Size]byte]bool, len(pins))
	for _, pin := range pins {
		text, ok := strings.CutPrefix(pin, pinPrefix)
		sum, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(sum) != sha256.Size {
			return nil, &FieldError{
				Field: "pins", Path: pin,
				Err: errors.New("not a pin: write sha256/ and the base64 of the SHA-256 of the peer's public key (44 characters)"),
			}
		}
		set[[sha256.Size]byte(sum)] = true
	}
	return set, nil
}

// hostName returns a host as crypto/tls and crypto/x509 take it: an IP address
// without its zone, or a name without a final dot. What is no host is an error.
func hostName(s string) (string, error) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return addr.WithZone("").String(), nil
	}
	name := strings.TrimSuffix(s, ".")
	switch {
	case name == "":
		return "", errors.New("no host name: write one, or an IP address")
	case strings.Contains(name, "://"):
		return "", errors.New("a host name has no scheme: leave out what is before and with ://")
	case strings.ContainsAny(name, ":"):
		return "", errors.New("a host name has no port: leave out the colon and what follows")
	case len(name) > 253: // RFC 1035 section 3.1
		return "", errors.New("a host name has at most 253 characters")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", errors.New("each part of a host name has 1 to 63 characters")
		}
		for _, r := range label {
			switch {
			case r > 127:
				return "", errors.New("not ASCII: write its A-label, which begins with xn-- (IDNA, RFC 5890)")
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			default:
				return "", errors.New("not a host name: use letters, digits, hyphens and dots")
			}
		}
	}
	return name, nil
}
