package mllp

import (
	"fmt"
	"slices"
)

// A Policy says what a Server does with a message that a good sender does not
// send. The zero value is the field's default. Whatever the policy, a message is
// answered AA only if the handler took it.
type Policy string

// The policies. Each field of Server says which of them it knows.
const (
	// PolicyClose closes the connection without an answer.
	PolicyClose Policy = "close"
	// PolicyReject answers AR: sending the same again will not help.
	PolicyReject Policy = "reject"
	// PolicyError answers AE: sending it again may help.
	PolicyError Policy = "error"
	// PolicyResync answers AE and goes on with the next message.
	PolicyResync Policy = "resync"
	// PolicyDeliver hands the message to the handler with a flag set.
	PolicyDeliver Policy = "deliver"
	// PolicyPerMessage answers each message of a batch in a frame of its own.
	PolicyPerMessage Policy = "per-message"
	// PolicyBatch answers with a batch of as many acknowledgements, in one frame.
	// MSH-15 and MSH-16 are not heeded then.
	PolicyBatch Policy = "batch"
	// PolicyLast answers with the acknowledgement of the last message alone. The
	// messages after one that is not accepted are not handled, so that the last
	// answer speaks for all. MSH-15 and MSH-16 are not heeded then.
	PolicyLast Policy = "last"
)

// UnmarshalText accepts the words of the constants, and the empty text.
func (p *Policy) UnmarshalText(text []byte) error {
	switch q := Policy(text); q {
	case "", PolicyClose, PolicyReject, PolicyError, PolicyResync, PolicyDeliver, PolicyPerMessage, PolicyBatch, PolicyLast:
		*p = q
		return nil
	}
	return fmt.Errorf("mllp: unknown policy %q: use close, reject, error, resync, deliver, per-message, batch or last", text)
}

// or returns p, or the default if p is empty.
func (p Policy) or(deflt Policy) Policy {
	if p == "" {
		return deflt
	}
	return p
}

// in reports whether p is empty or one of allowed.
func (p Policy) in(allowed []Policy) bool { return p == "" || slices.Contains(allowed, p) }
