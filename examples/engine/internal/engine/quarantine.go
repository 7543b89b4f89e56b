package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/mllp"
)

// recount is how often a full quarantine looks whether somebody has tidied up.
const recount = time.Minute

// quarantine keeps a file about each frame that did not become a message, in a
// directory of a bounded number of them: whoever can send can send bad frames.
type quarantine struct {
	// static after construction
	cfg config.Quarantine
	log *slog.Logger

	mu      sync.Mutex
	counted time.Time // when files was; guarded by mu
	files   int       // about frames, in the directory; guarded by mu
	last    string    // the stem of the youngest; guarded by mu
	same    int       // how many had that stem before; guarded by mu
	full    bool      // and that has been said; guarded by mu
}

// note is what is kept of a frame, as JSON.
type note struct {
	Time       string       `json:"time"`
	Reason     mllp.Reason  `json:"reason"`
	Detail     string       `json:"detail,omitempty"`
	Offset     int64        `json:"offset"` // in the stream of the connection
	Length     int64        `json:"length"`
	RemoteAddr string       `json:"remoteAddress"`
	Subject    string       `json:"tlsClientSubject,omitempty"`
	ControlID  string       `json:"controlId,omitempty"`
	Code       mllp.AckCode `json:"answered,omitempty"`
	Bytes      string       `json:"bytes,omitempty"` // the file beside that has them
}

// keep is the hook of a Server. That the connection waits for it bounds how fast
// one sender can fill the directory.
func (q *quarantine) keep(ctx context.Context, f mllp.QuarantinedFrame) {
	now := time.Now().UTC()
	name, ok := q.name(ctx, now)
	if !ok {
		return
	}
	n := note{
		Time: now.Format(time.RFC3339Nano), Reason: f.Reason, Detail: f.Detail, Offset: f.Offset, Length: f.Length,
		RemoteAddr: f.RemoteAddr.String(), ControlID: f.ControlID, Code: f.Code,
	}
	if f.Identity != nil {
		n.Subject = f.Identity.Subject
	}
	var err error
	if len(f.Bytes) > 0 {
		n.Bytes = name + ".frame"
		err = writeFile(q.cfg.Directory, n.Bytes, bytes.NewReader(f.Bytes))
	}
	text, failed := json.MarshalIndent(n, "", "  ")
	if err = errors.Join(err, failed); err == nil {
		err = writeFile(q.cfg.Directory, name+".json", bytes.NewReader(append(text, '\n')))
	}
	if err != nil {
		q.log.ErrorContext(ctx, "bad frame cannot be put into quarantine", "reason", f.Reason, "err", err)
	}
}

// name returns a name that no other frame has, and false when there is no room.
func (q *quarantine) name(ctx context.Context, now time.Time) (string, bool) {
	limit := q.cfg.MaxFiles
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counted.IsZero() || q.files >= limit && now.Sub(q.counted) >= recount {
		q.counted, q.files = now, q.count()
	}
	if q.files >= limit {
		if !q.full {
			q.full = true
			q.log.WarnContext(ctx, "the quarantine is full: bad frames are no longer kept until files are removed", "files", q.files)
		}
		return "", false
	}
	q.full = false
	q.files++
	stem := now.Format("20060102T150405.000000Z")
	if stem == q.last {
		q.same++
	} else {
		q.last, q.same = stem, 0
	}
	return fmt.Sprintf("%s-%d", stem, q.same), true
}

func (q *quarantine) count() int {
	entries, err := os.ReadDir(q.cfg.Directory)
	if err != nil {
		return 0 // there is none yet, or writing will say what is wrong
	}
	n := 0
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".json" && !strings.HasPrefix(e.Name(), ".") {
			n++
		}
	}
	return n
}
