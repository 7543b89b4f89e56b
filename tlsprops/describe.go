package tlsprops

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"unicode/utf8"
)

// isPEM tells PEM, or text that was meant to be PEM, from key stores and DER. An
// empty file counts as text, so that it is reported as an empty PEM file.
func isPEM(data []byte) bool {
	if isUTF16(data) {
		return true
	}
	if len(data) > 1 && (data[0] == 0x30 && data[1] >= 0x80 || binaryMagic(data) != "") {
		return false
	}
	return bytes.Contains(data, []byte(pemBegin)) || isText(data)
}

// describe names what data is, for an error message about a file that is not
// what it was expected to be. The words follow "it is".
func describe(data []byte) string {
	if s := binaryMagic(data); s != "" {
		return s
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(data, []byte(utf8BOM)))
	switch {
	case len(text) == 0:
		return "an empty file"
	case isUTF16(data):
		return "UTF-16 text"
	case bytes.Contains(text, []byte("-----BEGIN OPENSSH PRIVATE KEY-----")):
		return "an OpenSSH private key"
	case bytes.HasPrefix(text, []byte("PuTTY-User-Key-File-")):
		return "a PuTTY private key"
	case bytes.HasPrefix(text, []byte("---- BEGIN SSH2 ")):
		return "an SSH key"
	case bytes.HasPrefix(text, []byte("ssh-")), bytes.HasPrefix(text, []byte("ecdsa-sha2-")):
		return "an SSH public key"
	case bytes.Contains(text, []byte(pemBegin)):
		return "a PEM file"
	case text[0] == '<':
		return "an XML or HTML document"
	}
	if s := describeDER(data); s != "" {
		return s
	}
	if !isText(data) {
		return "binary data of an unknown kind"
	}
	if inner := unbase64(text); inner != nil {
		if isPEM(inner) {
			return "a PEM file in base64 (as in a Kubernetes Secret): decode it first"
		}
		return "base64 without BEGIN and END lines"
	}
	return "text without any PEM block"
}

// notPEMError is the error for a file without any PEM block.
func notPEMError(data []byte) error {
	var hint string
	switch shapeOf(data) {
	case shapeCertificate:
		hint = ": convert it with openssl x509 -inform DER -in FILE -out NEW"
	case shapePKCS8, shapeEncryptedPKCS8, shapePKCS1, shapeSEC1:
		hint = ": convert it with openssl pkcs8 -topk8 -inform DER -in FILE -out NEW"
	case shapePKCS7:
		hint = ": convert it with openssl pkcs7 -inform DER -print_certs -in FILE -out NEW"
	default:
	}
	return fmt.Errorf("no PEM block: the file is %s%s", describe(data), hint)
}

// binaryMagic names the key stores that their first bytes tell.
func binaryMagic(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return "a JKS key store"
	case bytes.HasPrefix(data, []byte{0xce, 0xce, 0xce, 0xce}):
		return "a JCEKS key store"
	case len(data) > 8 && bytes.HasPrefix(data, []byte{0, 0, 0}) && data[3] <= 2 && bytes.HasPrefix(data[4:], []byte{0, 0, 0}):
		// Version, then the length of the salt, each four bytes.
		return "a Bouncy Castle key store (BKS or UBER)"
	default:
		return ""
	}
}

// describeDER names the ASN.1 structures that occur in place of PEM; "" if data
// is none. BER's indefinite lengths, which encoding/asn1 does not read, are met
// in key stores alone.
func describeDER(data []byte) string {
	if bytes.HasPrefix(data, []byte{0x30, 0x80}) {
		return "a PKCS #12 key store or another ASN.1 file"
	}
	switch shapeOf(data) {
	case shapeCertificate:
		return "a DER certificate"
	case shapePKCS8, shapePKCS1, shapeSEC1, shapeDSA:
		return "a DER private key"
	case shapeEncryptedPKCS8:
		return "an encrypted DER private key"
	case shapePFX:
		return "a PKCS #12 key store"
	case shapePKCS7:
		return "a PKCS #7 bundle"
	case shapeOther:
		return "an ASN.1 file"
	default:
		return ""
	}
}

// isUTF16 tells UTF-16 by its byte order mark, or by a PEM word spelled in it.
func isUTF16(data []byte) bool {
	return bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) ||
		bytes.Contains(data, []byte("B\x00E\x00G\x00I\x00N\x00 "))
}

// isText tells whether data is UTF-8 without control characters.
func isText(data []byte) bool {
	return utf8.Valid(data) && !bytes.ContainsFunc(data, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' && r != '\f'
	})
}

// unbase64 decodes text that is base64 throughout, which may have line breaks,
// or returns nil.
func unbase64(text []byte) []byte {
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(out, text)
	if err != nil || n < 16 {
		return nil // words of prose are base64 too, if short
	}
	return out[:n]
}
