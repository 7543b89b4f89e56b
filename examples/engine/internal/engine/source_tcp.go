package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/keystore"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// tcpSource takes messages in over TCP: on a port, or over a connection that it
// makes itself.
type tcpSource struct {
	// static after construction
	cfg        config.TCPSource
	framing    mllp.Framing
	tls        *tlsprops.TlsProperties // nil: none
	answerTLS  *tlsprops.TlsProperties // of connections for answers; nil: none
	replay     mllp.ReplayStore        // nil: none
	quarantine *quarantine             // nil: none
	channel    *channel
	log        *slog.Logger

	taken atomic.Bool // whether a message has been stored since the last connection that the source made

	mu     sync.Mutex
	server *mllp.Server  // nil: closed; guarded by mu
	port   int           // the one that is open, or the configured one; guarded by mu
	done   chan struct{} // closed when server's Serve has returned; guarded by mu
}

func newTCPSource(ch *channel, opts Options) *tcpSource {
	cfg := *ch.cfg.Source.TCP
	s := &tcpSource{
		cfg: cfg, framing: cfg.MLLP(), tls: tlsFor(cfg.TLS, ch.log, opts), answerTLS: tlsFor(cfg.ResponseTLS, ch.log, opts),
		channel: ch, log: ch.log, port: cfg.Port,
	}
	if r := cfg.Replay; r != nil {
		s.replay = &replayStore{latest: cfg.Server().Replay, store: ch.engine.store, channel: ch.cfg.ID, age: r.Age()}
	}
	if cfg.Quarantine != nil {
		s.quarantine = &quarantine{cfg: *cfg.Quarantine, log: ch.log}
	}
	return s
}

// tlsFor returns p with what a program sets, or nil where TLS is off.
func tlsFor(p *tlsprops.TlsProperties, log *slog.Logger, opts Options) *tlsprops.TlsProperties {
	if p == nil || !p.Enabled {
		return nil
	}
	own := *p
	own.ReloadInterval = opts.TLSReloadInterval
	own.Logger, own.Observe = log, opts.certificates
	own.Decoder = keystore.Decoder // so that JKS and PKCS#12 files may be named
	return &own
}

// open begins to listen. When it returns nil, the port is open. A source that
// makes its connection itself begins to, and goes on until it is closed.
func (s *tcpSource) open(ctx context.Context) error {
	server := s.newServer()
	var ln net.Listener
	var err error
	if s.cfg.Dials() {
		ln, err = s.newDialing()
	} else {
		ln, err = s.listen(ctx)
	}
	if err != nil {
		return err
	}
	done := make(chan struct{})
	s.mu.Lock()
	s.server, s.done = server, done
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		s.port = tcp.Port
	}
	s.mu.Unlock()
	go func() { // it outlives the request that opens the port
		defer close(done)
		err := server.Serve(context.Background(), ln)
		if errors.Is(err, mllp.ErrServerClosed) {
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

// newServer returns the server of one opening: it cannot be used again.
func (s *tcpSource) newServer() *mllp.Server {
	server := s.cfg.Server()
	server.Handler, server.Logger, server.ConnContext, server.Replay = s, s.log, s.withSource, s.replay
	server.Observe = s.channel.observeMLLP
	if server.TLS != nil {
		server.TLS = s.tls
	}
	if server.Responder != nil {
		server.Responder.Dialer.TLS = s.answerTLS
	}
	if s.cfg.Parallel > 1 {
		server.Key = orderKey(s.cfg.OrderKey)
	}
	if s.quarantine != nil {
		server.Quarantine, server.QuarantineBytes = s.quarantine.keep, s.cfg.Quarantine.Bytes
	}
	return server
}

// listen opens the port, if the files of TLS are good.
func (s *tcpSource) listen(ctx context.Context) (net.Listener, error) {
	if s.tls != nil {
		// The server reads the files too, but then the port would be open already.
		silent := *s.tls
		silent.Logger, silent.Observe = nil, nil
		source, err := tlsprops.Load(silent)
		if err == nil {
			_, err = source.ServerConfig()
		}
		if err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	port := s.port
	s.mu.Unlock()
	return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(s.cfg.Host, strconv.Itoa(port)))
}

// close closes the port and waits for the messages being taken in, until ctx
// ends; then it cuts their connections.
func (s *tcpSource) close(ctx context.Context) error {
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

// ServeMLLP makes a message durable. Only its nil lets an AA leave.
func (s *tcpSource) ServeMLLP(ctx context.Context, r *mllp.Request) ([]byte, error) {
	if r.Flags&mllp.IsAck != 0 {
		// Nobody answers an acknowledgement, so it would wait at the head of a
		// destination's queue for ever. Nothing is acknowledged here either.
		s.log.WarnContext(ctx, "an acknowledgement came in as a message and was dropped", "remote", r.RemoteAddr.String())
		return nil, nil
	}
	if !s.passable(r) {
		return nil, &mllp.Nak{Code: mllp.AR, Text: "message holds framing characters and cannot be passed on"}
	}
	switch err := s.channel.intake(ctx, store.Intake{
		ControlID: string(r.Header.ControlID), Raw: r.Message, Source: sourceOf(ctx), Once: s.once(r),
	}); {
	case err == nil:
		s.taken.Store(true)
		return nil, nil
	case errors.Is(err, store.ErrInvalid):
		return nil, &mllp.Nak{Code: mllp.AR, Text: "message cannot be stored"}
	case s.cfg.OnStoreError == "close" || s.cfg.ResponseMode == "NONE": // who gets no answers shall notice, too
		s.channel.tell(Event{Kind: Refused, Reason: ReasonUnavailable})
		return nil, mllp.ErrNoReply
	case errors.Is(err, ErrQueueFull):
		return nil, &mllp.Nak{Code: mllp.AE, Text: "too many messages wait, send it again later"}
	default:
		return nil, &mllp.Nak{Code: mllp.AE, Text: "message was not stored, send it again"}
	}
}

// once has a message that is repeated by the same sender, byte for byte, stored once,
// also when the process ended after the commit and before the answer was remembered.
func (s *tcpSource) once(r *mllp.Request) store.Once {
	if s.cfg.Replay == nil {
		return store.Once{}
	}
	sender := remoteHost(r.RemoteAddr)
	if t := r.TLS; t != nil && len(t.VerifiedChains) > 0 {
		sender = "certificate " + t.PeerCertificates[0].Issuer.String() + "\x00" + t.PeerCertificates[0].Subject.String()
	}
	h := sha256.New()
	fmt.Fprintf(h, "replay %d %s", len(sender), sender)
	h.Write(r.Message)
	return store.Once{Key: h.Sum(nil), For: s.cfg.Replay.Age()}
}

// remoteHost is who is there, whatever the port.
func remoteHost(addr net.Addr) string {
	if host, _, err := net.SplitHostPort(addr.String()); err == nil {
		return host
	}
	return addr.String()
}

// sourceKey is under which a connection's context has its store.Source.
type sourceKey struct{}

// withSource notes what is the same for all messages of a connection.
func (s *tcpSource) withSource(ctx context.Context, info mllp.ConnInfo) context.Context {
	notes := map[string]string{"remoteAddress": info.RemoteAddr.String(), "localAddress": info.LocalAddr.String()}
	if info.Identity != nil {
		notes["tlsClientSubject"] = info.Identity.Subject
	}
	if s.cfg.CharsetEncoding != mllp.CharsetAuto {
		notes[charsetNote] = string(s.cfg.CharsetEncoding)
	}
	return context.WithValue(ctx, sourceKey{}, store.NewSource(notes))
}

func sourceOf(ctx context.Context) store.Source {
	source, _ := ctx.Value(sourceKey{}).(store.Source)
	return source
}

// listener is where the source listens, or would, or what it connects to.
func (s *tcpSource) listener() Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Listener{
		Host: s.cfg.Host, Port: s.port, MaxConnections: s.cfg.MaxConnections,
		Transport: (&mllp.Server{TLS: s.tls, Framing: s.framing}).Transport(),
		Listening: s.server != nil,
	}
	if s.cfg.Dials() {
		l.Host, l.Port, l.MaxConnections = s.cfg.RemoteAddress, s.cfg.RemotePort, 1
	}
	if l.Listening {
		l.Connections = s.server.Conns()
	}
	return l
}

// passable tells whether the destinations' frames can carry the message.
func (s *tcpSource) passable(r *mllp.Request) bool {
	routes := s.channel.routes()
	for i := range routes {
		if isMLLP(&routes[i]) && isMLLP(&s.framing) {
			if r.Flags&mllp.StrayControl != 0 {
				return false
			}
		} else if _, err := routes[i].AppendFrame(nil, r.Message); err != nil {
			return false
		}
	}
	return true
}

// isMLLP tells whether f has the frames of MLLP, of either release.
func isMLLP(f *mllp.Framing) bool {
	return f.Mode == "" || f.Mode == mllp.ModeMLLP || f.Mode == mllp.ModeMLLPv2
}
