package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// resendPause is how long a sender waits before it dials again and resends the
// message that it has no answer for.
const resendPause = 200 * time.Millisecond

// senders are several systems of a hospital, each with a connection of its own.
// Each sends its messages one after the other, and the same message again until
// it has been acknowledged: what a careful HL7 sender does.
type senders struct {
	dialer *mllp.Dialer
	addr   string
	acks   atomic.Int64 // AA read so far, by all
	naks   atomic.Int64 // refusals

	// Each element is owned by its own goroutine while send runs, and read by
	// the caller of send after it has returned.
	lines []*line
	conns []*mllp.Conn
}

func newSenders(n int, addr string, tls tlsprops.TlsProperties) *senders {
	s := &senders{
		dialer: &mllp.Dialer{TLS: &tls, Timeout: 5 * time.Second},
		addr:   addr,
		conns:  make([]*mllp.Conn, n),
	}
	for range n {
		s.lines = append(s.lines, &line{})
	}
	return s
}

// send has every sender send count messages more, and returns when all of them
// have been acknowledged.
func (s *senders) send(ctx context.Context, count int) error {
	var group sync.WaitGroup
	errs := make([]error, len(s.lines))
	for i := range s.lines {
		group.Go(func() {
			for range count {
				if errs[i] = s.one(ctx, i); errs[i] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// one sends the next message of line i until it is acknowledged.
func (s *senders) one(ctx context.Context, i int) error {
	l := s.lines[i]
	n := len(l.sent)
	id := fmt.Sprintf("DEMO%d-%05d", i+1, n+1)
	msg := message(i*7919+n, id, time.Now())
	l.sent = append(l.sent, sent{id: id, digest: sha256.Sum256(msg)})
	for {
		err := s.attempt(ctx, i, msg)
		if err == nil {
			l.sent[n].acked = true
			s.acks.Add(1)
			return nil
		}
		var failure *mllp.SendError
		if !errors.As(err, &failure) || !failure.Retryable() {
			return fmt.Errorf("sender %d: %w", i+1, err)
		}
		switch {
		case failure.MaybeDelivered():
			l.again++
		case failure.Outcome == mllp.Nacked:
			s.naks.Add(1)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sender %d gave up: %w", i+1, context.Cause(ctx))
		case <-time.After(resendPause):
		}
	}
}

func (s *senders) attempt(ctx context.Context, i int, msg []byte) error {
	if s.conns[i] == nil || s.conns[i].Err() != nil {
		conn, err := s.dialer.DialContext(ctx, "tcp", s.addr)
		if err != nil {
			return err
		}
		s.conns[i] = conn
	}
	_, err := s.conns[i].Send(ctx, msg)
	return err
}

// close hangs up.
func (s *senders) close() {
	for _, conn := range s.conns {
		if conn != nil {
			conn.Close()
		}
	}
}
