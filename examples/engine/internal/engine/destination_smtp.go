package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/smtpx"
)

// defaultMailTimeout bounds one mail.
const defaultMailTimeout = 5 * time.Minute

// smtpDestination sends each message as one mail.
type smtpDestination struct {
	queued
	// static after construction
	cfg    *config.SMTPDestination
	worker *worker
	opts   Options

	// owned by the worker
	sender *smtpx.Sender // nil: none yet
	// owing are, by message, the recipients who do not have it, when others do. A
	// restart forgets it, and sends to all again.
	owing map[int64][]string
}

// maxOwing bounds of how many messages it is known that some recipients have them: of
// those that are skipped or set aside there can be many.
const maxOwing = 1000

func newSMTPDestination(cfg *config.SMTPDestination, w *worker, opts Options) *smtpDestination {
	return &smtpDestination{queued: queued{w.store}, cfg: cfg, worker: w, opts: opts, owing: make(map[int64][]string)}
}

func (s *smtpDestination) send(ctx context.Context, d *store.Delivery) error {
	if s.sender == nil {
		s.sender = s.cfg.Sender()
		s.sender.TLS = tlsFor(s.cfg.TLS, s.worker.log, s.opts)
	}
	mail, err := s.cfg.Message(valuesOf(&d.Message))
	if err != nil {
		return err
	}
	mail.ID, mail.Date = s.id(mail, d), d.Message.Received
	mail.Recipients = s.owing[d.Message.ID]
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.cfg.Timeout, defaultMailTimeout))
	defer cancel()
	result, err := s.sender.Send(ctx, mail)
	if failed, ok := errors.AsType[*smtpx.SendError](err); ok && failed.Outcome == smtpx.Partial {
		var left []string
		for _, r := range result.Recipients {
			if r.Outcome != smtpx.Accepted {
				left = append(left, r.Address)
			}
		}
		s.owe(d.Message.ID, left)
	}
	if err == nil {
		delete(s.owing, d.Message.ID)
	}
	return aboutSMTP(result, err)
}

// owe notes who does not have a message yet. In the place of the oldest, when there
// are too many: that one is mailed to all again.
func (s *smtpDestination) owe(message int64, left []string) {
	if _, known := s.owing[message]; !known && len(s.owing) >= maxOwing {
		delete(s.owing, slices.Min(slices.Collect(maps.Keys(s.owing))))
	}
	s.owing[message] = left
}

// id is the same for every try of a delivery, and for no other, so that a mail
// that arrives twice shows that it does.
func (s *smtpDestination) id(mail *smtpx.Message, d *store.Delivery) string {
	domain := mail.From[strings.LastIndexByte(mail.From, '@')+1:]
	domain, _, _ = strings.Cut(domain, ">")
	for _, r := range domain {
		if r <= ' ' || r > '~' {
			domain = "localhost"
			break
		}
	}
	return fmt.Sprintf("%s.%s.%d.%x@%s", s.worker.channel, s.worker.name, d.Message.ID, d.Message.Received.UnixNano(), domain)
}

// aboutSMTP tells apart what is about the message, and what is about the server,
// the way to it or our credentials, which makes no message poison.
func aboutSMTP(result *smtpx.Result, err error) error {
	failed, ok := errors.AsType[*smtpx.SendError](err)
	if !ok {
		return err
	}
	switch failed.Outcome {
	case smtpx.NotSent:
		// A mail that could not be made has no recipients yet.
		unmade := len(result.Recipients) == 0 && !failed.Retryable()
		if unmade || errors.Is(err, smtpx.ErrTooLarge) || errors.Is(err, smtpx.ErrNoSMTPUTF8) {
			return err
		}
		return &unavailable{err}
	case smtpx.Rejected:
		// 421: it closes. 530: it wants TLS or credentials, and may say so late
		// (RFC 4954 section 6).
		if failed.Command != "MAIL" && failed.Command != "RCPT" && failed.Command != "DATA" || failed.Reply.Code == 421 || failed.Reply.Code == 530 {
			return &unavailable{err}
		}
	case smtpx.Unknown, smtpx.Partial, smtpx.Accepted:
	}
	return err
}

func (s *smtpDestination) close() {
	if s.sender != nil {
		_ = s.sender.Close() // it is given up, whatever it says
		s.sender = nil
	}
}
