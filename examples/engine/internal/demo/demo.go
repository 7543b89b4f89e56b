// Package demo plays the engine's main job from end to end, unattended: it makes
// certificates, starts the engine in a process of its own, sends it messages
// over MLLPS with client certificates from several senders at once, takes the
// destination down and brings it back, renews the engine's certificate while it
// runs, kills the engine with SIGKILL and starts it again. Then it compares the
// senders' own logs of what was acknowledged with the files that the
// destinations hold. The engine has no part in that comparison.
package demo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/carewire/carewire/examples/internal/devcert"
	"github.com/carewire/carewire/tlsprops"
)

// ErrNotHeld is returned by Run when the engine did not keep its promise.
var ErrNotHeld = errors.New("the promise was not kept")

const (
	fewSenders = 4  // at once, if Options does not say
	batch      = 25 // messages of each sender in each act
	channelID  = "lab"
	limit      = 55 * time.Second // for the whole demo
)

// Options says how to play.
type Options struct {
	Executable string    // the engine's binary
	Sabotage   string    // "" or AckBeforeCommit
	Senders    int       // systems that send at once; zero means 4
	Under      []string  // a command under which the engine runs first; nil means none
	Out        io.Writer // where to tell what happens
}

// Run plays the demo. It returns nil if every acknowledged message was
// delivered, unaltered and in order, and ErrNotHeld if not.
func Run(ctx context.Context, opt Options) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "carewire-demo-")
	if err != nil {
		return err
	}
	s := &stage{dir: dir, out: opt.Out, began: time.Now(), keep: filesIn(filepath.Join(dir, "laboratory"))}
	err = s.play(ctx, opt)
	if err != nil {
		fmt.Fprintf(opt.Out, "\nEverything of this run is kept in %s\n", dir)
		return err
	}
	return os.RemoveAll(dir)
}

// configMark is the first line of the configurations that the demo writes.
const configMark = "# Written by the demo of the engine."

// IsDemo tells whether a configuration was written by the demo: no other may be
// sabotaged.
func IsDemo(path string) bool {
	text, err := os.ReadFile(path)
	return err == nil && bytes.HasPrefix(text, []byte(configMark+"\n"))
}

// stage holds what the acts of the demo share.
type stage struct {
	dir   string
	out   io.Writer
	began time.Time

	keep       func(payload []byte) error // what the laboratory does with a message
	engine     *engine
	laboratory *laboratory
	senders    *senders
}

// tell prints one line of the story.
func (s *stage) tell(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *stage) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

func (s *stage) play(ctx context.Context, opt Options) (err error) {
	if err := s.prepare(ctx, opt); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.engine.stop(), s.laboratory.close()) }()
	defer s.senders.close()
	for _, act := range []func(context.Context) error{s.calm, s.outage, s.rotation, s.crash, s.drain} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return s.verdict()
}

// prepare makes the certificates and starts the laboratory and the engine.
func (s *stage) prepare(ctx context.Context, opt Options) error {
	if _, err := devcert.Write(s.path("certs"), devcert.Options{}); err != nil {
		return err
	}
	s.tell("made a certificate authority, a server and a client certificate")

	for _, dir := range []string{"laboratory", "archive", "data"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return err
		}
	}
	s.laboratory = &laboratory{addr: "127.0.0.1:0", tls: s.tls("server", true), keep: s.keep}
	if err := s.laboratory.open(); err != nil {
		return err
	}
	s.tell("the laboratory listens on %s (MLLPS, client certificate required)", s.laboratory.addr)

	source, port, err := freeAddrs()
	if err != nil {
		return err
	}
	if err := s.writeConfig(source); err != nil {
		return err
	}
	password := rand.Text()
	if err := os.WriteFile(s.path("password"), []byte(password), 0o600); err != nil {
		return err
	}
	s.engine = &engine{
		command: append(opt.Under, opt.Executable, "-config", s.path("engine.yaml")),
		logFile: s.path("engine.log"),
		port:    port,

		password: password,
	}
	if opt.Sabotage != "" {
		s.engine.command = append(s.engine.command, "-sabotage", opt.Sabotage)
	}
	s.senders = newSenders(cmp.Or(opt.Senders, fewSenders), source, s.tls("client", false))
	if err := s.engine.start(ctx); err != nil {
		return err
	}
	s.tell("the engine listens on %s (MLLPS, client certificate required), process %d", source, s.engine.cmd.Process.Pid)
	return nil
}

// tls is the TLS of one side of a connection of the demo.
func (s *stage) tls(pair string, listener bool) tlsprops.TlsProperties {
	return tlsprops.TlsProperties{
		Enabled:           true,
		KeyStorePath:      s.path("certs", pair+".key"),
		CertStorePath:     s.path("certs", pair+".crt"),
		TrustStorePath:    s.path("certs", "ca.crt"),
		RequireClientCert: listener,
	}
}

func (s *stage) writeConfig(source string) error {
	host, port, err := net.SplitHostPort(source)
	if err != nil {
		return err
	}
	labHost, labPort, err := net.SplitHostPort(s.laboratory.addr)
	if err != nil {
		return err
	}
	pair := func(name string) string {
		return fmt.Sprintf("enabled: true, keyStorePath: %q, certStorePath: %q, trustStorePath: %q",
			s.path("certs", name+".key"), s.path("certs", name+".crt"), s.path("certs", "ca.crt"))
	}
	text := fmt.Sprintf(configMark+`
dataDir: %q
certificateCheckInterval: 500ms
users: [{name: demo, role: viewer, passwordFile: %q}]
channels:
  - id: %s
    name: Laboratory orders
    source:
      type: tcp
      host: %s
      port: %s
      transmissionMode: MLLP
      tls: {%s, requireClientCert: true}
    destinations:
      - name: laboratory
        type: tcp
        host: %s
        port: %s
        tls: {%s}
        queue: {retryInterval: 300ms}
      - name: archive
        type: file
        directory: %q
`, s.path("data"), s.path("password"), channelID, host, port, pair("server"), labHost, labPort, pair("client"), s.path("archive"))
	return os.WriteFile(s.path("engine.yaml"), []byte(text), 0o600)
}

// calm sends while everything works.
func (s *stage) calm(ctx context.Context) error {
	if err := s.senders.send(ctx, batch); err != nil {
		return err
	}
	s.tell("%d messages sent by %d senders and acknowledged", s.senders.acks.Load(), len(s.senders.lines))
	return nil
}

// outage sends while the laboratory is down.
func (s *stage) outage(ctx context.Context) error {
	if err := s.laboratory.close(); err != nil {
		return err
	}
	s.tell("the laboratory goes down")
	if err := s.senders.send(ctx, batch); err != nil {
		return err
	}
	waiting, err := s.engine.queued(ctx, channelID)
	if err != nil {
		return err
	}
	s.tell("%d messages acknowledged meanwhile; %d deliveries wait on disk", len(s.senders.lines)*batch, waiting)
	if err := s.laboratory.open(); err != nil {
		return err
	}
	s.tell("the laboratory is back")
	return nil
}

// rotation renews the engine's certificate while it runs.
func (s *stage) rotation(ctx context.Context) error {
	before, err := s.serial(ctx)
	if err != nil {
		return err
	}
	if _, err := devcert.Renew(s.path("certs")); err != nil {
		return err
	}
	for after := before; after.Cmp(before) == 0; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the engine did not take up its new certificate: %w", context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
		if after, err = s.serial(ctx); err != nil {
			return err
		}
	}
	if err := s.senders.send(ctx, batch); err != nil {
		return err
	}
	s.tell("renewed the engine's certificate: new connections see it, open ones went on")
	return nil
}

// serial returns the serial number of the certificate that the engine shows.
func (s *stage) serial(ctx context.Context) (*big.Int, error) {
	props := s.tls("client", false)
	source, err := tlsprops.Load(props)
	if err != nil {
		return nil, err
	}
	config, err := source.ClientConfig("127.0.0.1")
	if err != nil {
		return nil, err
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", s.senders.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	return state.PeerCertificates[0].SerialNumber, nil
}

// crash kills the engine in the middle of the traffic, and starts it again.
func (s *stage) crash(ctx context.Context) error {
	sending := make(chan error, 1)
	go func() { sending <- s.senders.send(ctx, 4*batch) }()
	before := s.senders.acks.Load()
	for s.senders.acks.Load() < before+int64(len(s.senders.lines)*batch) {
		select {
		case err := <-sending:
			sending <- err
			return errors.Join(errors.New("the senders were done before the kill"), err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := s.engine.kill(); err != nil {
		return err
	}
	s.tell("kill -9 of the engine in the middle of the traffic, after %d acknowledgements", s.senders.acks.Load())
	if err := s.engine.start(ctx); err != nil {
		return err
	}
	s.tell("the engine is back, process %d", s.engine.cmd.Process.Pid)
	if err := <-sending; err != nil {
		return err
	}
	s.tell("the senders went on: %d acknowledgements", s.senders.acks.Load())
	return nil
}

// drain waits until the engine has delivered all that it holds.
func (s *stage) drain(ctx context.Context) error {
	for {
		waiting, err := s.engine.queued(ctx, channelID)
		if err != nil {
			return err
		}
		if waiting == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d deliveries still waited at the end", waiting)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := s.engine.stop(); err != nil {
		return err
	}
	s.tell("all queues are empty; SIGTERM: the engine ended with status 0")
	return nil
}

// verdict compares the senders' logs with the destinations' files.
func (s *stage) verdict() error {
	names := []string{"laboratory", "archive"}
	var verdicts []verdict
	held := true
	for _, name := range names {
		arrived, err := readDelivered(s.path(name))
		if err != nil {
			return err
		}
		v := judge(s.senders.lines, arrived)
		verdicts = append(verdicts, v)
		held = held && v.held()
	}
	fmt.Fprintf(s.out, "\nThe senders' logs against the files of the two destinations:\n\n")
	if err := writeTable(s.out, names, verdicts); err != nil {
		return err
	}
	if again := verdicts[0].resent; again > 0 {
		fmt.Fprintf(s.out, "\n%d messages were sent again by their senders, because the kill took the answer with it.\n", again)
	}
	if !held {
		fmt.Fprintln(s.out, "\nNot held: an acknowledged message was lost, reordered or altered.")
		return ErrNotHeld
	}
	fmt.Fprintln(s.out, "\nHeld: every acknowledged message was delivered, unaltered and in order.")
	return nil
}

// freeAddrs returns a loopback address and another port that nobody listens on.
func freeAddrs() (addr, port string, err error) {
	first, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback, at once
	if err != nil {
		return "", "", err
	}
	defer first.Close()
	second, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback, at once
	if err != nil {
		return "", "", err
	}
	defer second.Close()
	_, port, err = net.SplitHostPort(second.Addr().String())
	return first.Addr().String(), port, err
}
