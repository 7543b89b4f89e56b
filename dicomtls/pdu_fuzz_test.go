package dicomtls

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// full has one of everything.
func full() *associate {
	return &associate{
		version: 1, called: "ARCHIVE", calling: "CT 1", application: applicationContext,
		contexts: []contextItem{
			{id: 1, abstract: VerificationSOPClass, transfers: []string{ImplicitVRLittleEndian}},
			{id: 255, abstract: StorageCommitmentSOPClass, transfers: []string{ExplicitVRLittleEndian, ImplicitVRLittleEndian}},
		},
		user: userInfo{
			maxLength: 16384, hasMaxLength: true, classUID: "1.2.3", versionName: "V_1",
			window: &asyncWindow{3, 1}, roles: []roleItem{{"1.2", true, false}, {"1.3", false, true}},
			extended: []extendedItem{{"1.2", []byte{1, 2, 3}}}, common: []commonItem{{"1.2", "1.3", []string{"1.4", "1.5"}}},
			identity: &UserIdentity{IdentityPasscode, []byte("user"), []byte("pass"), true}, response: []byte("ok"),
		},
	}
}

func TestAnAssociationRequestIsReadAsItWasWritten(t *testing.T) {
	for kind := range []byte{pduAssociateRQ: 0, pduAssociateAC: 0} {
		if kind == 0 {
			continue
		}
		want := full()
		if kind == pduAssociateAC {
			for i := range want.contexts {
				want.contexts[i] = contextItem{id: want.contexts[i].id, result: uint8(i), transfers: []string{"1.2"}}
			}
		}
		pdu, err := want.encode(byte(kind))
		require.NoError(t, err)
		got, err := decodeAssociate(pdu[pduHeader:], kind == pduAssociateAC)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

func TestWhatDoesNotFitAnItemIsNotSent(t *testing.T) {
	a := full()
	a.user.identity.Primary = make([]byte, 65_536)
	_, err := a.encode(pduAssociateRQ)
	require.ErrorIs(t, err, errItemTooLong)
	a.user.identity.Primary = make([]byte, 65_500)
	_, err = a.encode(pduAssociateRQ)
	require.ErrorIs(t, err, errItemTooLong)
}

// What is read of a peer's request costs no more than a small multiple of it.
func TestDecodingAllocatesInProportion(t *testing.T) {
	head := strings.Repeat("\x00", 68)
	for name, body := range map[string]string{
		"transfer syntaxes": head + wrap(itemContextRQ, "\x01\x00\x00\x00"+strings.Repeat("\x40\x00\x00\x01"+"1", 13_000)),
		"roles":             head + wrap(itemUserInfo, strings.Repeat("\x54\x00\x00\x04\x00\x00\x01\x01", 8_000)),
		"extended":          head + wrap(itemUserInfo, strings.Repeat("\x56\x00\x00\x02\x00\x00", 10_000)),
		"common":            head + wrap(itemUserInfo, strings.Repeat("\x57\x00\x00\x06\x00\x00\x00\x00\x00\x00", 6_000)),
		"related":           head + wrap(itemUserInfo, wrap(itemCommonExtended, "\x00\x00\x00\x00\xea\x60"+strings.Repeat("\x00\x00", 30_000))),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := decodeAssociate([]byte(body), false)
			runtime.ReadMemStats(&after)
			require.NoError(t, err)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64*len(body)))
		})
	}
}

func wrap(kind byte, body string) string {
	return string([]byte{kind, 0, byte(len(body) >> 8), byte(len(body))}) + body
}

func FuzzAssociate(f *testing.F) {
	for kind := byte(pduAssociateRQ); kind <= pduAssociateAC; kind++ {
		pdu, err := full().encode(kind)
		if kind == pduAssociateAC {
			a := full()
			a.contexts = []contextItem{{id: 1, transfers: []string{"1.2"}}}
			pdu, err = a.encode(kind)
		}
		require.NoError(f, err)
		f.Add(pdu[pduHeader:], kind == pduAssociateAC)
	}
	f.Fuzz(func(t *testing.T, body []byte, accept bool) {
		if len(body) > maxAssociate {
			return
		}
		first, err := decodeAssociate(body, accept)
		if err != nil {
			assert.Nil(t, first)
			return
		}
		kind := byte(pduAssociateRQ)
		if accept {
			kind = pduAssociateAC
		}
		pdu, err := first.encode(kind)
		if err != nil { // more items of one kind than ours would have
			return
		}
		second, err := decodeAssociate(pdu[pduHeader:], accept)
		require.NoError(t, err)
		first.called, first.calling = shortAE(first.called), shortAE(first.calling)
		assert.Equal(t, first, second)
	})
}

// shortAE is what is left of a title with NULs or spaces in its middle.
func shortAE(s string) string { return cleanAE([]byte(s)) }

func FuzzCommand(f *testing.F) {
	f.Add(response(command{}.with(elField, cmdStore).with(elMessageID, 1), StatusOutOfResources, "disk full").appendTo(nil))
	f.Add(reportCommand(1, &CommitReport{}).appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := decodeCommand(b)
		if err != nil {
			assert.Nil(t, first)
			return
		}
		second, err := decodeCommand(first.appendTo(nil))
		require.NoError(t, err)
		require.Len(t, second, len(first))
		for i := range first {
			assert.Equal(t, first[i].tag, second[i].tag)
			assert.True(t, bytes.Equal(first[i].value, second[i].value))
		}
		_ = response(first, StatusSuccess, "").appendTo(nil)
	})
}

func FuzzCommitment(f *testing.F) {
	r := &CommitReport{TransactionUID: "1.2.3", Committed: []Reference{{"1.2", "1.3"}}, Failed: []FailedReference{{Reference{"1.2", "1.4"}, StatusNoSuchObject}}}
	for _, uid := range ownSyntaxes {
		f.Add(encodeReport(uid, r), uid == ExplicitVRLittleEndian)
	}
	f.Fuzz(func(t *testing.T, b []byte, explicit bool) {
		uid := ImplicitVRLittleEndian
		if explicit {
			uid = ExplicitVRLittleEndian
		}
		first, err := decodeReport(b, uid)
		if err != nil {
			assert.Nil(t, first)
			return
		}
		second, err := decodeReport(encodeReport(uid, first), uid)
		require.NoError(t, err)
		assert.Equal(t, first, second)
	})
}

// script is a connection whose other end has said all of data, in pieces.
type script struct {
	net.Conn

	data  []byte
	sizes *rand.Rand // of the pieces
}

func (s *script) SetReadDeadline(time.Time) error { return nil }

func (s *script) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1+s.sizes.IntN(40_000))], s.data)
	s.data = s.data[n:]
	return n, nil
}

// endless is a connection whose other end sends PDUs of 1 MiB for ever, of which
// only the headers are written.
type endless struct {
	net.Conn

	at int // in the current PDU
}

const endlessPDU = pduHeader + pdvHeader + 1<<20

func (e *endless) SetReadDeadline(time.Time) error { return nil }

func (e *endless) Read(p []byte) (int, error) {
	header := appendData(nil, 1, 1<<20, false, false)
	if e.at < len(header) {
		n := copy(p, header[e.at:])
		e.at += n
		return n, nil
	}
	n := min(len(p), endlessPDU-e.at)
	e.at = (e.at + n) % endlessPDU
	return n, nil
}

func TestADataSetMayHaveMoreThan4GiB(t *testing.T) {
	l := newLink(&endless{}, 1<<20+pdvHeader, 0, nil)
	ds := &dataSet{l: l, context: 1, limit: 5 << 29}
	var large *TooLargeError
	require.ErrorAs(t, ds.discard(), &large, "twice the limit")
	assert.Greater(t, ds.n, int64(5<<30))
	assert.Less(t, ds.n, int64(5<<30+1<<20))
	const size = 5<<30 + 2
	s := newSource(&Object{Size: size}, io.LimitReader(forever{}, size))
	p, total, last := make([]byte, 1<<20), 0, false
	for !last {
		n, end, err := s.fragment(p)
		require.NoError(t, err)
		total, last = total+n, end
	}
	assert.Equal(t, size, total)
}

type forever struct{}

func (forever) Read(p []byte) (int, error) { return len(p), nil }

// FuzzPDU reads any stream as an association, in two ways that must agree: in
// whole, and in pieces of any size.
func FuzzPDU(f *testing.F) {
	cmd := command{}.withUID(elAffectedClass, "1.2").with(elField, cmdStore).with(elDataSetType, 1)
	stream := appendDataSet(appendCommand(nil, 1, cmd, 64), 1, make([]byte, 200), 64)
	for _, kind := range []byte{pduReleaseRQ, pduReleaseRP, pduAbort, pduAssociateRJ, 0x99} {
		f.Add(appendShort(bytes.Clone(stream), kind, 0, 2, 1), uint64(kind))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		read := func(seed uint64) (all []byte, ends string) {
			l := newLink(&script{data: bytes.Clone(b), sizes: rand.New(rand.NewPCG(seed, 0))}, 1<<16, time.Hour, nil)
			for {
				l.progress()
				id, cmd, err := l.message()
				if err != nil {
					return all, err.Error()
				}
				all = cmd.appendTo(append(all, id))
				ds := &dataSet{l: l, context: id, limit: 1 << 20, last: !cmd.hasDataSet()}
				var sink bytes.Buffer
				if seed%2 == 0 {
					_, err = ds.WriteTo(&sink)
				} else {
					_, err = io.Copy(&sink, justReader{ds})
				}
				if all = append(all, sink.Bytes()...); err != nil {
					var protocol *protocolError
					if errors.As(err, &protocol) && protocol.reason == abortNotSpecified {
						t.Fatal("a breach without a reason")
					}
					return all, err.Error()
				}
			}
		}
		first, firstEnd := read(seed)
		second, secondEnd := read(seed + 1)
		if len(first) != len(second) || !bytes.Equal(first, second) || firstEnd != secondEnd {
			t.Fatalf("%d bytes and %q, then %d bytes and %q", len(first), firstEnd, len(second), secondEnd)
		}
	})
}
