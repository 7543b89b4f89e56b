package smtpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// A Sender sends messages to one server, over connections that it keeps for the
// next message. Host and Encryption must be set. All methods may be called by
// several goroutines at a time; the fields must not change after the first call.
type Sender struct {
	// Host is the server's name or IP address. Its certificate must be for it.
	Host string
	Port int // zero: Encryption.DefaultPort
	// Encryption must be set: there is no default.
	Encryption SmtpEncryption

	// TLS are the settings of TLS, which Enabled true must go with. Nil: the
	// server's certificate is checked against the host's roots. With encryption
	// none there can be no settings. Files are read at the first Send and looked
	// at again later, at most once in TLS.ReloadInterval; after they have changed
	// no message goes over a connection that was made before.
	TLS *tlsprops.TlsProperties
	// TLSConfig, if not nil, replaces TLS. An empty ServerName becomes Host.
	TLSConfig *tls.Config
	// Auth says who we are. Zero: we do not.
	Auth Auth

	// NetDialer makes the TCP connection: a *net.Dialer to bind to a local address,
	// or anything like it, to go through a proxy. Nil means a net.Dialer.
	NetDialer interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	}
	// LocalName is what we call ourselves in EHLO. Empty: the connection's local
	// address in brackets.
	LocalName string

	Timeouts Timeouts

	// MaxConns is how many connections there are at most; a further Send waits
	// for one. Zero: 4. Negative is refused.
	MaxConns int
	// MaxMessagesPerConn is how many messages a connection carries. Zero: 100,
	// what servers allow at least. Negative: no limit.
	MaxMessagesPerConn int
	// IdleTimeout is how long a connection is kept without a message. Zero: 30 s.
	// Negative: not at all.
	IdleTimeout time.Duration

	// MaxMessageBytes is the size of the largest message as it is on the wire.
	// Zero: 512 MiB. Negative is refused.
	MaxMessageBytes int64
	// SpoolDir is where messages above 1 MiB are kept, in a file without a name,
	// while they are sent. Empty: os.TempDir.
	SpoolDir string

	// Observe is called for every Event, from the goroutine in which it happens.
	// It must not block. Nil: nobody is told.
	Observe func(Event)
	// Logger gets what Observe gets. Nil: nothing is logged.
	Logger *slog.Logger

	mu sync.Mutex
	// guarded by mu
	source *tlsprops.Source // nil until TLS has been loaded
	slots  chan struct{}    // of capacity MaxConns, full when all are in use; nil until the first Send
	idle   []*idleConn      // the one used last is at the end
	closed bool
	done   chan struct{} // closed by Close; nil until the first Send

	ending sync.WaitGroup // timers of idle connections, and what they do
}

// idleConn is a connection in the pool.
type idleConn struct {
	*conn
	timer *time.Timer
}

// Timeouts bound each step of a connection; the context of Send bounds all of
// them together. Zero means the default, which for all after the handshake is
// that of RFC 5321 section 4.5.3.2; negative means no limit.
type Timeouts struct {
	Dial      time.Duration // resolving the name and connecting; 30 s
	Handshake time.Duration // TLS; 30 s
	Greeting  time.Duration // the server's first words; 5 min
	Command   time.Duration // the answer to EHLO, AUTH, MAIL, RCPT, RSET; 5 min
	Data      time.Duration // the answer to DATA; 2 min
	Block     time.Duration // writing 16 KiB of the message; 3 min
	Final     time.Duration // the answer to the message; 10 min
}

func (t Timeouts) dial() time.Duration      { return cmp.Or(t.Dial, 30*time.Second) }
func (t Timeouts) handshake() time.Duration { return cmp.Or(t.Handshake, 30*time.Second) }
func (t Timeouts) greeting() time.Duration  { return cmp.Or(t.Greeting, 5*time.Minute) }
func (t Timeouts) command() time.Duration   { return cmp.Or(t.Command, 5*time.Minute) }
func (t Timeouts) data() time.Duration      { return cmp.Or(t.Data, 2*time.Minute) }
func (t Timeouts) block() time.Duration     { return cmp.Or(t.Block, 3*time.Minute) }
func (t Timeouts) final() time.Duration     { return cmp.Or(t.Final, 10*time.Minute) }

// Validate returns the first contradiction in the settings that can be seen
// without reading a file; nil if there is none. Send does the same.
func (s *Sender) Validate() error {
	if s.Host == "" {
		return errors.New("smtpx: Sender.Host is empty")
	}
	if strings.ContainsFunc(s.Host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("smtpx: Sender.Host has spaces or control characters")
	}
	if err := s.Encryption.check(); err != nil {
		return err
	}
	switch {
	case s.Port < 0 || s.Port > 65535:
		return errors.New("smtpx: Sender.Port must be from 1 to 65535, or 0 for the encryption's own")
	case s.LocalName != "" && !printableASCII(s.LocalName) || len(s.LocalName) > 255:
		return errors.New("smtpx: Sender.LocalName must be a name in ASCII")
	case s.MaxConns < 0:
		return errors.New("smtpx: Sender.MaxConns is negative")
	case s.MaxMessageBytes < 0:
		return errors.New("smtpx: Sender.MaxMessageBytes is negative")
	case s.Encryption == EncryptionNone && s.TLSConfig != nil:
		return errors.New("smtpx: encryption none, but Sender.TLSConfig is set: use tls or ssl")
	case s.Encryption == EncryptionNone && s.TLS != nil && s.TLS.Enabled:
		return errors.New("smtpx: encryption none, but TLS is enabled: use tls or ssl")
	case s.Encryption != EncryptionNone && s.TLSConfig == nil && s.TLS != nil && !s.TLS.Enabled:
		return fmt.Errorf("smtpx: encryption %s, but TLS has enabled false: set it, or leave the settings out", s.Encryption)
	}
	if s.TLS != nil && s.TLSConfig == nil {
		if err := s.TLS.ValidateFor(tlsprops.Client); err != nil {
			return fmt.Errorf("smtpx: %w", err)
		}
	}
	return s.Auth.check(s.Encryption)
}

// Send sends m and waits for the server's answer. It returns a nil error only if
// the server has taken the message for every recipient; then it is the server's
// to deliver. The error is always a *[SendError].
//
// The Result is never nil, and says what became of every recipient, as far as
// the message could be prepared at all. ctx bounds the call; if it ends after
// the end of the message was written, the outcome is Unknown.
func (s *Sender) Send(ctx context.Context, m *Message) (*Result, error) {
	result, err := s.send(ctx, m)
	if err != nil {
		return result, err
	}
	return result, nil
}

func (s *Sender) send(ctx context.Context, m *Message) (*Result, *SendError) {
	began := time.Now()
	if err := s.Validate(); err != nil {
		return &Result{}, unfit(err)
	}
	release, err := s.acquire(ctx)
	if err != nil {
		return &Result{}, err
	}
	defer release()
	spooled := &spool{dir: s.SpoolDir, limit: cmp.Or(s.MaxMessageBytes, defaultMaxMessage), ended: func() error { return context.Cause(ctx) }}
	defer spooled.Close()
	env, id, composeErr := compose(m, spooled)
	if composeErr != nil {
		err := unmade(ctx, composeErr)
		s.tell(ctx, Event{Kind: EventMessage, Outcome: NotSent, Duration: time.Since(began), Err: err})
		return &Result{}, err
	}
	d := &delivery{env: &env, spool: spooled}
	err = s.deliver(ctx, d)
	if d.recipients == nil { // there was no connection
		for _, to := range env.to {
			r := Recipient{Address: to, Outcome: err.Outcome, Reply: err.Reply, permanent: !err.retry}
			d.recipients = append(d.recipients, r)
		}
	}
	result := &Result{MessageID: id, Bytes: spooled.size, Recipients: d.recipients, DSN: d.dsn && d.begun}
	s.tell(ctx, messageEvent(result, err, time.Since(began)))
	return result, err
}

// unmade is the error of a message that could not be prepared: the fault of the
// message, but where there is no room for it here, or no time.
func unmade(ctx context.Context, err error) *SendError {
	_, room := errors.AsType[*spoolError](err)
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) || room {
		return notSent(err)
	}
	return unfit(err)
}

// deliver finds a connection and sends over it. One from the pool may have been
// closed by the server meanwhile: then a new one is tried, once, as long as no
// byte of the message was written.
func (s *Sender) deliver(ctx context.Context, d *delivery) *SendError {
	for c := s.take(ctx); c != nil; c = s.take(ctx) {
		err := s.over(ctx, c, d)
		if err == nil || d.begun || ctx.Err() != nil || err.Outcome == Rejected && err.Reply.Code != 421 ||
			err.Outcome == NotSent && !err.retry || err.Outcome == Partial {
			return err
		}
	}
	if ctx.Err() != nil {
		return notSent(fmt.Errorf("smtpx: %w", context.Cause(ctx)))
	}
	began := time.Now()
	c, err := s.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err.Err = errors.Join(err.Err, context.Cause(ctx))
		}
		s.tell(ctx, Event{Kind: EventConnectFailed, Outcome: err.Outcome, Reply: err.Reply, Duration: time.Since(began), Err: err})
		return err
	}
	s.tell(ctx, Event{Kind: EventOpened, RemoteAddr: c.remote(), Duration: time.Since(began), TLS: c.state()})
	return s.over(ctx, c, d)
}

// over runs d over c, and puts c back or closes it.
func (s *Sender) over(ctx context.Context, c *conn, d *delivery) *SendError {
	stop := c.watch(ctx)
	err := d.run(c)
	inTime := stop()
	if err != nil && ctx.Err() != nil && err.Err != nil {
		err.Err = errors.Join(err.Err, context.Cause(ctx))
	}
	if d.begun {
		c.sent++
	}
	alive := !c.dead && inTime && (err == nil || err.Outcome == Partial || err.Outcome == Rejected && err.Reply.Code != 421 || !d.dirty)
	if alive {
		s.put(ctx, c, err != nil && d.dirty)
		return err
	}
	s.drop(ctx, c, ReasonFailed)
	return err
}

// tlsConfig returns the configuration for a connection, nil for none, and the
// generation of its files.
func (s *Sender) tlsConfig(ctx context.Context) (*tls.Config, uint64, error) {
	switch {
	case s.Encryption == EncryptionNone:
		return nil, 0, nil
	case s.TLSConfig != nil:
		config := s.TLSConfig.Clone()
		if config.ServerName == "" {
			config.ServerName = s.Host
		}
		return config, 0, nil
	}
	source, err := s.load()
	if err != nil {
		return nil, 0, err
	}
	_ = source.Refresh(ctx) // its only error is that ctx has ended, which connecting notices too
	generation := source.Status().Generation
	config, err := source.ClientConfig(s.Host)
	return config, generation, err
}

func (s *Sender) load() (*tlsprops.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source == nil {
		props := tlsprops.TlsProperties{Enabled: true}
		if s.TLS != nil {
			props = *s.TLS
		}
		source, err := tlsprops.Load(props)
		if err != nil {
			return nil, err
		}
		s.source = source
	}
	return s.source, nil
}

// generation is that of the TLS files as they are now; 0 without files.
func (s *Sender) generation(ctx context.Context) uint64 {
	s.mu.Lock()
	source := s.source
	s.mu.Unlock()
	if source == nil {
		return 0
	}
	_ = source.Refresh(ctx)
	return source.Status().Generation
}
