package cluster

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// refusal is the body of every 403, whatever the reason.
const refusal = `{"error":"Invalid cluster secret"}`

// preallocated is up to where a body's announced length is believed. The length
// is not signed.
const preallocated = 64 << 10

// A Peer is who sent a request.
type Peer struct {
	// Node is the name by which the sender signed. Whoever has the secret can use
	// any name. Empty with the plain header.
	Node string
	// KeyID names the secret that it used.
	KeyID string
	// Signed tells a signature from the plain header.
	Signed bool
	// Nonce is that of the signature, 22 characters. A handler that keeps it on disk
	// with what it does can tell a request that comes again after a restart, which
	// this package's memory cannot; see the package's "Nonces". Empty with the plain header.
	Nonce string
}

type peerKey struct{}

// PeerFrom returns who sent the request of a context, if a Handler of this
// package let it in.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// Handler lets the requests through to next that have the secret, and answers
// all others 403 and {"error":"Invalid cluster secret"} without having read
// their bodies.
//
// To next the request comes without its credential, so that it cannot be logged
// or passed on, and with a [Peer] in its context. The body of a signed request
// is there whole, and what next answers is sent, signed, when it returns: the
// http.ResponseWriter cannot be flushed or hijacked then. After the plain header
// the body is read from the network, up to MaxBodyBytes, and the
// http.ResponseWriter is the server's own.
//
// Call Handler before the server takes requests: what is signed earlier is
// refused, because the process before this one may have let it in.
func (a *Auth) Handler(next http.Handler) http.Handler {
	a.prepare()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := Event{Kind: Refused, RemoteAddr: r.RemoteAddr}
		secrets := a.keys.get(r.Context())
		if secrets == nil {
			secrets = a.keys.newer(r.Context(), nil)
		}
		plain, signed := r.Header[Header], r.Header[SignatureHeader]
		switch {
		case a.settingsErr != nil || secrets == nil:
			e.Err = a.Status().Err
			a.refuse(w, r, e, ReasonNoSecret)
		case len(plain)+len(signed) == 0:
			a.refuse(w, r, e, ReasonMissing)
		case len(plain)+len(signed) > 1:
			a.refuse(w, r, e, ReasonMalformed)
		case len(plain) == 1:
			a.servePlain(w, r, next, e, secrets, plain[0])
		default:
			e.Signed = true
			a.serveSigned(w, r, next, e, secrets, signed[0])
		}
	})
}

// refuse answers 403.
func (a *Auth) refuse(w http.ResponseWriter, r *http.Request, e Event, why Reason) {
	e.Reason = why
	a.tell(r.Context(), e)
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(refusal)))
	w.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(w, refusal) // a peer that is gone needs no answer
}

// servePlain handles a request with the secret itself in a header.
func (a *Auth) servePlain(w http.ResponseWriter, r *http.Request, next http.Handler, e Event, secrets *ring, presented string) {
	if a.SignedOnly {
		a.refuse(w, r, e, ReasonPlain)
		return
	}
	k := secrets.bySecret(presented)
	if k == nil {
		if secrets = a.keys.newer(r.Context(), secrets); secrets != nil {
			k = secrets.bySecret(presented)
		}
	}
	if k == nil {
		a.refuse(w, r, e, ReasonWrong)
		return
	}
	e.KeyID, e.Primary = k.id, k == secrets.primary()
	if r.ContentLength > a.maxBody() {
		a.refuse(w, r, e, ReasonTooLarge)
		return
	}
	e.Kind = Accepted
	a.tell(r.Context(), e)
	r = admitted(r, Peer{KeyID: k.id})
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &cutBody{ReadCloser: http.MaxBytesReader(w, r.Body, a.maxBody()), tell: a.announce, event: e}
	}
	next.ServeHTTP(w, r)
}

// serveSigned handles a request with a signature. What only its sender can know
// is looked at after the signature, and the body last.
func (a *Auth) serveSigned(w http.ResponseWriter, r *http.Request, next http.Handler, e Event, secrets *ring, header string) {
	ctx := r.Context()
	s, ok := parseSignature(header)
	if !ok {
		a.refuse(w, r, e, ReasonMalformed)
		return
	}
	e.KeyID, e.Node = s.keyID, s.from
	k := secrets.byID(s.keyID)
	if k == nil {
		if secrets = a.keys.newer(ctx, secrets); secrets != nil {
			k = secrets.byID(s.keyID)
		}
	}
	if k == nil {
		a.refuse(w, r, e, ReasonUnknownKey)
		return
	}
	e.Primary = k == secrets.primary()
	want := k.requestMAC(&s, r.Method, requestTarget(r), r.Header)
	if !hmac.Equal(want[:], s.mac[:]) {
		a.refuse(w, r, e, ReasonBadSignature)
		return
	}
	if why, err := a.judge(r, &s, &e); why != "" {
		e.Err = err
		a.refuse(w, r, e, why)
		return
	}
	body, release, why, err := a.readBody(w, r)
	defer release()
	if got := sha256.Sum256(body); why == "" && !hmac.Equal(got[:], s.digest[:]) {
		why = ReasonBadDigest
	}
	if why != "" {
		e.Err = err
		a.refuse(w, r, e, why)
		return
	}
	e.Kind = Accepted
	a.tell(ctx, e)
	r = admitted(r, Peer{Node: s.from, KeyID: k.id, Signed: true, Nonce: s.nonce})
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	answer := &signedWriter{w: w, limit: a.maxBody()}
	next.ServeHTTP(answer, r)
	if answer.send(k, &signature{keyID: k.id, nonce: s.nonce, from: a.Node, to: s.from}, r.Method) {
		e.Kind = AnswerTooLarge
		a.tell(ctx, e)
	}
}

// judge decides on a request whose signature is good. The reason is empty if it
// may pass.
func (a *Auth) judge(r *http.Request, s *signature, e *Event) (Reason, error) {
	if s.to != a.Node {
		return ReasonWrongNode, nil
	}
	ahead := time.Until(s.time())
	if ahead.Abs() > a.window() {
		e.Skew = ahead
		return ReasonSkew, nil
	}
	if r.ContentLength > a.maxBody() {
		return ReasonTooLarge, nil
	}
	fresh, err := a.useNonce(r.Context(), s)
	switch {
	case errors.Is(err, errTooEarly):
		e.Skew = ahead
		return ReasonTooEarly, nil
	case errors.Is(err, errNoncesFull):
		return ReasonNoncesFull, nil
	case err != nil:
		return ReasonNoncesFailed, err
	case !fresh:
		return ReasonReplay, nil
	}
	return "", nil
}

func (a *Auth) useNonce(ctx context.Context, s *signature) (fresh bool, err error) {
	if a.Nonces == nil {
		return a.memory.use(s)
	}
	ctx, cancel := context.WithTimeout(ctx, nonceTimeout)
	defer cancel()
	fresh, err = a.Nonces.Use(ctx, s.nonce, s.time().Add(2*a.window()))
	return fresh && err == nil, err
}

// readBody reads the body of a signed request into memory, within the limits of
// size, total and time. release gives the memory back to the total.
func (a *Auth) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), why Reason, err error) {
	release = func() {}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, release, "", nil
	}
	limit := a.maxBody()
	reserve := limit
	if r.ContentLength >= 0 {
		reserve = r.ContentLength
	}
	release = func() { a.buffered.Add(-reserve) }
	if a.buffered.Add(reserve) > a.maxBuffered() {
		return nil, release, ReasonBusy, nil
	}
	if d := a.bodyTimeout(); d > 0 {
		// The only error is that the writer has no deadlines to set: then it is none
		// of net/http's, and time is the matter of whose it is. net/http takes the
		// deadline back at the end of the body.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d))
	}
	buf := bytes.NewBuffer(make([]byte, 0, min(reserve, preallocated)+bytes.MinRead))
	n, err := buf.ReadFrom(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, release, ReasonBody, err
	case n > limit:
		return nil, release, ReasonTooLarge, nil
	}
	return buf.Bytes(), release, "", nil
}

// admitted returns a request as the handler is to see it.
func admitted(r *http.Request, p Peer) *http.Request {
	r = r.WithContext(context.WithValue(r.Context(), peerKey{}, p))
	r.Header = maps.Clone(r.Header)
	delete(r.Header, Header)
	delete(r.Header, SignatureHeader)
	return r
}

// requestTarget returns the path and query as they came: handlers around this
// one may have changed r.URL.
func requestTarget(r *http.Request) string {
	if r.RequestURI != "" {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// cutBody tells when a body has reached its limit.
type cutBody struct {
	io.ReadCloser

	tell  func(Event)
	event Event
	told  bool // owned by the handler, as the body is
}

func (b *cutBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if _, cut := errors.AsType[*http.MaxBytesError](err); cut && !b.told {
		b.told = true
		b.event.Kind = BodyCut
		b.tell(b.event)
	}
	return n, err
}
