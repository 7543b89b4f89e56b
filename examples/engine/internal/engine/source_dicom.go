package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/tlsprops"
)

// dicomSource takes DICOM objects in. Of each, first the file is made durable, then
// the message that refers to it, and then C-STORE is answered with success.
//
// An object whose message cannot be stored stays where it is, and its sender is
// answered A700, out of resources. The file does no harm: nothing refers to it, and
// the sender's next try finds it there and stores the message alone. No file is ever
// replaced or removed, because queues may refer to it.
type dicomSource struct {
	// static after construction
	cfg       config.DICOMSource
	tls       dicomtls.Properties
	directory string
	channel   *channel
	log       *slog.Logger

	mu     sync.Mutex
	server *dicomtls.Server // nil: closed; guarded by mu
	port   int              // the one that is open, or the configured one; guarded by mu
	done   chan struct{}    // closed when server's Serve has returned; guarded by mu
}

func newDICOMSource(ch *channel, opts Options) *dicomSource {
	cfg := *ch.cfg.Source.DICOM
	return &dicomSource{
		cfg: cfg, tls: dicomTLSFor(cfg.TLS, ch.log, opts), directory: cfg.Directory(ch.engine.dataDir, ch.cfg.ID),
		channel: ch, log: ch.log, port: cfg.Port,
	}
}

// dicomTLSFor returns p with what a program sets.
func dicomTLSFor(p dicomtls.Properties, log *slog.Logger, opts Options) dicomtls.Properties {
	p.ReloadInterval, p.Logger, p.Observe = opts.TLSReloadInterval, log, opts.certificates
	return p
}

// open begins to listen. When it returns nil, the port is open.
func (s *dicomSource) open(ctx context.Context) error {
	objects := &dicomtls.FileStore{Dir: s.directory, MaxObjectBytes: s.cfg.MaxObjectSize, Stored: s.stored, Logger: s.log}
	server := s.cfg.Server()
	server.TLS, server.Store, server.Commitments, server.Logger = &s.tls, objects, s.channel.engine.commitments, s.log
	server.Observe = s.channel.observeDICOM
	server.DrainTimeout = -1 // close says how long
	if err := server.Validate(); err != nil {
		return err
	}
	silent := s.tls
	silent.Logger, silent.Observe = nil, nil // the server reads the files too, but then the port would be open already
	if err := silent.Check(tlsprops.Listener); err != nil {
		return err
	}
	if err := objects.Open(); err != nil {
		return err
	}
	s.mu.Lock()
	port := s.port
	s.mu.Unlock()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(s.cfg.Host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	done := make(chan struct{})
	s.mu.Lock()
	s.server, s.done = server, done
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		s.port = tcp.Port
	}
	s.mu.Unlock()
	go func() { // it outlives the request that opens the port
		defer close(done)
		err := server.Serve(context.Background(), ln)
		if errors.Is(err, dicomtls.ErrServerClosed) {
			return
		}
		s.mu.Lock()
		if s.server == server {
			s.server = nil
		}
		s.mu.Unlock()
		s.channel.sourceFailed(err)
	}()
	return nil
}

// close closes the port and waits for the objects being taken in, until ctx ends;
// then it cuts their associations.
func (s *dicomSource) close(ctx context.Context) error {
	s.mu.Lock()
	server, done := s.server, s.done
	s.server = nil
	s.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("draining: %w", err), server.Close())
	}
	<-done
	return err
}

// listener is where the source listens, or would.
func (s *dicomSource) listener() Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Listener{
		Host: s.cfg.Host, Port: s.port, MaxConnections: s.cfg.MaxAssociations, Transport: "DICOM", Listening: s.server != nil,
	}
	if s.tls.TLS.Enabled() {
		l.Transport = "DICOM+TLS"
	}
	if l.Listening {
		l.Connections = s.server.Associations()
	}
	return l
}

// stored makes the message of an object durable that is on disk. Only its nil lets
// success be answered.
func (s *dicomSource) stored(ctx context.Context, o dicomtls.StoredObject) error {
	if o.Duplicate { // whoever tidies up by age must see that it is needed again
		now := time.Now()
		if err := os.Chtimes(o.Path, now, now); err != nil {
			return nameless(err)
		}
	}
	content, err := referenceTo(s.channel.cfg.ID, &o)
	if err != nil {
		return err
	}
	return s.channel.intake(ctx, store.Intake{ControlID: o.Meta.SOPInstanceUID, Raw: content, Source: s.notes(&o)})
}

// notes are what Mirth has in its source map, and the object.
func (s *dicomSource) notes(o *dicomtls.StoredObject) store.Source {
	a := o.Association
	notes := map[string]string{
		objectNote:                     s.channel.cfg.ID + "/" + filepath.Base(o.Path),
		"remoteApplicationEntityTitle": a.CallingAE,
		"localApplicationEntityTitle":  a.CalledAE,
		"associateRQImplClassUID":      a.ImplementationClassUID,
		"associateRQImplVersionName":   a.ImplementationVersionName,
	}
	notes["remoteAddress"], notes["remotePort"], _ = net.SplitHostPort(a.RemoteAddr.String()) // as it is, at worst
	notes["localAddress"], notes["localPort"], _ = net.SplitHostPort(a.LocalAddr.String())
	if a.TLS != nil && len(a.TLS.VerifiedChains) > 0 {
		notes["tlsClientSubject"] = a.TLS.PeerCertificates[0].Subject.String()
	}
	if u := a.Identity; u != nil {
		notes["userIdentityType"] = strconv.Itoa(int(u.Type))
		if u.Type == dicomtls.IdentityUsername || u.Type == dicomtls.IdentityPasscode {
			notes["username"] = string(u.Primary)
		}
	}
	return store.NewSource(notes)
}

// newCommitments returns what brings the reports of storage commitment from all
// sources to all destinations: an archive may send one on an association of its own.
func newCommitments(log *slog.Logger) *dicomtls.Commitments {
	return &dicomtls.Commitments{Unclaimed: func(ctx context.Context, a *dicomtls.AssociationInfo, r *dicomtls.CommitReport) dicomtls.Status {
		log.WarnContext(ctx, "a report of storage commitment came for which nobody waits, or not any more",
			"remote", a.RemoteAddr.String(), "committed", len(r.Committed), "failed", len(r.Failed))
		return dicomtls.StatusSuccess
	}}
}
