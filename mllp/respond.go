package mllp

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RespondWhen says when a Responder is used. The zero value is RespondAlways.
type RespondWhen string

const (
	// RespondAlways sends every answer over a connection of its own, but for the
	// commit acknowledgements of enhanced mode, which stay on that of the message
	// (Mirth's respondOnNewConnection 1).
	RespondAlways RespondWhen = "always"
	// RespondOnRecovery sends those that could not be written to the connection of
	// the message (Mirth's respondOnNewConnection 2).
	RespondOnRecovery RespondWhen = "recovery"
)

// UnmarshalText accepts the words of the constants, and the empty text.
func (w *RespondWhen) UnmarshalText(text []byte) error {
	switch v := RespondWhen(text); v {
	case "", RespondAlways, RespondOnRecovery:
		*w = v
		return nil
	}
	return fmt.Errorf("mllp: unknown %q: use always or recovery", text)
}

// The defaults of a Responder.
const (
	defaultRespondTimeout = 30 * time.Second
	defaultRespondPause   = time.Second
)

// A Responder sends answers over connections of their own, one for each, to an
// address that is configured. A Server without one sends every answer over the
// connection on which the message came (Mirth's respondOnNewConnection 0, and
// what IHE asks for: ITI TF-2, appendix C).
//
// The fields must not be changed after the first call of a method; methods are
// safe for concurrent use.
type Responder struct {
	Addr   string  // where to, "host:port"; must be set
	Dialer *Dialer // makes the connections, with its limits and TLS; nil: the zero Dialer, without TLS
	When   RespondWhen
	// Timeout bounds the sending of one answer with all its tries. Until then the
	// connection of the message waits, so that answers stay in order. If zero,
	// 30 s; a negative value is an error.
	Timeout time.Duration
	// Pause is the time between two tries. If zero, 1 s; a negative value is an
	// error.
	Pause time.Duration
}

// validate returns the first error in the settings.
func (r *Responder) validate() error {
	switch {
	case r.Addr == "":
		return errors.New("mllp: Responder.Addr is not set")
	case r.Timeout < 0 || r.Pause < 0:
		return errors.New("mllp: Responder.Timeout or Pause is negative")
	case r.When != "" && r.When != RespondAlways && r.When != RespondOnRecovery:
		return fmt.Errorf("mllp: Responder.When is %q: use always or recovery", r.When)
	}
	if r.dialer().Framing.mode() == ModeMLLPv2 {
		return errors.New("mllp: Responder.Dialer cannot use MLLPv2")
	}
	return r.dialer().check()
}

func (r *Responder) dialer() *Dialer {
	if r.Dialer == nil {
		return new(Dialer)
	}
	return r.Dialer
}

// Respond sends an answer, which is an HL7 message without its frame, in one or
// several tries. It is what a Server calls, and is meant besides for programs that
// find after a restart a message whose answer is owed: see [AppendAck].
//
// If the answer asks with MSH-15 for a commit acknowledgement, Respond waits for
// it. The error is a *[SendError] about the last try.
func (r *Responder) Respond(ctx context.Context, answer []byte) error {
	return r.respond(ctx, answer, func(error, time.Duration) {})
}

// respond is Respond, and calls failed after each try that another one follows.
func (r *Responder) respond(ctx context.Context, answer []byte, failed func(err error, pause time.Duration)) error {
	if err := r.validate(); err != nil {
		return refused(err)
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(r.Timeout, defaultRespondTimeout))
	defer cancel()
	for {
		err := r.try(ctx, answer)
		if err == nil {
			return nil
		}
		pause := orDefault(r.Pause, defaultRespondPause)
		end, _ := ctx.Deadline()
		if !err.Retryable() || ctx.Err() != nil || time.Until(end) <= pause {
			return err
		}
		failed(err, pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// try sends an answer once. That it may arrive twice does no harm: it says the
// same of the same message.
func (r *Responder) try(ctx context.Context, answer []byte) *SendError {
	d := r.dialer()
	var h Header
	if h.Parse(answer) == nil && h.asks(AckNever).commit != never {
		c, err := d.dial(ctx, "tcp", r.Addr)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.send(ctx, answer)
		return err
	}
	// What the other side has to say, perhaps before the answer has left, must not
	// end the connection.
	c, err := d.dialTo(ctx, "tcp", r.Addr, MatchNone)
	if err != nil {
		return err
	}
	defer func() {
		_ = c.fail(errClosed) // the farewell is over, or there is no time for one
		_ = c.Close()
	}()
	return c.post(ctx, answer)
}

// post writes a message that gets no answer, and sees it off.
func (c *Conn) post(ctx context.Context, msg []byte) *SendError {
	if err := c.takeTurn(ctx); err != nil {
		return notSent(err)
	}
	frame, err := c.framing.AppendFrame(nil, msg)
	if err != nil {
		return refused(err)
	}
	if n, err := c.write(ctx, frame); err != nil {
		if n == 0 {
			return notSent(err)
		}
		return &SendError{Outcome: Unknown, Err: err}
	}
	if w, ok := c.nc.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		// Closing at once, with bytes of the peer unread, could make TCP throw
		// away what was written.
		if c.raw.SetReadDeadline(time.Now().Add(closeLinger)) == nil {
			<-c.readerDone
		}
	}
	return nil
}

// respond sends an answer by Server.Responder, and tells if it fails. The
// connection of the message can go on in any case.
func (x *exchange) respond(ctx context.Context, frame []byte, code AckCode) {
	err := x.cfg.responder.respond(ctx, x.cfg.replies.text(frame), func(err error, pause time.Duration) {
		e := x.event(EventRespondFailed)
		e.Err, e.Duration, e.Code = err, pause, code
		x.cfg.tell(ctx, e)
	})
	if err != nil {
		x.lose(ctx, code, err)
	}
}
