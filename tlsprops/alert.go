package tlsprops

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
)

// A Refusal is what a peer says with a TLS alert that it does not accept, where
// that is nothing that passes by itself.
type Refusal int

const (
	// RefusedNothing is no alert, or one that says nothing lasting.
	RefusedNothing Refusal = iota
	// RefusedCertificate means our certificate, or that there is none.
	RefusedCertificate
	// RefusedSettings means that the peer's settings and ours do not go together:
	// version, suite, name or protocol.
	RefusedSettings
)

// refusals are the alerts (RFC 8446 section 6.2) by their text in crypto/tls, which
// does not export the type of an alert that was received, but one with the same
// text. handshake_failure (40) is what OpenSSL and Java answer in TLS 1.2 to a
// client without a certificate.
var refusals = func() map[string]Refusal {
	all := make(map[string]Refusal)
	for refusal, alerts := range map[Refusal][]tls.AlertError{
		RefusedCertificate: {42, 43, 44, 45, 46, 48, 49, 116},
		RefusedSettings:    {40, 70, 71, 112, 120},
	} {
		for _, alert := range alerts {
			all[alert.Error()] = refusal
		}
	}
	return all
}()

// PeerAlert returns the text of the TLS alert that the peer sent, if err is that or
// wraps it, and what the peer refused with it; else "" and RefusedNothing. TLS 1.3
// tells a client that its certificate was refused only after its side of the
// handshake (RFC 8446 section 4.4.3): then the alert is the error of a Read.
func PeerAlert(err error) (text string, what Refusal) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" || op.Err == nil {
		return "", RefusedNothing
	}
	text = op.Err.Error()
	return text, refusals[text]
}

// HandshakeFault tells whether the error of a handshake lies in certificates or
// settings, on either side, so that another try cannot help until somebody has
// changed them: a certificate or a name that was refused, nothing in common, a
// port without TLS. If it is false the connection failed, or ctx ended.
func HandshakeFault(err error) bool {
	if _, what := PeerAlert(err); what != RefusedNothing {
		return true
	}
	var network net.Error
	return !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.ErrClosedPipe) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) &&
		!errors.As(err, &network)
}
