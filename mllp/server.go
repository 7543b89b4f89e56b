package mllp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/carewire/carewire/internal/netserver"
	"github.com/carewire/carewire/tlsprops"
)

// ErrServerClosed is returned by Serve and ListenAndServe after Shutdown, Close,
// or the end of their context; alone, or in a *DrainError.
var ErrServerClosed = errors.New("mllp: server closed")

// A Server receives messages over MLLP, or, with TLS, over MLLPS. Handler must
// be set; every other field has a default. Fields must not be changed after the
// first call of a method, and a Server not copied.
type Server struct {
	// Addr is where ListenAndServe listens. If empty, ":2575".
	Addr string
	// ListenRetry is for how long ListenAndServe tries again, once a second, while
	// Addr is in use, by a process that is about to end perhaps; each failed try is
	// an accept_failed event. (Mirth tries ten times.) If zero or negative, it fails
	// at once.
	ListenRetry time.Duration
	Handler     Handler
	// Stream, if not nil, takes the messages in place of Handler, which must be
	// nil then: see StreamHandler.
	Stream StreamHandler

	// Framing is how messages are told apart. The zero value is MLLP release 1.
	Framing Framing

	// TLS makes the Server speak TLS, with the files that it names: they are
	// loaded by Serve and, while that runs, again whenever they change. If nil, or
	// not enabled, the Server speaks MLLP without TLS.
	TLS *tlsprops.TlsProperties
	// TLSConfig, if not nil, is used in place of TLS. It is cloned.
	TLSConfig *tls.Config

	// MaxMessageBytes limits the text of a frame. If zero, 16 MiB; a negative
	// value is an error.
	MaxMessageBytes int64
	// MaxStreamBytes is MaxMessageBytes for messages that Stream takes. If zero,
	// 1 GiB; a negative value is an error.
	MaxStreamBytes int64
	// MaxBufferedBytes limits the memory for frames of all connections together,
	// not counting buffers of up to 64 KiB, of which each connection may have
	// one. When it is used up, connections that need more are not read until
	// others are done, which their FrameTimeout does not wait for. If zero,
	// 256 MiB, or 2.5 times MaxMessageBytes if that is more; less than that is an
	// error.
	MaxBufferedBytes int64
	// MaxBufferedBytesPerHost is the share of MaxBufferedBytes that the connections
	// from one IP address may have together; those beyond it wait likewise. If zero,
	// half of MaxBufferedBytes, or 2.5 times MaxMessageBytes if that is more; less
	// than that is an error. Negative means no limit.
	MaxBufferedBytesPerHost int64
	// MaxJunkBytes limits the bytes before a frame that do not belong to one. If
	// zero, 4 KiB; negative means none.
	MaxJunkBytes int64
	// MaxConns and MaxConnsPerHost limit the connections, and those from one IP
	// address. Further ones are closed at once. If zero, 1024 and 64; negative
	// means no limit.
	MaxConns, MaxConnsPerHost int
	// EvictIdle lets a new connection that one of these limits would refuse take
	// the place of another: the one, of that address or of all, that has been
	// without a message longest, and for at least so long. It helps where peers
	// vanish and come back faster than TCP keep-alive finds out, and lets newcomers
	// end connections that are merely quiet. If zero or negative, an established
	// connection is never ended for a new one.
	EvictIdle time.Duration

	// Allow and Deny say which IP addresses may connect. Others are closed before
	// a byte is exchanged. Deny comes first. If Allow is empty, all may that are
	// not in Deny.
	Allow, Deny Prefixes
	// TrustedProxies are the addresses of proxies that begin each connection with a
	// header of the PROXY protocol, version 1 or 2, which says who the client is;
	// Allow, Deny, MaxConnsPerHost and RemoteAddr then are about that client. From
	// these addresses the header is required, within HandshakeTimeout; from all
	// others it is an error of protocol. Where the header names no client (LOCAL,
	// UNKNOWN) the proxy counts as the client, also for Allow.
	TrustedProxies Prefixes
	// Senders say in whose name (MSH-3, MSH-4) the client with a certificate may
	// send. The first rule that is for the client decides; a client that none is
	// for may send nothing. What is not permitted is answered AR without the
	// handler. If empty, everybody may send everything. Needs TLS with client
	// certificates.
	Senders []SenderRule
	// RecheckClients ends, whenever the files of TLS have been loaded again, the
	// connections whose client certificate would not be accepted any more: its
	// authority was withdrawn, it was revoked, or it has expired. A message that
	// the handler has is answered first. If false, connections in hand go on, for
	// months perhaps. Needs TLS with client certificates.
	RecheckClients bool

	// HandshakeTimeout limits the TLS handshake. If zero, 10 s; negative means
	// no limit.
	HandshakeTimeout time.Duration
	// FrameTimeout limits the time from the first byte of a frame to its last.
	// For every 16 KiB received it is extended by a second, and by nothing else.
	// If zero, 60 s; negative means no limit.
	FrameTimeout time.Duration
	// IdleTimeout limits the time between frames. If zero or negative, there is
	// no limit: HL7 connections stay for months. Peers that have vanished are
	// found by TCP keep-alive within two minutes.
	IdleTimeout time.Duration
	// WriteTimeout limits the writing of one reply; it may take up to a second
	// more. If zero, 10 s; negative means no limit.
	WriteTimeout time.Duration
	// HandlerTimeout limits each call of Handler and of Application. After it the
	// context of the call ends, AE is sent (see Late), and what is returned later
	// is discarded; the next message of the connection waits for it. If zero or
	// negative, there is no limit.
	HandlerTimeout time.Duration
	// DrainTimeout limits the end of the Server: see Serve. If zero, 30 s;
	// negative means no limit.
	DrainTimeout time.Duration

	// Strict answers AR to a frame that lacks its last CR or has VT or FS in its
	// text, and closes the connection then, and also after junk before a frame.
	// By default these are accepted, with an event.
	Strict bool
	// FSOnlyDelay makes a frame that lacks its last CR complete when nothing
	// follows its FS for so long; 250 ms is enough. If zero or negative, such a
	// frame is complete only when the next one, or the end of the stream,
	// follows.
	FSOnlyDelay time.Duration
	// NotHL7 is for text that begins with none of MSH, FHS and BHS: close (the
	// default), reject, or deliver; then nothing but a reply of the handler's
	// own is sent. XML closes the connection unless the policy is deliver.
	NotHL7 Policy
	// NoControlID is for messages without MSH-10: reject (the default), error, or
	// deliver.
	NoControlID Policy
	// MultipleMSH is for frames with a second MSH segment without a batch header:
	// reject (the default) or deliver; then one answer is sent, quoting the first.
	MultipleMSH Policy
	// Batches is for frames that begin with FHS or BHS: reject (the default);
	// deliver, then one answer is sent, quoting FHS-11 or BHS-11, so the handler
	// must take all of the batch or nothing; or per-message, batch or last, then
	// the handler gets the messages of the batch one by one, unless the batch is
	// malformed or BTS-1 or FTS-1 are not what there is, which is answered AE.
	Batches Policy
	// Truncated is for a message in whose middle another one begins: resync (the
	// default) answers AE to the first, if its MSH-10 can be read, and handles
	// the second; close closes the connection.
	Truncated Policy

	// ConnContext, if not nil, is called once for each connection, in its
	// goroutine: after the handshake or, without TLS, after the first bytes, and
	// before the first message. It is the place for what a handler would otherwise
	// work out for every message. What it returns is the context of the
	// connection's handlers; it must be ctx or come from it, and nil closes the
	// connection.
	ConnContext func(ctx context.Context, info ConnInfo) context.Context
	// Enhanced heeds what messages ask for with MSH-15 and MSH-16 (HL7 2.x,
	// chapter 2, enhanced mode): see the package's documentation. By default each
	// message is answered once, with AA, AE or AR, as if they were empty: many
	// senders fill them in and do not know a CA.
	Enhanced bool
	// MissingCondition is, with Enhanced, what one of MSH-15 and MSH-16 counts as that
	// is empty while the other is not; an event tells of it in any case. If empty, NE.
	MissingCondition AckCondition
	// Application, if not nil, is called for each message that Handler has taken,
	// in enhanced mode after the commit acknowledgement has been written, and says
	// what the application acknowledgement is. In original mode that is the only
	// one, and an error says that a message that Handler has taken may come again.
	Application Handler
	// Silent has nothing answered, whatever becomes of a message (Mirth's
	// responseMode None): for senders that do not read. They cannot know what
	// arrived. ErrNoReply still closes the connection.
	Silent bool
	// Responder sends answers over connections of their own. If nil, they go over
	// that of the message.
	Responder *Responder
	// Key and Parallel let up to Parallel messages of one connection be handled at
	// a time, those waiting for others included: messages whose keys differ beside
	// each other, those with the same key in their order, those without a key by
	// themselves, after all before them and before all after them. Their
	// acknowledgements leave in the order in which the messages came. Key must be
	// fast, not modify the request, and return nil or part of it, such as PID-3.1.
	// Each message beside another takes a copy of its text from MaxBufferedBytes,
	// and is handled by itself when that is used up. If Key is nil and Parallel
	// zero or 1, off; one without the other is an error.
	Key      func(*Request) []byte
	Parallel int
	// Replay, if not nil, remembers what was answered to accepted messages: one
	// that comes again, to the byte, is answered the same without the Handler.
	// Messages without MSH-10 and acknowledgements do not count.
	Replay ReplayStore
	// DuplicateID is for messages, with Replay, whose MSH-10 another accepted one
	// of the same sender had: reject (the default), error or deliver.
	DuplicateID Policy

	// Late is for messages whose handler did not return within HandlerTimeout: error
	// (the default), or close, without an answer.
	Late Policy

	// Quarantine, if not nil, is called for each frame that does not reach the
	// handler, in the connection's goroutine, which waits for it: each bad_frame and
	// rejected event, after the answer if there is one.
	Quarantine func(ctx context.Context, f QuarantinedFrame)
	// QuarantineBytes is how many bytes of such a frame's text Quarantine gets at
	// most. They are patient data. If zero or negative, none.
	QuarantineBytes int

	// Logger gets the events, and those of TLS if that has no Logger of its own.
	// Of refused connections it gets ten in ten seconds and the number of the rest.
	// If nil, nothing is logged.
	Logger *slog.Logger
	// Observe is called for each event, from several goroutines at a time, and
	// must not block. May be nil.
	Observe func(Event)

	net      netserver.Server
	ids      atomic.Uint64 // control IDs given out
	replays  replays
	drain    drainReport
	refusals refusals
	once     sync.Once
	// set in once, static then
	idKey  [7]byte // makes control IDs unlike those of other processes
	budget *budget
	recent *recent // nil except with MLLP release 2
}

// ListenAndServe listens on Addr and calls Serve.
func (s *Server) ListenAndServe(ctx context.Context) error {
	if err := s.Validate(); err != nil {
		return err
	}
	addr := s.Addr
	if addr == "" {
		addr = ":2575"
	}
	ln, err := s.listen(ctx, addr)
	if err != nil {
		return fmt.Errorf("mllp: %w", err)
	}
	return s.Serve(ctx, ln)
}

// listen listens on addr, for ListenRetry again and again.
func (s *Server) listen(ctx context.Context, addr string) (net.Listener, error) {
	const pause = time.Second
	told := config{logger: s.Logger, observe: s.Observe}
	for began := time.Now(); ; {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Since(began)+pause > s.ListenRetry {
			return ln, err
		}
		told.tell(ctx, Event{Kind: EventAcceptFailed, Err: err, Duration: pause})
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// Serve accepts connections on ln, which it closes in the end, until ctx ends,
// Shutdown or Close is called, or ln is closed. It then drains: connections
// without a message in hand are closed at once, messages that have arrived are
// handled and acknowledged, and for those that are arriving there is time until
// DrainTimeout. What is left then is cut, and the contexts of handlers end.
//
// Serve returns when nothing that it started still runs. The error is never nil;
// see ErrServerClosed. A Server that has ended cannot be used again.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	cfg, err := s.config() //nolint:contextcheck // reading files has no use for one
	if err != nil {
		ln.Close()
		return err
	}
	if cfg.source != nil {
		var watch sync.WaitGroup
		watching, stop := context.WithCancel(context.WithoutCancel(ctx))
		watch.Go(func() { cfg.source.Watch(watching) })
		defer watch.Wait()
		defer stop()
	}
	err = s.net.Serve(ctx, ln, netserver.Options{
		NewConn:         func(raw net.Conn, peer netserver.Peer) netserver.Conn { return newConn(cfg, raw, peer) },
		Allow:           cfg.allow,
		Deny:            cfg.deny,
		Proxies:         cfg.proxies,
		HeaderTimeout:   cfg.handshakeTimeout,
		MaxConns:        cfg.maxConns,
		MaxConnsPerHost: cfg.maxConnsPerHost,
		EvictIdle:       cfg.evictIdle,
		DrainTimeout:    cfg.drainTimeout,
		Refused:         func(from netserver.Peer, why error) { cfg.tell(ctx, refusalEvent(from, why)) },
		Abandoned: func(nc netserver.Conn) {
			if one, ok := nc.(*conn); ok {
				s.drain.abandon(one)
			}
		},
		AcceptFailed: func(err error, pause time.Duration) {
			cfg.tell(ctx, Event{Kind: EventAcceptFailed, Err: err, Duration: pause})
		},
	})
	finished, _ := s.drain.read()
	cfg.tell(ctx, Event{Kind: EventDrained, Finished: finished, Abandoned: s.net.Abandoned()})
	if !errors.Is(err, netserver.ErrClosed) {
		return fmt.Errorf("mllp: %w", err)
	}
	return s.drained(ErrServerClosed)
}

// Shutdown drains as Serve does at the end of its context, until ctx ends or
// DrainTimeout has passed. It returns nil, or a *DrainError if messages in hand
// had to be abandoned. Serve may still be waiting then for a handler that does
// not heed its context.
func (s *Server) Shutdown(ctx context.Context) error {
	s.net.Shutdown(ctx)
	cause := context.Cause(ctx)
	if cause == nil {
		cause = context.DeadlineExceeded // DrainTimeout
	}
	return s.drained(cause)
}

// Close closes the listeners and all connections at once, and ends the contexts
// of handlers. It does not wait; Serve does. The error is always nil.
func (s *Server) Close() error {
	s.net.Close()
	return nil
}

// drained returns err or, if something was abandoned, says so; nil if nothing
// was, and err is not ErrServerClosed.
func (s *Server) drained(err error) error {
	if n := s.net.Abandoned(); n > 0 {
		finished, messages := s.drain.read()
		return &DrainError{Abandoned: n, Finished: finished, Messages: messages, Err: err}
	}
	if errors.Is(err, ErrServerClosed) {
		return err
	}
	return nil
}

// Transport returns "MLLPS" if the Server speaks TLS, else "MLLP"; with FRAME and
// RAW, "TCP+TLS" and "TCP".
func (s *Server) Transport() string {
	return s.Framing.transport(s.TLSConfig != nil || s.TLS != nil && s.TLS.Enabled)
}

// Conns returns the number of connections.
func (s *Server) Conns() int { return s.net.Conns() }
