package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/carewire/carewire/keystore"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// listenCmd is `carewire mllp listen`.
type listenCmd struct {
	Addr           string `required:"" placeholder:"HOST:PORT" help:"Address to listen on; port 0 takes a free one, and the first line of output tells which."`
	TLS            bool   `name:"tls" help:"Use TLS (MLLPS)."`
	Cert           string `placeholder:"FILE" help:"The listener's certificate (PEM), with its chain."`
	Key            string `placeholder:"FILE" help:"Private key of the certificate (PEM)."`
	PassphraseFile string `placeholder:"FILE" help:"File that holds the passphrase of an encrypted key."`
	CA             string `name:"ca" placeholder:"FILE" help:"Authorities of clients (PEM). With it, every client must have a certificate."`
	Out            string `placeholder:"DIR" help:"Directory to store messages in, one file each, byte for byte; made (mode 0700) where it is missing."`
	Nak            string `enum:",AE,AR,CE,CR" default:"" placeholder:"CODE" help:"Store nothing, and answer every message with this code: AE, AR, CE or CR."`
	JSON           bool   `name:"json" help:"Print one JSON object for each line."`
}

// Run listens until ctx ends; messages in hand are then still answered.
func (c *listenCmd) Run(ctx context.Context, s *streams) error {
	server := &mllp.Server{
		Addr: c.Addr,
		// A tester's sender has all its connections from one host; the limit for
		// all hosts holds.
		MaxConnsPerHost: -1,
		Logger:          slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if err := c.secure(server); err != nil {
		return err
	}
	receiver := &receiver{streams: s, json: c.JSON, nak: mllp.AckCode(c.Nak)}
	if c.Out != "" {
		if c.Nak != "" {
			return unusable("--out and --nak contradict each other: nothing is stored that is refused")
		}
		var err error
		if receiver.store, err = openStore(c.Out); err != nil {
			return unusable("--out: %w", err)
		}
	}
	server.Handler = receiver

	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	if receiver.store == nil && c.Nak == "" {
		s.note("without --out messages are acknowledged and thrown away")
	}
	if !c.TLS && !isLoopback(ln.Addr().String()) {
		s.note("without --tls anybody who reaches %s can send, and messages travel in the clear", ln.Addr())
	}
	receiver.announce(ln.Addr(), server.Transport())
	err = server.Serve(ctx, ln)
	if _, abandoned := errors.AsType[*mllp.DrainError](err); abandoned || !errors.Is(err, mllp.ErrServerClosed) {
		return err
	}
	return nil
}

// secure gives the server its TLS settings, having tried them.
func (c *listenCmd) secure(server *mllp.Server) error {
	if !c.TLS {
		if c.Cert != "" || c.Key != "" || c.PassphraseFile != "" || c.CA != "" {
			return unusable("--cert, --key, --passphrase-file and --ca need --tls")
		}
		return nil
	}
	properties := tlsprops.TlsProperties{
		Enabled:           true,
		CertStorePath:     c.Cert,
		KeyStorePath:      c.Key,
		PassphraseFile:    c.PassphraseFile,
		TrustStorePath:    c.CA,
		RequireClientCert: c.CA != "",
		Decoder:           keystore.Decoder,
	}
	source, err := tlsprops.Load(properties)
	if err != nil {
		return unusableTLS(err)
	}
	if _, err := source.ServerConfig(); err != nil {
		return unusableTLS(err)
	}
	server.TLS = &properties
	return nil
}

// receiver stores messages and tells of them. Connections call it concurrently.
type receiver struct {
	// static after construction
	streams *streams
	json    bool
	nak     mllp.AckCode // empty: messages are taken
	store   *store       // nil: they are not kept

	mu sync.Mutex // one line of output at a time
}

// announce prints the first line, from which a script reads the port.
func (r *receiver) announce(addr net.Addr, transport string) {
	if r.json {
		_ = r.streams.printJSON(map[string]string{"listening": addr.String(), "transport": transport})
		return
	}
	fmt.Fprintf(r.streams.out, "listening %s %s\n", addr, transport)
}

// received is the line of one message. It holds nothing of the message but its
// control id.
type received struct {
	Time      time.Time    `json:"time"`
	Peer      string       `json:"peer"`
	Code      mllp.AckCode `json:"code,omitempty"` // the answer that follows; none to what is an acknowledgement itself
	ControlID string       `json:"controlId"`
	Bytes     int          `json:"bytes"`
	File      string       `json:"file,omitempty"`
}

// ServeMLLP answers AA when the message is on disk, or, where nothing is kept,
// when it has been seen.
func (r *receiver) ServeMLLP(_ context.Context, request *mllp.Request) ([]byte, error) {
	line := received{
		Time: time.Now().UTC(), Peer: request.RemoteAddr.String(), Code: mllp.AA,
		ControlID: string(request.Header.ControlID), Bytes: len(request.Message),
	}
	var answer error
	switch {
	case r.nak != "":
		line.Code, answer = r.nak, &mllp.Nak{Code: r.nak, Text: "refused on request of the operator"}
	case r.store != nil:
		var err error
		if line.File, err = r.store.keep(request.Message, request.Header.ControlID); err != nil {
			line.Code, answer = mllp.AE, &mllp.Nak{Code: mllp.AE, Text: "the message could not be stored"}
			r.streams.note("a message of %s could not be stored: %v", line.Peer, err)
		}
	}
	if request.Flags&mllp.IsAck != 0 {
		line.Code = ""
	}
	r.print(&line)
	return nil, answer
}

func (r *receiver) print(line *received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.json {
		_ = r.streams.printJSON(line) // the message is stored, whoever reads of it or does not
		return
	}
	id := printable(line.ControlID)
	if id == "" {
		id = "(no MSH-10)"
	}
	fmt.Fprintf(r.streams.out, "%s %s %s %s %d bytes", line.Time.Format("2006-01-02T15:04:05.000Z"), line.Peer, cmp.Or(line.Code, "--"), id, line.Bytes)
	if line.File != "" {
		fmt.Fprintf(r.streams.out, " %s", line.File)
	}
	fmt.Fprintln(r.streams.out)
}
