package mllp

import (
	"context"
	"errors"
	"time"
)

// An outcome is what a handler has decided on a message.
type outcome struct {
	code  AckCode // of reply, or of the acknowledgement to be made; "": reply has none
	text  string
	reply []byte // the handler's own; nil: one is made from code and text

	silent bool            // ErrNoReply, or late and not to be answered
	late   <-chan struct{} // not nil: the handler's time was over; closed when it has returned
	took   time.Duration   // measured if anybody wants to know
}

func (o *outcome) accepted() bool { return o.code.Accepted() || o.code == "" }

var errPanicked = errors.New("mllp: the handler panicked")

// call calls a handler.
func (x *exchange) call(ctx context.Context, h Handler) (reply []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			x.panicked(ctx, v)
			reply, err = nil, errPanicked
		}
	}()
	return h.ServeMLLP(ctx, x.r)
}

// serve calls a handler and waits for what it decides, at the latest until its
// time is over.
func (x *exchange) serve(ctx context.Context, h Handler) outcome {
	var began time.Time
	if x.cfg.watched() {
		began = time.Now()
	}
	if x.cfg.handlerTimeout > 0 {
		return x.serveInTime(ctx, h, began)
	}
	reply, err := x.call(ctx, h)
	return x.judge(ctx, reply, err, began)
}

// serveInTime is serve with a limit.
func (x *exchange) serveInTime(ctx context.Context, h Handler, began time.Time) outcome {
	limited, cancel := context.WithTimeout(ctx, x.cfg.handlerTimeout)
	defer cancel()
	var reply []byte
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		reply, failed = x.call(limited, h)
	}()
	select {
	case <-done:
		return x.judge(ctx, reply, failed, began)
	case <-limited.Done():
	}
	e := x.event(EventHandlerFailed)
	e.Reason = ReasonTimeout
	x.cfg.tell(ctx, e)
	return outcome{code: AE, text: "timeout", late: done, silent: x.cfg.late == PolicyClose}
}

// judge says what follows from the result of a handler that was called at began.
func (x *exchange) judge(ctx context.Context, reply []byte, failed error, began time.Time) outcome {
	o := outcome{code: AA, reply: reply, took: since(began)}
	switch {
	case failed != nil:
		x.judgeError(ctx, &o, failed)
	case reply == nil:
	default:
		if _, err := x.cfg.replies.AppendFrame(x.out[:0], reply); err != nil {
			// It would not arrive as what it is.
			x.fail(ctx, &o, "the reply cannot be sent in a frame")
			return o
		}
		ack, err := findMSA(reply)
		if o.code = ack.code; err != nil {
			o.code = ""
		}
	}
	return o
}

// judgeError is judge for an error.
func (x *exchange) judgeError(ctx context.Context, o *outcome, failed error) {
	nak, isNak := errors.AsType[*Nak](failed)
	switch {
	case errors.Is(failed, ErrNoReply):
		o.silent = true
	case isNak:
		o.code, o.text, o.reply = nak.code(), nak.Text, nil
	case errors.Is(failed, errPanicked):
		x.fail(ctx, o, "") // which has been told
	default:
		x.fail(ctx, o, typeName(failed))
	}
}

// fail makes o what follows from a failure, and tells of it.
func (x *exchange) fail(ctx context.Context, o *outcome, detail string) {
	o.code, o.text, o.reply = AE, "internal error", nil
	if detail != "" {
		e := x.event(EventHandlerFailed)
		e.Detail = detail
		x.cfg.tell(ctx, e)
	}
}

// conclude sends the acknowledgements that follow from what the handler has
// decided, and has Server.Application take its turn.
func (x *exchange) conclude(ctx context.Context, o *outcome) error {
	if x.r2 != nil {
		x.r2.judge(o)
	}
	switch {
	case o.silent:
		x.report(ctx, EventMessage, "", o)
		return &closeError{reason: ReasonNoReply}
	case x.asked.enhanced:
		return x.concludeEnhanced(ctx, o)
	case x.cfg.application != nil && o.accepted() && x.r.Flags&(IsAck|NotHL7) == 0:
		return x.concludeWith(ctx, o)
	}
	return x.concludeOriginal(ctx, o)
}

// concludeWith is conclude in original mode with a Server.Application: there is
// one acknowledgement for both.
func (x *exchange) concludeWith(ctx context.Context, o *outcome) error {
	applied := x.serve(ctx, x.cfg.application)
	applied.took += o.took
	switch {
	case applied.silent:
		x.report(ctx, EventMessage, "", &applied)
		return &closeError{reason: ReasonNoReply}
	case applied.accepted() && applied.reply == nil:
		applied.code, applied.reply = o.code, o.reply
	}
	err := x.concludeOriginal(ctx, &applied)
	x.outlast(&applied)
	return err
}

// concludeOriginal is conclude in original mode.
func (x *exchange) concludeOriginal(ctx context.Context, o *outcome) error {
	if x.job != nil && o.late == nil {
		x.job.release()
	}
	var (
		code AckCode
		err  error
	)
	if x.r.Flags&IsAck == 0 && (x.r.Flags&NotHL7 == 0 || o.reply != nil) {
		code, err = x.send(ctx, o)
	}
	x.report(ctx, EventMessage, code, o)
	return err
}

// report tells that a handler has answered, unless it did so too late.
func (x *exchange) report(ctx context.Context, kind EventKind, code AckCode, o *outcome) {
	if o.late == nil && x.cfg.watched() {
		e := x.event(kind)
		e.Code, e.Duration = x.said(code), o.took
		x.cfg.tell(ctx, e)
	}
}

// outlast waits for a handler whose time was over. Whatever it still does, its
// message has been answered, and its request must stay as it is until it returns.
func (x *exchange) outlast(o *outcome) {
	if o.late != nil {
		if x.job != nil {
			x.job.pass()
		}
		<-o.late
	}
}

// turnDown answers a message that does not reach the handler, if it wants to be
// answered, and returns the code that was sent.
func (x *exchange) turnDown(ctx context.Context, code AckCode, text string) (AckCode, error) {
	o := &outcome{code: code, text: text}
	switch {
	case x.asked.enhanced:
		return x.sendFailure(ctx, o)
	case x.r.Flags&IsAck != 0:
		return "", nil
	}
	return x.send(ctx, o)
}

// send sends the reply of an outcome, unless nothing is to be answered, and returns
// the code that was sent.
func (x *exchange) send(ctx context.Context, o *outcome) (AckCode, error) {
	var (
		frame []byte
		err   error
		now   = time.Now()
	)
	if x.cfg.silent {
		if x.cfg.evictIdle > 0 {
			x.answered.Store(now.UnixNano())
		}
		return "", nil
	}
	if o.reply != nil {
		frame, err = x.cfg.replies.AppendFrame(x.out[:0], o.reply)
	} else {
		var id [20]byte
		out := AppendAck(x.cfg.replies.begin(x.out[:0]), &x.r.Header, o.code, o.text, x.cfg.server.appendID(id[:0]), now)
		frame, err = x.cfg.replies.end(out, 0)
	}
	if err == nil {
		if cap(frame) <= idleBuffer {
			x.out = frame
		}
		err = x.transmit(ctx, frame, o.code, now)
	} else {
		err = &closeError{reason: ReasonWriteFailed, err: err} // not with the fields that Header.Parse lets through
	}
	if err != nil {
		return "", err
	}
	return o.code, nil
}

// transmit brings an answer on its way.
func (x *exchange) transmit(ctx context.Context, frame []byte, code AckCode, now time.Time) error {
	if x.memo != nil && x.memo.remembers(code) {
		x.record(ctx, frame)
	}
	if x.job != nil {
		x.letGo() // or two connections could wait for each other's turns
	}
	if x.answers != nil {
		x.answers.add(x.cfg.replies.text(frame), code)
		return nil
	}
	return x.route(ctx, frame, code, now)
}

// route writes an answer to the connection that it belongs on, when its turn has
// come.
func (x *exchange) route(ctx context.Context, frame []byte, code AckCode, now time.Time) error {
	if x.job != nil {
		pass, err := x.job.await()
		defer pass()
		if err != nil {
			x.lose(ctx, code, err)
			return err
		}
		now = time.Now()
	}
	r := x.cfg.responder
	if r != nil && r.When != RespondOnRecovery && (!x.asked.enhanced || !code.commit()) {
		x.respond(ctx, frame, code)
		return nil
	}
	if x.lanes != nil {
		x.lanes.write.Lock()
	}
	err := x.write(frame, code, now)
	if x.lanes != nil {
		x.lanes.write.Unlock()
		if err != nil {
			x.lanes.fail(err) // before the turn is passed on: part of a frame may have gone
		}
	}
	switch {
	case err == nil:
	case r != nil && ctx.Err() == nil:
		x.respond(ctx, frame, code) // the connection of the message has ended all the same
	default:
		x.lose(ctx, code, errors.Unwrap(err))
	}
	return err
}

// write answers with a frame.
func (x *exchange) write(frame []byte, code AckCode, now time.Time) error {
	if x.r2 != nil {
		return x.commit(frame, code, now)
	}
	return x.writeOut(frame, code, now)
}

// writeOut writes with one Write.
func (x *exchange) writeOut(frame []byte, code AckCode, now time.Time) error {
	c := x.conn
	if c.lanes == nil {
		c.idleSince = now
	}
	c.unread.code = code
	c.unread.id = append(c.unread.id[:0], x.r.Header.ControlID...)
	var err error
	if t := c.cfg.writeTimeout; t > 0 && c.writeBy.Sub(now) < t {
		// Good for all writes of the next second: see Read.
		c.writeBy = now.Add(t + time.Second)
		err = c.net.SetWriteDeadline(c.writeBy)
	}
	if err == nil {
		_, err = c.net.Write(frame)
	}
	if err != nil {
		reason := ReasonWriteFailed
		if isTimeout(err) {
			reason = ReasonWriteTimeout
		}
		c.unread.code = ""
		return &closeError{reason: reason, err: err}
	}
	if c.cfg.evictIdle > 0 {
		c.answered.Store(now.UnixNano())
	}
	if c.draining.Load() {
		c.gentle = true
	}
	return nil
}

// lose tells that the answer to the message in hand may not have arrived.
func (x *exchange) lose(ctx context.Context, code AckCode, err error) {
	x.cfg.tell(ctx, Event{
		Kind: EventAckUndeliverable, RemoteAddr: x.r.RemoteAddr, TLS: x.r.TLS,
		Code: code, ControlID: string(x.r.Header.ControlID), Err: err,
	})
}

// undeliverable tells that the last acknowledgement may not have arrived.
func (c *conn) undeliverable(ctx context.Context, err error) {
	c.cfg.tell(ctx, Event{
		Kind: EventAckUndeliverable, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS,
		Code: c.unread.code, ControlID: string(c.unread.id), Err: err,
	})
	c.unread.code = ""
}
