package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/internal/mllpprobe"
)

// mllpProbeCmd is `carewire mllp probe`.
type mllpProbeCmd struct {
	Address string `arg:"" optional:"" name:"host:port" help:"Listener to probe. It files the messages."`
	TLS     bool   `name:"tls" help:"Use TLS (MLLPS), and verify the listener's certificate."`
	clientTLS
	Only         []string      `placeholder:"NAME,..." help:"Run only these scenarios."`
	List         bool          `help:"List the scenarios, with the rule of each, and run none."`
	Large        bool          `help:"Add scenarios that send 16 MiB and more."`
	Slow         bool          `help:"Add scenarios that take a minute and more."`
	Conns        int           `default:"1" placeholder:"N" help:"Connections to use at a time (default: ${default})."`
	Timeout      time.Duration `default:"5s" placeholder:"SPAN" help:"How long an answer may take (default: ${default})."`
	ProcessingID string        `name:"processing-id" enum:"T,D" default:"T" placeholder:"T|D" help:"MSH-11 of the messages: T (training, the default) or D (debugging)."`
	JSON         bool          `name:"json" help:"Print one JSON object for each scenario and one for the summary."`
}

// Help is shown by --help.
func (c *mllpProbeCmd) Help() string {
	return "THE LISTENER FILES WHAT IT IS SENT: more than three thousand synthetic messages (ADT^A01 of CAREWIRE-PROBE, processing id T, " +
		"without names). Do not point this at a system in use.\n\n" +
		"Each scenario sends something that senders do, on a connection of its own, and judges the answers: ok; differs, where " +
		"the listener does something else by which no message is lost; BAD, where a message may be lost or its answer taken for another's. " +
		"\"AA 1, AE 2, closed\" means that the first message was acknowledged, the second refused, and the connection then closed; " +
		"\"AR -\" is an answer with an empty MSA-2, and \"AA ?\" one for no message that was sent.\n\n" +
		"The exit status is 0 only when no scenario is BAD."
}

// Run probes the listener, or lists what would be done.
func (c *mllpProbeCmd) Run(ctx context.Context, s *streams) error {
	probe, err := c.probe()
	if err != nil {
		return err
	}
	scenarios, err := probe.Scenarios(c.Only...)
	if err != nil {
		return unusable("--only: %w (see --list)", err)
	}
	if c.List {
		return c.list(s, scenarios)
	}
	if !c.TLS && !isLoopback(c.Address) {
		s.note("without --tls the messages travel in the clear")
	}
	report := &conformance{streams: s, json: c.JSON, bar: s.progress(len(scenarios), "probing")}
	began := time.Now()
	err = probe.Run(ctx, scenarios, report.add)
	report.bar.clear()
	switch {
	case ctx.Err() != nil:
		return &exitError{status: exitNo, err: errors.New("interrupted")}
	case err != nil:
		return &exitError{status: exitNo, err: errors.New(printable(hint(err)))}
	}
	report.Seconds = time.Since(began).Seconds()
	if err := report.print(); err != nil {
		return err
	}
	if report.Bad > 0 {
		return &exitError{status: exitNo}
	}
	return nil
}

// probe makes the probe that the flags describe.
func (c *mllpProbeCmd) probe() (*mllpprobe.Probe, error) {
	if _, _, err := net.SplitHostPort(c.Address); err != nil && !c.List {
		return nil, unusable("%q is not HOST:PORT", c.Address)
	}
	if !c.TLS && c.given() {
		return nil, unusable("--ca, --cert, --key, --passphrase-file and --name need --tls")
	}
	if c.Timeout <= 0 {
		return nil, unusable("--timeout must be more than 0")
	}
	if c.Conns < 1 {
		return nil, unusable("--conns must be at least 1")
	}
	plain := func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", c.Address) }
	probe := &mllpprobe.Probe{
		Dial: plain, Timeout: c.Timeout, Conns: c.Conns, ProcessingID: c.ProcessingID, Large: c.Large || c.List, Slow: c.Slow || c.List,
	}
	if !c.TLS {
		return probe, nil
	}
	probe.DialPlain = plain
	if c.List {
		return probe, nil
	}
	config, err := c.config(c.Address)
	if err != nil {
		return nil, err
	}
	probe.Dial = func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", c.Address)
	}
	return probe, nil
}

// list prints the scenarios.
func (c *mllpProbeCmd) list(s *streams, scenarios []*mllpprobe.Scenario) error {
	for _, scenario := range scenarios {
		if c.JSON {
			if err := s.printJSON(listed{scenario.Name, scenario.Rule, scenario.Sent, scenario.Expected}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(s.out, "%s\n    rule      %s\n    sent      %s\n    expected  %s\n", scenario.Name, scenario.Rule, scenario.Sent, scenario.Expected)
	}
	return nil
}

// listed is a scenario as --json prints it.
type listed struct {
	Name     string `json:"name"`
	Rule     string `json:"rule"`
	Sent     string `json:"sent"`
	Expected string `json:"expected"`
}

// judged is a result as --json prints it.
type judged struct {
	listed

	Grade        mllpprobe.Grade `json:"grade"`
	Came         string          `json:"came"`
	Remark       string          `json:"remark,omitempty"`
	Milliseconds float64         `json:"ms"`
}

// conformance prints results and counts them. Its JSON form is the summary.
type conformance struct {
	streams *streams
	json    bool
	bar     *progress

	OK      int     `json:"ok"`
	Differs int     `json:"differs"`
	Bad     int     `json:"bad"`
	Seconds float64 `json:"seconds"`
}

// add prints the line of one scenario.
func (c *conformance) add(r *mllpprobe.Result) {
	switch r.Grade {
	case mllpprobe.OK:
		c.OK++
	case mllpprobe.Differs:
		c.Differs++
	case mllpprobe.Bad:
		c.Bad++
	}
	c.bar.clear()
	defer c.bar.step()
	if c.json {
		_ = c.streams.printJSON(judged{
			listed{r.Name, r.Rule, r.Sent, r.Expected}, r.Grade, r.Came, r.Remark, milliseconds(r.Took),
		}) // to a reader that has gone nothing can be said; the status still tells
		return
	}
	line := fmt.Sprintf("%-8s %-21s %s", r.Grade, r.Name, shorten(r.Came))
	if r.Grade != mllpprobe.OK {
		line += "; expected " + r.Expected
	}
	if r.Remark != "" {
		line += ": " + r.Remark
	}
	fmt.Fprintln(c.streams.out, line)
}

// shorten leaves out the middle of what a peer with many answers out of order
// makes.
func shorten(came string) string {
	words := strings.Split(came, ", ")
	if len(words) <= 8 {
		return came
	}
	return fmt.Sprintf("%s, ... (%d more), %s", strings.Join(words[:6], ", "), len(words)-7, words[len(words)-1])
}

// print writes the summary.
func (c *conformance) print() error {
	if c.json {
		return c.streams.printJSON(map[string]*conformance{"summary": c})
	}
	fmt.Fprintf(c.streams.out, "%s: %d ok, %d differ, %d BAD\n", plural(c.OK+c.Differs+c.Bad, "scenario"), c.OK, c.Differs, c.Bad)
	return nil
}
