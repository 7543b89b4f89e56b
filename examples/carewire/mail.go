package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/carewire/carewire/smtpx"
	"github.com/carewire/carewire/tlsprops"
)

const (
	// maxBodyBytes bounds the text of a mail.
	maxBodyBytes = 16 << 20
	// maxPasswordBytes bounds the file of a password.
	maxPasswordBytes = 64 << 10
)

// mailSendCmd is `carewire mail send`.
type mailSendCmd struct {
	Host       string `required:"" placeholder:"HOST" help:"Mail server to send to."`
	Port       int    `placeholder:"PORT" help:"Port (default: 25, 587 or 465, by --encryption)."`
	Encryption string `required:"" enum:"none,tls,ssl" placeholder:"WORD" help:"none: in the clear; tls: STARTTLS or nothing; ssl: TLS from the start."`
	clientTLS
	User         string        `placeholder:"NAME" help:"User to authenticate as."`
	PasswordFile string        `placeholder:"FILE" help:"File that holds the user's password."`
	From         string        `required:"" placeholder:"ADDRESS" help:"Sender."`
	To           []string      `required:"" sep:"none" placeholder:"ADDRESS" help:"Recipient; may be given several times."`
	Cc           []string      `sep:"none" placeholder:"ADDRESS" help:"Recipient of a copy; may be given several times."`
	Bcc          []string      `sep:"none" placeholder:"ADDRESS" help:"Recipient that nobody sees; may be given several times."`
	Subject      string        `placeholder:"TEXT" help:"Subject."`
	HTML         bool          `name:"html" help:"The body is HTML."`
	Attach       []string      `sep:"none" placeholder:"FILE" help:"File to attach; may be given several times."`
	Timeout      time.Duration `default:"5m" placeholder:"SPAN" help:"How long all of it may take (default: ${default})."`
	DryRun       bool          `name:"dry-run" help:"Print the message instead of sending it."`
	JSON         bool          `name:"json" help:"Print one JSON object for each recipient."`
	Body         string        `arg:"" optional:"" default:"-" name:"file" help:"File that holds the body; - (the default) is standard input."`
}

// Help is shown by --help.
func (c *mailSendCmd) Help() string {
	return "The exit status is 0 when the server took the mail for every recipient; 3 when it refused it for one or all; " +
		"4 when it was sent and not answered, and may have been taken; 5 when it was not sent; " +
		"2 when nothing was tried because a file or a setting is unusable."
}

func (c *mailSendCmd) Run(ctx context.Context, s *streams) error {
	sender, err := c.sender()
	if err != nil {
		return err
	}
	defer sender.Close()
	message, err := c.message(s)
	if err != nil {
		return err
	}
	if c.DryRun {
		if _, err := message.WriteTo(s.out); err != nil {
			return unusable("%w", err)
		}
		return nil
	}
	if sender.Encryption == smtpx.EncryptionNone && !isLoopback(c.Host+":0") {
		s.note("with --encryption none the mail travels in the clear")
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	result, err := sender.Send(ctx, message)
	ending := mailStatus(err)
	if exit, ok := errors.AsType[*exitError](ending); ok && exit.status == exitUsage {
		return ending // nothing was tried
	}
	for _, r := range result.Recipients {
		if printErr := c.print(s, r); printErr != nil {
			return printErr
		}
	}
	return ending
}

// mailStatus turns the outcome into an exit status.
func mailStatus(err error) error {
	failed, ok := errors.AsType[*smtpx.SendError](err)
	if !ok {
		return err
	}
	status := exitNotSent
	switch field, _ := errors.AsType[*tlsprops.FieldError](err); {
	case field != nil:
		return unusableTLS(err)
	case failed.Outcome == smtpx.Unknown:
		status = exitUnknown
	case failed.Outcome == smtpx.Rejected, failed.Outcome == smtpx.Partial:
		status = exitNacked
	}
	return &exitError{status: status, err: err}
}

// mailed is what is printed of one recipient: the person who typed the address
// may see it.
type mailed struct {
	Recipient string `json:"recipient"`
	Outcome   string `json:"outcome"`
	Code      string `json:"code,omitempty"`
	Retry     bool   `json:"retry"`
}

func (c *mailSendCmd) print(s *streams, r smtpx.Recipient) error {
	line := mailed{Recipient: r.Address, Outcome: r.Outcome.String(), Code: r.Reply.String(), Retry: r.Retryable()}
	if c.JSON {
		return s.printJSON(line)
	}
	_, err := fmt.Fprintln(s.out, strings.TrimSpace(fmt.Sprintf("%-12s %s %s", line.Outcome, line.Recipient, line.Code)))
	return err
}

// sender is the flags that concern the server.
func (c *mailSendCmd) sender() (*smtpx.Sender, error) {
	sender := &smtpx.Sender{Host: c.Host, Port: c.Port, Encryption: smtpx.SmtpEncryption(c.Encryption)}
	switch {
	case c.Timeout <= 0:
		return nil, unusable("--timeout must be more than 0")
	case (c.User == "") != (c.PasswordFile == ""):
		return nil, unusable("--user and --password-file go together")
	case sender.Encryption != smtpx.EncryptionNone:
		properties := c.properties()
		sender.TLS = &properties
	case c.given():
		return nil, unusable("--ca, --cert, --key, --passphrase-file and --name need --encryption tls or ssl")
	}
	if c.User != "" {
		password, err := readBounded(c.PasswordFile, maxPasswordBytes)
		if err != nil {
			return nil, unusable("--password-file: %w", err)
		}
		sender.Auth = smtpx.Auth{Username: c.User, Password: strings.TrimSuffix(strings.TrimSuffix(password, "\n"), "\r")}
	}
	if err := sender.Validate(); err != nil {
		return nil, unusableTLS(err)
	}
	return sender, nil
}

// message is the flags that concern the mail.
func (c *mailSendCmd) message(s *streams) (*smtpx.Message, error) {
	m := &smtpx.Message{From: c.From, To: c.To, Cc: c.Cc, Bcc: c.Bcc, Subject: c.Subject}
	for _, name := range c.Attach {
		if _, err := os.Stat(name); err != nil {
			return nil, unusable("--attach: %w", err)
		}
		m.Attachments = append(m.Attachments, smtpx.Attachment{Path: name})
	}
	body := &m.Text
	if c.HTML {
		body = &m.HTML
	}
	var err error
	if c.Body == "-" {
		*body, err = readAtMost(s.in, maxBodyBytes)
	} else {
		*body, err = readBounded(c.Body, maxBodyBytes)
	}
	if err != nil {
		return nil, unusable("body: %w", err)
	}
	return m, nil
}

func readBounded(name string, most int64) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return readAtMost(f, most)
}

func readAtMost(r io.Reader, most int64) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("more than %d bytes", most)
	}
	return string(data), err
}
