package mllpprobe

import (
	"cmp"
	"strings"
	"time"
)

// The three bytes of MLLP release 1.
const (
	vt = "\x0B"
	fs = "\x1C"
	cr = "\r"
)

// frame is text as MLLP carries it.
func frame(text string) string { return vt + text + fs + cr }

// fields are what a scenario changes in the ordinary message. A zero field is as
// in that.
type fields struct {
	id      string // MSH-10; "-": none
	typ     string // MSH-9
	version string // MSH-12
	accept  string // MSH-15
	apply   string // MSH-16
	parties string // MSH-4 to MSH-6
	body    string // in place of the segments after MSH
	more    string // after them
}

// newID returns a control id that no other message has: at most 20 characters,
// as MSH-10 allows up to HL7 2.6.
func (t *talk) newID() string { return t.run.newID() }

// message makes a message and numbers it.
func (t *talk) message(f fields) string {
	f.id = cmp.Or(f.id, t.newID())
	if f.id == "-" {
		f.id = ""
	}
	t.sent = append(t.sent, f.id)
	parties := cmp.Or(f.parties, "PROBE|RECEIVER|RECEIVER")
	now := time.Now().Format("20060102150405")
	var b strings.Builder
	b.WriteString(`MSH|^~\&|CAREWIRE-PROBE|` + parties + "|" + now + "||" + cmp.Or(f.typ, "ADT^A01^ADT_A01") + "|" + f.id +
		"|" + t.run.probe.processingID() + "|" + cmp.Or(f.version, "2.5"))
	if f.accept != "" || f.apply != "" {
		b.WriteString("|||" + f.accept + "|" + f.apply)
	}
	b.WriteString(cr)
	if f.body != "" {
		b.WriteString(f.body)
	} else {
		b.WriteString("EVN|A01|" + now + cr + "PID|1||SYNTHETIC-0^^^CAREWIRE-PROBE" + cr + "PV1|1|N" + cr +
			"NTE|1||Synthetic message of a conformance probe. There is no such patient." + cr)
	}
	b.WriteString(f.more)
	return b.String()
}

// plain makes the ordinary message.
func (t *talk) plain() string { return t.message(fields{}) }

// plains makes n of them, framed, one after the other.
func (t *talk) plains(n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(frame(t.plain()))
	}
	return b.String()
}

// note is a segment that carries text, in which the bytes may be any.
func note(text string) string { return "NTE|2||" + text + cr }

// half cuts a message off in its last segment, long after its MSH-10.
func half(text string) string { return text[:len(text)-20] }
