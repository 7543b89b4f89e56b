package dicomtls_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// The PDUs of the tests are put together here by hand, from PS3.8 9.3, so that
// they do not share the mistakes of the package.

const (
	ctImage      = "1.2.840.10008.5.1.4.1.1.2"
	verification = "1.2.840.10008.1.1"
	commitment   = "1.2.840.10008.1.20.1"
	implicitLE   = "1.2.840.10008.1.2"
	explicitLE   = "1.2.840.10008.1.2.1"
	jpegBaseline = "1.2.840.10008.1.2.4.50"
)

func pdu(kind byte, body ...string) string {
	b := strings.Join(body, "")
	return string([]byte{kind, 0}) + be32(len(b)) + b
}

func be32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }
func be16(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
func le16(n int) string { return string(binary.LittleEndian.AppendUint16(nil, uint16(n))) }
func le32(n int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }

func pduItem(kind byte, body ...string) string {
	b := strings.Join(body, "")
	return string([]byte{kind, 0}) + be16(len(b)) + b
}

// proposal is a presentation context of an A-ASSOCIATE-RQ.
func proposal(id byte, abstract string, syntaxes ...string) string {
	body := []string{string([]byte{id, 0, 0, 0}), pduItem(0x30, abstract)}
	for _, uid := range syntaxes {
		body = append(body, pduItem(0x40, uid))
	}
	return pduItem(0x20, body...)
}

// associateRQ is an A-ASSOCIATE-RQ. Empty fields have what is usual.
type associateRQ struct {
	version         int
	called, calling string
	application     string
	contexts        []string
	user            []string // sub-items
}

func (r associateRQ) String() string {
	pad := func(s, usual string) string {
		if s == "" {
			s = usual
		}
		return (s + strings.Repeat(" ", 16))[:16]
	}
	if r.version == 0 {
		r.version = 1
	}
	if r.application == "" {
		r.application = pduItem(0x10, "1.2.840.10008.3.1.1.1")
	}
	if r.contexts == nil {
		r.contexts = []string{proposal(1, verification, implicitLE), proposal(3, ctImage, explicitLE, implicitLE)}
	}
	if r.user == nil {
		r.user = []string{pduItem(0x51, be32(16384)), pduItem(0x52, "1.2.3"), pduItem(0x55, "TEST")}
	}
	return pdu(1, be16(r.version), "\x00\x00", pad(r.called, "CAREWIRE"), pad(r.calling, "TESTER"), strings.Repeat("\x00", 32),
		r.application, strings.Join(r.contexts, ""), pduItem(0x50, r.user...))
}

// pdv is a presentation data value: header 1 command, 2 last, 3 both.
func pdv(context, header byte, data string) string {
	return be32(len(data)+2) + string([]byte{context, header}) + data
}

func pdata(pdvs ...string) string { return pdu(4, pdvs...) }

// el is a command element.
func el(tag int, value string) string { return le16(0) + le16(tag) + le32(len(value)) + value }

func uid(tag int, value string) string {
	if len(value)%2 != 0 {
		value += "\x00"
	}
	return el(tag, value)
}

// commandSet adds the group length.
func commandSet(elements ...string) string {
	b := strings.Join(elements, "")
	return el(0, le32(len(b))) + b
}

func echoRQ(id int) string {
	return commandSet(uid(2, verification), el(0x100, le16(0x30)), el(0x110, le16(id)), el(0x800, le16(0x101)))
}

func storeRQ(id int, class, instance string) string {
	elements := []string{uid(2, class), el(0x100, le16(1)), el(0x110, le16(id)), el(0x700, le16(0)), el(0x800, le16(1))}
	if instance != "" {
		elements = append(elements, uid(0x1000, instance))
	}
	return commandSet(elements...)
}

// someData is a data set in Explicit VR Little Endian: Modality, CT.
const someData = "\x08\x00\x60\x00CS\x02\x00CT"

// store is a whole C-STORE on context 3.
func store(id int, instance, data string) string {
	return pdata(pdv(3, 3, storeRQ(id, ctImage, instance)), pdv(3, 2, data))
}

var (
	releaseRQ = pdu(5, "\x00\x00\x00\x00")
	releaseRP = pdu(6, "\x00\x00\x00\x00")
)

func abort(source, reason byte) string { return pdu(7, "\x00\x00", string([]byte{source, reason})) }

// peer is the other end of a connection.
type peer struct {
	t testing.TB
	net.Conn
}

// call connects to a server in memory, or over TCP.
func (s *site) call() *peer {
	s.t.Helper()
	var (
		c   net.Conn
		err error
	)
	if s.mem != nil {
		c, err = s.mem.Dial()
	} else {
		c, err = net.Dial("tcp", s.addr)
	}
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return &peer{s.t, c}
}

// associated connects and makes an association with the usual contexts.
func (s *site) associated() *peer {
	s.t.Helper()
	p := s.call()
	p.say(associateRQ{}.String())
	require.Equal(s.t, "AC 1=0 3=0", p.hear())
	return p
}

// say sends bytes; that the other end may not want them shows in what it answers.
func (p *peer) say(s ...string) { io.WriteString(p.Conn, strings.Join(s, "")) }

// next reads a PDU.
func (p *peer) next() (kind byte, body string, err error) {
	p.SetReadDeadline(time.Now().Add(10 * time.Minute)) // of the bubble's clock
	var h [6]byte
	if _, err := io.ReadFull(p.Conn, h[:]); err != nil {
		return 0, "", err
	}
	b := make([]byte, binary.BigEndian.Uint32(h[2:]))
	_, err = io.ReadFull(p.Conn, b)
	return h[0], string(b), err
}

// hear says in words what comes next.
func (p *peer) hear() string {
	p.t.Helper()
	kind, b, err := p.next()
	switch {
	case errors.Is(err, io.EOF):
		return "end"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing"
	case err != nil:
		return "reset"
	}
	switch kind {
	case 1:
		return "RQ"
	case 2:
		return "AC" + accepted(b)
	case 3:
		return fmt.Sprintf("RJ %d,%d,%d", b[1], b[2], b[3])
	case 4:
		return "P " + inWords(b)
	case 5:
		return "release?"
	case 6:
		return "release!"
	case 7:
		return fmt.Sprintf("ABORT %d,%d", b[2], b[3])
	}
	return fmt.Sprintf("PDU %d", kind)
}

// items cuts a body into its items.
func items(b string, each func(kind byte, body string)) {
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint16([]byte(b[2:])))
		each(b[0], b[4:4+n])
		b = b[4+n:]
	}
}

// accepted lists the contexts of an A-ASSOCIATE-AC and what is special in it.
func accepted(b string) string {
	var w strings.Builder
	items(b[68:], func(kind byte, body string) {
		switch kind {
		case 0x21:
			fmt.Fprintf(&w, " %d=%d", body[0], body[2])
		case 0x50:
			items(body, func(kind byte, sub string) {
				switch kind {
				case 0x53:
					fmt.Fprintf(&w, " window=%d", binary.BigEndian.Uint16([]byte(sub)))
				case 0x54:
					fmt.Fprintf(&w, " role=%d%d", sub[len(sub)-2], sub[len(sub)-1])
				case 0x59:
					fmt.Fprintf(&w, " identity=%q", sub[2:])
				}
			})
		}
	})
	return w.String()
}

// inWords tells the command of a message whose PDVs are in b: "8030 0000 to 1".
func inWords(b string) string {
	n := int(binary.BigEndian.Uint32([]byte(b)))
	header, text := b[5], b[6:4+n]
	if header&1 == 0 {
		return "data"
	}
	values := elements(text)
	num := func(tag int) int {
		if v := values[tag]; len(v) >= 2 {
			return int(binary.LittleEndian.Uint16([]byte(v)))
		}
		return 0
	}
	if num(0x100)&0x8000 != 0 {
		return fmt.Sprintf("%04X %04X to %d", num(0x100), num(0x900), num(0x120))
	}
	return fmt.Sprintf("%04X id %d", num(0x100), num(0x110))
}

// elements reads a command set.
func elements(b string) map[int]string {
	values := make(map[int]string)
	for len(b) >= 8 {
		n := int(binary.LittleEndian.Uint32([]byte(b[4:])))
		values[int(binary.LittleEndian.Uint16([]byte(b[2:])))] = b[8 : 8+n]
		b = b[8+n:]
	}
	return values
}

// in runs a test of a server in a bubble of time.
func in(t *testing.T, srv *dicomtls.Server, f func(t *testing.T, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, inMemory(t, srv)) })
}

// talk is a dialogue: what the peer says and what it hears then, in turn.
func (p *peer) talk(lines ...string) []string {
	p.t.Helper()
	var heard []string
	for _, l := range lines {
		p.say(l)
		heard = append(heard, p.hear())
	}
	return heard
}

// until hears until the connection ends.
func (p *peer) until() []string {
	p.t.Helper()
	var heard []string
	for {
		w := p.hear()
		if heard = append(heard, w); slices.Contains([]string{"end", "reset", "nothing"}, w) {
			return heard
		}
	}
}
