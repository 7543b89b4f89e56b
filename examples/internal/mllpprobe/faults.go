package mllpprobe

import "strings"

const tolerate = "receivers should be liberal: "

// faults are the scenarios of frames with faults, and of bytes that are in none.
var faults = []*Scenario{
	between("space-between", "CR, LF and blanks before and between messages", "\r\n  \r\n"),
	between("nul-between", "NUL bytes before and between messages", "\x00\x00"),
	between("text-between", "a line of log text before and between messages", "connection established\r\n"),
	{
		Name: "lf-after", Rule: mllpR1 + "what is outside of a block is ignored up to the next VT",
		Sent: "a message, LF, a message", Expected: "AA for both",
		play: func(t *talk) { t.send(frame(t.plain())+"\n", frame(t.plain())); t.settle() },
		good: []string{"AA 1-2"}, tolerable: []meaning{{"AA 1, END", "closes on an LF after a frame"}},
	},
	{
		Name: "endless-junk", Rule: "what a peer sends must be bounded: bytes that never become a frame",
		Sent: "128 KiB of text without VT", Expected: "a closed connection",
		play: func(t *talk) { t.sendLong("this is no frame ", 128<<10); t.untilEnd() },
		good: []string{"END"}, tolerable: []meaning{{"silence", "reads on, whatever comes"}},
	},
	{
		Name: "no-cr-then-next", Rule: tolerate + "FS VT is the end of one frame and the begin of another",
		Sent: "a message without its last CR, then a whole one", Expected: "AA for both, or a refusal of the first, or a closed connection",
		play: func(t *talk) { t.send(vt + t.plain() + fs + frame(t.plain())); t.settle() },
		good: []string{"AA 1-2"}, tolerable: []meaning{refusesOne, closes, {"NAK 1", "refuses both in one answer"}},
		bad: []meaning{
			{"AA 1", "took two frames for one message, and acknowledged it"},
			{"AA 2", "dropped the first message without a word"},
		},
	},
	{
		Name: "no-cr-then-silence", Rule: mllpR1 + "a frame is not lost because its last byte is late",
		Sent: "a message without its last CR, which comes after 700 ms", Expected: "AA, when the CR has come or by a timer",
		play: func(t *talk) {
			t.send(vt + t.plain() + fs)
			t.pause()
			t.send(cr)
			t.settle()
		},
		good: []string{"AA 1"}, tolerable: []meaning{closes},
	},
	{
		Name: "no-cr-then-end", Rule: tolerate + "FS at the end of the stream ends the frame",
		Sent: "a message without its last CR, then the end of the stream", Expected: "AA, then a closed connection; or closed without an answer",
		play: func(t *talk) { t.send(vt + t.plain() + fs); t.halfClose(); t.untilEnd() },
		good: []string{"AA 1, END", "END"}, tolerable: []meaning{{"NAK 1, END", "refuses the message"}, {"AA 1|silence", "does not close its end"}},
	},
	{
		Name: "fs-inside", Rule: mllpR1 + "a block ends with FS CR: FS alone does not end it",
		Sent: "a message with FS in its text, then another", Expected: "AA for both, or a refusal of the first",
		play: func(t *talk) { t.send(frame(t.message(fields{more: note("a\x1Cb")})) + frame(t.plain())); t.settle() },
		good: []string{"AA 1-2", "NAK 1, AA 2"}, tolerable: []meaning{closes},
		bad: []meaning{{"AA 2", "dropped the message without a word"}, {"AA 1", "lost the message behind it"}},
	},
	{
		Name: "fs-cr-inside", Rule: mllpR1 + "FS CR ends the block, whatever follows",
		Sent: "a message with FS CR in its text, then another", Expected: "an answer to the first, and AA for the second or a closed connection",
		play: func(t *talk) {
			t.send(frame(t.message(fields{more: note("a\x1C\rb")})))
			t.then()
		},
		good:      []string{"AA 1-2", "NAK 1, AA 2", "(?:AA|NAK) 1, END"},
		tolerable: []meaning{{"(?:AA|NAK) 1, NAK (?:-|2|\\?)(?:, AA 2|, END)?", "takes what follows for a message, and refuses it"}, closes},
		bad:       []meaning{{"(?:AA|NAK) 1", "merged what follows with the next message"}},
	},
	{
		Name: "vt-inside", Rule: tolerate + "VT that begins no header segment is not the begin of a frame",
		Sent: "a message with VT in its text, then another", Expected: "AA for both, or a refusal of the first",
		play: func(t *talk) { t.send(frame(t.message(fields{more: note("a\x0Bb")})) + frame(t.plain())); t.settle() },
		good: []string{"AA 1-2", "NAK 1, AA 2"}, tolerable: []meaning{closes},
		bad: []meaning{{"AA 2", "dropped the message without a word"}},
	},
	{
		Name: "truncated", Rule: "never AA for what did not arrive whole: a VT and MSH inside of a frame begin another",
		Sent: "two thirds of a message, then a whole one", Expected: "a refusal of the first and AA for the second, or a closed connection",
		play: func(t *talk) { t.send(vt + half(t.plain()) + frame(t.plain())); t.settle() },
		good: []string{"NAK 1, AA 2", "NAK 1, END", "END"},
		tolerable: []meaning{
			{"AA 2", "drops the first without a word: a sender that does not look at MSA-2 takes the answer for its"},
			{"NAK (?:1|-)", "takes the two for one message, and refuses it"},
		},
		bad: []meaning{{"(?:AA|CA) (?:1|-).*", "ACKNOWLEDGED A MESSAGE THAT DID NOT ARRIVE: its sender forgets it"}},
	},
	blank("empty-frame", "an empty frame", ""),
	blank("blank-frame", "a frame of CR, LF and a blank", "\r\r\n \r"),
	{
		Name: "commit-blocks", Rule: "MLLP release 2 has blocks of 06 or 15 (hex); in release 1 they are no messages",
		Sent: "VT 06 FS CR, VT 15 FS CR, a message", Expected: "AA for the message only, or a closed connection",
		play: func(t *talk) { t.send(frame("\x06") + frame("\x15")); t.then() },
		good: []string{"AA 1", "END"}, tolerable: []meaning{{"(?:NAK -, ){1,2}(?:AA 1|END)", "refuses the blocks as if they were messages"}},
		bad: []meaning{{"(?:AA|CA) [-?].*", "acknowledged a block that is no message"}},
	},
	{
		Name: "end-in-frame", Rule: "never AA for what did not arrive whole: the stream ends inside of a frame",
		Sent: "two thirds of a message, then the end of the stream", Expected: "a closed connection, without AA",
		play: func(t *talk) { t.send(vt + half(t.plain())); t.halfClose(); t.untilEnd() },
		good: []string{"(?:NAK 1, )?END"}, tolerable: []meaning{{"silence", "does not close its end"}},
		bad: []meaning{{"(?:AA|CA).*", "ACKNOWLEDGED A MESSAGE THAT DID NOT ARRIVE: its sender forgets it"}},
	},
	{
		Name: "endless-frame", Rule: "what a peer sends must be bounded: a frame that never ends", mode: whenLarge,
		Sent: "VT and 80 MiB of text without end", Expected: "a refusal or none, and a closed connection",
		play: func(t *talk) {
			text := t.plain()
			t.send(vt + text)
			t.sendLong(note(strings.Repeat("synthetic ", 20)), 80<<20)
			t.untilEnd()
		},
		good: []string{"(?:NAK 1, )?END"}, tolerable: []meaning{{"silence", "reads on, whatever comes"}, {"NAK 1", "refuses it, and reads on"}},
	},
	{
		Name: "dripping-frame", Rule: "what a peer sends must be bounded: a frame that arrives for ever", mode: whenSlow,
		Sent: "a message without end, a byte a second", Expected: "a closed connection",
		play: func(t *talk) {
			t.send(vt + half(t.plain()))
			for left := t.run.probe.slowTime(); left > 0 && t.ended == "" && t.ctx.Err() == nil; left -= dripTime {
				t.send("x")
				t.watch(dripTime)
			}
		},
		good: []string{"(?:NAK 1, )?END"}, tolerable: []meaning{{"silence", "has no limit of time for a frame, or a longer one: anyone can hold its connections"}},
	},
}

// between are bytes that belong to no frame.
func between(name, sent, junk string) *Scenario {
	return &Scenario{
		Name: name, Rule: mllpR1 + "what is outside of a block is ignored up to the next VT",
		Sent: sent, Expected: "AA for both",
		play: func(t *talk) { t.send(junk+frame(t.plain()), junk+frame(t.plain())); t.settle() },
		good: []string{"AA 1-2"}, tolerable: []meaning{closes},
		bad: []meaning{{"AA 1", "lost the second message"}, {"AA 2", "lost the first message"}},
	}
}

// blank are frames that hold nothing.
func blank(name, sent, text string) *Scenario {
	return &Scenario{
		Name: name, Rule: "a frame without text is no message, and does not harm the next one",
		Sent: sent + ", then a message", Expected: "AA for the message only, or a refusal of the other",
		play: func(t *talk) { t.send(frame(text)); t.then() },
		good: []string{"AA 1", "NAK -, AA 1"}, tolerable: []meaning{{"(?:NAK -, )?END", "closes the connection"}},
		bad: []meaning{{"(?:AA|CA) [-?].*", "acknowledged a frame that holds nothing"}, {"silence|NAK -", "lost the message behind it"}},
	}
}
