package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/meshclient"
)

type meshPollCmd struct {
	meshFlags
	Out      string `required:"" placeholder:"DIR" help:"Directory for messages: ID.dat is what one holds, ID.ctl what the server says of it, reports among it. Made (mode 0700) where it is missing."`
	Workflow string `placeholder:"FILTER" help:"One workflow, or a filter: W, !W, W*, !W*, *W* or !*W*."`
	Once     bool   `help:"End when the inbox is empty."`
}

// Help is shown by --help.
func (c *meshPollCmd) Help() string {
	return "The inbox is listed every five minutes, and again at once while it is full; there is a handshake a day. A message is acknowledged when its " +
		"files are on the disk. DIR/.mesh-poll.json remembers the rest, so that another run neither asks too soon nor receives twice. With --once the " +
		"exit status is 1 if a message could not be received."
}

func (c *meshPollCmd) Run(ctx context.Context, s *streams) error {
	if err := os.MkdirAll(c.Out, 0o700); err != nil {
		return unusable("--out: %w", err)
	}
	return c.with(ctx, func(ctx context.Context, client *meshclient.Client) error {
		p := &meshclient.Poller{
			Client: client, WorkflowFilter: c.Workflow, Store: meshclient.PollFile(filepath.Join(c.Out, ".mesh-poll.json")),
			Handle: func(ctx context.Context, id string) error { return c.take(ctx, s, client, id) },
			Observe: func(e meshclient.PollEvent) {
				if e.Err != nil {
					s.note("%s %s: %v", e.Kind, e.MessageID, e.Err)
				}
			},
		}
		if !c.Once {
			return p.Run(ctx)
		}
		polled, err := p.Poll(ctx)
		if err != nil {
			return err
		}
		if left := polled.Listed - polled.Acknowledged; left > 0 {
			return fmt.Errorf("%s of %d in the inbox not done with", plural(left, "message"), polled.Listed)
		}
		return nil
	})
}

// take makes one message files.
func (c *meshPollCmd) take(ctx context.Context, s *streams, client *meshclient.Client, id string) error {
	base := filepath.Join(c.Out, url.PathEscape(id)) // never a name that a sender gave
	info, err := client.ReceiveFile(ctx, id, base+".dat", nil)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	if err := writeDurably(base+".ctl", text); err != nil {
		return err
	}
	return (&meshReceiveCmd{meshFlags: c.meshFlags}).print(s, info)
}
