package mllp

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// An exchange is a message in hand and what is answered to it. A connection has
// one; with Server.Parallel it has another for each message that is handled
// beside others.
type exchange struct {
	*conn

	r       *Request
	offset  int64    // of the frame
	asked   asked    // the acknowledgements that the message asks for
	out     []byte   // of the last acknowledgement, to be used again
	memo    *memo    // of a message that may be repeated; nil: none is in hand
	answers *answers // nil: they are written
	job     *job     // nil: run by the connection's own goroutine, while nothing else is in hand
}

// A refusal is why a message does not reach the handler.
type refusal struct {
	policy Policy // "": it does
	reason Reason
	text   string // of the answer
	last   bool   // close after it
}

// check sets what the Request says of the message, and decides on it.
func (x *exchange) check(ctx context.Context, text []byte) (no refusal) {
	x.r.Message, x.r.Flags, x.offset = text, 0, x.rd.frame.offset
	return x.weigh(x.parse(ctx, text) == nil)
}

// weigh decides on a message by its header, if it has one, and by the flaws of
// its frame.
func (x *exchange) weigh(isHL7 bool) (no refusal) {
	r, cfg, frame := x.r, x.cfg, &x.rd.frame
	text := r.Message
	refuse := func(flag Flags, policy Policy, reason Reason, text string) {
		r.Flags |= flag
		if policy != PolicyDeliver && no.policy == "" {
			no = refusal{policy: policy, reason: reason, text: text}
		}
	}
	if !isHL7 {
		policy, reason := cfg.notHL7, ReasonNotHL7
		if bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(text, utf8BOM), " \t\r\n"), []byte("<")) {
			reason = ReasonXMLNotEnabled
			if policy == PolicyReject {
				policy = PolicyClose // an answer in another format would not be understood
			}
		}
		refuse(NotHL7, policy, reason, "not an HL7 message")
	}
	strict := PolicyDeliver
	if cfg.strict {
		strict = PolicyReject
	}
	if frame.missingCR {
		refuse(MissingCR, strict, ReasonMissingCR, "frame has no final CR")
	}
	if frame.unsure {
		r.Flags |= UnverifiedEnd // only with Framing.AllowUnverifiedEnd
	}
	if frame.stray {
		refuse(StrayControl, strict, ReasonStrayControl, "frame holds VT or FS")
	}
	if cfg.strict && frame.junk > 0 && !frame.blank {
		refuse(0, PolicyReject, ReasonJunk, "bytes before the frame")
	}
	no.last = cfg.strict && no.policy != ""
	switch {
	case r.Flags&(NotHL7|IsAck) != 0:
	case r.Header.IsBatch:
		policy := cfg.batches
		if cfg.splitsBatches() {
			policy = PolicyDeliver
		}
		refuse(Batch, policy, ReasonBatch, "batches are not supported")
	default:
		if len(r.Header.ControlID) == 0 {
			refuse(NoControlID, cfg.noControlID, ReasonNoControlID, "MSH-10 is empty")
		}
		if frame.second {
			refuse(MultipleMSH, cfg.multipleMSH, ReasonMultipleMSH, "more than one message in a frame")
		}
	}
	if len(cfg.senders) > 0 && !x.permitted() {
		policy := PolicyReject
		if r.Flags&NotHL7 != 0 {
			policy = PolicyClose
		}
		refuse(0, policy, ReasonSenderNotPermitted, "sending application or facility is not permitted")
	}
	return no
}

// parse reads the header of the message, and what it asks of the transport.
func (x *exchange) parse(ctx context.Context, text []byte) error {
	r := x.r
	x.asked = asked{}
	if err := r.Header.Parse(text); err != nil {
		return err
	}
	h := &r.Header
	var ofAck AckCode // that the message is
	if h.IsAck() {
		// Of a stream only the first segment is known: better no answer than one to an answer.
		if msa, err := findMSA(text); !errors.Is(err, errNoMSA) || x.cfg.stream != nil {
			r.Flags |= IsAck
			ofAck = msa.code
		}
	}
	if x.cfg.enhanced {
		x.heed(ctx, ofAck)
	}
	if len(h.CharacterSet) > 0 && x.cfg.watched() {
		if _, known := lookupCharset(nth(h.CharacterSet, h.repetition(), 0)); !known {
			x.tolerate(ctx, ReasonUnknownCharset, "MSH-18")
		}
	}
	return nil
}

// tolerate tells of a flaw that the message is accepted with.
func (x *exchange) tolerate(ctx context.Context, reason Reason, detail string) {
	e := x.event(EventTolerated)
	e.Reason, e.Detail = reason, detail
	x.cfg.tell(ctx, e)
}

// tolerateFlaws tells of the flaws of the frame.
func (x *exchange) tolerateFlaws(ctx context.Context) {
	switch flags := x.r.Flags; {
	case flags&UnverifiedEnd != 0:
		x.tolerate(ctx, ReasonUnverifiedEnd, "")
	case flags&MissingCR != 0:
		x.tolerate(ctx, ReasonMissingCR, "")
	case flags&StrayControl != 0:
		x.tolerate(ctx, ReasonStrayControl, "")
	}
}

// message deals with a whole frame. It returns nil if the connection can go on.
func (c *conn) message(ctx context.Context, text []byte) error {
	x := &c.own
	no := x.check(ctx, text)
	if c.lanes != nil {
		if no.policy == "" && x.r.Flags&(Batch|NotHL7) == 0 && c.dispatch(ctx) {
			return nil
		}
		if err := c.lanes.finish(); err != nil {
			return err
		}
	}
	return x.take(ctx, no)
}

// take deals with a message that has been checked.
func (x *exchange) take(ctx context.Context, no refusal) error {
	return x.counted(x.settle(ctx, no))
}

// counted counts a message that is dealt with, unless err says that it is not.
func (x *exchange) counted(err error) error {
	if err == nil && x.draining.Load() && !x.evicted.Load() {
		x.cfg.server.drain.finish()
	}
	return err
}

// settle answers a message, by itself or with what the handler says.
func (x *exchange) settle(ctx context.Context, no refusal) error {
	if no.policy != "" {
		return x.refuse(ctx, no)
	}
	x.tolerateFlaws(ctx)
	if x.r.Flags&Batch != 0 && x.cfg.splitsBatches() {
		return x.takeBatch(ctx)
	}
	return x.handle(ctx)
}

// refuse answers a message that the handler does not get.
func (x *exchange) refuse(ctx context.Context, no refusal) error {
	e := x.event(EventRejected)
	e.Reason = no.reason
	if no.reason == ReasonSenderNotPermitted {
		e.Certificate = x.r.Identity.certificate()
	}
	var err error
	switch no.policy {
	case PolicyReject:
		e.Code, err = x.turnDown(ctx, AR, no.text)
		e.Code = x.said(e.Code)
	case PolicyError:
		e.Code, err = x.turnDown(ctx, AE, no.text)
		e.Code = x.said(e.Code)
	case PolicyClose, PolicyDeliver, PolicyResync, PolicyPerMessage, PolicyBatch, PolicyLast:
	}
	x.cfg.tell(ctx, e)
	x.quarantine(ctx, &e, x.r.Message)
	if err == nil && (no.last || no.policy == PolicyClose) {
		x.gentle = e.Code != ""
		err = &closeError{reason: no.reason}
	}
	return err
}

// handle has the handler take the message, and answers.
func (x *exchange) handle(ctx context.Context) error {
	x.hand.take(x.r)
	defer x.hand.drop(x.r)
	if x.cfg.replay != nil && x.r.Flags&(IsAck|NotHL7) == 0 && len(x.r.Header.ControlID) > 0 {
		return x.once(ctx)
	}
	return x.process(ctx)
}

// process is handle for a message that is not a repeated one.
func (x *exchange) process(ctx context.Context) error {
	o := x.serve(ctx, x.cfg.handler)
	err := x.conclude(ctx, &o)
	x.outlast(&o)
	return err
}

// event returns an Event of the message in hand.
func (x *exchange) event(kind EventKind) Event {
	return Event{
		Kind: kind, RemoteAddr: x.r.RemoteAddr, TLS: x.r.TLS,
		Bytes: max(int64(len(x.r.Message)), x.streamedBytes()), Offset: x.offset,
	}
}

// badFrame deals with an error of the Reader. It returns nil if the connection
// can go on.
func (c *conn) badFrame(ctx context.Context, text []byte, err error) error {
	fe, ok := errors.AsType[*FrameError](err)
	if !ok || fe.Reason != ReasonPreambleTooLong && fe.Reason != ReasonWrongProtocol {
		c.skipped(ctx)
	}
	if c.lanes != nil {
		// What came before the bad frame is answered before it.
		if ended := c.lanes.finish(); ended != nil {
			return ended
		}
	}
	if !ok || fe.Reason == ReasonReadFailed || ctx.Err() != nil {
		return err // the end, between two frames or by force
	}
	x := &c.own
	e := Event{
		Kind: EventBadFrame, Reason: fe.Reason, RemoteAddr: c.req.RemoteAddr, TLS: c.req.TLS,
		Bytes: fe.Length, Offset: fe.Offset, Detail: fe.Detail, Err: fe.Err,
	}
	switch {
	case fe.Reason == ReasonTooLarge:
		if x.quotable(ctx, text) {
			if code, failed := x.turnDown(ctx, AR, "message too large"); failed == nil && code != "" {
				e.Code, c.gentle = c.said(code), true
			}
		}
	case fe.Reason == ReasonTruncated && fe.Resumable():
		err = &closeError{reason: ReasonTruncated}
		// An answer that quotes nothing could be taken for that of the next message.
		if c.cfg.truncated == PolicyResync && x.quotable(ctx, text) {
			e.Code, err = x.turnDown(ctx, AE, "message was cut off by the next one")
		}
	case fe.Resumable():
		err = nil
	}
	// Closing with bytes unread would reset the connection, and take answers to
	// earlier messages along that are still on their way.
	c.gentle = c.gentle || x.out != nil || c.lanes != nil
	c.cfg.tell(ctx, e)
	x.quarantine(ctx, &e, text)
	return err
}

// quotable parses the header of a message that is not whole, and reports whether
// it has a control ID that is, and wants an answer.
func (x *exchange) quotable(ctx context.Context, text []byte) bool {
	h := &x.r.Header
	x.r.Flags, x.r.Message, x.offset = 0, text, x.rd.frame.offset
	if len(text) == 0 || h.Parse(text[:len(text)-1]) != nil {
		return false
	}
	// If the end was cut off it is the last field, and longer with one byte more.
	n := len(h.ControlID)
	if h.Parse(text) != nil || n == 0 || len(h.ControlID) != n || h.IsAck() {
		return false
	}
	x.asked = asked{}
	if x.cfg.enhanced {
		x.heed(ctx, "")
	}
	return true
}

// since returns the time since began; 0 if that was not taken.
func since(began time.Time) time.Duration {
	if began.IsZero() {
		return 0
	}
	return time.Since(began)
}
