package sqlite

import (
	"context"
	"errors"
	"fmt"

	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

// A fault says what an error of SQLite means for the store.
type fault int

const (
	faultNone    fault = iota
	faultRequest       // the statement's own: the store is well, the request is not
	faultBusy          // another program holds the database: nothing was changed, later it may go
	faultFull          // no space: nothing was changed
	faultDisk          // anything else: what is on the disk is unknown
)

// faultOf classes an error. What is not known to be harmless is the disk's.
func faultOf(err error) fault {
	if err == nil {
		return faultNone
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return faultRequest
	}
	e, ok := errors.AsType[*driver.Error](err)
	if !ok {
		return faultDisk
	}
	switch e.Code() & 0xff { // the low byte is the primary code
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE:
		return faultRequest
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return faultBusy
	case sqlite3.SQLITE_FULL:
		return faultFull
	}
	return faultDisk
}

// classify wraps an error of SQLite with the store's, where there is one.
func classify(err error) error {
	switch faultOf(err) {
	case faultFull:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case faultDisk:
		return fmt.Errorf("%w: %w", store.ErrFailed, err)
	default:
		return err
	}
}
