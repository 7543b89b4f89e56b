package tlsprops

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// encoding/pem and x509.CertPool.AppendCertsFromPEM skip whatever they cannot
// read. For a file of certificates or keys that is the wrong way to fail: a
// chain cut in the middle of its second certificate loads as the leaf alone, and
// a bundle with one damaged CA loads as the others, each without a word.
// pemBlocks therefore reads every line itself and refuses what does not fit;
// encoding/pem decodes only the one block that it is handed.

// pemBlock is one armoured block, with its place in the file for error messages.
type pemBlock struct {
	label   string
	headers map[string]string
	der     []byte
	number  int // counted from 1
	line    int // of its BEGIN line, counted from 1
}

// at puts the block's place in front of err.
func (b *pemBlock) at(err error) error {
	return fmt.Errorf("block %d (line %d): %w", b.number, b.line, err)
}

func (b *pemBlock) errorf(format string, args ...any) error {
	return b.at(fmt.Errorf(format, args...))
}

const (
	pemBegin  = "-----BEGIN "
	pemEnd    = "-----END "
	pemDashes = "-----"
	utf8BOM   = "\xef\xbb\xbf"
)

// pemBlocks returns every block of a PEM file, in file order. Text before,
// between and after blocks is ignored, as are lines that begin with "#". Byte
// order marks of UTF-8, CRLF, spaces at line ends and a missing last newline are
// accepted. Everything that looks like the remains of a block is an error.
func pemBlocks(data []byte) ([]pemBlock, error) {
	if isUTF16(data) {
		return nil, errors.New("UTF-16 text: save it as UTF-8 or ASCII")
	}
	var (
		blocks []pemBlock
		cur    pemBlock // the block that has begun, if open
		open   bool
		start  int // where cur begins
		// The last line outside of a block that was not empty, and its number.
		last     string
		lastLine int
	)
	for line, off := 1, 0; off < len(data); line++ {
		begin, end := off, len(data)
		if i := bytes.IndexByte(data[off:], '\n'); i >= 0 {
			end = off + i + 1
		}
		off = end
		text := string(bytes.TrimRight(data[begin:end], " \t\r\n"))
		if !open {
			bom := len(text) - len(strings.TrimPrefix(text, utf8BOM))
			begin, text = begin+bom, text[bom:]
		}
		switch {
		case open && strings.Contains(text, pemBegin) && !strings.HasPrefix(text, pemEnd):
			return nil, cur.errorf("no END line before line %d begins another block: the file is cut off or damaged", line)
		case open && strings.Contains(text, pemDashes):
			if err := checkEnd(text, cur.label); err != nil {
				return nil, cur.errorf("line %d: %w", line, err)
			}
			p, rest := pem.Decode(data[start : begin+len(text)]) // without what ends the line, be it half of a CRLF
			if p == nil || p.Type != cur.label || len(rest) > 0 {
				return nil, cur.errorf("the base64 text of %s is damaged", quoteLabel(cur.label))
			}
			cur.headers, cur.der = p.Headers, p.Bytes
			blocks, open, last = append(blocks, cur), false, ""
		case open:
			// Base64 or a header, for encoding/pem to judge.
		case strings.HasPrefix(text, pemBegin):
			cur = pemBlock{number: len(blocks) + 1, line: line}
			var err error
			if cur.label, err = beginLabel(text); err != nil {
				return nil, cur.at(err)
			}
			start, open = begin, true
		case strings.HasPrefix(strings.TrimLeft(text, " \t"), "#"):
			// A comment, perhaps a block that somebody has switched off.
		case strings.HasPrefix(text, pemEnd):
			return nil, fmt.Errorf("line %d: END line of a block that has no BEGIN line: the beginning is cut off or damaged", line)
		case looksLikeBoundary(text):
			return nil, fmt.Errorf("line %d: a damaged or indented BEGIN or END line: %s and the label must begin the line", line, pemDashes)
		case text != "":
			last, lastLine = text, line
		}
	}
	if open {
		return nil, cur.errorf("no END line: the file is cut off")
	}
	if last != "" && strings.HasPrefix(pemBegin, last) {
		return nil, fmt.Errorf("line %d: the file is cut off within a BEGIN line", lastLine)
	}
	return blocks, nil
}

// beginLabel returns the label of a BEGIN line.
func beginLabel(text string) (string, error) {
	label, rest, ok := strings.Cut(strings.TrimPrefix(text, pemBegin), pemDashes)
	switch {
	case !ok:
		return "", errors.New("the BEGIN line is cut off")
	case strings.HasPrefix(rest, `\n`), strings.HasPrefix(rest, `\r`):
		return "", errors.New(`the two characters \n stand in place of each line break: put real line breaks there`)
	case rest != "":
		return "", errors.New("the line breaks are lost: BEGIN line, base64 text and END line must be lines of their own")
	}
	return label, nil
}

// checkEnd tells what is wrong with a line of dashes that ought to end a block.
func checkEnd(text, label string) error {
	rest, ok := strings.CutPrefix(text, pemEnd+label+pemDashes)
	switch {
	case ok && rest == "":
		return nil
	case ok && strings.Contains(rest, pemBegin):
		return errors.New("the line break between this END line and the next BEGIN line is lost")
	case strings.HasPrefix(text, pemEnd):
		return fmt.Errorf("the END line is not that of %s", quoteLabel(label))
	default:
		return errors.New("a damaged or indented END line")
	}
}

// looksLikeBoundary tells a BEGIN or END line that is indented, quoted, behind
// other text, or whose dashes a word processor or a careless copy has changed,
// from prose.
func looksLikeBoundary(text string) bool {
	if strings.Contains(text, pemBegin) || strings.Contains(text, pemEnd) {
		return true
	}
	bare := strings.TrimLeft(text, "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212 \t")
	return len(bare) < len(text) &&
		(strings.HasPrefix(bare, "BEGIN ") || strings.HasPrefix(bare, "END ")) &&
		(strings.Contains(bare, "CERTIFICATE") || strings.Contains(bare, "PRIVATE KEY"))
}

// quoteLabel makes a label fit for an error message, whatever the file holds.
func quoteLabel(label string) string {
	const most = 40 // longer than any label in use
	if len(label) > most {
		return fmt.Sprintf("%q...", label[:most])
	}
	return fmt.Sprintf("%q", label)
}

// parseChain returns every certificate of a PEM file, in file order. Private
// keys, parameters and requests beside them are passed over. It is an error if
// there is no certificate, if any block is damaged, or if a block holds trust
// that would be lost by passing it over: a CRL, a PKCS #7 bundle, a label that
// is not known.
func parseChain(data []byte) ([]*x509.Certificate, error) {
	blocks, err := pemBlocks(data)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	var other string
	for _, b := range blocks {
		switch b.label {
		case "CERTIFICATE", "X509 CERTIFICATE":
		case "TRUSTED CERTIFICATE":
			if b.der, err = trustedCertificate(b.der); err != nil {
				return nil, b.at(err)
			}
		case "X509 CRL":
			return nil, b.errorf("a certificate revocation list: it belongs in a file of crlPaths")
		case "PKCS7", "CMS":
			return nil, b.errorf("a PKCS #7 bundle, not a certificate: convert it with openssl pkcs7 -print_certs")
		case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
			other = "a certificate request, which a CA has yet to sign"
			continue
		case "EC PARAMETERS", "DSA PARAMETERS", "DH PARAMETERS", "X9.42 DH PARAMETERS", "PUBLIC KEY", "RSA PUBLIC KEY":
			continue
		default:
			if !b.isPrivateKey() {
				return nil, b.errorf("the label %s is not known", quoteLabel(b.label))
			}
			other = "a private key: are the paths of certificate and key swapped?"
			continue
		}
		cert, err := x509.ParseCertificate(b.der)
		if err != nil {
			return nil, b.errorf("not a readable certificate: %w", err)
		}
		chain = append(chain, cert)
	}
	switch {
	case len(chain) > 0:
		return chain, nil
	case other != "":
		return nil, fmt.Errorf("no certificate, but %s", other)
	case len(blocks) > 0:
		return nil, errors.New("no certificate")
	default:
		return nil, notPEMError(data)
	}
}

// trustedCertificate returns the certificate of OpenSSL's TRUSTED CERTIFICATE
// block, which is a certificate and then an optional structure (X509_CERT_AUX)
// that may restrict the uses that it is trusted for. crypto/tls cannot honour
// such a restriction, so a certificate that has one is refused, for to pass it
// over could turn a CA that somebody has distrusted into a trusted one.
func trustedCertificate(der []byte) ([]byte, error) {
	var cert asn1.RawValue
	rest, err := asn1.Unmarshal(der, &cert)
	if err != nil {
		return nil, errors.New("not a readable certificate")
	}
	if len(rest) == 0 {
		return cert.FullBytes, nil
	}
	var aux struct {
		Trust  []asn1.ObjectIdentifier `asn1:"optional"`
		Reject []asn1.ObjectIdentifier `asn1:"optional,tag:0"`
		Alias  string                  `asn1:"optional,utf8"`
		KeyID  []byte                  `asn1:"optional"`
		Other  []asn1.RawValue         `asn1:"optional,tag:1"`
	}
	if rest, err := asn1.Unmarshal(rest, &aux); err != nil || len(rest) > 0 {
		return nil, errors.New("trust settings after the certificate that cannot be read: remove them with openssl x509 -in FILE -out NEW")
	}
	var server, client bool
	for _, use := range aux.Trust {
		switch use.String() {
		case "2.5.29.37.0": // any extended key usage
			server, client = true, true
		case "1.3.6.1.5.5.7.3.1":
			server = true
		case "1.3.6.1.5.5.7.3.2":
			client = true
		}
	}
	if len(aux.Reject) > 0 || len(aux.Trust) > 0 && (!server || !client) {
		return nil, errors.New("a certificate trusted for some uses only, which cannot be honoured here: remove that with openssl x509 -in FILE -out NEW if it is to be trusted for TLS")
	}
	return cert.FullBytes, nil
}
