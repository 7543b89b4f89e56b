// Package cluster protects the internal endpoints of a group of servers with a
// secret that all of them share.
//
// # Letting in who has the secret
//
//	auth := &cluster.Auth{Node: "node-a", Secret: cluster.Secret(os.Getenv("MIRTH_CLUSTER_SECRET"))}
//	if err := auth.Validate(); err != nil {
//		return err // no secret, a weak one, or the placeholder of a manual
//	}
//	mux.Handle("/api/internal/", auth.Handler(dispatch))
//
// A request passes with the header X-Cluster-Secret and the secret in it, or
// with a signature by the secret. Everything else is answered 403 and
// {"error":"Invalid cluster secret"}, whatever is wrong with it; what it was, an
// operator learns from Observe and Logger. The zero Auth refuses everything.
//
// # The plain header, and what it is worth
//
// X-Cluster-Secret shows that a request comes from somebody who has the secret,
// and gives the secret to everybody who can read the request: without TLS to the
// whole network, with TLS still to a proxy that terminates it. Who has read it
// once may send anything, to any node, until the secret is changed. It is
// accepted because other systems send nothing else; SignedOnly ends that.
//
// # Signed requests
//
// [Auth.Do] signs by default. The secret stays at home: the header
// X-Cluster-Signature holds an HMAC-SHA256, with a key derived from the secret,
// over the method, the path and query, Content-Type and Content-Encoding, a
// digest of the body, the sender, the node that it is for, the time, and a
// nonce. So a request cannot be altered, given to another node, or given to the
// same node twice or later than Window. The header is checked before a byte of
// the body is read, and the handler starts only when the whole body has been
// read and agrees with its digest. The body is held in memory for that:
// MaxBodyBytes for one request, MaxBufferedBytes for all.
//
// The answer is signed too, over its status, Content-Type, Content-Encoding,
// body, and the request's nonce. Do returns it only when that is right, so nobody
// on the way can pretend that a message was taken. A handler's answer is
// therefore held back until the handler returns; it cannot be flushed.
//
// Other headers are not signed, in neither direction: what a handler acts on
// belongs in the path, the query or the body.
//
// # Nonces
//
// Each node remembers the nonces it has seen for as long as they could come
// again, up to MaxNonces; when that is full it refuses further requests rather
// than forget one. What a process knew is lost when it ends, so requests that
// were signed before it began are refused, which leaves one gap: after a restart,
// a recorded request of a sender whose clock is ahead may pass once more, within
// that lead. Nonces closes it with a store that survives, and is needed where
// several processes go by one Node; a handler can close it for itself with
// [Peer].Nonce. It is still wise to give every message an
// identifier and to take it once: a sender whose answer is lost has to send
// again.
//
// # Redirects
//
// No credential is added by an [net/http.RoundTripper], which cannot tell a
// redirected request from the first. Do follows no redirect. [Auth.Authorize],
// for programs with a sender of their own, only ever signs: what a redirect
// carries on holds no secret and is refused elsewhere.
//
// # Changing the secret
//
// One secret is sent, all are accepted. Change it in three steps, each on all
// nodes before the next begins; requests pass all the while:
//
//  1. Secret is the old one, Accept holds the new one.
//  2. Secret is the new one, Accept holds the old one.
//  3. Secret is the new one, Accept is empty.
//
// A SecretFile has them on lines of their own, the one that is sent first; it is
// read again when it changes, within ReloadInterval of the next request.
// [Auth.SetSecrets] does the same for a program that gets them elsewhere. Every
// accepted request is an [Event] with the KeyID of its secret: go on to the next
// step when no node sends the old one any more.
//
// # What this package does not do
//
// It does not encrypt. Signed or not, over http:// everybody on the way reads
// the messages, and who is to keep them confidential needs TLS: https:// between
// the nodes, or a service mesh. Do therefore refuses http:// other than to the
// machine itself, unless AllowPlaintext is set.
//
// It does not tell nodes apart. All have the same secret, so each of them can
// sign in the name of any other. Client certificates can: see package tlsprops.
//
// A proxy between the nodes must leave path, query, body and the headers named
// above as they are, and the clocks of the nodes must agree to within Window.
package cluster
