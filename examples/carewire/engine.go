package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/tlsprops"
)

// engineCmds are the commands of `carewire engine`.
type engineCmds struct {
	Login    engineLoginCmd    `cmd:"" help:"Sign in to an engine, and keep the session for the other commands."`
	Logout   engineLogoutCmd   `cmd:"" help:"Sign out."`
	Passwd   enginePasswdCmd   `cmd:"" help:"Choose another password, which ends all sessions."`
	Channels engineChannelCmds `cmd:"" help:"List, start, stop and change channels, by name or id."`
	Messages engineMessageCmds `cmd:"" help:"Find, send and repeat messages of a channel."`
}

const (
	// maxEngineAnswer bounds an answer, which may be a message.
	maxEngineAnswer = 64 << 20
	sessionHeader   = "X-Session-ID"
)

// engineFlags are the flags of every command that asks an engine.
type engineFlags struct {
	URL     string `name:"url" placeholder:"URL" help:"The engine's API: https://host:8443, or http:// on this machine (default: that of the last login, or http://127.0.0.1:8080)."`
	Session string `placeholder:"FILE" help:"File that keeps the session (default: carewire/engine.json in the user's configuration directory)."`
	clientTLS
	Timeout time.Duration `default:"90s" placeholder:"SPAN" help:"How long the engine may take (default: ${default})."`
	JSON    bool          `name:"json" help:"Print what the engine answers, as JSON."`
}

// engineSession is what the file of a session holds. Who has it is signed in.
type engineSession struct {
	URL string `json:"url"`
	clientTLS
	ID string `json:"session,omitempty"`
}

// engineClient asks an engine.
type engineClient struct {
	flags   *engineFlags
	file    string
	session engineSession
	sender  *httpsender.Sender
}

// client opens what the flags and the file of the session say.
func (f *engineFlags) client() (*engineClient, error) {
	c := &engineClient{flags: f, file: f.Session}
	if c.file == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, unusable("--session is needed: %w", err)
		}
		c.file = filepath.Join(dir, "carewire", "engine.json")
	}
	text, err := readBounded(c.file, 1<<20)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, unusable("--session: %w", err)
	default:
		if err := json.Unmarshal([]byte(text), &c.session); err != nil {
			return nil, unusable("--session: %s is not a file of this program", c.file)
		}
	}
	if f.URL != "" && strings.TrimRight(f.URL, "/") != c.session.URL {
		// A session is for the engine that gave it, and so is what it is trusted by.
		c.session = engineSession{URL: strings.TrimRight(f.URL, "/")}
	}
	if c.session.URL == "" {
		c.session.URL = "http://127.0.0.1:8080"
	}
	if f.given() {
		if c.session.clientTLS, err = f.absolute(); err != nil {
			return nil, unusable("%w", err)
		}
	}
	return c, c.open()
}

// absolute makes paths good for commands that are started elsewhere.
func (f *clientTLS) absolute() (clientTLS, error) {
	all := *f
	for _, path := range []*string{&all.CA, &all.Cert, &all.Key, &all.PassphraseFile} {
		if *path == "" {
			continue
		}
		full, err := filepath.Abs(*path)
		if err != nil {
			return all, err
		}
		*path = full
	}
	return all, nil
}

// open makes the sender. Passwords and sessions do not travel in the clear.
func (c *engineClient) open() error {
	u, err := url.Parse(c.session.URL)
	c.sender = &httpsender.Sender{ProxyURL: "none", MaxResponseBytes: maxEngineAnswer, Retry: httpsender.Retry{MaxAttempts: 1}}
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Path != "":
		return unusable("--url must be https://host[:port], or http:// on this machine")
	case u.Scheme == "https":
		properties := c.session.properties()
		c.sender.TLS = &properties
	case u.Scheme != "http":
		return unusable("--url must be https://host[:port], or http:// on this machine")
	case !isLoopback(u.Hostname() + ":0"):
		return unusable("--url: with http:// the session would travel in the clear: use https://")
	case c.session.given():
		return unusable("--ca, --cert, --key, --passphrase-file and --name need an https:// URL")
	}
	return nil
}

// ask makes a request and returns the answer, if that is 2xx. Anything else is an
// error with its exit status: what the engine may have done is not tried again.
func (c *engineClient) ask(ctx context.Context, method, target, contentType string, body []byte) (http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.flags.Timeout)
	defer cancel()
	var content *httpsender.Body
	if body != nil {
		content = httpsender.Bytes(contentType, body)
	}
	req, err := httpsender.NewRequest(ctx, method, c.session.URL+target, content)
	if err != nil {
		return nil, nil, unusable("%w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-Strict", "true") // errors are told
	if c.session.ID != "" {
		req.Header.Set(sessionHeader, c.session.ID)
	}
	resp, err := c.sender.Do(req)
	if err != nil {
		return nil, nil, engineUnreached(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	switch {
	case resp.StatusCode == http.StatusUnauthorized && c.session.ID == "":
		return nil, nil, &exitError{status: exitNacked, err: errors.New("not signed in: carewire engine login")}
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, nil, &exitError{status: exitNacked, err: errors.New("the session has ended: carewire engine login")}
	case resp.StatusCode/100 != 2:
		return nil, nil, &exitError{status: exitNacked, err: engineRefusal(resp, data)}
	case err != nil: // it is done, and the answer was cut off
		return nil, nil, &exitError{status: exitUnknown, err: err}
	}
	return resp.Header, data, nil
}

// engineUnreached turns an error of sending into one with an exit status.
func engineUnreached(err error) error {
	if field, _ := errors.AsType[*tlsprops.FieldError](err); field != nil {
		return unusableTLS(err)
	}
	status := exitNotSent
	if failed, ok := errors.AsType[*httpsender.SendError](err); !ok || failed.MaybeDelivered() {
		status = exitUnknown
	}
	return &exitError{status: status, err: err}
}

// engineRefusal says why, in the engine's words.
func engineRefusal(resp *http.Response, data []byte) error {
	var said struct {
		Error    string `json:"error"`
		Message  string `json:"message"`
		Mistakes []struct {
			Line int    `json:"line"`
			Key  string `json:"key"`
			Text string `json:"text"`
		} `json:"mistakes"`
	}
	if json.Unmarshal(data, &said) != nil || said.Error == "" {
		return fmt.Errorf("the engine answered %s", resp.Status)
	}
	var text strings.Builder
	text.WriteString(said.Error)
	if said.Message != "" {
		text.WriteString(": " + said.Message)
	}
	for _, m := range said.Mistakes {
		fmt.Fprintf(&text, "\n  line %d: %s: %s", m.Line, m.Key, m.Text)
	}
	return errors.New(shown(text.String(), "\n"))
}

// shown removes what a terminal would obey, but for the characters in keep.
func shown(text, keep string) string {
	return strings.Map(func(r rune) rune {
		if (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0) && !strings.ContainsRune(keep, r) {
			return -1
		}
		return r
	}, text)
}

// get asks for JSON, and reads it into v.
func (c *engineClient) get(ctx context.Context, target string, v any) error {
	_, data, err := c.ask(ctx, http.MethodGet, target, "", nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("the engine's answer is not what was asked for: %w", err)
	}
	return nil
}

// engineLoginCmd is `carewire engine login`.
type engineLoginCmd struct {
	engineFlags
	User         string `short:"u" default:"admin" placeholder:"NAME" help:"Who signs in (default: ${default})."`
	PasswordFile string `placeholder:"FILE" help:"File that holds the password (default: it is asked for, or read from standard input)."`
}

func (c *engineLoginCmd) Run(ctx context.Context, s *streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	password, err := s.password("Password of "+c.User, c.PasswordFile)
	if err != nil {
		return err
	}
	client.session.ID = ""
	body, err := json.Marshal(map[string]string{"username": c.User, "password": password})
	if err != nil {
		return err
	}
	header, data, err := client.ask(ctx, http.MethodPost, "/api/users/_login", "application/json", body)
	if err != nil {
		if exit, ok := errors.AsType[*exitError](err); ok && exit.status == exitNacked {
			return &exitError{status: exitNacked, err: errors.New("the engine refuses this name and password, or too many were tried")}
		}
		return err
	}
	client.session.ID = header.Get(sessionHeader)
	if client.session.ID == "" {
		return errors.New("the engine gave no session")
	}
	if err := client.save(); err != nil {
		return err
	}
	var status struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(data, &status) == nil && status.Status == "SUCCESS_GRACE_PERIOD" {
		s.note("this password is good for one thing: choosing another, with carewire engine passwd")
	}
	if c.JSON {
		return s.printJSON(map[string]string{"url": client.session.URL, "user": c.User})
	}
	_, err = fmt.Fprintf(s.out, "signed in to %s as %s\n", client.session.URL, c.User)
	return err
}

// save keeps the session in a file that only its owner can read, whole or not at all.
func (c *engineClient) save() error {
	text, err := json.Marshal(c.session)
	if err != nil {
		return err
	}
	dir := filepath.Dir(c.file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".engine-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // which is there no more when all went well
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), c.file)
}

// password returns a password from a file, from the terminal without showing it, or
// from the first line of standard input.
func (s *streams) password(prompt, file string) (string, error) {
	var text string
	var err error
	if terminal, ok := s.in.(*os.File); file != "" {
		text, err = readBounded(file, maxPasswordBytes)
	} else if ok && term.IsTerminal(int(terminal.Fd())) { //nolint:gosec // a descriptor is small
		fmt.Fprint(s.err, prompt+": ")
		var typed []byte
		typed, err = term.ReadPassword(int(terminal.Fd())) //nolint:gosec // as above
		fmt.Fprintln(s.err)
		text = string(typed)
	} else {
		text, err = bufio.NewReader(io.LimitReader(s.in, maxPasswordBytes)).ReadString('\n')
		if errors.Is(err, io.EOF) && text != "" {
			err = nil
		}
	}
	if err != nil {
		return "", unusable("password: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"), nil
}

// engineLogoutCmd is `carewire engine logout`.
type engineLogoutCmd struct{ engineFlags }

func (c *engineLogoutCmd) Run(ctx context.Context, s *streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	if client.session.ID == "" {
		return &exitError{status: exitNacked, err: errors.New("not signed in")}
	}
	if _, _, err = client.ask(ctx, http.MethodPost, "/api/users/_logout", "", nil); err != nil {
		return err
	}
	client.session.ID = ""
	if err := client.save(); err != nil {
		return err
	}
	return c.done(s, "signed out")
}

// enginePasswdCmd is `carewire engine passwd`.
type enginePasswdCmd struct {
	engineFlags
	PasswordFile    string `placeholder:"FILE" help:"File that holds the present password (default: it is asked for)."`
	NewPasswordFile string `placeholder:"FILE" help:"File that holds the new password (default: it is asked for)."`
}

func (c *enginePasswdCmd) Run(ctx context.Context, s *streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.sender.Close()
	if f, ok := s.in.(*os.File); (c.PasswordFile == "" || c.NewPasswordFile == "") && (!ok || !isTerminal(f)) {
		return unusable("--password-file and --new-password-file are needed where there is no terminal")
	}
	present, err := s.password("Present password", c.PasswordFile)
	if err != nil {
		return err
	}
	fresh, err := s.password("New password", c.NewPasswordFile)
	if err != nil {
		return err
	}
	var user struct {
		ID json.Number `json:"id"`
	}
	if err := client.get(ctx, "/api/users/current", &user); err != nil {
		return err
	}
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(map[string]string{"password": fresh, "currentPassword": present}); err != nil {
		return err
	}
	target := "/api/users/" + url.PathEscape(user.ID.String()) + "/password"
	if _, _, err := client.ask(ctx, http.MethodPut, target, "application/json", body.Bytes()); err != nil {
		return err
	}
	client.session.ID = ""
	if err := client.save(); err != nil {
		return err
	}
	return c.done(s, "the password is changed: sign in with it")
}

// done prints that a command was carried out.
func (f *engineFlags) done(s *streams, what string) error {
	if f.JSON {
		return s.printJSON(map[string]string{"done": what})
	}
	_, err := fmt.Fprintln(s.out, what)
	return err
}
