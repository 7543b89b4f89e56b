package sqlite

import "time"

const (
	// A sender that waits for its acknowledgement has its next message here
	// within about this time, if it has one.
	intakeInterval = 2 * time.Millisecond

	// A group lets requests come for as long as this part of a commit's time does
	// not pass without one.
	lingerPart = 4

	// Nothing waits longer than this for company, even where syncs take seconds.
	lingerLimit = 20 * time.Millisecond

	// commitTime is a mean in which the latest commit has this part.
	commitTimes = 8
)

// gather takes the requests that have been waiting since the last commit. A group
// without intake waits a little for one, if one is to be expected: completions ride
// along with intake instead of making it wait for a sync of theirs.
func (w *writer) gather() {
	inbox, intake := &w.store.inbox, false
	inbox.settle()
	w.linger()
	w.group, intake = inbox.take(w.group[:0])
	expected := intakeInterval - time.Since(w.lastIntake)
	if intake || len(w.group) == 0 || expected <= 0 || w.condition != well {
		return
	}
	timer := time.NewTimer(expected)
	defer timer.Stop()
	for !intake && len(w.group) < groupRequests {
		select {
		case <-inbox.arrived:
			w.group, intake = inbox.take(w.group)
		case <-timer.C:
			return
		case <-w.store.closing:
			return
		}
	}
}

// linger waits until as many requests are here as callers had one when the last
// group was committed. Those that were answered then are on their way back, if
// they are senders that wait for each acknowledgement: a commit that begins with
// the first few of them has all the others wait for a sync that does little. It
// gives up when none comes for a part of a commit's time, or when a commit's time
// has passed: that is the most that a request waits in vain. With a single caller
// it returns at once.
func (w *writer) linger() {
	inbox, want := &w.store.inbox, min(w.callers, groupRequests)
	n := inbox.len()
	if n == 0 || n >= want || w.condition != well {
		return
	}
	defer inbox.want(1) // whoever lingers takes what waits
	if inbox.want(want) {
		return
	}
	longest := min(w.commitTime, lingerLimit)
	limit, tick := time.NewTimer(longest), time.NewTicker(max(longest/lingerPart, 1))
	defer limit.Stop()
	defer tick.Stop()
	for {
		select {
		case <-inbox.arrived: // or was an old signal
			if inbox.len() >= want {
				return
			}
		case <-tick.C:
			before := n
			if n = inbox.len(); n <= before {
				return
			}
		case <-limit.C:
			return
		case <-w.store.closing:
			return
		}
	}
}
