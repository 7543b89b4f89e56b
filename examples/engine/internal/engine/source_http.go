package engine

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

const (
	headerTime     = 10 * time.Second // for a TLS handshake, and for the header of a request
	httpIdleTime   = 2 * time.Minute  // of a connection between requests
	maxHeaderBytes = 64 << 10
	// maxBodies is how many bytes of bodies may be in memory at once: with the
	// longest message that there is, two.
	maxBodies = 256 << 20
)

// httpSource takes messages in over HTTP, the body of each request as one message.
type httpSource struct {
	// static after construction
	cfg     config.HTTPSource
	tls     *tlsprops.TlsProperties // nil: none
	channel *channel
	user    [sha256.Size]byte // of user and password, if they are asked for

	bodies atomic.Int64  // bytes in memory
	conns  chan struct{} // has as many as there are connections

	mu     sync.Mutex
	server *http.Server  // nil: closed; guarded by mu
	port   int           // the one that is open, or the configured one; guarded by mu
	done   chan struct{} // closed when everything that open started has ended; guarded by mu
}

func newHTTPSource(ch *channel, opts Options) *httpSource {
	cfg := *ch.cfg.Source.HTTP
	return &httpSource{
		cfg: cfg, tls: tlsFor(cfg.TLS, ch.log, opts), channel: ch, port: cfg.Port,
		user: sha256.Sum256([]byte(cfg.Username + ":" + cfg.Password)), conns: make(chan struct{}, cfg.MaxConnections),
	}
}

// open begins to listen. When it returns nil, the port is open.
func (s *httpSource) open(ctx context.Context) error {
	var source *tlsprops.Source
	var conf *tls.Config
	if s.tls != nil {
		var err error
		if source, err = tlsprops.Load(*s.tls); err != nil {
			return err
		}
		if conf, err = source.ServerConfig(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	port := s.port
	s.mu.Unlock()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(s.cfg.Host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: headerTime, IdleTimeout: httpIdleTime, MaxHeaderBytes: maxHeaderBytes,
		Protocols: new(http.Protocols),
		ErrorLog:  slog.NewLogLogger(s.channel.log.Handler(), slog.LevelDebug), // handshakes that failed, mostly
	}
	server.Protocols.SetHTTP1(true)
	done := make(chan struct{})
	s.mu.Lock()
	s.server, s.done, s.port = server, done, ln.Addr().(*net.TCPAddr).Port
	s.mu.Unlock()
	limited := &limitedListener{Listener: ln, conns: s.conns}
	watching, end := context.WithCancel(context.Background()) // it outlives the request that opens the port
	var watch sync.WaitGroup
	var accepting net.Listener = limited
	if conf != nil {
		accepting = tls.NewListener(limited, conf)
		watch.Go(func() { source.Watch(watching) })
	}
	go func() {
		defer close(done)
		err := server.Serve(accepting)
		end()
		watch.Wait()
		if errors.Is(err, http.ErrServerClosed) {
			return
		}
		s.mu.Lock()
		if s.server == server {
			s.server = nil
		}
		s.mu.Unlock()
		s.channel.sourceFailed(err)
	}()
	return nil
}

// close closes the port and waits for the messages being taken in, until ctx ends;
// then it cuts their connections.
func (s *httpSource) close(ctx context.Context) error {
	s.mu.Lock()
	server, done := s.server, s.done
	s.server = nil
	s.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("draining: %w", err), server.Close())
	}
	<-done
	return err
}

// ServeHTTP takes one message in. It answers 2xx after the message is durable, and
// never before.
func (s *httpSource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	until := time.Now().Add(s.cfg.Timeout)
	_ = control.SetReadDeadline(until)  // a connection that has ended says so when it is read
	_ = control.SetWriteDeadline(until) // of 100 Continue: the last answer's has passed
	raw, status := s.message(w, r)
	whole := time.Now()
	defer s.bodies.Add(-int64(len(raw)))
	if status == 0 {
		_ = control.SetReadDeadline(time.Time{}) // how long the store takes is not the sender's fault
		status = s.take(r, raw)
	}
	h := w.Header()
	switch status {
	case s.cfg.ResponseStatusCode:
		for _, f := range s.cfg.ResponseHeaders {
			h.Add(f.Name, f.Value)
		}
		if status != http.StatusNoContent {
			h.Set("Content-Type", s.cfg.ResponseContentType)
		}
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "10")
	case http.StatusMethodNotAllowed:
		h.Set("Allow", strings.Join(s.cfg.Methods, ", "))
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Basic realm="carewire"`)
	}
	_ = control.SetWriteDeadline(time.Now().Add(s.cfg.Timeout))
	w.WriteHeader(status)
	s.channel.observeHTTP(status, status == s.cfg.ResponseStatusCode, time.Since(whole))
}

// message returns the message of a request, or the status that says why there is
// none. Its length is counted in s.bodies.
func (s *httpSource) message(w http.ResponseWriter, r *http.Request) (raw []byte, status int) {
	switch {
	case !s.allowed(r):
		return nil, http.StatusUnauthorized
	case r.URL.Path != s.cfg.ContextPath:
		return nil, http.StatusNotFound
	case !slices.Contains(s.cfg.Methods, r.Method):
		return nil, http.StatusMethodNotAllowed
	case r.Header.Get("Content-Encoding") != "":
		return nil, http.StatusUnsupportedMediaType // what is stored are the bytes of the message
	case r.ContentLength > s.cfg.MaxMessageSize:
		return nil, http.StatusRequestEntityTooLarge
	}
	body := http.MaxBytesReader(w, r.Body, s.cfg.MaxMessageSize)
	raw = make([]byte, 0, min(max(r.ContentLength, 512), 64<<10)) // what is announced is not taken on trust
	for {
		if len(raw) == cap(raw) {
			raw = slices.Grow(raw, min(len(raw), 1<<20))
		}
		n, err := body.Read(raw[len(raw):cap(raw)])
		raw = raw[:len(raw)+n]
		if s.bodies.Add(int64(n)) > maxBodies {
			return raw, http.StatusServiceUnavailable
		}
		if err == io.EOF {
			break
		}
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return raw, http.StatusRequestEntityTooLarge
		}
		if err != nil {
			return raw, http.StatusBadRequest // it broke off, or took too long
		}
	}
	if len(raw) == 0 {
		return raw, http.StatusBadRequest
	}
	return raw, 0
}

// allowed tells whether the sender may send.
func (s *httpSource) allowed(r *http.Request) bool {
	if !s.cfg.UseAuthentication {
		return true
	}
	user, password, _ := r.BasicAuth()
	given := sha256.Sum256([]byte(user + ":" + password)) // of one length, so that comparing tells nothing
	return subtle.ConstantTimeCompare(given[:], s.user[:]) == 1
}

// take stores a message, and returns the status that says how that went.
func (s *httpSource) take(r *http.Request, raw []byte) int {
	if !s.channel.carries(raw) {
		return http.StatusUnprocessableEntity
	}
	switch err := s.channel.intake(r.Context(), store.Intake{ControlID: idOf(raw, ""), Raw: raw, Source: s.notes(r)}); {
	case err == nil:
		return s.cfg.ResponseStatusCode
	case errors.Is(err, store.ErrInvalid):
		return http.StatusUnprocessableEntity
	default:
		return http.StatusServiceUnavailable
	}
}

func (s *httpSource) notes(r *http.Request) store.Source {
	notes := map[string]string{"remoteAddress": r.RemoteAddr, "method": r.Method}
	set := s.cfg.Charset
	if contentType := r.Header.Get("Content-Type"); contentType != "" {
		notes["contentType"] = contentType
		if _, params, err := mime.ParseMediaType(contentType); err == nil && params["charset"] != "" {
			var said mllp.Charset
			if said.UnmarshalText([]byte(params["charset"])) == nil {
				set = said
			}
		}
	}
	if set != mllp.CharsetAuto {
		notes[charsetNote] = string(set)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		notes["tlsClientSubject"] = r.TLS.PeerCertificates[0].Subject.String()
	}
	return store.NewSource(notes)
}

func (s *httpSource) listener() Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Listener{
		Host: s.cfg.Host, Port: s.port, Transport: "HTTP", Listening: s.server != nil,
		Connections: len(s.conns), MaxConnections: s.cfg.MaxConnections,
	}
	if s.tls != nil {
		l.Transport = "HTTPS"
	}
	return l
}

// limitedListener closes the connections that are too many.
type limitedListener struct {
	net.Listener
	conns chan struct{} // has as many as are open
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.conns <- struct{}{}:
			return &limitedConn{Conn: conn, give: sync.OnceFunc(func() { <-l.conns })}, nil
		default:
			_ = conn.Close() // of which nothing was read
		}
	}
}

type limitedConn struct {
	net.Conn
	give func()
}

// CloseWrite lets the server end a connection so that its last answer arrives.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *limitedConn) Close() error {
	defer c.give()
	return c.Conn.Close()
}
