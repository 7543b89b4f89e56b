package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// patience is how long a test waits for what must happen. It is long because
// the machine may be busy; nothing waits for it when all is well.
const patience = 20 * time.Second

// log collects what the engine writes at every level.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) count(text string) int { return strings.Count(l.String(), text) }

func (l *log) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: level}))
}

// openStore opens the store in dir and closes it at the end of the test.
func openStore(t testing.TB, dir string) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), dir, &sqlite.Options{Reserve: -1})
	require.NoError(t, err)
	t.Cleanup(func() { st.Close() })
	return st
}

// running is an engine that runs.
type running struct {
	*engine.Engine
	t    testing.TB
	log  *log
	stop func() // as a SIGTERM does; may be called several times
}

// start runs an engine with the channels on st.
func start(t testing.TB, st store.Store, channels ...config.Channel) *running {
	t.Helper()
	return startWith(t, st, engine.Options{}, channels...)
}

// startWith is start with options of the test's own.
func startWith(t testing.TB, st store.Store, opts engine.Options, channels ...config.Channel) *running {
	t.Helper()
	l, level, reload := new(log), slog.LevelDebug, 20*time.Millisecond
	if _, ok := t.(*testing.B); ok {
		level, reload = slog.LevelInfo, 0 // as in production
	}
	opts.Logger, opts.TLSReloadInterval = l.logger(level), reload
	e := engine.New(&config.Config{Channels: channels}, st, opts)
	e.StartDestinations()
	require.NoError(t, e.StartSources(t.Context()))
	r := &running{Engine: e, t: t, log: l}
	r.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := e.StopSources(ctx); err != nil {
			t.Errorf("stopping sources: %v", err)
		}
		e.StopDestinations(ctx)
	})
	t.Cleanup(func() {
		r.stop()
		r.tellsNothing(st)
	})
	return r
}

// planted is in all messages and objects of the tests, and in what their receivers
// answer when they refuse one.
const planted = "Test^Patient"

// tellsNothing looks for what was planted wherever the engine writes: the log, at every
// level, and the errors that it keeps. So every test is one of what is told of patients.
func (r *running) tellsNothing(st store.Store) {
	r.t.Helper()
	if strings.Contains(r.log.String(), planted) {
		r.t.Error("the log tells of a patient")
	}
	for _, ch := range r.Channels() {
		messages, err := st.Find(context.Background(), ch.ID, store.Filter{}, 0, 1000)
		if err != nil {
			continue // the test has closed it
		}
		for _, m := range messages {
			for _, o := range m.Deliveries {
				if strings.Contains(o.LastError, planted) {
					r.t.Errorf("the error of a delivery of channel %s tells of a patient", ch.ID)
				}
			}
		}
	}
}

// addr is where the channel listens.
func (r *running) addr(id string) string {
	r.t.Helper()
	st, err := r.Status(r.t.Context(), id)
	require.NoError(r.t, err)
	return fmt.Sprintf("127.0.0.1:%d", st.Listener.Port)
}

func (r *running) stats(id string) store.Stats {
	r.t.Helper()
	st, err := r.Status(context.Background(), id)
	require.NoError(r.t, err)
	return st.Statistics
}

// eventually waits until holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// channel makes a channel on a free port of loopback.
func channel(id string, destinations ...config.Destination) config.Channel {
	return config.Channel{
		ID: id, Name: id, Destinations: destinations,
		Source: config.Source{Type: "tcp", TCP: &config.TCPSource{Host: "127.0.0.1", MaxConnections: 1024}},
	}
}

func toFile(name, directory string) config.Destination {
	return config.Destination{Name: name, Type: "file", File: &config.FileDestination{Directory: directory}, Queue: quick}
}

func toTCP(name, addr string) config.Destination {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		panic(err)
	}
	return config.Destination{Name: name, Type: "tcp", Queue: quick, TCP: &config.TCPDestination{Host: host, Port: n, ResponseTimeout: patience}}
}

func toChannel(name, id string) config.Destination {
	return config.Destination{Name: name, Type: "channel", Channel: &config.ChannelDestination{ChannelID: id}, Queue: quick}
}

// quick is a queue that tries again at once.
var quick = config.Queue{RetryInterval: 5 * time.Millisecond, OnPoison: "block"}

// message makes an ADT with the control ID id.
func message(id string) []byte {
	return []byte("MSH|^~\\&|HIS|WARD|ENGINE|LAB|20260101120000||ADT^A01^ADT_A01|" + id + "|T|2.5\r" +
		"EVN|A01|20260101120000\rPID|1||" + id + "^^^X^MR||" + planted + "\r")
}

func controlID(msg []byte) string {
	var h mllp.Header
	if h.Parse(msg) != nil {
		return "?"
	}
	return string(h.ControlID)
}

// ids makes n control IDs.
func ids(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return list
}

// dial connects a sender.
func dial(t testing.TB, addr string, tls *tlsprops.TlsProperties) *mllp.Conn {
	t.Helper()
	conn, err := (&mllp.Dialer{TLS: tls}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// send sends messages that must be acknowledged with AA.
func send(t testing.TB, conn *mllp.Conn, controlIDs ...string) {
	t.Helper()
	for _, id := range controlIDs {
		reply, err := conn.Send(t.Context(), message(id))
		require.NoError(t, err)
		require.Equal(t, mllp.AA, reply.Ack.Code)
	}
}

// receiver is a system that messages are delivered to.
type receiver struct {
	t    testing.TB
	addr string

	mu     sync.Mutex
	got    []string // control IDs, in the order of arrival
	answer func(id string) error
	server *mllp.Server
	done   chan struct{}
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{t: t, addr: "127.0.0.1:0"}
	r.up()
	t.Cleanup(r.down)
	return r
}

// up opens the receiver's port, always the same.
func (r *receiver) up() {
	r.t.Helper()
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", r.addr)
	require.NoError(r.t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr = ln.Addr().String()
	server, done := &mllp.Server{Handler: r}, make(chan struct{})
	r.server, r.done = server, done
	go func() {
		defer close(done)
		server.Serve(context.Background(), ln)
	}()
}

// down closes the port and all connections.
func (r *receiver) down() {
	r.mu.Lock()
	server, done := r.server, r.done
	r.server = nil
	r.mu.Unlock()
	if server != nil {
		server.Close()
		<-done
	}
}

func (r *receiver) ServeMLLP(_ context.Context, q *mllp.Request) ([]byte, error) {
	id := string(q.Header.ControlID)
	r.mu.Lock()
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		err := answer(id)
		if nak, ok := errors.AsType[*mllp.Nak](err); ok {
			return nil, &mllp.Nak{Code: nak.Code, Text: nak.Text + " " + planted}
		}
		if err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, id)
	return nil, nil
}

func (r *receiver) answers(f func(id string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// hold keeps the receiver from answering until release is called, or the test ends,
// however it ends. arrived gets a value for each message that is held.
func (r *receiver) hold() (arrived <-chan struct{}, release func()) {
	messages, open := make(chan struct{}, 100), make(chan struct{})
	release = sync.OnceFunc(func() { close(open) })
	r.t.Cleanup(release)
	r.answers(func(string) error {
		messages <- struct{}{}
		<-open
		return nil
	})
	return messages, release
}

func (r *receiver) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// filed returns the contents of the files in dir in the order of their names.
func filed(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	var contents []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // not finished
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		contents = append(contents, string(data))
	}
	return contents
}

func filedIDs(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	for _, content := range filed(t, dir) {
		list = append(list, controlID([]byte(content)))
	}
	return list
}

// pki are certificates for mutual TLS on loopback, as files in dir.
type pki struct {
	dir string
	ca  *testpki.Authority
}

func newPKI(t testing.TB) *pki {
	p := &pki{dir: t.TempDir(), ca: testpki.NewCA(t, "Test CA")}
	p.ca.Write(p.dir, "ca.crt")
	p.ca.Server().Write(p.dir, "server")
	p.ca.Client("Ward 7").Write(p.dir, "client")
	return p
}

func (p *pki) server() *tlsprops.TlsProperties {
	props := p.pair("server")
	props.RequireClientCert = true
	return props
}

func (p *pki) client() *tlsprops.TlsProperties { return p.pair("client") }

func (p *pki) pair(name string) *tlsprops.TlsProperties {
	return &tlsprops.TlsProperties{
		Enabled: true, TrustStorePath: filepath.Join(p.dir, "ca.crt"),
		CertStorePath: filepath.Join(p.dir, name+".crt"), KeyStorePath: filepath.Join(p.dir, name+".key"),
	}
}

// sendRaw writes bytes to addr and reads what comes until the other side has
// closed or nothing more is to come.
func sendRaw(t testing.TB, addr string, raw []byte) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(raw)
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err = io.Copy(io.Discard, conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reading the answer: %v", err)
	}
}
