package dicomtls_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// What breaks the protocol is answered with A-ABORT of the right source and
// reason, and the connection ends; nothing is stored.
func TestBreachesOfTheProtocol(t *testing.T) {
	longLength := func(kind byte) string { return string([]byte{kind, 0, 0xFF, 0xFF, 0xFF, 0xFF}) }
	storage := pdv(3, 3, storeRQ(1, ctImage, "1.2.3"))
	for _, c := range []struct {
		name string
		say  string // in an association; after "first:", instead of a request for one
		hear string
	}{
		{"P-DATA of more than was announced", string([]byte{4, 0}) + be32(128<<10+1), "ABORT 2,6"},
		{"P-DATA with a length of 4 GiB", longLength(4), "ABORT 2,6"},
		{"A-RELEASE-RQ with a length of 4 GiB", longLength(5), "ABORT 2,6"},
		{"A-RELEASE-RQ with 8 bytes", pdu(5, "12345678"), "ABORT 2,6"},
		{"A-ABORT with a length of 4 GiB", longLength(7), "ABORT 2,6"},
		{"A-ASSOCIATE-RQ with a length of 4 GiB", "first:" + longLength(1), "ABORT 2,6"},
		{"a PDU of unknown type", pdu(0x99, "xxxx"), "ABORT 2,1"},
		{"a PDU of unknown type before the association", "first:" + pdu(0x99, "xxxx"), "ABORT 0,0"},
		{"P-DATA before the association", "first:" + pdata(pdv(1, 3, echoRQ(1))), "ABORT 0,0"},
		{"A-RELEASE-RQ before the association", "first:" + releaseRQ, "ABORT 0,0"},
		{"A-ASSOCIATE-AC to an acceptor", pdu(2, "xxxx"), "ABORT 2,2"},
		{"A-ASSOCIATE-RJ to an acceptor", pdu(3, "\x00\x01\x01\x01"), "ABORT 2,2"},
		{"a second A-ASSOCIATE-RQ", associateRQ{}.String(), "ABORT 2,2"},
		{"a stray A-RELEASE-RP", releaseRP, "ABORT 2,2"},
		{"a PDV that is longer than its PDU", pdata(be32(1000) + "\x01\x03xx"), "ABORT 2,6"},
		{"a PDV of one byte", pdata(be32(1) + "\x01\x03"), "ABORT 2,6"},
		{"a PDV of no bytes", pdata(be32(0) + "\x01\x03"), "ABORT 2,6"},
		{"a PDV of 4 GiB", pdata(be32(0xFFFFFFFF) + "\x01\x03"), "ABORT 2,6"},
		{"P-DATA without a byte", pdu(4), "ABORT 2,6"},
		{"P-DATA with 5 bytes", pdu(4, "12345"), "ABORT 2,6"},
		{"bytes after the last PDV", pdata(pdv(1, 1, echoRQ(1)), "123"), "ABORT 2,6"},
		{"a data set before any command", pdata(pdv(3, 2, someData)), "ABORT 2,5"},
		{"a message on an unknown context", pdata(pdv(99, 3, echoRQ(1))), "ABORT 2,5"},
		{"a command in the middle of a data set", pdata(storage, pdv(3, 0, someData), pdv(3, 3, echoRQ(2))), "ABORT 2,5"},
		{"another context in the middle of a data set", pdata(storage, pdv(3, 0, someData), pdv(1, 2, someData)), "ABORT 2,5"},
		{"another context in the middle of a command", pdata(pdv(3, 1, "\x00\x00"), pdv(1, 1, "\x00\x00")), "ABORT 2,5"},
		{"a command of more than 64 KiB", pdata(pdv(1, 1, strings.Repeat("x", 40_000)), pdv(1, 1, strings.Repeat("x", 40_000))), "ABORT 2,6"},
		{"a command without a command field", pdata(pdv(1, 3, commandSet(uid(2, verification)))), "ABORT 2,6"},
		{"a command element that is longer than the command", pdata(pdv(1, 3, "\x00\x00\x00\x01"+le32(5)+"\x30\x00")), "ABORT 2,6"},
		{"a response to no request", pdata(pdv(1, 3, commandSet(el(0x100, le16(0x8030)), el(0x120, le16(7)), el(0x800, le16(0x101)), el(0x900, le16(0))))), "ABORT 2,5"},
		{"A-RELEASE-RQ in the middle of a data set", pdata(storage, pdv(3, 0, someData)) + releaseRQ, "ABORT 2,2"},
		{"A-RELEASE-RQ in the middle of a command", pdata(pdv(3, 1, "\x00\x00")) + releaseRQ, "ABORT 2,2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKeeper()
			in(t, &dicomtls.Server{Store: k}, func(t *testing.T, s *site) {
				var p *peer
				first, isFirst := strings.CutPrefix(c.say, "first:")
				if isFirst {
					p = s.call()
					p.say(first)
				} else {
					p = s.associated()
					p.say(c.say)
				}
				assert.Equal(t, c.hear, p.hear())
				p.Close()
				synctest.Wait()
				if isFirst {
					assert.Equal(t, 1, s.count("rejected protocol_error"), s.told())
				} else {
					e := s.event("closed protocol_error")
					assert.Equal(t, strings.Replace(c.hear, "ABORT ", "A-ABORT(", 1)+")", e.Code)
				}
				assert.Empty(t, k.kept())
				assert.Zero(t, s.srv.Associations())
			})
		})
	}
}

// What is unusual but within the rules, or common, works.
func TestWhatIsLetPass(t *testing.T) {
	echo := echoRQ(1)
	odd := func() string { // every reserved byte of the request set
		b := []byte(associateRQ{}.String())
		b[1], b[8], b[9] = 0xFF, 0xFF, 0xFF
		for i := 42; i < 74; i++ {
			b[i] = 0xFF
		}
		return string(b)
	}
	byteWise := func() string {
		var pdvs []string
		for i := range len(echo) {
			header := byte(1)
			if i == len(echo)-1 {
				header = 3
			}
			pdvs = append(pdvs, pdv(1, header, echo[i:i+1]))
		}
		return pdata(pdvs...)
	}
	for _, c := range []struct{ name, say, hear string }{
		{"a command in PDVs of one byte", byteWise(), "P 8030 0000 to 1"},
		{"an empty PDV first", pdata(pdv(1, 1, ""), pdv(1, 3, echo)), "P 8030 0000 to 1"},
		{"an empty PDV last", pdata(pdv(1, 1, echo)) + pdata(pdv(1, 3, "")), "P 8030 0000 to 1"},
		{"reserved bits in the message control header", pdata(pdv(1, 0xFF, echo)), "P 8030 0000 to 1"},
		{"reserved bytes that are not zero", "first:" + odd(), "AC 1=0 3=0"},
		{"a command and its data set in one PDU", store(5, "1.2.3", someData), "P 8001 0000 to 5"},
		{"fragments of odd length", pdata(pdv(3, 3, storeRQ(1, ctImage, "1.2.3"))) + pdata(pdv(3, 0, someData[:3])) + pdata(pdv(3, 2, someData[3:])), "P 8001 0000 to 1"},
		{"no group length", pdata(pdv(1, 3, echo[12:])), "P 8030 0000 to 1"},
		{"a wrong group length", pdata(pdv(1, 3, el(0, le32(9999))+echo[12:])), "P 8030 0000 to 1"},
		{"message ID 0", pdata(pdv(1, 3, echoRQ(0))), "P 8030 0000 to 0"},
		{"unknown elements in a command", pdata(pdv(1, 3, echo+el(0x5555, "xxxx"))), "P 8030 0000 to 1"},
		{"a UID that is padded with a space", pdata(pdv(3, 3, commandSet(el(2, ctImage+" "), el(0x100, le16(1)), el(0x110, le16(1)), el(0x800, le16(0)), el(0x1000, "1.2.3 "))), pdv(3, 2, someData)), "P 8001 0000 to 1"},
		{"C-CANCEL, and then a request", pdata(pdv(3, 3, commandSet(el(0x100, le16(0xFFF)), el(0x120, le16(1)), el(0x800, le16(0x101))))) + pdata(pdv(1, 3, echo)), "P 8030 0000 to 1"},
		{"A-RELEASE-RQ with bytes after it", releaseRQ + "more", "release!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKeeper()
			in(t, &dicomtls.Server{Store: k}, func(t *testing.T, s *site) {
				if first, ok := strings.CutPrefix(c.say, "first:"); ok {
					p := s.call()
					p.say(first)
					assert.Equal(t, c.hear, p.hear())
					return
				}
				p := s.associated()
				p.say(c.say)
				assert.Equal(t, c.hear, p.hear())
				if !strings.Contains(c.say, releaseRQ) {
					assert.Equal(t, []string{"release!"}, p.talk(releaseRQ))
				}
				p.Close()
				synctest.Wait()
				assert.Empty(t, s.strange())
				for _, data := range k.kept() {
					assert.Equal(t, someData, data)
				}
			})
		})
	}
}

func TestRequestsThatArriveByteByByteWork(t *testing.T) {
	k := newKeeper()
	in(t, &dicomtls.Server{Store: k}, func(t *testing.T, s *site) {
		p := s.call()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for _, b := range []byte(associateRQ{}.String() + store(1, "1.2.3", someData) + releaseRQ) {
				p.Write([]byte{b})
				time.Sleep(time.Millisecond)
			}
		})
		assert.Equal(t, "AC 1=0 3=0", p.hear())
		assert.Equal(t, "P 8001 0000 to 1", p.hear())
		assert.Equal(t, "release!", p.hear())
		assert.Equal(t, map[string]string{"1.2.3": someData}, k.kept())
	})
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	in(t, &dicomtls.Server{Store: newKeeper()}, func(t *testing.T, s *site) {
		p := s.associated()
		p.say(pdata(pdv(1, 3, echoRQ(1))), store(2, "1.2", someData), pdata(pdv(1, 3, echoRQ(3))), releaseRQ)
		assert.Equal(t, []string{"P 8030 0000 to 1", "P 8001 0000 to 2", "P 8030 0000 to 3", "release!"},
			[]string{p.hear(), p.hear(), p.hear(), p.hear()})
	})
}

// Who sends more than was granted is not waited for and not cut off: nothing is read
// before what came first is answered, so that TCP holds it back. All peers do so.
func TestMoreRequestsThanWereGrantedAreHandledOneByOne(t *testing.T) {
	var under, most atomic.Int64
	k := newKeeper()
	handler := dicomtls.StoreHandlerFunc(func(ctx context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
		most.Store(max(most.Load(), under.Add(1)))
		defer under.Add(-1)
		return k.ServeStore(ctx, r)
	})
	in(t, &dicomtls.Server{Store: handler, Window: 2}, func(t *testing.T, s *site) {
		p := s.call()
		p.say(associateRQ{user: []string{pduItem(0x51, be32(16384)), pduItem(0x53, "\x00\x00\x00\x00")}}.String())
		require.Equal(t, "AC 1=0 3=0 window=2", p.hear())
		var want []string
		for id := 1; id <= 6; id++ {
			want = append(want, fmt.Sprintf("P 8001 0000 to %d", id))
		}
		go func() { // a peer that reads only later
			for id := 1; id <= 6; id++ {
				p.say(store(id, fmt.Sprint("1.2.", id), someData))
			}
			p.say(releaseRQ)
		}()
		var got []string
		for range want {
			got = append(got, p.hear())
		}
		assert.Equal(t, want, got)
		assert.Equal(t, "release!", p.hear())
		assert.EqualValues(t, 1, most.Load())
		assert.Len(t, k.kept(), 6)
	})
}

func TestClientsOfOtherProtocolsAreToldApartAndClosedAtOnce(t *testing.T) {
	for say, detail := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":            "HTTP",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": "TLS on a port without TLS",
		"SSH-2.0-OpenSSH_9.2\r\n":                      "SSH",
		"\x0bMSH|^~\\&|":                               "MLLP",
	} {
		t.Run(detail, func(t *testing.T) {
			in(t, &dicomtls.Server{}, func(t *testing.T, s *site) {
				p := s.call()
				began := time.Now()
				p.say(say)
				assert.Equal(t, []string{"ABORT 0,0", "end"}, p.until())
				assert.Less(t, time.Since(began), time.Second)
				synctest.Wait()
				assert.Equal(t, detail, s.event("rejected wrong_protocol").Detail)
			})
		})
	}
}

func TestObjectsOfManyFragmentsArriveToTheByte(t *testing.T) {
	k := newKeeper()
	in(t, &dicomtls.Server{Store: k}, func(t *testing.T, s *site) {
		data := string(imageData("1.2.3", 100_000))
		for _, size := range []int{1, 2, 17, 1000, 16_378, 131_066} {
			p := s.associated()
			go func() {
				p.say(pdata(pdv(3, 3, storeRQ(1, ctImage, "1.2.3"))))
				for rest := data; rest != ""; {
					n := min(size, len(rest), 70_000)
					if size == 1 && len(rest) > 2000 {
						n = min(len(rest), 65_536)
					}
					header := byte(0)
					if n == len(rest) {
						header = 2
					}
					p.say(pdata(pdv(3, header, rest[:n])))
					rest = rest[n:]
				}
			}()
			require.Equal(t, "P 8001 0000 to 1", p.hear(), "fragments of %d", size)
			require.Equal(t, data, k.kept()["1.2.3"], "fragments of %d", size)
			p.say(releaseRQ)
			require.Equal(t, "release!", p.hear())
		}
	})
}

func TestEveryProposedContextIsAnsweredInOrder(t *testing.T) {
	many := func(n int) (contexts []string, answer string) {
		for i := range n {
			id := 2*i + 1
			contexts = append(contexts, proposal(byte(id), ctImage, explicitLE, implicitLE, jpegBaseline, "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5"))
			answer += fmt.Sprintf(" %d=0", id)
		}
		return contexts, "AC" + answer
	}
	all, allAnswers := many(128)
	for _, c := range []struct {
		name     string
		contexts []string
		hear     string
	}{
		{"some that are accepted and some that are not", []string{
			proposal(5, "1.2.840.10008.5.1.4.1.2.2.1", implicitLE), // Study Root FIND
			proposal(1, verification, implicitLE), proposal(255, ctImage, "1.2.3.4"), proposal(9, ctImage, jpegBaseline),
			proposal(7, "1.2.3.4.5", implicitLE),
		}, "AC 5=3 1=0 255=4 9=0 7=3"},
		{"none that is accepted", []string{proposal(1, "1.2.3.4.5", implicitLE)}, "AC 1=3"},
		{"no abstract syntax", []string{pduItem(0x20, "\x01\x00\x00\x00", pduItem(0x40, implicitLE))}, "AC 1=3"},
		{"no transfer syntax", []string{proposal(1, ctImage)}, "AC 1=4"},
		{"the reserved byte that DCMTK sets", []string{pduItem(0x20, "\x01\x00\xFF\x00", pduItem(0x30, verification), pduItem(0x40, implicitLE))}, "AC 1=0"},
		{"as many as there can be", all, allAnswers},
		{"none at all", []string{}, "RJ 1,1,1"},
		{"an even number", []string{proposal(2, verification, implicitLE)}, "ABORT 2,6"},
		{"number 0", []string{proposal(0, verification, implicitLE)}, "ABORT 2,6"},
		{"a number twice", []string{proposal(1, verification, implicitLE), proposal(1, ctImage, implicitLE)}, "ABORT 2,6"},
		{"two abstract syntaxes in one", []string{pduItem(0x20, "\x01\x00\x00\x00", pduItem(0x30, verification), pduItem(0x30, ctImage), pduItem(0x40, implicitLE))}, "ABORT 2,6"},
		{"an item that is longer than the context", []string{pduItem(0x20, "\x01\x00\x00\x00\x30\x00\xff\xff1.2")}, "ABORT 2,6"},
		{"a context of 3 bytes", []string{pduItem(0x20, "\x01\x00\x00")}, "ABORT 2,6"},
		{"storage commitment, which is not offered", []string{proposal(1, commitment, implicitLE)}, "AC 1=3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, &dicomtls.Server{Store: newKeeper()}, func(t *testing.T, s *site) {
				p := s.call()
				p.say(associateRQ{contexts: c.contexts}.String())
				assert.Equal(t, c.hear, p.hear())
			})
		})
	}
}
