package mllp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// A Handler takes messages. The acknowledgement follows from what ServeMLLP
// returns, so it must return only when the message is safe:
//
//   - reply and nil: the reply is sent as it is, in a frame;
//   - nil and nil: AA;
//   - a *Nak, also wrapped: its code and text;
//   - ErrNoReply: nothing is sent, and the connection is closed;
//   - any other error, or a panic: AE with a fixed text. The error's own text is
//     neither sent nor logged, since it may quote the message.
//
// Messages of one connection are handled one after the other, those of several
// connections concurrently. ctx has the values of Serve's, or is what
// Server.ConnContext made of it; it ends when the server has no more time for the
// handler.
type Handler interface {
	ServeMLLP(ctx context.Context, r *Request) (reply []byte, err error)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, r *Request) (reply []byte, err error)

// ServeMLLP calls f.
func (f HandlerFunc) ServeMLLP(ctx context.Context, r *Request) ([]byte, error) { return f(ctx, r) }

// ErrNoReply is returned by a Handler that wants nothing to be sent, and the
// connection to be closed.
var ErrNoReply = errors.New("mllp: no reply")

// A Nak is returned by a Handler that refuses a message.
type Nak struct { //nolint:errname // HL7's own word for it
	Code AckCode // AE, AR, CE or CR; anything else is sent as AE
	// Text becomes MSA-3, cut to 80 bytes. It must not quote the message: the
	// sender's system will log it.
	Text string
}

func (n *Nak) Error() string { return "mllp: refused with " + string(n.code()) }

func (n *Nak) code() AckCode {
	if !n.Code.Valid() || n.Code.Accepted() {
		return AE
	}
	return n.Code
}

// A Request is a message with what is known of its way. It and everything in it
// belongs to the connection again when the handler returns: copy what is to
// stay. The handler must not modify it.
type Request struct {
	Message    []byte // the text of the frame, to the byte
	Header     Header // of the message, or of the batch; zero if Flags has NotHL7
	Flags      Flags
	RemoteAddr net.Addr // the client's; behind a proxy, as one of TrustedProxies gave it
	ProxyAddr  net.Addr // of that proxy; nil: none
	LocalAddr  net.Addr
	// TLS is nil on a connection without TLS. With required client certificates,
	// PeerCertificates[0] is the verified client's.
	TLS *tls.ConnectionState
	// Identity is nil if the client presented no certificate, or if TLSConfig
	// leaves its verification to a callback.
	Identity *Identity
}

// Flags tell what is unusual about a message. Most appear only with a policy
// that lets such messages through.
type Flags uint16

// The flags.
const (
	MissingCR     Flags = 1 << iota // the frame ended with FS alone
	StrayControl                    // VT or FS in the text
	MultipleMSH                     // more than one MSH segment, and no batch header
	Batch                           // the text is a batch: FHS or BHS comes first; or a message of one
	NoControlID                     // MSH-10 is empty
	NotHL7                          // the text begins with none of MSH, FHS, BHS
	IsAck                           // an acknowledgement: nothing is sent, but in enhanced mode a commit acknowledgement if it asks for one
	DuplicateID                     // another message with this MSH-10 has been accepted: see Server.Replay
	UnverifiedEnd                   // the message may not be whole: see Framing.AllowUnverifiedEnd
)
