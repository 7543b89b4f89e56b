package mllp

import (
	"context"
	"net"
)

// A QuarantinedFrame is a frame that did not reach the handler, because it was
// damaged or because the Server's settings refuse it.
type QuarantinedFrame struct {
	Reason Reason
	Detail string // words from a fixed list, or ""
	// Offset is where in the stream of the connection the frame begins. Length is
	// how much of its text arrived; of a frame that is too large, how much of it
	// was read.
	Offset, Length int64
	RemoteAddr     net.Addr
	Identity       *Identity // as in Request
	ControlID      string    // MSH-10, if it could be read and is whole
	Code           AckCode   // that was answered, or ""
	// Bytes are the first Server.QuarantineBytes of the text, which is patient
	// data; nil if that is zero. They belong to the connection again when the
	// hook returns: copy what is to stay.
	Bytes []byte
}

// quarantine hands over the frame of an event with what there is of its text.
func (x *exchange) quarantine(ctx context.Context, e *Event, text []byte) {
	if x.cfg.quarantine == nil {
		return
	}
	f := QuarantinedFrame{
		Reason: e.Reason, Detail: e.Detail, Offset: e.Offset, Length: max(e.Bytes, int64(len(text))),
		RemoteAddr: x.r.RemoteAddr, Identity: x.r.Identity, Code: e.Code,
	}
	var h Header
	if whole := e.Kind == EventRejected; len(text) > 0 && h.Parse(text) == nil && (whole || hasWholeID(text, &h)) {
		f.ControlID = string(h.ControlID)
	}
	if n := min(len(text), x.cfg.quarantineBytes); n > 0 {
		f.Bytes = text[:n:n]
	}
	x.cfg.quarantine(ctx, f)
}

// hasWholeID reports whether the control ID in h, of a message that may have been
// cut off anywhere, is whole: then it is as long with one byte less.
func hasWholeID(text []byte, h *Header) bool {
	var shorter Header
	return len(h.ControlID) > 0 && shorter.Parse(text[:len(text)-1]) == nil && len(shorter.ControlID) == len(h.ControlID)
}
