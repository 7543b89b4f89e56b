// Package smtpx sends mail that leaves encrypted or not at all, and tells of
// every recipient whether the server has taken it.
//
//	sender := &smtpx.Sender{
//		Host:       "smtp.example.org",
//		Encryption: smtpx.EncryptionTLS, // STARTTLS on port 587
//		Auth:       smtpx.Auth{Username: "mirth@example.org", Password: password},
//	}
//	defer sender.Close()
//	result, err := sender.Send(ctx, &smtpx.Message{
//		From: "mirth@example.org", To: []string{"ops@example.org"},
//		Subject: "Channel stopped", Text: "ADT stopped at 03:12.",
//	})
//
// # Encryption
//
// The words and ports are those of the deployment guide: none is port 25 in the
// clear, tls is STARTTLS on port 587, ssl is TLS from the first byte on port 465.
// tls is mandatory STARTTLS. A server that does not offer it, refuses it, or
// from which bytes come in the clear between its answer and the handshake gets
// neither credentials nor mail; there is no way back to plaintext. What the
// server offered before TLS is forgotten. Certificates are checked as package
// tlsprops says, and its files may change while the Sender is in use.
//
// Credentials are sent over TLS alone; with Auth.AllowPlaintext also to a
// loopback address.
//
// # What became of a message
//
// Send returns nil only when the server has taken the message for everybody. Otherwise
// the [SendError] says which of these it is, and the [Result] says it for each
// recipient, with the server's code and enhanced code:
//
//   - NotSent: the end of the message was not written, so nobody has it.
//   - Rejected: the server said no; 4xx may change, 5xx will not.
//   - Partial: some have it. [Result.Remaining] lists those whom another try can help;
//     put into [Message.Recipients], it goes to nobody else.
//   - Unknown: the connection ended after the end of the message, before the
//     answer. Another try may make a duplicate, which the same [Message.ID] shows.
//
// # Connections
//
// A connection is used again for up to MaxMessagesPerConn messages, and kept
// IdleTimeout long. One that the server has closed meanwhile is replaced without
// a word, as long as nothing of the message was written.
//
// # Messages
//
// A message is written out before a connection is made, so that a file which
// cannot be read, an address that is none, or a size that the server does not
// take stops it before its first byte leaves. Up to 1 MiB of it is held in
// memory; more goes to a temporary file that only this user can read and that
// has no name. Attachments are streamed, whatever their size. That there is no
// room for the file is NotSent, and another try can help.
//
// Fields cannot bring headers or recipients that are not theirs.
// [Message.Expand] fills in ${name} from a map, once: values are not expanded
// again, and are escaped in HTML.
//
// # What is not logged
//
// No error, event or log line holds an address, a credential, anything of a
// message, or the server's words, which may quote them. Recipients, messages and
// credentials print without them whatever the verb.
//
// # Limits
//
// There is no BDAT (CHUNKING), no quoted local part ("a b"@example.org), and no
// conversion of internationalised addresses for servers without SMTPUTF8, which
// refuse them. Mail to several servers, and retries, are the caller's.
package smtpx
