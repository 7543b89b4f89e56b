package dicomtls

import (
	"context"
	"crypto/tls"
	"io"
	"net"
)

// A StoreHandler takes the objects that C-STORE brings. The response follows from
// what ServeStore returns, so it must return StatusSuccess only when the object
// is safe.
//
// Operations of one association are handled one after the other, those of
// several concurrently. ctx has the values of Serve's; it ends when the peer
// aborts or the connection breaks, and when the server has no more time. A
// panic is answered with 0110, processing failure, and the association goes on.
type StoreHandler interface {
	ServeStore(ctx context.Context, r *StoreRequest) Status
}

// StoreHandlerFunc is a function as a StoreHandler.
type StoreHandlerFunc func(ctx context.Context, r *StoreRequest) Status

// ServeStore calls f.
func (f StoreHandlerFunc) ServeStore(ctx context.Context, r *StoreRequest) Status { return f(ctx, r) }

// A StoreRequest is an object that is arriving. It is the handler's until it
// returns. The UIDs have been checked: digits and single dots, 64 at most, so
// they are safe in file names.
type StoreRequest struct {
	Association       *AssociationInfo // never nil; not to be modified
	SOPClassUID       string           // of the command, and of the presentation context
	SOPInstanceUID    string
	TransferSyntaxUID string // of the data set in Body
	MessageID         uint16
	Priority          Priority
	// MoveOriginatorAE and MoveOriginatorID are set if the object comes because
	// of a C-MOVE of that application entity.
	MoveOriginatorAE string
	MoveOriginatorID uint16

	// Body is the data set as it comes over the network, to the byte: without
	// preamble and without group 0002. It has at least one byte. Read returns
	// io.EOF at the end of the whole data set, and any other error, at once and
	// from then on, if it will never be whole: what was read is then to be
	// thrown away, and no response is sent, or none of success. What a handler
	// leaves unread is read and discarded after it returned, and then it cannot
	// know whether the object arrived whole. Body implements io.WriterTo.
	Body io.Reader

	// Comment may be set by the handler to go with a status that is not
	// StatusSuccess: the Error Comment (0000,0902), cut to 64 characters. It
	// must not quote the object: the peer will log it.
	Comment string
}

// Priority of an operation (PS3.7 E.1). Few peers heed it.
type Priority uint16

// The priorities. Their numbers are those of DICOM.
const (
	PriorityMedium Priority = 0
	PriorityHigh   Priority = 1
	PriorityLow    Priority = 2
)

// An EchoHandler is asked for the status of a C-ECHO.
type EchoHandler interface {
	ServeEcho(ctx context.Context, a *AssociationInfo) Status
}

// AssociationInfo is what the two sides have said of themselves and agreed on.
type AssociationInfo struct {
	CallingAE, CalledAE   string   // without the padding
	LocalAddr, RemoteAddr net.Addr // of the connection
	// TLS is nil without TLS. On a Server that requires client certificates,
	// PeerCertificates[0] is the verified client's.
	TLS *tls.ConnectionState

	// Of the peer (PS3.7 D.3.3.2); empty if it did not say.
	ImplementationClassUID    string
	ImplementationVersionName string
	// MaxPDUBytes is the largest P-DATA PDU, without its header of 6 bytes,
	// that is sent to the peer.
	MaxPDUBytes int
	// Window is how many operations the requestor may have under way at a time.
	Window int
	// Identity is who the requestor says to be beyond the AE title; nil if it
	// did not say. IdentityResponse is what the acceptor answered; nil if it did not.
	Identity         *UserIdentity
	IdentityResponse []byte
	// Contexts are all presentation contexts in the order of their proposal.
	Contexts []PresentationContext
}

// A PresentationContext is the agreement on one kind of data (PS3.8 7.1.1.13).
type PresentationContext struct {
	ID             uint8 // odd
	AbstractSyntax string
	Result         ContextResult
	TransferSyntax string // the chosen one; empty unless Result is ContextAccepted
	// RequestorSCU and RequestorSCP tell which roles the requestor of the
	// association has; true and false unless it was negotiated otherwise.
	RequestorSCU, RequestorSCP bool
}

// ContextResult is the fate of a proposed presentation context (PS3.8 Table 9-18).
type ContextResult uint8

// The results of PS3.8.
const (
	ContextAccepted                     ContextResult = 0
	ContextUserRejection                ContextResult = 1
	ContextNoReason                     ContextResult = 2
	ContextAbstractSyntaxNotSupported   ContextResult = 3
	ContextTransferSyntaxesNotSupported ContextResult = 4
)
