package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/carewire/carewire/mllp"
)

const (
	// maxInputBytes bounds what one file or standard input may hold, since all
	// messages are read, and found sound, before the first one leaves.
	maxInputBytes = 1 << 30
	// maxSends bounds a run, for the durations that the percentiles come from are
	// kept: 80 MB of them.
	maxSends = 10_000_000
)

// sendCmd is `carewire mllp send`.
type sendCmd struct {
	Addr string `required:"" placeholder:"HOST:PORT" help:"Receiver to send to."`
	TLS  bool   `name:"tls" help:"Use TLS (MLLPS), and verify the receiver's certificate."`
	clientTLS
	Repeat  int           `default:"1" placeholder:"N" help:"Send everything N times (default: ${default}). With N above 1 every copy gets an MSH-10 of its own."`
	SameID  bool          `name:"same-id" help:"With --repeat: leave MSH-10 as it is."`
	Conns   int           `default:"1" placeholder:"N" help:"Connections to send over (default: ${default}). With more than one, messages arrive in no certain order."`
	Window  int           `default:"1" placeholder:"N" help:"Messages that may wait for their acknowledgement on each connection at a time (default: ${default}). They leave in the order of the files."`
	Timeout time.Duration `default:"30s" placeholder:"SPAN" help:"How long to wait for each acknowledgement (default: ${default})."`
	Quiet   bool          `help:"Print only what was not acknowledged, and the summary."`
	JSON    bool          `name:"json" help:"Print one JSON object for each message and one for the summary."`
	Files   []string      `arg:"" name:"file" help:"Files of HL7 messages: MLLP frames, or text where each message begins on a line with MSH. - is standard input."`
}

// message is one message to send.
type message struct {
	file   string
	number int // in its file, from 1
	text   []byte
}

// Help is shown by --help.
func (c *sendCmd) Help() string {
	return "The exit status is 0 when every message was acknowledged with AA or CA; 3 when one was refused; " +
		"4 when one was sent but not acknowledged, and may have arrived; 5 when one was not sent; " +
		"2 when nothing was tried because a file or a setting is unusable. Of 3, 4 and 5, 4 comes first and 3 last."
}

func (c *sendCmd) Run(ctx context.Context, s *streams) error {
	if err := c.check(); err != nil {
		return err
	}
	var messages []message
	for _, name := range c.Files {
		more, err := readMessages(s, name, c.newIDs())
		if err != nil {
			return unusable("%s: %w", name, err)
		}
		messages = append(messages, more...)
	}
	if len(messages) > maxSends/c.Repeat {
		return unusable("%s %d times is more than %d messages", plural(len(messages), "message"), c.Repeat, maxSends)
	}
	dialer := &mllp.Dialer{Timeout: c.Timeout, Window: c.Window}
	if c.TLS {
		var err error
		if dialer.TLSConfig, err = c.config(c.Addr); err != nil {
			return err
		}
	} else if !isLoopback(c.Addr) {
		s.note("without --tls the messages travel in the clear")
	}
	run := &sending{command: c, streams: s, dialer: dialer, messages: messages, total: c.Repeat * len(messages)}
	if c.newIDs() {
		run.ids = newIDs()
		s.note("each of the %d copies gets an MSH-10 of its own, beginning with %s", run.total, run.ids.prefix)
	}
	return run.run(ctx)
}

// newIDs tells whether messages get control ids of their own.
func (c *sendCmd) newIDs() bool { return c.Repeat > 1 && !c.SameID }

func (c *sendCmd) check() error {
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return unusable("--addr %q is not HOST:PORT", c.Addr)
	}
	if !c.TLS && c.given() {
		return unusable("--ca, --cert, --key, --passphrase-file and --name need --tls")
	}
	if c.Repeat < 1 || c.Conns < 1 || c.Window < 1 {
		return unusable("--repeat, --conns and --window must be at least 1")
	}
	if c.Timeout <= 0 {
		return unusable("--timeout must be more than 0")
	}
	return nil
}

// readMessages reads the messages of one file, ready to be framed. A message that
// could not be sent is an error now, not when half of them have left.
func readMessages(s *streams, name string, willHaveID bool) ([]message, error) {
	in := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInputBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxInputBytes {
		return nil, fmt.Errorf("more than %d bytes: split it", maxInputBytes)
	}
	spans, err := split(data)
	if err != nil {
		return nil, err
	}
	messages := make([]message, 0, len(spans))
	changed := 0
	for i, at := range spans {
		m := message{file: name, number: i + 1, text: data[at.start:at.end]}
		if at.start == 0 || data[at.start-1] != frameStart { // what came in a frame stays as it is
			var c bool
			if m.text, c = withSegmentEnds(m.text); c {
				changed++
			}
		}
		var header mllp.Header
		err := header.Parse(m.text)
		if err == nil && len(header.ControlID) == 0 && !willHaveID {
			err = mllp.ErrNoControlID
		}
		if err == nil {
			_, err = mllp.AppendFrame(nil, m.text)
		}
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", m.number, err)
		}
		messages = append(messages, m)
	}
	if changed > 0 {
		s.note("%s: ends of lines became CR, which ends a segment in HL7, in %s", name, plural(changed, "message"))
	}
	return messages, nil
}

// isLoopback tells whether what is sent to addr stays on this machine.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sending is one run of the command.
type sending struct {
	// static after construction
	command  *sendCmd
	streams  *streams
	dialer   *mllp.Dialer
	messages []message
	total    int
	ids      *ids // nil: messages keep theirs
	bar      *progress

	mu sync.Mutex
	// guarded by mu
	begun  int  // messages handed to a connection
	halted bool // no more are
	tally  tally
}

// run sends everything, and ends with the outcome as an exit status.
//
// A message whose fate is unknown, or that could not be sent, ends the run: what
// comes after it in the file may depend on it.
func (r *sending) run(ctx context.Context) error {
	r.bar = &progress{}
	if r.command.Quiet || !isTerminal(r.streams.out) {
		r.bar = r.streams.progress(r.total, "sending")
	}
	r.tally.durations = make([]time.Duration, 0, r.total)
	began := time.Now()
	var conns sync.WaitGroup
	for range min(r.command.Conns, r.total) {
		conns.Go(func() { r.connection(ctx) })
	}
	conns.Wait()
	r.bar.clear()
	r.tally.elapsed = time.Since(began)
	r.tally.notSent += r.total - r.begun
	if err := r.tally.print(r.streams, r.command); err != nil {
		return err
	}
	if status := r.tally.status(); status != exitOK {
		return &exitError{status: status}
	}
	return nil
}

// connection sends over one connection until nothing is left.
func (r *sending) connection(ctx context.Context) {
	conn, err := r.dialer.DialContext(ctx, "tcp", r.command.Addr)
	if err != nil {
		r.halt(err)
		return
	}
	defer conn.Close()
	var window sync.WaitGroup
	defer window.Wait()
	room := make(chan struct{}, r.command.Window)
	for {
		room <- struct{}{} // before next, so that what has failed is known
		n := r.next()
		if n < 0 {
			return
		}
		m := r.messages[n%len(r.messages)]
		if r.ids != nil {
			m.text = setControlID(m.text, r.ids.at(n))
		}
		wait := conn.Start(ctx, m.text)
		window.Go(func() {
			reply, err := wait()
			r.record(&m, reply, err)
			<-room
		})
	}
}

// next returns the number of the next message to send, or -1.
func (r *sending) next() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halted || r.begun == r.total {
		return -1
	}
	r.begun++
	return r.begun - 1
}

// halt ends the run because there is no connection.
func (r *sending) halt(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.halted { // the first failure says it all
		r.streams.note("not connected to %s: %s", r.command.Addr, printable(err.Error()))
	}
	r.halted = true
}

// record takes down what became of a message, and prints it.
func (r *sending) record(m *message, reply *mllp.Reply, err error) {
	line := sent{Outcome: mllp.Acked, File: m.file, Number: m.number}
	var header mllp.Header
	if header.Parse(m.text) == nil {
		line.ControlID = string(header.ControlID)
	}
	if reply != nil {
		line.Code = reply.Ack.Code
		line.Milliseconds = milliseconds(reply.Duration)
	}
	if err != nil {
		line.Outcome, line.Error = mllp.Unknown, printable(err.Error())
		if failure, ok := errors.AsType[*mllp.SendError](err); ok {
			line.Outcome, line.Code = failure.Outcome, failure.AckCode
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bar.step()
	r.tally.add(&line, reply)
	if line.Outcome == mllp.Unknown || line.Outcome == mllp.NotSent {
		r.halted = true
	}
	if line.Outcome != mllp.Acked || !r.command.Quiet {
		line.print(r.streams, r.command.JSON)
	}
}
