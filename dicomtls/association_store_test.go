package dicomtls_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/memnet"
)

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
