package engine_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/mllp"
)

// inbox is a receiver with settings of its own that keeps what it gets, to the byte.
type inbox struct {
	addr string

	mu    sync.Mutex
	got   []string
	from  []string // remote addresses, beside got
	conns int      // that have brought something
}

func newInbox(t *testing.T, server *mllp.Server) *inbox {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	in := &inbox{addr: ln.Addr().String()}
	if server.Handler == nil {
		server.Handler = in
	}
	server.ConnContext = func(ctx context.Context, _ mllp.ConnInfo) context.Context {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.conns++
		return ctx
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(context.Background(), ln)
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return in
}

func (in *inbox) ServeMLLP(_ context.Context, r *mllp.Request) ([]byte, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, string(r.Message))
	in.from = append(in.from, r.RemoteAddr.String())
	return nil, nil
}

func (in *inbox) messages() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]string(nil), in.got...)
}

func (in *inbox) connections() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.conns
}

// Through a source and a destination of every way of framing, plain and with TLS,
// messages come as they were sent.
func TestMessagesPassInEveryFraming(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	for _, tt := range []struct {
		name      string
		framing   config.Framing
		transport string // without TLS
	}{
		{"MLLP", config.Framing{TransmissionMode: "MLLP"}, "MLLP"},
		{"MLLPv2", config.Framing{TransmissionMode: "MLLPv2"}, "MLLP"},
		{"FRAME", config.Framing{TransmissionMode: "FRAME", StartOfMessageBytes: []byte("<SOM>"), EndOfMessageBytes: []byte{0x1C, 0x1C, 0x0D}}, "TCP"},
		{"FRAME without a beginning", config.Framing{TransmissionMode: "FRAME", EndOfMessageBytes: []byte{0x03}}, "TCP"},
		{"RAW, newline", config.Framing{TransmissionMode: "RAW", Delimiter: "newline"}, "TCP"},
		{"RAW, length", config.Framing{TransmissionMode: "RAW", Delimiter: "length", Length: int64(len(message("M0000"))), Idle: 50 * time.Millisecond}, "TCP"},
		{"RAW, idle", config.Framing{TransmissionMode: "RAW", Delimiter: "idle", Idle: 50 * time.Millisecond}, "TCP"},
		{"RAW, eof", config.Framing{TransmissionMode: "RAW", Delimiter: "eof"}, "TCP"},
	} {
		for _, secure := range []bool{false, true} {
			name, transport := tt.name, tt.transport
			if secure {
				name, transport = name+" with TLS", strings.Replace(transport+"+TLS", "MLLP+TLS", "MLLPS", 1)
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				receiver, sender := &mllp.Server{Framing: tt.framing.MLLP()}, &mllp.Dialer{Framing: tt.framing.MLLP()}
				if secure {
					receiver.TLS, sender.TLS = p.server(), p.client()
				}
				lab := newInbox(t, receiver)
				dest := toTCP("lab", lab.addr)
				ch := channel("adt", dest)
				ch.Source.TCP.Framing, dest.TCP.Framing = tt.framing, tt.framing
				if secure {
					ch.Source.TCP.TLS, dest.TCP.TLS = p.server(), p.client()
				}
				e := start(t, openStore(t, t.TempDir()), ch)

				var want []string
				var conn *mllp.Conn
				for _, id := range ids("M", 3) {
					want = append(want, string(message(id)))
					if conn == nil || conn.Err() != nil {
						var err error
						conn, err = sender.DialContext(t.Context(), "tcp", e.addr("adt"))
						require.NoError(t, err)
						defer conn.Close()
					}
					reply, err := conn.Send(t.Context(), message(id))
					require.NoError(t, err)
					require.Equal(t, mllp.AA, reply.Ack.Code)
					if !tt.framing.KeepsOpen() {
						conn.Close()
					}
				}
				eventually(t, "all messages are delivered", func() bool { return e.stats("adt").Sent == 3 })
				assert.Equal(t, want, lab.messages())
				status, err := e.Status(t.Context(), "adt")
				require.NoError(t, err)
				assert.Equal(t, transport, status.Listener.Transport)
			})
		}
	}
}

// What no frame of a destination can carry is refused before it is taken in: it
// would stand at the head of the queue for ever.
func TestMessagesThatADestinationsFrameCannotCarryAreRefused(t *testing.T) {
	t.Parallel()
	lab := newInbox(t, new(mllp.Server))
	dest := toTCP("lab", lab.addr)
	dest.TCP.Framing = config.Framing{TransmissionMode: "FRAME", EndOfMessageBytes: []byte("PID")}
	e := start(t, openStore(t, t.TempDir()), channel("adt", toChannel("on", "second")), channel("second", dest))
	assert.Equal(t, mllp.AR, nacked(t, dial(t, e.addr("adt"), nil), message("M1")))
	assert.Zero(t, e.stats("adt").Received)
}

func TestConnectionsOfOneMessage(t *testing.T) {
	t.Parallel()
	for _, ignore := range []bool{false, true} {
		lab := newInbox(t, new(mllp.Server))
		dest := toTCP("lab", lab.addr)
		dest.TCP.KeepConnectionOpen, dest.TCP.IgnoreResponse = new(false), ignore
		ch := channel("adt", dest)
		ch.Source.TCP.KeepConnectionOpen = new(false)
		e := start(t, openStore(t, t.TempDir()), ch)
		for _, id := range ids("M", 3) {
			conn := dial(t, e.addr("adt"), nil)
			send(t, conn, id)
			eventually(t, "the source ends the connection", func() bool { return conn.Err() != nil })
		}
		eventually(t, "all messages are delivered", func() bool { return e.stats("adt").Sent == 3 && len(lab.messages()) == 3 })
		assert.Equal(t, 3, lab.connections(), "each message to the receiver has its own")
	}
	// The positive control.
	lab := newInbox(t, new(mllp.Server))
	e := start(t, openStore(t, t.TempDir()), channel("adt", toTCP("lab", lab.addr)))
	send(t, dial(t, e.addr("adt"), nil), ids("M", 3)...)
	eventually(t, "all messages are delivered", func() bool { return e.stats("adt").Sent == 3 })
	assert.Equal(t, 1, lab.connections())
}

func TestSilentConnectionsAreEnded(t *testing.T) {
	t.Parallel()
	lab := &mllp.Server{}
	in := newInbox(t, lab)
	dest := toTCP("lab", in.addr)
	dest.TCP.SendTimeout = 50 * time.Millisecond
	ch := channel("adt", dest)
	ch.Source.TCP.ReceiveTimeout = 100 * time.Millisecond
	e := start(t, openStore(t, t.TempDir()), ch)
	for n, id := range ids("M", 2) {
		conn := dial(t, e.addr("adt"), nil)
		send(t, conn, id)
		eventually(t, "the message is delivered", func() bool { return e.stats("adt").Sent == int64(n+1) })
		eventually(t, "receiveTimeout ends the sender's connection", func() bool { return conn.Err() != nil })
		eventually(t, "sendTimeout ends the receiver's connection", func() bool { return lab.Conns() == 0 })
	}
	assert.Equal(t, 2, in.connections())
}

// closed reads from a connection until the other side has ended it.
func closed(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	got, err := io.ReadAll(conn)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Fatalf("not closed in %v", patience)
	}
	return got
}
