package keystore

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"unicode/utf8"
)

// Format is the kind of a file.
type Format int

// The formats that Detect tells apart. Those up to DER are read.
const (
	FormatUnknown Format = iota
	FormatJKS            // Java's own, versions 1 and 2
	FormatJCEKS          // Java's own with secret keys; Mirth's default
	FormatPKCS12         // .p12, .pfx, and .jks of Java 9 and later; RFC 7292
	FormatPEM            // text with BEGIN and END lines; RFC 7468
	FormatDER            // one certificate or private key without PEM around it
	FormatBKS            // Bouncy Castle
	FormatUBER           // Bouncy Castle, encrypted as a whole
	FormatBCFKS          // Bouncy Castle, for FIPS
	FormatKDB            // IBM GSKit
	FormatNSS            // the database of Firefox and NSS
	FormatPKCS7          // .p7b
	FormatOpenSSH
	FormatPuTTY
	FormatPGP
)

var formats = map[Format]struct{ name, description, hint string }{
	FormatUnknown: {"unknown", "of an unknown kind", "name a JKS, JCEKS, PKCS#12 or PEM file"},
	FormatJKS:     {"JKS", "a JKS key store", ""},
	FormatJCEKS:   {"JCEKS", "a JCEKS key store", ""},
	FormatPKCS12:  {"PKCS#12", "a PKCS#12 key store", ""},
	FormatPEM:     {"PEM", "a PEM file", ""},
	FormatDER:     {"DER", "a DER certificate or key", ""},
	FormatBKS:     {"BKS", "a Bouncy Castle key store (BKS)", bouncyHint("BKS")},
	FormatUBER:    {"UBER", "a Bouncy Castle key store (UBER)", bouncyHint("UBER")},
	FormatBCFKS:   {"BCFKS", "a Bouncy Castle key store (BCFKS)", bouncyHint("BCFKS")},
	FormatKDB:     {"KDB", "an IBM GSKit key database (KDB)", "convert it with gskcapicmd -cert -export -db FILE -stashed -target NEW.p12 -target_type pkcs12"},
	FormatNSS:     {"NSS", "an NSS certificate database", "convert it with pk12util -d DIRECTORY -n NICKNAME -o NEW.p12"},
	FormatPKCS7:   {"PKCS#7", "a PKCS#7 bundle of certificates", "convert it with openssl pkcs7 -inform DER -print_certs -in FILE -out NEW.pem"},
	FormatOpenSSH: {"OpenSSH", "an OpenSSH private key", "convert it with ssh-keygen -p -m PKCS8 -f FILE"},
	FormatPuTTY:   {"PuTTY", "a PuTTY private key", "convert it with puttygen FILE -O private-openssh -o NEW, and then ssh-keygen -p -m PKCS8 -f NEW"},
	FormatPGP:     {"PGP", "a PGP key", "it has no certificate for TLS: name another file"},
}

func bouncyHint(storeType string) string {
	return "convert it with keytool -importkeystore -srckeystore FILE -srcstoretype " + storeType +
		" -destkeystore NEW.p12 -deststoretype PKCS12 -providerpath bcprov.jar -provider org.bouncycastle.jce.provider.BouncyCastleProvider"
}

// String returns the usual short name.
func (f Format) String() string {
	if known, ok := formats[f]; ok {
		return known.name
	}
	return formats[FormatUnknown].name
}

func (f Format) description() string { return formats[f].description }

const (
	magicJKS   = 0xfeedfeed
	magicJCEKS = 0xcececece
)

// Detect tells the format of a file by its content. The names of such files say
// little: a .jks of Java 9 or later is PKCS#12, and one of Mirth is JCEKS.
func Detect(data []byte) Format {
	text := bytes.TrimSpace(bytes.TrimPrefix(data, []byte(utf8BOM)))
	switch {
	case len(data) >= 4 && binary.BigEndian.Uint32(data) == magicJKS:
		return FormatJKS
	case len(data) >= 4 && binary.BigEndian.Uint32(data) == magicJCEKS:
		return FormatJCEKS
	case isBouncyCastle(data):
		// After version, salt and iterations BKS goes on with the type of its first
		// entry, 0 to 4; UBER with what is random.
		if next := 8 + int(data[7]) + 4; next < len(data) && data[next] > 4 {
			return FormatUBER
		}
		return FormatBKS
	case bytes.HasPrefix(data, []byte("SQLite format 3\x00")):
		return FormatNSS
	case bytes.HasPrefix(text, []byte("PuTTY-User-Key-File-")):
		return FormatPuTTY
	case bytes.Contains(text, []byte("-----BEGIN PGP ")):
		return FormatPGP
	case bytes.Contains(text, []byte("-----BEGIN OPENSSH PRIVATE KEY-----")):
		return FormatOpenSSH
	}
	if len(data) > 0 && data[0] == 0x30 {
		if f := detectDER(data); f != FormatUnknown {
			return f
		}
	}
	if bytes.Contains(text, []byte("-----BEGIN ")) {
		return FormatPEM
	}
	return FormatUnknown
}

// isBouncyCastle looks for a version of 1 or 2 and a salt of 8 to 64 bytes.
func isBouncyCastle(data []byte) bool {
	return len(data) > 12 && bytes.HasPrefix(data, []byte{0, 0, 0}) && (data[3] == 1 || data[3] == 2) &&
		bytes.HasPrefix(data[4:], []byte{0, 0, 0}) && data[7] >= 8 && data[7] <= 64
}

// detectDER tells the ASN.1 formats by the types of their first elements, which
// are read without their ends: the file may be cut.
func detectDER(data []byte) Format {
	first, ok := firstInside(data)
	if !ok {
		return FormatUnknown
	}
	switch first[0] {
	case asn1.TagInteger:
		if bytes.HasPrefix(first, []byte{asn1.TagInteger, 1, 3}) {
			return FormatPKCS12
		}
		return FormatDER // a private key: PKCS #1, PKCS #8 or SEC 1
	case asn1.TagOID:
		return FormatPKCS7
	case 0x20 | asn1.TagSequence:
	default:
		return FormatUnknown
	}
	// A certificate, or an encrypted PKCS #8 key: AlgorithmIdentifier and OCTET
	// STRING. BCFKS has the latter as its first element.
	inner, ok := firstInside(first)
	if !ok {
		return FormatDER
	}
	if inner[0] == 0x20|asn1.TagSequence {
		if deepest, ok := firstInside(inner); ok && deepest[0] == asn1.TagOID {
			return FormatBCFKS
		}
	}
	return FormatDER
}

// firstInside returns what begins with the first element inside of the element
// that begins data.
func firstInside(data []byte) ([]byte, bool) {
	if len(data) < 2 {
		return nil, false
	}
	size := 2
	if data[1] > 0x80 {
		size += int(data[1] & 0x7f)
	}
	if size >= len(data) {
		return nil, false
	}
	return data[size:], true
}

const utf8BOM = "\xef\xbb\xbf"

// unknownError says what data could be that Open does not know.
func unknownError(data []byte) error {
	text := bytes.TrimSpace(data)
	switch {
	case len(text) == 0:
		return malformed("the file is empty")
	case len(data) < 4:
		return malformed("the file has %d bytes and is no key store", len(data))
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return malformed("the file is UTF-16 text: save it as UTF-8")
	}
	if decoded := unbase64(text); decoded != nil {
		if f := Detect(decoded); f != FormatUnknown {
			return malformed("the file is base64 of %s, as in a Kubernetes Secret: decode it with base64 -d FILE", f.description())
		}
	}
	if utf8.Valid(text) && !bytes.ContainsRune(text, 0) {
		return malformed("the file is text without any PEM block")
	}
	return malformed("the file begins with %x, which no key store does", data[:4])
}

// unbase64 decodes text that is base64 throughout, or returns nil.
func unbase64(text []byte) []byte {
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(out, text)
	if err != nil || n < 16 {
		return nil // a word is base64 too
	}
	return out[:n]
}
