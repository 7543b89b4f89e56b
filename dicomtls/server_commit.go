package dicomtls

import (
	"context"
	"errors"
	"time"
)

// commitment reads the data set of a message of storage commitment. A status
// other than success is the answer to what cannot be read; an error ends the
// association.
func commitment(cmd command, ds *dataSet, transferSyntax string) (*CommitReport, Status, error) {
	if !cmd.hasDataSet() {
		return nil, StatusMissingAttribute, nil
	}
	data, err := ds.whole(maxCommitDataSet)
	if _, large := errors.AsType[*TooLargeError](err); large {
		return nil, StatusResourceLimitation, ds.discard()
	}
	if err != nil {
		return nil, 0, err
	}
	report, err := decodeReport(data, transferSyntax)
	if err != nil {
		return nil, StatusInvalidArgument, nil //nolint:nilerr // it is answered
	}
	return report, StatusSuccess, nil
}

// action takes a request for storage commitment (PS3.4 J.3.2).
func (c *conn) action(ctx context.Context, pc *PresentationContext, cmd command, ds *dataSet) error {
	began := time.Now()
	rsp := func(s Status) command {
		rsp := response(cmd, s, "")
		if s == StatusSuccess {
			rsp = rsp.with(elActionType, cmd.number(elActionType))
		}
		return rsp
	}
	asked, status, err := commitment(cmd, ds, pc.TransferSyntax)
	if err != nil {
		return err
	}
	switch {
	case cmd.instance() != storageCommitmentInstance:
		status = StatusNoSuchObject
	case cmd.number(elActionType) != actionCommit:
		status = StatusNoSuchAction
	case status == StatusSuccess && len(asked.Committed) == 0:
		status = StatusInvalidArgument
	}
	var r *CommitRequest
	if status == StatusSuccess {
		r = &CommitRequest{Association: &c.info, TransactionUID: asked.TransactionUID, References: asked.Committed}
		status = c.call(ctx, "N-ACTION", func(ctx context.Context) Status { return c.cfg.Commit.ServeCommit(ctx, r) })
	}
	e := Event{Operation: "N-ACTION", Status: status, Bytes: ds.n, Duration: time.Since(began)}
	if err := c.respond(ctx, pc, rsp(status), e); err != nil {
		return err
	}
	if status != StatusSuccess || r.Report == nil {
		return nil
	}
	return c.report(pc, r)
}

// report sends the report on the association of the request.
func (c *conn) report(pc *PresentationContext, r *CommitRequest) error {
	tell := r.Reported
	if tell == nil {
		tell = func(error) {}
	}
	if c.reported != nil { // one at a time, as without negotiation
		tell(notSent(errors.New("dicomtls: the report before this one has not been confirmed")))
		return nil
	}
	c.eventID++
	c.reported = tell
	if err := c.send(pc, reportCommand(c.eventID, r.Report), encodeReport(pc.TransferSyntax, r.Report)); err != nil {
		return &ending{reason: ReasonWriteFailed, err: err}
	}
	return nil
}

// reportCommand is the command of an N-EVENT-REPORT-RQ (PS3.7 10.3.1.1).
func reportCommand(id uint16, r *CommitReport) command {
	event := uint16(eventCommitted)
	if len(r.Failed) > 0 {
		event = eventFailedSome
	}
	return command{}.withUID(elAffectedClass, StorageCommitmentSOPClass).with(elField, cmdEventReport).
		with(elMessageID, id).with(elDataSetType, 1).
		withUID(elAffectedInst, storageCommitmentInstance).with(elEventType, event)
}

// eventReported takes the response to a report of ours.
func (c *conn) eventReported(cmd command, ds *dataSet) error {
	if c.reported == nil || cmd.number(elResponseTo) != c.eventID {
		return &protocolError{abortUnexpectedParameter, "a response to no request"}
	}
	tell, status := c.reported, Status(cmd.number(elStatus))
	c.reported = nil
	if status == StatusSuccess {
		tell(nil)
	} else {
		tell(&SendError{Outcome: Refused, Status: status})
	}
	return ds.discard()
}

// notAnswered is why a report that was sent got no response.
func notAnswered(end *ending) error {
	err := error(end)
	if end.err != nil {
		err = end.err
	}
	return &SendError{Outcome: Unknown, Err: err}
}

// eventReport takes a report that an SCP brings on an association of its own.
func (c *conn) eventReport(ctx context.Context, pc *PresentationContext, cmd command, ds *dataSet) error {
	began := time.Now()
	event := cmd.number(elEventType)
	report, status, err := commitment(cmd, ds, pc.TransferSyntax)
	if err != nil {
		return err
	}
	switch {
	case event != eventCommitted && event != eventFailedSome:
		status = StatusNoSuchEventType
	case status == StatusSuccess:
		status = c.call(ctx, "N-EVENT-REPORT", func(ctx context.Context) Status {
			return c.cfg.Commitments.deliver(ctx, &c.info, c.info.CallingAE, report)
		})
	}
	return c.respond(ctx, pc, response(cmd, status, "").with(elEventType, event),
		Event{Operation: "N-EVENT-REPORT", Status: status, Bytes: ds.n, Duration: time.Since(began)})
}
