// Package httpsender sends HTTP requests through pools of connections, with TLS,
// and says honestly what became of them. It never repeats what may already have
// happened.
//
//	sender := &httpsender.Sender{
//		TLS: &tlsprops.TlsProperties{
//			Enabled: true, KeyStorePath: "client.key", CertStorePath: "client.crt",
//			TrustStorePath: "ca.crt",
//		},
//	}
//	defer sender.Close()
//	req, err := httpsender.NewRequest(ctx, "POST", "https://lab.example.org/orders",
//		httpsender.Bytes("application/fhir+json", order))
//	resp, err := sender.Do(req)
//	if err == nil {
//		defer resp.Body.Close()
//		err = httpsender.Check(resp) // nil for 2xx
//	}
//
// # What became of it
//
// The errors of Do and Check, and of reading an answer, are a [SendError]. Its
// [Outcome] is what a queue needs to know: Rejected, another try cannot help;
// Retryable, it may, and does no harm; Unknown, the server may have acted on the
// request, and only a person or the server can tell.
//
// What decides is how far a request got, and whether repeating it changes
// anything (RFC 9110, section 9.2.2):
//
//	nothing of it was written                  Retryable, or Rejected where a setting
//	                                           or a certificate is the reason
//	written, no answer; GET, PUT, DELETE ...   Retryable
//	written, no answer; POST, PATCH            Unknown
//	the same with an Idempotency-Key header    Retryable
//
// Do itself tries again what is Retryable, with random pauses and within the
// bounds of [Retry]. A 503 or 429 may ask for a pause with Retry-After, up to a
// cap. net/http's own repetitions are turned off: every attempt is one of this
// package, gets its own call of BeforeAttempt, and its own event.
//
// # Bodies
//
// To try again takes a body that can be opened again: a [Body] from memory, a
// file, part of one, or a function, possibly as a form, in parts, or compressed.
// None of them is read into memory. A plain io.Reader is sent once: after the
// first byte of it was read, there is no other attempt.
//
// # Limits
//
// No limit is on the time of a whole transfer, which the request's context is
// for. There is one on every step: connecting, the TLS handshake, the wait for an
// answer, and the time in which not a single byte moves, in either direction. An
// answer is limited in bytes, before and after decompression, and in how much it
// may be compressed; its header too.
//
// Requests to a host wait in order for one of MaxRequestsPerHost places. A host
// that keeps failing is left alone for a while: see [Breaker].
//
// # TLS, credentials, proxies
//
// Certificates are always checked, as [tlsprops.TlsProperties] says. When the
// files change, idle connections are closed and new ones use the new files;
// requests under way end undisturbed.
//
// Basic, Digest and bearer credentials are sent with https:// and to this machine
// only. Redirects are not followed, or with RedirectsSameOrigin no further than
// the same scheme, host and port. Digest is RFC 7616: MD5, SHA-256, SHA-512-256,
// their -sess forms, auth, auth-int and hashed user names; after the first
// challenge requests answer it in advance.
//
// A proxy comes from ProxyURL or the environment. https:// goes through it in a
// tunnel, so it sees neither the requests nor the client certificate.
//
// # What is told
//
// Observe gets an [Event] for every connection, attempt, pause, answer and
// change of a breaker, with durations; Logger the same in words. Neither these
// nor any error holds a header, a byte of a body, or more of a URL than scheme,
// host and port: paths and queries name patients.
//
// # Limitations
//
// An HTTP/1.0 answer that ends with its connection cannot be told from one that
// was cut off there. Proxies are asked for with Basic credentials only, in clear
// text if the proxy is http://. User names and passwords are used as they are
// given, in UTF-8; RFC 7616's normalization is left to the caller. SOCKS proxies
// and protocol upgrades are not supported.
package httpsender
