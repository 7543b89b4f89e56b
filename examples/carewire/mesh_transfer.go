package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/meshclient"
)

// maxStateBytes bounds the file that says how far a transfer has come.
const maxStateBytes = 64 << 10

type meshSendCmd struct {
	meshFlags
	To          string `required:"" placeholder:"MAILBOX" help:"The recipient's mailbox."`
	Workflow    string `required:"" placeholder:"WORKFLOW" help:"The workflow."`
	LocalID     string `placeholder:"TEXT" help:"Our own id of the message (default: a random one, which is printed)."`
	FileName    string `placeholder:"NAME" help:"Name for the recipient (default: the server makes one)."`
	Subject     string `placeholder:"TEXT" help:"Subject."`
	ContentType string `placeholder:"TYPE" help:"Type of the content."`
	Gzip        bool   `help:"Compress what is sent; the recipient gets the file as it is."`
	ChunkSize   int64  `placeholder:"BYTES" help:"Size of the pieces of a large file (default: 64 MiB)."`
	State       string `placeholder:"FILE" help:"Where to keep how far a large file has come (default: FILE.mesh-send beside it)."`
	Resume      bool   `help:"Go on with what was interrupted."`
	File        string `arg:"" help:"File to send."`
}

// Help is shown by --help.
func (c *meshSendCmd) Help() string {
	return "The exit status is 0 when the server has the message; 3 when it refused it; 4 when it may have it, and did not say so " +
		"(mesh track --local tells); 5 when it does not have it, and another try, with --resume for a large file, does no harm."
}

// meshSent is what is printed of a message that was sent.
type meshSent struct {
	MessageID string `json:"messageId"`
	LocalID   string `json:"localId"`
	Chunks    int    `json:"chunks"`
}

func (c *meshSendCmd) Run(ctx context.Context, s *streams) error {
	f, err := os.Open(c.File)
	if err != nil {
		return unusable("%w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return unusable("%w", err)
	}
	if c.State == "" {
		c.State = c.File + ".mesh-send"
	}
	m := &meshclient.Message{
		To: c.To, WorkflowID: c.Workflow, LocalID: c.LocalID, FileName: c.FileName, Subject: c.Subject, ContentType: c.ContentType,
		Gzip: c.Gzip, ChunkSize: c.ChunkSize, Content: io.NewSectionReader(f, 0, info.Size()),
	}
	if m.Resume, err = loadState[meshclient.SendState](c.State, c.Resume); err != nil {
		return err
	}
	var bar *progress
	m.Checkpoint = func(state meshclient.SendState) error {
		if bar == nil {
			bar = s.progress(state.Chunks, "chunks")
		}
		bar.step()
		return saveState(c.State, state)
	}
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		sent, err := client.Send(ctx, m)
		if bar != nil {
			bar.clear()
		}
		if err != nil {
			return meshStatus(err)
		}
		if err := os.Remove(c.State); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.note("the message was sent, but %v", err)
		}
		if c.JSON {
			return s.printJSON(meshSent{sent.MessageID, sent.LocalID, sent.Chunks})
		}
		_, err = fmt.Fprintf(s.out, "sent %s, local id %s, in %s\n", sent.MessageID, sent.LocalID, plural(sent.Chunks, "chunk"))
		return err
	})
}

// meshStatus turns what became of a message that was sent into an exit status.
func meshStatus(err error) error {
	failed, ok := errors.AsType[*meshclient.Error](err)
	if !ok {
		return err
	}
	if failed.LocalID != "" {
		err = fmt.Errorf("%w (local id %s)", err, failed.LocalID)
	}
	switch {
	case failed.MaybeDelivered():
		return &exitError{status: exitUnknown, err: err}
	case failed.Status != 0:
		return &exitError{status: exitNacked, err: err}
	case errors.Is(err, meshclient.ErrInvalid), errors.Is(err, meshclient.ErrTooLarge), errors.Is(err, meshclient.ErrSourceChanged):
		return unusable("%w", err)
	}
	return &exitError{status: exitNotSent, err: err}
}

type meshReceiveCmd struct {
	meshFlags
	Out            string `required:"" placeholder:"FILE" help:"File to write; it must not be there yet. FILE.part and FILE.mesh-receive are beside it until it is whole."`
	Resume         bool   `help:"Go on with what was interrupted."`
	Ack            bool   `help:"Acknowledge the message when the file is on the disk."`
	IgnoreChecksum bool   `help:"Take what does not match its sender's checksum."`
	ID             string `arg:"" name:"id" help:"Id of the message."`
}

// meshReceived leaves out what may name a patient: file name and subject.
type meshReceived struct {
	MessageID string `json:"messageId"`
	Sender    string `json:"sender"`
	Workflow  string `json:"workflow"`
	Bytes     int64  `json:"bytes"`
	// Undelivered is the id of the message that a report is about.
	Undelivered string `json:"undelivered,omitempty"`
	Code        string `json:"code,omitempty"`
}

func (c *meshReceiveCmd) Run(ctx context.Context, s *streams) error {
	if _, err := os.Lstat(c.Out); !errors.Is(err, fs.ErrNotExist) {
		return unusable("--out: %s is there already", c.Out)
	}
	part, state := c.Out+".part", c.Out+".mesh-receive"
	o := &meshclient.ReceiveOptions{IgnoreChecksum: c.IgnoreChecksum}
	var err error
	if o.Resume, err = loadState[meshclient.ReceiveState](state, c.Resume); err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE
	if o.Resume == nil {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(part, flags, 0o600)
	if err != nil {
		return unusable("--out: %w", err)
	}
	defer f.Close()
	if o.Resume != nil {
		// What is beyond the state was written after it, and comes again.
		if err := f.Truncate(o.Resume.Offset); err != nil {
			return unusable("--out: %w", err)
		}
		if _, err := f.Seek(o.Resume.Offset, io.SeekStart); err != nil {
			return unusable("--out: %w", err)
		}
	}
	kept := o.Resume != nil // a state that another run can go on from
	var bar *progress
	o.Checkpoint = func(r meshclient.ReceiveState) error {
		if bar == nil {
			bar = s.progress(r.Chunks, "chunks")
		}
		bar.step()
		if err := f.Sync(); err != nil {
			return err
		}
		kept = true
		return saveState(state, r)
	}
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		info, err := client.Receive(ctx, c.ID, f, o)
		if bar != nil {
			bar.clear()
		}
		if err == nil && info.Report == nil {
			err = errors.Join(f.Sync(), f.Close())
			if err == nil {
				err = errors.Join(os.Rename(part, c.Out), syncDir(filepath.Dir(c.Out)))
			}
		}
		if !kept || err == nil {
			_ = os.Remove(part) // of which nothing can be used, or which has its name
		}
		if err != nil {
			return err
		}
		_ = os.Remove(state) // what it says does not fit any FILE.part any more
		if err := c.print(s, info); err != nil || !c.Ack {
			return err
		}
		if err := client.Acknowledge(ctx, c.ID); err != nil {
			return err
		}
		return c.acknowledged(s, c.ID)
	})
}

func (c *meshReceiveCmd) print(s *streams, info *meshclient.Info) error {
	line := meshReceived{MessageID: info.MessageID, Sender: info.Sender, Workflow: info.WorkflowID, Bytes: info.Size}
	if info.Report != nil {
		line.Undelivered, line.Code = info.Report.LinkedMessageID, info.Report.Code
	}
	if c.JSON {
		return s.printJSON(line)
	}
	var err error
	if info.Report != nil {
		_, err = fmt.Fprintf(s.out, "%s is a report: message %s was not delivered, code %s\n", line.MessageID, line.Undelivered, line.Code)
	} else {
		_, err = fmt.Fprintf(s.out, "received %s from %s, workflow %s, %d bytes\n", line.MessageID, line.Sender, line.Workflow, line.Bytes)
	}
	return err
}

// loadState reads what an interrupted transfer left, which must be there with
// --resume, and must not without: one of the two would send, or throw away, what
// nobody meant.
func loadState[T any](path string, resume bool) (*T, error) {
	text, err := readBounded(path, maxStateBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !resume:
		return nil, nil //nolint:nilnil // no state is the ordinary case
	case err != nil:
		return nil, unusable("--resume: %w", err)
	case !resume:
		return nil, unusable("%s tells of a transfer that was interrupted: --resume goes on with it; remove the file to begin again", path)
	}
	var state T
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&state); err != nil {
		return nil, unusable("--resume: %s is not the state of such a transfer", path)
	}
	return &state, nil
}

// saveState writes a state so that it is there, whole, when the power fails.
func saveState(path string, state any) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return writeDurably(path, text)
}

// writeDurably replaces a file as a whole.
func writeDurably(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".mesh-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}
