package dicomtls

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The types of protocol data units (PS3.8, 9.3). All numbers in them are big
// endian; each begins with its type, a reserved byte, and the length of the rest
// in four bytes.
const (
	pduAssociateRQ = 0x01
	pduAssociateAC = 0x02
	pduAssociateRJ = 0x03
	pduData        = 0x04
	pduReleaseRQ   = 0x05
	pduReleaseRP   = 0x06
	pduAbort       = 0x07

	pduHeader = 6 // bytes
	pdvHeader = 6 // bytes: length, presentation context, control header

	// maxAssociate bounds A-ASSOCIATE-RQ and -AC. 128 contexts with all transfer
	// syntaxes there are take less than a quarter of it; DCMTK has the same limit.
	maxAssociate = 1 << 20

	protocolVersion = 1 // bit 0: PS3.8 Table 9-11
)

// The reasons of an A-ABORT by the service provider (PS3.8 Table 9-26).
const (
	abortNotSpecified          = 0
	abortUnrecognizedPDU       = 1
	abortUnexpectedPDU         = 2
	abortUnexpectedParameter   = 5
	abortInvalidParameterValue = 6

	abortByUser     = 0 // sources
	abortByProvider = 2
)

// A protocolError is a breach of the protocol by the peer. The answer to it is an
// A-ABORT from the provider with its reason.
type protocolError struct {
	reason uint8
	what   string // words of ours, nothing of the peer's
}

func (e *protocolError) Error() string { return "dicomtls: the peer broke the protocol: " + e.what }

func invalid(format string, args ...any) error {
	return &protocolError{abortInvalidParameterValue, fmt.Sprintf(format, args...)}
}

// checkLength says whether a PDU of this type may have this length; before
// anything is allocated for it.
func checkLength(kind byte, length, maxData uint32) error {
	switch kind {
	case pduAssociateRQ, pduAssociateAC:
		if length > maxAssociate {
			return invalid("A-ASSOCIATE of %d bytes, limit %d", length, maxAssociate)
		}
	case pduData:
		if length > maxData {
			return invalid("P-DATA-TF of %d bytes, limit %d", length, maxData)
		}
		if length < pdvHeader {
			return invalid("P-DATA-TF of %d bytes", length)
		}
	case pduAssociateRJ, pduReleaseRQ, pduReleaseRP, pduAbort:
		if length != 4 {
			return invalid("PDU of type %d with %d bytes, not 4", kind, length)
		}
	default:
		return &protocolError{abortUnrecognizedPDU, fmt.Sprintf("PDU of unknown type %#02x", kind)}
	}
	return nil
}

// appendShort appends a PDU with four bytes: A-ASSOCIATE-RJ, A-RELEASE, A-ABORT.
func appendShort(dst []byte, kind, b1, b2, b3 byte) []byte {
	return append(dst, kind, 0, 0, 0, 0, 4, 0, b1, b2, b3)
}

// An associate is the contents of an A-ASSOCIATE-RQ or -AC (PS3.8, 9.3.2 and 9.3.3).
type associate struct {
	version         uint16
	called, calling string // without padding; of an AC not significant
	application     string
	contexts        []contextItem
	user            userInfo
}

// encode makes the PDU of the given type.
func (a *associate) encode(kind byte) ([]byte, error) {
	dst := []byte{kind, 0, 0, 0, 0, 0}
	dst = binary.BigEndian.AppendUint16(dst, a.version)
	dst = append(dst, 0, 0)
	dst = appendAE(dst, a.called)
	dst = appendAE(dst, a.calling)
	dst = append(dst, make([]byte, 32)...)
	var err error
	dst = appendItem(dst, itemApplicationContext, &err, func(dst []byte) []byte { return append(dst, a.application...) })
	for i := range a.contexts {
		dst = a.contexts[i].appendTo(dst, kind == pduAssociateAC, &err)
	}
	dst = a.user.appendTo(dst, &err)
	n := len(dst) - pduHeader
	if n > maxAssociate && err == nil {
		err = fmt.Errorf("dicomtls: the association request would have %d bytes, limit %d", n, maxAssociate)
	}
	binary.BigEndian.PutUint32(dst[2:], uint32(n)) //nolint:gosec // checked above
	return dst, err
}

func appendAE(dst []byte, title string) []byte {
	return append(dst, (title + strings.Repeat(" ", maxAETitle))[:maxAETitle]...)
}

// decodeAssociate reads what follows the header of an A-ASSOCIATE-RQ or -AC. What it
// allocates is bounded by a small multiple of body's length.
func decodeAssociate(body []byte, accept bool) (*associate, error) {
	if len(body) < 68 {
		return nil, invalid("A-ASSOCIATE of %d bytes", len(body))
	}
	a := &associate{
		version: binary.BigEndian.Uint16(body),
		called:  cleanAE(body[4:20]),
		calling: cleanAE(body[20:36]),
	}
	hasUser := false
	err := eachItem(body[68:], func(kind byte, item []byte) error {
		switch {
		case kind == itemApplicationContext:
			a.application = cleanUID(item)
		case kind == itemContextRQ && !accept || kind == itemContextAC && accept:
			if len(a.contexts) == maxContexts {
				return invalid("more than %d presentation contexts", maxContexts)
			}
			c, err := decodeContext(item, accept)
			if err != nil {
				return err
			}
			a.contexts = append(a.contexts, c)
		case kind == itemUserInfo:
			if hasUser {
				return invalid("two user information items")
			}
			hasUser = true
			return a.user.decode(item)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}
