package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// engineChannelCmds are the commands of `carewire engine channels`.
type engineChannelCmds struct {
	List     channelListCmd   `cmd:"" help:"List the channels, their states and counts."`
	Status   channelStatusCmd `cmd:"" help:"Show what a channel and its connectors do."`
	Start    channelStartCmd  `cmd:"" help:"Start a stopped channel."`
	Stop     channelStopCmd   `cmd:"" help:"Stop a channel, when what is in hand is done."`
	Pause    channelPauseCmd  `cmd:"" help:"Take nothing in; what is queued goes on being delivered."`
	Resume   channelResumeCmd `cmd:"" help:"End a pause."`
	Halt     channelHaltCmd   `cmd:"" help:"Stop a channel at once; what is in hand is cut off, and sent again later."`
	Deploy   channelDeployCmd `cmd:"" help:"Bring a channel into its initial state; one that runs is restarted."`
	Undeploy channelUndeplCmd `cmd:"" help:"Stop a channel until it is deployed again, or the engine restarted."`
	Put      channelPutCmd    `cmd:"" help:"Make a channel of a file, or replace the one of its id."`
	Get      channelGetCmd    `cmd:"" help:"Print what a channel of the API was made of, in YAML."`
	Remove   channelRemoveCmd `cmd:"" help:"Remove a channel that was made over the API."`
}

// oneChannel are the flags of a command on one channel.
type oneChannel struct {
	engineFlags
	Channel string `arg:"" name:"channel" help:"The channel's name, or its id."`
}

// channelID finds a channel by id or by name.
func (c *engineClient) channelID(ctx context.Context, nameOrID string) (string, error) {
	var names map[string]string
	if err := c.get(ctx, "/api/channels/idsAndNames", &names); err != nil {
		return "", err
	}
	if _, ok := names[nameOrID]; ok {
		return nameOrID, nil
	}
	for id, name := range names {
		if name == nameOrID {
			return id, nil
		}
	}
	return "", &exitError{status: exitNacked, err: fmt.Errorf("the engine has no channel of the name or id %q", nameOrID)}
}

// command has the engine do something with the channel, and prints that it has.
func (c *oneChannel) command(ctx context.Context, s *streams, verb, done string) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	id, err := client.channelID(ctx, c.Channel)
	if err != nil {
		return err
	}
	if _, _, err := client.ask(ctx, http.MethodPost, channelPath(id, "/_"+verb), "", nil); err != nil {
		return err
	}
	return c.done(s, shown(c.Channel, "")+" "+done)
}

func channelPath(id, rest string) string { return "/api/channels/" + url.PathEscape(id) + rest }

type (
	channelStartCmd  struct{ oneChannel }
	channelStopCmd   struct{ oneChannel }
	channelPauseCmd  struct{ oneChannel }
	channelResumeCmd struct{ oneChannel }
	channelHaltCmd   struct{ oneChannel }
	channelDeployCmd struct{ oneChannel }
	channelUndeplCmd struct{ oneChannel }
)

func (c *channelStartCmd) Run(ctx context.Context, s *streams) error {
	return c.command(ctx, s, "start", "started")
}

func (c *channelStopCmd) Run(ctx context.Context, s *streams) error {
	return c.command(ctx, s, "stop", "stopped")
}

func (c *channelPauseCmd) Run(ctx context.Context, s *streams) error {
	return c.command(ctx, s, "pause", "paused")
}

func (c *channelResumeCmd) Run(ctx context.Context, s *streams) error {
	return c.command(ctx, s, "resume", "resumed")
}

func (c *channelHaltCmd) Run(ctx context.Context, s *streams) error {
	return c.command(ctx, s, "halt", "halted")
}

func (c *channelDeployCmd) Run(ctx context.Context, s *streams) error {
	return c.command(ctx, s, "deploy", "deployed")
}

func (c *channelUndeplCmd) Run(ctx context.Context, s *streams) error {
	return c.command(ctx, s, "undeploy", "undeployed")
}

// channelState is what is printed of a channel or a connector.
type channelState struct {
	ChannelID     string `json:"channelId"`
	Name          string `json:"name"`
	State         string `json:"state"`
	MetaDataID    int    `json:"metaDataId"`
	TransportName string `json:"transportName"`
	Statistics    struct{ Received, Sent, Error, Filtered, Queued int64 }
	ListenerInfo  struct {
		Host, TransportType string
		Port                int
		ConnectionCount     int
		Listening           bool
	}
	ChildStatuses []channelState `json:"childStatuses"`
}

// channelListCmd is `carewire engine channels list`.
type channelListCmd struct{ engineFlags }

func (c *channelListCmd) Run(ctx context.Context, s *streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	var raw []json.RawMessage
	if err := client.get(ctx, "/api/channels/statuses?includeUndeployed=true", &raw); err != nil {
		return err
	}
	if c.JSON {
		for _, line := range raw {
			if err := s.printJSON(line); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tSTATE\tRECEIVED\tSENT\tQUEUED\tERROR")
	for _, line := range raw {
		var st channelState
		if err := json.Unmarshal(line, &st); err != nil {
			return fmt.Errorf("the engine's answer is not what was asked for: %w", err)
		}
		n := st.Statistics
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\n", shown(st.ChannelID, ""), shown(st.Name, ""), shown(st.State, ""),
			n.Received, n.Sent, n.Queued, n.Error)
	}
	return w.Flush()
}

// channelStatusCmd is `carewire engine channels status`.
type channelStatusCmd struct{ oneChannel }

func (c *channelStatusCmd) Run(ctx context.Context, s *streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	id, err := client.channelID(ctx, c.Channel)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := client.get(ctx, channelPath(id, "/status"), &raw); err != nil {
		return err
	}
	if c.JSON {
		return s.printJSON(raw)
	}
	var st channelState
	if err := json.Unmarshal(raw, &st); err != nil {
		return fmt.Errorf("the engine's answer is not what was asked for: %w", err)
	}
	fmt.Fprintf(s.out, "%s (%s): %s\n", shown(st.Name, ""), shown(st.ChannelID, ""), shown(st.State, ""))
	if l := st.ListenerInfo; l.Listening && l.TransportType != "" {
		fmt.Fprintf(s.out, "%s on %s:%d, connections: %d\n", shown(l.TransportType, ""), shown(l.Host, ""), l.Port, l.ConnectionCount)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NUMBER\tCONNECTOR\tTRANSPORT\tSTATE\tRECEIVED\tSENT\tQUEUED\tERROR")
	for _, child := range st.ChildStatuses {
		n := child.Statistics
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%d\t%d\t%d\n", child.MetaDataID, shown(child.Name, ""), shown(child.TransportName, ""),
			shown(child.State, ""), n.Received, n.Sent, n.Queued, n.Error)
	}
	return w.Flush()
}

// channelPutCmd is `carewire engine channels put`.
type channelPutCmd struct {
	engineFlags
	Force bool   `help:"Also where messages wait for a destination that the channel has no more."`
	File  string `arg:"" help:"The channel, in YAML or, as .json, in JSON; its keys are those of engine.yaml."`
}

func (c *channelPutCmd) Run(ctx context.Context, s *streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	text, err := readBounded(c.File, 1<<20)
	if err != nil {
		return unusable("%w", err)
	}
	kind := "application/yaml"
	if strings.EqualFold(filepath.Ext(c.File), ".json") {
		kind = "application/json"
	}
	if _, _, err := client.ask(ctx, http.MethodPost, "/api/channels?override=true"+forceQuery(c.Force), kind, []byte(text)); err != nil {
		return err
	}
	return c.done(s, "put")
}

func forceQuery(force bool) string {
	if force {
		return "&force=true"
	}
	return ""
}

// channelGetCmd is `carewire engine channels get`.
type channelGetCmd struct{ oneChannel }

func (c *channelGetCmd) Run(ctx context.Context, s *streams) error {
	if c.JSON {
		return unusable("what a channel was made of is YAML: leave out --json")
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	id, err := client.channelID(ctx, c.Channel)
	if err != nil {
		return err
	}
	_, data, err := client.ask(ctx, http.MethodGet, channelPath(id, "/definition"), "", nil)
	if err != nil {
		return err
	}
	_, err = s.out.Write(data)
	return err
}

// channelRemoveCmd is `carewire engine channels remove`.
type channelRemoveCmd struct {
	oneChannel
	Force bool `help:"Also where messages wait or are dead letters: they stay in the store, out of sight."`
}

func (c *channelRemoveCmd) Run(ctx context.Context, s *streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	id, err := client.channelID(ctx, c.Channel)
	if err != nil {
		return err
	}
	if _, _, err := client.ask(ctx, http.MethodDelete, channelPath(id, "?"+strings.TrimPrefix(forceQuery(c.Force), "&")), "", nil); err != nil {
		return err
	}
	return c.done(s, shown(c.Channel, "")+" removed")
}
