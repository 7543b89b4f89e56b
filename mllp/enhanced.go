package mllp

import (
	"context"
	"errors"
	"fmt"
)

// AckCondition says when an acknowledgement is wanted, in the words of MSH-15 and
// MSH-16 (HL7 2.x, table 0155).
type AckCondition string

// The conditions. In a setting the empty one is its default.
const (
	AckAlways  AckCondition = "AL"
	AckNever   AckCondition = "NE"
	AckError   AckCondition = "ER" // also of a rejection
	AckSuccess AckCondition = "SU"
)

// UnmarshalText accepts the words of the constants, and the empty text.
func (c *AckCondition) UnmarshalText(text []byte) error {
	v := AckCondition(text)
	if _, known := v.condition(); !known && v != "" {
		return fmt.Errorf("mllp: unknown condition %q: use AL, NE, ER or SU", text)
	}
	*c = v
	return nil
}

// condition returns what c means; empty is never.
func (c AckCondition) condition() (meaning condition, known bool) {
	switch c {
	case AckAlways:
		return always, true
	case AckNever:
		return never, true
	case AckError:
		return onError, true
	case AckSuccess:
		return onSuccess, true
	}
	return never, false
}

// missing checks the setting MissingCondition of a Server or a Dialer.
func (c AckCondition) missing(of string, enhanced bool) error {
	if _, known := c.condition(); !known && c != "" {
		return fmt.Errorf("mllp: %s.MissingCondition is %q: use AL, NE, ER or SU", of, string(c))
	}
	if c != "" && !enhanced {
		return fmt.Errorf("mllp: %s.MissingCondition is set, but not Enhanced", of)
	}
	return nil
}

// A condition says when an acknowledgement is wanted (HL7 2.x, table 0155).
type condition uint8

const (
	never     condition = 0
	onError   condition = 1 // ER: also of a rejection
	onSuccess condition = 2 // SU
	always    condition = onError | onSuccess
)

func (c condition) wants(success bool) bool {
	if success {
		return c&onSuccess != 0
	}
	return c&onError != 0
}

// asked is what a message asks for with MSH-15 and MSH-16.
type asked struct {
	enhanced            bool // false: original mode, one acknowledgement in any case
	commit, application condition
}

// parseCondition reads MSH-15 or MSH-16. What is not in the table counts as AL:
// an acknowledgement too many does less harm than one that a sender waits for.
func (h *Header) parseCondition(field []byte) (c condition, known bool) {
	if c, known = AckCondition(h.component(field, 0)).condition(); known {
		return c, true
	}
	return always, false
}

// asks returns what a message with header h asks for. If only one of its fields is
// there, missing is in the place of the other.
func (h *Header) asks(missing AckCondition) asked {
	if len(h.AcceptAck) == 0 && len(h.ApplicationAck) == 0 || h.minorVersion() == 1 {
		return asked{} // HL7 2.1 has neither the fields nor commit codes
	}
	a := asked{enhanced: true}
	a.commit, _ = missing.condition()
	a.application = a.commit
	if len(h.AcceptAck) > 0 {
		a.commit, _ = h.parseCondition(h.AcceptAck)
	}
	if len(h.ApplicationAck) > 0 {
		a.application, _ = h.parseCondition(h.ApplicationAck)
	}
	return a
}

// heed sets what the message asks for, and tells of what is odd about that.
// ofAck is the code of the acknowledgement that the message is, if it is one.
func (x *exchange) heed(ctx context.Context, ofAck AckCode) {
	h := &x.r.Header
	x.asked = h.asks(x.cfg.missing)
	if !x.asked.enhanced {
		return
	}
	if x.r.Flags&IsAck != 0 {
		// An application's word may ask for a commit acknowledgement, and for
		// nothing else: there would be no end to it.
		x.asked.application = never
		if ofAck.commit() || len(h.AcceptAck) == 0 {
			x.asked.commit = never
		}
		return
	}
	if !x.cfg.watched() {
		return
	}
	for _, f := range [...]struct {
		name  string
		field []byte
	}{{"MSH-15", h.AcceptAck}, {"MSH-16", h.ApplicationAck}} {
		if len(f.field) == 0 {
			x.tolerate(ctx, ReasonAckConditionMissing, f.name)
		} else if _, known := h.parseCondition(f.field); !known {
			x.tolerate(ctx, ReasonAckConditionUnknown, f.name)
		}
	}
}

// concludeEnhanced is conclude in enhanced mode.
func (x *exchange) concludeEnhanced(ctx context.Context, o *outcome) error {
	if !o.accepted() {
		code, err := x.sendFailure(ctx, o)
		x.report(ctx, EventMessage, code, o)
		return err
	}
	var (
		code AckCode
		err  error
	)
	if x.asked.commit.wants(true) {
		commit := outcome{code: CA}
		if o.code.commit() {
			commit.reply = o.reply
		}
		code, err = x.send(ctx, &commit)
	} else if x.memo != nil && x.memo.Replay != nil {
		x.record(ctx, nil)
	}
	x.report(ctx, EventMessage, code, o)
	if x.r.Flags&IsAck != 0 {
		return err
	}
	// The message is the receiver's now: its application gets it even if the
	// sender has gone.
	if failed := x.apply(ctx, o); err == nil {
		err = failed
	}
	return err
}

// apply has the application take a message that was committed, and sends its
// acknowledgement, if that is wanted. Without one the outcome of the commit, o,
// is its word.
func (x *exchange) apply(ctx context.Context, o *outcome) error {
	applied := *o
	if o.code.commit() {
		applied.reply = nil // it has been sent, or was not wanted
	}
	if x.cfg.application != nil {
		applied = x.serve(ctx, x.cfg.application)
	}
	defer x.outlast(&applied)
	if x.job != nil && applied.late == nil {
		x.job.release()
	}
	if applied.silent {
		x.report(ctx, EventApplication, "", &applied)
		return &closeError{reason: ReasonNoReply}
	}
	wanted := x.asked.application.wants(applied.accepted())
	var (
		code AckCode
		err  error
	)
	if wanted {
		applied.code = applied.code.application()
		code, err = x.send(ctx, &applied)
	}
	if wanted || x.cfg.application != nil {
		x.report(ctx, EventApplication, code, &applied)
	}
	return err
}

// sendFailure answers a message that was not accepted: with the commit
// acknowledgement if it asks for that, else with the application's. After the
// first there is no second, since no application has seen the message.
func (x *exchange) sendFailure(ctx context.Context, o *outcome) (AckCode, error) {
	failure := *o
	switch {
	case x.asked.commit.wants(false):
		if !o.code.commit() {
			failure.code, failure.reply = o.code.toCommit(), nil
		}
	case x.asked.application.wants(false):
		if o.code.commit() {
			failure.code, failure.reply = o.code.application(), nil
		}
	default:
		return "", nil
	}
	return x.send(ctx, &failure)
}

// commit tells whether c is a commit code.
func (c AckCode) commit() bool { return c == CA || c == CE || c == CR }

// toCommit returns the commit code that says the same as c.
func (c AckCode) toCommit() AckCode {
	switch c {
	case AA:
		return CA
	case AR:
		return CR
	case AE:
		return CE
	case CA, CE, CR:
	}
	return c
}

// application returns the application's code that says the same as c.
func (c AckCode) application() AckCode {
	switch c {
	case CA:
		return AA
	case CR:
		return AR
	case CE:
		return AE
	case AA, AE, AR:
	}
	return c
}

// ackConfig is the part of a config that is about acknowledgements.
type ackConfig struct {
	enhanced    bool
	missing     AckCondition
	silent      bool
	application Handler    // nil: the Handler speaks for it
	responder   *Responder // nil: everything goes over the connection of the message
	key         func(*Request) []byte
	parallel    int         // messages of a connection in hand at a time
	replay      ReplayStore // nil: off
	duplicateID Policy
	late        Policy
	replays     *replays
}

func (s *Server) ackConfig() ackConfig {
	return ackConfig{
		enhanced:    s.Enhanced,
		missing:     s.MissingCondition,
		silent:      s.Silent,
		application: s.Application,
		responder:   s.Responder,
		key:         s.Key,
		parallel:    max(s.Parallel, 1),
		replay:      s.Replay,
		duplicateID: s.DuplicateID.or(PolicyReject),
		late:        s.Late.or(PolicyError),
		replays:     &s.replays,
	}
}

// validateAcks is the part of Validate that is about acknowledgements.
func (s *Server) validateAcks() error {
	if s.Parallel < 0 {
		return fmt.Errorf("mllp: Server.Parallel is negative (%d)", s.Parallel)
	}
	if (s.Key == nil) != (s.Parallel <= 1) {
		return errors.New("mllp: Server.Key and a Server.Parallel above 1 need each other")
	}
	if err := s.MissingCondition.missing("Server", s.Enhanced); err != nil {
		return err
	}
	if s.Silent && (s.Enhanced || s.Responder != nil || s.Replay != nil) {
		return errors.New("mllp: Server.Silent is set, and so is Enhanced, Responder or Replay, which are about answers")
	}
	if s.Responder != nil {
		if err := s.Responder.validate(); err != nil {
			return err
		}
	}
	return s.validateTogether()
}

// validateTogether returns the first of two settings that exclude each other.
func (s *Server) validateTogether() error {
	splits := s.Batches == PolicyPerMessage || s.Batches == PolicyBatch || s.Batches == PolicyLast
	for _, pair := range []struct {
		wrong       bool
		field, with string
	}{
		// Release 2 has commits and a memory of answers of its own.
		{s.Enhanced, "Enhanced", "MLLPv2"},
		{s.Silent, "Silent", "MLLPv2"},
		{s.Application != nil, "Application", "MLLPv2"},
		{s.Responder != nil, "Responder", "MLLPv2"},
		{s.Replay != nil, "Replay", "MLLPv2"},
		{s.Key != nil, "Key", "MLLPv2"},
		{splits, "Batches", "MLLPv2"},
		// Of a stream nobody has the whole.
		{s.Application != nil, "Application", "Stream"},
		{s.Replay != nil, "Replay", "Stream"},
		{s.Key != nil, "Key", "Stream"},
		{splits, "Batches", "Stream"},
		{len(s.Senders) > 0 && (s.Batches == PolicyDeliver || s.MultipleMSH == PolicyDeliver), "Senders, and Batches or MultipleMSH deliver,", "Stream"},
		{s.Key != nil, "Key", "connections for one message"},
	} {
		applies := pair.with == "MLLPv2" && s.Framing.mode() == ModeMLLPv2 || pair.with == "Stream" && s.Stream != nil ||
			pair.with == "connections for one message" && !s.Framing.keepOpen()
		if pair.wrong && applies {
			return fmt.Errorf("mllp: Server.%s cannot be used with %s", pair.field, pair.with)
		}
	}
	return nil
}
