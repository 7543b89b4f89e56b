// Package meshclient speaks to NHS MESH, the Message Exchange for Social Care and
// Health, over its API and mutual TLS.
//
//	conf, err := meshclient.FromEnvironment("", nil) // MESH_BASE_URL, MESH_CLIENT_CERT ...
//	client, err := meshclient.New(conf)
//	defer client.Close()
//
//	sent, err := client.Send(ctx, &meshclient.Message{To: "X26HC005", WorkflowID: "LAB_RESULTS", Content: file})
//
//	for id, err := range client.Messages(ctx, nil) {
//		info, err := client.Receive(ctx, id, store, nil)
//		if err == nil && store.Sync() == nil {
//			err = client.Acknowledge(ctx, id) // only now
//		}
//	}
//
// # TLS and tokens
//
// The server's certificate is always verified: there is no setting that turns that
// off, and rejectUnauthorized false is refused. MESH's servers have certificates
// of the NHS's own authorities, so that CACert names their root.
//
// Every attempt of every request has a token of its own, made when it is sent.
// A token is good for two hours around the server's time; Skew tells how far this
// machine's clock is from that, and an ErrAuth for that reason is an ErrClockSkew
// too. A client certificate that the server does not like is ErrClientCertificate,
// whether it says so in TLS, in a page of HTML, or by hanging up.
//
// # Sending
//
// Send reads the content twice: its SHA-256 goes ahead of it, and each chunk must
// be what it was, or it is never completed. What is larger than ChunkSize goes in
// chunks, each compressed by itself with Gzip, and none of them is held in memory.
//
// What happens when an answer is lost depends on what was sent:
//
//	a message of one piece  is not sent again, for it could arrive twice: the error
//	                        is ErrOutcomeUnknown, and MaybeDelivered is true
//	a chunk                 is sent again, for that changes nothing
//	the last chunk          is sent again, and if its first try was taken, the
//	                        server is asked what became of the message
//
// With Checkpoint and Resume a program that was killed in the middle goes on with
// the first chunk that the server does not have.
//
// # Receiving
//
// Receive writes a message as its sender had it, and verifies its checksum where
// the sender gave one of a known form. A chunk that breaks off is fetched again,
// and what was written of it is compared. Nothing is acknowledged but by
// Acknowledge. An Info with a Report is no message, but tells that one was not
// delivered. ReceiveFile writes a file, and goes on in it after a restart.
//
// # Polling
//
// A Poller keeps MESH's rules: a handshake a day, a listing every five minutes and
// more while the inbox is full, one message at a time, an acknowledgement only
// after its handler has stored the message. What it has to remember goes into a
// PollStore, so that a restart neither shakes hands nor lists nor receives again;
// a message that cannot be handled waits for longer and longer, and holds up no
// other; of several machines with a Lock one polls.
//
// # Errors
//
// Every error of a call is an *Error: what the API's codes and the status mean, as
// errors.Is finds it, and MaybeDelivered, Retryable and Code for a queue. Its text
// holds nothing that was sent, received or configured; Description, which may
// quote a patient's data, is a field for those who ask.
//
// What can be repeated without harm is, with random pauses, as
// httpsender.Sender does it; a server's Retry-After is heeded up to five minutes.
//
// # Limitations
//
// Servers of the HSCN whose certificates have a common name and no subject
// alternative name are refused, as everywhere in Go, and there is no setting that
// takes them: use the address of the internet. Sending needs content that can
// be read anywhere and has a known size: spool a stream into a file first. What is
// ErrOutcomeUnknown is found by a call (TrackLocal) that NHS has marked as
// deprecated. Certificates that are given as PEM and not as files are not watched;
// that they expire is told by Handshake alone. A TLS 1.2 server that refuses a handshake
// without saying why is taken to want a certificate only if there is none to show.
package meshclient
