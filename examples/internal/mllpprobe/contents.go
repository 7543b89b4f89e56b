package mllpprobe

import "strings"

// contents are the scenarios of what is in a frame.
var contents = []*Scenario{
	{
		Name: "invalid-utf8", Rule: mllpR1 + "the text is bytes: its character set does not move a frame's end",
		Sent: "a message with bytes that are no UTF-8, then another", Expected: "AA for both, or a refusal of the first",
		play: func(t *talk) {
			t.send(frame(t.message(fields{more: note("\xff\xfe\x80\xc3")})) + frame(t.plain()))
			t.settle()
		},
		good: []string{"AA 1-2", "NAK 1, AA 2"}, tolerable: []meaning{closes},
		bad: []meaning{{"AA [12]", "lost one of the two messages"}},
	},
	{
		Name: "byte-order-mark", Rule: tolerate + "UTF-8's byte order mark before MSH is not part of it",
		Sent: "a message behind a byte order mark", Expected: "AA",
		play: func(t *talk) { t.send(frame("\xef\xbb\xbf" + t.plain())); t.settle() },
		good: []string{"AA 1"}, tolerable: []meaning{{"NAK (?:1|-)(?:, END)?", "refuses the message"}, closesInit, oneEach},
	},
	foreign("no-msh", "segments without MSH", "PID|1||SYNTHETIC-0^^^CAREWIRE-PROBE\rNTE|1||Synthetic, of a conformance probe.\r"),
	foreign("json", "JSON", `{"resourceType":"Bundle","meta":{"security":[{"code":"HTEST"}]},"note":"synthetic, of a conformance probe"}`),
	{
		Name: "xml", Rule: "HL7 2.x XML encoding: answered in XML, or not taken",
		Sent: "a message in XML", Expected: "an answer in XML, a refusal, or a closed connection",
		play: func(t *talk) {
			id := t.newID()
			t.sent = append(t.sent, id)
			t.send(frame(`<?xml version="1.0"?><ACK xmlns="urn:hl7-org:v2xml"><MSH><MSH.1>|</MSH.1><MSH.2>^~\&amp;</MSH.2><MSH.3><HD.1>CAREWIRE-PROBE</HD.1></MSH.3>` +
				`<MSH.9><MSG.1>ADT</MSG.1></MSH.9><MSH.10>` + id + `</MSH.10><MSH.11><PT.1>` + t.run.probe.processingID() + `</PT.1></MSH.11></MSH></ACK>`))
			t.then()
		},
		good: []string{"XML, AA 2", "NAK [-1], AA 2", "(?:XML|NAK [-1]), END", "END"}, tolerable: []meaning{{"AA 2", "drops it without a word"}, {"AA 1-2", "answers it in the other encoding"}, {`NAK \?, AA 2`, "refuses it, under a control id of its own making"}},
		bad: []meaning{{"(?:AA|CA) [-?].*", "acknowledged something that it cannot have understood"}},
	},
	{
		Name: "separators", Rule: "HL7 2.x chapter 2, MSH-1 and MSH-2: the sender chooses the separators, and the answer has them",
		Sent: "a message with #~!%@ in place of |^~\\&", Expected: "AA, with the same separators",
		play: func(t *talk) {
			text := strings.NewReplacer("|", "#", "^", "~", "~", "!", `\`, "%", "&", "@").Replace(t.plain())
			t.send(frame(text))
			t.settle()
			if len(t.came) > 0 && t.came[0].words == "" && (field(t.came[0].header, 1) != "#" || field(t.came[0].header, 2) != "~!%@") {
				t.say("with others")
			}
		},
		good: []string{"AA 1"}, tolerable: []meaning{{"AA 1, with others", "answers with separators of its own"}, {"NAK (?:1|-)(?:, with others)?", "refuses the message"}, closesInit, oneEach},
	},
	{
		Name: "truncation-character", Rule: "HL7 2.7 chapter 2, MSH-2: a fifth character, for truncation",
		Sent: "a message of HL7 2.7 with ^~\\&# in MSH-2", Expected: "AA",
		play: func(t *talk) {
			t.send(frame(strings.Replace(t.message(fields{version: "2.7"}), `^~\&`, `^~\&#`, 1)))
			t.settle()
		},
		good: []string{"AA 1"}, tolerable: []meaning{refuses, closesInit, oneEach},
	},
	{
		Name: "lf-segments", Rule: tolerate + "segments that end with LF or CRLF in place of CR",
		Sent: "a message with LF, and one with CRLF", Expected: "AA for both",
		play: func(t *talk) {
			t.send(frame(strings.ReplaceAll(t.plain(), cr, "\n")))
			t.settle()
			t.send(frame(strings.ReplaceAll(t.plain(), cr, "\r\n")))
			t.settle()
		},
		good: []string{"AA 1-2"}, tolerable: []meaning{{"NAK (?:1|-), (?:NAK (?:2|-)|AA 2)|NAK 1-2", "refuses the message"}, {"AA 1, NAK (?:2|-)", "refuses CRLF"}, closes},
	},
	{
		Name: "no-control-id", Rule: "HL7 2.x chapter 2, MSH-10 is required",
		Sent: "a message without MSH-10", Expected: "a refusal with an empty MSA-2",
		play: func(t *talk) { t.send(frame(t.message(fields{id: "-"}))); t.settle() },
		good: []string{"NAK -(?:, END)?"}, tolerable: []meaning{{"AA -", "acknowledges it: a sender cannot tell what was"}, closesInit, {`NAK \?`, "refuses it, under a control id of its own making"}},
		bad: []meaning{{`AA \?`, "acknowledges it under a control id of its own making"}},
	},
	verbatim("id-with-components", "of components, repetitions and escapes", "A^B~C\\T\\&d"),
	verbatim("id-of-199", "of 199 characters, as HL7 2.7 and later allow", strings.Repeat("x", 185)),
	verbatim("id-with-blanks", "that begins and ends with a blank", " x "),
	{
		Name: "two-msh", Rule: "HL7 2.x chapter 2: several messages in one frame need a batch header",
		Sent: "two messages in one frame", Expected: "one refusal, or a closed connection",
		play: func(t *talk) { t.send(frame(t.plain() + t.plain())); t.atLeast(1) },
		good: []string{"NAK [12-](?:, END)?", "END"},
		tolerable: []meaning{
			{"AA [12]", "answers once: whether it took both cannot be seen from here"},
			{"AA 1-2", "takes the frame apart and answers each"},
			{"AA 1, NAK 2|NAK 1, AA 2|NAK 1-2", "takes the frame apart and answers each"},
		},
	},
	batch("batch", "a batch of two messages", "2", "AA for the batch, or for each message, or a refusal",
		[]string{"AA 1", "AA 2-3", "AA 1-3", "NAK [1-](?:, END)?", "NAK 2-3"},
		[]meaning{{"(?:AA|NAK) [23]", "answers only one of the batch's messages, as some are set to"}, closesInit}, nil),
	batch("batch-count", "a batch of two messages whose BTS-1 says three", "3", "a refusal, or a closed connection",
		[]string{"NAK [1-](?:, END)?", "NAK 2-3", "END"},
		[]meaning{{"NAK [23]", "answers only one of the batch's messages"}},
		[]meaning{{"AA.*", "acknowledged a batch of which a message is missing"}}),
	{
		Name: "hl7-2.1", literal: true, Rule: "HL7 2.1 has AA, AE and AR alone",
		Sent: "a message of HL7 2.1", Expected: "AA",
		play: func(t *talk) { t.send(frame(t.message(fields{version: "2.1", typ: "ADT"}))); t.settle() },
		good: []string{"AA 1"}, tolerable: []meaning{{"A[ER] 1(?:, END)?", "refuses the version"}, closesInit, oneEach},
		bad: []meaning{{"C[AER].*", "answers with a code that HL7 2.1 does not have"}},
	},
}

// foreign are frames that hold no message.
func foreign(name, what, text string) *Scenario {
	return &Scenario{
		Name: name, Rule: "HL7 2.x chapter 2: a message begins with MSH; nothing else can be acknowledged",
		Sent: what + " in a frame, then a message", Expected: "a refusal with an empty MSA-2 and AA for the message, or a closed connection",
		play: func(t *talk) { t.send(frame(text)); t.then() },
		good: []string{"NAK -, AA 1", "(?:NAK -, )?END"},
		tolerable: []meaning{
			{"AA 1", "drops it without a word"}, {`NAK \?, (?:AA 1|END)`, "refuses it, under a control id of its own making"},
		},
		bad: []meaning{{"(?:AA|CA) [-?].*", "acknowledged what is no message"}, {"(?:NAK -|silence)", "lost the message behind it"}},
	}
}

// verbatim are control ids that some receivers change.
func verbatim(name, which, id string) *Scenario {
	return &Scenario{
		Name: name, Rule: "HL7 2.x chapter 2, MSA-2 is the MSH-10 of the message, byte for byte",
		Sent: "a message with an MSH-10 " + which, Expected: "AA with the same in MSA-2",
		play: func(t *talk) {
			own := t.newID()
			if strings.HasPrefix(id, " ") {
				own = " " + own
			}
			own += id
			t.send(frame(t.message(fields{id: own[:min(len(own), 199)]})))
			t.settle()
		},
		good: []string{"AA 1"}, tolerable: []meaning{refuses, {"NAK -", "refuses the message without quoting it"}, closesInit, oneEach},
		bad: []meaning{{`(?:AA|NAK) [?-]`, "MSA-2 is not MSH-10 byte for byte: the sender cannot match the answer, and sends again"}},
	}
}

// batch are two messages in the envelope of a batch, which is numbered 1.
func batch(name, sent, count, expected string, good []string, tolerable, bad []meaning) *Scenario {
	return &Scenario{
		Name: name, Rule: "HL7 2.x chapter 2, batch protocol: taken whole, by message, or refused; BTS-1 is the count of its messages",
		Sent: sent, Expected: expected,
		play: func(t *talk) {
			id := t.newID()
			t.sent = append(t.sent, id)
			head := `|^~\&|CAREWIRE-PROBE|PROBE|RECEIVER|RECEIVER|||||` + id + cr
			t.send(frame("FHS" + head + "BHS" + head + t.plain() + t.plain() + "BTS|" + count + cr + "FTS|1" + cr))
			t.atLeast(1)
		},
		good: good, tolerable: tolerable, bad: bad,
	}
}
