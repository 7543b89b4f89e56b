package mllp_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// all returns what comes until the end of the connection.
func (c *caller) all() string {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(2 * time.Minute))
	text, err := io.ReadAll(c.Conn)
	require.NoError(c.t, err)
	return string(text)
}

// some returns what comes with the next read.
func (c *caller) some() string {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 4096)
	n, err := c.Conn.Read(buf)
	require.NoError(c.t, err)
	c.SetReadDeadline(time.Time{})
	return string(buf[:n])
}

// half ends the caller's direction, with a close_notify if it speaks TLS.
func (c *caller) half() {
	c.t.Helper()
	require.NoError(c.t, c.Conn.(interface{ CloseWrite() error }).CloseWrite())
}

// isAnswer asserts that text is an acknowledgement without a frame.
func isAnswer(t *testing.T, text string, code mllp.AckCode, id string) {
	t.Helper()
	assert.True(t, strings.HasPrefix(text, "MSH|") && strings.HasSuffix(text, "\r"), "%q", text)
	a, err := mllp.ParseAck([]byte(text))
	require.NoError(t, err)
	assert.Equal(t, string(code)+" "+id, string(a.Code)+" "+a.ControlID)
}

func TestARawMessageEndsWithTheStreamAndItsReplyHasNoFrame(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Framing: raw(mllp.DelimitEOF)})
		c := s.call()
		c.say(msgA[:20])
		time.Sleep(30 * time.Second)
		c.say(msgA[20:])
		c.half()
		isAnswer(t, c.all(), mllp.AA, "id1")
		assert.Equal(t, []string{msgA}, s.delivered())
		c = s.call()
		if s.clients != nil {
			require.NoError(t, c.Conn.(*tls.Conn).Handshake())
		}
		c.half()
		assert.Empty(t, c.all(), "no bytes, no message")
		assert.Len(t, s.delivered(), 1)
		synctest.Wait()
		for _, e := range s.told() {
			assert.Contains(t, []string{"probe", "closed not_kept_open"}, e)
		}
	})
}

func TestARawMessageThatIsCutOverTLSIsNotAccepted(t *testing.T) {
	for _, allow := range []bool{false, true} {
		p := pki()
		synctest.Test(t, func(t *testing.T) {
			flags := mllp.Flags(0)
			f := raw(mllp.DelimitEOF)
			f.AllowUnverifiedEnd = allow
			s := serve(t, &mllp.Server{
				Framing:   f,
				TLSConfig: &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}},
				Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
					flags = r.Flags
					return nil, nil
				}),
			})
			s.clients = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost"}
			c := s.call()
			c.say(msgA)
			require.NoError(t, c.raw.CloseWrite()) // as if somebody between had done it
			got := c.all()
			synctest.Wait()
			if allow {
				isAnswer(t, got, mllp.AA, "id1")
				assert.Equal(t, mllp.UnverifiedEnd, flags)
				assert.Equal(t, mllp.ReasonUnverifiedEnd, s.event(mllp.EventTolerated).Reason)
				return
			}
			assert.Empty(t, got)
			assert.Empty(t, s.delivered())
			e := s.event(mllp.EventBadFrame)
			assert.Equal(t, mllp.ReasonUnverifiedEnd, e.Reason)
			assert.Equal(t, int64(len(msgA)), e.Bytes)
		})
	}
}

func TestARawMessageEndsWithSilence(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Framing: mllp.Framing{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitIdle, Idle: 300 * time.Millisecond}})
		c := s.call()
		for range 3 {
			c.say(msgA[:20])
			time.Sleep(299 * time.Millisecond)
			c.say(msgA[20:])
			written := time.Now()
			isAnswer(t, c.some(), mllp.AA, "id1")
			assert.Equal(t, 300*time.Millisecond, time.Since(written))
			time.Sleep(time.Hour)
		}
		c.say(msgA[:20])
		time.Sleep(301 * time.Millisecond)
		synctest.Wait()
		isAnswer(t, c.some(), mllp.AR, "") // what can be seen of it is a message without a control ID
		assert.Equal(t, []string{msgA, msgA, msgA}, s.delivered())

		c = s.call()
		c.say(msgB)
		c.half()
		isAnswer(t, c.all(), mllp.AA, "id2")
	})
}

func TestTwoRawMessagesWithoutAPauseAreNotAcceptedAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: raw(mllp.DelimitIdle)})
		c := s.call()
		c.say(msgA + msgB)
		isAnswer(t, c.some(), mllp.AR, "id1")
		assert.Empty(t, s.delivered())
	})
}

func TestARawMessageThatIsResetIsNotAccepted(t *testing.T) {
	for _, d := range []mllp.Delimiter{mllp.DelimitEOF, mllp.DelimitIdle} {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, &mllp.Server{Framing: raw(d)})
			c := s.call()
			c.say(msgA)
			synctest.Wait()
			c.raw.Abort()
			synctest.Wait()
			assert.Empty(t, s.delivered())
			assert.Equal(t, []string{"bad_frame truncated", "closed truncated"}, s.told())
		})
	}
}

func TestARawMessageIsClosedAtItsDeadline(t *testing.T) {
	for _, f := range []mllp.Framing{raw(mllp.DelimitEOF), raw(mllp.DelimitNewline), frameOf("", "\x03")} {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, &mllp.Server{Framing: f, MaxMessageBytes: 4096})
			c := s.call()
			c.say(msgA)
			began := time.Now()
			assert.Empty(t, c.all())
			assert.Equal(t, time.Minute, time.Since(began).Truncate(time.Second))
			synctest.Wait()
			assert.Equal(t, []string{"bad_frame timeout", "closed timeout"}, s.told())

			c = s.call()
			c.say(msgA + strings.Repeat("x", 4096))
			reply := c.some()
			assert.Contains(t, reply, "MSA|AR|id1|message too large")
			assert.Empty(t, s.delivered())
		})
	}
}

func TestRawMessagesOfLinesAndOfALength(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Framing: raw(mllp.DelimitNewline)})
		c := s.call()
		c.say(msgA + "\n" + msgB + "\n")
		var got string
		for strings.Count(got, "\n") < 2 {
			got += c.some()
		}
		lines := strings.Split(got, "\n")
		isAnswer(t, lines[0], mllp.AA, "id1")
		isAnswer(t, lines[1], mllp.AA, "id2")

		s = start(&mllp.Server{Framing: mllp.Framing{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: int64(len(msgA))}})
		c = s.call()
		c.say(msgA + msgB[:10])
		isAnswer(t, c.some(), mllp.AA, "id1")
		c.say(msgB[10:])
		isAnswer(t, c.some(), mllp.AA, "id2")
		assert.Equal(t, []string{msgA, msgB}, s.delivered())
	})
}

func TestAServerThatKeepsNoConnectionOpenClosesItAfterItsAnswer(t *testing.T) {
	for _, f := range []mllp.Framing{{KeepOpen: new(false)}, {Mode: mllp.ModeFRAME, Start: []byte("\x0b"), End: []byte("\x1c\r"), KeepOpen: new(false)}} {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, &mllp.Server{Framing: f})
			c := s.call()
			c.say(frame(msgA) + frame(msgB))
			assert.Equal(t, "AA id1", c.hear())
			assert.Equal(t, "end", c.hear())
			assert.Equal(t, []string{msgA}, s.delivered())
			c.raw.Close()
			synctest.Wait()
			assert.Equal(t, []string{"closed not_kept_open"}, s.told())
		})
	}
}

// link is a Server and a Conn to it, with TLS if there is a configuration.
func link(t *testing.T, srv *mllp.Server, d *mllp.Dialer, server, client *tls.Config) (*site, func() *mllp.Conn) {
	t.Helper()
	srv.TLSConfig, d.TLSConfig = server, client
	s := serve(t, srv)
	d.NetDialer = s.ln
	return s, func() *mllp.Conn {
		c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// bothWays runs a test with a plain connection and with TLS.
func bothWays(t *testing.T, test func(t *testing.T, server, client *tls.Config)) {
	for _, name := range []string{"plain", "TLS"} {
		t.Run(name, func(t *testing.T) {
			p := pki()
			synctest.Test(t, func(t *testing.T) {
				if name == "plain" {
					test(t, nil, nil)
					return
				}
				test(t, &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}}, &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost"})
			})
		})
	}
}

func TestServerAndConnUnderstandEachOtherInEveryFraming(t *testing.T) {
	length := mllp.Framing{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitLength, Length: int64(len(adt("M1")))}
	for _, f := range []mllp.Framing{
		{},
		{Mode: mllp.ModeMLLPv2},
		frameOf("<SOM>", "<EOM>"), frameOf("", "\x1c\x1c\r"), frameOf("\x0b", "\x1c\r"),
		raw(mllp.DelimitIdle), raw(mllp.DelimitNewline), length,
	} {
		bothWays(t, func(t *testing.T, server, client *tls.Config) {
			s, dial := link(t, &mllp.Server{Framing: f}, &mllp.Dialer{Framing: f}, server, client)
			c := dial()
			for _, id := range []string{"M1", "M2", "M3"} {
				reply, err := c.Send(t.Context(), adt(id))
				require.NoError(t, err, "%+v", f)
				assert.Equal(t, mllp.Ack{Code: mllp.AA, ControlID: id}, reply.Ack)
				time.Sleep(time.Hour)
			}
			require.NoError(t, c.Err())
			assert.Equal(t, []string{string(adt("M1")), string(adt("M2")), string(adt("M3"))}, s.delivered())
			assert.Empty(t, s.told())
		})
	}
}

func TestAConnForOneMessageEndsWithIt(t *testing.T) {
	for _, f := range []mllp.Framing{raw(mllp.DelimitEOF), {KeepOpen: new(false)}, {Mode: mllp.ModeMLLPv2, KeepOpen: new(false)}} {
		bothWays(t, func(t *testing.T, server, client *tls.Config) {
			s, dial := link(t, &mllp.Server{Framing: f}, &mllp.Dialer{Framing: f}, server, client)
			for range 2 {
				c := dial()
				_, err := c.Send(t.Context(), adt("M1"))
				require.NoError(t, err)
				_, err = c.Send(t.Context(), adt("M2"))
				failed(t, err, mllp.NotSent)
			}
			assert.NotContains(t, strings.Join(s.delivered(), ""), "M2")
		})
	}
}

func TestARawReplyThatIsCutOverTLSIsNotTaken(t *testing.T) {
	for _, allow := range []bool{false, true} {
		p := pki()
		synctest.Test(t, func(t *testing.T) {
			ln := memnet.Listen()
			f := raw(mllp.DelimitEOF)
			f.AllowUnverifiedEnd = allow
			d := &mllp.Dialer{NetDialer: ln, Framing: f, TLSConfig: &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost"}}
			go func() {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				secure := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{p.server.TLS()}})
				if msg, _ := io.ReadAll(secure); len(msg) > 0 {
					io.WriteString(secure, strings.Trim(answer(mllp.AA, "M1"), "\x0b\x1c"))
				}
				nc.(*memnet.Conn).CloseWrite()
			}()
			c, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Send(t.Context(), adt("M1"))
			if allow {
				require.NoError(t, err)
				return
			}
			failed(t, err, mllp.Unknown)
			var fe *mllp.FrameError
			require.ErrorAs(t, err, &fe)
			assert.Equal(t, mllp.ReasonUnverifiedEnd, fe.Reason)
		})
	}
}

func TestTheEndOfAMessageNeedsAConnectionOfWhichHalfCanBeClosed(t *testing.T) {
	d := &mllp.Dialer{Framing: raw(mllp.DelimitEOF), NetDialer: pipes{}}
	_, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
	assert.False(t, failed(t, err, mllp.NotSent).Retryable())
	assert.ErrorContains(t, err, "CloseWrite")
}

// pipes dials connections that know no half-close.
type pipes struct{}

func (pipes) DialContext(context.Context, string, string) (net.Conn, error) {
	c, _ := net.Pipe()
	return c, nil
}

func TestTheFirstBytesOfAStartMayWaitForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Framing: frameOf("<SOM>", "<EOM>")})
		c := s.call()
		large := msgA + strings.Repeat("OBX|1\r", 40_000)
		go c.say("<SOM>" + large + "<EOM>")
		assert.Contains(t, c.some(), "MSA|AA|id1")
		c.say("<S")
		time.Sleep(time.Hour)
		c.say("OM>" + msgB + "<EOM>")
		assert.Contains(t, c.some(), "MSA|AA|id2")
		assert.Equal(t, []string{large, msgB}, s.delivered())
	})
}
