package dicomtls

import "strings"

// UIDs that the protocol itself needs (PS3.6 Annex A).
const (
	// VerificationSOPClass is what C-ECHO is asked of.
	VerificationSOPClass = "1.2.840.10008.1.1"
	// StorageCommitmentSOPClass is the push model of PS3.4 Annex J.
	StorageCommitmentSOPClass = "1.2.840.10008.1.20.1"

	storageCommitmentInstance = "1.2.840.10008.1.20.1.1"
	applicationContext        = "1.2.840.10008.3.1.1.1" // PS3.7 Annex A

	// Under a UUID of its own (PS3.5 B.2): nobody has to be asked for it.
	implementationClassUID = "2.25.219684171066213306432842133180514026273"
	implementationVersion  = "CAREWIRE_1"
)

const maxUID = 64 // characters: PS3.5, section 9

// validUID reports whether s has the form of a UID: digits in components that
// are separated by single dots. Leading zeros are let pass: real devices send
// them. What is valid is safe as a file name.
func validUID(s string) bool {
	if s == "" || len(s) > maxUID || strings.Contains(s, "..") || s[0] == '.' || s[len(s)-1] == '.' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '.' && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// storageClasses are the roots of the storage SOP classes of PS3.6. Query and
// retrieve, work lists and print have others.
var storageClasses = []string{
	"1.2.840.10008.5.1.4.1.1.",                         // the storage classes of images, documents, plans
	"1.2.840.10008.5.1.1.29", "1.2.840.10008.5.1.1.30", // hardcopy, retired
	"1.2.840.10008.5.1.4.34.7", "1.2.840.10008.5.1.4.34.10", // RT delivery instructions
	"1.2.840.10008.5.1.4.38.1", "1.2.840.10008.5.1.4.39.1", // hanging protocols, palettes
	"1.2.840.10008.5.1.4.43.1", "1.2.840.10008.5.1.4.44.1", "1.2.840.10008.5.1.4.45.1", // implants
}

// isStorageClass reports whether the SOP class is one of the standard's for storage.
func isStorageClass(uid string) bool {
	for _, root := range storageClasses {
		if uid == root || strings.HasSuffix(root, ".") && strings.HasPrefix(uid, root) {
			return true
		}
	}
	return false
}

// cleanUID takes the padding off a UID as it came over the network. There
// should be none in items, and a NUL in a command set; real peers use either,
// and spaces.
func cleanUID(b []byte) string { return strings.TrimRight(string(b), "\x00 ") }

// maxAETitle is the length of an application entity's title: PS3.5, 6.2, VR AE.
const maxAETitle = 16

// cleanAE takes the padding off an AE title: spaces on either side do not
// count, and some peers fill up with NULs.
func cleanAE(b []byte) string { return strings.Trim(string(b), " \x00") }

// validAE reports whether s, without padding, can be an AE title: 1 to 16
// characters of ISO 646 that are no control characters and no backslash.
func validAE(s string) bool {
	if s == "" || len(s) > maxAETitle || s != cleanAE([]byte(s)) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}
