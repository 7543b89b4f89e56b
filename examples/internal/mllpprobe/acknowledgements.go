package mllpprobe

const (
	original = "HL7 2.x chapter 2, original mode: "
	enhanced = "HL7 2.x chapter 2, enhanced mode (MSH-15 and MSH-16, table 0155): "
)

var notHeeded = meaning{"AA 1(?:-2|, AA 2)?", "does not heed MSH-15 and MSH-16: it answers in original mode"}

// acknowledgements are the scenarios of what an answer is, and when one is due.
var acknowledgements = []*Scenario{
	{
		Name: "ack-frame", Rule: mllpR1 + "an answer is one block, and best leaves in one piece",
		Sent: "a message", Expected: "AA in one frame, in one piece, its segments ended by CR",
		play: func(t *talk) {
			t.send(frame(t.plain()))
			t.settle()
			if len(t.came) == 0 {
				return
			}
			a := t.came[0]
			if a.pieces > 1 {
				t.say("in pieces")
			}
			for _, flaw := range a.flaws {
				t.say(flaw)
			}
		},
		good: []string{"AA 1"},
		tolerable: []meaning{
			{"AA 1, (?:in pieces|LF ends segments|no CR after the last segment|, )+", "senders that are strict will not take that"}, oneEach,
		},
	},
	{
		Name: "ack-own-id", Rule: "HL7 2.x chapter 2, MSH-10 identifies a message: an answer has its own",
		Sent: "two messages", Expected: "AA for both, each with an MSH-10 of its own",
		play: func(t *talk) {
			t.send(frame(t.plain()))
			t.settle()
			t.send(frame(t.plain()))
			t.settle()
			if len(t.came) < 2 || t.came[0].words != "" || t.came[1].words != "" {
				return
			}
			first, second := field(t.came[0].header, 10), field(t.came[1].header, 10)
			switch {
			case first == "" || second == "":
				t.say("without MSH-10")
			case first == t.sent[0] || second == t.sent[1]:
				t.say("with the message's")
			case first == second:
				t.say("with the same")
			}
		},
		good: []string{"AA 1-2"},
		tolerable: []meaning{
			{"AA 1-2, with the message's", "copies the message's MSH-10, which confuses whoever looks for duplicates"},
			{"AA 1-2, without MSH-10", "answers have no MSH-10"},
			closes,
		},
		bad: []meaning{{"AA 1-2, with the same", "all answers have one MSH-10: who looks for duplicates drops all but the first"}},
	},
	{
		Name: "ack-header", Rule: original + "an answer goes back: MSH-3 to MSH-6 change places, MSH-9 is ACK, MSH-11 and MSH-12 stay",
		Sent: "a message", Expected: "AA, its header so",
		play: func(t *talk) {
			t.send(frame(t.message(fields{parties: "PROBE-FAC|PROBE-TO|PROBE-TO-FAC"})))
			t.settle()
			if len(t.came) == 0 || t.came[0].words != "" {
				return
			}
			h := t.came[0].header
			for _, want := range []struct {
				n     int
				value string
				words string
			}{
				{3, "PROBE-TO", "other MSH-3"},
				{4, "PROBE-TO-FAC", "other MSH-4"},
				{5, "CAREWIRE-PROBE", "other MSH-5"},
				{6, "PROBE-FAC", "other MSH-6"},
				{11, t.run.probe.processingID(), "other MSH-11"},
				{12, "2.5", "other MSH-12"},
			} {
				if field(h, want.n) != want.value {
					t.say(want.words)
				}
			}
			if typ := field(h, 9); typ != "ACK" && typ != "ACK^A01" && typ != "ACK^A01^ACK" {
				t.say("other MSH-9")
			}
		},
		good: []string{"AA 1"}, tolerable: []meaning{{"AA 1(?:, other MSH-[0-9]+)+", "fields of the header are not what was sent"}, oneEach},
	},
	{
		Name: "ack-as-message", Rule: original + "an acknowledgement is not acknowledged",
		Sent: "an ACK, then a message", Expected: "AA for the message only",
		play: func(t *talk) {
			t.send(frame(t.message(fields{typ: "ACK^A01^ACK", body: "MSA|AA|" + t.newID() + cr})))
			t.then()
		},
		good: []string{"AA 2"}, tolerable: []meaning{{"END", "closes the connection"}},
		bad: []meaning{{"(?:AA|NAK|CA) [1-].*", "answers an answer: two such systems do so for ever"}},
	},
	{
		Name: "duplicate", Rule: "a sender that got no answer sends again: it must get one",
		Sent: "the same message twice", Expected: "an answer to both",
		play: func(t *talk) {
			text := t.plain()
			t.sent = append(t.sent, t.sent[0])
			t.send(frame(text))
			t.atLeast(1)
			t.send(frame(text))
			t.atLeast(2)
		},
		good: []string{"AA 1, AA 1", "AA 1, NAK 1"}, tolerable: []meaning{closes},
		bad: []meaning{{"AA 1", "does not answer the second: its sender repeats it for ever"}},
	},
	conditions("mode-ne-ne", "NE", "NE", "nothing, then AA for the next message", []string{"AA 2"}, notHeeded),
	conditions("mode-ne-al", "NE", "AL", "AA, as in original mode", []string{"AA 1-2"}),
	conditions("mode-al-ne", "AL", "NE", "CA", []string{"CA 1, AA 2"}, notHeeded),
	conditions("mode-su-ne", "SU", "NE", "CA", []string{"CA 1, AA 2"}, notHeeded),
	conditions("mode-er-ne", "ER", "NE", "nothing, then AA for the next message", []string{"AA 2"}, notHeeded, meaning{"CA 1, AA 2", "takes ER for AL"}),
	conditions("mode-al-al", "AL", "AL", "CA, then AA, here or on another connection", []string{"CA 1, AA 1-2", "CA 1, AA 1, AA 2", "CA 1, AA 2", "CA 1, AA 2, AA 1"}, notHeeded),
}

// conditions are messages that say which answers they want, each followed by an
// ordinary one.
func conditions(name, accept, apply, expected string, good []string, tolerable ...meaning) *Scenario {
	return &Scenario{
		Name: name, Rule: enhanced + "MSH-15 is " + accept + ", MSH-16 is " + apply,
		Sent: "such a message, then an ordinary one", Expected: expected,
		play: func(t *talk) {
			t.send(frame(t.message(fields{accept: accept, apply: apply})))
			t.watch(t.run.probe.linger())
			t.then()
		},
		good: good, tolerable: append(tolerable, meaning{"NAK 1, AA 2", "refuses the message"}, closes),
		bad: []meaning{{"AA 1, CA 1.*", "the application's answer comes before the acceptance"}},
	}
}
