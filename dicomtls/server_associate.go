package dicomtls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// associate reads the A-ASSOCIATE-RQ and answers it: states 2 and 3 of PS3.8,
// 9.2. It returns nil if there is an association now.
func (c *conn) associate(ctx context.Context) *ending {
	// The timer runs for the whole request (PS3.8 9.1.5), so a client cannot stay
	// by sending a byte now and then. When it expires there is no PDU.
	c.l.waitUntil(after(c.cfg.associateTimeout))
	c.l.mayStop = true
	err := c.l.need(1)
	c.l.mayStop = false
	if err == nil {
		c.busy.Store(true)
		var rq *associate
		if rq, err = c.request(); err == nil {
			return c.answer(ctx, rq)
		}
	}
	var (
		end      *ending
		protocol *protocolError
	)
	switch {
	case errors.As(err, &end):
		return end
	case errors.As(err, &protocol):
		return &ending{reason: ReasonProtocol, err: protocol, pdu: abortPDU(abortByProvider, protocol.reason)}
	case errors.Is(err, errDraining), ctx.Err() != nil:
		return &ending{reason: ReasonShutdown}
	case errors.Is(err, errSilent):
		return &ending{reason: ReasonAssociateTimeout}
	case errors.Is(err, io.EOF):
		c.cfg.tell(ctx, Event{Kind: EventProbe, RemoteAddr: c.info.RemoteAddr, TLS: c.info.TLS})
		return &ending{}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &ending{reason: ReasonPeerClosed}
	default:
		return &ending{reason: ReasonReadFailed, err: err}
	}
}

// request reads the A-ASSOCIATE-RQ. Anything else is answered with A-ABORT as from
// the user (PS3.8 Table 9-10, AA-1), since there is no association yet.
func (c *conn) request() (*associate, error) {
	kind, length, err := c.l.header()
	if kind != pduAssociateRQ {
		_ = c.l.need(4) // for a better guess; it may not come
		head := c.l.buf[:c.l.w]
		if name := otherProtocol(head); name != "" {
			return nil, &ending{reason: ReasonWrongProtocol, detail: name, pdu: abortPDU(abortByUser, 0)}
		}
		if protocol, ok := errors.AsType[*protocolError](err); ok || err == nil {
			return nil, &ending{reason: ReasonProtocol, err: errOr(protocol), pdu: abortPDU(abortByUser, 0)}
		}
	}
	if err != nil {
		return nil, err
	}
	if err := checkLength(kind, length, 0); err != nil {
		return nil, err
	}
	body, err := c.l.body(length)
	if err != nil {
		return nil, err
	}
	return decodeAssociate(body, false)
}

// errOr returns e, or that something else than a request came.
func errOr(e *protocolError) error {
	if e != nil {
		return e
	}
	return &protocolError{abortUnexpectedPDU, "another PDU where A-ASSOCIATE-RQ should be"}
}

// answer decides about a request.
func (c *conn) answer(ctx context.Context, rq *associate) *ending {
	c.info.CallingAE, c.info.CalledAE = printable(rq.calling), printable(rq.called)
	if reason, err := checkContexts(rq.contexts); err != nil {
		return &ending{reason: reason, err: err, pdu: abortPDU(abortByProvider, abortInvalidParameterValue)}
	}
	if reason, reject := c.judge(rq); reject != nil {
		return rejection(reason, reject)
	}
	most, err := sendLimit(&rq.user)
	if err != nil {
		return &ending{reason: ReasonProtocol, err: err, pdu: abortPDU(abortByProvider, abortInvalidParameterValue)}
	}
	c.info.MaxPDUBytes = most
	c.info.ImplementationClassUID, c.info.ImplementationVersionName = rq.user.classUID, printable(rq.user.versionName)
	c.info.Identity = rq.user.identity
	ac := &associate{
		version: protocolVersion, application: applicationContext, called: rq.called, calling: rq.calling,
		user: userInfo{
			maxLength: c.cfg.maxPDU, hasMaxLength: true,
			classUID: implementationClassUID, versionName: implementationVersion,
		},
	}
	c.info.Contexts, ac.user.roles = c.cfg.negotiate(rq)
	for _, pc := range c.info.Contexts {
		item := contextItem{id: pc.ID, result: uint8(pc.Result), transfers: []string{pc.TransferSyntax}}
		if pc.Result != ContextAccepted { // not significant, but it must be there
			item.transfers[0] = ImplicitVRLittleEndian
		}
		ac.contexts = append(ac.contexts, item)
	}
	c.info.Window = 1
	if w := rq.user.window; w != nil && c.cfg.Window > 1 {
		c.info.Window = c.cfg.Window
		if w.invoked > 0 {
			c.info.Window = min(c.info.Window, int(w.invoked))
		}
		ac.user.window = &asyncWindow{invoked: uint16(min(c.info.Window, 65535)), performed: 1} //nolint:gosec // bounded
	}
	if c.draining.Load() {
		return rejection(ReasonShutdown, &rejectCongestion)
	}
	if reason := c.cfg.census.enter(c); reason != "" {
		return rejection(reason, &rejectLimit)
	}
	c.accepted = true
	if end := c.authenticate(ctx, ac); end != nil {
		c.accepted = false
		c.cfg.census.leave(c)
		return end
	}
	pdu, err := ac.encode(pduAssociateAC)
	if err == nil {
		err = c.write(pdu, c.cfg.writeTimeout)
	}
	c.cfg.tell(ctx, Event{
		Kind: EventOpened, RemoteAddr: c.info.RemoteAddr, TLS: c.info.TLS, CallingAE: c.info.CallingAE, CalledAE: c.info.CalledAE,
	})
	if err != nil {
		return &ending{reason: ReasonWriteFailed, err: err}
	}
	return nil
}

func rejection(reason Reason, r *RejectError) *ending {
	return &ending{reason: reason, pdu: appendShort(nil, pduAssociateRJ, r.Result, r.Source, r.Reason)}
}

// judge applies the rules about versions and titles, in the order in which the
// layers of PS3.8 would.
func (c *conn) judge(rq *associate) (Reason, *RejectError) {
	switch {
	case rq.version&protocolVersion == 0: // other bits are for later versions
		return ReasonProtocolVersion, &rejectVersion
	case rq.application != applicationContext:
		return ReasonApplicationContext, &rejectContext
	case len(rq.contexts) == 0:
		return ReasonNoContexts, &rejectNoReason
	case !validAE(rq.called), len(c.cfg.AETitles) > 0 && !slices.Contains(c.cfg.AETitles, rq.called):
		return ReasonCalledAE, &rejectCalledAE
	case !validAE(rq.calling), len(c.cfg.CallingAETitles) > 0 && !slices.Contains(c.cfg.CallingAETitles, rq.calling):
		return ReasonCallingAE, &rejectCallingAE
	case !c.cfg.binds(c.info.TLS, rq.calling):
		return ReasonCertificateAE, &rejectCallingAE
	}
	return "", nil
}

// authenticate asks Server.Authenticate.
func (c *conn) authenticate(ctx context.Context, ac *associate) *ending {
	if c.cfg.Authenticate == nil {
		return nil
	}
	var response []byte
	var err error
	status := c.call(ctx, "A-ASSOCIATE", func(ctx context.Context) Status {
		response, err = c.cfg.Authenticate(ctx, &c.info)
		return StatusSuccess
	})
	if err != nil || status != StatusSuccess { // the error's text may be about the identity: it is not told
		return rejection(ReasonIdentity, &rejectIdentity)
	}
	if id := c.info.Identity; id != nil && id.ResponseRequested {
		ac.user.response = append([]byte{}, response...)
		c.info.IdentityResponse = ac.user.response
	}
	return nil
}

// checkContexts refuses a request whose contexts could not be told apart.
func checkContexts(contexts []contextItem) (Reason, error) {
	var seen [256]bool
	for _, pc := range contexts {
		switch {
		case pc.id%2 == 0:
			return ReasonProtocol, invalid("presentation context with the even number %d", pc.id)
		case seen[pc.id]:
			return ReasonProtocol, invalid("two presentation contexts with the number %d", pc.id)
		}
		seen[pc.id] = true
	}
	return "", nil
}

// sendLimit returns how long a PDU to the peer may be (PS3.8 Annex D.1).
func sendLimit(u *userInfo) (int, error) {
	switch {
	case !u.hasMaxLength:
		return unsaidMaxPDU, nil
	case u.maxLength == 0:
		return defaultMaxPDU, nil
	case u.maxLength < leastMaxPDU:
		return 0, fmt.Errorf("dicomtls: the peer takes PDUs of %d bytes at most, which hold nothing", u.maxLength)
	}
	return int(min(u.maxLength, defaultMaxPDU)), nil
}

// printable makes a peer's text fit for a log.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// negotiate decides about each of the proposed contexts, in order, and about the
// roles of the known classes.
func (c *config) negotiate(rq *associate) (contexts []PresentationContext, roles []roleItem) {
	answered := make(map[string]bool)
	for _, proposed := range rq.contexts {
		// Without negotiation the requestor is the SCU (PS3.7 D.3.3.4).
		role := roleItem{class: proposed.abstract, scu: true}
		negotiated := false
		for _, r := range rq.user.roles {
			if r.class == proposed.abstract {
				role, negotiated = r, true
			}
		}
		pc := PresentationContext{ID: proposed.id, AbstractSyntax: proposed.abstract}
		known, syntaxes := c.class(proposed.abstract)
		if !known {
			pc.Result = ContextAbstractSyntaxNotSupported
			contexts = append(contexts, pc)
			continue
		}
		switch proposed.abstract {
		case StorageCommitmentSOPClass:
			role.scu = role.scu && c.Commit != nil
			role.scp = c.Commitments != nil && (role.scp || !negotiated)
		default:
			role.scp = false
		}
		pc.RequestorSCU, pc.RequestorSCP = role.scu, role.scp
		pc.TransferSyntax = choose(syntaxes, proposed.transfers)
		switch {
		case pc.TransferSyntax == "":
			pc.Result = ContextTransferSyntaxesNotSupported
		case !role.scu && !role.scp:
			pc.Result, pc.TransferSyntax = ContextUserRejection, ""
		}
		contexts = append(contexts, pc)
		if negotiated && pc.Result == ContextAccepted && !answered[role.class] {
			answered[role.class] = true
			roles = append(roles, role)
		}
	}
	return contexts, roles
}

// The transfer syntaxes of contexts whose data sets this package itself reads.
var ownSyntaxes = []string{ExplicitVRLittleEndian, ImplicitVRLittleEndian}

// class returns whether an abstract syntax is supported, and its transfer
// syntaxes: in the order of preference, "*" for any other, nil for all that
// DICOM has for storage.
func (c *config) class(uid string) (known bool, syntaxes []string) {
	switch uid {
	case VerificationSOPClass: // there are no data sets: whatever they like
		return true, nil
	case StorageCommitmentSOPClass:
		return c.Commit != nil || c.Commitments != nil, ownSyntaxes
	}
	if c.Store == nil || !validUID(uid) {
		return false, nil
	}
	if c.SOPClasses == nil {
		return isStorageClass(uid), nil
	}
	if syntaxes, known = c.SOPClasses[uid]; !known {
		syntaxes, known = c.SOPClasses["*"]
	}
	return known, syntaxes
}

// choose returns the transfer syntax for a context, "" if there is none.
func choose(preferred, proposed []string) string {
	if len(preferred) == 0 {
		if i := slices.IndexFunc(proposed, isStorageSyntax); i >= 0 {
			return proposed[i]
		}
		return ""
	}
	for _, uid := range preferred {
		if slices.Contains(proposed, uid) {
			return uid
		}
		if uid == "*" && len(proposed) > 0 {
			return proposed[0]
		}
	}
	return ""
}

// isStorageSyntax reports whether data sets can be kept in a transfer syntax of
// PS3.5 Annex A: not that of MIME, nor that of real-time video.
func isStorageSyntax(uid string) bool {
	switch rest, under := strings.CutPrefix(uid, ImplicitVRLittleEndian); {
	case !under:
		return false
	case rest == "", rest == ".2", rest == ".5", rest == ".1", strings.HasPrefix(rest, ".1."):
		return true
	default:
		return strings.HasPrefix(rest, ".4.")
	}
}
