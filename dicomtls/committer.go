package dicomtls

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	defaultMaxPending      = 1000
	defaultMaxPendingBytes = 64 << 20

	recordPart, recordSuffix = ".request-", ".json"
)

// A Committer is a [CommitHandler] that is a whole SCP of storage commitment (PS3.4
// Annex J): it takes a request when that is on disk, asks Vouch for the objects, and
// brings the report to the requestor. Run has to run for that.
//
// A requestor of Requestors gets its reports on an association of their own, to the
// address given there, with the called and calling titles of the request swapped. A
// report that does not arrive is tried again until it is confirmed, after a restart
// too, with waits that double from RetryInterval to MaxRetryInterval, and for
// GiveUpAfter at most. Vouch is asked anew each time. What is confirmed or given up
// is removed from Dir; what is given up is logged.
//
// A requestor whose address is not known gets its report on the association of the
// request, right after the response. If that ends first, there is nowhere to bring
// the report: nothing is kept, and the requestor has to ask again.
//
// The same request again, after a response that was lost, is taken and kept once.
// Another one under the Transaction UID of one that is not reported yet is reported
// with 0131 for every object. What exceeds a limit is answered 0213, resource
// limitation, and what cannot be written 0110.
//
// Dir and Vouch must be set; every other zero field has a default. A Dir belongs to
// one Committer at a time and to nothing else. Fields must not be changed after the
// first call of a method; the methods are safe for concurrent use.
type Committer struct {
	// Dir holds the requests that are not reported yet, a file each: AE titles and
	// UIDs. It is made (mode 0700) where it is missing.
	Dir string
	// Vouch returns the objects that are not safe, each with the reason that is
	// reported: 0110, 0112, 0119, 0122 or 0213. Those that it leaves out are
	// reported as committed. [FileStore.Vouch] is one. It is called by several
	// associations at once; when ctx has ended, its answer is not used. A reason of
	// zero is reported as 0110.
	Vouch func(ctx context.Context, refs []Reference) []FailedReference
	// Requestors are the addresses, "host:port", where AE titles take reports.
	// Titles are claims; a report goes to the address of this list all the same.
	Requestors map[string]string
	// Dialer is how reports are brought: TLS, timeouts and so on. Its CalledAE is
	// not used; its AETitle is if it is set, else the title that was called. Nil:
	// the zero Dialer, without TLS.
	Dialer *Dialer

	MaxPending      int           // requests that are not reported yet; 0: 1000; negative: no limit
	MaxPendingBytes int64         // of their files; 0: 64 MiB, some 500,000 references; negative: no limit
	RetryInterval   time.Duration // after the first failure to report; 0: 10 s; negative is refused
	// MaxRetryInterval is the longest wait; 0: 10 min, or RetryInterval if that is
	// longer; negative is refused.
	MaxRetryInterval time.Duration
	GiveUpAfter      time.Duration // since the request; 0: 72 h; negative: never
	// Logger gets what is not reported, and why; never a UID. nil: nothing is logged.
	Logger *slog.Logger

	opening sync.Once
	openErr error // of opening

	mu sync.Mutex
	// guarded by mu
	pending []*pendingCommit          // the oldest first
	bytes   int64                     // of the files of pending and of those being written
	writing map[string]*pendingCommit // by the names of their files, which are being written
	running bool
	queues  map[string]chan struct{} // of Run: what wakes the queue of an AE title
}

// pendingCommit is a request whose report has not been confirmed. It is static once
// it is pending.
type pendingCommit struct {
	name        string // of its file
	calling     string
	transaction string
	size        int64
	taken       time.Time
}

// commitRecord is the file of a request.
type commitRecord struct {
	Taken          time.Time   `json:"taken"`
	Calling        string      `json:"calling"` // AE titles, as in the request
	Called         string      `json:"called"`
	TransactionUID string      `json:"transactionUID"`
	Duplicate      bool        `json:"duplicate,omitempty"` // of a transaction that was another
	References     []Reference `json:"references"`
}

// Open checks the settings, makes Dir where it is missing, and reads what is to be
// reported still. Call it before listening, to learn at once what is wrong; the other
// methods do it otherwise. Later calls return what the first one did.
func (c *Committer) Open() error {
	c.opening.Do(func() {
		if c.openErr = c.check(); c.openErr == nil {
			c.openErr = c.load()
		}
		if c.openErr != nil {
			c.openErr = fmt.Errorf("dicomtls: Committer%w", c.openErr)
		}
	})
	return c.openErr
}

// check returns the first fault in the settings.
func (c *Committer) check() error {
	switch {
	case c.Dir == "":
		return errors.New(".Dir is missing")
	case c.Vouch == nil:
		return errors.New(".Vouch is missing")
	case c.RetryInterval < 0:
		return errors.New(".RetryInterval is negative")
	case c.MaxRetryInterval < 0:
		return errors.New(".MaxRetryInterval is negative")
	}
	for title, addr := range c.Requestors {
		if !validAE(title) {
			return fmt.Errorf(".Requestors: %q is no AE title: 1 to 16 characters, no backslash, no spaces around", title)
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf(".Requestors: %q of %q is not host:port", addr, title)
		}
	}
	if c.Dialer != nil {
		if err := c.Dialer.check(nil); err != nil {
			return fmt.Errorf(".Dialer: %w", err)
		}
	}
	return nil
}

func (c *Committer) load() error {
	c.writing = make(map[string]*pendingCommit)
	if err := makeDir(c.Dir); err != nil {
		return fmt.Errorf(": %w", err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf(": %w", err)
	}
	unknown := 0
	for _, e := range entries {
		name := filepath.Join(c.Dir, e.Name())
		if strings.HasPrefix(e.Name(), recordPart) { // a crash left it
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf(": %w", err)
			}
			continue
		}
		if !strings.HasSuffix(e.Name(), recordSuffix) {
			continue
		}
		r, size, err := readRecord(name)
		if err != nil {
			return fmt.Errorf(": a request cannot be read that is to be reported still: %w", err)
		}
		if c.Requestors[r.Calling] == "" {
			unknown++
		}
		c.pending = append(c.pending, &pendingCommit{e.Name(), r.Calling, r.TransactionUID, size, r.Taken})
		c.bytes += size
	}
	slices.SortStableFunc(c.pending, func(a, b *pendingCommit) int {
		return cmp.Or(a.taken.Compare(b.taken), strings.Compare(a.name, b.name))
	})
	if unknown > 0 && c.Logger != nil {
		c.Logger.Warn("requests for storage commitment wait for requestors that have no address any more", "requests", unknown)
	}
	return nil
}

func readRecord(name string) (*commitRecord, int64, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, 0, err
	}
	r := new(commitRecord)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, 0, fmt.Errorf("%s: it is damaged", name)
	}
	if !validUID(r.TransactionUID) || len(r.References) == 0 || r.Calling == "" {
		return nil, 0, fmt.Errorf("%s: it is damaged", name)
	}
	return r, int64(len(text)), nil
}

// Pending returns how many requests have been taken and are not reported yet.
func (c *Committer) Pending() int {
	if c.Open() != nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// ServeCommit takes a request.
func (c *Committer) ServeCommit(ctx context.Context, r *CommitRequest) Status {
	if err := c.Open(); err != nil {
		return c.refuse(ctx, StatusProcessingFailure, err)
	}
	if c.Requestors[r.Association.CallingAE] == "" {
		report, err := c.report(ctx, &commitRecord{TransactionUID: r.TransactionUID, References: r.References})
		if err != nil {
			return StatusProcessingFailure
		}
		r.Report, r.Reported = report, func(err error) {
			if err != nil {
				c.warn(ctx, "not reported: the association ended, and the requestor has no address", r.Association.CallingAE, err)
			}
		}
		return StatusSuccess
	}
	status, err := c.keep(&commitRecord{
		Taken: time.Now().UTC(), Calling: r.Association.CallingAE, Called: r.Association.CalledAE,
		TransactionUID: r.TransactionUID, References: r.References,
	})
	if status != StatusSuccess {
		return c.refuse(ctx, status, err)
	}
	return status
}

func (c *Committer) refuse(ctx context.Context, status Status, err error) Status {
	if c.Logger != nil {
		c.Logger.WarnContext(ctx, "request for storage commitment not taken", "status", status.String(), "error", withoutPaths(err))
	}
	return status
}

func (c *Committer) warn(ctx context.Context, what, requestor string, err error) {
	if c.Logger != nil {
		c.Logger.WarnContext(ctx, "storage commitment", "what", what, "requestor", printable(requestor), "error", withoutPaths(err))
	}
}

var (
	errPendingFull = errors.New("as many requests wait for their report as are kept")
	errInWork      = errors.New("the same request is being written for another association")
)

// keep returns StatusSuccess when the request is on disk.
func (c *Committer) keep(r *commitRecord) (Status, error) {
	p := &pendingCommit{name: recordName(r), calling: r.Calling, transaction: r.TransactionUID, taken: r.Taken}
	known, err := c.reserve(p, &r.Duplicate)
	switch {
	case err != nil:
		return StatusResourceLimitation, err
	case known:
		return StatusSuccess, nil
	}
	status := StatusProcessingFailure
	text, err := json.Marshal(r)
	if err == nil && !c.allot(p, int64(len(text))) {
		status, err = StatusResourceLimitation, errPendingFull
	}
	if err == nil {
		err = c.write(p.name, text)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.writing, p.name)
	if err != nil {
		c.bytes -= p.size
		return status, err
	}
	c.pending = append(c.pending, p)
	if wake := c.queues[p.calling]; wake != nil {
		select {
		case wake <- struct{}{}:
		default: // it is awake
		}
	}
	return StatusSuccess, nil
}

// recordName is the same for the same request alone.
func recordName(r *commitRecord) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\\%s\\%s", r.Calling, r.Called, r.TransactionUID) // no title has a backslash
	for _, ref := range r.References {
		fmt.Fprintf(h, "\\%s\\%s", ref.SOPClassUID, ref.SOPInstanceUID)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]) + recordSuffix
}

// reserve takes a place for a request, unless it is there already, and tells whether
// another one has its Transaction UID.
func (c *Committer) reserve(p *pendingCommit, duplicate *bool) (known bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing[p.name] != nil {
		return false, errInWork
	}
	for _, other := range slices.AppendSeq(slices.Clone(c.pending), maps.Values(c.writing)) {
		if other.name == p.name {
			return true, nil
		}
		*duplicate = *duplicate || other.calling == p.calling && other.transaction == p.transaction
	}
	if most := orDefault(c.MaxPending, defaultMaxPending); most > 0 && len(c.pending)+len(c.writing) >= most {
		return false, errPendingFull
	}
	c.writing[p.name] = p
	return false, nil
}

// allot takes the bytes of a request's file, if there are so many.
func (c *Committer) allot(p *pendingCommit, size int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if most := orDefault(c.MaxPendingBytes, defaultMaxPendingBytes); most > 0 && c.bytes+size > most {
		return false
	}
	p.size = size
	c.bytes += size
	return true
}

// write makes a file durable.
func (c *Committer) write(name string, text []byte) error {
	f, err := os.CreateTemp(c.Dir, recordPart+"*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already if it has its name
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	path := filepath.Join(c.Dir, name)
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if err := syncDir(c.Dir); err != nil {
		_ = os.Remove(path) // it has not been taken; if it stays, it is reported once too often
		return err
	}
	return nil
}
