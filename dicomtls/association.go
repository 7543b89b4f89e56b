package dicomtls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lastWord is how long a call waits, after a write failed, for what the peer
	// may have said before it stopped reading: an A-ABORT, or a TLS alert.
	lastWord = time.Second
	// farewell is how long a write may still take after its context has ended.
	farewell = time.Second
	// mostAnswers is how many requests of the peer may wait to be answered.
	mostAnswers = 4
)

var (
	errClosed = fmt.Errorf("dicomtls: the association was closed: %w", net.ErrClosed)
	// errGivenUp ends an association on which a response could still come for a
	// request that nobody waits for any more.
	errGivenUp = fmt.Errorf("dicomtls: the association was aborted because another request was given up: %w", net.ErrClosed)
)

// Association is an association that this side has requested, made by
// [Dialer.DialContext]. All methods are safe for concurrent use; as many
// requests are under way at a time as the window has places.
//
// An Association stays usable as long as Err returns nil. It is aborted, for
// good, when the outcome of a request is Unknown, and when the context of a
// request ends after the request has begun to be written: a response that comes
// too late can so never be taken for another's.
type Association struct {
	// static after construction
	info            AssociationInfo
	raw             net.Conn // below TLS
	l               *link    // its reading side is owned by readLoop
	responseTimeout time.Duration
	writeTimeout    time.Duration
	releaseTimeout  time.Duration
	commitTimeout   time.Duration
	own             Commitments   // for transactions
	commitments     *Commitments  // own, or those of the Dialer
	closed          chan struct{} // closed, with err set, when the association has ended
	readerDone      chan struct{} // closed when readLoop has ended
	turn            chan struct{} // holds a token while a message is being written; calls take it in order
	slots           chan struct{} // holds a token for each request under way

	out       []byte         // owned by the holder of turn
	writing   sync.Mutex     // held while PDUs are written, always whole ones
	releasing atomic.Bool    // the A-RELEASE-RQ is about to be written
	answering atomic.Int32   // requests of the peer that are being answered
	answers   sync.WaitGroup // the goroutines of those

	mu      sync.Mutex
	err     error            // guarded by mu: why it has ended; nil while it has not
	waiting map[uint16]*call // guarded by mu: requests under way by their message IDs
	lastID  uint16           // guarded by mu
}

// A call is a request under way.
type call struct {
	field  uint16       // of the request
	answer chan command // of one; readLoop sends when it takes the call off the waiting ones. Static copies
}

func (d *Dialer) newAssociation(raw net.Conn, l *link, info AssociationInfo) *Association {
	a := &Association{
		info: info, raw: raw, l: l,
		responseTimeout: orDefault(d.ResponseTimeout, time.Minute),
		writeTimeout:    orDefault(d.WriteTimeout, 30*time.Second),
		releaseTimeout:  orDefault(d.ReleaseTimeout, 5*time.Second),
		commitTimeout:   orDefault(d.CommitTimeout, time.Minute),
		commitments:     d.Commitments,
		closed:          make(chan struct{}),
		readerDone:      make(chan struct{}),
		turn:            make(chan struct{}, 1),
		slots:           make(chan struct{}, max(info.Window, 1)),
		waiting:         make(map[uint16]*call),
	}
	if a.commitments == nil {
		a.commitments = &a.own
	}
	go a.readLoop()
	return a
}

// Info returns what the two sides have agreed on. It must not be modified.
func (a *Association) Info() *AssociationInfo { return &a.info }

// Accepts reports whether the peer has accepted a presentation context for a SOP
// class, in one of the transfer syntaxes, or in any if none is given.
func (a *Association) Accepts(class string, transferSyntaxes ...string) bool {
	return slices.ContainsFunc(a.info.Contexts, func(pc PresentationContext) bool {
		return pc.AbstractSyntax == class && pc.Result == ContextAccepted &&
			(len(transferSyntaxes) == 0 || slices.Contains(transferSyntaxes, pc.TransferSyntax))
	})
}

// context returns the first accepted presentation context for a class in a
// transfer syntax, or in any.
func (a *Association) context(class, transferSyntax string) *PresentationContext {
	for i := range a.info.Contexts {
		pc := &a.info.Contexts[i]
		if pc.AbstractSyntax == class && pc.Result == ContextAccepted && (transferSyntax == "" || pc.TransferSyntax == transferSyntax) {
			return pc
		}
	}
	return nil
}

// Err returns nil as long as requests can be made, and then why they cannot:
// ErrReleased, an *AbortError, or the connection's error.
func (a *Association) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// end ends the association because of err, unless it has ended already, and
// returns the reason of its end. pdu, if not nil, is the last word to the peer.
func (a *Association) end(err error, pdu []byte) error {
	a.mu.Lock()
	if a.err != nil {
		defer a.mu.Unlock()
		return a.err
	}
	a.err = err
	close(a.closed)
	a.mu.Unlock()
	if pdu != nil && a.writing.TryLock() { // else it would come in the middle of another one
		_ = a.l.write(pdu, lastPDU) // nothing can be done if it does not get through
		a.writing.Unlock()
	}
	if errors.Is(err, ErrReleased) {
		_ = a.l.conn.Close() // the orderly end of TLS too
	}
	_ = a.raw.Close() // else without TLS's farewell, which could wait for the peer
	return err
}

// Close aborts the association, unless it has ended. Requests under way become
// Unknown. It waits until all that belongs to the Association has come to an
// end. The error is always nil.
func (a *Association) Close() error {
	_ = a.end(errClosed, abortPDU(abortByUser, 0))
	a.join()
	return nil
}

func (a *Association) join() {
	<-a.readerDone
	a.answers.Wait()
}

// Release waits for the requests under way and ends the association in the
// orderly way. That the peer closes the connection instead of confirming is
// taken for a confirmation. An error means that it has not ended so, and has been
// aborted; nothing that was answered before is in doubt. If the association had
// ended before, the error is that of Err, and nil for ErrReleased.
func (a *Association) Release(ctx context.Context) error {
	defer a.join()
	err := a.release(ctx)
	if errors.Is(err, ErrReleased) {
		return nil
	}
	return err
}

func (a *Association) release(ctx context.Context) error {
	for i := range 1 + cap(a.slots) { // nothing may follow the request, nothing be under way
		tokens := a.slots
		if i == 0 {
			tokens = a.turn
		}
		select {
		case tokens <- struct{}{}:
		case <-ctx.Done():
			return a.end(fmt.Errorf("dicomtls: no release: %w", context.Cause(ctx)), abortPDU(abortByUser, 0))
		case <-a.closed:
			return a.Err()
		}
	}
	a.releasing.Store(true)
	if err := a.write(ctx, appendShort(nil, pduReleaseRQ, 0, 0, 0)); err != nil {
		return a.hearOut(ctx, err)
	}
	ctx, stop := withTimeout(ctx, a.releaseTimeout)
	defer stop()
	select {
	case <-a.closed:
		return a.Err()
	case <-ctx.Done():
		return a.end(fmt.Errorf("dicomtls: the release was not confirmed: %w", ctx.Err()), abortPDU(abortByUser, 0))
	}
}

// write writes whole PDUs. When ctx ends there is still the time of farewell, so
// that the A-ABORT does not come in the middle of another PDU.
func (a *Association) write(ctx context.Context, pdus []byte) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	if err := a.Err(); err != nil {
		return err
	}
	if ctx.Done() != nil {
		over := make(chan struct{})
		defer close(over)
		stop := context.AfterFunc(ctx, func() {
			timer := time.NewTimer(farewell)
			defer timer.Stop()
			select {
			case <-timer.C:
				_ = a.end(errGivenUp, nil) // closing is what wakes a write
			case <-over:
			}
		})
		defer stop()
	}
	err := a.l.write(pdus, a.writeTimeout)
	return err
}

// hearOut ends the association after a write failed with err, but lets readLoop
// first come to the end of what the peer has said. It returns the reason of the end.
func (a *Association) hearOut(ctx context.Context, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		timer := time.NewTimer(lastWord)
		defer timer.Stop()
		select {
		case <-a.readerDone:
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	return a.end(fmt.Errorf("dicomtls: %w", peerError(err)), nil)
}

// readLoop reads what the peer sends until the association has ended.
func (a *Association) readLoop() {
	defer close(a.readerDone)
	for {
		a.l.waitUntil(time.Time{})
		err := a.l.need(1)
		if err == nil {
			a.l.progress()
			err = a.receive()
		}
		if err == nil {
			continue
		}
		protocol, broken := errors.AsType[*protocolError](err)
		switch {
		case broken:
			_ = a.end(protocol, abortPDU(abortByProvider, protocol.reason))
		case errors.Is(err, errReleaseReply) && a.releasing.Load():
			_ = a.end(ErrReleased, nil)
		case errors.Is(err, errReleaseReply):
			_ = a.end(err, abortPDU(abortByProvider, abortUnexpectedPDU))
		case errors.Is(err, errReleaseRequest) && a.releasing.Load():
			// Both at once: the requestor of the association confirms first, and
			// goes on waiting (PS3.8 Table 9-10, AR-8 and AR-9).
			if err := a.write(context.Background(), appendShort(nil, pduReleaseRP, 0, 0, 0)); err == nil {
				continue
			}
			_ = a.end(ErrReleased, nil)
		case errors.Is(err, errReleaseRequest):
			_ = a.end(ErrReleased, appendShort(nil, pduReleaseRP, 0, 0, 0))
		case a.releasing.Load() && !isAbort(err):
			_ = a.end(ErrReleased, nil) // many devices close instead of confirming
		case errors.Is(err, errSilent):
			_ = a.end(fmt.Errorf("dicomtls: the peer stopped in the middle of a message: %w", os.ErrDeadlineExceeded), abortPDU(abortByUser, 0))
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			_ = a.end(fmt.Errorf("dicomtls: the peer closed the connection: %w", midway(err)), nil)
		case isAbort(err):
			_ = a.end(err, nil)
		default:
			_ = a.end(fmt.Errorf("dicomtls: %w", peerError(err)), nil)
		}
		return
	}
}

func isAbort(err error) bool {
	_, ok := errors.AsType[*AbortError](err)
	return ok
}

// receive takes one message.
func (a *Association) receive() error {
	id, cmd, err := a.l.message()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(a.info.Contexts, func(pc PresentationContext) bool { return pc.ID == id && pc.Result == ContextAccepted })
	if i < 0 {
		return &protocolError{abortUnexpectedParameter, "a message on a presentation context that was not accepted"}
	}
	pc := &a.info.Contexts[i]
	ds := &dataSet{l: a.l, context: id, limit: maxCommitDataSet, last: !cmd.hasDataSet()}
	field := cmd.field()
	switch {
	case field&cmdResponse != 0:
		err := a.land(cmd)
		if err == nil {
			err = ds.discard() // none that we ask for has one
		}
		return err
	case field == cmdCancel:
		return ds.discard()
	case field == cmdEventReport && pc.AbstractSyntax == StorageCommitmentSOPClass && pc.RequestorSCU:
		return a.event(pc, cmd, ds)
	}
	rsp := response(cmd, StatusUnrecognizedOperation, "")
	if err := ds.discard(); err != nil {
		return err
	}
	return a.respond(pc, rsp)
}

// land brings a response to its call.
func (a *Association) land(cmd command) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := cmd.number(elResponseTo)
	c := a.waiting[id]
	if c == nil || c.field|cmdResponse != cmd.field() {
		return &protocolError{abortUnexpectedParameter, "a response to no request"}
	}
	delete(a.waiting, id)
	answer := make(command, len(cmd))
	for i, e := range cmd { // which is the link's
		answer[i] = commandElement{e.tag, slices.Clone(e.value)}
	}
	c.answer <- answer
	return nil
}

// event takes a report of storage commitment.
func (a *Association) event(pc *PresentationContext, cmd command, ds *dataSet) error {
	event := cmd.number(elEventType)
	report, status, err := commitment(cmd, ds, pc.TransferSyntax)
	if err != nil {
		return err
	}
	switch {
	case event != eventCommitted && event != eventFailedSome:
		status = StatusNoSuchEventType
	case status == StatusSuccess:
		status = a.commitments.deliver(context.Background(), &a.info, a.info.CalledAE, report)
	}
	return a.respond(pc, response(cmd, status, "").with(elEventType, event))
}

// respond answers a request of the peer, when it is a message's turn. readLoop
// does not wait for that: the peer could be waiting for us to read.
func (a *Association) respond(pc *PresentationContext, rsp command) error {
	if a.releasing.Load() {
		return nil // after A-RELEASE-RQ there are no messages (PS3.8 Table 9-10, state 7)
	}
	if a.answering.Add(1) > mostAnswers {
		return &protocolError{abortUnexpectedParameter, "more requests than may be under way"}
	}
	pdus := appendCommand(nil, pc.ID, rsp, a.info.MaxPDUBytes)
	a.answers.Go(func() {
		defer a.answering.Add(-1)
		select {
		case a.turn <- struct{}{}:
		case <-a.closed:
			return
		}
		defer func() { <-a.turn }()
		if err := a.write(context.Background(), pdus); err != nil {
			_ = a.end(fmt.Errorf("dicomtls: %w", err), nil)
		}
	})
	return nil
}
