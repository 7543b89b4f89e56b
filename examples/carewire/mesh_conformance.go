package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/carewire/carewire/meshclient"
)

type meshConformanceCmd struct {
	meshFlags
	To       string `placeholder:"MAILBOX" help:"Mailbox to send to; what is to be received must come to --mailbox (default: that)."`
	Workflow string `required:"" placeholder:"WORKFLOW" help:"A workflow that both may use."`
	Disabled string `placeholder:"MAILBOX" help:"A mailbox with the same password that is disabled, for test 701."`
	Large    bool   `help:"Also send and receive more than 200 MB in chunks (tests 501 and 502)."`
	Many     bool   `help:"Also send, list and receive 600 messages (test 601)."`
}

// Help is shown by --help.
func (c *meshConformanceCmd) Help() string {
	return "The tests of NHS's catalogue, with the ids and times to look for in MESH's logs. It sends synthetic messages, and receives and acknowledges these " +
		"and no others: it is for an integration environment. The exit status is 1 when a test fails."
}

// A conformanceLine is the evidence of one test.
type conformanceLine struct {
	Test     string    `json:"test"`
	Result   string    `json:"result"` // "pass", "FAIL" or "skip"
	Title    string    `json:"title"`
	Evidence string    `json:"evidence"`
	Began    time.Time `json:"began"`
}

// A skipError is a test that was not run, and why.
type skipError string

func (e skipError) Error() string { return string(e) }

// A catalogue is one run through the catalogue.
type catalogue struct {
	*meshConformanceCmd
	client *meshclient.Client
	last   string // id of the last message that was acknowledged
}

func (c *meshConformanceCmd) Run(ctx context.Context, s *streams) error {
	conf, err := c.config()
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		run := &catalogue{meshConformanceCmd: c, client: client}
		own := c.To == "" || c.To == client.Mailbox()
		failures := 0
		for _, test := range []struct {
			id, title string
			run       func(context.Context) (string, error)
		}{
			{"handshake", "handshake, once a day", run.handshake},
			{"201", "send, and list the inbox at once", func(ctx context.Context) (string, error) { return run.send(ctx, false) }},
			{"202", "send compressed", func(ctx context.Context) (string, error) { return run.send(ctx, true) }},
			{"401", "receive and acknowledge", func(ctx context.Context) (string, error) { return run.both(ctx, own, 1000, false) }},
			{"402", "receive compressed and acknowledge", func(ctx context.Context) (string, error) { return run.both(ctx, own, 1000, true) }},
			{"501, 502", "send and receive more than 200 MB in chunks", func(ctx context.Context) (string, error) {
				if !c.Large {
					return "", skipError("--large was not given")
				}
				return run.both(ctx, own, 210_000_000, false)
			}},
			{"601", "600 messages that wait", func(ctx context.Context) (string, error) { return run.many(ctx, own) }},
			{"701", "a disabled mailbox is refused", func(ctx context.Context) (string, error) { return run.disabled(ctx, conf) }},
			{"702", "an unknown recipient is refused", run.unknownRecipient},
			{"703, 803", "the report of an undelivered message", func(context.Context) (string, error) {
				return "", skipError("it comes five days after a message that nobody collects: mesh poll and mesh receive print it as a report")
			}},
			{"704", "an unknown message is not found", run.unknownMessage},
			{"705", "a message that was acknowledged is gone", run.acknowledgedMessage},
			{"801", "one thread for a mailbox", func(context.Context) (string, error) {
				return "", skipError("self-certified: the commands of this tool, and a Poller, make one request at a time")
			}},
		} {
			line := conformanceLine{Test: test.id, Title: test.title, Result: "pass", Began: time.Now().UTC().Truncate(time.Millisecond)}
			line.Evidence, err = test.run(ctx)
			if skip, ok := errors.AsType[skipError](err); ok {
				line.Result, line.Evidence = "skip", string(skip)
			} else if err != nil {
				failures++
				line.Result, line.Evidence = "FAIL", err.Error()
			}
			if err := run.print(s, line); err != nil {
				return err
			}
		}
		if failures > 0 {
			return &exitError{status: exitNo, err: fmt.Errorf("%s failed", plural(failures, "test"))}
		}
		return nil
	})
}

func (c *catalogue) print(s *streams, line conformanceLine) error {
	if c.JSON {
		return s.printJSON(line)
	}
	_, err := fmt.Fprintf(s.out, "%s %-9s %s\n     %s  %s\n", line.Result, line.Test, line.Title, line.Began.Format(time.RFC3339), line.Evidence)
	return err
}

func (c *catalogue) handshake(ctx context.Context) (string, error) {
	return "mailbox " + c.client.Mailbox(), c.client.Handshake(ctx)
}

func (c *catalogue) message(size int64, zip bool) *meshclient.Message {
	return &meshclient.Message{
		To: cmp.Or(c.To, c.client.Mailbox()), WorkflowID: c.Workflow, FileName: "conformance.dat", Content: newSynthetic(size), Gzip: zip,
	}
}

func (c *catalogue) send(ctx context.Context, zip bool) (string, error) {
	sent, err := c.client.Send(ctx, c.message(1000, zip))
	if err != nil {
		return "", err
	}
	page, err := c.client.Inbox(ctx, nil)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("message %s, local id %s; then the inbox was listed: %s", sent.MessageID, sent.LocalID, plural(len(page.MessageIDs), "message")), nil
}

// both sends a message to this mailbox, receives and acknowledges it.
func (c *catalogue) both(ctx context.Context, own bool, size int64, zip bool) (string, error) {
	if !own {
		return "", skipError("--to is another mailbox")
	}
	sent, err := c.client.Send(ctx, c.message(size, zip))
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	info, err := c.client.Receive(ctx, sent.MessageID, sum, nil)
	if err != nil {
		return "", err
	}
	got := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if got != sent.Checksum || info.Size != size {
		return "", fmt.Errorf("message %s: %d bytes with %s were received of %d with %s", sent.MessageID, info.Size, got, size, sent.Checksum)
	}
	if err := c.client.Acknowledge(ctx, sent.MessageID); err != nil {
		return "", err
	}
	c.last = sent.MessageID
	return fmt.Sprintf("message %s: %d bytes in %s, %s both ways, acknowledged", sent.MessageID, size, plural(info.Chunks, "chunk"), got), nil
}

// many is the pattern list, 500 times receive and acknowledge, list, 100 times.
func (c *catalogue) many(ctx context.Context, own bool) (string, error) {
	switch {
	case !c.Many:
		return "", skipError("--many was not given")
	case !own:
		return "", skipError("--to is another mailbox")
	}
	const all = 600
	waiting := make(map[string]bool, all)
	for range all {
		sent, err := c.client.Send(ctx, c.message(100, false))
		if err != nil {
			return "", err
		}
		waiting[sent.MessageID] = true
	}
	var evidence strings.Builder
	for len(waiting) > 0 {
		page, err := c.client.Inbox(ctx, nil)
		if err != nil {
			return "", err
		}
		done := 0
		for _, id := range page.MessageIDs {
			if !waiting[id] {
				continue // another's
			}
			if _, err := c.client.Receive(ctx, id, io.Discard, nil); err != nil {
				return "", err
			}
			if err := c.client.Acknowledge(ctx, id); err != nil {
				return "", err
			}
			delete(waiting, id)
			done++
		}
		if done == 0 {
			return "", fmt.Errorf("%s of %d are not listed: the inbox holds other messages, which come first", plural(len(waiting), "message"), all)
		}
		fmt.Fprintf(&evidence, "listed, %d received and acknowledged; ", done)
	}
	return evidence.String() + "none is left", nil
}

func (c *catalogue) disabled(ctx context.Context, conf meshclient.Config) (string, error) {
	if c.Disabled == "" {
		return "", skipError("--disabled was not given")
	}
	conf.Mailbox = c.Disabled
	other, err := meshclient.New(conf)
	if err != nil {
		return "", err
	}
	defer other.Close()
	return expect(other.Handshake(ctx), meshclient.ErrAuth)
}

func (c *catalogue) unknownRecipient(ctx context.Context) (string, error) {
	m := c.message(100, false)
	m.To = "NOSUCHMAILBOX"
	_, err := c.client.Send(ctx, m)
	return expect(err, meshclient.ErrUnregisteredRecipient)
}

func (c *catalogue) unknownMessage(ctx context.Context) (string, error) {
	_, err := c.client.Receive(ctx, "20000101000000000000000000", io.Discard, nil)
	return expect(err, meshclient.ErrNotFound)
}

func (c *catalogue) acknowledgedMessage(ctx context.Context) (string, error) {
	if c.last == "" {
		return "", skipError("none was acknowledged above")
	}
	_, err := c.client.Receive(ctx, c.last, io.Discard, nil)
	return expect(err, meshclient.ErrGone)
}

// expect is a refusal that must come, once.
func expect(err, want error) (string, error) {
	e, ok := errors.AsType[*meshclient.Error](err)
	switch {
	case err == nil:
		return "", errors.New("it was not refused")
	case !ok || !errors.Is(err, want):
		return "", err
	case e.Attempts > 1:
		return "", fmt.Errorf("it was tried %d times: %w", e.Attempts, err)
	}
	return fmt.Sprintf("status %d, code %q, tried once", e.Status, e.ServerCode), nil
}

// synthetic is content of any size that takes no memory and does not compress
// well: 64 KiB, again and again.
type synthetic struct {
	size  int64
	block []byte
}

func newSynthetic(size int64) *synthetic {
	block := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(block) // never an error
	return &synthetic{size: size, block: block}
}

func (s *synthetic) Size() int64 { return s.size }

func (s *synthetic) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < s.size {
		k := copy(p[n:min(int64(len(p)), int64(n)+s.size-off)], s.block[off%int64(len(s.block)):])
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
