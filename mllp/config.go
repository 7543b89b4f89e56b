package mllp

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// Validate returns the first error in the settings. Serve calls it.
func (s *Server) Validate() error {
	if err := s.validateStream(); err != nil {
		return err
	}
	if err := s.Framing.Validate(); err != nil {
		return err
	}
	if s.MaxMessageBytes < 0 {
		return fmt.Errorf("mllp: Server.MaxMessageBytes is negative (%d)", s.MaxMessageBytes)
	}
	if s.Framing.Length > orDefault(s.MaxMessageBytes, defaultMaxMessage) {
		return fmt.Errorf("mllp: Server.Framing.Length is %d, more than MaxMessageBytes", s.Framing.Length)
	}
	if need := leastBudget(orDefault(s.MaxMessageBytes, defaultMaxMessage)); s.MaxBufferedBytes != 0 && s.MaxBufferedBytes < need {
		return fmt.Errorf("mllp: Server.MaxBufferedBytes is %d: one message of MaxMessageBytes takes up to %d", s.MaxBufferedBytes, need)
	}
	if need := leastBudget(orDefault(s.MaxMessageBytes, defaultMaxMessage)); s.MaxBufferedBytesPerHost > 0 && s.MaxBufferedBytesPerHost < need {
		return fmt.Errorf("mllp: Server.MaxBufferedBytesPerHost is %d: one message of MaxMessageBytes takes up to %d", s.MaxBufferedBytesPerHost, need)
	}
	for _, p := range []struct {
		field   string
		policy  Policy
		allowed []Policy
	}{
		{"NotHL7", s.NotHL7, []Policy{PolicyClose, PolicyReject, PolicyDeliver}},
		{"NoControlID", s.NoControlID, []Policy{PolicyReject, PolicyError, PolicyDeliver}},
		{"MultipleMSH", s.MultipleMSH, []Policy{PolicyReject, PolicyDeliver}},
		{"Batches", s.Batches, []Policy{PolicyReject, PolicyDeliver, PolicyPerMessage, PolicyBatch, PolicyLast}},
		{"Late", s.Late, []Policy{PolicyError, PolicyClose}},
		{"DuplicateID", s.DuplicateID, []Policy{PolicyReject, PolicyError, PolicyDeliver}},
		{"Truncated", s.Truncated, []Policy{PolicyResync, PolicyClose}},
	} {
		if !p.policy.in(p.allowed) {
			return fmt.Errorf("mllp: Server.%s is %q: use one of %q", p.field, p.policy, p.allowed)
		}
	}
	if err := s.validateAcks(); err != nil {
		return err
	}
	if s.TLS != nil && s.TLSConfig == nil {
		if err := s.TLS.ValidateFor(tlsprops.Listener); err != nil {
			return fmt.Errorf("mllp: Server.TLS: %w", err)
		}
	}
	if c := s.TLSConfig; c != nil && len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return errors.New("mllp: Server.TLSConfig has no certificate")
	}
	return s.validateAccess()
}

// config is what the connections of one call of Serve share: the settings with
// their defaults. It is static after construction.
type config struct {
	server  *Server // for control IDs
	handler Handler
	stream  StreamHandler    // nil: handler
	tls     *tls.Config      // nil: plain
	source  *tlsprops.Source // of tls; nil if that was given
	budget  *budget
	recent  *recent

	framing, replies Framing
	gap              time.Duration // of framing
	keepOpen         bool

	maxMessage, maxJunk       int64
	maxConns, maxConnsPerHost int

	handshakeTimeout, frameTimeout, idleTimeout, writeTimeout, handlerTimeout, drainTimeout, fsOnlyDelay time.Duration // 0 or less: none

	strict                                               bool
	notHL7, noControlID, multipleMSH, batches, truncated Policy

	access

	generation  atomic.Uint64                                   // how often the files of tls were loaded again; only if recheck
	connContext func(context.Context, ConnInfo) context.Context // nil: none
	ackConfig

	quarantine      func(context.Context, QuarantinedFrame) // nil: none
	quarantineBytes int                                     // 0 or less: none

	logger  *slog.Logger
	observe func(Event)
}

func (s *Server) config() (*config, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	maxMessage := orDefault(s.MaxMessageBytes, defaultMaxMessage)
	s.once.Do(func() {
		rand.Read(s.idKey[:])
		most := leastBudget(maxMessage)
		all := orDefault(s.MaxBufferedBytes, max(256<<20, most))
		s.budget = newBudget(all, orDefault(s.MaxBufferedBytesPerHost, max(all/2, most)), most)
		if s.Framing.Mode == ModeMLLPv2 {
			s.recent = newRecent()
		}
	})
	c := &config{
		server:           s,
		handler:          s.Handler,
		stream:           s.Stream,
		framing:          s.Framing,
		replies:          s.Framing.ofReplies(),
		gap:              s.Framing.gap(),
		keepOpen:         s.Framing.keepOpen(),
		recent:           s.recent,
		tls:              s.TLSConfig.Clone(),
		budget:           s.budget,
		maxMessage:       maxMessage,
		maxJunk:          max(0, orDefault(s.MaxJunkBytes, defaultMaxJunk)),
		maxConns:         orDefault(s.MaxConns, 1024),
		maxConnsPerHost:  orDefault(s.MaxConnsPerHost, 64),
		handshakeTimeout: orDefault(s.HandshakeTimeout, 10*time.Second),
		frameTimeout:     orDefault(s.FrameTimeout, defaultFrameTimeout),
		idleTimeout:      s.IdleTimeout,
		writeTimeout:     orDefault(s.WriteTimeout, 10*time.Second),
		handlerTimeout:   s.HandlerTimeout,
		drainTimeout:     orDefault(s.DrainTimeout, 30*time.Second),
		fsOnlyDelay:      s.FSOnlyDelay,
		strict:           s.Strict,
		notHL7:           s.NotHL7.or(PolicyClose),
		noControlID:      s.NoControlID.or(PolicyReject),
		multipleMSH:      s.MultipleMSH.or(PolicyReject),
		batches:          s.Batches.or(PolicyReject),
		truncated:        s.Truncated.or(PolicyResync),
		access:           s.access(),
		connContext:      s.ConnContext,
		ackConfig:        s.ackConfig(),
		quarantine:       s.Quarantine,
		quarantineBytes:  s.QuarantineBytes,
		logger:           s.Logger,
		observe:          s.Observe,
	}
	if c.stream != nil {
		c.maxMessage = orDefault(s.MaxStreamBytes, defaultMaxStream)
	}
	if c.tls != nil || s.TLS == nil || !s.TLS.Enabled {
		return c, nil
	}
	err := c.loadTLS(s)
	if err != nil {
		return nil, fmt.Errorf("mllp: Server.TLS: %w", err)
	}
	return c, nil
}

// orDefault returns v, or deflt if v is zero.
func orDefault[T int | int64 | time.Duration](v, deflt T) T {
	if v == 0 {
		return deflt
	}
	return v
}

// appendID appends a control ID that no other acknowledgement has: 20 characters
// at most (HL7 2.x up to 2.6, MSH-10), the first 7 of which are this Server's.
func (s *Server) appendID(dst []byte) []byte {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
	for _, b := range s.idKey {
		dst = append(dst, digits[b&31])
	}
	n := s.ids.Add(1)
	for shift := 60; shift >= 0; shift -= 5 {
		if d := n >> shift; d > 0 || shift == 0 {
			dst = append(dst, digits[d&31])
		}
	}
	return dst
}
