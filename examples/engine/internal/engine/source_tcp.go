package engine

import (
	"context"
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

// tcpSource is a port that takes messages in by MLLP or MLLPS.
type tcpSource struct {
	// static after construction
	cfg          config.TCPSource
	tls          *tlsprops.TlsProperties // nil: none
	engine       *Engine
	channel      *channel
	destinations []string
	log          *slog.Logger

	refusing atomic.Bool // whether the last message could not be stored

	mu     sync.Mutex
	server *mllp.Server  // nil: closed; guarded by mu
	port   int           // the one that is open, or the configured one; guarded by mu
	done   chan struct{} // closed when server's Serve has returned; guarded by mu
}

func newTCPSource(e *Engine, ch *channel, opts Options) *tcpSource {
	s := &tcpSource{
		cfg: ch.cfg.Source.TCP, tls: tlsFor(ch.cfg.Source.TCP.TLS, ch.log, opts),
		engine: e, channel: ch, log: ch.log, port: ch.cfg.Source.TCP.Port,
	}
	for _, d := range ch.cfg.Destinations {
		s.destinations = append(s.destinations, d.Name)
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
	own.Logger = log
	own.Decoder = keystore.Decoder // so that JKS and PKCS#12 files may be named
	return &own
}

// open begins to listen. When it returns nil, the port is open.
func (s *tcpSource) open(ctx context.Context) error {
	if s.tls != nil {
		// The server reads the files too, but then the port would be open already.
		silent := *s.tls
		silent.Logger = nil
		source, err := tlsprops.Load(silent)
		if err == nil {
			_, err = source.ServerConfig()
		}
		if err != nil {
			return err
		}
	}
	host, port := s.address()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	server := &mllp.Server{
		Handler: s, TLS: s.tls, MaxConns: s.cfg.MaxConnections, Logger: s.log, ConnContext: withSource,
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
	if r.Flags&mllp.StrayControl != 0 && s.engine.sendsByMLLP(s.channel.cfg) {
		return nil, &mllp.Nak{Code: mllp.AR, Text: "message holds framing characters and cannot be passed on"}
	}
	_, err := s.engine.store.Intake(ctx, store.Intake{
		Channel: s.channel.cfg.ID, ControlID: string(r.Header.ControlID), Raw: r.Message,
		Source: sourceOf(ctx), Destinations: s.destinations,
	})
	// Also after an error, which can hide a commit: who looks in vain loses nothing.
	s.channel.wake()
	if err == nil {
		if s.refusing.CompareAndSwap(true, false) {
			s.log.InfoContext(ctx, "messages are stored and accepted again")
		}
		return nil, nil
	}
	if errors.Is(err, store.ErrInvalid) {
		s.log.ErrorContext(ctx, "message cannot be stored, refused", "bytes", len(r.Message), "err", err)
		return nil, &mllp.Nak{Code: mllp.AR, Text: "message cannot be stored"}
	}
	if s.refusing.CompareAndSwap(false, true) {
		s.log.ErrorContext(ctx, "messages cannot be stored and are refused", "err", err)
	}
	if s.cfg.OnStoreError == "close" {
		return nil, mllp.ErrNoReply
	}
	return nil, &mllp.Nak{Code: mllp.AE, Text: "message was not stored, send it again"}
}

// sourceKey is under which a connection's context has its store.Source.
type sourceKey struct{}

// withSource notes what is the same for all messages of a connection.
func withSource(ctx context.Context, info mllp.ConnInfo) context.Context {
	notes := map[string]string{"remoteAddress": info.RemoteAddr.String(), "localAddress": info.LocalAddr.String()}
	if info.Identity != nil {
		notes["tlsClientSubject"] = info.Identity.Subject
	}
	return context.WithValue(ctx, sourceKey{}, store.NewSource(notes))
}

func sourceOf(ctx context.Context) store.Source {
	source, _ := ctx.Value(sourceKey{}).(store.Source)
	return source
}

// address is where the source listens, or would.
func (s *tcpSource) address() (host string, port int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Host, s.port
}

// connections returns how many senders are connected, and whether the port is
// open.
func (s *tcpSource) connections() (n int, listening bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return 0, false
	}
	return s.server.Conns(), true
}

// transport is "MLLPS" where TLS is on, and "MLLP".
func (s *tcpSource) transport() string {
	return (&mllp.Server{TLS: s.tls}).Transport()
}
