package mllpprobe

import (
	"fmt"
	"strings"
	"time"
)

const mllpR1 = "HL7 MLLP release 1: "

// framing are the scenarios of good frames, however they are cut up.
var framing = []*Scenario{
	{
		Name: "plain", literal: true, Rule: mllpR1 + "a block is VT, text, FS CR; each is answered by one block",
		Sent: "a message in one write", Expected: "AA", play: func(t *talk) { t.send(frame(t.plain())); t.settle() },
		good: []string{"AA 1"},
		tolerable: []meaning{
			{"CA 1.*", "answers in enhanced mode, for which it was not asked"},
			{"NAK 1", "refuses an ordinary message: what it does with those that it accepts cannot be seen"},
			oneEach,
		},
	},
	{
		Name: "byte-by-byte", Rule: mllpR1 + "a block has no relation to TCP's segments",
		Sent: "a message, each byte in a write and mostly in a segment of its own", Expected: "AA",
		play: func(t *talk) { t.send(strings.Split(frame(t.plain()), "")...); t.settle() },
		good: []string{"AA 1"}, tolerable: []meaning{oneEach},
	},
	{
		Name: "three-pieces", Rule: mllpR1 + "a block has no relation to TCP's segments",
		Sent: "VT, text, FS CR in three writes, as many senders do", Expected: "AA",
		play: func(t *talk) { t.send(vt, t.plain(), fs+cr); t.settle() },
		good: []string{"AA 1"}, tolerable: []meaning{oneEach},
	},
	{
		Name: "split-end", Rule: mllpR1 + "a block ends with FS CR, not with FS",
		Sent: "a message up to its FS, and after a pause the CR", Expected: "nothing before the CR, then AA",
		play: func(t *talk) {
			t.send(vt+t.plain(), fs)
			t.watch(t.run.probe.linger())
			if len(t.came) > 0 {
				t.say("before the CR")
			}
			t.send(cr)
			t.settle()
		},
		good:      []string{"AA 1"},
		tolerable: []meaning{{"AA 1, before the CR", "takes FS for the end of the frame"}, oneEach},
	},
	{
		Name: "two-in-one", Rule: mllpR1 + "blocks follow each other; each is answered, in order",
		Sent: "two messages in one write", Expected: "AA for both, in order", play: many(2), good: []string{"AA 1-2"}, bad: notInOrder,
	},
	{
		Name: "ten-in-one", Rule: mllpR1 + "blocks follow each other; each is answered, in order",
		Sent: "10 messages in one write", Expected: "AA for all, in order", play: many(10), good: []string{"AA 1-10"}, bad: notInOrder,
	},
	{
		Name: "thousand-in-one", Rule: mllpR1 + "blocks follow each other; each is answered, in order",
		Sent: "1,000 messages in one write", Expected: "AA for all, in order", play: many(1000), good: []string{"AA 1-1000"}, bad: notInOrder,
	},
	{
		Name: "64-kib", Rule: mllpR1 + "a block has no greatest length",
		Sent: "a message of 64 KiB", Expected: "AA", play: long(64 << 10), good: []string{"AA 1"}, tolerable: limited,
	},
	{
		Name: "1-mib", Rule: mllpR1 + "a block has no greatest length",
		Sent: "a message of 1 MiB", Expected: "AA", play: long(1 << 20), good: []string{"AA 1"}, tolerable: limited,
	},
	{
		Name: "16-mib", Rule: mllpR1 + "a block has no greatest length", mode: whenLarge,
		Sent: "a message of 15.9 MiB", Expected: "AA", play: long(16<<20 - 64<<10), good: []string{"AA 1"}, tolerable: limited,
	},
	{
		Name: "pause", Rule: mllpR1 + "a block may take its time",
		Sent: "a message, with a pause of 700 ms in its middle", Expected: "AA",
		play: func(t *talk) {
			text := frame(t.plain())
			t.send(text[:len(text)/2])
			t.pause()
			t.send(text[len(text)/2:])
			t.settle()
		},
		good: []string{"AA 1"}, tolerable: []meaning{oneEach, {"END", "gives up a frame that pauses"}},
	},
	{
		Name: "slow-bytes", Rule: mllpR1 + "a block may take its time", mode: whenSlow,
		Sent: "a message, 5 ms between its bytes", Expected: "AA",
		play: func(t *talk) {
			for b := range strings.SplitSeq(frame(t.plain()), "") {
				t.send(b)
				t.watch(5 * time.Millisecond)
			}
			t.settle()
		},
		good: []string{"AA 1"}, tolerable: []meaning{oneEach, {"END", "gives up a slow frame"}},
	},
}

var notInOrder = []meaning{
	{`(?:AA \d+(?:-\d+)?, )*AA \d+(?:-\d+)?`, "answers are missing, or in another order than the messages: whoever matches by order takes one for another's"},
	{`(?:AA \d+(?:-\d+)?, )*END`, "answers are missing: messages behind the first in a segment are lost on the way"},
}

var limited = []meaning{{"NAK (?:1|-)(?:, END)?|END", "has a limit of length below that"}, oneEach}

// many sends n messages in one write.
func many(n int) func(*talk) {
	return func(t *talk) { t.send(t.plains(n)); t.settle() }
}

// long sends a message of about n bytes, in segments as long as they are in
// practice.
func long(n int) func(*talk) {
	return func(t *talk) {
		text := t.plain()
		var b strings.Builder
		for i := 0; b.Len()+len(text) < n; i++ {
			fmt.Fprintf(&b, "NTE|%d||%s\r", i+2, strings.Repeat("synthetic ", 20))
		}
		t.send(frame(text + b.String()))
		t.settle()
	}
}
