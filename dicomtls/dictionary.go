package dicomtls

import (
	"slices"

	dicomtag "github.com/suyashkumar/dicom/pkg/tag"
)

// dictionaryVR returns the VR of an element that is written without one: that of
// PS3.6, UN where it is not known. signed is the Pixel Representation (0028,0103)
// of the data set, which decides between US and SS.
func dictionaryVR(tag uint32, signed bool) vr {
	group, element := uint16(tag>>16), uint16(tag)
	switch {
	case element == 0: // a group length, in any group
		return vrUL
	case group%2 == 1 && element >= 0x10 && element <= 0xFF: // a private creator (PS3.5 7.8.1)
		return vrLO
	case group%2 == 1:
		return vrUN
	case group&0xFF00 == 0x6000, group&0xFF00 == 0x5000: // overlays and curves repeat (PS3.5 7.6)
		group &= 0xFF00
	}
	info, err := dicomtag.Find(dicomtag.Tag{Group: group, Element: element})
	switch {
	case err != nil:
		return vrUN
	case slices.Contains(info.VRs, "OW"):
		// Pixel, overlay and lookup data are OW without a VR (PS3.5 A.1).
		return vrOW
	case slices.Contains(info.VRs, "SS") && slices.Contains(info.VRs, "US"):
		if signed {
			return vrSS
		}
		return vrUS
	case len(info.VRs) == 0 || len(info.VRs[0]) != 2:
		return vrUN
	}
	return vr(info.VRs[0][0])<<8 | vr(info.VRs[0][1])
}

// dictionarySequence tells whether PS3.6 has the element as a sequence.
func dictionarySequence(tag uint32) bool { return dictionaryVR(tag, false) == vrSQ }
