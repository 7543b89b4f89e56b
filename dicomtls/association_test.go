package dicomtls_test

import (
	"bytes"
	"context"
	"errors"
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

func TestTheFateOfAnObject(t *testing.T) {
	silent := func(*peer) {}
	for _, c := range []struct {
		name    string
		after   func(p *peer) // the object
		outcome dicomtls.Outcome
		status  dicomtls.Status
		code    string
		retry   bool
		usable  bool
	}{
		{"success", func(p *peer) { p.say(response(0x8001, 1, 0)) }, dicomtls.Stored, 0, "", false, true},
		{"a warning", func(p *peer) { p.say(response(0x8001, 1, 0xB007)) }, dicomtls.Stored, 0xB007, "", false, true},
		{"out of resources", func(p *peer) { p.say(response(0x8001, 1, 0xA701)) }, dicomtls.Refused, 0xA701, "A701", true, true},
		{"resource limitation", func(p *peer) { p.say(response(0x8001, 1, 0x0213)) }, dicomtls.Refused, 0x0213, "0213", true, true},
		{"does not understand", func(p *peer) { p.say(response(0x8001, 1, 0xC001)) }, dicomtls.Refused, 0xC001, "C001", false, true},
		{"does not match", func(p *peer) { p.say(response(0x8001, 1, 0xA900)) }, dicomtls.Refused, 0xA900, "A900", false, true},
		{"not authorized", func(p *peer) { p.say(response(0x8001, 1, 0x0124)) }, dicomtls.Refused, 0x0124, "0124", false, true},
		{"a response with a data set", func(p *peer) {
			p.say(pdata(pdv(1, 3, commandSet(el(0x100, le16(0x8001)), el(0x120, le16(1)), el(0x800, le16(1)), el(0x900, le16(0)))), pdv(1, 2, someData)))
		}, dicomtls.Stored, 0, "", false, true},
		{"abort", func(p *peer) { p.say(abort(2, 6)) }, dicomtls.Unknown, 0, "A-ABORT(2,6)", true, false},
		{"the end of the connection", func(p *peer) { p.Close() }, dicomtls.Unknown, 0, "", true, false},
		{"a reset", func(p *peer) { p.Conn.(*memnet.Conn).Abort() }, dicomtls.Unknown, 0, "", true, false},
		{"release", func(p *peer) { p.say(releaseRQ) }, dicomtls.Unknown, 0, "", true, false},
		{"the response to another request", func(p *peer) { p.say(response(0x8001, 2, 0)) }, dicomtls.Unknown, 0, "", true, false},
		{"a response of another kind", func(p *peer) { p.say(response(0x8030, 1, 0)) }, dicomtls.Unknown, 0, "", true, false},
		{"garbage", func(p *peer) { p.say(pdata("xxxxxxxxxx")) }, dicomtls.Unknown, 0, "", true, false},
		{"a response that stops in its middle", func(p *peer) { p.say(response(0x8001, 1, 0)[:30]) }, dicomtls.Unknown, 0, "", true, false},
		{"silence", silent, dicomtls.Unknown, 0, "", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
				var wg sync.WaitGroup
				wg.Go(func() {
					assert.Equal(t, "P 0001 id 1", p.hear())
					assert.Equal(t, "P data", p.hear())
					c.after(p)
				})
				began := time.Now()
				status, err := a.Store(t.Context(), ctObject(1))
				wg.Wait()
				assert.LessOrEqual(t, time.Since(began), time.Minute)
				assert.Equal(t, c.status, status)
				if c.outcome == dicomtls.Stored {
					require.NoError(t, err)
				} else {
					failed := sendError(t, err)
					assert.Equal(t, c.outcome, failed.Outcome, "%v", err)
					assert.Equal(t, c.code, failed.Code())
					assert.Equal(t, c.retry, failed.Retryable())
					assert.Equal(t, c.outcome == dicomtls.Unknown, failed.MaybeDelivered())
				}
				assert.Equal(t, c.usable, a.Err() == nil)
				if !c.usable {
					_, err = a.Store(t.Context(), ctObject(2))
					failed := sendError(t, err)
					assert.Equal(t, dicomtls.NotSent, failed.Outcome)
					assert.ErrorIs(t, err, a.Err())
				}
			})
		})
	}
}

// received is a message with a data set as it came: the lengths of its fragments,
// and the data.
func (p *peer) received() (lengths []int, data string) {
	p.t.Helper()
	for {
		kind, b, err := p.next()
		require.NoError(p.t, err)
		require.EqualValues(p.t, 4, kind)
		if b[5]&1 != 0 {
			continue
		}
		lengths = append(lengths, len(b)-6)
		if data += b[6:]; b[5]&2 != 0 {
			return lengths, data
		}
	}
}

func TestFragmentsAreEvenAndWithinThePeersLimit(t *testing.T) {
	data := imageData("1.2.3", 20_000)
	for limit, longest := range map[int]int{16384: 16378, 16001: 15994, 4097: 4090, 128: 122, 9: 2, 8: 2, 0: 131066, 1 << 30: 131066} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			data := data
			if longest == 2 {
				data = data[:500]
			}
			connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted, pduItem(0x51, be32(limit))), func(t *testing.T, a *dicomtls.Association, p *peer) {
				for id, size := range []int64{int64(len(data)), 0} { // known or not
					o := dicomtls.BytesObject(ctImage, "1.2.3", explicitLE, data)
					o.Size = size
					var wg sync.WaitGroup
					wg.Go(func() {
						lengths, got := p.received()
						assert.Equal(t, string(data), got)
						for _, n := range lengths[:len(lengths)-1] {
							assert.Equal(t, longest, n)
						}
						assert.Zero(t, lengths[len(lengths)-1]%2)
						p.say(response(0x8001, id+1, 0))
					})
					_, err := a.Store(t.Context(), o)
					wg.Wait()
					require.NoError(t, err)
				}
			})
		})
	}
	t.Run("a peer that does not say", func(t *testing.T) {
		connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted, pduItem(0x52, "1.2.3")), func(t *testing.T, a *dicomtls.Association, _ *peer) {
			assert.Equal(t, 16384, a.Info().MaxPDUBytes)
		})
	})
}

func TestObjectsThatCannotBeSentLeaveTheAssociationAsItIs(t *testing.T) {
	broken := errors.New("the disk is gone")
	for name, c := range map[string]struct {
		change    func(o *dicomtls.Object)
		want      error
		retryable bool
	}{
		"no SOP class":          {func(o *dicomtls.Object) { o.SOPClassUID = "" }, dicomtls.ErrBadObject, false},
		"a bad instance":        {func(o *dicomtls.Object) { o.SOPInstanceUID = "../x" }, dicomtls.ErrBadObject, false},
		"no transfer syntax":    {func(o *dicomtls.Object) { o.TransferSyntaxUID = "" }, dicomtls.ErrBadObject, false},
		"no source":             {func(o *dicomtls.Object) { o.Open = nil }, dicomtls.ErrBadObject, false},
		"an odd length":         {func(o *dicomtls.Object) { o.Size = 9 }, dicomtls.ErrBadObject, false},
		"an empty data set":     {func(o *dicomtls.Object) { o.Size = 0; o.Open = open("") }, dicomtls.ErrBadObject, false},
		"an odd end":            {func(o *dicomtls.Object) { o.Size = 0; o.Open = open("abc") }, dicomtls.ErrBadObject, false},
		"a shorter source":      {func(o *dicomtls.Object) { o.Size = 12 }, dicomtls.ErrSourceChanged, true},
		"a longer source":       {func(o *dicomtls.Object) { o.Size = 8 }, dicomtls.ErrSourceChanged, true},
		"a source that fails":   {func(o *dicomtls.Object) { o.Open = func() (io.ReadCloser, error) { return nil, broken } }, broken, true},
		"another class":         {func(o *dicomtls.Object) { o.SOPClassUID = secondaryCapture }, dicomtls.ErrNoContext, false},
		"a compressed data set": {func(o *dicomtls.Object) { o.TransferSyntaxUID = jpegBaseline }, dicomtls.ErrNoContext, false},
	} {
		t.Run(name, func(t *testing.T) {
			connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
				o := ctObject(1)
				o.Name = "file.dcm"
				c.change(&o)
				_, err := a.Store(t.Context(), o)
				failed := sendError(t, err)
				assert.Equal(t, dicomtls.NotSent, failed.Outcome)
				assert.ErrorIs(t, err, c.want)
				assert.ErrorContains(t, err, "file.dcm")
				assert.Equal(t, c.retryable, failed.Retryable())
				require.NoError(t, a.Err())
				var wg sync.WaitGroup
				wg.Go(func() {
					id := p.hear()
					assert.Equal(t, "P data", p.hear(), "nothing of the first one is sent")
					var n int
					fmt.Sscanf(id, "P 0001 id %d", &n)
					p.say(response(0x8001, n, 0))
				})
				_, err = a.Store(t.Context(), ctObject(2))
				wg.Wait()
				assert.NoError(t, err)
			})
		})
	}
}

func open(data string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }
}

func TestASourceThatFailsInItsMiddleAbortsTheAssociation(t *testing.T) {
	connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
		o := ctObject(1)
		o.Name = "file.dcm"
		o.Size = 1 << 20
		o.Open = open(strings.Repeat("x", 1<<20-2))
		var heard []string
		var wg sync.WaitGroup
		wg.Go(func() { heard = p.until() })
		_, err := a.Store(t.Context(), o)
		wg.Wait()
		assert.Equal(t, dicomtls.NotSent, sendError(t, err).Outcome, "the end was not written")
		assert.ErrorIs(t, err, dicomtls.ErrSourceChanged)
		assert.ErrorContains(t, err, "file.dcm")
		assert.Equal(t, []string{"ABORT 0,0", "end"}, heard[len(heard)-2:])
		assert.Error(t, a.Err())
	})
}

func TestAnAbortInTheMiddleOfAnObjectEndsItAtOnce(t *testing.T) {
	connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
		o := ctObject(1)
		o.Size = 100 << 20
		o.Open = func() (io.ReadCloser, error) { return io.NopCloser(nothing{}), nil }
		began := time.Now()
		go func() {
			p.hear()
			p.hear()
			p.say(abort(2, 0))
		}()
		_, err := a.Store(t.Context(), o)
		assert.Zero(t, time.Since(began))
		failed := sendError(t, err)
		assert.Equal(t, dicomtls.NotSent, failed.Outcome)
		assert.Equal(t, "A-ABORT(2,0)", failed.Code())
		assert.True(t, failed.Retryable())
	})
}

type nothing struct{}

func (nothing) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestARefusalBeforeTheEndOfAnObjectIsHeard(t *testing.T) {
	connected(t, &dicomtls.Dialer{}, acceptance(bothAccepted), func(t *testing.T, a *dicomtls.Association, p *peer) {
		o := ctObject(1)
		o.Size = 100 << 20
		o.Open = func() (io.ReadCloser, error) { return io.NopCloser(nothing{}), nil }
		go func() {
			p.hear()
			p.hear()
			p.say(response(0x8001, 1, 0xA700), abort(0, 0))
		}()
		status, err := a.Store(t.Context(), o)
		assert.Equal(t, dicomtls.StatusOutOfResources, status)
		assert.Equal(t, dicomtls.Refused, sendError(t, err).Outcome)
		assert.Equal(t, "A-ABORT(0,0)", a.Err().(interface{ Code() string }).Code())
	})
}

func TestAnOddDeflatedDataSetIsMadeEven(t *testing.T) {
	d := &dicomtls.Dialer{}
	with(t, d, func(t *testing.T, _ func() (*dicomtls.Association, error), accept func() *peer) {
		o := dicomtls.BytesObject(ctImage, "1.2.3", dicomtls.DeflatedExplicitVRLittleEndian, []byte("odd"))
		unknown := o
		unknown.Size = 0
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, r := range d.StoreAll(t.Context(), "tcp", "x:1", []dicomtls.Object{o, unknown}, nil) {
				assert.NoError(t, r.Err)
			}
		})
		p := accept()
		require.Equal(t, "RQ", p.hear())
		p.say(acceptance([]string{answerTo(1, 0, dicomtls.DeflatedExplicitVRLittleEndian), answerTo(3, 3, implicitLE), answerTo(5, 3, implicitLE)}))
		for id := range 2 {
			_, data := p.received()
			assert.Equal(t, "odd\x00", data)
			p.say(response(0x8001, id+1, 0))
		}
		assert.Equal(t, []string{"release?"}, []string{p.hear()})
		p.say(releaseRP)
		wg.Wait()
	})
}

func TestAnUncompressedObjectIsConvertedIfNecessary(t *testing.T) {
	connected(t, &dicomtls.Dialer{}, acceptance([]string{answerTo(1, 4, explicitLE), answerTo(3, 0, implicitLE)}), func(t *testing.T, a *dicomtls.Association, p *peer) {
		var wg sync.WaitGroup
		wg.Go(func() {
			_, data := p.received()
			assert.Equal(t, "\x08\x00\x60\x00\x02\x00\x00\x00CT", data)
			p.say(strings.Replace(response(0x8001, 1, 0), "\x01\x03", "\x03\x03", 1))
		})
		_, err := a.Store(t.Context(), ctObject(1))
		wg.Wait()
		require.NoError(t, err)
		o := ctObject(2)
		o.Open = open("nonsense")
		o.Size = 8
		_, err = a.Store(t.Context(), o)
		assert.ErrorIs(t, err, dicomtls.ErrBadObject)
		assert.False(t, sendError(t, err).Retryable())
		assert.NoError(t, a.Err())
	})
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

func TestABatchTellsTheFateOfEachObject(t *testing.T) {
	d := &dicomtls.Dialer{}
	with(t, d, func(t *testing.T, _ func() (*dicomtls.Association, error), accept func() *peer) {
		objects := []dicomtls.Object{ctObject(1), ctObject(2), ctObject(3), ctObject(4), ctObject(5)}
		objects[1].TransferSyntaxUID = jpegBaseline // not accepted
		var results []dicomtls.Result
		var order []int
		var wg sync.WaitGroup
		wg.Go(func() {
			results = d.StoreAll(t.Context(), "tcp", "x:1", objects, func(i int, _ dicomtls.Result) { order = append(order, i) })
		})
		p := accept()
		require.Equal(t, "RQ", p.hear())
		p.say(acceptance([]string{answerTo(1, 0, explicitLE), answerTo(3, 0, implicitLE), answerTo(5, 4, jpegBaseline)}))
		p.received()
		p.say(response(0x8001, 1, 0xB000))
		p.received() // the third
		p.Conn.(*memnet.Conn).Abort()
		wg.Wait()
		var outcomes []string
		for _, r := range results {
			outcomes = append(outcomes, r.Outcome.String())
		}
		assert.Equal(t, []string{"stored", "not sent", "unknown", "not sent", "not sent"}, outcomes)
		assert.Equal(t, dicomtls.StatusCoercion, results[0].Status)
		assert.ErrorIs(t, results[1].Err, dicomtls.ErrNoContext)
		assert.False(t, sendError(t, results[1].Err).Retryable())
		assert.True(t, sendError(t, results[3].Err).Retryable())
		assert.Equal(t, []int{0, 1, 2, 3, 4}, order)
	})
}

func TestManyKindsOfObjectsAreSpreadOverAssociations(t *testing.T) {
	k := newKeeper()
	s := listen(t, &dicomtls.Server{Store: k, Window: 8})
	var objects []dicomtls.Object
	for i := range 300 {
		data := bytes.Clone([]byte(someData))
		objects = append(objects, dicomtls.BytesObject(fmt.Sprintf("1.2.840.10008.5.1.4.1.1.%d", i/2), fmt.Sprintf("1.2.%d", i), []string{explicitLE, jpegBaseline}[i%2], data))
	}
	for i, r := range (&dicomtls.Dialer{Window: 4}).StoreAll(t.Context(), "tcp", s.addr, objects, nil) {
		require.NoError(t, r.Err, i)
	}
	assert.Len(t, k.kept(), 300)
	s.waitFor("closed released", 4)
	assert.Empty(t, s.strange())
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
