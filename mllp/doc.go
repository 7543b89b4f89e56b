// Package mllp carries HL7 version 2 messages over TCP, in the frames of MLLP
// release 1, or in others (see Framing), with TLS (MLLPS) or without.
//
//	0B  M S H | ^ ~ \ & | ...  0D  P I D | ...  0D  1C 0D
//	VT  the message, its segments ended by CR       FS CR
//
// A frame has neither length nor checksum, and TCP tells nobody whether a
// message was taken. The one who sends it knows by the acknowledgement alone: a
// message in the other direction whose MSA segment has a code and, in MSA-2, the
// control ID (MSH-10) of what it answers. AA means the message is safe with the
// receiver, AE that it is not and another try may help, AR that it is not and
// never will be.
//
// # Receiving
//
// A [Server] needs a [Handler]. What that returns decides the answer, so it must
// return when the message is stored, and not before:
//
//	srv := &mllp.Server{
//		Addr: ":2575",
//		TLS: &tlsprops.TlsProperties{
//			Enabled: true, KeyStorePath: "server.key", CertStorePath: "server.crt",
//			TrustStorePath: "ca.crt", RequireClientCert: true,
//		},
//		Handler: mllp.HandlerFunc(func(ctx context.Context, r *mllp.Request) ([]byte, error) {
//			if err := store(ctx, r.Message); err != nil {
//				return nil, err // AE
//			}
//			return nil, nil // AA
//		}),
//	}
//	err := srv.ListenAndServe(ctx) // until ctx ends, then it drains
//
// The messages of a connection are handled one after the other and acknowledged
// in that order. Sent, or resent, is another matter: a sender that did not get
// its acknowledgement sends again, so a handler must expect to see a message twice.
//
// A message is never answered AA if it did not arrive whole, was cut off by
// another one, or holds more than one message; the zero Server accepts what is
// certain and refuses what is not. What it lets pass, because real senders do
// it, are flaws that leave no doubt: white space and up to 4 KiB of other bytes
// between frames, a missing last CR when the next frame follows, VT or FS inside
// of the text. Fields of Server make it stricter or more lenient.
//
// Everything a client can use up has a limit: bytes of a message, of all
// messages that are arriving, and between messages; time for the handshake, for
// a frame, for reading an answer; connections, in all and for each address.
// A connection that is waiting costs a goroutine and about 10 KiB.
//
// # Sending
//
// A [Dialer] makes a [Conn], and [Conn.Send] sends a message and waits for its
// acknowledgement. The outcome is one of four: Acked, Nacked, NotSent, and
// Unknown, when the message was sent and no answer came. Only the sender can say
// whether sending again, and so perhaps twice, is worse than not at all; see
// [SendError].
//
// # Framing
//
// [Framing], the same at both ends, is what tells messages apart. Nothing in the
// bytes says which it is, so nothing is guessed; a peer that shows that it is set
// otherwise is named in an event or an error.
//
//   - MLLP, release 1: the zero value.
//   - MLLPv2, release 2: each frame is answered by one that holds 06 alone, when
//     the receiver has it safe, or 15, when it has not; then by the HL7
//     acknowledgement, which the other side answers 06 in turn. A frame that is
//     not answered is sent again, the same bytes, a few times; a Server knows it
//     by its control ID and bytes, and gives its answer of the first time. A
//     handler that returns AR has judged the message: 06, and AR. All other
//     failures, AE too, are 15.
//   - FRAME: bytes of the user's choice before and after each message, in the
//     notation of Mirth: see [ParseFrameBytes].
//   - RAW: no frame. A message ends with the stream, with silence, with LF or after
//     a number of bytes; replies have no frame either. Without a frame nothing
//     shows that a message is whole. What can be known is used: over TLS an end
//     of the stream that the peer did not announce (close_notify) is not taken
//     for that of a message, unless Framing.AllowUnverifiedEnd says so.
//
// # Long messages
//
// A [Handler] gets a message in memory. Server.Stream, in its place, gets it as an
// io.Reader while it arrives, with its first segment parsed: a document of 200
// MB in an OBX segment then takes 40 KiB. What is cut off or too long ends with an
// error in place of io.EOF, and is never acknowledged with AA.
//
// # TLS
//
// Both ends take a [tlsprops.TlsProperties], or a *tls.Config in its place. A Server
// with TLS does not speak to a client without, and the other way round, but says
// in an event what the client did wrong. Certificates are read again when their
// files change. IHE ATNA (ITI TF-2, 3.19.6.2.3) lists four cipher suites for TLS
// 1.2, two of which, those with DHE, Go does not have; the other two, and TLS 1.3,
// are what tlsprops offers.
//
// # What is told
//
// Server.Observe gets an [Event] for all that happens, with a [Reason] from a
// closed list, and Server.Logger the same in words. Neither these nor any error
// of this package holds bytes of a message, but for the control ID of an
// answer that may not have arrived.
//
// # Limitations
//
// Acknowledgements are those of HL7's original mode: MSH-15 and MSH-16 are not
// heeded. HL7 version 2 in XML is not acknowledged.
package mllp
