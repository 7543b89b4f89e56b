package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// state is what is known of a request that failed. The zero value promises the
// least.
type state int

const (
	unknown   state = iota // the node may have handled it
	notSent                // it cannot have: our settings, or the request itself, are wrong
	noContact              // it cannot have: there was no connection
	refused                // it cannot have: we do not accept its certificate
)

// SendError is the error of Do. Its text holds no secret, and nothing of a body.
type SendError struct {
	Node   string // that the request was for
	Status int    // of an answer that is not to be believed; 0 if there was none
	Err    error  // why

	state state
}

// Error returns one line.
func (e *SendError) Error() string {
	what := "not sent"
	if e.state == unknown {
		what = "sent, but not known to be taken"
	}
	return fmt.Sprintf("cluster: to node %q: %s: %v", e.Node, what, e.Err)
}

// Unwrap returns Err.
func (e *SendError) Unwrap() error { return e.Err }

// MaybeDelivered tells whether the node may have handled the request all the
// same: then another try may make a duplicate. It is false only if nothing was
// sent. A 403 that is not signed proves nothing, since anybody on the way can
// send it after the request was handled.
func (e *SendError) MaybeDelivered() bool { return e.state == unknown }

// Retryable tells whether the same request may meet with success later. It is
// false where our own settings, the request, or the node's certificate stand in
// the way.
func (e *SendError) Retryable() bool { return e.state == unknown || e.state == noContact }

// Code returns the status of the answer as text, "" if there was none.
func (e *SendError) Code() string {
	if e.Status == 0 {
		return ""
	}
	return strconv.Itoa(e.Status)
}

// stateOf tells what is known after an error of http.Client. A transport may try
// a request again by itself, so the error of a failed dial says nothing if there
// was a connection before.
func stateOf(err error, touched bool) state {
	if touched {
		return unknown
	}
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
		return refused
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return noContact
	}
	return unknown
}
