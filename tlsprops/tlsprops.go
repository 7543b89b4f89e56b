package tlsprops

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// TlsProperties are the TLS settings of one connector. The first block are the
// fields of the deployment guide, letter by letter; the second are carewire's
// own; the third are set by programs and never read from configuration.
//
// The zero value is TLS switched off. A setting that cannot be honoured is an
// error, never a weaker connection.
//
// Printing and logging leave out the passphrases; encoding/json does not, so
// that a configuration survives being saved: use PassphraseFile to keep
// passphrases out of configurations altogether.
type TlsProperties struct {
	// Enabled turns TLS on. If false, every other setting must be absent.
	Enabled bool `json:"enabled" yaml:"enabled"`
	// KeyStorePath is a PEM file with the private key. It may hold the
	// certificates too, and with Decoder it may be a JKS or PKCS#12 key store.
	// A listener needs it; a client presents a certificate if it is set.
	KeyStorePath string `json:"keyStorePath,omitempty" yaml:"keyStorePath,omitempty"`
	// CertStorePath is a PEM file with the certificate and the intermediates
	// above it, in any order. Empty: they are in KeyStorePath.
	CertStorePath string `json:"certStorePath,omitempty" yaml:"certStorePath,omitempty"`
	// TrustStorePath is a PEM file with the CAs that may have issued the peer's
	// certificate. It replaces the host's roots; see TrustSystemRoots. Empty: a
	// client trusts the host's roots, a listener nobody.
	TrustStorePath string `json:"trustStorePath,omitempty" yaml:"trustStorePath,omitempty"`
	// RejectUnauthorized false makes a client accept any certificate (Pins are
	// still enforced). It is an error on a listener that asks for certificates.
	// nil means true.
	RejectUnauthorized *bool `json:"rejectUnauthorized,omitempty" yaml:"rejectUnauthorized,omitempty"`
	// RequireClientCert makes a listener refuse clients without a certificate
	// from a CA of TrustStorePath.
	RequireClientCert bool `json:"requireClientCert,omitempty" yaml:"requireClientCert,omitempty"`
	// RequireClientAuth is another name for RequireClientCert: either is enough.
	RequireClientAuth bool `json:"requireClientAuth,omitempty" yaml:"requireClientAuth,omitempty"`
	// SniServerName is the name a client sends and checks the certificate for.
	// Empty: the host it dials. An IP address is checked, not sent (RFC 6066
	// section 3).
	SniServerName string `json:"sniServerName,omitempty" yaml:"sniServerName,omitempty"`
	// MinVersion is TLSv1.2 or TLSv1.3 in any usual spelling. Empty: TLSv1.2.
	// Nothing older is spoken, whatever is asked (RFC 8996).
	MinVersion string `json:"minVersion,omitempty" yaml:"minVersion,omitempty"`
	// Passphrase opens an encrypted key or a key store.
	Passphrase string `json:"passphrase,omitempty" yaml:"passphrase,omitempty"`

	// PassphraseFile holds the passphrase, less one newline at its end. It is
	// read again with the other files. Not together with Passphrase.
	PassphraseFile string `json:"passphraseFile,omitempty" yaml:"passphraseFile,omitempty"`
	// KeyPassphrase opens the key inside a key store, where it differs from the
	// store's. Needs Decoder.
	KeyPassphrase string `json:"keyPassphrase,omitempty" yaml:"keyPassphrase,omitempty"`
	// KeyAlias says which key of a key store. Empty: its only one. Needs Decoder.
	KeyAlias string `json:"keyAlias,omitempty" yaml:"keyAlias,omitempty"`
	// ClientAuth "optional" makes a listener verify the certificates of clients
	// that have one and let others in. RequireClientCert, if set, comes before
	// it. Empty: see RequireClientCert.
	ClientAuth string `json:"clientAuth,omitempty" yaml:"clientAuth,omitempty"`
	// TrustSystemRoots adds the host's roots to TrustStorePath. A listener then
	// lets in everyone with a certificate from a public CA.
	TrustSystemRoots bool `json:"trustSystemRoots,omitempty" yaml:"trustSystemRoots,omitempty"`
	// Verify is how a peer's certificate is judged. Empty: VerifyFull.
	Verify VerifyMode `json:"verify,omitempty" yaml:"verify,omitempty"`
	// ExpectedName is the name a client checks the certificate for, where it
	// differs from the one sent. Empty: the one sent.
	ExpectedName string `json:"expectedName,omitempty" yaml:"expectedName,omitempty"`
	// Pins are "sha256/" and the base64 of the SHA-256 of the peer's public key
	// (SubjectPublicKeyInfo). The peer's leaf must match one of them, on top of
	// what Verify asks. Empty: no pinning.
	Pins []string `json:"pins,omitempty" yaml:"pins,omitempty"`
	// CRLPaths are files of revocation lists, PEM or DER, or directories of such
	// files. Empty: no revocation checking.
	CRLPaths []string `json:"crlPaths,omitempty" yaml:"crlPaths,omitempty"`
	// CRLCheck is "hard": a certificate without a current list of its issuer is
	// refused; or "soft": it is accepted. Empty: hard. Either refuses what is
	// listed as revoked.
	CRLCheck string `json:"crlCheck,omitempty" yaml:"crlCheck,omitempty"`
	// OCSPStaplePath is a DER OCSP response that a listener staples.
	OCSPStaplePath string `json:"ocspStaplePath,omitempty" yaml:"ocspStaplePath,omitempty"`
	// AnyExtendedKeyUsage accepts peers whose certificate was not issued for
	// their role: a client's with serverAuth alone, or the reverse.
	AnyExtendedKeyUsage bool `json:"anyExtendedKeyUsage,omitempty" yaml:"anyExtendedKeyUsage,omitempty"`
	// AlwaysSendClientCert makes a client present its certificate although the
	// server does not name its issuer as acceptable.
	AlwaysSendClientCert bool `json:"alwaysSendClientCert,omitempty" yaml:"alwaysSendClientCert,omitempty"`
	// CipherSuites narrows the TLS 1.2 suites, in IANA's or OpenSSL's spelling.
	// Empty: the six ECDHE suites with AES-GCM or ChaCha20-Poly1305; no others
	// are accepted here. TLS 1.3 suites are Go's own.
	CipherSuites []string `json:"cipherSuites,omitempty" yaml:"cipherSuites,omitempty"`
	// ClassicalKeyExchange leaves out the post-quantum key exchanges, whose
	// ClientHello of more than one packet some middle boxes drop.
	ClassicalKeyExchange bool `json:"classicalKeyExchange,omitempty" yaml:"classicalKeyExchange,omitempty"`
	// StrictPermissions makes it an error, rather than a warning, that users
	// other than the owner can read the key.
	StrictPermissions bool `json:"strictPermissions,omitempty" yaml:"strictPermissions,omitempty"`
	// AllowExpired lets a connector start although its own certificate has
	// expired or is not valid yet.
	AllowExpired bool `json:"allowExpired,omitempty" yaml:"allowExpired,omitempty"`

	// ReloadInterval is how often the files are looked at. Zero: 10 s. Negative:
	// only when Reload is called.
	ReloadInterval time.Duration `json:"-" yaml:"-"`
	// Decoder opens files that are not PEM. nil: such files are an error.
	Decoder Decoder `json:"-" yaml:"-"`
	// NextProtos are the ALPN protocols of ServerConfig and ClientConfig. They
	// belong here, because what is set on the configuration that ServerConfig
	// returns does not reach the configurations of later generations.
	NextProtos []string `json:"-" yaml:"-"`
	// Observe is called for every Event, from the goroutine in which it happens,
	// by several at once. It must not block. nil: nobody is told.
	Observe func(Event) `json:"-" yaml:"-"`
	// Logger gets what Observe gets, and warnings. nil: nothing is logged.
	Logger *slog.Logger `json:"-" yaml:"-"`
}

// VerifyMode is how a peer's certificate is judged.
type VerifyMode string

// The modes of verification.
const (
	// VerifyFull, or the empty string, checks the chain to a trusted CA, and on
	// a client the name.
	VerifyFull VerifyMode = "full"
	// VerifyChainOnly checks the chain and not the name, for peers whose
	// certificate names no host, as at an IHE connectathon.
	VerifyChainOnly VerifyMode = "chain-only"
	// VerifyPinned checks nothing but Pins: neither chain, name nor dates, as
	// DANE-EE does (RFC 7671 section 5.1). It suits self-signed peers.
	VerifyPinned VerifyMode = "pinned"
)

// Decoder opens what tlsprops cannot: a whole file that is not PEM (JKS,
// PKCS#12), or the DER of an encrypted PKCS#8 key whose algorithm it does not
// know (scrypt). Its errors must hold neither passphrases nor content.
type Decoder func(in DecoderInput) (*Material, error)

// DecoderInput is a file for a Decoder.
type DecoderInput struct {
	Field string // the setting that names the file: "keyStorePath"
	Path  string
	Data  []byte // not to be modified

	Passphrase    string
	KeyPassphrase string // empty: the same as Passphrase
	Alias         string // empty: the only key
}

// Material is what a Decoder found. What a file does not hold stays empty.
type Material struct {
	Key   crypto.Signer
	Chain [][]byte // DER, the key's own certificate among them
	Roots [][]byte // DER, trusted certificates
}

// UnmarshalJSON refuses fields that do not exist: a misspelt
// rejectUnauthorized must not pass for a default.
func (p *TlsProperties) UnmarshalJSON(data []byte) error {
	type plain TlsProperties // without this method
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode((*plain)(p)); err != nil {
		return fmt.Errorf("tlsprops: %s: correct the TLS settings", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// rejects tells whether peers that do not verify are turned away.
func (p *TlsProperties) rejects() bool { return p.RejectUnauthorized == nil || *p.RejectUnauthorized }

// requiresClientCert tells whether a listener refuses clients without one.
func (p *TlsProperties) requiresClientCert() bool { return p.RequireClientCert || p.RequireClientAuth }

// asksClientCert tells whether a listener verifies certificates of clients.
func (p *TlsProperties) asksClientCert() bool {
	return p.requiresClientCert() || p.ClientAuth == clientAuthOptional
}

// clone returns a copy that shares nothing that its owner may change.
func (p TlsProperties) clone() TlsProperties {
	if p.RejectUnauthorized != nil {
		p.RejectUnauthorized = new(*p.RejectUnauthorized)
	}
	p.Pins = slices.Clone(p.Pins)
	p.CRLPaths = slices.Clone(p.CRLPaths)
	p.CipherSuites = slices.Clone(p.CipherSuites)
	p.NextProtos = slices.Clone(p.NextProtos)
	return p
}

// redacted stands for a secret that is set.
const redacted = "[redacted]"

// LogValue returns the settings without the passphrases.
func (p TlsProperties) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Bool("enabled", p.Enabled)}
	text := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	secret := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, redacted))
		}
	}
	flag := func(name string, value bool) {
		if value {
			attrs = append(attrs, slog.Bool(name, value))
		}
	}
	text("keyStorePath", p.KeyStorePath)
	text("certStorePath", p.CertStorePath)
	text("trustStorePath", p.TrustStorePath)
	if p.RejectUnauthorized != nil {
		attrs = append(attrs, slog.Bool("rejectUnauthorized", *p.RejectUnauthorized))
	}
	flag("requireClientCert", p.RequireClientCert)
	flag("requireClientAuth", p.RequireClientAuth)
	text("sniServerName", p.SniServerName)
	text("minVersion", p.MinVersion)
	secret("passphrase", p.Passphrase)
	text("passphraseFile", p.PassphraseFile)
	secret("keyPassphrase", p.KeyPassphrase)
	text("keyAlias", p.KeyAlias)
	text("clientAuth", p.ClientAuth)
	flag("trustSystemRoots", p.TrustSystemRoots)
	text("verify", string(p.Verify))
	text("expectedName", p.ExpectedName)
	text("pins", strings.Join(p.Pins, " "))
	text("crlPaths", strings.Join(p.CRLPaths, " "))
	text("crlCheck", p.CRLCheck)
	text("ocspStaplePath", p.OCSPStaplePath)
	flag("anyExtendedKeyUsage", p.AnyExtendedKeyUsage)
	flag("alwaysSendClientCert", p.AlwaysSendClientCert)
	text("cipherSuites", strings.Join(p.CipherSuites, " "))
	flag("classicalKeyExchange", p.ClassicalKeyExchange)
	flag("strictPermissions", p.StrictPermissions)
	flag("allowExpired", p.AllowExpired)
	return slog.GroupValue(attrs...)
}

// String returns the settings without the passphrases.
func (p TlsProperties) String() string {
	var b strings.Builder
	b.WriteString("TlsProperties{")
	for i, a := range p.LogValue().Group() {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.Key + ":" + a.Value.String())
	}
	b.WriteByte('}')
	return b.String()
}

// Format prints String for every verb, so that none shows the passphrases.
func (p TlsProperties) Format(w fmt.State, _ rune) {
	_, _ = w.Write([]byte(p.String()))
}
