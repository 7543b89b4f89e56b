package cluster

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// defaultTimeout bounds a request with no client of its own: an answer comes when
// the other node has stored the message.
const defaultTimeout = 30 * time.Second

// ErrUnverified is found, with errors.Is, in the error of Do and Verify when an
// answer is not signed by the node that was asked, for the request that was sent.
// That node may have refused the request, or it, or somebody on the way, may have
// answered something that is not to be believed.
var ErrUnverified = errors.New("the answer is not signed by that node for this request")

// Do sends a request to the node with a name, and returns its answer, of whatever
// status. The request is signed, and the answer is returned only if its signature
// is good; with PlainHeader the request has the secret in X-Cluster-Secret, and
// any answer is returned. Redirects are not followed: they come back as the
// answer they are.
//
// client may be nil, for one that takes 30 s at most. Else it is used as it is,
// but for its CheckRedirect. r is not modified, and is sent again by another Do
// if it has GetBody or no body.
//
// The error is a *SendError. Without one, the caller closes the answer's body.
func (a *Auth) Do(client *http.Client, r *http.Request, node string) (*http.Response, error) {
	var touched atomic.Bool // set by a goroutine of the transport: there was a connection
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { touched.Store(true) }}
	own := r.Clone(httptrace.WithClientTrace(r.Context(), trace))
	if err := a.prove(own, node); err != nil {
		if own.Body != nil {
			_ = own.Body.Close() // as http.Client does
		}
		return nil, &SendError{Node: node, Err: err, state: notSent}
	}
	once := http.Client{Timeout: defaultTimeout}
	if client != nil {
		once = *client
	}
	once.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := once.Do(own)
	if err != nil {
		return nil, &SendError{Node: node, Err: err, state: stateOf(err, touched.Load())}
	}
	if a.PlainHeader {
		resp.Body = http.MaxBytesReader(nil, resp.Body, a.maxBody())
	} else if err := a.Verify(resp); err != nil {
		return nil, &SendError{Node: node, Status: resp.StatusCode, Err: err}
	}
	resp.Request = r // which holds no credential
	return resp, nil
}

// prove puts the credential on the copy of a request, and gives it a body of its
// own if there can be another.
func (a *Auth) prove(own *http.Request, node string) error {
	if own.Body != nil && own.Body != http.NoBody && own.GetBody != nil {
		body, err := own.GetBody()
		if err != nil {
			return fmt.Errorf("cluster: the request's body: %w", err)
		}
		own.Body = body
	}
	if a.PlainHeader {
		return a.showSecret(own)
	}
	return a.Authorize(own, node)
}

// showSecret sets the plain header. It is unexported because a request that
// carries the secret must not reach a client that follows redirects.
func (a *Auth) showSecret(r *http.Request) error {
	k, err := a.primary(r)
	if err != nil {
		return err
	}
	r.Header.Del(SignatureHeader)
	r.Header.Set(Header, string(k.secret))
	return nil
}

// primary returns the key to send, and refuses to send it where it should not go.
func (a *Auth) primary(r *http.Request) (*key, error) {
	a.prepare()
	secrets := a.keys.get(r.Context())
	if a.settingsErr != nil {
		return nil, a.settingsErr
	}
	if secrets == nil {
		return nil, a.Status().Err
	}
	if r.URL == nil {
		return nil, errors.New("cluster: the request has no URL")
	}
	switch {
	case r.URL.Scheme == "https":
	case r.URL.Scheme == "http" && (a.AllowPlaintext || loopback(r.URL.Hostname())):
	case r.URL.Scheme == "http":
		return nil, &FieldError{Field: "allowPlaintext", Err: fmt.Errorf(
			"http:// to %s would show messages to the network: use https://, or set it if the network encrypts", r.URL.Hostname(),
		)}
	default:
		return nil, fmt.Errorf("cluster: %q is not the scheme of a URL that can be used: use https", r.URL.Scheme)
	}
	return secrets.primary(), nil
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Authorize signs a request for the node with a name, for a program that has its
// own way of sending; Do is simpler. The program gives the answer to Verify
// before it believes it.
//
// Authorize is for one try: a request that is sent twice is refused, so each needs
// another call, just before it is sent. It is the last to touch the request. The
// body is read once to make its digest, through GetBody if r has it, else into
// memory; one of more than MaxBodyBytes is an error. Content-Length and
// Accept-Encoding are set as well.
//
// It never sets X-Cluster-Secret, and removes it: a redirect would carry it on.
func (a *Auth) Authorize(r *http.Request, node string) error {
	k, err := a.primary(r)
	if err != nil {
		return err
	}
	if !validNode(node) {
		return errors.New("cluster: the name of the node to send to is empty, or has other characters than letters, digits and .-_:[]")
	}
	s := signature{keyID: k.id, nonce: newNonce(), from: a.Node, to: node}
	if s.digest, err = a.digestBody(r); err != nil {
		return err
	}
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	r.Header.Del(Header)
	if r.Header.Get("Accept-Encoding") == "" {
		// Else net/http asks for gzip and unpacks it, and the bytes are not those
		// that were signed.
		r.Header.Set("Accept-Encoding", "identity")
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	s.millis = time.Now().UnixMilli()
	s.mac = k.requestMAC(&s, method, r.URL.RequestURI(), r.Header)
	r.Header.Set(SignatureHeader, s.String())
	return nil
}

// digestBody returns the SHA-256 of a request's body, and leaves the request
// with that body.
func (a *Auth) digestBody(r *http.Request) (sum, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return sha256.Sum256(nil), nil
	}
	limit := a.maxBody()
	if r.GetBody == nil {
		data, err := readWithin(r.Body, limit)
		_ = r.Body.Close() // it has been read
		if err != nil {
			return sum{}, fmt.Errorf("cluster: the request's body: %w", err)
		}
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		r.Body, _ = r.GetBody()
		r.ContentLength = int64(len(data))
		return sha256.Sum256(data), nil
	}
	body, err := r.GetBody()
	if err != nil {
		return sum{}, fmt.Errorf("cluster: the request's body: %w", err)
	}
	defer body.Close()
	h := sha256.New()
	n, err := io.CopyBuffer(h, io.LimitReader(body, limit+1), make([]byte, min(max(r.ContentLength, 512), 32<<10)))
	if err == nil && n > limit {
		err = &http.MaxBytesError{Limit: limit}
	}
	if err != nil {
		return sum{}, fmt.Errorf("cluster: the request's body: %w", err)
	}
	r.ContentLength = n
	return sum(h.Sum(nil)), nil
}

// Verify checks that an answer was signed by the node for which its request was
// signed by Authorize, and for that request, and that status, Content-Type,
// Content-Encoding and body are as they were. It reads the whole body, up to
// MaxBodyBytes, and puts it back. On an error, which wraps ErrUnverified or is
// that of reading, the body is closed, and nothing in resp is to be believed.
func (a *Auth) Verify(resp *http.Response) error {
	a.prepare()
	err := a.verify(resp)
	if err != nil {
		_ = resp.Body.Close() // err says more
	}
	return err
}

func (a *Auth) verify(resp *http.Response) error {
	if resp.Request == nil {
		return fmt.Errorf("cluster: %w: it does not tell its request", ErrUnverified)
	}
	asked, ok := parseSignature(resp.Request.Header.Get(SignatureHeader))
	if !ok {
		return fmt.Errorf("cluster: %w: the request was not signed", ErrUnverified)
	}
	// The whole keyring, since there may have been a rotation in between.
	var k *key
	if secrets := a.keys.current.Load(); secrets != nil {
		k = secrets.byID(asked.keyID)
	}
	if k == nil {
		return fmt.Errorf("cluster: %w: the request's secret is not in use any more", ErrUnverified)
	}
	values := resp.Header[SignatureHeader]
	if len(values) != 1 {
		return fmt.Errorf("cluster: %w: status %d, no signature%s", ErrUnverified, resp.StatusCode, clockHint(resp, a.window()))
	}
	s, ok := parseSignature(values[0])
	if !ok {
		return fmt.Errorf("cluster: %w: status %d, not the form of a signature", ErrUnverified, resp.StatusCode)
	}
	want := k.responseMAC(&s, resp.StatusCode, resp.Header)
	if !hmac.Equal(want[:], s.mac[:]) || s.keyID != asked.keyID {
		return fmt.Errorf("cluster: %w: status %d, the signature is wrong", ErrUnverified, resp.StatusCode)
	}
	if s.nonce != asked.nonce || s.from != asked.to || s.to != asked.from {
		return fmt.Errorf("cluster: %w: status %d, signed for another request", ErrUnverified, resp.StatusCode)
	}
	body, err := readWithin(resp.Body, a.maxBody())
	if err != nil {
		return fmt.Errorf("cluster: the answer's body: %w", err)
	}
	if got := sha256.Sum256(body); !hmac.Equal(got[:], s.digest[:]) {
		return fmt.Errorf("cluster: %w: status %d, the body is another", ErrUnverified, resp.StatusCode)
	}
	_ = resp.Body.Close() // it has been read
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// clockHint helps with the commonest reason why a node refuses a good signature.
// The Date header is not signed: it is a hint, and nothing depends on it.
func clockHint(resp *http.Response, window time.Duration) string {
	theirs, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return ""
	}
	ahead := time.Until(theirs).Round(time.Second)
	switch {
	case ahead > window:
		return fmt.Sprintf("; the clock of who answered is %v ahead of ours", ahead)
	case -ahead > window:
		return fmt.Sprintf("; the clock of who answered is %v behind ours", -ahead)
	}
	return ""
}

// readWithin reads all of r, and fails with a *http.MaxBytesError if that is
// more than limit.
func readWithin(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return data, err
}
