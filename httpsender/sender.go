package httpsender

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// The defaults of a Sender.
const (
	defaultConnsPerHost    = 16
	defaultIdlePerHost     = 16
	defaultRequestsPerHost = 64
	defaultHeaderBytes     = 256 << 10

	defaultDial      = 10 * time.Second
	defaultHandshake = 10 * time.Second
	defaultHeader    = time.Minute // a server may store 100 MB before it answers
	defaultStall     = 30 * time.Second
	defaultQueue     = 30 * time.Second
	// Servers and load balancers commonly close what was idle for 60 s; to be
	// earlier is what keeps a request from meeting a connection that is closing.
	defaultIdle = 55 * time.Second
	defaultPing = 15 * time.Second
	pingTimeout = 15 * time.Second
)

// A Sender sends HTTP requests through pools of connections. The zero value is
// ready to use; it speaks https:// to servers with a certificate from a CA that
// the host trusts, and http://.
//
// Its fields must not be changed after the first call of a method; all methods
// are safe for concurrent use. In durations and numbers zero means the default
// that is given with the field, and a negative value means no limit, but where
// it says otherwise.
type Sender struct {
	// TLS are the settings of TLS as configuration files have them; with Enabled,
	// http:// URLs are refused. Nil, or Enabled false, means the host's roots and
	// no client certificate for https://. trustStorePath replaces the host's roots,
	// with trustSystemRoots it adds to them. The files are looked at again every
	// ReloadInterval, until Close; when they have changed, idle connections are
	// closed, and new ones use what is in them.
	TLS *tlsprops.TlsProperties
	// TLSConfig, if not nil, replaces TLS and is used for every https://
	// connection; http:// is refused. An empty ServerName becomes the host of the
	// URL. NextProtos is set by the Sender.
	TLSConfig *tls.Config

	// Auth are the credentials; zero: none.
	Auth Auth
	// AllowPlaintextAuth lets the Authorization header go to http:// URLs of other
	// machines than this one. Otherwise that is ErrPlaintextAuth.
	AllowPlaintextAuth bool
	// BeforeAttempt, if not nil, is called with the request of every attempt, just
	// before it is sent, redirects and answers to challenges included: to sign it,
	// or to give it a token of its own. The request is a copy with a Header of its
	// own. Changing the scheme or host of its URL is an error. An error ends Do,
	// with outcome Rejected, or Retryable if it has a method Retryable() bool that
	// says so.
	BeforeAttempt func(r *http.Request) error

	// ProxyURL is http://[user:password@]host:port or https://...; requests for
	// https:// go through it in a tunnel (CONNECT). DirectOnly ("none"): no proxy.
	// Empty: the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or those names in
	// lower case, as they are when the Sender is first used; this machine is
	// reached directly then.
	ProxyURL string
	// NoProxy are the hosts that are reached directly, in the form of NO_PROXY:
	// example.org (and all below), .example.org (only those below), 10.0.0.0/8,
	// host:port, or *. With an empty ProxyURL it comes in the place of the variable.
	NoProxy string
	// ProxyTLS are the TLS settings for https:// proxies. Nil: the host's roots.
	// TLS is never used for a proxy, nor is its client certificate.
	ProxyTLS *tlsprops.TlsProperties

	Retry     Retry
	Breaker   Breaker
	Redirects Redirects

	DisableHTTP2 bool

	MaxConnsPerHost     int // at a time; 0: 16
	MaxIdleConnsPerHost int // 0: 16; negative: connections are not kept
	// MaxRequestsPerHost is how many requests to a host may be under way at a time,
	// from the first attempt until the body of the answer is closed; the others
	// wait in order. Pauses between attempts do not count. 0: 64.
	MaxRequestsPerHost int
	QueueTimeout       time.Duration // how long a request waits for that; 0: 30 s

	DialTimeout         time.Duration // for resolving the name and connecting, and again for CONNECT; 0: 10 s
	TLSHandshakeTimeout time.Duration // 0: 10 s
	// ResponseHeaderTimeout is how long the answer may take to begin after the
	// request was written; 0: 1 min.
	ResponseHeaderTimeout time.Duration
	// StallTimeout is how long a connection may take no byte of a request, or
	// bring no byte of an answer that has begun and is being read; 0: 30 s. A
	// transfer in which bytes flow may take as long as it takes: bound it with the
	// request's context.
	StallTimeout    time.Duration
	IdleConnTimeout time.Duration // 0: 55 s
	// ConnLifetime is how old a connection may be when a request begins to use it;
	// 0 or negative: any age.
	ConnLifetime time.Duration
	// PingInterval is how long an HTTP/2 connection may be silent before it is
	// asked for a sign of life, which it has 15 s to give; 0: 15 s.
	PingInterval time.Duration

	// MaxResponseBytes is how many bytes the body of an answer may have, after
	// decompression; 0: 10 MiB. One more is a TooLargeError.
	MaxResponseBytes int64
	// MaxCompressionRatio is how many bytes may come of each byte of a compressed
	// answer, beyond the first MiB; 0: 100.
	MaxCompressionRatio int
	// MaxResponseHeaderBytes bounds the header of an answer; 0: 256 KiB. Negative
	// is refused.
	MaxResponseHeaderBytes int64

	// NetDialer makes the connections below TLS. Nil means a net.Dialer that
	// probes an idle connection after 60 s, then every 15 s, 4 times.
	NetDialer interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	}

	// Observe is called for every Event, from the goroutine in which it happens,
	// by several at once. It must not block. nil: nobody is told.
	Observe func(Event)
	// Logger gets what Observe gets. nil: nothing is logged.
	Logger *slog.Logger

	once sync.Once
	// static after once
	err         error            // of the settings
	source      *tlsprops.Source // nil with TLSConfig
	proxySource *tlsprops.Source // nil: there is no https:// proxy
	proxies     proxies
	life        context.Context //nolint:containedctx // ends with Close
	end         context.CancelFunc

	pool    atomic.Pointer[pool]
	polling sync.WaitGroup // of the goroutine that watches the files

	hostsMu sync.Mutex
	hosts   map[string]*host // guarded by hostsMu
}

func (s *Sender) stall() time.Duration { return orDefault(s.StallTimeout, defaultStall) }

func (s *Sender) headerTimeout() time.Duration {
	return orDefault(s.ResponseHeaderTimeout, defaultHeader)
}

// prepare reads the settings, at the first use.
func (s *Sender) prepare() error {
	s.once.Do(func() {
		s.life, s.end = context.WithCancel(context.Background())
		s.err = s.configure()
	})
	return s.err
}

func (s *Sender) configure() error {
	if s.MaxResponseHeaderBytes < 0 {
		return errors.New("httpsender: Sender.MaxResponseHeaderBytes is negative")
	}
	if err := s.Redirects.validate(); err != nil {
		return err
	}
	if err := s.Auth.validate(); err != nil {
		return err
	}
	if err := s.loadProxies(); err != nil {
		return err
	}
	if s.proxies.secure() {
		if err := s.loadProxyTLS(); err != nil {
			return err
		}
	}
	s.pool.Store(s.newPool()) // before load, which may begin to watch
	if s.TLSConfig == nil {
		return s.load()
	}
	return nil
}

// Do sends a request and returns the answer, of whatever status; Check tells what
// that means. It is tried again where that can do no harm: see Retry.
//
// r is not modified. If it has GetBody, as those of NewRequest and of
// http.NewRequest with a reader of bytes or a string do, it can be tried again,
// and can be given to Do again. Any other body is sent once: there is another
// attempt only as long as nothing of it was read.
//
// The error is always a *SendError. Without one the caller closes the answer's
// body, whose Read gives a *SendError too if the answer breaks off, stalls, or
// exceeds MaxResponseBytes. A body compressed with gzip is decompressed, unless
// the request has Accept-Encoding or Range. The Request of the answer is r.
func (s *Sender) Do(r *http.Request) (*http.Response, error) {
	var t task
	fail := t.begin(s, r)
	var resp *http.Response
	if fail == nil {
		resp, fail = t.run()
	}
	if r.Body != nil && !t.begun {
		_ = r.Body.Close() // as http.Client does; one that was begun is closed when its attempt ends
	}
	if fail != nil {
		return nil, fail
	}
	return resp, nil
}

// RoundTrip is Do, for an http.Client: set its CheckRedirect to return
// http.ErrUseLastResponse, lest it follow redirects to other hosts.
func (s *Sender) RoundTrip(r *http.Request) (*http.Response, error) { return s.Do(r) }

// CloseIdleConnections closes the connections that are not in use now, and those
// in use as soon as they are not any more. A program that changes what TLSConfig
// hands out calls it then.
func (s *Sender) CloseIdleConnections() {
	if p := s.pool.Load(); p != nil {
		s.retire(s.life, p)
	}
}

// TLSStatus tells which certificates are in use and when they expire. It is the
// zero Status with TLSConfig, before the first Do, and if the settings are wrong.
func (s *Sender) TLSStatus() tlsprops.Status {
	if s.prepare() != nil || s.source == nil {
		return tlsprops.Status{}
	}
	return s.source.Status()
}

// Close ends the Sender: requests from now on fail with ErrClosed, idle
// connections are closed, and those in use when their requests end; what is being
// dialed is given up. It waits for the goroutine that watches the files of TLS. A
// Sender without TLS has none. The error is always nil.
func (s *Sender) Close() error {
	if s.prepare() == nil {
		s.end()
		s.CloseIdleConnections()
		s.polling.Wait()
		return nil
	}
	s.end()
	return nil
}

// tellCircuit tells of a change of a breaker, "" for none.
func (s *Sender) tellCircuit(ctx context.Context, origin string, changed CircuitState) {
	if changed != "" && s.watched() {
		s.tell(ctx, Event{Kind: EventCircuit, Origin: origin, Circuit: changed})
	}
}
