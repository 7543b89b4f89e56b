package mllpprobe

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// connections are the scenarios of what becomes of a connection.
var connections = []*Scenario{
	{
		Name: "half-close", Rule: "RFC 9293, section 3.6: who has ended its stream still listens",
		Sent: "a message, then the end of the stream", Expected: "AA, then a closed connection",
		play: func(t *talk) { t.send(frame(t.plain())); t.halfClose(); t.untilEnd() },
		good: []string{"AA 1, END"},
		tolerable: []meaning{
			{"AA 1", "does not close its end"},
			{"NAK 1, END", "refuses the message"},
			{"END", "closes without an answer: the sender does not know, and sends again"},
		},
	},
	{
		Name: "idle", Rule: "connections stay: a sender may have nothing to say for hours",
		Sent: "a message, and after 700 ms another", Expected: "AA for both", play: idle(func(*talk) time.Duration { return pauseTime }),
		good: []string{"AA 1-2"}, tolerable: []meaning{closes},
	},
	{
		Name: "long-idle", Rule: "connections stay: a sender may have nothing to say for hours", mode: whenSlow,
		Sent: "a message, and after 90 s another", Expected: "AA for both", play: idle(func(t *talk) time.Duration { return t.run.probe.slowTime() }),
		good: []string{"AA 1-2"}, tolerable: []meaning{{"AA 1, END", "closes a connection that is idle for so long"}},
	},
	{
		Name: "unread-answers", Rule: "a peer that does not read must not stop others, nor lose messages",
		Sent: "2,000 messages whose answers are not read; meanwhile one on another connection", Expected: "AA for that one, then for all when they are read, or a closed connection",
		play: unread,
		good: []string{fmt.Sprintf("AA 1-%d", unreadMessages), fmt.Sprintf("AA 1-%d, END", unreadMessages), "AA 1-\\d+, END", "END"},
		bad:  append([]meaning{{"others wait.*", "a sender that does not read its answers stops the others"}}, notInOrder...),
	},
	{
		Name: "no-bytes", Rule: "load balancers look at a port: that is no fault of a sender",
		Sent: "three connections without a byte, then a message on a fourth", Expected: "AA",
		play: func(t *talk) {
			for range 3 {
				if other, err := t.run.connect(t.ctx, t.run.probe.Dial); err == nil {
					other.close()
				}
			}
			t.send(frame(t.plain()))
			t.settle()
		},
		good: []string{"AA 1"}, tolerable: []meaning{oneEach},
	},
	{
		Name: "http", Rule: "what is no MLLP at all is not answered",
		Sent: "an HTTP request", Expected: "a closed connection",
		play: func(t *talk) {
			t.send("GET / HTTP/1.1\r\nHost: carewire-probe\r\nConnection: close\r\n\r\n")
			t.untilEnd()
		},
		good: []string{"END"}, tolerable: []meaning{{"silence", "waits on"}, {"an HTTP answer, END", "answers in HTTP"}},
	},
	{
		Name: "tls-hello", Rule: "a sender with TLS at a port without: it is told, and does not wait", mode: onPlain,
		Sent: "a TLS ClientHello", Expected: "a closed connection",
		play: func(t *talk) { t.send(hello(t.ctx)); t.untilEnd() },
		good: []string{"END"}, tolerable: []meaning{{"silence", "waits on"}, {"a TLS alert(?:, END)?", "answers with a TLS alert"}},
		bad: []meaning{{"a TLS handshake.*", "speaks TLS here: probe it with --tls"}},
	},
	{
		Name: "plaintext", Rule: "a sender without TLS at a port with TLS must not be served", mode: onPlainOfTLS,
		Sent: "a message without TLS", Expected: "a closed connection, perhaps with a TLS alert",
		play: func(t *talk) { t.send(frame(t.plain())); t.untilEnd() },
		good: []string{"END", "a TLS alert, END"}, tolerable: []meaning{{"silence|a TLS alert", "does not close the connection"}},
		bad: []meaning{{"AA 1.*|NAK .*", "ANSWERS WITHOUT TLS at a port that should have it"}},
	},
	{
		Name: "still-there", Rule: "after all this, the listener works",
		Sent: "a message on a new connection", Expected: "AA", play: func(t *talk) { t.send(frame(t.plain())); t.settle() },
		good: []string{"AA 1"}, tolerable: []meaning{refuses, {"CA 1", "answers in enhanced mode"}, oneEach},
	},
}

// idle sends two messages with nothing between them for a while.
func idle(span func(*talk) time.Duration) func(*talk) {
	return func(t *talk) {
		t.send(frame(t.plain()))
		t.settle()
		t.watch(span(t))
		if t.ended == "" {
			t.send(frame(t.plain()))
			t.settle()
		}
	}
}

// unreadMessages is how many answers are left unread, each of 600 bytes and more
// where the receiver quotes MSH-4 to MSH-6: unless the buffers of both sides are
// large, as on the loopback, more than they take.
const unreadMessages = 2000

func unread(t *talk) {
	tcp, isTCP := tcpConn(t.conn)
	if isTCP {
		_ = tcp.SetReadBuffer(64 << 10) // the more answers fit, the less is tried
	}
	field := strings.Repeat("SYNTHETIC", 22)
	var frames []string
	for range unreadMessages {
		frames = append(frames, frame(t.message(fields{parties: field + "|" + field + "|" + field})))
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for _, f := range frames {
			if !t.put(f, 3*t.run.probe.timeout()) { // the other connection comes in between
				return
			}
		}
	})
	// The writer may be waiting for the peer now, or be done.
	if other, err := t.run.connect(t.ctx, t.run.probe.Dial); err == nil {
		other.send(frame(other.plain()))
		other.settle()
		other.close()
		if !strings.HasPrefix(other.outcome(), "AA 1") && !strings.HasPrefix(other.outcome(), t.run.baseline+" 1") {
			t.say("others wait")
		}
	} else {
		t.say("others wait")
	}
	if isTCP {
		_ = tcp.SetReadBuffer(4 << 20) // a small one would make this slow
	}
	t.settle()
	t.conn.Close()
	writer.Wait()
}

// tcpConn returns the TCP connection of conn, which may have TLS on it.
func tcpConn(conn net.Conn) (*net.TCPConn, bool) {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	return tcp, ok
}

// hello returns the first bytes of a TLS client.
func hello(ctx context.Context) string {
	conn := new(recorder)
	client := tls.Client(conn, &tls.Config{ServerName: "carewire-probe.invalid"}) //nolint:gosec // it gets no answer
	_ = client.HandshakeContext(ctx)                                              // it fails when it wants to read
	return conn.String()
}

// recorder is a connection that keeps what is written, and from which nothing
// comes.
type recorder struct {
	net.Conn

	bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error)    { return r.Buffer.Write(p) }
func (r *recorder) Read([]byte) (int, error)       { return 0, net.ErrClosed }
func (*recorder) Close() error                     { return nil }
func (*recorder) SetDeadline(time.Time) error      { return nil }
func (*recorder) SetWriteDeadline(time.Time) error { return nil }
