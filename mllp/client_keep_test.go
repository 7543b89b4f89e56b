package mllp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// network is what lies between a Client and its receiver, in a bubble.
type network struct {
	t       *testing.T
	running sync.WaitGroup

	mu    sync.Mutex
	ln    *memnet.Listener // nil: nobody listens
	began time.Time
	dials []time.Duration // when, since began
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, began: time.Now()}
	t.Cleanup(func() {
		n.down()
		n.running.Wait()
	})
	return n
}

// DialContext is what a Dialer takes for a NetDialer.
func (n *network) DialContext(context.Context, string, string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, time.Since(n.began))
	ln := n.ln
	n.mu.Unlock()
	if ln == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	return ln.Dial()
}

// up starts a receiver that serves each connection with serve.
func (n *network) up(serve func(*peer)) {
	ln := memnet.Listen()
	n.mu.Lock()
	n.ln = ln
	n.mu.Unlock()
	n.running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			n.running.Go(func() {
				defer nc.Close()
				serve(&peer{Conn: nc.(*memnet.Conn), t: n.t, frames: mllp.NewReader(nc, 0)})
			})
		}
	})
}

// down stops the receiver's listening.
func (n *network) down() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ln != nil {
		n.ln.Close()
		n.ln = nil
	}
}

// dialed returns how often the Client has dialed.
func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dials)
}

// newClient completes c, to send over n.
func newClient(t *testing.T, n *network, c *mllp.Client) *mllp.Client {
	c.Addr = "receiver:2575"
	if c.Dialer == nil {
		c.Dialer = &mllp.Dialer{}
	}
	c.Dialer.NetDialer = n
	t.Cleanup(func() { c.Close() })
	return c
}

// accept answers every message AA.
func accept(p *peer) { p.serve(func(id string) string { return answer(mllp.AA, id) }) }

// post is send for a Client.
func post(ctx context.Context, c *mllp.Client, id string) <-chan sent {
	ch := make(chan sent, 1)
	go func() {
		start := time.Now()
		reply, err := c.Send(ctx, adt(id))
		ch <- sent{reply, err, time.Since(start)}
	}()
	synctest.Wait()
	return ch
}

func TestAClientKeepsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.up(accept)
		c := newClient(t, n, &mllp.Client{})
		assert.Equal(t, mllp.Health{State: mllp.StateOK}, c.Health())
		for _, id := range []string{"M1", "M2", "M3"} {
			reply, err := c.Send(t.Context(), adt(id))
			require.NoError(t, err)
			assert.Equal(t, id, reply.Ack.ControlID)
			assert.Equal(t, mllp.Acked, reply.Outcome())
			time.Sleep(time.Hour)
		}
		assert.Equal(t, 1, n.dialed())
		h := c.Health()
		assert.Equal(t, 1, h.Conns)
		assert.Equal(t, time.Hour, time.Since(h.LastAck))
	})
}

func TestADeadConnectionIsReplacedBeforeWritingAndWithoutDelay(t *testing.T) {
	for name, end := range map[string]func(*peer){
		"closed":      func(p *peer) { p.CloseWrite() },
		"reset":       func(p *peer) { p.Abort() },
		"late answer": func(p *peer) { p.say(answer(mllp.AA, "M0")) },
		"banner":      func(p *peer) { p.say("Welcome") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				peers := make(chan *peer, 2)
				received := make(chan string, 9)
				n.up(func(p *peer) {
					peers <- p
					p.serve(func(id string) string {
						received <- id
						return answer(mllp.AA, id)
					})
				})
				c := newClient(t, n, &mllp.Client{})
				_, err := c.Send(t.Context(), adt("M1"))
				require.NoError(t, err)
				end(<-peers)
				synctest.Wait()
				assert.Zero(t, c.Health().Conns, "it is noticed without a message")
				time.Sleep(time.Second)
				s := <-post(t.Context(), c, "M2")
				require.NoError(t, s.err)
				assert.Zero(t, s.took, "nothing to wait for")
				assert.Equal(t, 2, n.dialed())
				assert.Equal(t, mllp.StateOK, c.Health().State)
				require.Equal(t, "M1", <-received)
				require.Equal(t, "M2", <-received)
				assert.Empty(t, received, "each has come once")
			})
		})
	}
}

func TestAClientMayDialForEachMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		ended := make(chan error, 9)
		n.up(func(p *peer) {
			id, _ := p.receive()
			io.WriteString(p, answer(mllp.AA, id))
			_, err := p.Read(make([]byte, 1))
			ended <- err
		})
		c := newClient(t, n, &mllp.Client{DialPerMessage: true, Dials: &mllp.DialLimiter{PerSecond: 1}})
		for i, id := range []string{"M1", "M2", "M3"} {
			s := <-post(t.Context(), c, id)
			require.NoError(t, s.err)
			assert.Zero(t, s.took)
			assert.Equal(t, io.EOF, <-ended, "the Client ends it")
			assert.Equal(t, i+1, n.dialed())
			assert.Zero(t, c.Health().Conns)
		}
	})
}

func TestAnIdleConnectionIsClosedAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		ended := make(chan time.Time, 2)
		n.up(func(p *peer) {
			p.serve(func(id string) string {
				time.Sleep(25 * time.Second) // which is not idle
				return answer(mllp.AA, id)
			})
			ended <- time.Now()
		})
		c := newClient(t, n, &mllp.Client{IdleTimeout: 10 * time.Second})
		var last time.Time
		for _, id := range []string{"M1", "M2"} {
			_, err := c.Send(t.Context(), adt(id))
			require.NoError(t, err)
			last = time.Now()
			time.Sleep(9 * time.Second)
		}
		assert.Equal(t, 10*time.Second, (<-ended).Sub(last))
		assert.Equal(t, 1, n.dialed())
		s := <-post(t.Context(), c, "M3")
		require.NoError(t, s.err)
		assert.Equal(t, 25*time.Second, s.took, "that a connection was idle delays no message")
	})
}

func TestMessagesUseTheConnectionsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.up(func(p *peer) {
			p.serve(func(id string) string {
				time.Sleep(time.Second)
				return answer(mllp.AA, id)
			})
		})
		c := newClient(t, n, &mllp.Client{Conns: 3})
		_, err := c.Send(t.Context(), adt("first"))
		require.NoError(t, err)
		assert.Equal(t, 1, n.dialed(), "no more connections than messages need")
		var results []<-chan sent
		for _, id := range []string{"A", "B", "C", "D", "E", "F"} {
			results = append(results, post(t.Context(), c, id))
		}
		for i, ch := range results {
			s := <-ch
			require.NoError(t, s.err)
			assert.Equal(t, time.Duration(1+i/3)*time.Second, s.took)
		}
		assert.Equal(t, 3, n.dialed())
	})
}

func TestAConnectionThatIsNotWantedDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		one := make(chan struct{}, 1)
		n.up(func(p *peer) {
			select {
			case one <- struct{}{}:
			default:
				return // one connection is all that this receiver takes
			}
			p.serve(func(id string) string {
				time.Sleep(time.Second)
				return answer(mllp.AA, id)
			})
		})
		c := newClient(t, n, &mllp.Client{Conns: 3})
		_, err := c.Send(t.Context(), adt("first"))
		require.NoError(t, err)
		began := time.Now()
		var results []<-chan sent
		for range 60 {
			results = append(results, post(t.Context(), c, "M"))
		}
		unknown := 0
		for _, ch := range results {
			if s := <-ch; s.err != nil {
				failed(t, s.err, mllp.Unknown) // written before it was known
				unknown++
			}
		}
		assert.LessOrEqual(t, unknown, n.dialed()-1)
		assert.LessOrEqual(t, time.Since(began), 60*time.Second, "as if there were but the one connection")
		assert.LessOrEqual(t, n.dialed(), 16, "in a minute, though the first connection brings an acknowledgement every second")
	})
}

func TestAConnectionThatFailedOnceIsTriedAgainBesideTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		conns := 0
		n.up(func(p *peer) {
			if conns++; conns == 2 {
				return
			}
			p.serve(func(id string) string {
				time.Sleep(time.Second)
				return answer(mllp.AA, id)
			})
		})
		c := newClient(t, n, &mllp.Client{Conns: 2})
		began := time.Now()
		var results []<-chan sent
		for range 60 {
			results = append(results, post(t.Context(), c, "M"))
		}
		for _, ch := range results {
			if s := <-ch; s.err != nil {
				failed(t, s.err, mllp.Unknown)
			}
		}
		assert.Less(t, time.Since(began), 35*time.Second, "two at a time, but for the beginning")
		assert.Equal(t, 2, c.Health().Conns)
	})
}

func TestCloseAndShutdownSayWhatBecameOfEachMessage(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(*testing.T, *mllp.Client)
		want mllp.Outcome
	}{
		"Close": {func(t *testing.T, c *mllp.Client) { require.NoError(t, c.Close()) }, mllp.Unknown},
		"Shutdown": {func(t *testing.T, c *mllp.Client) {
			require.NoError(t, c.Shutdown(t.Context()))
		}, mllp.Acked},
		"Shutdown without time": {func(t *testing.T, c *mllp.Client) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, c.Shutdown(ctx), context.DeadlineExceeded)
		}, mllp.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				n.up(func(p *peer) {
					p.serve(func(id string) string {
						time.Sleep(5 * time.Second)
						return answer(mllp.AA, id)
					})
				})
				c := newClient(t, n, &mllp.Client{})
				first, second := post(t.Context(), c, "M1"), post(t.Context(), c, "M2")
				tt.end(t, c)
				s := <-first
				if tt.want == mllp.Acked {
					require.NoError(t, s.err)
				} else {
					failed(t, s.err, tt.want)
				}
				for _, ch := range []<-chan sent{second, post(t.Context(), c, "M3")} {
					s = <-ch
					require.ErrorIs(t, s.err, mllp.ErrClientClosed)
					assert.False(t, failed(t, s.err, mllp.NotSent).Retryable(), "not by this Client")
				}
				assert.Equal(t, mllp.Health{State: mllp.StateClosed, LastAck: c.Health().LastAck}, c.Health())
				require.NoError(t, c.Close(), "once more is nothing")
			})
		})
	}
}

func TestCloseEndsADial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &mllp.Client{Addr: "receiver:2575", Dialer: &mllp.Dialer{NetDialer: dialFunc(func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})}}
		ch := post(t.Context(), c, "M1")
		require.NoError(t, c.Close())
		s := <-ch
		require.ErrorIs(t, s.err, mllp.ErrClientClosed)
		failed(t, s.err, mllp.NotSent)
		assert.Zero(t, s.took)
	})
}

func TestAClientWithoutUseCanBeClosed(t *testing.T) {
	require.NoError(t, new(mllp.Client).Close())
	require.NoError(t, new(mllp.Client).Shutdown(t.Context()))
}

func TestAFaultySettingOfAClientIsRefusedAtOnce(t *testing.T) {
	ln := memnet.Listen()
	defer ln.Close()
	for name, c := range map[string]*mllp.Client{
		"no address":                  {},
		"no port":                     {Addr: "receiver"},
		"no host":                     {Addr: ":2575"},
		"negative Conns":              {Addr: "receiver:2575", Conns: -1},
		"negative MaxAttempts":        {Addr: "receiver:2575", MaxAttempts: -1},
		"negative MinBackoff":         {Addr: "receiver:2575", MinBackoff: -1},
		"MaxBackoff below MinBackoff": {Addr: "receiver:2575", MinBackoff: time.Second, MaxBackoff: time.Millisecond},
		"MaxBackoff below default":    {Addr: "receiver:2575", MaxBackoff: time.Millisecond},
		"negative dial rate":          {Addr: "receiver:2575", Dials: &mllp.DialLimiter{PerSecond: -1}},
		"retry of what was taken":     {Addr: "receiver:2575", RetryCodes: []mllp.AckCode{mllp.AA}},
		"a window for one message":    {Addr: "receiver:2575", DialPerMessage: true, Dialer: &mllp.Dialer{Window: 2}},
		"a Dialer's fault":            {Addr: "receiver:2575", Dialer: &mllp.Dialer{Window: -1}},
		"a local name":                {Addr: "receiver:2575", Dialer: &mllp.Dialer{LocalAddr: "localhost:1"}},
		"a local port for several":    {Addr: "receiver:2575", Conns: 2, Dialer: &mllp.Dialer{LocalAddr: ":4000"}},
		"two ways to bind":            {Addr: "receiver:2575", Dialer: &mllp.Dialer{LocalAddr: ":4000", NetDialer: ln}},
	} {
		t.Run(name, func(t *testing.T) {
			defer c.Close()
			require.Error(t, c.Validate())
			_, err := c.Send(t.Context(), adt("M1"))
			assert.False(t, failed(t, err, mllp.NotSent).Retryable())
			assert.NotErrorIs(t, err, mllp.ErrUnreachable)
		})
	}
}

func TestWithoutAcknowledgementsWhatIsWrittenIsSentAndRepliesAreDrained(t *testing.T) {
	ca := testpki.NewCA(t, "CA")
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": {Certificates: []tls.Certificate{ca.Server("receiver").TLS()}}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := memnet.Listen()
				defer ln.Close()
				received := make(chan int, 1)
				go func() {
					nc, err := ln.Accept()
					if err != nil {
						return
					}
					defer nc.Close()
					if config != nil {
						nc = tls.Server(nc, config)
					}
					count, frames := 0, mllp.NewReader(nc, 0)
					for {
						if _, err := frames.Next(); err != nil {
							received <- count
							return
						}
						count++
						time.Sleep(time.Millisecond)
						io.WriteString(nc, answer(mllp.AE, "M")+"and whatever else it likes to say"+string(make([]byte, 1000)))
					}
				}()
				d := &mllp.Dialer{Match: mllp.MatchNone, NetDialer: ln}
				if config != nil {
					d.TLSConfig = &tls.Config{RootCAs: ca.Pool()}
				}
				c := &mllp.Client{Addr: "receiver:2575", Dialer: d}
				const messages = 1000 // each reply of 1 KiB, of which the network holds 64
				for range messages {
					reply, err := c.Send(t.Context(), []byte("no HL7 at all"))
					require.NoError(t, err)
					assert.Equal(t, mllp.Sent, reply.Outcome())
					assert.Empty(t, reply.Raw)
				}
				assert.Equal(t, 1, c.Health().Conns)
				require.NoError(t, c.Close())
				assert.Equal(t, messages, <-received, "also those that were still under way when the Client was closed")
			})
		})
	}
}

func TestWithoutAcknowledgementsABrokenWriteIsStillUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Match: mllp.MatchNone})
		ch := send(t.Context(), c, append(adt("M1"), make([]byte, 1<<20)...))
		p.Close()
		failed(t, (<-ch).err, mllp.Unknown)
		_, err := c.Send(t.Context(), adt("M2"))
		failed(t, err, mllp.NotSent)
	})
}

func TestALaterRejectionOfTheCertificateIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, ca := rejecting(t, tls.VersionTLS13)
		n := newNetwork(t)
		n.up(func(p *peer) {
			secured := tls.Server(p.Conn, server)
			if secured.HandshakeContext(context.Background()) != nil {
				io.Copy(io.Discard, p.Conn) // closing with bytes unread would take the alert along
				return
			}
			p.frames = mllp.NewReader(secured, 0)
			msg, err := p.frames.Next()
			if err == nil {
				var h mllp.Header
				assert.NoError(t, h.Parse(msg))
				io.WriteString(secured, answer(mllp.AA, string(h.ControlID)))
			}
		})
		good := ca.Client("sender").TLS()
		var use *tls.Certificate
		c := newClient(t, n, &mllp.Client{Dialer: &mllp.Dialer{TLSConfig: &tls.Config{
			RootCAs: ca.Pool(),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if use == nil {
					return new(tls.Certificate), nil
				}
				return use, nil
			},
		}}})
		began := time.Now()
		_, err := c.Send(t.Context(), adt("M1"))
		require.ErrorIs(t, err, mllp.ErrPeerRejectedCertificate)
		e, _ := errors.AsType[*mllp.SendError](err)
		assert.False(t, e.Retryable())
		assert.Contains(t, []mllp.Outcome{mllp.NotSent, mllp.Unknown}, e.Outcome)
		synctest.Wait()
		assert.Equal(t, mllp.StateFaulty, c.Health().State)

		_, err = c.Send(t.Context(), adt("M2"))
		require.ErrorIs(t, err, mllp.ErrPeerRejectedCertificate)
		require.ErrorIs(t, err, mllp.ErrUnreachable)
		assert.False(t, failed(t, err, mllp.NotSent).Retryable())
		assert.Equal(t, 1, n.dialed(), "it does not hammer at the door")
		assert.Zero(t, time.Since(began), "nor keep the message")
		assert.GreaterOrEqual(t, time.Until(c.Health().NextDial), 15*time.Second)
		assert.LessOrEqual(t, time.Until(c.Health().NextDial), 30*time.Second)

		use = &good
		time.Sleep(30 * time.Second)
		_, err = c.Send(t.Context(), adt("M3"))
		require.NoError(t, err, "put right, it works again by itself")
		assert.Equal(t, mllp.StateOK, c.Health().State)
	})
}
