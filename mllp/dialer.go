package mllp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// The defaults of a Dialer. Peers wait between 1 and 120 s for an
// acknowledgement; 30 s is what the slower of them need on a busy day.
const (
	defaultDialTimeout      = 10 * time.Second
	defaultHandshakeTimeout = 10 * time.Second
	defaultAckTimeout       = 30 * time.Second
	defaultSendTimeout      = 10 * time.Second

	// slowestSend is the rate, in bytes per second, at which a receiver must at
	// least take a long message.
	slowestSend = 16 << 10
)

// keepAlive finds within two minutes that a peer has vanished without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

// A Dialer makes connections to a receiver of HL7 messages. The zero value is
// ready to use and speaks MLLP without TLS.
//
// Its fields must not be changed after the first call of a method; all methods
// are safe for concurrent use. In durations zero means the default that is
// given with the field and a negative value means no limit; the limits of the
// contexts given to DialContext and Send hold besides, the earlier one wins.
type Dialer struct {
	// NetDialer makes the connection below MLLP and TLS; a *net.Dialer, to bind
	// to a local address, or anything like it, to go through a proxy. Nil means
	// a net.Dialer that tries all addresses of a name and probes an idle
	// connection after 60 s, then every 15 s, 4 times. On Linux, unless
	// WriteTimeout is negative, a connection also ends when the peer's system has
	// not confirmed what was sent for two minutes.
	NetDialer interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	}
	// LocalAddr is where connections come from: an IP address, a ":port", or both
	// as "ip:port". Only one connection at a time can come from a port; one that has
	// just been closed may be in the way of the next for a second. Empty: as
	// the system likes. With NetDialer it is refused.
	LocalAddr string

	// TLS are the settings of TLS as configuration files have them. Nil, or
	// Enabled false, means no TLS. Files are read at the first DialContext and
	// looked at again at later ones, at most once in TLS.ReloadInterval.
	TLS *tlsprops.TlsProperties
	// TLSConfig, if not nil, turns TLS on and replaces TLS. An empty ServerName
	// becomes the host that is dialed.
	TLSConfig *tls.Config

	// Framing is how messages are told apart, which must be as the receiver has
	// it. The zero value is MLLP release 1.
	Framing Framing

	DialTimeout      time.Duration // for resolving the name and connecting; 0: 10 s
	HandshakeTimeout time.Duration // for the TLS handshake; 0: 10 s

	// Timeout is how long Send waits for an acknowledgement after the message
	// was written; 0: 30 s.
	Timeout time.Duration
	// WriteTimeout is how long writing a message may take, to which a second is
	// added for every 16 KiB of it, and up to one more; 0: 10 s.
	WriteTimeout time.Duration

	// MaxMessageBytes is the size of the longest reply that is read, not of
	// what is sent; 0: 16 MiB. Negative is refused.
	MaxMessageBytes int64
	// Window is how many messages may be under way on one Conn at a time, each
	// waiting for its acknowledgement; 0: 1, the only number that every
	// receiver understands. Negative is refused.
	Window int
	// Match says which reply acknowledges a message. The zero value is MatchControlID.
	Match Match

	// Enhanced has Send wait for each acknowledgement that the message itself asks
	// for with MSH-15 and MSH-16 (HL7 2.x, chapter 2, enhanced mode), instead of
	// for the first one: see [Conn.Send]. With MatchAny it is refused.
	Enhanced bool
	// MissingCondition is, with Enhanced, what one of MSH-15 and MSH-16 counts as that
	// is empty while the other is not. If empty, NE. It must be what the receiver
	// takes it for.
	MissingCondition AckCondition
	// ApplicationTimeout is how long Send waits, with Enhanced, for the
	// application's acknowledgement after the commit acknowledgement; 0: 30 s.
	ApplicationTimeout time.Duration
	// Correlator, if not nil, brings Send the application acknowledgements that
	// arrive otherwise than on its own Conn. It needs Enhanced.
	Correlator *Correlator

	// Observe is called for each event: connections dialed, dial_failed and closed,
	// with a Client and a Responder too, and message_begun and message_ended of
	// Conn.Send and its like. It is called from several goroutines at a time, and must not block.
	// May be nil.
	Observe func(Event)

	mu     sync.Mutex
	source *tlsprops.Source // guarded by mu; nil until TLS has been loaded
}

// Match says which reply acknowledges a message.
type Match int

const (
	// MatchControlID takes the reply whose MSA-2 is the message's MSH-10, byte
	// for byte. Any other acknowledgement that comes in the meantime is counted
	// in [Reply] and passed over; Send goes on waiting.
	MatchControlID Match = iota
	// MatchStrict is MatchControlID, but any other acknowledgement ends the
	// connection with ErrMismatch: the messages under way are Unknown.
	MatchStrict
	// MatchAny takes the next acknowledgement whatever its MSA-2, for receivers
	// that leave it out. What is sent need be no HL7 message then, but the
	// reply must have an MSA segment all the same. A Window above 1 is refused.
	MatchAny
	// MatchNone waits for no acknowledgement, and reads and forgets whatever the
	// receiver says: Send returns, with outcome Sent, when the message is written.
	// What is sent need be no HL7 message then. It is Mirth's ignoreResponse, for
	// those who would rather lose a message than wait.
	MatchNone
)

var matchNames = map[Match]string{MatchControlID: "controlID", MatchStrict: "strict", MatchAny: "any", MatchNone: "none"}

// parse reads the header of a message by which its acknowledgement will be known.
func (m Match) parse(h *Header, msg []byte) error {
	if m == MatchAny || m == MatchNone {
		return nil
	}
	if err := h.Parse(msg); err != nil {
		return err
	}
	if len(h.ControlID) == 0 {
		return ErrNoControlID
	}
	return nil
}

// String returns "controlID", "strict", "any" or "none".
func (m Match) String() string {
	if name, ok := matchNames[m]; ok {
		return name
	}
	return fmt.Sprintf("Match(%d)", int(m))
}

// MarshalText returns what String does; an unknown Match is an error.
func (m Match) MarshalText() ([]byte, error) {
	if name, ok := matchNames[m]; ok {
		return []byte(name), nil
	}
	return nil, fmt.Errorf("mllp: unknown %v", m)
}

// UnmarshalText takes the words of String, and nothing for MatchControlID.
func (m *Match) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = MatchControlID
		return nil
	}
	for match, name := range matchNames {
		if string(text) == name {
			*m = match
			return nil
		}
	}
	return errors.New(`mllp: match must be "controlID", "strict", "any" or "none"`)
}

// Transport returns "MLLPS" if connections use TLS, "MLLP" if not; with FRAME and
// RAW, "TCP+TLS" and "TCP".
func (d *Dialer) Transport() string {
	return d.Framing.transport(d.TLSConfig != nil || d.TLS != nil && d.TLS.Enabled)
}

// DialContext connects to addr, "host:port", on network, "tcp", "tcp4" or
// "tcp6". It returns after the TLS handshake, if there is one, and never falls
// back to a connection without TLS. ctx bounds the call, not the Conn.
//
// The error is always a *[SendError] with outcome NotSent. It is not Retryable
// where the fault is in the configuration: settings that contradict each other,
// files that cannot be used, a certificate that is not trusted or of another
// name, a client certificate that the peer refuses. A peer that speaks TLS 1.3
// refuses it only after DialContext has returned: see ErrPeerRejectedCertificate.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (*Conn, error) {
	c, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, network, addr string) (*Conn, *SendError) {
	return d.dialTo(ctx, network, addr, d.Match)
}

// dialTo is dial with another Match.
func (d *Dialer) dialTo(ctx context.Context, network, addr string, match Match) (*Conn, *SendError) {
	began := time.Now()
	c, err := d.open(ctx, network, addr)
	if d.Observe != nil {
		took := time.Since(began)
		if err != nil {
			d.Observe(dialFailed(err, took))
		} else {
			d.Observe(dialed(c, took))
		}
	}
	if err != nil {
		return nil, err
	}
	c.match = match
	go c.readLoop()
	return c, nil
}

func (d *Dialer) open(ctx context.Context, network, addr string) (*Conn, *SendError) {
	if err := d.check(); err != nil {
		return nil, refused(err)
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, refused(errors.New(`mllp: the network must be "tcp", "tcp4" or "tcp6"`))
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, refused(fmt.Errorf("mllp: %w", err))
	}
	config, err := d.tlsConfig(ctx, host)
	if err != nil {
		return nil, refused(fmt.Errorf("mllp: %w", err))
	}
	nc, sendErr := d.connect(ctx, network, addr)
	if sendErr != nil {
		return nil, sendErr
	}
	if config == nil {
		if err := d.Framing.checkRaw(nc); err != nil {
			_ = nc.Close()
			return nil, refused(err)
		}
		return d.newConn(nc, nil, nil), nil
	}
	wire := &farewell{Conn: nc}
	secured := tls.Client(wire, config)
	ctx, cancel := withTimeout(ctx, d.HandshakeTimeout, defaultHandshakeTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // the handshake's error is the one that matters
		return nil, handshakeError(err)
	}
	return d.newConn(nc, secured, wire), nil
}

// check returns the first contradiction in the settings.
func (d *Dialer) check() error {
	switch {
	case d.MaxMessageBytes < 0:
		return errors.New("mllp: Dialer.MaxMessageBytes is negative")
	case d.Window < 0:
		return errors.New("mllp: Dialer.Window is negative")
	case matchNames[d.Match] == "":
		return errors.New("mllp: Dialer.Match is unknown")
	case d.Match == MatchAny && d.Window > 1:
		return errors.New("mllp: with MatchAny, Dialer.Window must be 1: replies could not be told apart")
	case d.Match == MatchAny && d.Enhanced:
		return errors.New("mllp: with MatchAny, Dialer.Enhanced must not be set: acknowledgements could not be told apart")
	case d.Match == MatchNone && d.Enhanced:
		return errors.New("mllp: with MatchNone, Dialer.Enhanced must not be set: acknowledgements are not looked at")
	case d.Correlator != nil && !d.Enhanced:
		return errors.New("mllp: Dialer.Correlator is set, but not Dialer.Enhanced")
	case d.LocalAddr != "" && d.NetDialer != nil:
		return errors.New("mllp: Dialer.LocalAddr and NetDialer exclude each other")
	case d.Window > 1 && (d.Framing.mode() == ModeMLLPv2 || d.Framing.mode() == ModeRAW || !d.Framing.keepOpen()):
		return errors.New("mllp: with MLLPv2, RAW and connections for one message, Dialer.Window must be 1")
	case d.Framing.mode() == ModeMLLPv2 && (d.Enhanced || d.Match == MatchNone):
		return errors.New("mllp: with MLLPv2, whose commits are an acknowledgement of their own, neither Dialer.Enhanced nor MatchNone can be used")
	}
	if err := d.MissingCondition.missing("Dialer", d.Enhanced); err != nil {
		return err
	}
	if _, err := d.localAddr(); err != nil {
		return err
	}
	return d.Framing.Validate()
}

// tlsConfig returns the configuration for a connection to host, nil for none.
func (d *Dialer) tlsConfig(ctx context.Context, host string) (*tls.Config, error) {
	if d.TLSConfig != nil {
		config := d.TLSConfig.Clone()
		if config.ServerName == "" {
			config.ServerName = host
		}
		return config, nil
	}
	if d.TLS == nil {
		return nil, nil
	}
	if !d.TLS.Enabled {
		return nil, d.TLS.Validate() // settings without Enabled are a mistake, not a wish for plaintext
	}
	source, err := d.load()
	if err != nil {
		return nil, err
	}
	_ = source.Refresh(ctx) // its only error is that ctx has ended, which connecting notices too
	return source.ClientConfig(host)
}

func (d *Dialer) load() (*tlsprops.Source, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.source == nil {
		source, err := tlsprops.Load(*d.TLS)
		if err != nil {
			return nil, err
		}
		d.source = source
	}
	return d.source, nil
}

func (d *Dialer) connect(ctx context.Context, network, addr string) (net.Conn, *SendError) {
	dialer := d.NetDialer
	if dialer == nil {
		dialer = d.netDialer()
	}
	ctx, cancel := withTimeout(ctx, d.DialTimeout, defaultDialTimeout)
	defer cancel()
	nc, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, notSent(fmt.Errorf("mllp: %w", err))
	}
	return nc, nil
}

// withTimeout bounds ctx by d, or by byDefault if d is 0.
func withTimeout(ctx context.Context, d, byDefault time.Duration) (context.Context, context.CancelFunc) {
	if d = duration(d, byDefault); d < 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// duration returns d, or byDefault if d is 0.
func duration(d, byDefault time.Duration) time.Duration {
	if d == 0 {
		return byDefault
	}
	return d
}
