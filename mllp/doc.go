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
// messages that are arriving, in all and for each address, and between messages;
// time for the handshake, for a frame, for reading an answer; connections, in all
// and for each address.
// A connection that is waiting costs a goroutine and about 10 KiB.
//
// # Who may connect
//
// These are asked in turn, and each closes what it does not let pass:
//
//   - Allow and Deny, of the address, before a byte is exchanged. Behind a proxy
//     that is one of TrustedProxies, of the address that it names in the PROXY
//     protocol; nobody else is believed such a header.
//   - MaxConns and MaxConnsPerHost. An established connection makes room for a
//     new one only with EvictIdle.
//   - The TLS handshake. A failed one is an event with its reason, the address,
//     and the subject and serial number of the certificate, for an audit trail (IHE
//     ATNA, Node Authentication failure). RecheckClients asks again when the
//     files have changed.
//   - Senders, of each message: the verified certificate of a client says in
//     whose name, MSH-3 and MSH-4, it may send.
//
// The [Identity] of a verified client is in each [Request], and in the [ConnInfo]
// from which Server.ConnContext makes the context of a connection's handlers.
// Without client certificates an address is all there is to know a client by, and
// MSH-3 is what it says of itself.
//
// Frames that are damaged or refused go to Server.Quarantine, without their bytes
// unless QuarantineBytes asks for some.
//
// # Sending
//
// A [Dialer] makes a [Conn], and [Conn.Send] sends a message and waits for its
// acknowledgement. The outcome is one of four: Acked, Nacked, NotSent, and
// Unknown, when the message was sent and no answer came. Only the sender can say
// whether sending again, and so perhaps twice, is worse than not at all; see
// [SendError].
//
// A [Client] does that for a program that runs for years: it keeps connections,
// notices before writing that one has ended, and connects again at times that
// spread the senders of a receiver that was restarted. It tries again what was
// certainly not sent, and, if asked, what certain answers refused, but never what
// is Unknown:
//
//	client := &mllp.Client{
//		Addr:   "ehr.example.org:2575",
//		Dialer: &mllp.Dialer{TLS: &tlsprops.TlsProperties{Enabled: true, TrustStorePath: "ca.crt"}},
//	}
//	defer client.Close()
//	reply, err := client.Send(ctx, msg) // until ctx ends, while the receiver is away
//
// [Client.Health] tells whether a person must see to it.
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
// error in place of io.EOF, and is never acknowledged with AA. [Conn.SendReader]
// sends such a message from an io.Reader in as little.
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
// Server.Observe, Client.Observe and Dialer.Observe get an [Event] for all that happens, with a
// [Reason] from a closed list, and their Logger the same in words. Neither these nor any error
// of this package holds bytes of a message, but for the control ID of an
// answer that may not have arrived.
//
// # Acknowledgements
//
// HL7 has two modes. In original mode a message is answered once: AA, AE or AR. In
// enhanced mode the sender says with MSH-15 what it wants to hear when the receiver
// has taken charge of the message, a commit acknowledgement (CA, CE, CR), and with
// MSH-16 what it wants to hear when the application has seen it (AA, AE, AR):
//
//	AL  always   NE  never   ER  on error or rejection   SU  on success
//
// A Server answers in original mode, whatever MSH-15 and MSH-16 say, until
// Server.Enhanced is set: many senders fill them in and know nothing but AA, and
// IHE asks for original mode (ITI TF-2, appendix C). With it, messages in which
// both are empty stay in original mode. If only one is there, the other counts as
// NE, or as Server.MissingCondition says, and a word that is not in the table as
// AL; both are told in an event.
//
// What the Handler returns is the commit. If it has taken the message, CA leaves,
// then Server.Application is called, if there is one, and what that returns is the
// application's acknowledgement. Without one the Handler's word is both. A message
// that the Handler has not taken gets one acknowledgement at most: the commit one
// if MSH-15 wants it, else the application's if MSH-16 does. In original mode both
// are called before the one answer.
//
//	                       MSH-15 AL, MSH-16 AL    NE, AL     AL, NE    ER, SU
//	taken, applied         CA, AA                  AA         CA        AA
//	taken, not applied     CA, AE                  AE         CA        -
//	not taken              CE                      AE         CE        CE
//
// On the other side, Dialer.Enhanced makes Send wait for what the message asks for:
// see [Conn.Send]. A [Correlator] helps where the application's acknowledgement
// comes over another connection, and a [Responder] where it is to go over one.
//
// Messages of one connection are handled one after the other, unless Server.Key
// tells those apart that need not be; acknowledgements leave in the order of the
// messages even then: all first ones, and all second ones of enhanced mode, each
// among themselves. Server.Replay answers a message that comes again as it was
// answered before. Server.Batches takes batches apart. Text of an acknowledgement
// that is made here is ASCII, and MSH-18 is the message's own; the bytes of a
// message are never changed: a [Charset] is for those who want its text.
//
// # Limitations
//
// HL7 version 2 in XML is not acknowledged.
package mllp
