package dicomtls

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Commit asks the peer to vouch for objects that it has been sent, and waits for
// its report: RequestCommit and Wait.
func (a *Association) Commit(ctx context.Context, refs []Reference) (*CommitResult, error) {
	t, err := a.RequestCommit(ctx, refs)
	if err != nil {
		return nil, err
	}
	return t.Wait(ctx)
}

// CommitProposal returns the presentation context that Commit needs.
func CommitProposal() Proposal { return Proposal{AbstractSyntax: StorageCommitmentSOPClass} }

// RequestCommit asks the peer to vouch for objects that it has been sent (PS3.4
// Annex J). It returns when the peer has taken the request; what comes of it is
// said in a report, for which Transaction.Wait waits. That can come on this
// association, which has to stay open for it, or on one of the peer's, for which
// Dialer.Commitments must be set and be shared with a Server.
//
// The error is a *[SendError] about the request, and says nothing about the
// objects: what was stored stays so.
func (a *Association) RequestCommit(ctx context.Context, refs []Reference) (*Transaction, error) {
	if len(refs) == 0 || slices.ContainsFunc(refs, func(r Reference) bool { return !validUID(r.SOPClassUID) || !validUID(r.SOPInstanceUID) }) {
		return nil, impossible(fmt.Errorf("%w: the references are missing or have something that is no UID", ErrBadObject))
	}
	pc := a.context(StorageCommitmentSOPClass, "")
	if pc == nil {
		return nil, impossible(ErrNoContext)
	}
	t := &Transaction{uid: newTransactionUID(), refs: slices.Clone(refs), peer: a.info.CalledAE, timeout: a.commitTimeout}
	if a.commitments == &a.own {
		t.over = a.readerDone
	}
	a.commitments.expect(t)
	data := encodeReport(pc.TransferSyntax, &CommitReport{TransactionUID: t.uid, Committed: t.refs})
	if len(data) > maxCommitDataSet {
		return nil, t.giveUp(impossible(fmt.Errorf("%w: %d references are too many for one transaction", ErrBadObject, len(refs))))
	}
	o := BytesObject(StorageCommitmentSOPClass, storageCommitmentInstance, pc.TransferSyntax, data)
	rsp, err := a.request(ctx, pc, func(id uint16) command {
		return make(command, 0, 6).withUID(elRequestedClass, StorageCommitmentSOPClass).with(elField, cmdAction).with(elMessageID, id).
			with(elDataSetType, 1).withUID(elRequestedInst, storageCommitmentInstance).with(elActionType, actionCommit)
	}, &o)
	if err != nil {
		return nil, t.giveUp(err)
	}
	if status := Status(rsp.number(elStatus)); status != StatusSuccess && !status.Warning() {
		return nil, t.giveUp(refusal(rsp))
	}
	return t, nil
}

// Report brings a report of storage commitment to the one who asked for it, on
// an association of its own, as PS3.4 J.3.3.1.3 has it: this side proposes to be
// the SCP. network and addr are the requestor's listener, and Dialer.CalledAE its
// title. The error is a *[SendError]; if it is Retryable, the report should be
// tried again later: a requestor takes the second one of a kind for the first.
func (d *Dialer) Report(ctx context.Context, network, addr string, r *CommitReport) error {
	a, err := d.dial(ctx, network, addr, []Proposal{{AbstractSyntax: StorageCommitmentSOPClass, provider: true}})
	if err != nil {
		return err
	}
	defer a.Close()
	pc := a.context(StorageCommitmentSOPClass, "")
	if pc == nil || !pc.RequestorSCP {
		return impossible(errors.New("dicomtls: the peer does not take reports of storage commitment"))
	}
	o := BytesObject(StorageCommitmentSOPClass, storageCommitmentInstance, pc.TransferSyntax, encodeReport(pc.TransferSyntax, r))
	rsp, err := a.request(ctx, pc, func(id uint16) command { return reportCommand(id, r) }, &o)
	if err != nil {
		return err
	}
	if status := Status(rsp.number(elStatus)); status != StatusSuccess && !status.Warning() {
		return refusal(rsp)
	}
	_ = a.Release(ctx) // the report is there
	return nil
}
