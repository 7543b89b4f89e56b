package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/meshclient"
)

// meshSource takes messages out of a MESH inbox. Each is a file before it goes into
// the store, so that a large one that is interrupted goes on where it was, and is
// acknowledged when the store has it.
type meshSource struct {
	// static after construction
	cfg     config.MESHSource
	client  meshclient.Config
	box     *mailbox
	channel *channel

	mu   sync.Mutex
	end  context.CancelFunc // nil: closed; guarded by mu
	done chan struct{}      // closed when the Poller has ended; guarded by mu
}

func newMESHSource(ch *channel, opts Options) *meshSource {
	s := &meshSource{cfg: *ch.cfg.Source.MESH, channel: ch}
	s.box = ch.engine.mailbox(&s.cfg.Mailbox)
	s.client = meshConfig(&s.cfg.Mailbox, ch, opts)
	s.client.MaxMessageBytes = s.cfg.MaxMessageSize
	s.client.MaxCompressionRatio = -1 // the server compresses, and that bound is low enough
	return s
}

// meshConfig returns the settings of a client.
func meshConfig(m *config.Mailbox, ch *channel, opts Options) meshclient.Config {
	conf := m.Config()
	conf.TLS, conf.Logger = tlsFor(m.TLS, ch.log, opts), ch.log
	return conf
}

// open begins to poll. Whether the server can be reached is told by what comes of
// it.
func (s *meshSource) open(context.Context) error {
	if err := s.prepare(); err != nil {
		return err
	}
	client, err := meshclient.New(s.client)
	if err != nil {
		return err
	}
	poller := &meshclient.Poller{
		Client: client, Interval: s.cfg.PollingFrequency, WorkflowFilter: s.cfg.WorkflowFilter,
		Store: meshclient.PollFile(filepath.Join(s.cfg.Directory, "polling.json")), Logger: s.channel.log,
		Lock:   s.box.lock,
		Handle: func(ctx context.Context, id string) error { return s.take(ctx, client, id) },
	}
	ctx, end := context.WithCancel(context.Background()) // it outlives the request that opens it
	done := make(chan struct{})
	s.mu.Lock()
	s.end, s.done = end, done
	s.mu.Unlock()
	s.box.polledBy(poller)
	go func() {
		defer close(done)
		defer s.box.polledBy(nil)
		err := errors.Join(poller.Run(ctx), client.Close())
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.end = nil
		s.mu.Unlock()
		s.channel.sourceFailed(err)
	}()
	return nil
}

// forgotten is how old a file is whose message MESH has deleted.
const forgotten = 31 * 24 * time.Hour

// prepare makes the directory, and removes what belongs to messages that are not
// there any more.
func (s *meshSource) prepare() error {
	if err := os.MkdirAll(s.cfg.Directory, 0o700); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(s.cfg.Directory, "*.message*"))
	if err != nil {
		return err
	}
	for _, name := range files {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > forgotten {
			_ = os.Remove(name) // another start will
		}
	}
	return nil
}

// close ends the polling. A message that is being received stays in the inbox; one
// that goes into the store is still acknowledged.
func (s *meshSource) close(context.Context) error {
	s.mu.Lock()
	end, done := s.end, s.done
	s.end = nil
	s.mu.Unlock()
	if end != nil {
		end()
		<-done // at once, or when the store has answered
	}
	return nil
}

// take makes one message durable. Only its nil lets it be acknowledged.
func (s *meshSource) take(ctx context.Context, client *meshclient.Client, id string) error {
	name := filepath.Join(s.cfg.Directory, url.PathEscape(id)+".message")
	receive := func() (*meshclient.Info, error) { return client.ReceiveFile(ctx, id, name, nil) }
	if _, err := os.Lstat(name); err == nil { // it came before, when the store could not take it
		receive = func() (*meshclient.Info, error) { return client.Head(ctx, id) }
	}
	info, err := receive()
	if err != nil {
		return err
	}
	if info.Report != nil {
		return s.report(ctx, info)
	}
	raw, err := os.ReadFile(name) // as long as MaxMessageSize allows
	if err != nil {
		return fmt.Errorf("%w: %w", meshclient.ErrNotNow, err)
	}
	err = errUnpassable
	if s.channel.carries(raw) {
		err = s.channel.intake(ctx, store.Intake{ControlID: idOf(raw, id), Raw: raw, Source: meshNotes(info), Once: s.once(id)})
	}
	if err != nil && !errors.Is(err, store.ErrInvalid) && !errors.Is(err, errUnpassable) {
		return fmt.Errorf("%w: %w", meshclient.ErrNotNow, err)
	}
	_ = os.Remove(name) // the store has the message, or is never going to
	return err
}

// once has a message stored once that comes again because the engine ended between
// the commit and the acknowledgement, or before the Poller had noted the commit.
func (s *meshSource) once(id string) store.Once {
	key := sha256.Sum256([]byte("mesh " + s.cfg.Mailbox.Mailbox + " " + id))
	return store.Once{Key: key[:], For: forgotten}
}

func meshNotes(info *meshclient.Info) store.Source {
	notes := make(map[string]string)
	for name, value := range map[string]string{
		"meshMessageId": info.MessageID, "meshSender": info.Sender, "meshRecipient": info.Recipient,
		"meshWorkflowId": info.WorkflowID, "meshLocalId": info.LocalID, "meshFileName": info.FileName,
		"meshSubject": info.Subject, "contentType": info.ContentType,
	} {
		if value != "" {
			notes[name] = value
		}
	}
	return store.NewSource(notes)
}

// meshReport is what is kept of a report. It may name a patient.
type meshReport struct {
	MessageID       string    `json:"messageId"`
	LinkedMessageID string    `json:"linkedMessageId"`
	LocalID         string    `json:"localId"`
	WorkflowID      string    `json:"workflowId"`
	Code            string    `json:"code"`
	Event           string    `json:"event"`
	Status          string    `json:"status"`
	Description     string    `json:"description"`
	Timestamp       time.Time `json:"timestamp"`
}

// report keeps the news that a message of this mailbox was not delivered, which is
// no message itself.
func (s *meshSource) report(ctx context.Context, info *meshclient.Info) error {
	r := info.Report
	text, err := json.MarshalIndent(meshReport{
		MessageID: info.MessageID, LinkedMessageID: r.LinkedMessageID, LocalID: info.LocalID, WorkflowID: info.WorkflowID,
		Code: r.Code, Event: r.Event, Status: r.Status, Description: r.Description, Timestamp: r.Timestamp,
	}, "", "  ")
	if err == nil {
		err = writeFile(filepath.Join(s.cfg.Directory, "reports"), url.PathEscape(info.MessageID)+".json", bytes.NewReader(text))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", meshclient.ErrNotNow, err)
	}
	s.channel.log.ErrorContext(ctx, "MESH reports that a message of this mailbox was not delivered",
		"report", info.MessageID, "messageId", r.LinkedMessageID, "code", r.Code)
	return nil
}

func (s *meshSource) listener() Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Listener{Transport: "MESH", Listening: s.end != nil, Port: 443}
	if u, err := url.Parse(s.cfg.BaseURL); err == nil {
		l.Host = u.Hostname()
		if port, err := strconv.Atoi(u.Port()); err == nil {
			l.Port = port
		}
	}
	return l
}
