package dicomtls

import (
	"context"
	"errors"
	"io"
	"time"
)

// message handles one message.
func (c *conn) message(ctx context.Context) error {
	id, cmd, err := c.l.message()
	if err != nil {
		return err
	}
	pc := c.context(id)
	if pc == nil {
		return &protocolError{abortUnexpectedParameter, "a message on a presentation context that was not accepted"}
	}
	ds := &dataSet{l: c.l, context: id, limit: c.cfg.maxObject, ended: c.watch}
	ds.last = !cmd.hasDataSet() // then it has ended
	commitment := pc.AbstractSyntax == StorageCommitmentSOPClass
	verification := pc.AbstractSyntax == VerificationSOPClass
	switch field := cmd.field(); {
	case field == cmdCancel: // of what has been answered already
		return ds.discard()
	case field == cmdEventReport|cmdResponse:
		return c.eventReported(cmd, ds)
	case field&cmdResponse != 0:
		return &protocolError{abortUnexpectedParameter, "a response to no request"}
	case field == cmdEcho && verification:
		return c.echo(ctx, pc, cmd, ds)
	case field == cmdStore && !verification && !commitment:
		return c.store(ctx, pc, cmd, ds)
	case field == cmdAction && commitment && pc.RequestorSCU:
		return c.action(ctx, pc, cmd, ds)
	case field == cmdEventReport && commitment && pc.RequestorSCP:
		return c.eventReport(ctx, pc, cmd, ds)
	case field >= cmdEventReport && field < cmdCancel && !commitment: // the N services
		return c.decline(ctx, pc, cmd, ds, StatusNoSuchSOPClass)
	default:
		return c.decline(ctx, pc, cmd, ds, StatusUnrecognizedOperation)
	}
}

// context returns the accepted presentation context with this number, or nil.
func (c *conn) context(id uint8) *PresentationContext {
	for i := range c.info.Contexts {
		if pc := &c.info.Contexts[i]; pc.ID == id && pc.Result == ContextAccepted {
			return pc
		}
	}
	return nil
}

// decline answers a request that is not to be had, whatever it is.
func (c *conn) decline(ctx context.Context, pc *PresentationContext, cmd command, ds *dataSet, status Status) error {
	rsp := response(cmd, status, "")
	name := operation(cmd.field())
	if err := ds.discard(); err != nil {
		return err
	}
	return c.respond(ctx, pc, rsp, Event{Operation: name, Status: status, Bytes: ds.n})
}

// operation returns the name of a request.
func operation(field uint16) string {
	switch field {
	case cmdStore:
		return "C-STORE"
	case cmdEcho:
		return "C-ECHO"
	case cmdEventReport:
		return "N-EVENT-REPORT"
	case cmdAction:
		return "N-ACTION"
	case 0x0010:
		return "C-GET"
	case 0x0020:
		return "C-FIND"
	case 0x0021:
		return "C-MOVE"
	default:
		return "other"
	}
}

// response makes the response to cmd, with those of its elements that belong into it.
func response(cmd command, status Status, text string) command {
	rsp := make(command, 0, 8).withUID(elAffectedClass, cmd.class()).with(elField, cmd.field()|cmdResponse).
		with(elResponseTo, cmd.number(elMessageID)).with(elDataSetType, noDataSet).with(elStatus, uint16(status))
	if status != StatusSuccess {
		rsp = rsp.withText(elErrorComment, comment(text))
	}
	return rsp.withUID(elAffectedInst, cmd.instance())
}

// respond sends a response and tells of it; e.Operation and e.Status say what it is.
func (c *conn) respond(ctx context.Context, pc *PresentationContext, rsp command, e Event) error {
	err := c.send(pc, rsp, nil)
	e.Kind, e.RemoteAddr, e.TLS = EventOperation, c.info.RemoteAddr, c.info.TLS
	e.CallingAE, e.CalledAE = c.info.CallingAE, c.info.CalledAE
	c.cfg.tell(ctx, e)
	switch {
	case err != nil:
		e.Kind, e.Err = EventUndeliverable, err
		c.cfg.tell(ctx, e)
		return &ending{reason: ReasonWriteFailed, err: err}
	case c.l.failed != nil: // found by watch: the client had gone already
		e.Kind, e.Err = EventUndeliverable, midway(c.l.failed)
		c.cfg.tell(ctx, e)
	}
	return nil
}

// send sends a message with or without a data set, in one write.
func (c *conn) send(pc *PresentationContext, cmd command, data []byte) error {
	pdus := appendCommand(nil, pc.ID, cmd, c.info.MaxPDUBytes)
	if data != nil {
		pdus = appendDataSet(pdus, pc.ID, data, c.info.MaxPDUBytes)
	}
	err := c.write(pdus, c.cfg.writeTimeout)
	return err
}

// appendDataSet appends the PDUs of a data set that is in memory.
func appendDataSet(dst []byte, context uint8, data []byte, maxPDU int) []byte {
	most := fragmentSize(maxPDU)
	for {
		n := min(len(data), most)
		last := n == len(data)
		dst = append(appendData(dst, context, n, false, last), data[:n]...)
		if data = data[n:]; last {
			return dst
		}
	}
}

// echo answers a C-ECHO.
func (c *conn) echo(ctx context.Context, pc *PresentationContext, cmd command, ds *dataSet) error {
	began := time.Now()
	status := StatusSuccess
	if c.cfg.Echo != nil {
		status = c.call(ctx, "C-ECHO", func(ctx context.Context) Status { return c.cfg.Echo.ServeEcho(ctx, &c.info) })
	}
	rsp := response(cmd, status, "")
	if err := ds.discard(); err != nil {
		return err
	}
	return c.respond(ctx, pc, rsp, Event{Operation: "C-ECHO", Status: status, Duration: time.Since(began)})
}

// store takes an object.
func (c *conn) store(ctx context.Context, pc *PresentationContext, cmd command, ds *dataSet) error {
	began := time.Now()
	r := &StoreRequest{
		Association:       &c.info,
		SOPClassUID:       cmd.uid(elAffectedClass),
		SOPInstanceUID:    cmd.uid(elAffectedInst),
		TransferSyntaxUID: pc.TransferSyntax,
		MessageID:         cmd.number(elMessageID),
		Priority:          Priority(cmd.number(elPriority)),
		MoveOriginatorAE:  printable(cleanAE(cmd.value(elMoveAE))),
		MoveOriginatorID:  cmd.number(elMoveID),
		Body:              ds,
	}
	rsp := func(s Status) command { return response(cmd, s, r.Comment) }
	// What the command says is checked before a handler sees it.
	status, ok := StatusSuccess, false
	switch {
	case !cmd.hasDataSet():
		status, r.Comment = StatusDataSetMismatch, "there is no data set"
	case !validUID(r.SOPInstanceUID):
		status, r.Comment = StatusInvalidObjectInstance, "the Affected SOP Instance UID is missing or is no UID"
	case r.SOPClassUID != pc.AbstractSyntax:
		status, r.Comment = StatusDataSetMismatch, "the SOP class is not that of the presentation context"
	default:
		err := ds.advance()
		switch {
		case errors.Is(err, io.EOF):
			status, r.Comment = StatusCannotUnderstand, "the data set is empty"
		case err != nil:
			return c.incomplete(ctx, ds, err)
		default:
			ok = true
		}
	}
	if ok {
		status = c.call(ctx, "C-STORE", func(ctx context.Context) Status { return c.cfg.Store.ServeStore(ctx, r) })
	}
	if err := ds.discard(); err != nil {
		return c.incomplete(ctx, ds, err)
	}
	if ds.over {
		status, r.Comment = StatusOutOfResources, "the object is too large"
	}
	e := Event{Operation: "C-STORE", Status: status, Bytes: ds.n, Duration: time.Since(began)}
	err := c.respond(ctx, pc, rsp(status), e)
	if status.Stored() {
		c.objects++
		c.bytes += ds.n
	}
	return err
}

// incomplete tells of an object that will never be whole.
func (c *conn) incomplete(ctx context.Context, ds *dataSet, err error) error {
	c.cfg.tell(ctx, Event{
		Kind: EventIncomplete, RemoteAddr: c.info.RemoteAddr, TLS: c.info.TLS, CallingAE: c.info.CallingAE, CalledAE: c.info.CalledAE,
		Bytes: ds.n,
	})
	return err
}
