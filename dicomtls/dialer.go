package dicomtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// A Dialer makes associations. The zero value is ready to use and does not speak
// TLS.
//
// Its fields must not be changed after the first call of a method; all methods
// are safe for concurrent use. In durations zero means the default that is
// given with the field and a negative value means no limit; the limits of
// contexts hold besides, the earlier one wins.
type Dialer struct {
	// NetDialer makes the connection below DICOM and TLS; a *net.Dialer, to bind
	// to a local address, or anything like it. Nil means a net.Dialer that tries
	// all addresses of a name and probes an idle connection after 60 s, then
	// every 15 s, 4 times.
	NetDialer interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	}

	AETitle  string // of this side; empty: "CAREWIRE"
	CalledAE string // of the peer; empty: "ANY-SCP"

	// TLS are the settings of TLS as configuration files have them. Nil, or mode
	// notls, means no TLS. Files are read at the first DialContext and looked at
	// again at later ones, at most once in TLS.ReloadInterval.
	TLS *Properties
	// TLSConfig, if not nil, turns TLS on and replaces TLS. An empty ServerName
	// becomes the host that is dialed.
	TLSConfig *tls.Config

	// Identity tells the peer who the user is. Nil: it is not told. A peer that
	// was asked to confirm it and does not is aborted.
	Identity *UserIdentity
	// Commitments gets the reports of storage commitment; shared with a Server,
	// also those that come on associations of the peer's. Nil: only reports on
	// the association of the request are waited for.
	Commitments *Commitments

	MaxPDUBytes int // of P-DATA that is accepted, as it is announced; 0: 128 KiB; 4 KiB to 1 MiB
	// Window is how many operations may be under way at a time, if the peer agrees
	// to so many; 0: 1. Negative is refused.
	Window int

	DialTimeout      time.Duration // for resolving the name and connecting; 0: 10 s
	HandshakeTimeout time.Duration // for the TLS handshake; 0: 10 s
	AssociateTimeout time.Duration // for the answer to the A-ASSOCIATE-RQ; 0: 30 s
	// ResponseTimeout is how long a response may take after the request has been
	// written, and how long the peer may pause in the middle of a message; 0: 60 s.
	ResponseTimeout time.Duration
	// WriteTimeout is how long each write may take, to which a second is added for
	// every 4 KiB of it; 0: 30 s.
	WriteTimeout   time.Duration
	ReleaseTimeout time.Duration // for the answer to the A-RELEASE-RQ; 0: 5 s
	CommitTimeout  time.Duration // for the report of storage commitment; 0: 60 s

	mu     sync.Mutex
	source *tlsSource // guarded by mu; nil until TLS has been loaded
}

// DialContext connects to addr, "host:port", on network, "tcp", "tcp4" or "tcp6",
// and requests an association with the given presentation contexts, 128 at most;
// without any, for verification alone. It returns when the peer has accepted,
// which it also does when it accepts none of the contexts: see
// [Association.Accepts]. It never falls back to a connection without TLS. ctx
// bounds the call, not the Association.
//
// The error is always a *[SendError] with outcome NotSent. It is Retryable
// unless the fault is in the configuration or the peer rejected the association
// for good.
func (d *Dialer) DialContext(ctx context.Context, network, addr string, proposals ...Proposal) (*Association, error) {
	a, err := d.dial(ctx, network, addr, proposals)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (d *Dialer) dial(ctx context.Context, network, addr string, proposals []Proposal) (*Association, *SendError) {
	if len(proposals) == 0 {
		proposals = []Proposal{{AbstractSyntax: VerificationSOPClass, TransferSyntaxes: []string{ImplicitVRLittleEndian}}}
	}
	if err := d.check(proposals); err != nil {
		return nil, impossible(err)
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, impossible(errors.New(`dicomtls: the network must be "tcp", "tcp4" or "tcp6"`))
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, impossible(fmt.Errorf("dicomtls: %w", err))
	}
	config, err := d.tlsConfig(ctx, host)
	if err != nil {
		if ctx.Err() != nil {
			return nil, notSent(err)
		}
		return nil, impossible(err)
	}
	raw, sendErr := d.connect(ctx, network, addr)
	if sendErr != nil {
		return nil, sendErr
	}
	conn, info := quick(raw), AssociationInfo{
		CallingAE: d.callingAE(), CalledAE: d.calledAE(), LocalAddr: raw.LocalAddr(), RemoteAddr: raw.RemoteAddr(), Identity: d.Identity,
	}
	if config != nil {
		secured := tls.Client(conn, config)
		if sendErr := d.handshake(ctx, secured); sendErr != nil {
			raw.Close()
			return nil, sendErr
		}
		state := secured.ConnectionState()
		conn, info.TLS = secured, &state
	}
	return d.associate(ctx, raw, conn, info, proposals)
}

// with returns a Dialer with the settings of d and other titles.
func (d *Dialer) with(calling, called string) *Dialer {
	return &Dialer{
		NetDialer: d.NetDialer, AETitle: calling, CalledAE: called, TLS: d.TLS, TLSConfig: d.TLSConfig,
		Identity: d.Identity, Commitments: d.Commitments, MaxPDUBytes: d.MaxPDUBytes, Window: d.Window,
		DialTimeout: d.DialTimeout, HandshakeTimeout: d.HandshakeTimeout, AssociateTimeout: d.AssociateTimeout,
		ResponseTimeout: d.ResponseTimeout, WriteTimeout: d.WriteTimeout, ReleaseTimeout: d.ReleaseTimeout, CommitTimeout: d.CommitTimeout,
	}
}

func (d *Dialer) callingAE() string {
	if d.AETitle == "" {
		return "CAREWIRE"
	}
	return d.AETitle
}

func (d *Dialer) calledAE() string {
	if d.CalledAE == "" {
		return "ANY-SCP"
	}
	return d.CalledAE
}

// check returns the first fault in the settings.
func (d *Dialer) check(proposals []Proposal) error {
	switch {
	case !validAE(d.callingAE()):
		return fmt.Errorf("dicomtls: Dialer.AETitle %q is no AE title: 1 to 16 characters, no backslash, no spaces around", d.AETitle)
	case !validAE(d.calledAE()):
		return fmt.Errorf("dicomtls: Dialer.CalledAE %q is no AE title: 1 to 16 characters, no backslash, no spaces around", d.CalledAE)
	case d.MaxPDUBytes != 0 && (d.MaxPDUBytes < 4<<10 || d.MaxPDUBytes > mostMaxPDU):
		return fmt.Errorf("dicomtls: Dialer.MaxPDUBytes is %d: use 4096 to %d", d.MaxPDUBytes, mostMaxPDU)
	case d.Window < 0 || d.Window > 1<<15:
		return fmt.Errorf("dicomtls: Dialer.Window is %d: use 0 to 32768", d.Window)
	case len(proposals) > maxContexts:
		return fmt.Errorf("dicomtls: %d presentation contexts are proposed, and an association has at most %d", len(proposals), maxContexts)
	}
	for _, p := range proposals {
		if !validUID(p.AbstractSyntax) || !allUIDs(p.TransferSyntaxes) {
			return fmt.Errorf("dicomtls: the presentation context for %q has something that is no UID", p.AbstractSyntax)
		}
	}
	if d.TLS != nil && d.TLSConfig == nil {
		return d.TLS.Validate(tlsprops.Client) // settings in mode notls are a mistake, not a wish for plaintext
	}
	return nil
}

func allUIDs(list []string) bool {
	return !slices.ContainsFunc(list, func(uid string) bool { return !validUID(uid) })
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
	source, err := d.load()
	if err != nil || source == nil {
		return nil, err
	}
	return source.clientConfig(ctx, host)
}

func (d *Dialer) load() (*tlsSource, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.source == nil {
		source, err := d.TLS.load(tlsprops.Client)
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
		dialer = &net.Dialer{KeepAliveConfig: keepAlive}
	}
	ctx, cancel := withTimeout(ctx, orDefault(d.DialTimeout, 10*time.Second))
	defer cancel()
	nc, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, notSent(fmt.Errorf("dicomtls: %w", err))
	}
	return nc, nil
}

func (d *Dialer) handshake(ctx context.Context, conn *tls.Conn) *SendError {
	ctx, cancel := withTimeout(ctx, orDefault(d.HandshakeTimeout, 10*time.Second))
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return handshakeError(err)
	}
	return nil
}

// withTimeout bounds ctx by d, unless that is negative.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// associate requests the association.
func (d *Dialer) associate(ctx context.Context, raw, conn net.Conn, info AssociationInfo, proposals []Proposal) (*Association, *SendError) {
	maxPDU := uint32(orDefault(d.MaxPDUBytes, defaultMaxPDU)) //nolint:gosec // checked
	l := newLink(conn, maxPDU, orDefault(d.ResponseTimeout, time.Minute), nil)
	rq := &associate{
		version: protocolVersion, application: applicationContext, called: info.CalledAE, calling: info.CallingAE,
		user: userInfo{
			maxLength: maxPDU, hasMaxLength: true,
			classUID: implementationClassUID, versionName: implementationVersion, identity: d.Identity,
		},
	}
	if d.Window > 1 {
		rq.user.window = &asyncWindow{invoked: uint16(d.Window), performed: 1} //nolint:gosec // checked
	}
	for i, p := range proposals {
		syntaxes := p.TransferSyntaxes
		if len(syntaxes) == 0 {
			syntaxes = ownSyntaxes
		}
		rq.contexts = append(rq.contexts, contextItem{id: uint8(2*i + 1), abstract: p.AbstractSyntax, transfers: syntaxes}) //nolint:gosec // at most 128
		if p.provider {
			rq.user.roles = append(rq.user.roles, roleItem{class: p.AbstractSyntax, scp: true})
		}
	}
	pdu, err := rq.encode(pduAssociateRQ)
	if err != nil {
		raw.Close()
		return nil, impossible(err)
	}
	// Closing is what wakes a read or a write.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	limit := orDefault(d.AssociateTimeout, 30*time.Second)
	err = l.write(pdu, limit)
	var ac *associate
	if err == nil {
		l.waitUntil(after(limit))
		ac, err = acceptance(l)
	}
	if err == nil {
		err = info.agree(rq, ac, d.Window)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return d.newAssociation(raw, l, info), nil
	}
	defer raw.Close()
	protocol, broken := errors.AsType[*protocolError](err)
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("dicomtls: no answer to the association request: %w", context.Cause(ctx))
	case broken:
		_ = l.write(abortPDU(abortByProvider, protocol.reason), lastPDU) // the error is the one that matters
	case errors.Is(err, errSilent):
		_ = l.write(abortPDU(abortByUser, 0), lastPDU) // as above
		err = fmt.Errorf("dicomtls: no answer to the association request within %v: %w", limit, os.ErrDeadlineExceeded)
	case errors.Is(err, errUnconfirmed):
		_ = l.write(abortPDU(abortByUser, 0), lastPDU) // as above
		return nil, impossible(err)
	default:
		if _, ok := errors.AsType[*RejectError](err); !ok {
			err = fmt.Errorf("dicomtls: no association: %w", peerError(midway(err)))
		}
	}
	return nil, notSent(err)
}

var errUnconfirmed = errors.New("dicomtls: the peer accepted the association but did not confirm the user's identity")

// acceptance reads the answer to an A-ASSOCIATE-RQ.
func acceptance(l *link) (*associate, error) {
	kind, length, err := l.header()
	if err != nil {
		return nil, err
	}
	switch kind {
	case pduAssociateAC:
	case pduAssociateRJ:
		if err := checkLength(kind, length, 0); err != nil {
			return nil, err
		}
		b, err := l.body(length)
		if err != nil {
			return nil, err
		}
		return nil, &RejectError{Result: b[1], Source: b[2], Reason: b[3]}
	case pduAbort:
		return nil, l.control(kind, length)
	default:
		return nil, &protocolError{abortUnexpectedPDU, "another PDU where A-ASSOCIATE-AC should be"}
	}
	if err := checkLength(kind, length, 0); err != nil {
		return nil, err
	}
	body, err := l.body(length)
	if err != nil {
		return nil, err
	}
	return decodeAssociate(body, true)
}

// agree takes over what the peer accepted, having checked that it was proposed.
func (info *AssociationInfo) agree(rq, ac *associate, window int) error {
	if ac.version&protocolVersion == 0 {
		return invalid("association accepted with protocol version %d", ac.version)
	}
	most, err := sendLimit(&ac.user)
	if err != nil {
		return invalid("the peer takes PDUs of %d bytes at most, which hold nothing", ac.user.maxLength)
	}
	info.MaxPDUBytes = most
	info.ImplementationClassUID, info.ImplementationVersionName = ac.user.classUID, printable(ac.user.versionName)
	if info.IdentityResponse = ac.user.response; info.IdentityResponse == nil && info.Identity != nil && info.Identity.ResponseRequested {
		return errUnconfirmed
	}
	info.Window = 1
	if w := ac.user.window; w != nil && rq.user.window != nil {
		info.Window = window
		if w.invoked > 0 {
			info.Window = min(window, int(w.invoked))
		}
	}
	for _, p := range rq.contexts {
		info.Contexts = append(info.Contexts, PresentationContext{
			ID: p.id, AbstractSyntax: p.abstract, Result: ContextNoReason, RequestorSCU: true,
		})
	}
	answered := make(map[uint8]bool)
	for _, item := range ac.contexts {
		i := slices.IndexFunc(rq.contexts, func(p contextItem) bool { return p.id == item.id })
		if i < 0 || answered[item.id] {
			return invalid("the peer answers presentation context %d, which was not proposed, or twice", item.id)
		}
		answered[item.id] = true
		pc := &info.Contexts[i]
		if pc.Result = ContextResult(item.result); pc.Result != ContextAccepted {
			continue
		}
		if len(item.transfers) != 1 || !slices.Contains(rq.contexts[i].transfers, item.transfers[0]) {
			return invalid("the peer accepts presentation context %d with a transfer syntax that was not proposed", item.id)
		}
		pc.TransferSyntax = item.transfers[0]
	}
	for _, asked := range rq.user.roles {
		for i := range info.Contexts {
			if pc := &info.Contexts[i]; pc.AbstractSyntax == asked.class {
				pc.RequestorSCU, pc.RequestorSCP = granted(asked, ac.user.roles)
			}
		}
	}
	return nil
}

// granted returns the roles that the acceptor left to the requestor: the default
// ones if it did not answer, and never more than was asked (PS3.7 D.3.3.4.2).
func granted(asked roleItem, answers []roleItem) (scu, scp bool) {
	for _, r := range answers {
		if r.class == asked.class {
			return asked.scu && r.scu, asked.scp && r.scp
		}
	}
	return true, false
}
