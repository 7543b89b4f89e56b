package dicomtls

// vr is a value representation: its two letters (PS3.5 6.2).
type vr uint16

const (
	vrAT vr = 'A'<<8 | 'T'
	vrFD vr = 'F'<<8 | 'D'
	vrFL vr = 'F'<<8 | 'L'
	vrLO vr = 'L'<<8 | 'O'
	vrOB vr = 'O'<<8 | 'B'
	vrOD vr = 'O'<<8 | 'D'
	vrOF vr = 'O'<<8 | 'F'
	vrOL vr = 'O'<<8 | 'L'
	vrOV vr = 'O'<<8 | 'V'
	vrOW vr = 'O'<<8 | 'W'
	vrSL vr = 'S'<<8 | 'L'
	vrSQ vr = 'S'<<8 | 'Q'
	vrSS vr = 'S'<<8 | 'S'
	vrSV vr = 'S'<<8 | 'V'
	vrUC vr = 'U'<<8 | 'C'
	vrUI vr = 'U'<<8 | 'I'
	vrUL vr = 'U'<<8 | 'L'
	vrUN vr = 'U'<<8 | 'N'
	vrUR vr = 'U'<<8 | 'R'
	vrUS vr = 'U'<<8 | 'S'
	vrUT vr = 'U'<<8 | 'T'
	vrUV vr = 'U'<<8 | 'V'
)

// String returns the two letters, or "??".
func (v vr) String() string {
	if !v.letters() {
		return "??"
	}
	return string([]byte{byte(v >> 8), byte(v)})
}

func (v vr) letters() bool {
	upper := func(c byte) bool { return c >= 'A' && c <= 'Z' }
	return upper(byte(v>>8)) && upper(byte(v))
}

// short are the VRs whose length has 16 bits (PS3.5 Table 7.1-2).
var short = map[vr]bool{
	'A'<<8 | 'E': true, 'A'<<8 | 'S': true, vrAT: true, 'C'<<8 | 'S': true, 'D'<<8 | 'A': true,
	'D'<<8 | 'S': true, 'D'<<8 | 'T': true, vrFD: true, vrFL: true, 'I'<<8 | 'S': true,
	vrLO: true, 'L'<<8 | 'T': true, 'P'<<8 | 'N': true, 'S'<<8 | 'H': true, vrSL: true, vrSS: true,
	'S'<<8 | 'T': true, 'T'<<8 | 'M': true, vrUI: true, vrUL: true, vrUS: true,
}

// long reports whether the length has 32 bits after two reserved bytes. VRs to
// come are to have that (PS3.5 6.2); what is no VR at all, such as "??" or two
// NULs, is taken as old equipment and other programs do, to have 16.
func (v vr) long() bool { return v.letters() && !short[v] }

// encapsulates reports whether the VR may have fragments in place of a value.
func (v vr) encapsulates() bool {
	switch v {
	case vrOB, vrOW, vrOD, vrOF, vrOL, vrOV:
		return true
	default:
		return false
	}
}

// unit is the number of bytes that the byte order turns around in a value.
func (v vr) unit() int {
	switch v {
	case vrUS, vrSS, vrOW, vrAT:
		return 2
	case vrUL, vrSL, vrFL, vrOF, vrOL:
		return 4
	case vrFD, vrOD, vrOV, vrSV, vrUV:
		return 8
	default:
		return 1
	}
}
