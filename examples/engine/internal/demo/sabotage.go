package demo

import (
	"context"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// AckBeforeCommit is the name of the only sabotage: the engine acknowledges a
// message first and commits it a moment later, as many engines do. The demo must
// notice, or its verdict is worth nothing.
const AckBeforeCommit = "ack-before-commit"

// commitDelay is longer than any kill takes to arrive, so that what was
// acknowledged last is always lost.
const commitDelay = 300 * time.Millisecond

// Sabotaged wraps s so that Intake reports success before it has committed.
func Sabotaged(s store.Store) store.Store { return ackBeforeCommit{s} }

type ackBeforeCommit struct{ store.Store }

func (s ackBeforeCommit) Intake(ctx context.Context, in store.Intake) (int64, error) {
	in.Raw = append([]byte(nil), in.Raw...)
	time.AfterFunc(commitDelay, func() {
		_, _ = s.Store.Intake(context.WithoutCancel(ctx), in) // losing it is the point
	})
	return 0, nil
}
