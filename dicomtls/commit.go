package dicomtls

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
)

// A Reference names an object.
type Reference struct{ SOPClassUID, SOPInstanceUID string }

// A FailedReference is an object for which the peer does not vouch, and why:
// 0110, 0112 (it does not have it), 0119 (it has it under another SOP class),
// 0122, 0131 or 0213 (PS3.4 J.3.3.1.3). Zero if it did not mention the object.
type FailedReference struct {
	Reference

	Reason Status
}

// A CommitReport is what the SCP of storage commitment says in the end: which
// objects it will keep, and which it will not. On the network it is an
// N-EVENT-REPORT.
type CommitReport struct {
	TransactionUID string
	Committed      []Reference
	Failed         []FailedReference
}

// A CommitHandler takes requests to vouch for objects. StatusSuccess means that
// the request has been taken, and not that the objects are safe: that is said
// later, by CommitRequest.Report or by Dialer.Report. The request must be on
// disk by then.
type CommitHandler interface {
	ServeCommit(ctx context.Context, r *CommitRequest) Status
}

// CommitHandlerFunc is a function as a CommitHandler.
type CommitHandlerFunc func(ctx context.Context, r *CommitRequest) Status

// ServeCommit calls f.
func (f CommitHandlerFunc) ServeCommit(ctx context.Context, r *CommitRequest) Status {
	return f(ctx, r)
}

// A CommitRequest asks to vouch for objects (PS3.4 J.3.2).
type CommitRequest struct {
	Association    *AssociationInfo // never nil; not to be modified
	TransactionUID string
	References     []Reference

	// Report may be set by the handler to answer on the same association, right
	// after the response. Else it is to be sent with Dialer.Report.
	Report *CommitReport
	// Reported, if the handler sets it, is called when the client has confirmed
	// Report, with nil, or when it is known that it will not, with a *SendError.
	// It must not block.
	Reported func(error)
}

// What storage commitment numbers (PS3.4 J.3).
const (
	actionCommit     = 1
	eventCommitted   = 1
	eventFailedSome  = 2
	maxCommitDataSet = 16 << 20 // bytes: some 100,000 references

	tagReferencedClass    = 0x0008_1150
	tagReferencedInstance = 0x0008_1155
	tagTransactionUID     = 0x0008_1195
	tagFailureReason      = 0x0008_1197
	tagFailedSequence     = 0x0008_1198
	tagReferencedSequence = 0x0008_1199
)

var errBadCommit = errors.New("dicomtls: the data set of storage commitment does not say what it should")

// newTransactionUID returns a UID that nobody else has, nor can guess: PS3.5 B.2.
func newTransactionUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // which never fails
	b[6] = b[6]&0x0F | 0x40
	b[8] = b[8]&0x3F | 0x80
	return "2.25." + new(big.Int).SetBytes(b[:]).String()
}

// encodeReport makes the data set of a request (without failures) or of a report.
func encodeReport(transferSyntax string, r *CommitReport) []byte {
	e := commitEncoder{explicit: transferSyntax == ExplicitVRLittleEndian}
	e.uid(tagTransactionUID, r.TransactionUID)
	if len(r.Failed) > 0 {
		e.sequence(tagFailedSequence, len(r.Failed), func(i int) {
			e.reference(r.Failed[i].Reference)
			e.header(tagFailureReason, "US", 2)
			e.dst = binary.LittleEndian.AppendUint16(e.dst, uint16(r.Failed[i].Reason))
		})
	}
	if len(r.Committed) > 0 || len(r.Failed) == 0 {
		e.sequence(tagReferencedSequence, len(r.Committed), func(i int) { e.reference(r.Committed[i]) })
	}
	return e.dst
}

// A commitEncoder writes the few elements of storage commitment in Implicit or
// Explicit VR Little Endian, with defined lengths.
type commitEncoder struct {
	dst      []byte
	explicit bool
}

func (e *commitEncoder) tag(tag uint32) {
	e.dst = binary.LittleEndian.AppendUint16(e.dst, uint16(tag>>16)) //nolint:gosec // the group
	e.dst = binary.LittleEndian.AppendUint16(e.dst, uint16(tag))     //nolint:gosec // the element
}

func (e *commitEncoder) header(tag uint32, vr string, n int) {
	e.tag(tag)
	switch {
	case !e.explicit:
		e.dst = binary.LittleEndian.AppendUint32(e.dst, uint32(n)) //nolint:gosec // within maxCommitDataSet
	case vr == "SQ":
		e.dst = append(e.dst, 'S', 'Q', 0, 0)
		e.dst = binary.LittleEndian.AppendUint32(e.dst, uint32(n)) //nolint:gosec // as above
	default:
		e.dst = append(e.dst, vr...)
		e.dst = binary.LittleEndian.AppendUint16(e.dst, uint16(n)) //nolint:gosec // a UID or a number
	}
}

func (e *commitEncoder) uid(tag uint32, uid string) {
	value := evenText(uid, 0)
	e.header(tag, "UI", len(value))
	e.dst = append(e.dst, value...)
}

func (e *commitEncoder) reference(r Reference) {
	e.uid(tagReferencedClass, r.SOPClassUID)
	e.uid(tagReferencedInstance, r.SOPInstanceUID)
}

// sequence writes a sequence of n items, of each of which body writes the contents.
func (e *commitEncoder) sequence(tag uint32, n int, body func(i int)) {
	e.header(tag, "SQ", 0)
	start := len(e.dst)
	for i := range n {
		e.tag(tagItem)
		e.dst = append(e.dst, 0, 0, 0, 0)
		item := len(e.dst)
		body(i)
		binary.LittleEndian.PutUint32(e.dst[item-4:], uint32(len(e.dst)-item)) //nolint:gosec // as in header
	}
	binary.LittleEndian.PutUint32(e.dst[start-4:], uint32(len(e.dst)-start)) //nolint:gosec // as in header
}

// decodeReport reads what encodeReport writes, in any form that peers give it:
// defined and undefined lengths, other elements in between.
func decodeReport(data []byte, transferSyntax string) (*CommitReport, error) {
	enc, known := encodingOf(transferSyntax)
	if !known || enc.deflated {
		return nil, errBadCommit
	}
	w := newWalker(bufio.NewReaderSize(bytes.NewReader(data), 512), enc)
	w.isSequence = func(tag uint32) bool { return tag == tagFailedSequence || tag == tagReferencedSequence }
	var (
		r    CommitReport
		in   uint32 // the outermost sequence
		item FailedReference
	)
	for {
		depth := w.depth
		t, err := w.next()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBadCommit, err)
		}
		switch {
		case t.kind == tokenEnd:
			if !validUID(r.TransactionUID) {
				return nil, errBadCommit
			}
			return &r, nil
		case t.kind == tokenSequence && depth == 0:
			in = t.tag
		case t.kind == tokenItem && depth == 1:
			item = FailedReference{}
		case t.kind == tokenItemEnd && depth == 2:
			err = r.add(in, item)
		case t.kind == tokenElement && depth == 0 && t.tag == tagTransactionUID:
			r.TransactionUID, err = w.uid()
		case t.kind == tokenElement && depth == 2 && t.tag == tagReferencedClass:
			item.SOPClassUID, err = w.uid()
		case t.kind == tokenElement && depth == 2 && t.tag == tagReferencedInstance:
			item.SOPInstanceUID, err = w.uid()
		case t.kind == tokenElement && depth == 2 && t.tag == tagFailureReason && t.length == 2:
			var b [2]byte
			if _, err = io.ReadFull(w, b[:]); err == nil {
				item.Reason = Status(w.enc().order().Uint16(b[:]))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBadCommit, err)
		}
	}
}

// add adds an item of a sequence.
func (r *CommitReport) add(sequence uint32, item FailedReference) error {
	switch {
	case sequence != tagFailedSequence && sequence != tagReferencedSequence:
		return nil
	case !validUID(item.SOPClassUID) || !validUID(item.SOPInstanceUID):
		return errBadCommit
	case sequence == tagFailedSequence:
		r.Failed = append(r.Failed, item)
	default:
		r.Committed = append(r.Committed, item.Reference)
	}
	return nil
}
