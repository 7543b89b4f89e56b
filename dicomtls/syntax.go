package dicomtls

import "strings"

// The transfer syntaxes whose encoding differs from the others' (PS3.5 Annex A).
const (
	ImplicitVRLittleEndian         = "1.2.840.10008.1.2" // the default, which everyone has
	ExplicitVRLittleEndian         = "1.2.840.10008.1.2.1"
	DeflatedExplicitVRLittleEndian = "1.2.840.10008.1.2.1.99"
	ExplicitVRBigEndian            = "1.2.840.10008.1.2.2" // retired
)

// encoding is how a transfer syntax writes a data set.
type encoding struct {
	implicit  bool // no VR: it follows from the tag
	bigEndian bool
	deflated  bool // as a raw deflate stream (RFC 1951)
}

// encodingOf returns the encoding of a transfer syntax; false for those that are
// not DICOM's and may have any.
func encodingOf(uid string) (encoding, bool) {
	switch uid {
	case ImplicitVRLittleEndian:
		return encoding{implicit: true}, true
	case ExplicitVRBigEndian:
		return encoding{bigEndian: true}, true
	case DeflatedExplicitVRLittleEndian,
		"1.2.840.10008.1.2.4.95",  // JPIP Referenced Deflate
		"1.2.840.10008.1.2.4.205": // JPIP HTJ2K Referenced Deflate
		return encoding{deflated: true}, true
	}
	// All others, compressed images and video, are Explicit VR Little Endian
	// (PS3.5 A.4).
	return encoding{}, strings.HasPrefix(uid, ImplicitVRLittleEndian+".")
}
