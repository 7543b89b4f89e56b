package meshclient

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/tlsprops"
)

const (
	acceptV2 = "application/vnd.mesh.v2+json"
	acceptV1 = "application/vnd.mesh.v1+json"

	// version is what a handshake says of this program.
	version = "carewire-meshclient/1"

	// answerTimeout is how long an answer may take to begin: after the last of
	// thousands of chunks a server has things to do.
	answerTimeout = 3 * time.Minute

	maxJSON = 8 << 20 // of an answer: 5000 ids are a tenth of that
	maxID   = 200     // MESH's have 27 characters

	// A token is good for two hours around the server's time; a clock that is off
	// by a quarter of that wants attention.
	tokenWindow = 2 * time.Hour
	skewWarning = 30 * time.Minute

	expiryWarning = 60 * 24 * time.Hour
)

// A Client speaks for one mailbox. All methods are safe for concurrent use,
// though MESH wants no more than one thread at work for a mailbox. Of a call's
// context the deadline bounds the whole call; without one, every step is bounded
// as httpsender.Sender does it.
type Client struct {
	// static after construction
	conf   Config
	base   *url.URL // with /messageexchange
	sender *httpsender.Sender

	answered atomic.Bool  // the server has answered a request
	skew     atomic.Int64 // of the last answer, in nanoseconds; this clock less the server's
	warned   atomic.Bool  // of skew
}

// New returns a Client, or says what is wrong with the settings: a *ConfigError
// or, of certificates in files, a *tlsprops.FieldError. Nothing is sent. Close
// ends the Client.
func New(conf Config) (*Client, error) {
	conf, base, err := conf.validate()
	if err != nil {
		return nil, err
	}
	c := &Client{conf: conf, base: base}
	c.sender = &httpsender.Sender{
		BeforeAttempt: c.authorize, ProxyURL: conf.ProxyURL, NoProxy: conf.NoProxy, Retry: conf.Retry,
		MaxResponseBytes: conf.MaxMessageBytes, MaxCompressionRatio: conf.MaxCompressionRatio,
		NetDialer: conf.NetDialer, Observe: conf.Observe, Logger: conf.Logger,
		ResponseHeaderTimeout: answerTimeout,
		Breaker:               httpsender.Breaker{Failures: -1}, // a chunk's retries are not to end because others failed
	}
	if c.sender.Retry.MaxElapsed == 0 {
		c.sender.Retry.MaxElapsed = -1 // to send 64 MiB once can take longer than httpsender's two minutes
	}
	if base.Scheme == "https" {
		if c.sender.TLS, c.sender.TLSConfig, err = c.conf.security(base.Hostname()); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close ends the Client. Calls under way fail, or end with their answer.
func (c *Client) Close() error { return c.sender.Close() }

// TLSStatus tells which certificates are in use and when they expire, where
// files are used for all of them: see httpsender.Sender.
func (c *Client) TLSStatus() tlsprops.Status { return c.sender.TLSStatus() }

// Mailbox returns the mailbox's id, in upper case.
func (c *Client) Mailbox() string { return c.conf.Mailbox }

// Skew returns by how much this machine's clock was ahead of the server's when
// it last answered, to the second; 0 if it did not yet.
func (c *Client) Skew() time.Duration { return time.Duration(c.skew.Load()) }

// A call is one request of the API.
type call struct {
	op     string
	method string
	path   string // below /messageexchange, escaped
	query  string
	accept string // "": version 2
	header http.Header
	body   *httpsender.Body
	// again tells that a POST may be repeated: it changes nothing the second time.
	again bool
}

// path joins parts, each escaped.
func path(parts ...string) string {
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
		if p == "." || p == ".." {
			parts[i] = strings.ReplaceAll(p, ".", "%2E") // which no proxy takes for a way up
		}
	}
	return "/" + strings.Join(parts, "/")
}

// do sends a request, and returns an answer that is a success, whose body the
// caller closes. Any other is an *Error.
func (c *Client) do(ctx context.Context, k *call) (*http.Response, error) {
	target := c.base.String() + k.path
	if k.query != "" {
		target += "?" + k.query
	}
	r, err := httpsender.NewRequest(ctx, k.method, target, k.body)
	if err != nil {
		return nil, local(k.op, ErrInvalid, "an id cannot be part of a URL")
	}
	maps.Copy(r.Header, k.header)
	if r.Header.Set("Accept", acceptV2); k.accept != "" {
		r.Header.Set("Accept", k.accept)
	}
	if k.again {
		r.Header["Idempotency-Key"] = nil // declares it, and is not sent
	}
	resp, err := c.sender.Do(r)
	if err != nil {
		return nil, c.unanswered(ctx, k, err)
	}
	c.answered.Store(true)
	c.compareClocks(ctx, resp)
	if err := httpsender.Check(resp); err != nil {
		defer resp.Body.Close()
		return nil, c.failed(k, resp, err)
	}
	if ce := resp.Header.Get("Content-Encoding"); ce != "" && k.method != http.MethodHead && !strings.EqualFold(ce, "identity") {
		_ = resp.Body.Close() // of which nothing was read
		return nil, badAnswer(k.op, resp.StatusCode, "it is encoded in a way that was not asked for")
	}
	return resp, nil
}

// call sends a request and reads the answer into out, if that is not nil. An
// empty answer leaves out as it is.
func (c *Client) call(ctx context.Context, k *call, out any) error {
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJSON+1))
	if err != nil {
		return c.unanswered(ctx, k, err)
	}
	if len(body) > maxJSON {
		return badAnswer(k.op, resp.StatusCode, "it has more than 8 MiB")
	}
	if out == nil || len(body) == 0 {
		return nil
	}
	if json.Unmarshal(body, out) != nil {
		return badAnswer(k.op, resp.StatusCode, "it is not JSON of the expected form")
	}
	return nil
}

// failed returns the error for an answer that is no success.
func (c *Client) failed(k *call, resp *http.Response, checked error) *Error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what there is of it
	p := parseProblem(body)
	e := &Error{
		Op: k.op, Status: resp.StatusCode, ServerCode: p.code, Event: p.event, Description: p.text,
		Shape: p.shape, MessageID: p.id, Skew: c.Skew(), kind: kindsOf(resp.StatusCode, p.code),
	}
	if s, ok := errors.AsType[*httpsender.SendError](checked); ok {
		e.outcome, e.Attempts = s.Outcome, s.Attempts
		e.lasting = !s.Retryable()
	}
	switch {
	// nginx answers so for a certificate that is missing or was not accepted, with
	// numbers of its own that become 400 on the way out.
	case resp.StatusCode == 495, resp.StatusCode == 496,
		(resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusForbidden) && p.aboutCertificate:
		e.kind, e.outcome, e.lasting = []error{ErrClientCertificate}, httpsender.Rejected, true
	case resp.StatusCode == http.StatusForbidden && e.Skew.Abs() > tokenWindow:
		e.kind = append(e.kind, ErrClockSkew)
	}
	return e
}

// unanswered returns the error for a request that got no answer, or no end of it.
func (c *Client) unanswered(ctx context.Context, k *call, err error) *Error {
	e := &Error{Op: k.op, outcome: httpsender.Unknown, cause: err}
	s, ok := errors.AsType[*httpsender.SendError](err)
	if ok {
		e.outcome, e.Status, e.Attempts = s.Outcome, s.Status, s.Attempts
		e.lasting = !s.Retryable()
	}
	if errors.Is(err, httpsender.ErrPeerRejectedCertificate) || !c.conf.certified() && wantsCertificate(err) {
		e.kind = []error{ErrClientCertificate}
		return e
	}
	if _, large := errors.AsType[*httpsender.TooLargeError](err); large {
		e.kind = []error{ErrTooLarge}
		return e
	}
	if errors.Is(err, ErrSourceChanged) {
		e.kind, e.lasting = []error{ErrSourceChanged}, true
		return e
	}
	if k.body == nil || ctx.Err() != nil || e.Status != 0 || !brokenOff(err) || !c.rejectsCertificate(ctx) {
		return e
	}
	// In TLS 1.3 a server tells what it thinks of the certificate when the client
	// is already sending, and the news is lost in the end of the connection.
	e.kind, e.lasting = []error{ErrClientCertificate}, true
	if !c.answered.Load() { // not a single request has come through yet
		e.outcome = httpsender.Rejected
	}
	return e
}

// wantsCertificate tells whether a server refused the handshake in the way that
// TLS 1.2 has for one without a certificate (RFC 5246, section 7.4.6), among other
// reasons. The type of a received alert is not exported, but its text is that of
// the exported AlertError.
func wantsCertificate(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" && op.Err != nil && op.Err.Error() == tls.AlertError(40).Error()
}

// brokenOff tells whether a connection ended, rather than was not made.
func brokenOff(err error) bool {
	return errors.Is(err, httpsender.ErrConnectionLost) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// rejectsCertificate asks the server for something that takes no body and changes
// nothing, on a connection of its own, and tells whether it rejects the client
// certificate. Any answer at all means that it does not.
func (c *Client) rejectsCertificate(ctx context.Context) bool {
	c.sender.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	r, err := httpsender.NewRequest(ctx, http.MethodGet, c.base.String()+path("_ping"), nil)
	if err != nil {
		return false
	}
	resp, err := c.sender.Do(r)
	if err != nil {
		return errors.Is(err, httpsender.ErrPeerRejectedCertificate)
	}
	_ = resp.Body.Close() // it only matters that it came
	return false
}

// compareClocks looks at the time that the server has.
func (c *Client) compareClocks(ctx context.Context, resp *http.Response) {
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return
	}
	skew := time.Since(date).Truncate(time.Second)
	c.skew.Store(int64(skew))
	if off := skew.Abs() > skewWarning; c.warned.Swap(off) != off && off && c.conf.Logger != nil {
		c.conf.Logger.LogAttrs(ctx, slog.LevelWarn, "meshclient: the clocks of this machine and the server differ; MESH refuses tokens from two hours on",
			slog.Duration("ahead", skew))
	}
}

// warnOfExpiry warns of a client certificate that ends soon. To have NHS sign
// another takes longer than the 30 days at which tlsprops begins to warn, which
// does not see a certificate that is given as PEM.
func (c *Client) warnOfExpiry(ctx context.Context) {
	if c.conf.Logger == nil {
		return
	}
	if ends := c.certificateEnds(); !ends.IsZero() && time.Until(ends) < expiryWarning {
		c.conf.Logger.LogAttrs(ctx, slog.LevelWarn, "meshclient: the client's certificate expires soon: have NHS sign another",
			slog.Time("notAfter", ends), slog.Int("daysLeft", int(time.Until(ends).Hours()/24)))
	}
}

// certificateEnds returns when the client's certificate does, zero without one.
func (c *Client) certificateEnds() time.Time {
	if conf := c.sender.TLSConfig; conf != nil {
		if conf.GetClientCertificate == nil {
			return time.Time{}
		}
		cert, err := conf.GetClientCertificate(&tls.CertificateRequestInfo{}) // our own: see Config.inline
		if err != nil {
			return time.Time{}
		}
		return cert.Leaf.NotAfter
	}
	for _, cert := range c.TLSStatus().Certificates {
		if cert.Use == tlsprops.UseLeaf {
			return cert.NotAfter
		}
	}
	return time.Time{}
}

// Ping asks whether the service is there, as NHS's own client does. It is not in
// the specification.
func (c *Client) Ping(ctx context.Context) error {
	return c.call(ctx, &call{op: "ping", method: http.MethodGet, path: path("_ping")}, nil)
}

// Handshake tells the server that the mailbox is in use, and thereby that it is
// reached and takes the credentials. MESH wants one every 24 hours, so it is also
// where Logger is warned that the client's certificate has less than 60 days left.
func (c *Client) Handshake(ctx context.Context) error {
	c.warnOfExpiry(ctx)
	h := http.Header{}
	h.Set("Mex-Clientversion", version)
	h.Set("Mex-Osname", runtime.GOOS)
	h.Set("Mex-Osversion", osVersion())
	h.Set("Mex-Osarchitecture", runtime.GOARCH)
	return c.call(ctx, &call{op: "handshake", method: http.MethodPost, path: path(c.conf.Mailbox), header: h, again: true}, nil)
}

// osVersion returns the release of the kernel where there is a file that says it.
func osVersion() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if v := word(strings.TrimSpace(string(b)), maxCode); err == nil && v != "" {
		return v
	}
	return "unknown"
}
