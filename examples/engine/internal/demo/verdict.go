package demo

import (
	"crypto/sha256"
	"fmt"
	"io"
	"text/tabwriter"
)

// line is one sender's own log: what it sent, in order, and what it was told.
// A message that had to be sent again stands in it once.
type line struct {
	sent  []sent
	again int // resends, because an answer had been lost
}

// sent is one message of a line.
type sent struct {
	id     string
	digest [sha256.Size]byte
	acked  bool // an AA for exactly this control id was read
}

// delivered is one message as a destination holds it.
type delivered struct {
	id     string
	digest [sha256.Size]byte
}

// verdict compares what the senders were told with what a destination holds.
type verdict struct {
	sent, acked, delivered       int
	lost, misordered, duplicated int
	altered, resent              int
}

// judge holds the senders' logs against the destination's messages, which are
// in the order of their arrival.
//
// A message is lost if it was acknowledged and is not there. It is out of order
// if it first arrives after one that the same sender sent later. It is
// duplicated if it is there more than once: at least once is the promise, so a
// message whose answer was lost, or that was on its way when the engine was
// killed, may be.
func judge(lines []*line, arrived []delivered) verdict {
	type place struct{ line, index int }
	var v verdict
	places := make(map[string]place)
	for i, l := range lines {
		v.resent += l.again
		for j, s := range l.sent {
			places[s.id] = place{i, j}
			v.sent++
			if s.acked {
				v.acked++
			}
		}
	}
	seen := make(map[string]bool)
	furthest := make([]int, len(lines))
	for i := range furthest {
		furthest[i] = -1
	}
	for _, d := range arrived {
		p, known := places[d.id]
		switch {
		case !known || lines[p.line].sent[p.index].digest != d.digest:
			v.altered++
			continue
		case seen[d.id]:
			v.duplicated++
			continue
		case p.index < furthest[p.line]:
			v.misordered++
		}
		seen[d.id] = true
		v.delivered++
		furthest[p.line] = max(furthest[p.line], p.index)
	}
	for _, l := range lines {
		for _, s := range l.sent {
			if s.acked && !seen[s.id] {
				v.lost++
			}
		}
	}
	return v
}

// held says whether the promise was kept.
func (v verdict) held() bool {
	return v.acked > 0 && v.lost == 0 && v.misordered == 0 && v.altered == 0
}

// write prints the table of verdicts, one column for each destination.
func writeTable(w io.Writer, names []string, verdicts []verdict) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(what string, value func(verdict) int) {
		fmt.Fprintf(t, "%s\t", what)
		for _, v := range verdicts {
			fmt.Fprintf(t, "%d\t", value(v))
		}
		fmt.Fprintln(t)
	}
	fmt.Fprint(t, "\t")
	for _, name := range names {
		fmt.Fprintf(t, "%s\t", name)
	}
	fmt.Fprintln(t)
	row("sent", func(v verdict) int { return v.sent })
	row("acknowledged", func(v verdict) int { return v.acked })
	row("delivered", func(v verdict) int { return v.delivered })
	row("lost", func(v verdict) int { return v.lost })
	row("out of order", func(v verdict) int { return v.misordered })
	row("altered", func(v verdict) int { return v.altered })
	row("duplicated", func(v verdict) int { return v.duplicated })
	return t.Flush()
}
