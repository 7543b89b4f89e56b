package keystore

import (
	"encoding/asn1"
	"slices"
)

// maxDepth bounds the nesting of a PKCS #12 file, which needs about twelve.
const maxDepth = 32

// toDER re-encodes the first element of data, which may be BER (X.690 section
// 8), in DER as far as encoding/asn1 insists on it: definite lengths in their
// shortest form, and OCTET STRINGs in one piece. NSS and Bouncy Castle write
// BER. rest is what follows the element.
func toDER(data []byte) (der, rest []byte, err error) {
	return appendElement(make([]byte, 0, len(data)), data, 0)
}

// berHeader is the beginning of an element.
type berHeader struct {
	identifier  []byte // as it is in the file
	constructed bool
	indefinite  bool
	length      int // of the contents, unless indefinite
	size        int // of the header
}

func readHeader(src []byte) (h berHeader, err error) {
	const in = "an ASN.1 element"
	n := 1
	if len(src) < 2 {
		return h, truncated(in)
	}
	if src[0]&0x1f == 0x1f { // the tag is in the next bytes
		for n < len(src) && src[n]&0x80 != 0 {
			n++
		}
		if n++; n > 5 {
			return h, malformed("an ASN.1 tag of %d bytes", n)
		}
		if n >= len(src) {
			return h, truncated(in)
		}
	}
	h.identifier, h.constructed = src[:n], src[0]&0x20 != 0
	first := src[n]
	n++
	switch {
	case first < 0x80:
		h.length = int(first)
	case first == 0x80:
		if !h.constructed {
			return h, malformed("an indefinite length of a primitive ASN.1 element")
		}
		h.indefinite = true
	default:
		octets := int(first & 0x7f)
		if octets > len(src)-n {
			return h, truncated(in)
		}
		var length int64 // leading zeros are allowed in BER
		for _, b := range src[n : n+octets] {
			if length = length<<8 | int64(b); length > int64(len(src)) {
				return h, truncated(in)
			}
		}
		h.length = int(length)
		n += octets
	}
	h.size = n
	if h.length > len(src)-n {
		return h, truncated(in)
	}
	return h, nil
}

func appendElement(dst, src []byte, depth int) (out, rest []byte, err error) {
	if depth > maxDepth {
		return nil, nil, malformed("ASN.1 nested deeper than %d", maxDepth)
	}
	h, err := readHeader(src)
	if err != nil {
		return nil, nil, err
	}
	src = src[h.size:]
	if !h.constructed {
		dst = appendHeader(dst, h.identifier, h.length)
		return append(dst, src[:h.length]...), src[h.length:], nil
	}
	start := len(dst)
	identifier := h.identifier
	child := appendElement
	if identifier[0] == 0x20|asn1.TagOctetString {
		identifier = []byte{asn1.TagOctetString}
		child = appendPieces
	}
	dst, rest, err = appendContents(dst, src, h, child, depth)
	if err != nil {
		return nil, nil, err
	}
	header := appendHeader(nil, identifier, len(dst)-start)
	return slices.Insert(dst, start, header...), rest, nil
}

// appendContents appends what is within a constructed element, of which src is
// what follows its header.
func appendContents(dst, src []byte, h berHeader, child func(dst, src []byte, depth int) ([]byte, []byte, error), depth int) (out, rest []byte, err error) {
	inside := src
	if !h.indefinite {
		inside, rest = src[:h.length], src[h.length:]
	}
	for {
		if h.indefinite {
			if len(inside) < 2 {
				return nil, nil, truncated("an ASN.1 element of indefinite length")
			}
			if inside[0] == 0 && inside[1] == 0 {
				return dst, inside[2:], nil
			}
		} else if len(inside) == 0 {
			return dst, rest, nil
		}
		if dst, inside, err = child(dst, inside, depth+1); err != nil {
			return nil, nil, err
		}
	}
}

// appendPieces appends the contents of one piece of an OCTET STRING, without
// its header.
func appendPieces(dst, src []byte, depth int) (out, rest []byte, err error) {
	if depth > maxDepth {
		return nil, nil, malformed("ASN.1 nested deeper than %d", maxDepth)
	}
	h, err := readHeader(src)
	if err != nil {
		return nil, nil, err
	}
	src = src[h.size:]
	switch h.identifier[0] {
	case asn1.TagOctetString:
		return append(dst, src[:h.length]...), src[h.length:], nil
	case 0x20 | asn1.TagOctetString:
		return appendContents(dst, src, h, appendPieces, depth)
	default:
		return nil, nil, malformed("an OCTET STRING made of something else")
	}
}

func appendHeader(dst, identifier []byte, length int) []byte {
	dst = append(dst, identifier...)
	if length < 0x80 {
		return append(dst, byte(length))
	}
	var octets []byte
	for n := length; n > 0; n >>= 8 {
		octets = append(octets, byte(n))
	}
	slices.Reverse(octets)
	return append(append(dst, 0x80|byte(len(octets))), octets...)
}

// elements calls f for each element of the contents of a SEQUENCE or SET, DER.
func elements(contents []byte, f func(v asn1.RawValue) error) error {
	for len(contents) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(contents, &v)
		if err != nil {
			return malformed("ASN.1: %v", err)
		}
		if err := f(v); err != nil {
			return err
		}
		contents = rest
	}
	return nil
}

// unmarshal reads all of der into v. what is for the error message.
func unmarshal(der []byte, v any, what string) error {
	rest, err := asn1.Unmarshal(der, v)
	if err != nil {
		return malformed("%s: %v", what, err)
	}
	if len(rest) > 0 {
		return malformed("%s: %d bytes after its end", what, len(rest))
	}
	return nil
}

// isA tells whether v is of the universal type tag, and constructed as DER has it.
func isA(v asn1.RawValue, tag int) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == tag && v.IsCompound == (tag == asn1.TagSequence || tag == asn1.TagSet)
}
