package mllp

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// A refusal is why a message does not reach the handler.
type refusal struct {
	policy Policy // "": it does
	reason Reason
	text   string // of the answer
	last   bool   // close after it
}

// check sets what the Request says of the message, and decides on it.
func (c *conn) check(text []byte) (no refusal) {
	r, cfg := &c.req, c.cfg
	r.Message, r.Flags = text, 0
	refuse := func(flag Flags, policy Policy, reason Reason, text string) {
		r.Flags |= flag
		if policy != PolicyDeliver && no.policy == "" {
			no = refusal{policy: policy, reason: reason, text: text}
		}
	}
	if err := r.Header.Parse(text); err != nil {
		policy, reason := cfg.notHL7, ReasonNotHL7
		if bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(text, utf8BOM), " \t\r\n"), []byte("<")) {
			reason = ReasonXMLNotEnabled
			if policy == PolicyReject {
				policy = PolicyClose // an answer in another format would not be understood
			}
		}
		refuse(NotHL7, policy, reason, "not an HL7 message")
	}
	h := &r.Header
	if h.IsAck() {
		// Of a stream only the first segment is known: better no answer than one to an answer.
		if _, err := findMSA(text); !errors.Is(err, errNoMSA) || c.cfg.stream != nil {
			r.Flags |= IsAck
		}
	}
	strict := PolicyDeliver
	if cfg.strict {
		strict = PolicyReject
	}
	if c.rd.frame.missingCR {
		refuse(MissingCR, strict, ReasonMissingCR, "frame has no final CR")
	}
	if c.rd.frame.unsure {
		r.Flags |= UnverifiedEnd // only with Framing.AllowUnverifiedEnd
	}
	if c.rd.frame.stray {
		refuse(StrayControl, strict, ReasonStrayControl, "frame holds VT or FS")
	}
	if cfg.strict && c.rd.frame.junk > 0 && !c.rd.frame.blank {
		refuse(0, PolicyReject, ReasonJunk, "bytes before the frame")
	}
	no.last = cfg.strict && no.policy != ""
	switch {
	case r.Flags&(NotHL7|IsAck) != 0:
	case h.IsBatch:
		refuse(Batch, cfg.batches, ReasonBatch, "batches are not supported")
	default:
		if len(h.ControlID) == 0 {
			refuse(NoControlID, cfg.noControlID, ReasonNoControlID, "MSH-10 is empty")
		}
		if c.rd.frame.second {
			refuse(MultipleMSH, cfg.multipleMSH, ReasonMultipleMSH, "more than one message in a frame")
		}
	}
	return no
}

// message deals with a whole frame. It returns nil if the connection can go on.
func (c *conn) message(ctx context.Context, text []byte) error {
	no := c.check(text)
	if no.policy != "" {
		return c.refuse(ctx, no)
	}
	c.tolerated(ctx)
	var began time.Time
	if c.cfg.watched() {
		began = time.Now()
	}
	if c.cfg.handlerTimeout > 0 {
		return c.handleInTime(ctx, began)
	}
	reply, err := c.call(ctx)
	return c.reply(ctx, began, reply, err)
}

// tolerated tells of flaws with which a message was accepted.
func (c *conn) tolerated(ctx context.Context) {
	if c.req.Flags&(MissingCR|StrayControl|UnverifiedEnd) == 0 {
		return
	}
	e := c.event(EventTolerated)
	switch {
	case c.req.Flags&UnverifiedEnd != 0:
		e.Reason = ReasonUnverifiedEnd
	case c.req.Flags&MissingCR != 0:
		e.Reason = ReasonMissingCR
	default:
		e.Reason = ReasonStrayControl
	}
	c.cfg.tell(ctx, e)
}

// refuse answers a message that the handler does not get.
func (c *conn) refuse(ctx context.Context, no refusal) error {
	e := c.event(EventRejected)
	e.Reason = no.reason
	switch no.policy {
	case PolicyReject:
		e.Code = AR
	case PolicyError:
		e.Code = AE
	case PolicyClose, PolicyDeliver, PolicyResync:
	}
	if c.req.Flags&IsAck != 0 {
		e.Code = ""
	}
	var err error
	if e.Code != "" {
		err = c.answer(ctx, e.Code, no.text)
	}
	e.Code = c.said(e.Code)
	c.cfg.tell(ctx, e)
	if err == nil && (no.last || no.policy == PolicyClose) {
		c.gentle = e.Code != ""
		err = &closeError{reason: no.reason}
	}
	return err
}

var errPanicked = errors.New("mllp: the handler panicked")

// call calls the handler.
func (c *conn) call(ctx context.Context) (reply []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(ctx, v)
			reply, err = nil, errPanicked
		}
	}()
	return c.cfg.handler.ServeMLLP(ctx, &c.req)
}

// handleInTime calls the handler and answers, at the latest when its time is over.
func (c *conn) handleInTime(ctx context.Context, began time.Time) error {
	limited, cancel := context.WithTimeout(ctx, c.cfg.handlerTimeout)
	defer cancel()
	var reply []byte
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		reply, failed = c.call(limited)
	}()
	select {
	case <-done:
		return c.reply(ctx, began, reply, failed)
	case <-limited.Done():
	}
	// Whatever it still does, its message has been answered, and its request must
	// stay as it is until it returns.
	defer func() { <-done }()
	e := c.event(EventHandlerFailed)
	e.Reason = ReasonTimeout
	c.cfg.tell(ctx, e)
	if c.req.Flags&(IsAck|NotHL7) != 0 {
		return nil
	}
	return c.answer(ctx, AE, "timeout")
}

// reply sends what follows from the handler's result.
func (c *conn) reply(ctx context.Context, began time.Time, reply []byte, failed error) error {
	if c.r2 != nil {
		c.r2.judge(failed)
	}
	e := c.event(EventMessage)
	if !began.IsZero() {
		e.Duration = time.Since(began)
	}
	nak, isNak := errors.AsType[*Nak](failed)
	var (
		text string
		err  error
	)
	switch {
	case failed == nil:
		e.Code = AA
	case errors.Is(failed, ErrNoReply):
		c.cfg.tell(ctx, e)
		return &closeError{reason: ReasonNoReply}
	case isNak:
		e.Code, text = nak.code(), nak.Text
	default:
		e.Code, text = AE, "internal error"
		if !errors.Is(failed, errPanicked) {
			f := c.event(EventHandlerFailed)
			f.Detail = typeName(failed)
			c.cfg.tell(ctx, f)
		}
	}
	switch {
	case c.req.Flags&IsAck != 0, c.req.Flags&NotHL7 != 0 && (reply == nil || failed != nil):
		e.Code = ""
	case reply != nil && failed == nil:
		e.Code, err = c.send(ctx, reply)
	default:
		err = c.answer(ctx, e.Code, text)
	}
	e.Code = c.said(e.Code)
	c.cfg.tell(ctx, e)
	return err
}

// send sends a reply of the handler's own, and returns its code.
func (c *conn) send(ctx context.Context, reply []byte) (AckCode, error) {
	frame, err := c.cfg.replies.AppendFrame(c.out[:0], reply)
	if err != nil {
		// It would not arrive as what it is.
		e := c.event(EventHandlerFailed)
		e.Detail = "the reply cannot be sent in a frame"
		c.cfg.tell(ctx, e)
		if c.req.Flags&NotHL7 != 0 {
			return "", nil
		}
		return AE, c.answer(ctx, AE, "internal error")
	}
	ack, err := findMSA(reply)
	if err != nil {
		ack.code = ""
	}
	return ack.code, c.write(ctx, frame, ack.code, time.Now())
}

// answer sends an acknowledgement.
func (c *conn) answer(ctx context.Context, code AckCode, text string) error {
	var id [20]byte
	out := c.cfg.replies.begin(c.out[:0])
	now := time.Now()
	out = AppendAck(out, &c.req.Header, code, text, c.cfg.server.appendID(id[:0]), now)
	frame, err := c.cfg.replies.end(out, 0)
	if err != nil {
		return &closeError{reason: ReasonWriteFailed, err: err} // not with the fields that Header.Parse lets through
	}
	return c.write(ctx, frame, code, now)
}

// write answers with a frame.
func (c *conn) write(ctx context.Context, frame []byte, code AckCode, now time.Time) error {
	if cap(frame) <= idleBuffer {
		c.out = frame
	}
	if c.r2 != nil {
		return c.commit(ctx, frame, code, now)
	}
	return c.writeOut(ctx, frame, code, now)
}

// writeOut writes with one Write.
func (c *conn) writeOut(ctx context.Context, frame []byte, code AckCode, now time.Time) error {
	c.idleSince = now
	c.unread.code = code
	c.unread.id = append(c.unread.id[:0], c.req.Header.ControlID...)
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
		c.undeliverable(ctx, err)
		reason := ReasonWriteFailed
		if isTimeout(err) {
			reason = ReasonWriteTimeout
		}
		return &closeError{reason: reason, err: err}
	}
	if c.draining.Load() {
		c.gentle = true
	}
	return nil
}

// undeliverable tells that the last acknowledgement may not have arrived.
func (c *conn) undeliverable(ctx context.Context, err error) {
	c.cfg.tell(ctx, Event{
		Kind: EventAckUndeliverable, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS,
		Code: c.unread.code, ControlID: string(c.unread.id), Err: err,
	})
	c.unread.code = ""
}

// event returns an Event of the message in hand.
func (c *conn) event(kind EventKind) Event {
	return Event{
		Kind: kind, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS,
		Bytes: max(int64(len(c.req.Message)), c.body.length), Offset: c.rd.frame.offset,
	}
}

// badFrame deals with an error of the Reader. It returns nil if the connection
// can go on.
func (c *conn) badFrame(ctx context.Context, text []byte, err error) error {
	fe, ok := errors.AsType[*FrameError](err)
	if !ok || fe.Reason != ReasonPreambleTooLong && fe.Reason != ReasonWrongProtocol {
		c.skipped(ctx)
	}
	if !ok || fe.Reason == ReasonReadFailed || ctx.Err() != nil {
		return err // the end, between two frames or by force
	}
	e := Event{
		Kind: EventBadFrame, Reason: fe.Reason, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS,
		Bytes: fe.Length, Offset: fe.Offset, Detail: fe.Detail, Err: fe.Err,
	}
	switch {
	case fe.Reason == ReasonTooLarge:
		if c.quotable(text) && c.answer(ctx, AR, "message too large") == nil {
			e.Code, c.gentle = c.said(AR), true
		}
	case fe.Reason == ReasonTruncated && fe.Resumable():
		err = &closeError{reason: ReasonTruncated}
		// An answer that quotes nothing could be taken for that of the next message.
		if c.cfg.truncated == PolicyResync && c.quotable(text) {
			if err = c.answer(ctx, AE, "message was cut off by the next one"); err == nil {
				e.Code = AE
			}
		}
	case fe.Resumable():
		err = nil
	}
	c.cfg.tell(ctx, e)
	return err
}

// quotable parses the header of a message that is not whole, and reports whether
// it has a control ID that is, and wants an answer.
func (c *conn) quotable(text []byte) bool {
	h := &c.req.Header
	if len(text) == 0 || h.Parse(text[:len(text)-1]) != nil {
		return false
	}
	// If the end was cut off it is the last field, and longer with one byte more.
	n := len(h.ControlID)
	return h.Parse(text) == nil && n > 0 && len(h.ControlID) == n && !h.IsAck()
}
