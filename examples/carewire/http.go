package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/tlsprops"
)

// httpSendCmd is `carewire http send`.
type httpSendCmd struct {
	Method      string   `default:"POST" placeholder:"WORD" help:"Method of the request (default: ${default})."`
	ContentType string   `default:"application/octet-stream" placeholder:"TYPE" help:"Type of the body (default: ${default})."`
	Header      []string `sep:"none" placeholder:"NAME:VALUE" help:"Header to send; may be given several times."`
	Gzip        bool     `help:"Compress the body."`
	Out         string   `placeholder:"FILE" help:"Where to put the body of the answer; - is standard output (default: it is read and dropped)."`
	clientTLS
	Auth         string        `enum:"none,basic,digest,bearer" default:"none" placeholder:"SCHEME" help:"How to authenticate: basic, digest or bearer."`
	User         string        `placeholder:"NAME" help:"User, for basic and digest."`
	PasswordFile string        `placeholder:"FILE" help:"File that holds the password, or the bearer token."`
	Proxy        string        `placeholder:"URL" help:"Proxy; none: go directly (default: as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say)."`
	Attempts     int           `default:"4" placeholder:"N" help:"How often to try what can be tried again without harm (default: ${default})."`
	Timeout      time.Duration `default:"5m" placeholder:"SPAN" help:"How long all of it may take (default: ${default})."`
	MaxAnswer    int64         `default:"10485760" placeholder:"BYTES" help:"Largest body of an answer (default: ${default})."`
	JSON         bool          `name:"json" help:"Print the result as one JSON object."`
	URL          string        `arg:"" name:"url" help:"Where to send to: https://host[:port]/path, or http:// in the clear."`
	Body         string        `arg:"" optional:"" default:"" name:"file" help:"File that holds the body; - is standard input; none: no body."`
}

// Help is shown by --help.
func (c *httpSendCmd) Help() string {
	return "The exit status is 0 when the server answered 2xx; 3 when it answered anything else; " +
		"4 when it may have acted on the request, and did not say so; 5 when another try does no harm; " +
		"2 when nothing was tried because a file or a setting is unusable. What may have had its effect is never tried again."
}

func (c *httpSendCmd) Run(ctx context.Context, s *streams) error {
	sender, err := c.sender(s)
	if err != nil {
		return err
	}
	defer sender.Close()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := c.request(ctx, s)
	if err != nil {
		return err
	}
	line := httpSent{Outcome: "sent"}
	resp, err := sender.Do(req)
	if err == nil {
		line.Status = resp.StatusCode
		err = httpsender.Check(resp)
		var readErr error
		line.Bytes, readErr = c.keep(s, resp.Body)
		_ = resp.Body.Close() // all of it was read, or readErr says why not
		if err == nil {
			err = readErr
		}
	}
	if err != nil {
		line.Outcome = "failed" // of this side: the answer could not be kept
	}
	failed, sending := errors.AsType[*httpsender.SendError](err)
	if sending {
		if field, _ := errors.AsType[*tlsprops.FieldError](err); field != nil {
			return unusableTLS(err)
		}
		line.Outcome, line.Status, line.Retry = strings.ToLower(failed.Outcome.String()), failed.Status, failed.Retryable()
	}
	if printErr := c.print(s, line); printErr != nil {
		return printErr
	}
	switch {
	case err == nil:
		return nil
	case !sending:
		return err
	case failed.MaybeDelivered():
		return &exitError{status: exitUnknown, err: err}
	case failed.Status != 0:
		return &exitError{status: exitNacked, err: err}
	}
	return &exitError{status: exitNotSent, err: err}
}

// httpSent is what is printed of the request.
type httpSent struct {
	Outcome string `json:"outcome"`
	Status  int    `json:"status,omitempty"`
	Bytes   int64  `json:"bytes"`
	Retry   bool   `json:"retry"`
}

// print tells what became of the request, on standard error where the answer has
// standard output for itself.
func (c *httpSendCmd) print(s *streams, line httpSent) error {
	if c.Out == "-" {
		s.note("%s, status %d, %d bytes", line.Outcome, line.Status, line.Bytes)
		return nil
	}
	if c.JSON {
		return s.printJSON(line)
	}
	_, err := fmt.Fprintf(s.out, "%s, status %d, %d bytes\n", line.Outcome, line.Status, line.Bytes)
	return err
}

// sender is the flags that concern the connection.
func (c *httpSendCmd) sender(s *streams) (*httpsender.Sender, error) {
	u, err := url.Parse(c.URL)
	secure := err == nil && u.Scheme == "https"
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, unusable("the URL must be https://host[:port]/path, or http://")
	case u.User != nil:
		return nil, unusable("the URL holds credentials: use --user and --password-file")
	case !secure && c.given():
		return nil, unusable("--ca, --cert, --key, --passphrase-file and --name need an https:// URL")
	case c.Timeout <= 0:
		return nil, unusable("--timeout must be more than 0")
	case c.Attempts < 1:
		return nil, unusable("--attempts must be at least 1")
	case c.MaxAnswer < 1:
		return nil, unusable("--max-answer must be at least 1")
	case c.JSON && c.Out == "-":
		return nil, unusable("--json and --out - both want standard output")
	}
	sender := &httpsender.Sender{
		ProxyURL: c.Proxy, MaxResponseBytes: c.MaxAnswer,
		Retry: httpsender.Retry{MaxAttempts: c.Attempts},
	}
	if secure {
		properties := c.properties()
		sender.TLS = &properties
	} else if !isLoopback(u.Hostname() + ":0") {
		s.note("with http:// the request travels in the clear")
	}
	sender.Auth, err = c.credentials()
	return sender, err
}

func (c *httpSendCmd) credentials() (httpsender.Auth, error) {
	auth := httpsender.Auth{Scheme: httpsender.AuthScheme(c.Auth), Username: c.User}
	switch {
	case c.Auth == "none" && (c.User != "" || c.PasswordFile != ""):
		return auth, unusable("--user and --password-file need --auth")
	case c.Auth == "none":
		return httpsender.Auth{}, nil
	case c.PasswordFile == "":
		return auth, unusable("--auth needs --password-file")
	case (c.User == "") != (auth.Scheme == httpsender.AuthBearer):
		return auth, unusable("--user goes with --auth basic and digest, and not with bearer")
	}
	secret, err := readBounded(c.PasswordFile, maxPasswordBytes)
	if err != nil {
		return auth, unusable("--password-file: %w", err)
	}
	secret = strings.TrimSuffix(strings.TrimSuffix(secret, "\n"), "\r")
	if auth.Scheme == httpsender.AuthBearer {
		auth.Token = secret
	} else {
		auth.Password = secret
	}
	return auth, nil
}

// request is the flags that concern the request. A file is streamed, and read
// again for another attempt; standard input is held in memory for that.
func (c *httpSendCmd) request(ctx context.Context, s *streams) (*http.Request, error) {
	var body *httpsender.Body
	switch c.Body {
	case "":
		if c.Gzip {
			return nil, unusable("--gzip needs a body")
		}
	case "-":
		text, err := readAtMost(s.in, maxBodyBytes)
		if err != nil {
			return nil, unusable("body: %w", err)
		}
		body = httpsender.Bytes(c.ContentType, []byte(text))
	default:
		var err error
		if body, err = httpsender.File(c.ContentType, c.Body); err != nil {
			return nil, unusable("body: %w", err)
		}
	}
	if c.Gzip {
		body = httpsender.Gzip(body)
	}
	req, err := httpsender.NewRequest(ctx, c.Method, c.URL, body)
	if err != nil {
		return nil, unusable("%w", err)
	}
	for _, header := range c.Header {
		name, value, found := strings.Cut(header, ":")
		name = strings.TrimSpace(name)
		if !found || name == "" {
			return nil, unusable("--header takes NAME:VALUE") // and is not shown: it may be a token
		}
		req.Header.Add(name, strings.TrimSpace(value))
	}
	return req, nil
}

// keep reads an answer to its end, into --out if that is given. A file is there
// when all of the answer is in it, and not before.
func (c *httpSendCmd) keep(s *streams, answer io.Reader) (n int64, err error) {
	switch c.Out {
	case "":
		return io.Copy(io.Discard, answer)
	case "-":
		return io.Copy(s.out, answer)
	}
	f, err := os.CreateTemp(filepath.Dir(c.Out), ".answer-*") // mode 0600
	if err != nil {
		return 0, fmt.Errorf("--out: %w", err)
	}
	defer os.Remove(f.Name()) // which is there no more when all went well
	n, err = io.Copy(f, answer)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("--out: %w", closeErr)
	}
	if err == nil {
		if err = os.Rename(f.Name(), c.Out); err != nil {
			err = fmt.Errorf("--out: %w", err)
		}
	}
	return n, err
}
