package smtpx

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// copyBuffer is how much of a message is read from the spool at a time.
const copyBuffer = 32 << 10

// A delivery is one mail transaction (RFC 5321 section 3.3).
type delivery struct {
	env   *envelope
	spool *spool
	// outcome of each of env.to
	recipients []Recipient
	// begun: bytes of the message have been written.
	begun bool
	// dirty: the server may be inside of the transaction, or not understand what
	// comes next.
	dirty bool
	dsn   bool // the server was asked for notifications
}

// run sends the message over c. Of its error the outcome is that of all
// recipients without one of their own.
func (d *delivery) run(c *conn) *SendError {
	d.recipients = make([]Recipient, len(d.env.to))
	for i, to := range d.env.to {
		d.recipients[i] = Recipient{Address: to, Outcome: NotSent}
	}
	d.begun, d.dirty, d.dsn = false, false, c.has("DSN") && !d.env.dsn.empty()
	if limit := c.sizeLimit(); limit > 0 && d.spool.size > limit {
		return d.all(unfit(fmt.Errorf("%w: %d bytes, the server takes %d", ErrTooLarge, d.spool.size, limit)))
	}
	if d.env.utf8 && !c.has("SMTPUTF8") {
		return d.all(unfit(ErrNoSMTPUTF8))
	}
	d.dirty = true
	accepted, err := d.envelope(c)
	if err != nil {
		return d.all(err)
	}
	if accepted == 0 {
		return d.verdict()
	}
	if err := d.data(c); err != nil {
		return d.all(err)
	}
	return d.verdict()
}

// all gives err to every recipient that was not refused by itself, and returns
// what it comes to.
func (d *delivery) all(err *SendError) *SendError {
	for i := range d.recipients {
		if r := &d.recipients[i]; r.Outcome != Rejected {
			r.Outcome, r.Reply, r.permanent = err.Outcome, err.Reply, !err.retry
		}
	}
	for _, r := range d.recipients {
		err.retry = err.retry || r.Retryable()
	}
	return err
}

// verdict returns what the recipients' outcomes come to; nil: all have it.
func (d *delivery) verdict() *SendError {
	out := &SendError{Outcome: Rejected, Command: "RCPT", total: len(d.recipients)}
	for _, r := range d.recipients {
		if r.Outcome == Accepted {
			continue
		}
		if out.refused++; out.Reply.Code == 0 {
			out.Reply = r.Reply
		}
		out.retry = out.retry || r.Retryable()
	}
	switch {
	case out.refused == 0:
		return nil
	case out.refused < out.total:
		out.Outcome = Partial
	}
	return out
}

// envelope sends MAIL and RCPT, and returns how many recipients were accepted.
func (d *delivery) envelope(c *conn) (accepted int, _ *SendError) {
	lines := []string{d.mail(c)}
	for _, to := range d.env.to {
		lines = append(lines, d.rcpt(to))
	}
	at := 0 // of the answers: 0 is MAIL's
	for _, batch := range batches(lines, c.has("PIPELINING")) {
		answers, err := c.commands(c.limits.command(), batch)
		if err != nil {
			return 0, err
		}
		for _, ans := range answers {
			switch {
			case at == 0 && ans.Code != 250:
				return 0, c.unwanted("MAIL", ans)
			case at > 0 && ans.Code/10 == 25: // 250, 251: will forward, 252: cannot tell
				d.recipients[at-1].Outcome = Accepted // once the message is
				accepted++
			case at > 0 && ans.Code == 421:
				return 0, declined("RCPT", ans.Reply, nil)
			case at > 0 && ans.Code/100 >= 4:
				d.recipients[at-1].Outcome, d.recipients[at-1].Reply = Rejected, ans.Reply
			case at > 0:
				return 0, c.unwanted("RCPT", ans)
			}
			at++
		}
	}
	return accepted, nil
}

func (d *delivery) mail(c *conn) string {
	line := "MAIL FROM:" + d.env.from
	if c.has("SIZE") {
		line += " SIZE=" + strconv.FormatInt(d.spool.size, 10)
	}
	if d.env.utf8 {
		line += " SMTPUTF8"
		if c.has("8BITMIME") {
			line += " BODY=8BITMIME"
		}
	}
	if d.dsn {
		if d.env.dsn.Full {
			line += " RET=FULL"
		} else if len(d.env.dsn.Notify) > 0 {
			line += " RET=HDRS"
		}
		if d.env.dsn.ID != "" {
			line += " ENVID=" + xtext(d.env.dsn.ID)
		}
	}
	return line
}

func (d *delivery) rcpt(to string) string {
	line := "RCPT TO:<" + to + ">"
	if d.dsn && len(d.env.dsn.Notify) > 0 {
		words := make([]string, len(d.env.dsn.Notify))
		for i, n := range d.env.dsn.Notify {
			words[i] = string(n)
		}
		line += " NOTIFY=" + strings.Join(words, ",")
	}
	return line
}

// xtext is the encoding of RFC 3461 section 4.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] == '+' || s[i] == '=' {
			fmt.Fprintf(&b, "+%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// data sends the message. Its end is written by itself, after all the rest has
// been: what fails before is certain not to have been taken.
func (d *delivery) data(c *conn) *SendError {
	ans, err := c.command(c.limits.data(), "DATA")
	switch {
	case err != nil:
		return err
	case ans.Code != 354:
		return c.unwanted("DATA", ans)
	case c.br.Buffered() > 0: // it would be taken for the answer to the message
		return c.early()
	}
	d.begun = true
	if err := d.body(c); err != nil {
		return err
	}
	c.within(c.limits.block())
	if _, err := c.nc.Write([]byte(".\r\n")); err != nil {
		c.dead = true
		return unknown(err)
	}
	c.within(c.limits.final())
	final, readErr := readAnswer(c.br, false)
	switch {
	case readErr != nil:
		c.dead = true
		return unknown(lost(readErr).Err)
	case final.Code/100 >= 4:
		return declined("DATA", final.Reply, nil)
	case !final.ok():
		return unknown(fmt.Errorf("%w: %d to the message", ErrProtocol, final.Code))
	}
	d.dirty = false
	return nil
}

// body writes all but the last line. An answer that comes meanwhile is that to
// the whole: the server has had enough.
func (d *delivery) body(c *conn) *SendError {
	err := copyDots(blockWriter{c}, d.spool.reader(), c.copying)
	if err == nil {
		c.within(c.limits.block())
		err = c.bw.Flush()
	}
	if err == nil {
		return nil
	}
	if failure, ok := errors.AsType[*spoolError](err); ok {
		return notSent(failure)
	}
	return c.lastWords("DATA", err)
}

// blockWriter gives every block its own time (RFC 5321 section 4.5.3.2.5).
type blockWriter struct{ c *conn }

func (w blockWriter) Write(p []byte) (int, error) {
	if w.c.bw.Available() < len(p) {
		w.c.within(w.c.limits.block())
	}
	return w.c.bw.Write(p)
}

func unknown(err error) *SendError { return &SendError{Outcome: Unknown, Err: err, retry: true} }
