package mllp

import (
	"fmt"
	"strings"
)

// Reason says in one word why a frame, a handshake or a connection was not
// accepted. It is meant for metrics and for switches: the list is closed.
type Reason string

// Reasons of frames.
const (
	// ReasonTruncated is a frame that did not arrive whole: the stream ended in
	// it, or the next message began before its end.
	ReasonTruncated Reason = "truncated"
	// ReasonTooLarge is a frame of more than the allowed number of bytes.
	ReasonTooLarge Reason = "too_large"
	// ReasonPreambleTooLong means too many bytes outside of any frame.
	ReasonPreambleTooLong Reason = "preamble_too_long"
	// ReasonWrongProtocol means that the peer speaks another protocol than MLLP:
	// the detail says which.
	ReasonWrongProtocol Reason = "wrong_protocol"
	// ReasonNotHL7 is a frame whose text does not begin with MSH, FHS or BHS.
	ReasonNotHL7 Reason = "not_hl7"
	// ReasonXMLNotEnabled is a frame that holds XML.
	ReasonXMLNotEnabled Reason = "xml_not_enabled"
	// ReasonMissingCR is a frame that ended with FS but without the CR after it.
	ReasonMissingCR Reason = "missing_cr"
	// ReasonStrayControl is a VT or FS inside of a frame that neither begins nor
	// ends one; AppendFrame refuses to send such text.
	ReasonStrayControl Reason = "stray_control"
	// ReasonJunk means bytes other than white space and NUL outside of any frame.
	ReasonJunk Reason = "junk"
	// ReasonEmpty is a frame without text, or with white space alone.
	ReasonEmpty Reason = "empty"
	// ReasonMLLPR2 is a commit acknowledgement of MLLP release 2 (06 or 15 hex):
	// the peer is set to release 2, this side to release 1.
	ReasonMLLPR2 Reason = "mllp_r2"
	// ReasonMLLPR1 means that the peer did not confirm a frame as MLLP release 2
	// has it, but went on: it is set to release 1, this side to release 2.
	ReasonMLLPR1 Reason = "mllp_r1"
	// ReasonCommit means that with MLLP release 2 something else than 06 or 15 came
	// in answer to a frame, or one that nothing was sent for.
	ReasonCommit Reason = "commit"
	// ReasonUnverifiedEnd is a RAW message over TLS whose end the peer did not
	// announce: part of it may be missing.
	ReasonUnverifiedEnd Reason = "unverified_end"
	// ReasonWrongLength is a message to be sent that has not Framing.Length bytes.
	ReasonWrongLength Reason = "wrong_length"
	// ReasonTimeout means that a frame did not arrive whole in its time.
	ReasonTimeout Reason = "timeout"
	// ReasonReadFailed means that reading failed between two frames.
	ReasonReadFailed Reason = "read_failed"
	// ReasonInvalidLimit means that a limit was negative.
	ReasonInvalidLimit Reason = "invalid_limit"
	// ReasonBuffersExhausted means that memory for the frame did not come free
	// in its time: see Server.MaxBufferedBytes.
	ReasonBuffersExhausted Reason = "buffers_exhausted"
	// ReasonMultipleMSH is a frame with more than one message and no batch header.
	ReasonMultipleMSH Reason = "multiple_msh"
	// ReasonNoControlID is a message without MSH-10.
	ReasonNoControlID Reason = "no_control_id"
	// ReasonBatch is a batch (FHS or BHS).
	ReasonBatch Reason = "batch"
	// ReasonDuplicateID is a message with the MSH-10 of another one: see
	// Server.Replay.
	ReasonDuplicateID Reason = "duplicate_id"
	// ReasonAckConditionMissing means that of MSH-15 and MSH-16 only the other one
	// is there: it counts as NE.
	ReasonAckConditionMissing Reason = "ack_condition_missing"
	// ReasonAckConditionUnknown means that MSH-15 or MSH-16 is not AL, NE, ER or
	// SU: it counts as AL.
	ReasonAckConditionUnknown Reason = "ack_condition_unknown"
	// ReasonUnknownCharset means that MSH-18 is not in table 0211 nor a name in use
	// for what is.
	ReasonUnknownCharset Reason = "unknown_charset"
	// ReasonSenderNotPermitted is a message whose MSH-3 or MSH-4 the client may not
	// use: see Server.Senders.
	ReasonSenderNotPermitted Reason = "sender_not_permitted"
)

// Reasons of connections.
const (
	ReasonPeerClosed          Reason = "peer_closed"            // the client ended it, between two frames
	ReasonShutdown            Reason = "shutdown"               // the Server was told to stop
	ReasonIdleTimeout         Reason = "idle_timeout"           // Server.IdleTimeout
	ReasonWriteFailed         Reason = "write_failed"           // an acknowledgement could not be written
	ReasonWriteTimeout        Reason = "write_timeout"          // the client did not read: Server.WriteTimeout
	ReasonNoReply             Reason = "no_reply"               // the handler returned ErrNoReply
	ReasonNotKeptOpen         Reason = "not_kept_open"          // answered, and Framing.KeepOpen is false
	ReasonTooManyConns        Reason = "too_many_conns"         // Server.MaxConns
	ReasonTooManyConnsOfHost  Reason = "too_many_conns_of_host" // Server.MaxConnsPerHost
	ReasonEvicted             Reason = "evicted"                // it was idle, and another one took its place: Server.EvictIdle
	ReasonAddressDenied       Reason = "address_denied"         // Server.Allow, Server.Deny
	ReasonProxyHeader         Reason = "proxy_header"           // one of Server.TrustedProxies sent no good header; the detail says why
	ReasonTLSWithdrawn        Reason = "tls_withdrawn"          // the client's certificate is not accepted any more: Server.RecheckClients
	ReasonPanic               Reason = "panic"                  // a bug, in a callback or here
	ReasonHandshakeTimeout    Reason = "tls_handshake_timeout"  // Server.HandshakeTimeout
	ReasonNotTLS              Reason = "not_tls"                // the client does not speak TLS
	ReasonTLSVersion          Reason = "tls_version"            // the client offers only versions that are too old
	ReasonTLSNoCertificate    Reason = "tls_no_certificate"     // the client sent none, and one is required
	ReasonTLSExpired          Reason = "tls_expired"            // the client's certificate has expired
	ReasonTLSNotYetValid      Reason = "tls_not_yet_valid"      // it is not yet valid
	ReasonTLSUnknownAuthority Reason = "tls_unknown_authority"  // its issuer is not trusted
	ReasonTLSSelfSigned       Reason = "tls_self_signed"        // it is its own issuer, and not trusted
	ReasonTLSWrongUsage       Reason = "tls_wrong_usage"        // it is not for clients (extended key usage)
	ReasonTLSRevoked          Reason = "tls_revoked"            // it is on a revocation list
	ReasonTLSBadCertificate   Reason = "tls_bad_certificate"    // refused for another reason
	ReasonTLSPeerRefused      Reason = "tls_peer_refused"       // the client sent an alert, such as for our certificate
	ReasonTLSFailed           Reason = "tls_failed"             // any other failure of the handshake
)

// A FrameError says what is wrong with a frame, or with what stands where a
// frame should. It never holds bytes of the text.
type FrameError struct {
	Reason Reason
	// Offset is where in the stream, in bytes from its beginning, the frame or
	// the junk begins. For AppendFrame it is the position in the message.
	Offset int64
	// Length is the number of bytes concerned, or 0.
	Length int64
	// Limit is the limit that was exceeded, or 0.
	Limit int64
	// Detail adds words from a fixed list, such as the protocol the peer speaks.
	Detail string
	// Err is the error of the connection behind it, or nil.
	Err error
}

func (e *FrameError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mllp: %s at offset %d", e.Reason, e.Offset)
	if e.Length > 0 {
		fmt.Fprintf(&b, ", %d bytes", e.Length)
	}
	if e.Limit > 0 {
		fmt.Fprintf(&b, ", limit %d", e.Limit)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *FrameError) Unwrap() error { return e.Err }

// Resumable reports whether the stream is still in step, so that Reader.Next
// may be called again for the frame after the bad one: empty frames, commit
// acknowledgements of release 2, and a truncated frame that the next one cut off.
func (e *FrameError) Resumable() bool {
	switch e.Reason {
	case ReasonEmpty, ReasonMLLPR2:
		return true
	case ReasonTruncated:
		return e.Err == nil
	default:
		return false
	}
}

// protocols are the beginnings by which a client that has come to the wrong port
// gives itself away.
var protocols = []struct{ prefix, name string }{
	{"\x16\x03", "TLS on a port without TLS"},
	{"GET ", "HTTP"},
	{"HEAD ", "HTTP"},
	{"POST ", "HTTP"},
	{"PUT ", "HTTP"},
	{"PATCH ", "HTTP"},
	{"DELETE ", "HTTP"},
	{"OPTIONS ", "HTTP"},
	{"CONNECT ", "HTTP"},
	{"TRACE ", "HTTP"},
	{"PRI * HTTP/2", "HTTP/2"},
	{"HTTP/1.", "HTTP"},
	{"SSH-", "SSH"},
	{"PROXY ", "PROXY protocol, version 1"},
	{"\r\n\r\n\x00\r\nQUIT\n", "PROXY protocol, version 2"},
}

// otherProtocol names the protocol that begins with head, or returns "".
func otherProtocol(head []byte) string {
	for _, p := range protocols {
		if strings.HasPrefix(string(head), p.prefix) {
			return p.name
		}
	}
	return ""
}

// otherThanTLS is otherProtocol for the five bytes that stand where a TLS record's
// header should.
func otherThanTLS(head [5]byte) string {
	for _, p := range protocols {
		if n := min(len(p.prefix), len(head)); string(head[:n]) == p.prefix[:n] {
			return p.name
		}
	}
	return ""
}
