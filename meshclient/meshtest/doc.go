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
// What it answers, to which status, headers and body, is tested against what NHS's
// sandbox has been seen to answer. It differs from that where the sandbox does not do
// what the API's documentation says, or that says nothing:
//
//	                                  sandbox   here   because
//	a token that was used before      200       403    a token is good for one request
//	a token from another time         200       403    it is good for two hours around the server's
//	a workflow that is not registered 202       417    code 17 (Options.Workflows)
//	a chunk of less than 5 MB         202       417    every chunk but the last has more; how it
//	                                                   is refused is not documented
//	more than 100 MB                  202       413    a request has no more
//	a download after the              200       410    "cannot be downloaded again" once it is
//	acknowledgement                                    acknowledged
//	HEAD by the sender                200       403    the message is the recipient's
//	continue_from that is not its own 500       400    it is the caller's mistake
//	after 5 days, and 30              nothing   410,   a report with code 14 goes to the sender,
//	                                            404    and then the message is deleted
//
// The hidden calls (rich inbox and outbox) and NHS's admin calls are not there; what
// those do, Deliver, Undeliverable, Disable and Advance do.
package meshtest
