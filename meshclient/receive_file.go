package meshclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/httpsender"
)

// maxFileState bounds the file that says how far a message has come.
const maxFileState = 64 << 10

// ReceiveFile is Receive into a file, which is there, whole and durable, when it
// returns nil, and not before; a report makes none. name must not come from the
// message: its id is a good one, its FileName is not.
//
// What has come of a message in chunks is in name.part until then, and how far that
// is in name.state: a call that finds both goes on there, in another process too. A
// file of the name that is there already is replaced. Of o, Resume is not looked at.
func (c *Client) ReceiveFile(ctx context.Context, messageID, name string, o *ReceiveOptions) (*Info, error) {
	own := ReceiveOptions{}
	if o != nil {
		own = *o
	}
	info, err := c.receiveFile(ctx, messageID, name, own)
	if err == nil {
		return info, nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return nil, err
	}
	return nil, &Error{Op: "receive", MessageID: messageID, outcome: httpsender.Retryable, cause: fmt.Errorf("writing failed: %w", err)}
}

func (c *Client) receiveFile(ctx context.Context, messageID, name string, o ReceiveOptions) (*Info, error) {
	part, state := name+".part", name+".state"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE, 0o600) //nolint:gosec // the caller's own path
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o.Resume = resumable(f, state, messageID)
	if o.Resume == nil {
		if err := f.Truncate(0); err != nil {
			return nil, err
		}
	}
	kept, then := o.Resume != nil, o.Checkpoint
	o.Checkpoint = func(s ReceiveState) error {
		text, err := json.Marshal(s)
		if err == nil {
			err = errors.Join(f.Sync(), replaceFile(state, text))
		}
		if kept = kept || err == nil; err != nil || then == nil {
			return err
		}
		return then(s)
	}
	info, err := c.Receive(ctx, messageID, f, &o)
	if err == nil && info.Report == nil {
		if err = errors.Join(f.Sync(), f.Close()); err == nil {
			err = os.Rename(part, name)
		}
		if err == nil {
			err = syncDir(filepath.Dir(name))
		}
	}
	// What another try could not use does not stay behind.
	if e, ok := errors.AsType[*Error](err); err == nil || !kept || ok && !e.Retryable() {
		_ = os.Remove(part)  // by a name that is free again, or is replaced
		_ = os.Remove(state) // which says nothing without the other
	}
	if err != nil {
		return nil, err
	}
	return info, nil
}

// resumable returns the state of a message that began to come, with f where it says,
// or nil if there is none that can be used.
func resumable(f *os.File, path, messageID string) *ReceiveState {
	text, err := readSmall(path, maxFileState)
	if err != nil {
		return nil
	}
	var s ReceiveState
	info, err := f.Stat()
	if err != nil || json.Unmarshal(text, &s) != nil || s.MessageID != messageID || s.Next < 2 || s.Next > s.Chunks ||
		s.Offset < 0 || info.Size() < s.Offset {
		return nil
	}
	// What is beyond the state was written after it, and comes again.
	if f.Truncate(s.Offset) != nil {
		return nil
	}
	if _, err := f.Seek(s.Offset, io.SeekStart); err != nil {
		return nil
	}
	return &s
}
