package cluster

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of this package.
const (
	// Header carries the secret itself.
	Header = "X-Cluster-Secret"
	// SignatureHeader carries the signature of a request and of its answer:
	//
	//	v1;kid=K;ts=T;nonce=N;from=F;to=T;digest=D;sig=S
	//
	// in this order and no other, without spaces: 16 hexadecimal digits that name
	// the secret; milliseconds since 1970; 16 random bytes of the sender, which the
	// answer repeats; the sending and the receiving node; the SHA-256 of the body;
	// the HMAC-SHA256. Bytes are in base64 for URLs, without padding (RFC 4648,
	// section 5).
	//
	// The key of the HMAC is 32 bytes of HKDF-SHA256 (RFC 5869) of the secret,
	// without salt, with the info "carewire cluster v1 hmac"; kid is 8 bytes with
	// "carewire cluster v1 key id". The HMAC of a request is over
	//
	//	"carewire cluster v1 request\n"
	//	field(method) field(request target)
	//	values(Content-Type) values(Content-Encoding)
	//	the header, up to ";sig="
	//
	// where field is the length in 4 bytes, big end first, and the text; values is
	// the number of the header's values in 4 bytes, and a field of each. An answer
	// begins with "carewire cluster v1 response\n" and the status in 4 bytes
	// instead, and goes on with values.
	SignatureHeader = "X-Cluster-Signature"
)

const (
	keyIDDigits = 16
	nonceBytes  = 16
	nonceDigits = 22 // of 16 bytes in base64
	sumDigits   = 43 // of 32 bytes in base64
	timeDigits  = 14 // of milliseconds: enough until the year 5138

	// maxNodeBytes is the length of the longest host name (RFC 1035, section
	// 2.3.4).
	maxNodeBytes = 255
	// maxSignatureBytes is more than any signature header has.
	maxSignatureBytes = 2*maxNodeBytes + 256
)

// The labels under which the two kinds of HMAC are made, so that neither can
// pass for the other.
const (
	requestLabel  = "carewire cluster v1 request\n"
	responseLabel = "carewire cluster v1 response\n"
)

// encoding refuses what it would not write itself: padding, and bits that are
// set after the last byte.
var encoding = base64.RawURLEncoding.Strict()

type sum = [sha256.Size]byte

// signature is the content of a SignatureHeader. Its strings have the form that
// the header prescribes.
type signature struct {
	keyID  string
	millis int64
	nonce  string
	from   string
	to     string
	digest sum
	mac    sum
}

func (s *signature) time() time.Time { return time.UnixMilli(s.millis) }

// newNonce returns 16 random bytes in base64.
func newNonce() string {
	var raw [nonceBytes]byte
	rand.Read(raw[:])
	return encoding.EncodeToString(raw[:])
}

// appendSigned appends the part of the header that the HMAC is over.
func (s *signature) appendSigned(b []byte) []byte {
	b = append(b, "v1;kid="...)
	b = append(b, s.keyID...)
	b = append(b, ";ts="...)
	b = strconv.AppendInt(b, s.millis, 10)
	b = append(b, ";nonce="...)
	b = append(b, s.nonce...)
	b = append(b, ";from="...)
	b = append(b, s.from...)
	b = append(b, ";to="...)
	b = append(b, s.to...)
	b = append(b, ";digest="...)
	return encoding.AppendEncode(b, s.digest[:])
}

// String returns the value of the header.
func (s *signature) String() string {
	b := s.appendSigned(make([]byte, 0, 320))
	b = append(b, ";sig="...)
	return string(encoding.AppendEncode(b, s.mac[:]))
}

// parseSignature reads the value of a SignatureHeader. It takes exactly what
// String writes.
func parseSignature(text string) (s signature, ok bool) {
	if len(text) > maxSignatureBytes {
		return signature{}, false
	}
	rest, ok := strings.CutPrefix(text, "v1;")
	if !ok {
		return signature{}, false
	}
	var values [7]string
	for i, label := range [...]string{"kid=", "ts=", "nonce=", "from=", "to=", "digest=", "sig="} {
		var field string
		var more bool
		field, rest, more = strings.Cut(rest, ";")
		if values[i], ok = strings.CutPrefix(field, label); !ok || more != (i < len(values)-1) {
			return signature{}, false
		}
	}
	s = signature{keyID: values[0], nonce: values[2], from: values[3], to: values[4]}
	var nonce [nonceBytes]byte
	ok = validKeyID(s.keyID) && parseMillis(&s.millis, values[1]) &&
		len(s.nonce) == nonceDigits && decode(nonce[:], s.nonce) &&
		validNode(s.from) && validNode(s.to) &&
		len(values[5]) == sumDigits && decode(s.digest[:], values[5]) &&
		len(values[6]) == sumDigits && decode(s.mac[:], values[6])
	if !ok {
		return signature{}, false
	}
	return s, true
}

// decode fills dst with text in base64, whose length the caller has checked.
// Line ends, which the decoder skips, leave dst short.
func decode(dst []byte, text string) bool {
	var buf [sha256.Size + 1]byte
	n, err := encoding.Decode(buf[:], []byte(text))
	return err == nil && n == copy(dst, buf[:n]) && n == len(dst)
}

func parseMillis(dst *int64, text string) bool {
	if text == "" || len(text) > timeDigits || text[0] == '0' {
		return false
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return false
		}
		*dst = *dst*10 + int64(c-'0')
	}
	return true
}

func validKeyID(id string) bool {
	if len(id) != keyIDDigits {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// validNode reports whether a node's name has the characters of host names,
// addresses with ports, and UUIDs.
func validNode(name string) bool {
	if name == "" || len(name) > maxNodeBytes {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// requestMAC returns the HMAC of a request with the given request target
// (RFC 9112, section 3.2).
func (k *key) requestMAC(s *signature, method, target string, h http.Header) sum {
	b := append(make([]byte, 0, 768), requestLabel...)
	b = appendField(b, method)
	b = appendField(b, target)
	return k.finish(s, b, h)
}

// responseMAC returns the HMAC of an answer.
func (k *key) responseMAC(s *signature, status int, h http.Header) sum {
	b := append(make([]byte, 0, 768), responseLabel...)
	b = binary.BigEndian.AppendUint32(b, uint32(status))
	return k.finish(s, b, h)
}

func (k *key) finish(s *signature, b []byte, h http.Header) (out sum) {
	// The two headers without which the bytes of a body mean something else.
	b = appendValues(b, h["Content-Type"])
	b = appendValues(b, h["Content-Encoding"])
	b = s.appendSigned(b)
	mac := hmac.New(sha256.New, k.mac[:])
	mac.Write(b)
	mac.Sum(out[:0])
	return out
}

// appendValues appends how many values a header has, and the values as they
// look on the wire.
func appendValues(b []byte, values []string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(values)))
	for _, v := range values {
		b = appendField(b, strings.Trim(v, " \t"))
	}
	return b
}

// appendField appends a string with its length, so that no two lists of fields
// give the same bytes.
func appendField(b []byte, field string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
	return append(b, field...)
}
