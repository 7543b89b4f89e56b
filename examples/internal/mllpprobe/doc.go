// Package mllpprobe finds out how a listener for HL7 version 2 over MLLP behaves:
// it sends what senders send, good and bad, one scenario to a connection, and
// judges what comes back. It shares no code with package mllp, whose Server is
// one of the listeners that it judges.
//
//	probe := &mllpprobe.Probe{Dial: dial}
//	scenarios, err := probe.Scenarios()
//	err = probe.Run(ctx, scenarios, func(r *mllpprobe.Result) {
//		fmt.Println(r.Grade, r.Name, r.Came, r.Remark)
//	})
//
// # Outcomes
//
// What came is a line of words. The messages of a scenario are numbered from 1 in
// the order in which they were sent, and "AA 1, AE 2, closed" says that the first
// was acknowledged, the second refused, and that the listener then closed the
// connection. "AA 1-3" stands for AA 1, AA 2, AA 3; "AR -" is an answer whose MSA-2 is
// empty, and "AA ?" one whose MSA-2 is, byte for byte, no MSH-10 that was sent.
// "silence" means that nothing came and the connection stayed open. No other
// bytes of the peer's are kept or shown.
//
// # Grades
//
// A scenario is OK where the peer does what the rule asks for. It differs where it
// does something else by which no message is lost: it refuses, or closes, so that
// the sender knows; or a documented choice is not the expected one. It is
// bad where a message is acknowledged that did not arrive, where a good message
// gets no answer, or a wrong one, or one in the wrong order.
//
// A peer that refuses even an ordinary message (it may know no such sender or
// event) can be judged all the same, but for what it does with messages it
// accepts: an answer with the code that the ordinary message got is then as good
// as AA.
//
// # What is sent
//
// Every message is synthetic and says so: its sender is CAREWIRE-PROBE, its
// processing id T or D, it names no person. The receiver files them, more than
// three thousand, as it would any other.
package mllpprobe
