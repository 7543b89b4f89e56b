// Package dicomtls exchanges DICOM objects over TCP, with TLS or without: the
// upper layer of PS3.8, and of the services of PS3.4 verification (C-ECHO),
// storage (C-STORE) and storage commitment, in both roles.
//
//	requestor (SCU)                            acceptor (SCP)
//	A-ASSOCIATE-RQ  who, and which kinds  -->
//	                of data, in which     <--  A-ASSOCIATE-AC  which of them
//	                encodings
//	C-STORE-RQ      command, data set     -->
//	                                      <--  C-STORE-RSP     status
//	A-RELEASE-RQ                          -->
//	                                      <--  A-RELEASE-RP
//
// The two sides agree on presentation contexts first: pairs of an abstract syntax,
// which is a SOP class such as CT Image Storage, and a transfer syntax, which is
// an encoding such as JPEG Baseline. An object can be sent only in one that was
// accepted. Data sets stream through: neither side holds one in memory, and what
// is received has the bytes that were sent.
//
// # Receiving
//
// A [Server] with a [StoreHandler] is an archive. The status that the handler
// returns is the answer, so it must return success only when the object is safe.
// A [FileStore] is such a handler: it writes files, and syncs them first.
//
//	srv := &dicomtls.Server{
//		AETitles: []string{"ARCHIVE"},
//		TLS: &dicomtls.Properties{
//			TLS: dicomtls.ModeAES, KeyStore: "server.p12", KeyStorePW: password, TrustStore: "ca.crt",
//		},
//		Store: &dicomtls.FileStore{Dir: "objects"},
//	}
//	err := srv.ListenAndServe(ctx) // until ctx ends, then it drains
//
// What the command of a C-STORE says is checked before a handler sees it: UIDs
// are UIDs, and so safe as file names; the SOP class is that of the presentation
// context; there is a data set. A handler's reader fails if the object did not
// arrive whole, and its context ends when the client aborts.
//
// Everything a client can use up has a limit: bytes of PDUs, commands and
// objects; time for the TLS handshake, for the association request (the ARTIM
// timer), between messages and within them; associations, in all, for each AE
// title and for each address. A silent client costs a goroutine and some 40 KiB,
// and delays nobody. A length field of a peer never makes memory.
//
// # Sending
//
// A [Dialer] makes an [Association], for the contexts that [Propose] finds for
// a set of objects, and [Association.Store] sends one; [Dialer.StoreAll] sends
// many, over as many associations as they need. Of each object the [Outcome] is
// known exactly, also when the association is lost: Stored, Refused with the
// peer's [Status], NotSent, or Unknown, when all of it was sent and no response
// came. A [SendError] says whether another try can help. An object whose transfer
// syntax the peer does not take is converted if that is possible without loss.
//
//	objects := []dicomtls.Object{...} // of FileObject, or BytesObject
//	d := &dicomtls.Dialer{AETitle: "MODALITY", CalledAE: "ARCHIVE"}
//	for i, r := range d.StoreAll(ctx, "tcp", "archive:11112", objects, nil) {
//		fmt.Println(objects[i].Name, r.Outcome, r.Err)
//	}
//
// # Storage commitment
//
// A response to C-STORE does not mean that an archive will keep the object. An
// SCU asks for that with [Association.Commit] and learns for each object whether
// it may delete its own. The report may come on the same association, or on one
// that the archive opens: then a [Commitments] joins the Dialer that asks and the
// Server that is called. A [Committer] is an SCP that keeps requests on disk until
// they are reported; another one implements [CommitHandler], and reports by
// CommitRequest.Report or [Dialer.Report].
//
// # TLS
//
// [Properties] are the settings as configuration has them: a [DicomTlsMode], key
// and trust stores. A *tls.Config may take their place. AE titles are claims that
// anyone can make; Server.CertificateAEs binds them to client certificates.
//
// # Speed
//
// Many peers leave Nagle's algorithm on, and then wait 40 ms with each object for
// TCP's delayed acknowledgement. On Linux this package acknowledges at once
// (TCP_QUICKACK), in both roles.
//
// # What is told
//
// Server.Observe gets an [Event] for all that happens, with a [Reason] from a
// closed list, and Server.Logger the same in words. Neither these nor any error of
// this package holds anything of an object, or of a [UserIdentity].
//
// # Limitations
//
// C-FIND, C-GET, C-MOVE, the work list and print are not offered; a Server
// answers them with 0211, unrecognized operation. A Server handles the messages of
// one association one after the other, whatever window it grants. Extended
// negotiation (PS3.7 D.3.3.5 and D.3.3.6) is read and not answered.
package dicomtls
