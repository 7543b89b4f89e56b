package dicomtls_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
)

// refs are n references to CT images.
func refs(n int) []dicomtls.Reference {
	var all []dicomtls.Reference
	for i := range n {
		all = append(all, dicomtls.Reference{SOPClassUID: ctImage, SOPInstanceUID: fmt.Sprintf("1.2.%d", i+1)})
	}
	return all
}

// vouching is an SCP that keeps requests, and answers as reply says.
type vouching struct {
	requests chan *dicomtls.CommitRequest
	reply    func(r *dicomtls.CommitRequest) dicomtls.Status
}

func (v *vouching) ServeCommit(_ context.Context, r *dicomtls.CommitRequest) dicomtls.Status {
	v.requests <- r
	if v.reply == nil {
		return dicomtls.StatusSuccess
	}
	return v.reply(r)
}

// committing connects for storage commitment.
func committing(t *testing.T, d *dicomtls.Dialer, addr string) *dicomtls.Association {
	t.Helper()
	a, err := d.DialContext(t.Context(), "tcp", addr, dicomtls.CommitProposal())
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

func TestCommitmentOnTheSameAssociation(t *testing.T) {
	confirmed := make(chan error, 1)
	v := &vouching{requests: make(chan *dicomtls.CommitRequest, 1), reply: func(r *dicomtls.CommitRequest) dicomtls.Status {
		r.Report = &dicomtls.CommitReport{
			TransactionUID: r.TransactionUID, Committed: r.References[1:],
			Failed: []dicomtls.FailedReference{{Reference: r.References[0], Reason: dicomtls.StatusNoSuchObject}},
		}
		r.Reported = func(err error) { confirmed <- err }
		return dicomtls.StatusSuccess
	}}
	s := listen(t, &dicomtls.Server{Commit: v})
	a := committing(t, &dicomtls.Dialer{}, s.addr)
	want := refs(10_000)
	result, err := a.Commit(t.Context(), want)
	require.NoError(t, err)
	assert.Equal(t, want[1:], result.Committed)
	assert.Equal(t, []dicomtls.FailedReference{{Reference: want[0], Reason: dicomtls.StatusNoSuchObject}}, result.Failed)
	require.NoError(t, <-confirmed)
	r := <-v.requests
	assert.Equal(t, want, r.References)
	require.NoError(t, a.Release(t.Context()))
	s.waitFor("closed released", 1)
	assert.Empty(t, s.strange())
}

func TestCommitmentOnAnAssociationOfTheSCP(t *testing.T) {
	t.Run("plain", func(t *testing.T) { commitOnAnother(t, nil, nil) })
	t.Run("TLS", func(t *testing.T) {
		ca := testpki.NewCA(t, "CA")
		commitOnAnother(t, &tls.Config{Certificates: []tls.Certificate{ca.Server().TLS()}}, &tls.Config{RootCAs: ca.Pool()})
	})
}

func commitOnAnother(t *testing.T, server, client *tls.Config) {
	t.Helper()
	v := &vouching{requests: make(chan *dicomtls.CommitRequest, 1)}
	archive := listen(t, &dicomtls.Server{Commit: v, TLSConfig: server})
	shared := new(dicomtls.Commitments)
	back := listen(t, &dicomtls.Server{AETitles: []string{"MODALITY"}, Commitments: shared, TLSConfig: server})
	a := committing(t, &dicomtls.Dialer{AETitle: "MODALITY", CalledAE: "ARCHIVE", Commitments: shared, TLSConfig: client}, archive.addr)
	transaction, err := a.RequestCommit(t.Context(), refs(3))
	require.NoError(t, err)
	require.NoError(t, a.Release(t.Context()), "the association is not needed any more")
	r := <-v.requests
	require.Equal(t, transaction.UID(), r.TransactionUID)
	report := &dicomtls.CommitReport{TransactionUID: r.TransactionUID, Committed: r.References}
	scp := &dicomtls.Dialer{AETitle: "ARCHIVE", CalledAE: "MODALITY", TLSConfig: client}
	require.NoError(t, scp.Report(t.Context(), "tcp", back.addr, report))
	result, err := transaction.Wait(t.Context())
	require.NoError(t, err)
	assert.Equal(t, refs(3), result.Committed)
	assert.Empty(t, result.Failed)
	require.NoError(t, scp.Report(t.Context(), "tcp", back.addr, report), "the same once more is confirmed")

	report.TransactionUID = "1.2.3"
	err = scp.Report(t.Context(), "tcp", back.addr, report)
	assert.Equal(t, dicomtls.StatusProcessingFailure, sendError(t, err).Status, "an unknown one is not")
	err = scp.Report(t.Context(), "tcp", archive.addr, report)
	assert.Equal(t, dicomtls.NotSent, sendError(t, err).Outcome, "and this server takes none")
	assert.False(t, sendError(t, err).Retryable())
}

func TestAReportOfAnotherApplicationEntityIsNotBelieved(t *testing.T) {
	v := &vouching{requests: make(chan *dicomtls.CommitRequest, 1)}
	archive := listen(t, &dicomtls.Server{Commit: v})
	var unclaimed []string
	shared := &dicomtls.Commitments{Unclaimed: func(_ context.Context, a *dicomtls.AssociationInfo, r *dicomtls.CommitReport) dicomtls.Status {
		unclaimed = append(unclaimed, a.CallingAE)
		return dicomtls.StatusNotAuthorized
	}}
	back := listen(t, &dicomtls.Server{Commitments: shared})
	a := committing(t, &dicomtls.Dialer{CalledAE: "ARCHIVE", Commitments: shared, CommitTimeout: 50 * time.Millisecond}, archive.addr)
	transaction, err := a.RequestCommit(t.Context(), refs(1))
	require.NoError(t, err)
	r := <-v.requests
	err = (&dicomtls.Dialer{AETitle: "MALLORY"}).Report(t.Context(), "tcp", back.addr, &dicomtls.CommitReport{TransactionUID: r.TransactionUID, Committed: r.References})
	assert.Equal(t, dicomtls.StatusNotAuthorized, sendError(t, err).Status)
	assert.Equal(t, []string{"MALLORY"}, unclaimed)
	_, err = transaction.Wait(t.Context())
	assert.Equal(t, dicomtls.Unknown, sendError(t, err).Outcome)
}

// report is an N-EVENT-REPORT-RQ on context 1, in Implicit VR Little Endian.
func eventReport(event int, dataSet string) string {
	return pdata(pdv(1, 3, commandSet(uid(2, commitment), el(0x100, le16(0x100)), el(0x110, le16(9)), el(0x800, le16(0)),
		uid(0x1000, commitment+".1"), el(0x1002, le16(event)))), pdv(1, 2, dataSet))
}

// ds are elements of a data set in Implicit VR Little Endian.
func implicitElement(tag int, value string) string {
	if len(value)%2 != 0 {
		value += "\x00"
	}
	return le16(8) + le16(tag) + le32(len(value)) + value
}

const (
	itemStart   = "\xfe\xff\x00\xe0\xff\xff\xff\xff"
	itemStop    = "\xfe\xff\x0d\xe0\x00\x00\x00\x00"
	seqStop     = "\xfe\xff\xdd\xe0\x00\x00\x00\x00"
	noLength    = "\xff\xff\xff\xff"
	failedSeq   = "\x08\x00\x98\x11" + noLength
	refSeq      = "\x08\x00\x99\x11" + noLength
	reason0112  = "\x08\x00\x97\x11\x02\x00\x00\x00\x12\x01"
	instanceOne = "1.2.1"
)

func sequenceItem(instance, more string) string {
	return itemStart + implicitElement(0x1150, ctImage) + implicitElement(0x1155, instance) + more + itemStop
}

// What a report says decides, whatever its event type, and when it comes.
func TestWhatAReportMeans(t *testing.T) {
	all := sequenceItem("1.2.1", "") + sequenceItem("1.2.2", "")
	for name, c := range map[string]struct {
		event     int
		body      string
		committed int
		reasons   []dicomtls.Status
	}{
		"all are safe":                        {1, refSeq + all + seqStop, 2, nil},
		"a failure with the type of success":  {1, failedSeq + sequenceItem("1.2.1", reason0112) + seqStop + refSeq + sequenceItem("1.2.2", "") + seqStop, 1, []dicomtls.Status{0x0112}},
		"a failure":                           {2, failedSeq + sequenceItem("1.2.1", reason0112) + seqStop + refSeq + sequenceItem("1.2.2", "") + seqStop, 1, []dicomtls.Status{0x0112}},
		"one that is in both lists":           {1, failedSeq + sequenceItem("1.2.1", reason0112) + seqStop + refSeq + all + seqStop, 1, []dicomtls.Status{0x0112}},
		"one that is missing":                 {1, refSeq + sequenceItem("1.2.2", "") + seqStop, 1, []dicomtls.Status{0}},
		"none":                                {1, "", 0, []dicomtls.Status{0, 0}},
		"one that nobody asked about besides": {1, refSeq + all + sequenceItem("9.9.9", "") + seqStop, 2, nil},
	} {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprint(name, map[bool]string{true: ", before the response", false: ""}[before]), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, p, stop := commitPair(t, &dicomtls.Dialer{})
					defer stop()
					var wg sync.WaitGroup
					wg.Go(func() {
						require.Equal(t, "P 0130 id 1", p.hear())
						_, b, err := p.next()
						require.NoError(t, err)
						transaction := b[6+8 : 6+8+int(b[6+4])]
						rsp := response(0x8130, 1, 0)
						event := eventReport(c.event, implicitElement(0x1195, transaction)+c.body)
						if before {
							p.say(event)
							assert.Equal(t, "P 8100 0000 to 9", p.hear())
							p.say(rsp)
							return
						}
						p.say(rsp)
						time.Sleep(time.Second)
						p.say(event)
						assert.Equal(t, "P 8100 0000 to 9", p.hear())
					})
					result, err := a.Commit(t.Context(), refs(2))
					wg.Wait()
					require.NoError(t, err)
					assert.Len(t, result.Committed, c.committed)
					var reasons []dicomtls.Status
					for _, f := range result.Failed {
						reasons = append(reasons, f.Reason)
					}
					assert.Equal(t, c.reasons, reasons)
				})
			})
		}
	}
}

// commitPair is an association for commitment with an SCP that is played by hand.
func commitPair(t *testing.T, d *dicomtls.Dialer) (*dicomtls.Association, *peer, func()) {
	t.Helper()
	ln := memnet.Listen()
	d.NetDialer = ln
	var (
		a   *dicomtls.Association
		err error
		wg  sync.WaitGroup
	)
	wg.Go(func() { a, err = d.DialContext(t.Context(), "tcp", "x:1", dicomtls.CommitProposal()) })
	c, acceptErr := ln.Accept()
	require.NoError(t, acceptErr)
	p := &peer{t, c}
	require.Equal(t, "RQ", p.hear())
	p.say(acceptance([]string{answerTo(1, 0, implicitLE)}))
	wg.Wait()
	require.NoError(t, err)
	return a, p, func() {
		a.Close()
		p.Close()
		ln.Close()
	}
}

func TestCommitmentThatComesToNothing(t *testing.T) {
	for name, c := range map[string]struct {
		scp     func(p *peer)
		outcome dicomtls.Outcome
		takes   time.Duration
		code    string
	}{
		"the request is refused":           {func(p *peer) { p.say(response(0x8130, 1, 0x0123)) }, dicomtls.Refused, 0, "0123"},
		"no report comes":                  {func(p *peer) { p.say(response(0x8130, 1, 0)) }, dicomtls.Unknown, time.Minute, ""},
		"the SCP leaves without a report":  {func(p *peer) { p.say(response(0x8130, 1, 0)); p.Close() }, dicomtls.Unknown, 0, ""},
		"the SCP leaves without an answer": {func(p *peer) { p.Close() }, dicomtls.Unknown, 0, ""},
		"the report cannot be read": {func(p *peer) {
			p.say(response(0x8130, 1, 0), eventReport(1, "nonsense"))
			assert.Equal(p.t, "P 8100 0115 to 9", p.hear())
		}, dicomtls.Unknown, time.Minute, ""},
		"the report is about something else": {func(p *peer) {
			p.say(response(0x8130, 1, 0), eventReport(1, implicitElement(0x1195, "1.2.3")))
			assert.Equal(p.t, "P 8100 0110 to 9", p.hear())
		}, dicomtls.Unknown, time.Minute, ""},
		"the event has an unknown type": {func(p *peer) {
			p.say(response(0x8130, 1, 0), eventReport(3, implicitElement(0x1195, "1.2.3")))
			assert.Equal(p.t, "P 8100 0113 to 9", p.hear())
		}, dicomtls.Unknown, time.Minute, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, p, stop := commitPair(t, &dicomtls.Dialer{})
				defer stop()
				var wg sync.WaitGroup
				wg.Go(func() {
					require.Equal(t, "P 0130 id 1", p.hear())
					require.Equal(t, "P data", p.hear())
					c.scp(p)
				})
				began := time.Now()
				_, err := a.Commit(t.Context(), refs(1))
				wg.Wait()
				failed := sendError(t, err)
				assert.Equal(t, c.outcome, failed.Outcome, "%v", err)
				assert.Equal(t, c.takes, time.Since(began))
				assert.Equal(t, c.code, failed.Code())
			})
		})
	}
	t.Run("it is not offered", func(t *testing.T) {
		connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, _ *peer) {
			_, err := a.Commit(t.Context(), refs(1))
			require.ErrorIs(t, err, dicomtls.ErrNoContext)
			_, err = a.Commit(t.Context(), nil)
			require.ErrorIs(t, err, dicomtls.ErrBadObject)
			assert.NoError(t, a.Err())
		})
	})
}

func TestALateReportIsSurfaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan *dicomtls.CommitReport, 1)
		shared := &dicomtls.Commitments{Unclaimed: func(_ context.Context, _ *dicomtls.AssociationInfo, r *dicomtls.CommitReport) dicomtls.Status {
			late <- r
			return dicomtls.StatusSuccess
		}}
		a, p, stop := commitPair(t, &dicomtls.Dialer{Commitments: shared, CommitTimeout: time.Second})
		defer stop()
		var wg sync.WaitGroup
		wg.Go(func() {
			p.hear()
			p.hear()
			p.say(response(0x8130, 1, 0))
		})
		transaction, err := a.RequestCommit(t.Context(), refs(1))
		require.NoError(t, err)
		wg.Wait()
		_, err = transaction.Wait(t.Context())
		require.Equal(t, dicomtls.Unknown, sendError(t, err).Outcome)
		p.say(eventReport(1, implicitElement(0x1195, transaction.UID())+refSeq+sequenceItem(instanceOne, "")+seqStop))
		assert.Equal(t, "P 8100 0000 to 9", p.hear())
		r := <-late
		assert.Equal(t, transaction.UID(), r.TransactionUID)
		assert.Equal(t, refs(1), r.Committed)
	})
}

func TestRequestsForCommitmentThatAreRefused(t *testing.T) {
	transaction := implicitElement(0x1195, "1.2.3")
	body := transaction + refSeq + sequenceItem(instanceOne, "") + seqStop
	action := func(instance string, kind int, data string) string {
		return pdata(pdv(1, 3, commandSet(uid(3, commitment), el(0x100, le16(0x130)), el(0x110, le16(4)), el(0x800, le16(0)),
			uid(0x1001, instance), el(0x1008, le16(kind)))), pdv(1, 2, data))
	}
	for name, c := range map[string]struct{ say, hear string }{
		"a good one":                  {action(commitment+".1", 1, body), "P 8130 0000 to 4"},
		"another action":              {action(commitment+".1", 2, body), "P 8130 0123 to 4"},
		"another instance":            {action("1.2.3", 1, body), "P 8130 0112 to 4"},
		"nonsense":                    {action(commitment+".1", 1, "nonsense"), "P 8130 0115 to 4"},
		"no transaction":              {action(commitment+".1", 1, refSeq+sequenceItem(instanceOne, "")+seqStop), "P 8130 0115 to 4"},
		"no references":               {action(commitment+".1", 1, transaction), "P 8130 0115 to 4"},
		"a reference that is no UID":  {action(commitment+".1", 1, transaction+refSeq+sequenceItem("../x", "")+seqStop), "P 8130 0115 to 4"},
		"no data set":                 {pdata(pdv(1, 3, commandSet(uid(3, commitment), el(0x100, le16(0x130)), el(0x110, le16(4)), el(0x800, le16(0x101)), uid(0x1001, commitment+".1"), el(0x1008, le16(1))))), "P 8130 0120 to 4"},
		"a report, in the wrong role": {eventReport(1, transaction), "P 8100 0211 to 9"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, &dicomtls.Server{Commit: &vouching{requests: make(chan *dicomtls.CommitRequest, 1)}}, func(t *testing.T, s *site) {
				p := s.call()
				p.say(associateRQ{contexts: []string{proposal(1, commitment, implicitLE)}}.String())
				require.Equal(t, "AC 1=0", p.hear())
				assert.Equal(t, []string{c.hear, "release!"}, p.talk(c.say, releaseRQ))
			})
		})
	}
}

func TestTheRolesOfCommitment(t *testing.T) {
	role := func(scu, scp byte) []string {
		return []string{pduItem(0x51, be32(16384)), pduItem(0x54, be16(len(commitment)), commitment, string([]byte{scu, scp}))}
	}
	scp := func() *dicomtls.Server { return &dicomtls.Server{Commit: &vouching{}} }
	scu := func() *dicomtls.Server { return &dicomtls.Server{Commitments: &dicomtls.Commitments{}} }
	both := func() *dicomtls.Server {
		return &dicomtls.Server{Commit: &vouching{}, Commitments: &dicomtls.Commitments{}}
	}
	for name, c := range map[string]struct {
		srv  func() *dicomtls.Server
		user []string
		hear string
	}{
		"an SCP to the SCU that waits for it":   {scu, role(0, 1), "AC 1=0 role=01"},
		"an SCP to an SCP":                      {scp, role(0, 1), "AC 1=1"},
		"an SCU to an SCP":                      {scp, nil, "AC 1=0"},
		"an SCU that says so to an SCP":         {scp, role(1, 0), "AC 1=0 role=10"},
		"an SCU to an SCU":                      {scu, role(1, 0), "AC 1=1"},
		"both to both":                          {both, role(1, 1), "AC 1=0 role=11"},
		"both to an SCP":                        {scp, role(1, 1), "AC 1=0 role=10"},
		"an SCP that forgets to say so, to SCU": {scu, nil, "AC 1=0"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, c.srv(), func(t *testing.T, s *site) {
				p := s.call()
				p.say(associateRQ{contexts: []string{proposal(1, commitment, implicitLE)}, user: c.user}.String())
				assert.Equal(t, c.hear, p.hear())
			})
		})
	}
}

func TestAReportThatIsNotConfirmedIsSaidToBeUnknown(t *testing.T) {
	told := make(chan error, 1)
	v := &vouching{requests: make(chan *dicomtls.CommitRequest, 1), reply: func(r *dicomtls.CommitRequest) dicomtls.Status {
		r.Report = &dicomtls.CommitReport{TransactionUID: r.TransactionUID, Committed: r.References}
		r.Reported = func(err error) { told <- err }
		return dicomtls.StatusSuccess
	}}
	s := listen(t, &dicomtls.Server{Commit: v})
	p := s.call()
	p.say(associateRQ{contexts: []string{proposal(1, commitment, implicitLE)}}.String())
	require.Equal(t, "AC 1=0", p.hear())
	p.say(pdata(pdv(1, 3, commandSet(uid(3, commitment), el(0x100, le16(0x130)), el(0x110, le16(4)), el(0x800, le16(0)),
		uid(0x1001, commitment+".1"), el(0x1008, le16(1)))), pdv(1, 2, implicitElement(0x1195, "1.2.3")+refSeq+sequenceItem(instanceOne, "")+seqStop)))
	require.Equal(t, "P 8130 0000 to 4", p.hear())
	require.Equal(t, "P 0100 id 1", p.hear())
	p.Close()
	err := <-told
	var failed *dicomtls.SendError
	require.True(t, errors.As(err, &failed), "%v", err)
	assert.Equal(t, dicomtls.Unknown, failed.Outcome)
}
