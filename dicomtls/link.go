package dicomtls

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	readBuffer = 32 << 10 // of every association; data sets are read past it
	// slowestRate is how many bytes of a message buy its sender another second.
	// The slowest links in use, over satellite, have more.
	slowestRate = 4 << 10
	// emptyCost is what a fragment without a byte takes off the time of its
	// message. They are legal, but a peer could send them for ever.
	emptyCost = time.Millisecond
	// defaultMaxPDU is what is announced: DCMTK takes no more (its
	// ASC_MAXIMUMPDUSIZE), and beyond it nothing is gained.
	defaultMaxPDU = 128 << 10
	// unsaidMaxPDU is what is sent to a peer that does not state its maximum:
	// what those of the time when that was common had.
	unsaidMaxPDU = 16 << 10
	// leastMaxPDU holds a PDV with two bytes: fragments have even lengths.
	leastMaxPDU = pdvHeader + 2
)

// What can come instead of a fragment, beside errors of the stream, a
// *protocolError and a peer's *AbortError.
var (
	errReleaseRequest = errors.New("dicomtls: the peer asks for release")
	errReleaseReply   = errors.New("dicomtls: the peer confirms the release")
	errDraining       = errors.New("dicomtls: draining")
	errSilent         = errors.New("dicomtls: the peer took too long")
)

// A fragment is the header of a presentation data value (PS3.8, 9.3.5 and Annex E).
type fragment struct {
	context       uint8
	command, last bool
}

// A link reads PDUs from a connection, and writes them. Reading and writing are
// independent of each other; each has one goroutine at a time.
type link struct {
	// static after construction
	conn    net.Conn
	maxData uint32       // the largest P-DATA-TF that the peer may send
	stop    *atomic.Bool // if set while mayStop: reading ends with errDraining
	timeout time.Duration

	// owned by the reading goroutine
	buf     []byte
	r, w    int    // buf[r:w] has been read from conn and not been used
	pduLeft uint32 // of the P-DATA-TF that is being read
	pdvLeft uint32 // of the fragment that is being read
	cmd     []byte // of the last message
	failed  error  // of conn, for good
	mayStop bool
	timing  timing
}

// timing says how long reading may take. Until a fixed time; or, while a message
// is arriving, for as long as it makes progress: what is left of budget, which
// falls by the time that was waited and grows with the bytes that came.
type timing struct {
	until  time.Time // zero: no limit
	steady bool
	budget time.Duration
}

func newLink(conn net.Conn, maxData uint32, timeout time.Duration, stop *atomic.Bool) *link {
	return &link{conn: conn, maxData: maxData, timeout: timeout, stop: stop, buf: make([]byte, readBuffer)}
}

// waitUntil limits reading from now on to a fixed time; zero: none.
func (l *link) waitUntil(t time.Time) { l.timing = timing{until: t} }

// progress limits reading from now on by the progress that it makes.
func (l *link) progress() {
	if l.timeout <= 0 {
		l.timing = timing{}
		return
	}
	l.timing = timing{steady: true, budget: l.timeout}
}

// earn credits n bytes of a message.
func (l *link) earn(n int) {
	if l.timing.steady {
		l.timing.budget = min(l.timeout, l.timing.budget+time.Duration(n)*(time.Second/slowestRate))
	}
}

// until returns how long to wait for the next bytes, zero for no limit, or why
// not to wait.
func (l *link) until() (time.Time, error) {
	if l.timing.steady {
		if l.timing.budget <= 0 {
			return time.Time{}, errSilent
		}
		return time.Now().Add(l.timing.budget), nil
	}
	if l.mayStop && l.stop != nil && l.stop.Load() {
		return time.Time{}, errDraining
	}
	if t := l.timing.until; !t.IsZero() && !time.Now().Before(t) {
		return t, errSilent
	}
	return l.timing.until, nil
}

// read reads from the connection, at least one byte.
func (l *link) read(p []byte) (int, error) {
	for l.failed == nil {
		until, err := l.until()
		if err != nil {
			return 0, err
		}
		if err := l.conn.SetReadDeadline(until); err != nil {
			return 0, l.fail(err)
		}
		if l.mayStop && l.stop != nil && l.stop.Load() {
			continue // its waking may have been undone
		}
		began := time.Now()
		n, err := l.conn.Read(p)
		if l.timing.steady {
			l.timing.budget -= time.Since(began)
		}
		switch {
		case n > 0:
			return n, nil // an error comes again
		case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		default:
			return 0, l.fail(err)
		}
	}
	return 0, l.failed
}

func (l *link) fail(err error) error {
	l.failed = err
	return err
}

// need reads until there are n bytes in the buffer. At the end of the stream it
// returns io.EOF if there is none, else io.ErrUnexpectedEOF.
func (l *link) need(n int) error {
	for l.w-l.r < n {
		if l.r == l.w {
			l.r, l.w = 0, 0
		} else if l.r+n > len(l.buf) {
			l.w = copy(l.buf, l.buf[l.r:l.w])
			l.r = 0
		}
		m, err := l.read(l.buf[l.w:])
		if l.w += m; err != nil {
			if errors.Is(err, io.EOF) && l.w > l.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// header reads the header of a PDU.
func (l *link) header() (kind byte, length uint32, err error) {
	if err := l.need(1); err != nil {
		return 0, 0, err
	}
	if kind = l.buf[l.r]; kind < pduAssociateRQ || kind > pduAbort {
		return kind, 0, &protocolError{abortUnrecognizedPDU, "a PDU of unknown type"}
	}
	if err := l.need(pduHeader); err != nil {
		return kind, 0, err
	}
	length = binary.BigEndian.Uint32(l.buf[l.r+2:])
	l.r += pduHeader
	return kind, length, nil
}

// body reads what follows a header, growing with what arrives and not with what
// the length promises.
func (l *link) body(length uint32) ([]byte, error) {
	b := make([]byte, 0, min(length, readBuffer))
	for uint32(len(b)) < length { //nolint:gosec // at most maxAssociate
		if err := l.need(1); err != nil {
			return nil, midway(err)
		}
		n := min(l.w-l.r, int(length)-len(b))
		b = append(b, l.buf[l.r:l.r+n]...)
		l.r += n
	}
	return b, nil
}

// midway turns the end of the stream into an unexpected one.
func midway(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next goes to the next fragment, whose pdvLeft bytes readFragment reads. What
// was left of the one before is skipped.
func (l *link) next() (fragment, error) {
	for l.pdvLeft > 0 {
		if _, err := l.readFragment(nil); err != nil {
			return fragment{}, err
		}
	}
	if l.pduLeft == 0 {
		kind, length, err := l.header()
		if err != nil {
			return fragment{}, err
		}
		if kind != pduData {
			return fragment{}, l.control(kind, length)
		}
		if err := checkLength(kind, length, l.maxData); err != nil {
			return fragment{}, err
		}
		l.pduLeft = length
	}
	if l.pduLeft < pdvHeader {
		return fragment{}, invalid("%d bytes where a presentation data value should begin", l.pduLeft)
	}
	if err := l.need(pdvHeader); err != nil {
		return fragment{}, midway(err)
	}
	h := l.buf[l.r : l.r+pdvHeader]
	n := binary.BigEndian.Uint32(h)
	if n < 2 || n > l.pduLeft-4 {
		return fragment{}, invalid("presentation data value of %d bytes, where %d are left", n, l.pduLeft-4)
	}
	l.r += pdvHeader
	l.pduLeft -= 4 + n
	if l.pdvLeft = n - 2; l.pdvLeft == 0 && l.timing.steady {
		l.timing.budget -= emptyCost
		if l.timing.budget <= 0 {
			return fragment{}, errSilent
		}
	}
	return fragment{context: h[4], command: h[5]&1 != 0, last: h[5]&2 != 0}, nil
}

// control reads a PDU other than P-DATA-TF during an association.
func (l *link) control(kind byte, length uint32) error {
	switch kind {
	case pduReleaseRQ, pduReleaseRP, pduAbort:
	default:
		return &protocolError{abortUnexpectedPDU, "an unexpected PDU"}
	}
	if err := checkLength(kind, length, 0); err != nil {
		return err
	}
	if err := l.need(4); err != nil {
		return midway(err)
	}
	source, reason := l.buf[l.r+2], l.buf[l.r+3]
	l.r += 4
	switch kind {
	case pduReleaseRQ:
		return errReleaseRequest
	case pduReleaseRP:
		return errReleaseReply
	default:
		return &AbortError{Source: source, Reason: reason, ByPeer: true}
	}
}

// readFragment reads from the current fragment; with a nil p it skips. pdvLeft
// must not be zero.
func (l *link) readFragment(p []byte) (n int, err error) {
	most := int(l.pdvLeft)
	if p != nil {
		most = min(most, len(p))
	}
	if l.r == l.w {
		if len(p) >= readBuffer/2 && most >= readBuffer/2 { // not worth a copy
			if n, err = l.read(p[:most]); err != nil {
				return 0, midway(err)
			}
			l.pdvLeft -= uint32(n) //nolint:gosec // at most pdvLeft
			l.earn(n)
			return n, nil
		}
		if err := l.need(1); err != nil {
			return 0, midway(err)
		}
	}
	n = min(most, l.w-l.r)
	copy(p, l.buf[l.r:l.r+n])
	l.r += n
	l.pdvLeft -= uint32(n) //nolint:gosec // at most pdvLeft
	l.earn(n)
	return n, nil
}

// message reads the command of the next message. Its data set, if it has one, is
// then to be read before the next call. The command is valid until that.
func (l *link) message() (context uint8, cmd command, err error) {
	l.cmd = l.cmd[:0]
	for first := true; ; first = false {
		f, err := l.next()
		switch {
		case err != nil && first:
			return 0, nil, err
		case errors.Is(err, errReleaseRequest), errors.Is(err, errReleaseReply):
			return 0, nil, &protocolError{abortUnexpectedPDU, "release in the middle of a command"}
		case err != nil:
			return 0, nil, midway(err)
		case !f.command:
			return 0, nil, &protocolError{abortUnexpectedParameter, "a data set where a command should be"}
		case first:
			context = f.context
		case f.context != context:
			return 0, nil, &protocolError{abortUnexpectedParameter, "the presentation context changes in a command"}
		}
		if len(l.cmd)+int(l.pdvLeft) > maxCommand {
			return 0, nil, invalid("command of more than %d bytes", maxCommand)
		}
		for l.pdvLeft > 0 {
			if err := l.need(1); err != nil {
				return 0, nil, midway(err)
			}
			n := min(int(l.pdvLeft), l.w-l.r)
			l.cmd = append(l.cmd, l.buf[l.r:l.r+n]...)
			l.r += n
			l.pdvLeft -= uint32(n) //nolint:gosec // at most pdvLeft
			l.earn(n)
		}
		if f.last {
			break
		}
	}
	cmd, err = decodeCommand(l.cmd)
	return context, cmd, err
}

// write writes whole PDUs. After an error nothing more can be written.
func (l *link) write(b []byte, timeout time.Duration) error {
	var limit time.Time
	if timeout > 0 {
		limit = time.Now().Add(timeout + time.Duration(len(b)/slowestRate)*time.Second)
	}
	if err := l.conn.SetWriteDeadline(limit); err != nil {
		return err
	}
	_, err := l.conn.Write(b)
	return err
}

// appendCommand appends the PDUs of a command, each with one fragment.
func appendCommand(dst []byte, context uint8, cmd command, maxPDU int) []byte {
	text := cmd.appendTo(nil)
	most := fragmentSize(maxPDU)
	for {
		n := min(len(text), most)
		last := n == len(text)
		dst = append(appendData(dst, context, n, true, last), text[:n]...)
		if text = text[n:]; last {
			return dst
		}
	}
}

// fragmentSize returns how long a fragment may be: PS3.8 Annex D.1 bounds the
// length in the PDU's header, and Annex E wants fragments of even length.
func fragmentSize(maxPDU int) int { return (maxPDU - pdvHeader) &^ 1 }

// appendData appends the headers of a P-DATA-TF with one fragment of n bytes.
func appendData(dst []byte, context uint8, n int, isCommand, last bool) []byte {
	dst = append(dst, pduData, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n+pdvHeader)) //nolint:gosec // at most the largest PDU
	dst = binary.BigEndian.AppendUint32(dst, uint32(n+2))         //nolint:gosec // as above
	return append(dst, context, asByte(isCommand)|asByte(last)<<1)
}
