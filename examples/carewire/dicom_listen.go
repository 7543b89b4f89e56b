package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/tlsprops"
)

// dicomListenCmd is `carewire dicom listen`.
type dicomListenCmd struct {
	Addr string `required:"" placeholder:"HOST:PORT" help:"Address to listen on; port 0 takes a free one, and the first line of output tells which."`
	Aet  string `placeholder:"TITLE" help:"AE title by which this side must be called. Default: any."`
	dicomTLS
	Out        string `placeholder:"DIR" help:"Directory to store objects in, one DICOM file each, under its SOP Instance UID; made (mode 0700) where it is missing."`
	Duplicates string `enum:"suffix,overwrite,reject" default:"suffix" placeholder:"WHAT" help:"What to do with another object of the same UID: keep both (suffix), overwrite the first, or reject the second (default: ${default})."`
	Unchecked  bool   `help:"Store also data sets that are broken, or that are not what the sender says."`
	AnyClass   bool   `help:"Take every SOP class in every transfer syntax, private ones included."`
	// Storage commitment.
	Commit    string            `placeholder:"DIR" help:"With --out, take requests for storage commitment, and vouch for what --out holds. Those whose report has not been confirmed yet are kept in this directory, which is made where it is missing, and go on after a restart."`
	Requestor map[string]string `mapsep:"," placeholder:"TITLE=HOST:PORT" help:"Where a requestor takes its reports, on an association of their own. The others get them on the association of the request. May be repeated."`
	JSON      bool              `name:"json" help:"Print one JSON object for each line."`
}

// Run listens until ctx ends; objects in hand are then still answered.
func (c *dicomListenCmd) Run(ctx context.Context, s *streams) error {
	p, err := c.properties(tlsprops.Listener)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p.Logger = logger
	r := &dicomReceiver{streams: s, json: c.JSON}
	server := &dicomtls.Server{
		TLS: p, Logger: logger, Store: r.store(c, logger),
		// A tester's sender has all its associations from one host and under one title.
		MaxAssociationsPerHost: -1, MaxAssociationsPerAE: -1,
	}
	if c.Aet != "" {
		server.AETitles = []string{c.Aet}
	}
	if c.AnyClass {
		server.SOPClasses = map[string][]string{"*": {"*"}}
	}
	if store, ok := server.Store.(*dicomtls.FileStore); ok {
		if err := store.Open(); err != nil {
			return unusable("--out: %w", err)
		}
	}
	commit, err := c.committer(server.Store, logger)
	if err != nil {
		return err
	}
	if commit != nil {
		server.Commit = commit
	}
	if err := server.Validate(); err != nil {
		return unusableDicom(err)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	if c.Out == "" {
		s.note("without --out objects are acknowledged and thrown away")
	}
	if !p.TLS.Enabled() && !isLoopback(ln.Addr().String()) {
		s.note("with --mode notls anybody who reaches %s can send, and objects travel in the clear", ln.Addr())
	}
	if commit != nil {
		reporting, end := context.WithCancel(ctx)
		var reports sync.WaitGroup
		reports.Go(func() { _ = commit.Run(reporting) }) // until it is ended
		defer reports.Wait()
		defer end()
	}
	r.announce(ln.Addr(), p.TLS)
	err = server.Serve(ctx, ln)
	if _, abandoned := errors.AsType[*dicomtls.DrainError](err); abandoned || !errors.Is(err, dicomtls.ErrServerClosed) {
		return dicomFailure(err)
	}
	return nil
}

// committer returns what takes requests for storage commitment; nil: nothing does.
func (c *dicomListenCmd) committer(objects dicomtls.StoreHandler, logger *slog.Logger) (*dicomtls.Committer, error) {
	store, ok := objects.(*dicomtls.FileStore)
	switch {
	case c.Commit == "" && len(c.Requestor) == 0:
		return nil, nil //nolint:nilnil // it was not asked for
	case c.Commit == "":
		return nil, unusable("--requestor needs --commit")
	case !ok:
		return nil, unusable("--commit needs --out: what is thrown away cannot be vouched for")
	}
	p, err := c.properties(tlsprops.Client)
	if err != nil {
		return nil, err
	}
	commit := &dicomtls.Committer{
		Dir: c.Commit, Vouch: store.Vouch, Requestors: c.Requestor, Dialer: &dicomtls.Dialer{TLS: p}, Logger: logger,
	}
	if err := commit.Open(); err != nil {
		return nil, unusable("--commit: %w", err)
	}
	return commit, nil
}

// dicomReceiver tells of the objects that arrive. Associations call it concurrently.
type dicomReceiver struct {
	// static after construction
	streams *streams
	json    bool

	mu sync.Mutex // one line of output at a time
}

// store returns what keeps the objects, or throws them away.
func (r *dicomReceiver) store(c *dicomListenCmd, logger *slog.Logger) dicomtls.StoreHandler {
	if c.Out != "" {
		return &dicomtls.FileStore{
			Dir: c.Out, Duplicates: dicomtls.DuplicatePolicy(c.Duplicates), Unchecked: c.Unchecked, Logger: logger,
			Stored: func(_ context.Context, o dicomtls.StoredObject) error {
				r.print(o.Association, o.Path, o.Bytes, o.Duplicate)
				return nil
			},
		}
	}
	return dicomtls.StoreHandlerFunc(func(_ context.Context, q *dicomtls.StoreRequest) dicomtls.Status {
		body := &countingReader{r: q.Body}
		if err := dicomtls.Scan(body, q.TransferSyntaxUID, nil); err != nil && !c.Unchecked {
			return dicomtls.StatusCannotUnderstand
		}
		r.print(q.Association, "", body.n, false)
		return dicomtls.StatusSuccess
	})
}

// countingReader counts what is read.
type countingReader struct {
	r interface{ Read(p []byte) (int, error) }
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// announce prints the first line, from which a script reads the port.
func (r *dicomReceiver) announce(addr net.Addr, mode dicomtls.DicomTlsMode) {
	if r.json {
		_ = r.streams.printJSON(map[string]string{"listening": addr.String(), "mode": mode.String()})
		return
	}
	fmt.Fprintf(r.streams.out, "listening %s %s\n", addr, mode)
}

// dicomReceived is the line of one object. It holds nothing of the object but,
// in the name of its file, the SOP Instance UID.
type dicomReceived struct {
	Time      time.Time `json:"time"`
	Peer      string    `json:"peer"`
	Calling   string    `json:"calling"`
	Bytes     int64     `json:"bytes"`
	File      string    `json:"file,omitempty"`
	Duplicate bool      `json:"duplicate,omitempty"`
}

func (r *dicomReceiver) print(a *dicomtls.AssociationInfo, file string, size int64, duplicate bool) {
	line := dicomReceived{Time: time.Now().UTC(), Peer: a.RemoteAddr.String(), Calling: a.CallingAE, Bytes: size, File: file, Duplicate: duplicate}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.json {
		_ = r.streams.printJSON(line) // the object is stored, whoever reads of it or does not
		return
	}
	fmt.Fprintf(r.streams.out, "%s %s %s %d bytes", line.Time.Format("2006-01-02T15:04:05.000Z"), line.Peer, printable(line.Calling), line.Bytes)
	if file != "" {
		fmt.Fprintf(r.streams.out, " %s", file)
	}
	if duplicate {
		fmt.Fprint(r.streams.out, " (was there already)")
	}
	fmt.Fprintln(r.streams.out)
}
