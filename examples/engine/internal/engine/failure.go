package engine

import (
	"errors"
	"math/rand/v2"
	"time"
)

// sendFailure is what every connector's errors of sending can say.
type sendFailure interface {
	error
	// MaybeDelivered tells that the receiver may have the message.
	MaybeDelivered() bool
	// Retryable tells that the same message may meet with success later.
	Retryable() bool
	// Code is the protocol's own word for what happened, or empty.
	Code() string
}

// unavailable is a failure that says nothing about the message: the destination
// could not be reached, or this side's certificate was refused. However often
// and however finally that happens, it makes no message poison.
type unavailable struct{ err error }

func (u *unavailable) Error() string        { return u.err.Error() }
func (u *unavailable) Unwrap() error        { return u.err }
func (u *unavailable) MaybeDelivered() bool { return false }
func (u *unavailable) Retryable() bool      { return true }
func (u *unavailable) Code() string         { return "unavailable" }

// givenUpError is a failure after which the message may have arrived and is not to be
// sent again, whatever the queue does with others.
type givenUpError struct{ err error }

func (g *givenUpError) Error() string        { return g.err.Error() }
func (g *givenUpError) Unwrap() error        { return g.err }
func (g *givenUpError) MaybeDelivered() bool { return true }
func (g *givenUpError) Retryable() bool      { return false }
func (g *givenUpError) Code() string         { return "given_up" }

// maybeSent tells whether err says that the message may have arrived.
func maybeSent(err error) bool { return classify(err).maybeSent }

// failure is what a worker needs to know about an error of sending.
type failure struct {
	maybeSent bool
	permanent bool   // no further try can help
	setAside  bool   // it is a dead letter, whatever the queue does with others
	poison    bool   // it counts against the message
	code      string // for logs
}

// classify reads an error of sending. One that cannot say what happened is taken
// for the worst: that the message may have arrived.
func classify(err error) failure {
	if _, ok := errors.AsType[*unavailable](err); ok {
		return failure{code: "unavailable"}
	}
	if said, ok := errors.AsType[*givenUpError](err); ok {
		return failure{maybeSent: true, permanent: true, setAside: true, poison: true, code: said.Code()}
	}
	if said, ok := errors.AsType[sendFailure](err); ok {
		return failure{maybeSent: said.MaybeDelivered(), permanent: !said.Retryable(), poison: true, code: said.Code()}
	}
	return failure{maybeSent: true, poison: true, code: "error"}
}

// maxBackoff bounds the pause between two attempts: an operator who repairs a
// receiver sees its messages within minutes, without a command.
const maxBackoff = 5 * time.Minute

// backoff is the pause after the given number of failed attempts: interval,
// doubled each time up to maxBackoff, and a fifth more or less, so that queues
// that stopped together do not knock together.
func backoff(interval time.Duration, attempts int) time.Duration {
	limit := max(interval, maxBackoff)
	pause := interval
	for range min(attempts-1, 32) {
		if pause >= limit/2 {
			pause = limit
			break
		}
		pause *= 2
	}
	return pause - pause/5 + rand.N(2*pause/5+1)
}
