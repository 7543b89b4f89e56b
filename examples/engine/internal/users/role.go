package users

import "slices"

// Role is what a user may do. Each role may do all that the ones before it may.
type Role string

// The roles.
const (
	// Viewer sees channels, their states and counts, and no content of a message.
	Viewer Role = "viewer"
	// Operator also starts and stops channels, and sees, sends and repeats messages.
	Operator Role = "operator"
	// Admin also changes channels and users, and reads the audit log and the
	// server's log.
	Admin Role = "admin"
)

var ascending = []Role{Viewer, Operator, Admin}

// Valid tells whether r is one of the roles.
func (r Role) Valid() bool { return slices.Contains(ascending, r) }

// Includes tells whether r may do what least may. What is not a role includes
// nothing and is included in nothing.
func (r Role) Includes(least Role) bool {
	return r.Valid() && least.Valid() && slices.Index(ascending, r) >= slices.Index(ascending, least)
}
