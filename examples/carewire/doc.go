// Command carewire is the toolbox of a person who connects systems with HL7 and
// DICOM over TLS: it makes certificates, looks at TLS servers, and sends and
// receives messages and objects. It uses the library's own packages, so what it can connect to, the
// engine can.
//
//	carewire tls certs --dir certs --host lab.example.org
//	carewire tls probe lab.example.org:6661 --ca certs/ca.crt --cert certs/client.crt --key certs/client.key
//	carewire tls probe mail.example.org:587 --starttls smtp
//	carewire tls expiry --within 30d certs/*.crt
//	carewire keystore convert mirth-keystore.jks --storepass-file pass --out certs
//	carewire keystore mirth /opt/mirthconnect/appdata --out certs
//	carewire mllp listen --addr 127.0.0.1:2575 --out received
//	carewire mllp send --addr 127.0.0.1:2575 messages.hl7
//	carewire mllp send --addr 127.0.0.1:2575 --repeat 1000 --conns 4 --quiet messages.hl7
//	carewire mllp probe 127.0.0.1:2575
//	carewire dicom echo --addr pacs.example.org:2762 --called PACS --mode bcp195 --ca certs/ca.crt --cert certs/client.crt --key certs/client.key
//	carewire dicom send --addr 127.0.0.1:11112 --called PACS study/
//	carewire dicom listen --addr 127.0.0.1:11112 --aet ARCHIVE --out objects
//	carewire dicom commit --addr 127.0.0.1:11112 --called PACS --listen 127.0.0.1:11113 study/
//	carewire http send --ca certs/ca.crt --content-type application/fhir+json https://lab.example.org/orders order.json
//	carewire mesh send --base-url https://msg.intspineservices.nhs.uk --to X26HC005 --workflow LAB_RESULTS results.csv
//	carewire mesh receive --base-url https://msg.intspineservices.nhs.uk --out results.csv --ack 20260101120000000000_A1B2C3
//	carewire mesh poll --base-url https://msg.intspineservices.nhs.uk --out inbox
//	carewire mesh doctor --base-url https://msg.intspineservices.nhs.uk
//	carewire engine login --url https://engine.example.org:8443 --ca ca.crt
//	carewire engine channels stop "MLLPS Receiver"
//	carewire mirth import channels.xml --out imported
//	carewire mail send --host smtp.example.org --encryption tls --from a@example.org --to b@example.org body.txt
//
// With --tls, --ca, --cert and --key, send, listen and probe speak MLLPS; a listener with
// --ca demands a certificate of every client. Nothing falls back to plaintext, or
// to a server that could not be verified. Key files may be encrypted:
// --passphrase-file names the file that holds the passphrase.
//
// # Output
//
// Results go to standard output, remarks and errors to standard error, and a bar
// for long work too, if that is a terminal. No content of a message is ever
// printed, only control ids (MSH-10), sizes and acknowledgement codes; mail send
// prints the recipients that it was given, and with --dry-run the mail, and http
// send and engine messages get with --out - what was asked for. With --json every line of output is one JSON
// object.
//
// # Exit status
//
// It is 0 only when what was asked for has happened.
//
//	0  done: certificates written; the server answered a handshake and its chain
//	   and name are verified; nothing expired; every message acknowledged with AA
//	   or CA; the listener was told to end, and ended in good order; a listener for
//	   MLLP does nothing BAD
//	1  the answer is no: the server cannot be reached, refuses us or is not to be
//	   trusted; a certificate has expired, or does within the span asked about;
//	   the address to listen on is taken; a listener for MLLP does something BAD;
//	   mirth import held a channel back
//	2  the command line, a file or a certificate is unusable, and nothing was begun
//	3  mllp send: a receiver refused a message (AE, AR, CE, CR); dicom send: it
//	   refused an object; mail send: the server refused a recipient; http send,
//	   mesh send, engine: it answered anything but 2xx
//	4  mllp, dicom, mail, http and mesh send, engine: a message, object or request was sent
//	   and not answered: it may have arrived, and sending it again may make a
//	   duplicate
//	5  mllp, dicom and mail send: a message or object was certainly not sent; http
//	   send, mesh send, engine: there was no answer, and another try does no harm
//
// When several of 3, 4 and 5 hold, 4 comes before 5 and 5 before 3; the output
// tells of each message and object.
//
// # DICOM
//
// The commands of dicom speak to those who know DCMTK: echo is echoscu, send is
// storescu, listen is storescp. --mode says what TLS there is: bcp195 for today's
// peers, aes for Mirth Connect and other older ones besides, 3des for equipment
// that has nothing else. send takes files and directories, and sends many objects
// over one association; listen writes each object to a file of its own, whole or
// not at all, before it is acknowledged.
//
// # MESH
//
// The commands of mesh take the settings of package meshclient from flags, from its
// variables or from the files of --dir. send and receive of large files leave a
// small file beside them when they are interrupted, and --resume goes on from
// there. Subjects, names of files and descriptions are not printed: they may name
// patients. fake serves a strict MESH on this machine, and writes what a client
// of it needs:
//
//	carewire mesh fake --dir fake &
//	carewire mesh handshake --base-url https://127.0.0.1:8700 --dir fake
//
// poll keeps MESH's rules of when to ask, and acknowledges a message when it is a
// file. Where nothing works, doctor looks at one thing after the other, and says
// what to do. conformance runs NHS's catalogue of tests with synthetic messages.
//
// # Engines
//
// The commands of engine ask an engine over its API, in the verbs of Mirth's tools:
// channels by name or id, messages by number. login keeps the session in a file that
// only its owner can read; it goes to the engine that gave it and to no other, over
// https:// or within this machine. Passwords are asked for, or read from a file or
// standard input.
//
// # Probing
//
// A probe first connects as any client of this library would, and that decides
// its verdict: a server with old versions or weak suites beside good ones is
// usable, and the verdict names the weakness. What a client without (or with a
// refused) certificate is shown by a server that demands one is shown all the
// same. Versions and suites are those that crypto/tls can ask for: TLS 1.0 to 1.3
// and, in TLS 1.2, suites with RSA and ECDHE key exchange. SSL 2 and 3, and suites
// with DHE, with export strength or without encryption, go unseen.
//
// # Probing a listener for MLLP
//
// mllp probe sends what senders do, good and bad, each scenario on a connection
// of its own, and judges the answers; --list has the rule behind each. Nothing
// that the listener says is printed but codes, and which message an answer is of.
// The listener files what it is sent, more than three thousand synthetic
// messages: it is for test systems. See package mllpprobe for the words.
//
// # Files of messages
//
// A file may hold any number of messages: as MLLP frames, which are sent byte for
// byte, or as text in which each begins on a line with MSH. There, ends of lines
// become CR, which is what ends a segment in HL7, unless a message has CRs of its
// own. The envelopes of batches (FHS, BHS, BTS, FTS) are not sent, but their
// counts are checked. All files are read and checked before the first message
// leaves; what belongs to no message is an error.
//
// Messages leave in the order of the files, one after the other, each when the
// one before is acknowledged. A refusal does not end the run, an unknown fate
// does: what comes after may depend on it. With --window above 1 they leave in the
// same order and do not wait for each other, so a few more have left when the run
// ends. With --conns above 1 the order is not kept. --repeat gives every copy a
// control id of its own, unless --same-id is given, because receivers drop duplicates.
package main
