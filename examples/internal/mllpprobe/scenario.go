package mllpprobe

import (
	"regexp"
	"slices"
	"strings"
)

// A Scenario is one thing that a sender may do, and what should come of it.
type Scenario struct {
	Name     string // in lower case, for the command line
	Rule     string // what is checked, and where that is from
	Sent     string
	Expected string

	mode    mode
	literal bool // AA means AA: see judge
	play    func(*talk)
	// What came is judged by the first pattern that fits: see match.
	good      []string
	tolerable []meaning
	bad       []meaning // anything else is bad as well, without a remark
}

// meaning says what an outcome tells of the peer.
type meaning struct{ pattern, remark string }

// A mode says with which probes a scenario runs.
type mode int

const (
	always       mode = iota
	onPlain           // only without TLS
	onPlainOfTLS      // only with TLS, on a connection without
	whenLarge
	whenSlow
)

func (m mode) in(p *Probe) bool {
	switch m {
	case onPlain:
		return p.DialPlain == nil
	case onPlainOfTLS:
		return p.DialPlain != nil
	case whenLarge:
		return p.Large
	case whenSlow:
		return p.Slow
	case always:
	}
	return true
}

// String completes the sentence "it runs only ...".
func (m mode) String() string {
	switch m {
	case onPlain:
		return "without --tls"
	case onPlainOfTLS:
		return "with --tls"
	case whenLarge:
		return "with --large"
	case whenSlow:
		return "with --slow"
	case always:
	}
	return "always"
}

// judge grades what came. Of the other readings of it the best counts: see
// talk.readings.
func (s *Scenario) judge(came string, others ...string) (Grade, string) {
	readings := []string{came}
	if !s.literal {
		readings = append(readings, others...)
	}
	for _, reading := range readings {
		if slices.ContainsFunc(s.good, func(p string) bool { return match(p, reading) }) {
			return OK, ""
		}
	}
	for _, reading := range readings {
		for _, m := range s.tolerable {
			if match(m.pattern, reading) {
				return Differs, m.remark
			}
		}
	}
	for _, m := range slices.Concat(s.bad, badOnes) {
		if match(m.pattern, came) {
			return Bad, m.remark
		}
	}
	return Bad, ""
}

// badOnes are outcomes that are bad wherever nothing else is said of them.
var badOnes = []meaning{
	{"silence", "no answer, and the connection stays open: the sender waits for ever"},
	{`.*A[AER] \?.*`, "MSA-2 is not the MSH-10 that was sent: the sender cannot match the answer, and sends again"},
	{`.*(?:AA|CA) -.*`, "acknowledged something without its MSH-10: the sender cannot tell what"},
	{"commit .*", "speaks MLLP release 2, whose commit blocks a sender set to release 1 does not know"},
	{`.*bytes outside a frame.*`, "an answer is not in a frame"},
	{`.*part of a frame.*`, "an answer's frame does not end with FS CR"},
}

// match reports whether an outcome is what a pattern says. That is a regular
// expression for all of it, in which NAK stands for any code that refuses and END
// for the end of the connection.
func match(pattern, came string) bool {
	re := regexp.MustCompile("^(?:" + words.Replace(pattern) + ")$")
	return re.MatchString(came)
}

var words = strings.NewReplacer("NAK", "(?:AE|AR|CE|CR)", "END", "(?:closed|reset)")

// Meanings that several scenarios share.
var (
	refuses    = meaning{"NAK 1(?:, END)?", "refuses the message"}
	closesInit = meaning{"END", "closes the connection: the sender knows nothing arrived"}
	closes     = meaning{"(?:(?:AA|NAK) 1, )?END", "closes the connection: the sender knows what was not answered"}
	refusesOne = meaning{"NAK 1, AA 2", "refuses the first message and goes on"}
	oneEach    = meaning{"AA 1, END", "takes one message for each connection"}
)

// catalogue is every scenario there is, in the order in which they run.
var catalogue = slices.Concat(framing, faults, contents, acknowledgements, connections)
