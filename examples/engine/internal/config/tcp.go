package config

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// Framing is how messages are told apart on a connection, the same for a source
// and a destination. The keys that only one mode has are refused with another.
type Framing struct {
	// TransmissionMode is MLLP, which is the default, MLLPv2, FRAME or RAW.
	TransmissionMode string `yaml:"transmissionMode"`
	// StartOfMessageBytes (0 to 32) and EndOfMessageBytes (1 to 32) are for FRAME,
	// in hexadecimal. With MLLP and MLLPv2 they may say what is so anyway, 0B and
	// 1C0D, as exports of Mirth do.
	StartOfMessageBytes mllp.FrameBytes `yaml:"startOfMessageBytes"`
	EndOfMessageBytes   mllp.FrameBytes `yaml:"endOfMessageBytes"`
	// Delimiter is what ends a message with RAW: eof, idle, length or newline.
	Delimiter string `yaml:"delimiter"`
	// Idle is the silence that ends a message (or, with length, a reply). 0: 1 s.
	Idle time.Duration `yaml:"idle"`
	// Length is that of each message in bytes, for the delimiter length.
	Length int64 `yaml:"length"`
	// AllowUnverifiedEnd takes the end of a TLS connection that nobody announced for
	// that of a message.
	AllowUnverifiedEnd bool `yaml:"allowUnverifiedEnd"`
	// KeepConnectionOpen tells whether a connection carries more than one message.
	// Nil: it does, but for the delimiter eof, with which it cannot.
	KeepConnectionOpen *bool `yaml:"keepConnectionOpen"`
	// CommitTimeout and MaxRetries are for MLLPv2: how long to wait for a commit
	// (0: 15 s), and how often to send a frame again without one (0: 3; negative:
	// never).
	CommitTimeout time.Duration `yaml:"commitTimeout"`
	MaxRetries    int           `yaml:"maxRetries"`
}

// MLLP returns the framing as package mllp has it.
func (f *Framing) MLLP() mllp.Framing {
	out := mllp.Framing{
		Mode: mllp.Mode(f.TransmissionMode), Delimiter: mllp.Delimiter(f.Delimiter), Idle: f.Idle, Length: f.Length,
		AllowUnverifiedEnd: f.AllowUnverifiedEnd, KeepOpen: f.KeepConnectionOpen,
		CommitTimeout: f.CommitTimeout, Retries: f.MaxRetries,
	}
	if out.Mode == mllp.ModeFRAME {
		out.Start, out.End = f.StartOfMessageBytes, f.EndOfMessageBytes
	}
	return out
}

// KeepsOpen tells whether a connection carries more than one message.
func (f *Framing) KeepsOpen() bool {
	if f.KeepConnectionOpen != nil {
		return *f.KeepConnectionOpen
	}
	return f.Delimiter != string(mllp.DelimitEOF)
}

// TCPSource takes messages in over TCP, with TLS or without: on a port, or, with
// ServerMode CLIENT, over a connection that the engine makes.
type TCPSource struct {
	// ServerMode is SERVER, which is the default, or CLIENT.
	ServerMode string `yaml:"serverMode"`
	// Host is the address to listen on: 127.0.0.1, 0.0.0.0, a name. Required with
	// SERVER.
	Host string `yaml:"host"`
	// Port is 1 to 65535. Required with SERVER.
	Port int `yaml:"port"`
	// RemoteAddress and RemotePort are who to connect to. Required with CLIENT.
	RemoteAddress string `yaml:"remoteAddress"`
	RemotePort    int    `yaml:"remotePort"`

	Framing `yaml:",inline"`
	// CharsetEncoding is the character set of what comes in; auto and unset: that
	// of MSH-18. It is noted with the message for destinations that convert; the
	// bytes are stored as they came.
	CharsetEncoding mllp.Charset `yaml:"charsetEncoding"`
	// TLS is the guide's TlsProperties; nil and enabled: false mean none. With
	// CLIENT the engine is the client of TLS, too.
	TLS *tlsprops.TlsProperties `yaml:"tls"`

	// MaxConnections is how many senders may be connected at once, 0: 1024, and
	// MaxConnectionsPerHost how many of them from one address, 0: 64.
	MaxConnections        int `yaml:"maxConnections"`
	MaxConnectionsPerHost int `yaml:"maxConnectionsPerHost"`
	// ReceiveTimeout is how long a connection may be silent between messages. 0 and
	// unset: for ever.
	ReceiveTimeout time.Duration `yaml:"receiveTimeout"`
	// MaxMessageSize is the longest message that is taken, in bytes. 0: 16 MiB.
	MaxMessageSize int64 `yaml:"maxMessageSize"`
	// Batches is what happens to FHS and BHS batches: reject, which is the default,
	// deliver, per-message, batch or last, as in mllp.Server.
	Batches string `yaml:"batches"`

	// ResponseMode is AUTO, which is the default, or NONE: nothing is answered.
	ResponseMode string `yaml:"responseMode"`
	// OnStoreError is what a sender gets whose message could not be stored: "AE",
	// which is the default, or "close", no answer and a closed connection, for
	// senders that take an AE for final.
	OnStoreError string `yaml:"onStoreError"`
	// RespondOnNewConnection is 0: answers go over the connection of the message; 1:
	// over one of their own, to ResponseAddress and ResponsePort; 2: only those that
	// could not be written to the connection of the message.
	RespondOnNewConnection int                     `yaml:"respondOnNewConnection"`
	ResponseAddress        string                  `yaml:"responseAddress"`
	ResponsePort           int                     `yaml:"responsePort"`
	ResponseTLS            *tlsprops.TlsProperties `yaml:"responseTls"` // of that connection
	// EnhancedAcknowledgement heeds MSH-15 and MSH-16, and MissingCondition, AL, NE,
	// ER or SU, is what one of them counts as that is empty while the other is not;
	// empty: NE.
	EnhancedAcknowledgement bool   `yaml:"enhancedAcknowledgement"`
	MissingCondition        string `yaml:"missingCondition"`

	// Allow and Deny are the addresses that may connect; none in Allow: all.
	Allow []AddressRange `yaml:"allow"`
	Deny  []AddressRange `yaml:"deny"`
	// TrustedProxies are those that must begin with a header of the PROXY protocol.
	TrustedProxies []AddressRange `yaml:"trustedProxies"`
	// Senders say in whose name the holder of a certificate may send.
	Senders []mllp.SenderRule `yaml:"senders"`
	// RecheckClients ends connections whose client certificate is no longer
	// accepted when TLS files have changed.
	RecheckClients bool `yaml:"recheckClients"`

	// OrderKey is the field, such as PID-3.1, whose equal values keep their order
	// when up to Parallel messages of a connection are taken in side by side.
	OrderKey HL7Path `yaml:"orderKey"`
	Parallel int     `yaml:"parallel"`
	// Replay, if set, answers a message that comes again as it was answered before,
	// without taking it in again.
	Replay *Replay `yaml:"replay"`
	// Quarantine, if set, keeps note of frames that did not become messages.
	Quarantine *Quarantine `yaml:"quarantine"`
}

// Replay is a memory of what was answered, on disk.
type Replay struct {
	MaxAge time.Duration `yaml:"maxAge"` // 0: 24 h
	// MaxEntries is how many answers are in memory, too. 0: 100,000.
	MaxEntries int `yaml:"maxEntries"`
	// DuplicateControlID is what becomes of another message with the MSH-10 of one
	// that was accepted: reject (AR), which is the default, error (AE) or deliver.
	DuplicateControlID string `yaml:"duplicateControlId"`
}

// Age is how long a message is remembered.
func (r *Replay) Age() time.Duration {
	if r.MaxAge == 0 {
		return 24 * time.Hour // as package mllp has it
	}
	return r.MaxAge
}

// Quarantine is a directory with a file about each bad frame.
type Quarantine struct {
	Directory string `yaml:"directory"`
	// Bytes is how much of the frame is kept, in a file beside: patient data. 0:
	// nothing.
	Bytes int `yaml:"bytes"`
	// MaxFiles is how many bad frames are kept; of those beyond it only the log
	// tells. 0: 10,000.
	MaxFiles int `yaml:"maxFiles"`
}

// Server returns what package mllp needs to know, without what is the engine's:
// handler, files of TLS, key function, the memory of answers that is on disk, hooks.
func (s *TCPSource) Server() *mllp.Server {
	server := &mllp.Server{
		Framing: s.MLLP(), MaxMessageBytes: s.MaxMessageSize, Batches: mllp.Policy(s.Batches),
		MaxConns: s.MaxConnections, MaxConnsPerHost: s.MaxConnectionsPerHost, IdleTimeout: s.ReceiveTimeout,
		Allow: prefixes(s.Allow), Deny: prefixes(s.Deny), TrustedProxies: prefixes(s.TrustedProxies),
		Senders: s.Senders, RecheckClients: s.RecheckClients,
		Silent: s.ResponseMode == "NONE", Enhanced: s.EnhancedAcknowledgement, Parallel: s.Parallel,
		MissingCondition: mllp.AckCondition(s.MissingCondition),
	}
	if !s.Dials() {
		server.TLS = s.TLS
	}
	if s.RespondOnNewConnection != 0 {
		server.Responder = &mllp.Responder{
			Addr:   net.JoinHostPort(s.ResponseAddress, strconv.Itoa(s.ResponsePort)),
			Dialer: &mllp.Dialer{Framing: s.MLLP(), TLS: s.ResponseTLS},
		}
		if s.RespondOnNewConnection == 2 {
			server.Responder.When = mllp.RespondOnRecovery
		}
	}
	if s.Replay != nil {
		server.Replay = &mllp.MemoryReplay{MaxAge: s.Replay.MaxAge, MaxEntries: s.Replay.MaxEntries}
		server.DuplicateID = mllp.Policy(s.Replay.DuplicateControlID)
	}
	return server
}

// Dials tells whether the engine makes the connection.
func (s *TCPSource) Dials() bool { return s.ServerMode == "CLIENT" }

// TCPDestination sends over TCP, with TLS or without.
type TCPDestination struct {
	Host string `yaml:"host"`
	Port int    `yaml:"port"`

	Framing `yaml:",inline"`
	// CharsetEncoding is the set into which messages are converted from that of
	// their source or, if it has none, of MSH-18. Unset, raw and auto: they are sent
	// as they came.
	CharsetEncoding mllp.Charset            `yaml:"charsetEncoding"`
	TLS             *tlsprops.TlsProperties `yaml:"tls"`
	// LocalAddress, an IP address, and LocalPort are where connections come from.
	// Unset: as the system likes.
	LocalAddress string `yaml:"localAddress"`
	LocalPort    int    `yaml:"localPort"`

	// SendTimeout is how long a connection is kept on which nothing is sent. 0 and
	// unset: as long as the receiver keeps it.
	SendTimeout time.Duration `yaml:"sendTimeout"`
	// ResponseTimeout is how long to wait for an acknowledgement. 0: 30 s.
	ResponseTimeout time.Duration `yaml:"responseTimeout"`
	// IgnoreResponse takes a message for delivered when it is written.
	IgnoreResponse bool `yaml:"ignoreResponse"`
	// QueueOnResponseTimeout says what becomes of a message whose acknowledgement
	// did not come: nil and true, it stays in the queue and is sent again; false, it
	// is set aside as a dead letter that may have arrived.
	QueueOnResponseTimeout *bool `yaml:"queueOnResponseTimeout"`
	// CheckRemoteHost has no effect: the end of a kept connection is always noticed
	// before a message is written to it.
	CheckRemoteHost *bool `yaml:"checkRemoteHost"`
	// EnhancedAcknowledgement waits for what MSH-15 and MSH-16 of the message ask
	// for, and ApplicationTimeout is how long to wait for the second
	// acknowledgement; 0: 30 s. MissingCondition is as in a source; it must be what
	// the receiver takes an empty field for.
	EnhancedAcknowledgement bool          `yaml:"enhancedAcknowledgement"`
	MissingCondition        string        `yaml:"missingCondition"`
	ApplicationTimeout      time.Duration `yaml:"applicationTimeout"`
}

// Dialer returns what package mllp needs to know. The files of TLS are the
// engine's to add to.
func (t *TCPDestination) Dialer() *mllp.Dialer {
	d := &mllp.Dialer{
		Framing: t.MLLP(), TLS: t.TLS, Timeout: t.ResponseTimeout,
		Enhanced: t.EnhancedAcknowledgement, ApplicationTimeout: t.ApplicationTimeout,
		MissingCondition: mllp.AckCondition(t.MissingCondition),
		LocalAddr:        t.LocalAddress,
	}
	if t.LocalPort != 0 {
		d.LocalAddr = net.JoinHostPort(t.LocalAddress, strconv.Itoa(t.LocalPort))
	}
	if t.IgnoreResponse {
		d.Match = mllp.MatchNone
	}
	return d
}

// Address is where to send, "host:port".
func (t *TCPDestination) Address() string { return net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) }

// An AddressRange is a range of IP addresses, or one.
type AddressRange struct{ netip.Prefix }

// UnmarshalText reads 10.1.0.0/16, 2001:db8::/32 or 192.0.2.7.
func (a *AddressRange) UnmarshalText(text []byte) error {
	ranges, err := mllp.ParsePrefixes(string(text))
	if err != nil {
		return err
	}
	if len(ranges) != 1 {
		return errSyntax
	}
	a.Prefix = ranges[0]
	return nil
}

func prefixes(ranges []AddressRange) mllp.Prefixes {
	var all mllp.Prefixes
	for _, r := range ranges {
		all = append(all, r.Prefix)
	}
	return all
}

func (s *TCPSource) setDefaults() {
	setDefault(&s.ServerMode, "SERVER")
	setDefault(&s.TransmissionMode, string(mllp.ModeMLLP))
	if !s.Dials() {
		setDefault(&s.MaxConnections, defaultMaxConnections)
		setDefault(&s.MaxConnectionsPerHost, defaultMaxConnectionsPerHost)
	}
	setDefault(&s.MaxMessageSize, defaultMaxMessageSize)
	setDefault(&s.Batches, string(mllp.PolicyReject))
	setDefault(&s.ResponseMode, "AUTO")
	setDefault(&s.OnStoreError, "AE")
	if s.Quarantine != nil {
		setDefault(&s.Quarantine.MaxFiles, defaultQuarantineFiles)
	}
}

func (t *TCPDestination) setDefaults() {
	setDefault(&t.TransmissionMode, string(mllp.ModeMLLP))
	setDefault(&t.ResponseTimeout, defaultResponseTimeout)
}
