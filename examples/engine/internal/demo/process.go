package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// readyLimit is how long a start may take. The store checks its database for up to
	// 10 s, and a machine that is busy takes its time for the rest.
	readyLimit = time.Minute
	// stopLimit is how long an end in good order may take: the engine drains for 20 s.
	stopLimit = 40 * time.Second
)

// engine is the engine under test, in a process of its own so that it can be
// killed.
type engine struct {
	command []string // the engine's binary and its arguments
	logFile string
	port    string // of its API

	password string // of the user demo
	session  string // in this process

	cmd    *exec.Cmd
	exited chan error // receives the result of cmd.Wait
}

// start starts the process and returns when it is ready to take messages.
func (e *engine) start(ctx context.Context) error {
	log, err := os.OpenFile(e.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Not bound to ctx: the end of the demo stops it in good order.
	e.cmd = exec.Command(e.command[0], e.command[1:]...) //nolint:noctx // see above
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.Env = append(os.Environ(), "PORT="+e.port, "HTTP_HOST=127.0.0.1", "MIRTH_API_RATE_LIMIT=0")
	if err := e.cmd.Start(); err != nil {
		return err
	}
	e.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(e.cmd, e.exited)
	err = e.awaitReady(ctx)
	if err == nil {
		err = e.signIn(ctx)
	}
	if err != nil {
		return errors.Join(err, e.kill())
	}
	return nil
}

func (e *engine) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		var health struct{ Status string }
		if err := e.get(ctx, "/api/health", &health); err == nil && health.Status == "ok" {
			return nil
		}
		select {
		case err := <-e.exited:
			e.exited <- err
			return fmt.Errorf("the engine ended before it was ready (%w); its log is %s", err, e.logFile)
		case <-ctx.Done():
			return fmt.Errorf("the engine was not ready in time; its log is %s", e.logFile)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// kill is kill -9: no handler runs, nothing is flushed.
func (e *engine) kill() error {
	if err := e.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-e.exited //nolint:errcheck // it was killed
	e.cmd = nil
	return nil
}

// stop asks the engine to end in good order and requires that it exits with 0.
func (e *engine) stop() error {
	if e.cmd == nil {
		return nil
	}
	defer func() { e.cmd = nil }()
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-e.exited:
		if err != nil {
			return fmt.Errorf("after SIGTERM the engine ended with: %w", err)
		}
		return nil
	case <-time.After(stopLimit):
		return errors.Join(fmt.Errorf("the engine did not end within %v of SIGTERM", stopLimit), e.cmd.Process.Kill())
	}
}

// queued asks the engine how many messages wait in the queues of a channel.
func (e *engine) queued(ctx context.Context, channel string) (int, error) {
	var status struct {
		Statistics struct{ Queued int }
	}
	err := e.get(ctx, "/api/channels/"+channel+"/status", &status)
	return status.Statistics.Queued, err
}

// signIn gets a session, which ends with the process.
func (e *engine) signIn(ctx context.Context) error {
	form := url.Values{"username": {"demo"}, "password": {e.password}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url("/api/users/_login"), strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("signing in to the engine: %s", res.Status)
	}
	e.session = res.Header.Get("X-Session-ID")
	return nil
}

func (e *engine) url(path string) string { return "http://127.0.0.1:" + e.port + path }

func (e *engine) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url(path), nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Session-ID", e.session)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}
