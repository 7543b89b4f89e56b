package dicomtls_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// running runs c until the test, or the function that is returned, ends it.
func running(t *testing.T, c *dicomtls.Committer) (stop func()) {
	t.Helper()
	require.NoError(t, c.Open())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	var stopped atomic.Bool
	stop = func() {
		if cancel(); stopped.CompareAndSwap(false, true) {
			assert.ErrorIs(t, <-ended, context.Canceled)
		}
	}
	t.Cleanup(stop)
	return stop
}

// all vouches for everything.
func all(context.Context, []dicomtls.Reference) []dicomtls.FailedReference { return nil }

// requestor is a modality that takes reports at addr.
func requestor(t *testing.T) (d *dicomtls.Dialer, addr string) {
	t.Helper()
	shared := new(dicomtls.Commitments)
	back := listen(t, &dicomtls.Server{AETitles: []string{"MODALITY"}, Commitments: shared})
	return &dicomtls.Dialer{AETitle: "MODALITY", CalledAE: "ARCHIVE", Commitments: shared, CommitTimeout: 20 * time.Second}, back.addr
}

// committed waits until nothing is left to report.
func committed(t *testing.T, c *dicomtls.Committer) {
	t.Helper()
	require.Eventually(t, func() bool { return c.Pending() == 0 }, 20*time.Second, time.Millisecond)
	left, err := os.ReadDir(c.Dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestACommitterReportsWhatAFileStoreHas(t *testing.T) {
	store := &dicomtls.FileStore{Dir: t.TempDir()}
	objects, _ := writeFiles(t, t.TempDir(), 3, 1000)
	d, addr := requestor(t)
	for name, requestors := range map[string]map[string]string{
		"on the association of the request": nil,
		"on one of its own":                 {"MODALITY": addr},
	} {
		t.Run(name, func(t *testing.T) {
			c := &dicomtls.Committer{Dir: t.TempDir(), Vouch: store.Vouch, Requestors: requestors}
			running(t, c)
			archive := listen(t, &dicomtls.Server{Store: store, Commit: c})
			d := &dicomtls.Dialer{AETitle: d.AETitle, CalledAE: d.CalledAE, Commitments: d.Commitments, CommitTimeout: d.CommitTimeout}
			if requestors == nil {
				d.Commitments = nil
			}
			a, err := d.DialContext(t.Context(), "tcp", archive.addr, append(dicomtls.Propose(objects), dicomtls.CommitProposal())...)
			require.NoError(t, err)
			defer a.Close()
			refs := make([]dicomtls.Reference, 0, len(objects))
			for i, o := range objects {
				refs = append(refs, dicomtls.Reference{SOPClassUID: o.SOPClassUID, SOPInstanceUID: o.SOPInstanceUID})
				if i < 2 {
					_, err := a.Store(t.Context(), o)
					require.NoError(t, err)
				}
			}
			refs[1].SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
			result, err := a.Commit(t.Context(), refs)
			require.NoError(t, err)
			assert.Equal(t, refs[:1], result.Committed)
			assert.Equal(t, []dicomtls.FailedReference{
				{Reference: refs[1], Reason: dicomtls.StatusClassConflict}, {Reference: refs[2], Reason: dicomtls.StatusNoSuchObject},
			}, result.Failed)
			committed(t, c)
		})
	}
}

func TestAFileStoreThatCannotBeReadVouchesForNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(dir, nil, 0o600))
	failed := (&dicomtls.FileStore{Dir: dir}).Vouch(t.Context(), refs(1))
	assert.Equal(t, []dicomtls.FailedReference{{Reference: refs(1)[0], Reason: dicomtls.StatusProcessingFailure}}, failed)

	store := &dicomtls.FileStore{Dir: t.TempDir()}
	require.NoError(t, os.WriteFile(filepath.Join(store.Dir, refs(1)[0].SOPInstanceUID+".dcm"), []byte("no DICOM"), 0o600))
	failed = store.Vouch(t.Context(), append(refs(1), dicomtls.Reference{SOPClassUID: "1.2", SOPInstanceUID: "../x"}))
	require.Len(t, failed, 2)
	assert.Equal(t, dicomtls.StatusProcessingFailure, failed[0].Reason, "not to be read")
	assert.Equal(t, dicomtls.StatusNoSuchObject, failed[1].Reason, "no UID")
}

func TestAReportIsBroughtAfterARestartAndUntilItIsConfirmed(t *testing.T) {
	dir := t.TempDir()
	d, addr := requestor(t)
	c := &dicomtls.Committer{Dir: dir, Vouch: all, Requestors: map[string]string{"MODALITY": addr}}
	archive := listen(t, &dicomtls.Server{Commit: c}) // Run does not run
	a := committing(t, d, archive.addr)
	transaction, err := a.RequestCommit(t.Context(), refs(2))
	require.NoError(t, err)
	require.NoError(t, a.Release(t.Context()))
	assert.Equal(t, 1, c.Pending())
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".request-1"), []byte("{"), 0o600), "as a crash leaves it")

	// The next process does not reach the requestor at once.
	var dials atomic.Int32
	c = &dicomtls.Committer{
		Dir: dir, Vouch: all, Requestors: map[string]string{"MODALITY": addr}, RetryInterval: time.Millisecond,
		Dialer: &dicomtls.Dialer{NetDialer: dialerFunc(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) < 4 {
				return nil, errors.New("no route")
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		})},
	}
	running(t, c)
	result, err := transaction.Wait(t.Context())
	require.NoError(t, err)
	assert.Equal(t, refs(2), result.Committed)
	committed(t, c)
	assert.EqualValues(t, 4, dials.Load())
	assert.ErrorContains(t, c.Run(t.Context()), "running already", "the first one has reported")
}

type dialerFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (f dialerFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

// asks is a request as a Server hands it over.
func asks(uid string, n int) *dicomtls.CommitRequest {
	return &dicomtls.CommitRequest{
		Association: &dicomtls.AssociationInfo{CallingAE: "MODALITY", CalledAE: "ARCHIVE"}, TransactionUID: uid, References: refs(n),
	}
}

func TestARequestThatIsAskedTwiceIsKeptOnce(t *testing.T) {
	reports := make(chan *dicomtls.CommitReport, 3)
	back := listen(t, &dicomtls.Server{Commitments: &dicomtls.Commitments{
		Unclaimed: func(_ context.Context, a *dicomtls.AssociationInfo, r *dicomtls.CommitReport) dicomtls.Status {
			assert.Equal(t, "ARCHIVE", a.CallingAE)
			assert.Equal(t, "MODALITY", a.CalledAE)
			reports <- r
			return dicomtls.StatusSuccess
		},
	}})
	c := &dicomtls.Committer{Dir: t.TempDir(), Vouch: all, Requestors: map[string]string{"MODALITY": back.addr}}
	for _, n := range []int{1, 1, 2} {
		require.Equal(t, dicomtls.StatusSuccess, c.ServeCommit(t.Context(), asks("1.2.3", n)))
	}
	assert.Equal(t, 2, c.Pending())
	running(t, c)
	committed(t, c)
	require.Len(t, reports, 2)
	assert.Equal(t, &dicomtls.CommitReport{TransactionUID: "1.2.3", Committed: refs(1)}, <-reports)
	second := <-reports
	assert.Empty(t, second.Committed)
	require.Len(t, second.Failed, 2)
	assert.Equal(t, dicomtls.StatusDuplicateTransaction, second.Failed[0].Reason)
}

func TestACommitterIsBounded(t *testing.T) {
	known := map[string]string{"MODALITY": "127.0.0.1:1"}
	for name, c := range map[string]*dicomtls.Committer{
		"in number": {MaxPending: 1},
		"in bytes":  {MaxPendingBytes: 300},
	} {
		t.Run(name, func(t *testing.T) {
			c.Dir, c.Vouch, c.Requestors = t.TempDir(), all, known
			assert.Equal(t, dicomtls.StatusSuccess, c.ServeCommit(t.Context(), asks("1.2.3", 1)))
			assert.Equal(t, dicomtls.StatusResourceLimitation, c.ServeCommit(t.Context(), asks("1.2.4", 1)))
			assert.Equal(t, dicomtls.StatusSuccess, c.ServeCommit(t.Context(), asks("1.2.3", 1)), "it is there")
			assert.Equal(t, 1, c.Pending())
			again := &dicomtls.Committer{Dir: c.Dir, Vouch: all, Requestors: known, MaxPending: c.MaxPending, MaxPendingBytes: c.MaxPendingBytes}
			assert.Equal(t, dicomtls.StatusResourceLimitation, again.ServeCommit(t.Context(), asks("1.2.4", 1)), "after a restart too")
		})
	}
	t.Run("in time", func(t *testing.T) {
		c := &dicomtls.Committer{
			Dir: t.TempDir(), Vouch: all, Requestors: known, RetryInterval: time.Millisecond, GiveUpAfter: time.Nanosecond,
			Dialer: &dicomtls.Dialer{NetDialer: dialerFunc(func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") })},
		}
		require.Equal(t, dicomtls.StatusSuccess, c.ServeCommit(t.Context(), asks("1.2.3", 1)))
		running(t, c)
		committed(t, c)
	})
}

func TestAReportThatTheRequestorRefusesIsGivenUp(t *testing.T) {
	back := listen(t, &dicomtls.Server{Commitments: new(dicomtls.Commitments)}) // waits for none
	c := &dicomtls.Committer{Dir: t.TempDir(), Vouch: all, Requestors: map[string]string{"MODALITY": back.addr}}
	running(t, c)
	require.Equal(t, dicomtls.StatusSuccess, c.ServeCommit(t.Context(), asks("1.2.3", 1)))
	committed(t, c)
	back.waitFor("operation N-EVENT-REPORT 0110", 1)
}

func TestARequestThatCannotBeWrittenIsNotTaken(t *testing.T) {
	c := &dicomtls.Committer{Dir: filepath.Join(t.TempDir(), "gone"), Vouch: all, Requestors: map[string]string{"MODALITY": "127.0.0.1:1"}}
	require.NoError(t, c.Open())
	require.NoError(t, os.Remove(c.Dir))
	assert.Equal(t, dicomtls.StatusProcessingFailure, c.ServeCommit(t.Context(), asks("1.2.3", 1)))
	assert.Zero(t, c.Pending())
	require.NoError(t, os.Mkdir(c.Dir, 0o700))
	assert.Equal(t, dicomtls.StatusSuccess, c.ServeCommit(t.Context(), asks("1.2.3", 1)), "it has its place back")
}

func TestACommitterThatCannotWorkDoesNotOpen(t *testing.T) {
	damaged := t.TempDir()
	text, err := json.Marshal(map[string]string{"calling": "MODALITY"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(damaged, "x.json"), text, 0o600))
	for want, c := range map[string]*dicomtls.Committer{
		"Dir is missing":                   {Vouch: all},
		"Vouch is missing":                 {Dir: "x"},
		"RetryInterval is negative":        {Dir: "x", Vouch: all, RetryInterval: -1},
		"MaxRetryInterval is negative":     {Dir: "x", Vouch: all, MaxRetryInterval: -1},
		`"" is no AE title`:                {Dir: "x", Vouch: all, Requestors: map[string]string{"": "h:1"}},
		`"h" of "MODALITY" is not`:         {Dir: "x", Vouch: all, Requestors: map[string]string{"MODALITY": "h"}},
		"Committer.Dialer: dicomtls: Dial": {Dir: "x", Vouch: all, Dialer: &dicomtls.Dialer{Window: -1}},
		"it is damaged":                    {Dir: damaged, Vouch: all},
	} {
		require.ErrorContains(t, c.Open(), want)
		require.ErrorContains(t, c.Run(t.Context()), want)
		assert.Equal(t, dicomtls.StatusProcessingFailure, c.ServeCommit(t.Context(), asks("1.2.3", 1)))
		assert.Zero(t, c.Pending())
	}
}
