package dicomtls_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/memnet"
)

// acceptance is an A-ASSOCIATE-AC.
func acceptance(contexts []string, user ...string) string {
	if len(user) == 0 {
		user = []string{pduItem(0x51, be32(16384)), pduItem(0x52, "1.2.3")}
	}
	return pdu(2, "\x00\x01\x00\x00", strings.Repeat(" ", 32), strings.Repeat("\x00", 32),
		pduItem(0x10, "1.2.840.10008.3.1.1.1"), strings.Join(contexts, ""), pduItem(0x50, user...))
}

func answerTo(id, result byte, syntax string) string {
	return pduItem(0x21, string([]byte{id, 0, result, 0}), pduItem(0x40, syntax))
}

var bothAccepted = []string{answerTo(1, 0, explicitLE), answerTo(3, 0, implicitLE)}

// response is that of a C-STORE or, with another field, of something else.
func response(field, id, status int) string {
	return pdata(pdv(1, 3, commandSet(el(0x100, le16(field)), el(0x120, le16(id)), el(0x800, le16(0x101)), el(0x900, le16(status)))))
}

// ctObject is one of class CT Image in Explicit VR Little Endian.
func ctObject(n int) dicomtls.Object {
	return dicomtls.BytesObject(ctImage, fmt.Sprintf("1.2.%d", n), explicitLE, []byte(someData))
}

// with runs a test against an acceptor that is played by hand: dial connects to it
// for CT images, and accept is its end of the next connection.
func with(t *testing.T, d *dicomtls.Dialer, f func(t *testing.T, dial func() (*dicomtls.Association, error), accept func() *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ln := memnet.Listen()
		defer ln.Close()
		d.NetDialer = ln
		f(t, func() (*dicomtls.Association, error) {
			return d.DialContext(t.Context(), "tcp", "192.0.2.1:104", dicomtls.Propose([]dicomtls.Object{ctObject(1)})...)
		}, func() *peer {
			c, err := ln.Accept()
			require.NoError(t, err)
			return &peer{t, c}
		})
	})
}

// connected is with, after the association has been made.
func connected(t *testing.T, d *dicomtls.Dialer, ac string, f func(t *testing.T, a *dicomtls.Association, p *peer)) {
	t.Helper()
	with(t, d, func(t *testing.T, dial func() (*dicomtls.Association, error), accept func() *peer) {
		var (
			a   *dicomtls.Association
			err error
			wg  sync.WaitGroup
		)
		wg.Go(func() { a, err = dial() })
		p := accept()
		require.Equal(t, "RQ", p.hear())
		p.say(ac)
		wg.Wait()
		require.NoError(t, err)
		defer p.Close()
		defer a.Close()
		f(t, a, p)
	})
}

func sendError(t *testing.T, err error) *dicomtls.SendError {
	t.Helper()
	var failed *dicomtls.SendError
	require.ErrorAs(t, err, &failed)
	return failed
}

func TestWhyThereIsNoAssociation(t *testing.T) {
	for _, c := range []struct {
		name      string
		answer    func(p *peer)
		code      string
		retryable bool
		heard     string // what the acceptor gets after its answer
	}{
		{"rejected for good", func(p *peer) { p.say(pdu(3, "\x00\x01\x01\x07")) }, "A-ASSOCIATE-RJ(1,1,7)", false, "end"},
		{"rejected for now", func(p *peer) { p.say(pdu(3, "\x00\x02\x03\x02")) }, "A-ASSOCIATE-RJ(2,3,2)", true, "end"},
		{"rejected for a reason that nobody knows", func(p *peer) { p.say(pdu(3, "\x00\x01\x09\x63")) }, "A-ASSOCIATE-RJ(1,9,99)", false, "end"},
		{"aborted", func(p *peer) { p.say(abort(2, 1)) }, "A-ABORT(2,1)", true, "end"},
		{"closed", func(p *peer) { p.Close() }, "", true, ""},
		{"silence", func(*peer) {}, "", true, "ABORT 0,0"},
		{"P-DATA", func(p *peer) { p.say(pdata(pdv(1, 3, echoRQ(1)))) }, "", true, "ABORT 2,2"},
		{"an unknown PDU", func(p *peer) { p.say(pdu(0x50, "")) }, "", true, "ABORT 2,1"},
		{"a context that was not proposed", func(p *peer) { p.say(acceptance([]string{answerTo(5, 0, explicitLE)})) }, "", true, "ABORT 2,6"},
		{"a context twice", func(p *peer) { p.say(acceptance([]string{answerTo(1, 0, explicitLE), answerTo(1, 0, explicitLE)})) }, "", true, "ABORT 2,6"},
		{"a transfer syntax that was not proposed", func(p *peer) { p.say(acceptance([]string{answerTo(1, 0, jpegBaseline)})) }, "", true, "ABORT 2,6"},
		{"an answer that ends within an item", func(p *peer) { p.say(acceptance([]string{"\x21\x00\xff\xff"})) }, "", true, "ABORT 2,6"},
		{"an answer of 4 GiB", func(p *peer) { p.say("\x02\x00\xff\xff\xff\xff") }, "", true, "ABORT 2,6"},
		{"a maximum length that holds nothing", func(p *peer) { p.say(acceptance(bothAccepted, pduItem(0x51, be32(6)))) }, "", true, "ABORT 2,6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			with(t, &dicomtls.Dialer{}, func(t *testing.T, dial func() (*dicomtls.Association, error), accept func() *peer) {
				var wg sync.WaitGroup
				var err error
				began := time.Now()
				wg.Go(func() { _, err = dial() })
				p := accept()
				require.Equal(t, "RQ", p.hear())
				c.answer(p)
				wg.Wait()
				failed := sendError(t, err)
				assert.Equal(t, dicomtls.NotSent, failed.Outcome)
				assert.Equal(t, c.code, failed.Code())
				assert.Equal(t, c.retryable, failed.Retryable())
				assert.False(t, failed.MaybeDelivered())
				if c.heard != "" {
					assert.Equal(t, c.heard, p.hear())
				}
				if c.name == "silence" {
					assert.Equal(t, 30*time.Second, time.Since(began))
				} else {
					assert.Zero(t, time.Since(began), "at once")
				}
			})
		})
	}
}

func TestContextsOfCallersAreHeeded(t *testing.T) {
	t.Run("before the object's turn", func(t *testing.T) {
		connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := a.Store(ctx, ctObject(1))
			assert.Equal(t, dicomtls.NotSent, sendError(t, err).Outcome)
			assert.ErrorIs(t, err, context.Canceled)
			assert.NoError(t, a.Err())
		})
	})
	t.Run("while the response is awaited", func(t *testing.T) {
		connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			_, err := a.Store(ctx, ctObject(1))
			assert.Equal(t, time.Second, time.Since(began))
			assert.Equal(t, dicomtls.Unknown, sendError(t, err).Outcome)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, []string{"P 0001 id 1", "P data", "ABORT 0,0", "end"}, p.until())
		})
	})
	t.Run("while the peer does not read", func(t *testing.T) {
		connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, _ *peer) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			o := ctObject(1)
			o.Size = 100 << 20
			o.Open = func() (io.ReadCloser, error) { return io.NopCloser(nothing{}), nil }
			began := time.Now()
			_, err := a.Store(ctx, o)
			assert.LessOrEqual(t, time.Since(began), 3*time.Second)
			assert.Equal(t, dicomtls.NotSent, sendError(t, err).Outcome)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		})
	})
	t.Run("while the association is asked for", func(t *testing.T) {
		d := &dicomtls.Dialer{}
		with(t, d, func(t *testing.T, _ func() (*dicomtls.Association, error), accept func() *peer) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			_, err := d.DialContext(ctx, "tcp", "x:1")
			assert.Equal(t, time.Second, time.Since(began))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.True(t, sendError(t, err).Retryable())
			accept().Close()
		})
	})
}

func TestRelease(t *testing.T) {
	for name, c := range map[string]struct {
		acceptor func(p *peer)
		takes    time.Duration
		fails    bool
	}{
		"confirmed":                {func(p *peer) { p.say(releaseRP) }, 0, false},
		"the connection is closed": {func(p *peer) { p.Close() }, 0, false},
		"the connection is reset":  {func(p *peer) { p.Conn.(*memnet.Conn).Abort() }, 0, false},
		"both at once": {func(p *peer) {
			p.say(releaseRQ)
			assert.Equal(p.t, "release!", p.hear())
			p.say(releaseRP)
		}, 0, false},
		"after a message": {func(p *peer) { p.say(pdata(pdv(1, 3, echoRQ(5))), releaseRP) }, 0, false},
		"aborted":         {func(p *peer) { p.say(abort(0, 0)) }, 0, true},
		"never":           {func(p *peer) { assert.Equal(p.t, "ABORT 0,0", p.hear()) }, 5 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
				var wg sync.WaitGroup
				wg.Go(func() {
					assert.Equal(t, "release?", p.hear())
					c.acceptor(p)
				})
				began := time.Now()
				err := a.Release(t.Context())
				wg.Wait()
				assert.Equal(t, c.fails, err != nil, "%v", err)
				assert.Equal(t, c.takes, time.Since(began))
				assert.Error(t, a.Err())
				_, err = a.Store(t.Context(), ctObject(1))
				assert.ErrorIs(t, err, a.Err())
			})
		})
	}
	t.Run("waits for what is under way", func(t *testing.T) {
		connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := a.Store(t.Context(), ctObject(1))
				assert.NoError(t, err)
			})
			p.received()
			wg.Go(func() { assert.NoError(t, a.Release(t.Context())) })
			time.Sleep(time.Second)
			p.say(response(0x8001, 1, 0))
			assert.Equal(t, "release?", p.hear())
			p.say(releaseRP)
			wg.Wait()
		})
	})
	t.Run("by the peer", func(t *testing.T) {
		connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
			assert.Equal(t, []string{"release!", "end"}, append(p.talk(releaseRQ), p.hear()))
			assert.ErrorIs(t, a.Err(), dicomtls.ErrReleased)
			assert.ErrorIs(t, a.Err(), net.ErrClosed)
			assert.NoError(t, a.Release(t.Context()))
		})
	})
}

func TestAsManyObjectsAreUnderWayAsThePeerAllows(t *testing.T) {
	for granted, want := range map[string]int{
		"":                                1,
		pduItem(0x53, "\x00\x03\x00\x01"): 3,
		pduItem(0x53, "\x00\x00\x00\x01"): 8,
	} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			connected(t, &dicomtls.Dialer{Window: 8}, acceptance(bothAccepted, pduItem(0x51, be32(16384)), granted), func(t *testing.T, a *dicomtls.Association, p *peer) {
				assert.Equal(t, want, a.Info().Window)
				var wg sync.WaitGroup
				for i := range 20 {
					wg.Go(func() {
						_, err := a.Store(t.Context(), ctObject(i+1))
						assert.NoError(t, err)
					})
				}
				for id := 1; id <= 20; {
					n := min(want, 20-id+1)
					for range n {
						p.received()
					}
					p.SetReadDeadline(time.Now().Add(time.Second))
					_, err := p.Read(make([]byte, 1))
					require.ErrorIs(t, err, os.ErrDeadlineExceeded, "no more than that")
					for i := n - 1; i >= 0; i-- { // in any order
						p.say(response(0x8001, id+i, 0))
					}
					id += n
				}
				wg.Wait()
			})
		})
	}
}

func TestARequestOfThePeerIsAnsweredEvenIfWeKnowItNot(t *testing.T) {
	connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
		assert.Equal(t, []string{"P 8030 0211 to 5"}, p.talk(pdata(pdv(1, 3, echoRQ(5)))))
		p.say(strings.Repeat(pdata(pdv(1, 3, echoRQ(6))), 3))
		assert.Equal(t, "P 8030 0211 to 6", p.hear())
		assert.NoError(t, a.Err())
	})
}

func TestIdentityAndConfirmation(t *testing.T) {
	id := &dicomtls.UserIdentity{Type: dicomtls.IdentityPasscode, Primary: []byte("alice"), Secondary: []byte("secret"), ResponseRequested: true}
	t.Run("it is sent, and confirmed", func(t *testing.T) {
		with(t, &dicomtls.Dialer{Identity: id}, func(t *testing.T, dial func() (*dicomtls.Association, error), accept func() *peer) {
			var wg sync.WaitGroup
			wg.Go(func() {
				a, err := dial()
				if assert.NoError(t, err) {
					assert.Equal(t, "ok", string(a.Info().IdentityResponse))
					a.Close()
				}
			})
			p := accept()
			_, b, err := p.next()
			require.NoError(t, err)
			assert.Contains(t, b, pduItem(0x58, "\x02\x01", be16(5), "alice", be16(6), "secret"))
			p.say(acceptance(bothAccepted, pduItem(0x51, be32(16384)), pduItem(0x59, be16(2), "ok")))
			wg.Wait()
		})
	})
	t.Run("it is not confirmed", func(t *testing.T) {
		with(t, &dicomtls.Dialer{Identity: id}, func(t *testing.T, dial func() (*dicomtls.Association, error), accept func() *peer) {
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := dial()
				assert.False(t, sendError(t, err).Retryable())
				assert.NotContains(t, err.Error(), "alice")
			})
			p := accept()
			require.Equal(t, "RQ", p.hear())
			p.say(acceptance(bothAccepted))
			assert.Equal(t, "ABORT 0,0", p.hear())
			wg.Wait()
		})
	})
}

func TestDialingReportsWhatCannotWork(t *testing.T) {
	for want, d := range map[string]*dicomtls.Dialer{
		"AETitle":     {AETitle: "BACK\\SLASH"},
		"CalledAE":    {CalledAE: "WAY TOO LONG A TITLE"},
		"MaxPDUBytes": {MaxPDUBytes: 1},
		"Window":      {Window: -1},
	} {
		_, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:1")
		require.ErrorContains(t, err, want)
		assert.False(t, sendError(t, err).Retryable())
	}
	for _, p := range [][]dicomtls.Proposal{{{AbstractSyntax: "CT"}}, {{AbstractSyntax: "1.2", TransferSyntaxes: []string{"x"}}}, make([]dicomtls.Proposal, 129)} {
		_, err := (&dicomtls.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:1", p...)
		assert.False(t, sendError(t, err).Retryable())
	}
	_, err := (&dicomtls.Dialer{}).DialContext(t.Context(), "udp", "127.0.0.1:1")
	assert.False(t, sendError(t, err).Retryable())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ln.Close()
	_, err = (&dicomtls.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	assert.True(t, sendError(t, err).Retryable(), "nobody listens now")
}
