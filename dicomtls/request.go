package dicomtls

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// outBuffer is how much of a data set is written at once: with PDUs of 16 KiB,
// as most peers take, several in one call of the system.
const outBuffer = 128 << 10

// Echo asks the peer for a sign of life (C-ECHO). It needs a presentation context
// for verification, which DialContext without proposals negotiates. The error is a
// *[SendError].
func (a *Association) Echo(ctx context.Context) error {
	pc := a.context(VerificationSOPClass, "")
	if pc == nil {
		return impossible(ErrNoContext)
	}
	rsp, err := a.request(ctx, pc, func(id uint16) command {
		return make(command, 0, 4).withUID(elAffectedClass, VerificationSOPClass).with(elField, cmdEcho).
			with(elMessageID, id).with(elDataSetType, noDataSet)
	}, nil)
	if err != nil {
		return err
	}
	if status := Status(rsp.number(elStatus)); status != StatusSuccess {
		return refusal(rsp)
	}
	return nil
}

// refusal is the error for a response with the status of a failure.
func refusal(rsp command) *SendError {
	return &SendError{Outcome: Refused, Status: Status(rsp.number(elStatus)), Comment: printable(cleanUID(rsp.value(elErrorComment)))}
}

// Store sends an object (C-STORE) and waits for the response. If the peer takes
// its SOP class, but not in the object's transfer syntax, an uncompressed data set
// is converted into one that it takes. Store returns the
// status success, or that of a warning, if the peer has stored it; the peer's
// status and an error if it has not; and else an error alone. The error is a
// *[SendError]:
//
//   - Refused with the peer's status.
//   - NotSent if ctx ended before the object's turn; if the association had
//     ended; if the end of the object was never written, also because its source
//     failed; and, not Retryable, if the peer takes neither its SOP class nor its
//     transfer syntax (ErrNoContext), or it cannot be sent (ErrBadObject).
//   - Unknown if all of it was written and no response came.
//
// An error before the first byte was written leaves the association as it is;
// later ones, but for Refused, abort it.
func (a *Association) Store(ctx context.Context, o Object) (Status, error) {
	status, err := a.store(ctx, &o)
	if err != nil {
		return status, err
	}
	return status, nil
}

func (a *Association) store(ctx context.Context, o *Object) (Status, *SendError) {
	if err := o.check(); err != nil {
		return 0, impossible(err)
	}
	pc := a.context(o.SOPClassUID, o.TransferSyntaxUID)
	if pc == nil {
		if pc = a.convertible(o); pc == nil {
			return 0, impossible(o.named(ErrNoContext))
		}
		o = o.converted(pc.TransferSyntax)
	}
	rsp, err := a.request(ctx, pc, func(id uint16) command {
		return make(command, 0, 6).withUID(elAffectedClass, o.SOPClassUID).with(elField, cmdStore).with(elMessageID, id).
			with(elPriority, uint16(o.Priority)).with(elDataSetType, 1).withUID(elAffectedInst, o.SOPInstanceUID)
	}, o)
	if err != nil {
		return 0, err
	}
	if status := Status(rsp.number(elStatus)); status.Stored() {
		return status, nil
	}
	refused := refusal(rsp)
	return refused.Status, refused
}

// convertible returns the first accepted presentation context in whose transfer
// syntax the object can be sent without loss, nil if there is none.
func (a *Association) convertible(o *Object) *PresentationContext {
	for i := range a.info.Contexts {
		pc := &a.info.Contexts[i]
		if pc.AbstractSyntax == o.SOPClassUID && pc.Result == ContextAccepted && CanConvert(o.TransferSyntaxUID, pc.TransferSyntax) {
			return pc
		}
	}
	return nil
}

// request sends a message and waits for the response.
func (a *Association) request(ctx context.Context, pc *PresentationContext, cmd func(id uint16) command, o *Object) (command, *SendError) {
	if err := a.takeTurn(ctx); err != nil {
		return nil, notSent(err)
	}
	defer func() { <-a.slots }()
	id, c, err := a.begin(cmd)
	if err != nil {
		<-a.turn
		return nil, notSent(err)
	}
	m := message{a: a, ctx: ctx, pc: pc}
	err = m.send(cmd(id), o)
	<-a.turn
	if err == nil {
		return a.await(ctx, id, c)
	}
	a.withdraw(id)
	select {
	case rsp := <-c.answer:
		// The peer refused the object before its end. An acceptance of what cannot
		// have arrived whole would be none.
		if status := Status(rsp.number(elStatus)); !status.Stored() {
			return rsp, nil
		}
	default:
	}
	failed := &SendError{Outcome: NotSent, Err: err, permanent: errors.Is(err, ErrBadObject)}
	if m.whole {
		failed.Outcome = Unknown
	}
	return nil, failed
}

// takeTurn waits until a message may be written. Holding the turn while it waits
// for a slot keeps the order of calls, whatever the window.
func (a *Association) takeTurn(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.closed:
		return a.Err()
	}
	select {
	case a.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-a.turn
		return context.Cause(ctx)
	case <-a.closed:
		<-a.turn
		return a.Err()
	}
}

// begin puts a request among the waiting, before it is written: its response may
// be faster than the return of Write.
func (a *Association) begin(cmd func(id uint16) command) (uint16, *call, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return 0, nil, a.err
	}
	for {
		if a.lastID++; a.lastID == 0 {
			continue // PS3.7 does not forbid it, but peers take it for none
		}
		if a.waiting[a.lastID] == nil { // the window leaves enough of them
			break
		}
	}
	c := &call{field: cmd(a.lastID).field(), answer: make(chan command, 1)}
	a.waiting[a.lastID] = c
	return a.lastID, c, nil
}

func (a *Association) withdraw(id uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, id)
}

// await waits for the response to a request that has been written.
func (a *Association) await(ctx context.Context, id uint16, c *call) (command, *SendError) {
	var timeout <-chan time.Time
	if a.responseTimeout > 0 {
		timer := time.NewTimer(a.responseTimeout)
		defer timer.Stop()
		timeout = timer.C
	}
	var cause error
	select {
	case rsp := <-c.answer:
		return rsp, nil
	case <-a.closed:
		cause = a.Err()
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-timeout:
		cause = fmt.Errorf("dicomtls: no response within %v: %w", a.responseTimeout, os.ErrDeadlineExceeded)
	}
	select {
	case rsp := <-c.answer: // it came at the last moment
		return rsp, nil
	default:
	}
	a.withdraw(id)
	_ = a.end(errGivenUp, abortPDU(abortByUser, 0))
	return nil, &SendError{Outcome: Unknown, Err: cause}
}

// A message is being written by the holder of the turn.
type message struct {
	a   *Association
	ctx context.Context //nolint:containedctx // of the call that it lives in
	pc  *PresentationContext

	begun bool // something has been written
	whole bool // all of it has
}

// send writes the command and the data set. If it fails after something has been
// written, the association has ended.
func (m *message) send(cmd command, o *Object) error {
	m.a.out = appendCommand(m.a.out[:0], m.pc.ID, cmd, m.a.info.MaxPDUBytes)
	if o == nil {
		return m.flush(true)
	}
	r, err := o.Open()
	if err != nil {
		return o.named(err)
	}
	defer r.Close() // all of it has been read, or its error is the lesser one
	return m.object(newSource(o, r))
}

// object writes a data set.
func (m *message) object(s *source) error {
	most := fragmentSize(m.a.info.MaxPDUBytes)
	if s.left > 0 {
		most = int(min(int64(most), s.left+s.left%2))
	}
	const headers = pduHeader + pdvHeader
	if need := max(outBuffer, headers+most) + maxUID*8; cap(m.a.out) < need {
		m.a.out = append(make([]byte, 0, need), m.a.out...)
	}
	for {
		if len(m.a.out)+headers+most > cap(m.a.out) {
			if err := m.flush(false); err != nil {
				return err
			}
		}
		start := len(m.a.out)
		n, last, err := s.fragment(m.a.out[start+headers : start+headers+most])
		if err != nil {
			if m.begun {
				return m.a.end(err, abortPDU(abortByUser, 0))
			}
			return err
		}
		appendData(m.a.out[:start], m.pc.ID, n, false, last)
		m.a.out = m.a.out[:start+headers+n]
		if last {
			return m.flush(true)
		}
	}
}

// flush writes what has been collected.
func (m *message) flush(last bool) error {
	a := m.a
	if m.ctx.Err() != nil {
		err := context.Cause(m.ctx)
		if m.begun {
			_ = a.end(errGivenUp, abortPDU(abortByUser, 0))
		}
		return err
	}
	m.begun = true
	err := a.write(m.ctx, a.out)
	a.out = a.out[:0]
	switch {
	case err == nil:
		m.whole = last
		return nil
	case m.ctx.Err() != nil:
		_ = a.end(errGivenUp, nil)
		return context.Cause(m.ctx) // the association may have ended because of it
	}
	return a.hearOut(m.ctx, err)
}
