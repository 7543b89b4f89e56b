package mllp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// site is a Server under test, on a network of its own.
type site struct {
	t       *testing.T
	srv     *mllp.Server
	ln      *memnet.Listener
	stop    context.CancelFunc // ends the context of Serve
	ended   chan struct{}      // closed when Serve has returned
	err     error              // of Serve, once it has
	clients *tls.Config        // for callers; nil: plain

	mu     sync.Mutex
	events []mllp.Event
	got    []string // delivered messages
	log    bytes.Buffer
}

func (s *site) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func textLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serve runs srv until the test ends. Without a Handler it accepts everything.
func serve(t *testing.T, srv *mllp.Server) *site {
	t.Helper()
	s := &site{t: t, srv: srv, ln: memnet.Listen(), ended: make(chan struct{})}
	inner := srv.Handler
	if srv.Stream == nil {
		srv.Handler = mllp.HandlerFunc(func(ctx context.Context, r *mllp.Request) ([]byte, error) {
			s.mu.Lock()
			s.got = append(s.got, string(r.Message))
			s.mu.Unlock()
			if inner == nil {
				return nil, nil
			}
			return inner.ServeMLLP(ctx, r)
		})
	}
	srv.Observe = func(e mllp.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}
	srv.Logger = textLogger(s)
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	go func() {
		s.err = srv.Serve(ctx, s.ln)
		close(s.ended)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-s.ended
		stop()
	})
	return s
}

// delivered returns the messages that the handler got.
func (s *site) delivered() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// told returns the events as "kind" or "kind reason", without those that every
// connection and message has.
func (s *site) told() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return notable(s.events)
}

// notable is told for events that are no longer added to.
func notable(events []mllp.Event) (all []string) {
	for _, e := range events {
		switch {
		case e.Kind == mllp.EventOpened, e.Kind == mllp.EventMessage, e.Kind == mllp.EventApplication, e.Kind == mllp.EventDrained:
		case e.Kind == mllp.EventClosed && e.Reason == mllp.ReasonPeerClosed:
		default:
			all = append(all, strings.TrimSpace(string(e.Kind)+" "+string(e.Reason)))
		}
	}
	return all
}

// event returns the only event of a kind.
func (s *site) event(kind mllp.EventKind) mllp.Event {
	s.t.Helper()
	synctest.Wait() // an event is told after the answer
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []mllp.Event
	for _, e := range s.events {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	require.Len(s.t, found, 1, "%s", kind)
	return found[0]
}

// caller is a client of the Server.
type caller struct {
	net.Conn

	raw    *memnet.Conn
	t      *testing.T
	frames *mllp.Reader

	frames2 *mllp.Reader // with commit blocks; nil: not yet
}

func (s *site) call() *caller {
	s.t.Helper()
	raw, err := s.ln.Dial()
	require.NoError(s.t, err)
	return s.callOn(raw)
}

func (s *site) callOn(raw *memnet.Conn) *caller {
	c := &caller{Conn: raw, raw: raw, t: s.t}
	if s.clients != nil {
		c.Conn = tls.Client(raw, s.clients)
	}
	c.frames = mllp.NewReader(c.Conn, 0)
	s.t.Cleanup(func() { raw.Close() })
	return c
}

func (c *caller) say(text string) {
	c.t.Helper()
	_, err := io.WriteString(c.Conn, text)
	require.NoError(c.t, err)
}

// hear returns the next answer as "CODE id", or "end" or "reset".
func (c *caller) hear() string {
	c.t.Helper()
	text, err := c.frames.Next()
	switch {
	case errors.Is(err, io.EOF):
		return "end"
	case err != nil:
		return "reset"
	}
	a, err := mllp.ParseAck(text)
	require.NoError(c.t, err)
	return string(a.Code) + " " + a.ControlID
}

// quiet asserts that nothing comes for d.
func (c *caller) quiet(d time.Duration) {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(d))
	n, err := c.Conn.Read(make([]byte, 1))
	assert.Zero(c.t, n)
	var ne net.Error
	assert.True(c.t, errors.As(err, &ne) && ne.Timeout(), "%v", err)
	c.SetReadDeadline(time.Time{})
}

// pki is made once: keys take time.
var pki = sync.OnceValue(func() (p struct {
	ca             *testpki.Authority
	server, client *testpki.Pair
},
) {
	tb := &panicTB{}
	p.ca = testpki.NewCA(tb, "Test CA")
	p.server = p.ca.Server("localhost", "127.0.0.1", "receiver")
	p.client = p.ca.Client("ward 7")
	return p
})

// panicTB lets what outlives a single test be made with testpki.
type panicTB struct{}

func (*panicTB) Helper()                   {}
func (*panicTB) Fatal(a ...any)            { panic(a) }
func (*panicTB) Fatalf(f string, a ...any) { panic(f) }

// modes runs a test without TLS, with TLS and with mutual TLS.
func modes(t *testing.T, test func(t *testing.T, start func(*mllp.Server) *site)) {
	for _, mode := range []string{"plain", "TLS", "mutual TLS"} {
		t.Run(mode, func(t *testing.T) {
			p := pki()
			synctest.Test(t, func(t *testing.T) {
				test(t, func(srv *mllp.Server) *site {
					var clients *tls.Config
					if mode != "plain" {
						srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12}
						clients = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
					}
					if mode == "mutual TLS" {
						srv.TLSConfig.ClientCAs, srv.TLSConfig.ClientAuth = p.ca.Pool(), tls.RequireAndVerifyClientCert
						clients.Certificates = []tls.Certificate{p.client.TLS()}
					}
					s := serve(t, srv)
					s.clients = clients
					return s
				})
			})
		})
	}
}

func repeatFrames(n int) (frames string, acks []string) {
	var b strings.Builder
	for i := range n {
		id := "id" + string(rune('A'+i%26)) + strings.Repeat("x", i/26%50)
		b.WriteString(frame(string(adt(id))))
		acks = append(acks, "AA "+id)
	}
	return b.String(), acks
}

func TestMessagesAreDeliveredAndAcknowledgedInOrder(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{})
		c := s.call()
		c.say(frame(msgA))
		assert.Equal(t, "AA id1", c.hear())
		c.say(frame(msgB))
		assert.Equal(t, "AA id2", c.hear())
		assert.Equal(t, []string{msgA, msgB}, s.delivered())

		frames, acks := repeatFrames(1000)
		go c.say(frames)
		for _, want := range acks {
			require.Equal(t, want, c.hear())
		}
		c.raw.Close()
		synctest.Wait()
		assert.Empty(t, s.told())
		assert.Zero(t, s.srv.Conns())
	})
}

// exchange is what comes of bytes that one client sends.
type exchange struct {
	name      string
	srv       *mllp.Server // its policies and limits; nil: the defaults
	in        string
	fin       bool          // the client closes its direction after in
	wait      time.Duration // before the client looks; 0: 1 s
	delivered []string
	answers   []string // "end" and "reset" if the server closes
	told      []string
}

func (x *exchange) run(t *testing.T, chunk int) {
	synctest.Test(t, func(t *testing.T) {
		if x.srv == nil {
			x.srv = new(mllp.Server)
		}
		s := serve(t, &mllp.Server{
			Handler: x.srv.Handler, Strict: x.srv.Strict, FSOnlyDelay: x.srv.FSOnlyDelay, MaxMessageBytes: x.srv.MaxMessageBytes,
			NotHL7: x.srv.NotHL7, NoControlID: x.srv.NoControlID, MultipleMSH: x.srv.MultipleMSH, Batches: x.srv.Batches,
			Truncated: x.srv.Truncated, FrameTimeout: x.srv.FrameTimeout, IdleTimeout: x.srv.IdleTimeout,
			MaxJunkBytes: x.srv.MaxJunkBytes,
		})
		c := s.call()
		var answers []string
		var mu sync.Mutex
		go func() {
			for {
				h := c.hear()
				mu.Lock()
				answers = append(answers, h)
				mu.Unlock()
				if h == "end" || h == "reset" {
					return
				}
			}
		}()
		go func() {
			for part := range slices.Chunk([]byte(x.in), chunk) {
				if _, err := c.Conn.Write(part); err != nil {
					return
				}
				if chunk < len(x.in) {
					synctest.Wait()
				}
			}
			if x.fin {
				c.raw.CloseWrite()
			}
		}()
		time.Sleep(max(x.wait, time.Second))
		synctest.Wait()
		mu.Lock()
		assert.Equal(t, x.answers, answers, "answers")
		mu.Unlock()
		c.raw.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, x.delivered, s.delivered(), "delivered")
		assert.Equal(t, x.told, s.told(), "events")
	})
}

// exchanges are the edge cases of a server of release 1.
func exchanges() []exchange {
	const (
		noID  = "MSH|^~\\&|A|B|C|D|20260101||ADT^A01||P|2.5\r"
		ackIn = "MSH|^~\\&|A|B|C|D|20260101||ACK^A01|id9|P|2.5\rMSA|AA|id0\r"
		batch = "FHS|^~\\&|A|B|C|D|20260101|||c|f1\rBHS|^~\\&|A|B|C|D\r" + msgA + "BTS|1\rFTS|1\r"
	)
	deliver := mllp.PolicyDeliver
	both := []string{msgA, msgB}
	ids := []string{"AA id1", "AA id2"}
	long := "MSH|^~\\&|A|B|C|D|20260101||ADT^A01|id1|P|2.5\rOBX|" + strings.Repeat("x", 200_000) + "\r"
	return []exchange{
		{name: "two frames at once", in: frame(msgA) + frame(msgB), delivered: both, answers: ids},
		{name: "white space around frames", in: "\r\n " + frame(msgA) + "\n" + frame(msgB) + "\r", delivered: both, answers: ids, told: []string{"skipped", "skipped", "skipped"}},
		{name: "NUL between frames", in: frame(msgA) + "\x00\x00" + frame(msgB), delivered: both, answers: ids, told: []string{"skipped"}},
		{name: "log text before a frame", in: "Connected\r\n" + frame(msgA), delivered: both[:1], answers: ids[:1], told: []string{"skipped junk"}},
		{name: "junk without end", in: strings.Repeat("x", 4097), answers: []string{"end"}, told: []string{"bad_frame preamble_too_long", "closed preamble_too_long"}},
		{name: "HTTP", in: "GET / HTTP/1.1\r\n\r\n", answers: []string{"end"}, told: []string{"bad_frame wrong_protocol", "closed wrong_protocol"}},
		{name: "connect and close", fin: true, answers: []string{"end"}, told: []string{"probe"}},
		{name: "no final CR before the next frame", in: "\x0b" + msgA + "\x1c" + frame(msgB), delivered: both, answers: ids, told: []string{"tolerated missing_cr"}},
		{
			name: "no final CR, strict", srv: &mllp.Server{Strict: true}, in: "\x0b" + msgA + "\x1c" + frame(msgB),
			answers: []string{"AR id1", "end"}, told: []string{"rejected missing_cr", "closed missing_cr"},
		},
		{
			name: "no final CR, then silence", in: "\x0b" + msgA + "\x1c", wait: 2 * time.Minute,
			answers: []string{"end"}, told: []string{"bad_frame timeout", "closed timeout"},
		},
		{
			name: "no final CR, then silence, FS alone allowed", srv: &mllp.Server{FSOnlyDelay: 250 * time.Millisecond},
			in: "\x0b" + msgA + "\x1c", delivered: both[:1], answers: ids[:1], told: []string{"tolerated missing_cr"},
		},
		{
			name: "no final CR, then the end", in: "\x0b" + msgA + "\x1c", fin: true,
			delivered: both[:1], answers: []string{"AA id1", "end"}, told: []string{"tolerated missing_cr"},
		},
		{
			name: "FS in the text", in: frame(msgA+"OBX|\x1c|\r") + frame(msgB),
			delivered: []string{msgA + "OBX|\x1c|\r", msgB}, answers: ids, told: []string{"tolerated stray_control"},
		},
		{
			name: "VT in the text, strict", srv: &mllp.Server{Strict: true}, in: frame(msgA + "OBX|\x0b|\r"),
			answers: []string{"AR id1", "end"}, told: []string{"rejected stray_control", "closed stray_control"},
		},
		{
			name: "FS CR in the text ends the frame", in: frame(msgA+"OBX|\x1c\rPID|rest") + frame(msgB),
			delivered: []string{msgA + "OBX|", msgB}, answers: ids, told: []string{"skipped junk"},
		},
		{
			name: "VT in the text", in: frame(msgA+"OBX|\x0b|\r") + frame(msgB),
			delivered: []string{msgA + "OBX|\x0b|\r", msgB}, answers: ids, told: []string{"tolerated stray_control"},
		},
		{
			name: "a message cut off by the next", in: "\x0b" + msgA[:48] + frame(msgB),
			delivered: both[1:], answers: []string{"AE id1", "AA id2"}, told: []string{"bad_frame truncated"},
		},
		{
			name: "a message cut off in its control ID", in: "\x0b" + msgA[:strings.Index(msgA, "id1")+2] + frame(msgB),
			answers: []string{"end"}, told: []string{"bad_frame truncated", "closed truncated"},
		},
		{
			name: "a message cut off right after its control ID", in: "\x0b" + msgA[:strings.Index(msgA, "id1")+3] + frame(msgB),
			answers: []string{"end"}, told: []string{"bad_frame truncated", "closed truncated"},
		},
		{
			name: "a message cut off, policy close", srv: &mllp.Server{Truncated: mllp.PolicyClose}, in: "\x0b" + msgA[:48] + frame(msgB),
			answers: []string{"end"}, told: []string{"bad_frame truncated", "closed truncated"},
		},
		{name: "empty frames", in: frame("") + frame("\r \n") + frame(msgA), delivered: both[:1], answers: ids[:1], told: []string{"bad_frame empty", "bad_frame empty"}},
		{name: "release 2", in: frame("\x06") + frame("\x15") + frame(msgA), delivered: both[:1], answers: ids[:1], told: []string{"bad_frame mllp_r2", "bad_frame mllp_r2"}},
		{
			name: "the end in a message", in: frame(msgA) + "\x0bMSH|^~", fin: true,
			delivered: both[:1], answers: []string{"AA id1", "end"}, told: []string{"bad_frame truncated", "closed truncated"},
		},
		{name: "the end after a message", in: frame(msgA), fin: true, delivered: both[:1], answers: []string{"AA id1", "end"}},
		{name: "as long as allowed", srv: &mllp.Server{MaxMessageBytes: int64(len(long))}, in: frame(long), delivered: []string{long}, answers: ids[:1]},
		{
			name: "one byte longer than allowed", srv: &mllp.Server{MaxMessageBytes: int64(len(long)) - 1}, in: frame(long) + frame(msgB),
			answers: []string{"AR id1", "end"}, told: []string{"bad_frame too_large", "closed too_large"},
		},
		{
			name: "too long for its header to be read", srv: &mllp.Server{MaxMessageBytes: 30}, in: frame(msgA),
			answers: []string{"reset"}, told: []string{"bad_frame too_large", "closed too_large"},
		},
		{name: "invalid UTF-8", in: frame(msgA+"\xff\xfe\x80\r") + frame(msgB), delivered: []string{msgA + "\xff\xfe\x80\r", msgB}, answers: ids},
		{name: "a byte order mark", in: frame("\xef\xbb\xbf" + msgA), delivered: []string{"\xef\xbb\xbf" + msgA}, answers: ids[:1]},
		{name: "not HL7", in: frame("PID|1\r"), answers: []string{"end"}, told: []string{"rejected not_hl7", "closed not_hl7"}},
		{name: "not HL7, policy reject", srv: &mllp.Server{NotHL7: mllp.PolicyReject}, in: frame("{}") + frame(msgA), delivered: both[:1], answers: []string{"AR ", "AA id1"}, told: []string{"rejected not_hl7"}},
		{name: "not HL7, policy deliver", srv: &mllp.Server{NotHL7: deliver}, in: frame("{}") + frame(msgA), delivered: []string{"{}", msgA}, answers: ids[:1]},
		{name: "XML", in: frame("<?xml version='1.0'?>"), answers: []string{"end"}, told: []string{"rejected xml_not_enabled", "closed xml_not_enabled"}},
		{name: "XML, policy reject", srv: &mllp.Server{NotHL7: mllp.PolicyReject}, in: frame("\r\n<ADT_A01>"), answers: []string{"end"}, told: []string{"rejected xml_not_enabled", "closed xml_not_enabled"}},
		{name: "other separators", in: frame("MSH#~!%@#A#B#C#D#2026##ADT~A01#id!~1#P#2.7\r"), delivered: []string{"MSH#~!%@#A#B#C#D#2026##ADT~A01#id!~1#P#2.7\r"}, answers: []string{"AA id!~1"}},
		{name: "segments ended by LF", in: frame(strings.ReplaceAll(msgA, "\r", "\n")), delivered: []string{strings.ReplaceAll(msgA, "\r", "\n")}, answers: ids[:1]},
		{name: "no control ID", in: frame(noID) + frame(msgA), delivered: both[:1], answers: []string{"AR ", "AA id1"}, told: []string{"rejected no_control_id"}},
		{name: "no control ID, policy error", srv: &mllp.Server{NoControlID: mllp.PolicyError}, in: frame(noID), answers: []string{"AE "}, told: []string{"rejected no_control_id"}},
		{name: "no control ID, policy deliver", srv: &mllp.Server{NoControlID: deliver}, in: frame(noID), delivered: []string{noID}, answers: []string{"AA "}},
		{
			name: "a control ID of many characters and components", in: frame(strings.Replace(msgA, "id1", "a^b~c\\T\\&d"+strings.Repeat("x", 190), 1)),
			delivered: []string{strings.Replace(msgA, "id1", "a^b~c\\T\\&d"+strings.Repeat("x", 190), 1)}, answers: []string{"AA a^b~c\\T\\&d" + strings.Repeat("x", 190)},
		},
		{name: "two messages in a frame", in: frame(msgA + msgB), answers: []string{"AR id1"}, told: []string{"rejected multiple_msh"}},
		{name: "two messages in a frame, policy deliver", srv: &mllp.Server{MultipleMSH: deliver}, in: frame(msgA + msgB), delivered: []string{msgA + msgB}, answers: ids[:1]},
		{name: "a batch", in: frame(batch), answers: []string{"AR f1"}, told: []string{"rejected batch"}},
		{name: "a batch, policy deliver", srv: &mllp.Server{Batches: deliver}, in: frame(batch), delivered: []string{batch}, answers: []string{"AA f1"}},
		{name: "an acknowledgement", in: frame(ackIn) + frame(msgA), delivered: []string{ackIn, msgA}, answers: ids[:1]},
		{name: "idle for too long", srv: &mllp.Server{IdleTimeout: 500 * time.Millisecond}, in: frame(msgA), delivered: both[:1], answers: []string{"AA id1", "end"}, told: []string{"closed idle_timeout"}},
	}
}

func TestWhatAClientMaySend(t *testing.T) {
	for _, x := range exchanges() {
		t.Run(x.name, func(t *testing.T) {
			x.run(t, len(x.in)+1)
			if len(x.in) < 10_000 && x.answers[len(x.answers)-1] != "reset" {
				t.Run("byte by byte", func(t *testing.T) { x.run(t, 1) })
			}
		})
	}
}
