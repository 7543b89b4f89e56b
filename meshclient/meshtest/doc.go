// Package meshtest is an NHS MESH server inside of the process, for the tests of
// programs that use package meshclient.
//
//	server, err := meshtest.New(meshtest.Options{})
//	defer server.Close()
//	client, err := meshclient.New(server.Config("MAILBOX1"))
//
// It speaks mutual TLS with certificates of its own authority, or the caller's,
// and is stricter than NHS's sandbox, which lets pass what the service does not:
//
//	tokens         are good once, and within two hours of the server's clock
//	certificates   are asked for, and refused in TLS, or in a page of HTML
//	workflows      can be limited (Options.Workflows), mailboxes disabled
//	chunks         have more than 5 MB, but for the last, and no more than 100 MB
//	encoding       is the same for all chunks of a message
//	messages       that nobody acknowledges expire after five days: their sender
//	               gets a report, and after thirty they are gone
//
// Advance moves the server's clock. Script makes it fail: connections that end
// before or after a request, any status with any body, answers that are cut off.
//
// # Differences
//
// NHS's sandbox answers 200 to a token that was used before, or is too old, and
// 202 to any workflow and any length of chunk; it does not expire messages. The
// rules for these are those of the API's documentation. How the service answers
// to a chunk that is too short is not documented: here it is 417. An acknowledged
// message answers 410 to a download, as the specification says and the sandbox
// does not. The hidden calls (rich inbox and outbox) and NHS's admin calls are not
// there.
package meshtest
