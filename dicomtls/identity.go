package dicomtls

import (
	"fmt"
	"log/slog"
)

// UserIdentity is what the requestor of an association says of its user (PS3.7
// D.3.3.7). Neither printing nor logging it shows more than its type.
type UserIdentity struct {
	Type IdentityType
	// Primary is the user's name for types 1 and 2, the Kerberos ticket, the
	// SAML assertion or the JSON web token for the others. At most 65,535 bytes.
	Primary []byte
	// Secondary is the passcode of type 2; nothing with the others.
	Secondary []byte
	// ResponseRequested asks the acceptor to confirm; an association that it
	// accepts without confirming is aborted.
	ResponseRequested bool
}

// IdentityType is the kind of a UserIdentity.
type IdentityType uint8

// The kinds of PS3.7 Table D.3-14.
const (
	IdentityUsername IdentityType = 1
	IdentityPasscode IdentityType = 2 // username and passcode
	IdentityKerberos IdentityType = 3
	IdentitySAML     IdentityType = 4
	IdentityJWT      IdentityType = 5
)

// String returns the name of the kind.
func (t IdentityType) String() string {
	switch t {
	case IdentityUsername:
		return "username"
	case IdentityPasscode:
		return "username and passcode"
	case IdentityKerberos:
		return "Kerberos"
	case IdentitySAML:
		return "SAML"
	case IdentityJWT:
		return "JWT"
	}
	return fmt.Sprintf("IdentityType(%d)", uint8(t))
}

// String returns the type alone.
func (u UserIdentity) String() string { return u.Type.String() }

// GoString returns the type alone.
func (u UserIdentity) GoString() string { return "dicomtls.UserIdentity{" + u.Type.String() + "}" }

// LogValue returns the type alone.
func (u UserIdentity) LogValue() slog.Value { return slog.StringValue(u.Type.String()) }
